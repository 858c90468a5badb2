/* SPDX-License-Identifier: Apache-2.0 */
/* The op sampling_from_probs. Kernels: sampling_sm80.cu, sampling_cpu.c, shared with the other samplers. */
#include <math.h>

#include "flashinfer/sampling.h"
#include "ops/sampling/sampling_kernels.h"

#define OP sampling_from_probs
DIMS(batch, num_rows, vocab);

static const struct op_arg args[] = {
    OUT(samples, I32 | I64, "batch"),
    OUT(valid, BOOL, "batch", .flags = OPTIONAL),
    IN(probs, F32, "num_rows vocab", .fill = PROBS),
    IN(indices, LIKE(samples), "batch", .flags = OPTIONAL, .required_if = "batch != num_rows",
       .fill = BELOW("num_rows")),
    FLAG(deterministic, .value = 1),
    FLAG(check_nan),
    INT(seed, .min = -INFINITY, .dtype.set = I64 | U64, .shape = "batch", .fill = UNIFORM(0, 1e9)),
    INT(offset, .min = -INFINITY, .dtype.set = I64 | U64, .shape = "batch", .fill = UNIFORM(0, 1e9)),
    {0},
};

static const char *const rules[] = {"vocab > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_sampling_from_probs *a = from;
    *(struct sampling_view *)to = (struct sampling_view){.samples = a->samples,
                                                         .valid = a->valid,
                                                         .probs = a->probs,
                                                         .indices = a->indices,
                                                         .check_nan = a->check_nan,
                                                         .seed = a->seed,
                                                         .offset = a->offset};
}

static const struct op_range ranges[] = {{"batch", 0, 40, 0},
                                         {"num_rows", 1, 40, 0},
                                         {"vocab", 1, 9000, 0},
                                         {"check_nan", 0, 0, 0},
                                         {"seed", -9, 1 << 30, 0},
                                         {"offset", 0, 1 << 30, 0},
                                         {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "batch=1 num_rows=1 vocab=49152 samples:dtype=i32 -indices"},
    {"smollm2_135m_batch", "batch=128 num_rows=128 vocab=49152 samples:dtype=i32 -indices -valid"},
    {"llama_8b", "batch=1 num_rows=1 vocab=128256 samples:dtype=i32 -indices"},
    {"repeated_rows", "batch=64 num_rows=8 vocab=32000 samples:dtype=i64"},
    {"odd", "batch=7 num_rows=7 vocab=1021 samples:dtype=i64 -indices"},
    {0},
};

DEFINE_OP("sampling", "one token per row, drawn from its probabilities", .rules = rules, .view = view,
          .kernels = sampling_kernels, .ranges = ranges, .shapes = shapes, .verify = sampling_verify, .make = sampling_make);
