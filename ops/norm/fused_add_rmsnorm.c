/* SPDX-License-Identifier: Apache-2.0 */
/* The op fused_add_rmsnorm. Its kernels are shared with rmsnorm: rmsnorm_kernels.c. */
#include "flashinfer/norm.h"
#include "harness/reference.h"
#include "ops/norm/rmsnorm_kernels.h"

#define OP fused_add_rmsnorm
DIMS(rows, hidden);

#define SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)

static const struct op_arg args[] = {
    INOUT(input, F16 | BF16, "... hidden", .fill = SPECIAL),
    INOUT(residual, LIKE_OR(input, F32), "... hidden", .fill = SPECIAL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    {0},
};

static const char *const rules[] = {"hidden > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_fused_add_rmsnorm *a = from;
    *(struct rmsnorm_view *)to =
        (struct rmsnorm_view){.out = a->input, .input = a->input, .residual = a->residual, .weight = a->weight, .eps = a->eps};
}

static void reference(const struct reference *r)
{
    const struct flashinfer_fused_add_rmsnorm *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *weight = a->weight->data;
    double *x = a->input->data, *residual = a->residual->data, *bound = reference_bound(r, a->input);

    for (int64_t row = 0; row < d->rows; row++, x += d->hidden, residual += d->hidden, bound += d->hidden) {
        for (int64_t i = 0; i < d->hidden; i++)
            residual[i] = (float)(x[i] + residual[i]); /* by definition the sum is a float32 */
        rmsnorm_reference(x, bound, residual, weight, d->hidden, a->eps);
    }
}

static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_fused_add_rmsnorm *a = call_args(call);
    const struct dims *d = call_dims(call);
    double element = dtype_bytes(tensor_dtype(a->input)), residual = dtype_bytes(tensor_dtype(a->residual));
    *bytes = (double)d->hidden * (2 * (double)d->rows * (element + residual) + element);
    *operations = 0;
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"hidden", 1, 9000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=bf16"},
    {"odd", "rows=7 hidden=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16"},
    {"wide", "rows=64 hidden=16384 dtype=f16"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {"llama_8b_heads", "rows=1024 hidden=128 dtype=bf16"},
    {"f32_residual", "rows=128 hidden=576 dtype=bf16 residual:dtype=f32"},
    {0},
};

DEFINE_OP("norm", "residual += input; input = rmsnorm(residual) * weight", .rules = rules, .kernels = rmsnorm_kernels,
          .view = view, .ranges = ranges, .shapes = shapes, .reference = reference, .cost = cost);
