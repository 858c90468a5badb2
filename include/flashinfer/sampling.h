/* SPDX-License-Identifier: Apache-2.0 */
/* From logits to tokens.
 *
 * Rules for all samplers:
 * - Only positive finite probabilities count. Zero, negative, infinite and NaN entries are never drawn, and
 *   take part in no sum or count. Rows need not sum to 1: a row stands for itself divided by its sum.
 * - A token is drawn by inverting the cumulative distribution in the order of the vocabulary: the first token
 *   whose running sum exceeds u times the row's sum, u uniform in [0, 1).
 * - Sums are exact: an entry p of a row whose largest is below 2^e (e >= -125) counts as the integer
 *   floor(p * 2^(39 - e)). No order of summation can change a result, so a call gives the same tokens every
 *   time, with any number of threads, on CPUs and on GPUs.
 * - u is the first 64 bits, over 2^64, of Philox4x32-10 with key `seed` and counter {offset, stream}. The
 *   stream is the row of the batch if one seed serves all rows, and 0 if each row has a seed of its own: a
 *   request that brings its seed draws the same whatever its place in the batch. (Upstream reads only the
 *   first of such seeds.) One draw uses up one offset: add 1, or more, for the next one.
 * - A row with nothing to draw, or whose index lies outside probs, gives valid = 0 and sample = 0; without
 *   `valid`, sample = -1.
 * - Tensors that stand for numbers hold one value for all rows, or one per row of the batch (not of probs,
 *   where `indices` is given).
 * - At most 16777216 tokens in the vocabulary. */
#ifndef FLASHINFER_SAMPLING_H
#define FLASHINFER_SAMPLING_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = exp(logits / temperature) / sum, row by row, in float32.
 * - NaN logits count as -inf, whose probability is 0. Logits of +inf share the whole mass equally.
 * - A row without any logit above -inf gives zeros: the samplers then report it as not valid.
 * - Temperature 0 is greedy: 1 for the first largest logit, 0 elsewhere. (Upstream gives the uniform
 *   distribution, a defect.)
 * - A temperature tensor is not looked at before the kernel runs: where it is negative or NaN, the row gives
 *   zeros; above 1e36 the row is less exact.
 * - Under FLASHINFER_BATCH_INVARIANT the bits of a row do not depend on how many rows there are, if their strides are
 *   multiples of 16 bytes. */
struct flashinfer_softmax {
    size_t size;
    DLTensor *out;                 /* [batch, vocab] f32; may be logits itself if that is f32 */
    const DLTensor *logits;        /* [batch, vocab] f32, f16 or bf16; rows may be strided */
    flashinfer_number temperature; /* in [0, 1e36], or f32 [1] or [batch]; absent: 1 */
};
FLASHINFER_DECLARE_OP(softmax);

/* One token per row from its distribution. */
struct flashinfer_sampling_from_probs {
    size_t size;
    DLTensor *samples;        /* [batch] i32 or i64, dtype of indices */
    DLTensor *valid;          /* [batch] bool; NULL: invalid rows are told by sample -1 */
    const DLTensor *probs;    /* [num_rows, vocab] f32; rows may be strided */
    const DLTensor *indices;  /* [batch] i32 or i64: row of probs of each sample; NULL: row i for sample i */
    int32_t deterministic;    /* results are deterministic with 0 and 1 alike */
    int32_t check_nan;        /* 0; 1 is UNSUPPORTED: it would have to wait for the device. See `valid` */
    flashinfer_number seed;   /* integer, or i64 or u64 [1] or [batch]; absent: 0 */
    flashinfer_number offset; /* integer, or i64 or u64 [1] or [batch]; absent: 0 */
};
FLASHINFER_DECLARE_OP(sampling_from_probs);

/* What top_p is a share of. */
enum {
    FLASHINFER_TOP_K_FIRST = 0, /* of what top-k left */
    FLASHINFER_JOINT = 1        /* of all the row; a token must pass both tests */
};

/* One token per row from the tokens that pass both filters.
 * - Top-k keeps every token as probable as the k-th largest or more: ties at the threshold all stay, so more
 *   than k may.
 * - Top-p keeps the smallest set of most probable tokens whose sum reaches top_p of the whole; ties at its
 *   threshold all stay. Top_p 0 keeps the most probable token and its ties.
 * - In tensors, which are not looked at before the kernel runs, top_k below 1 and top_p above 1 or NaN do not
 *   filter, and top_p below 0 is 0. */
struct flashinfer_top_k_top_p_sampling_from_probs {
    size_t size;
    DLTensor *samples;          /* [batch] i32 or i64, dtype of indices */
    DLTensor *valid;            /* [batch] bool; NULL: invalid rows are told by sample -1 */
    const DLTensor *probs;      /* [num_rows, vocab] f32; rows may be strided */
    flashinfer_number top_k;    /* integer >= 1, or i32 or i64 [1] or [batch]; absent: does not filter */
    flashinfer_number top_p;    /* in [0, 1], or f32 [1] or [batch]; absent: 1, does not filter */
    const DLTensor *indices;    /* [batch] i32 or i64: row of probs of each sample; NULL: row i for sample i */
    int32_t filter_apply_order; /* FLASHINFER_TOP_K_FIRST or FLASHINFER_JOINT */
    int32_t deterministic;      /* results are deterministic with 0 and 1 alike */
    int32_t check_nan;          /* 0; 1 is UNSUPPORTED: it would have to wait for the device. See `valid` */
    flashinfer_number seed;     /* integer, or i64 or u64 [1] or [batch]; absent: 0 */
    flashinfer_number offset;   /* integer, or i64 or u64 [1] or [batch]; absent: 0 */
};
FLASHINFER_DECLARE_OP(top_k_top_p_sampling_from_probs);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_SAMPLING_H */
