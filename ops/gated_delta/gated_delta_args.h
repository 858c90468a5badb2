/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the kernels of the gated delta rule. Strides are in elements; the last axis of tensors is contiguous. */
#ifndef GATED_DELTA_ARGS_H
#define GATED_DELTA_ARGS_H

#include "index_list.h"
#include "tensor_map.h"

enum { GATED_DELTA_CHUNK = 64 };

/* Values of the constant GATES: alpha and beta themselves, or A_log, a, dt_bias and b; for each key the logarithm of alpha, or
 * what A_log and dt_bias make it from. */
#define GATES_GIVEN 0
#define GATES_FROM_LOGITS 1
#define GATES_PER_KEY 2
#define GATES_PER_KEY_FROM_LOGITS 3

/* [tokens, heads, head_dim]. Tokens are counted over all sequences; `sequence` is added to the stride of one where sequences have
 * one of their own. */
struct head_rows {
    const void *data;
    int64_t token, head, sequence; /* strides */
};

/* For kernels that are not compiled for one. */
enum state_dtype { STATE_F32, STATE_F16, STATE_BF16, STATE_E4M3, STATE_E5M2 };

/* [rows, num_heads, head_dim, head_dim]. data may be NULL. */
struct state_pool {
    void *data;
    int64_t row, head, line; /* strides */
    int32_t dtype;           /* enum state_dtype */
};

/* [rows, num_heads, steps, any]. data may be NULL. */
struct token_pool {
    void *data;
    int64_t row, head, step; /* strides */
    int64_t steps;
};

struct gated_delta_args {
    struct head_rows q, k, v, output;
    /* [tokens, num_heads] f32 and linear, may be NULL; or a and b, T, before exp and sigmoid; for each key: [.., head_dim], T */
    const void *alpha, *beta;
    int64_t alpha_token, alpha_head, alpha_sequence, beta_token, beta_sequence; /* strides */
    const float *A_log;  /* [num_heads]; for each key: [heads of q] */
    const void *dt_bias; /* [num_heads] T, or f32 if dt_bias_wide; for each key: [heads of q, head_dim] f32, may be NULL */
    struct state_pool initial, final, kept;
    /* Of the row that a sequence starts with, what its first `steps` tokens add to the state along k, f32, and their k and alpha
     * as they were given, T; for each key only. */
    struct token_pool added, given;
    /* Rows of a sequence in `initial`, in `final`, and of each of its tokens in `kept`. NULL: row i, and the i-th of all */
    const int32_t *initial_rows, *final_rows, *kept_rows; /* with kept_starts, kept_rows is counted as that counts */
    const int32_t *accepted;                      /* of a sequence's initial_step rows in initial_rows, which; NULL: the first */
    int64_t initial_step;                         /* 1 without initial_rows */
    struct index_list cu_seqlens;                 /* NULL: num_tokens each */
    struct index_list kept_starts;                /* kept: of each sequence, every kept_every tokens */
    int64_t num_sequences, num_tokens;            /* all tokens, or those of each sequence */
    int64_t kept_every;                           /* 0: none */
    int64_t kept_step;                            /* rows of a sequence in kept_rows */
    int32_t num_heads, q_group, k_group, v_group; /* heads of the state for each head of q, k and v */
    int32_t l2norm, dt_bias_wide;
    int32_t kept_first; /* 1: the initial state is kept, and then those before every kept_every tokens */
    int32_t pads; /* sequences without a row have outputs of 0 */
    int32_t beta_is_logit; /* for each key */
    float scale, lower_bound; /* of the logarithm of alpha for each key: 0: none */
};

/* Row of a sequence in a pool; below 0: none. */
ANYWHERE int64_t state_row(const int32_t *rows, int64_t sequence)
{
    return rows ? rows[sequence] : sequence;
}

ANYWHERE int64_t initial_row(const struct gated_delta_args *a, int64_t sequence)
{
    int64_t last = a->accepted ? a->accepted[sequence] - 1 : 0;
    last = last < 0 ? 0 : last < a->initial_step ? last : a->initial_step - 1;
    return state_row(a->initial_rows, sequence * a->initial_step + last);
}

ANYWHERE int64_t sequence_begin(const struct gated_delta_args *a, int64_t sequence)
{
    return a->cu_seqlens.data ? index_at(&a->cu_seqlens, sequence) : sequence * a->num_tokens;
}

/* Row that keeps the state after a token, the n-th of its sequence from 1 on, or 0 for the initial one if that is kept; below 0:
 * none. */
ANYWHERE int64_t kept_row(const struct gated_delta_args *a, int64_t sequence, int64_t n)
{
    if (!a->kept.data || n % a->kept_every)
        return -1;
    if (!a->kept_starts.data)
        return n <= a->kept_step ? state_row(a->kept_rows, sequence * a->kept_step + n - 1) : -1;
    int64_t at = index_at(&a->kept_starts, sequence) + n / a->kept_every - !a->kept_first;
    return at < index_at(&a->kept_starts, sequence + 1) ? state_row(a->kept_rows, at) : -1;
}

/* ---- kernels that take chunks */

/* What the first one writes for each chunk and head, and the second one reads. T and P are 64 x 64 matrices without the 16 x
 * 16 blocks above the diagonal, in strips of 16 columns as shared memory holds them: columns 16 j to 16 j + 15 of rows 16 j to
 * 63, for j from 0 to 3; rows of 32 bytes whose 16-byte piece c lies at c ^ (row / 4 % 2). */
