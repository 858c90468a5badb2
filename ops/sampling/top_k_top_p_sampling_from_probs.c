/* SPDX-License-Identifier: Apache-2.0 */
/* The op top_k_top_p_sampling_from_probs. Kernels: sampling_sm80.cu, sampling_cpu.c, shared with the other
 * samplers. */
#include <math.h>

#include "flashinfer/sampling.h"
#include "ops/sampling/sampling_kernels.h"

#define OP top_k_top_p_sampling_from_probs
DIMS(batch, num_rows, vocab);

static const struct op_arg args[] = {
    OUT(samples, I32 | I64, "batch"),
    OUT(valid, BOOL, "batch", .flags = OPTIONAL),
    IN(probs, F32, "num_rows vocab", .fill = PROBS),
    INT(top_k, .min = 1, .flags = OPTIONAL, .dtype.set = I32 | I64, .shape = "batch",
        .fill = UNIFORM(-1, 300)),
    NUMBER(top_p, .value = 1, .max = 1, .dtype.set = F32, .shape = "batch", .fill = UNIFORM(-0.1, 1.1)),
    IN(indices, LIKE(samples), "batch", .flags = OPTIONAL, .required_if = "batch != num_rows",
       .fill = BELOW("num_rows")),
    ENUM(filter_apply_order, "TOP_K_FIRST JOINT"),
    FLAG(deterministic, .value = 1),
    FLAG(check_nan),
    INT(seed, .min = -INFINITY, .dtype.set = I64 | U64, .shape = "batch", .fill = UNIFORM(0, 1e9)),
    INT(offset, .min = -INFINITY, .dtype.set = I64 | U64, .shape = "batch", .fill = UNIFORM(0, 1e9)),
    {0},
};

static const char *const rules[] = {"vocab > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_top_k_top_p_sampling_from_probs *a = from;
    *(struct sampling_view *)to = (struct sampling_view){.samples = a->samples,
                                                         .valid = a->valid,
                                                         .probs = a->probs,
                                                         .indices = a->indices,
                                                         .top_k = a->top_k,
                                                         .top_p = a->top_p,
                                                         .has_filter = true,
                                                         .joint = a->filter_apply_order == FLASHINFER_JOINT,
                                                         .check_nan = a->check_nan,
                                                         .seed = a->seed,
                                                         .offset = a->offset};
}

static const struct op_range ranges[] = {
    {"batch", 0, 30, 0},   {"num_rows", 1, 30, 0},   {"vocab", 1, 9000, 0},     {"check_nan", 0, 0, 0},
    {"top_k", 1, 9000, 0}, {"seed", -9, 1 << 30, 0}, {"offset", 0, 1 << 30, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "batch=1 num_rows=1 vocab=49152 top_k=50 top_p=0.9 samples:dtype=i32 -indices"},
    {"smollm2_135m_top_p", "batch=1 num_rows=1 vocab=49152 top_k=49152 top_p=0.9 samples:dtype=i32 -indices"},
    {"smollm2_135m_batch",
     "batch=128 num_rows=128 vocab=49152 top_k=50 top_p=0.9 samples:dtype=i32 -indices -valid"},
    {"llama_8b", "batch=1 num_rows=1 vocab=128256 top_k=50 top_p=0.95 samples:dtype=i32 -indices"},
    {"llama_8b_joint", "batch=16 num_rows=16 vocab=128256 top_k=2000 top_p=0.95 filter_apply_order=JOINT "
                       "samples:dtype=i32 -indices"},
    {"repeated_rows", "batch=64 num_rows=8 vocab=32000 top_k=5 top_p=0.5 samples:dtype=i64"},
    {"odd", "batch=7 num_rows=7 vocab=1021 top_k=700 top_p=0.999 samples:dtype=i64 -indices"},
    {0},
};

DEFINE_OP("sampling", "one token per row, drawn from those of its probabilities that pass top-k and top-p", .rules = rules,
          .view = view, .kernels = sampling_kernels, .ranges = ranges, .shapes = shapes, .verify = sampling_verify,
          .make = sampling_make);
