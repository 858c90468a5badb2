/* SPDX-License-Identifier: Apache-2.0 */
/* The op gelu_and_mul. Its kernels are shared by the gated activations: gated_activation_kernels.c. */
#include "ops/activation/gated_activation_kernels.h"

#define OP gelu_and_mul
DIMS(rows, intermediate);

#define SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)

static const struct op_arg args[] = {
    OUT(out, LIKE_OR(input, E4M3 | E5M2), "... intermediate"),
    IN(input, F16 | BF16, "... 2*intermediate", .fill = SPECIAL),
    NUMBER(scale, .value = 1, .min = 1e-10, .max = 1e10, .dtype.set = F32, .fill = UNIFORM(0.01, 10)),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_gelu_and_mul *a = from;
    *(struct gated_activation_view *)to =
        (struct gated_activation_view){.out = a->out, .input = a->input, .scale = a->scale, .activation = ACTIVATION_GELU};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"intermediate", 1, 9000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "rows=1 intermediate=1536 dtype=bf16"},
    {"odd", "rows=7 intermediate=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 intermediate=14336 dtype=bf16"},
    {"llama_8b_prefill", "rows=4096 intermediate=14336 dtype=bf16"},
    {"narrow", "rows=16384 intermediate=4096 dtype=f16"},
    {"llama_8b_e4m3", "rows=4096 intermediate=14336 input:dtype=bf16 out:dtype=e4m3 scale=0.5"},
    {"qwen3_e5m2", "rows=128 intermediate=3072 input:dtype=f16 out:dtype=e5m2"},
    {0},
};

DEFINE_OP("activation", "out = gelu(first half of input) * second half, over the last dimension",
          .kernels = gated_activation_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = gated_activation_reference);