struct gated_delta_gates {
    float beta[GATED_DELTA_CHUNK];   /* factor of a column of V; on sm_90a with F16_MATRICES, where that is 1, its unit: the
                                      * power of two that a row of P, and so a column of its product, lacks */
    float known[GATED_DELTA_CHUNK];  /* of a column of S K; beta is in it */
    float update[GATED_DELTA_CHUNK]; /* of a column of U, for the state */
    float output[GATED_DELTA_CHUNK]; /* of a column of S Q */
    float end[16];                   /* of S; the others are padding: what a tile consists of begins at 128 bytes */
    int8_t unit[GATED_DELTA_CHUNK];  /* on sm_80 the exponent of the unit, as there is beta beside it */
};

enum { GATED_DELTA_MATRIX_BYTES = 5120 };

struct gated_delta_tile {
    struct gated_delta_gates gates;
    unsigned char t[GATED_DELTA_MATRIX_BYTES], p[GATED_DELTA_MATRIX_BYTES];
};

/* ---- those of sm_90a */

/* Chunks of one sequence that follow each other, and are walked for a head in one go: a whole sequence, or a piece of a long one.
 * The first kernel lists them: those that another piece follows first, all of them halved; then others that are halved; in either
 * part the longest first. Halved: a block has half of the values of a state, so that the longest are done in half the time. */
struct gated_delta_segment {
    int32_t sequence, begin, length; /* tokens */
    int32_t first;                   /* of its chunks in the sequence */
    int32_t tile;                    /* of its first chunk, among those of all sequences */
    int32_t cut;                     /* number of the cut behind it; the one before it, if it has one, is the one before that */
    int32_t ends;                    /* 1: no segment of the sequence follows */
    int32_t padding;
};

struct gated_delta_schedule {
    int32_t num_segments, num_cuts, num_halved;
    int32_t taken; /* by the blocks that walk, beyond the first of each */
};

/* Of 128 threads, which make a chunk's tiles. */
enum { GATED_DELTA_TILES_SMEM = 52 * 1024 };

/* The kernel that walks: stages of K, Q, V, T and P; then output; gates; barriers; items. `halves` of the values of a state
 * fit into a block. */
enum { GATED_DELTA_STAGES = 3, GATED_DELTA_ITEMS = 4 };
#define GATED_DELTA_CHUNK_SMEM(halves)                                                                          \
    (GATED_DELTA_STAGES * (49152 + 8192 * (halves) + (int)sizeof(struct gated_delta_gates)) + 8192 * (halves) + \
     8 * (2 * GATED_DELTA_STAGES + 1 + 2 * (halves) + 2 * GATED_DELTA_ITEMS) +                                  \
     GATED_DELTA_ITEMS * ((int)sizeof(struct gated_delta_segment) + 16))

/* The one that finds what a segment does to the state: stages of K, V and T; gates; barriers. */
#define GATED_DELTA_SEGMENTS_SMEM \
    (GATED_DELTA_STAGES * (32768 + (int)sizeof(struct gated_delta_gates)) + 8 * 2 * GATED_DELTA_STAGES)

enum { GATED_DELTA_STATE = 128 * 128, GATED_DELTA_JOIN_ROWS = 8 };

struct gated_delta_sm90_args {
    struct gated_delta_args a;
    struct tensor_map q, k, v, output;
    struct gated_delta_tile *tiles; /* [num_heads / sharers, max_chunks] */
    struct gated_delta_schedule *schedule;
    struct gated_delta_segment *segments; /* those of the schedule */
    /* [max_cuts, num_heads, 128, 128]: a segment turns a state S into S through + after. Joined, `after` is the state there. */
    float *after, *through;
    /* NULL, or flags that the first kernel raises for the one that walks, which runs beside it: that a chunk of `heads` rows of
     * tiles has them, [num_heads / sharers / heads, max_chunks]; behind them, that there is a schedule. */
    int32_t *ready;
    int32_t max_chunks;     /* of all sequences, at most */
    int32_t heads;          /* of a block of the first kernel, which makes tiles for each; they share q and k */
    int32_t sharers;        /* heads that share tiles, too, as they have neither alpha nor beta */
    int32_t segment_chunks; /* of a segment, at most */
    int32_t multiprocessors;
    int32_t halves; /* of the values of a state, in a block that walks: 1: every segment is halved */
};

/* ---- the kernels of sm_80: tiles of a sequence begin at its first token / 64 + its number, where no other sequence has any. */

#define GATED_DELTA_SM80_TILES_SMEM (32768 + 48 * 144 + 64 * 80 + 2 * 1024 + 2 * 256)

/* The second one: two stages of K and Q, V, a tile. A warp has 16 values of a state. */
#define GATED_DELTA_SM80_SMEM(head_dim, warps) \
    (4 * GATED_DELTA_CHUNK * 2 * (head_dim) + (warps)*GATED_DELTA_CHUNK * 32 + (int)sizeof(struct gated_delta_tile))

struct gated_delta_sm80_args {
    struct gated_delta_args a;
    struct gated_delta_tile *tiles; /* [num_heads / sharers, max_chunks] */
    int32_t max_chunks;             /* of all sequences, at most */
    int32_t heads, sharers;         /* as above */
};

#endif
