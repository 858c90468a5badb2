/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped GEMM over experts whose row counts lie on the device, with signals that tell a consumer which experts are done. */
#include "tests/op/declarations.h"

#define OP grouped_gemm_nt_masked
DIMS(l, m, n, k);

static const struct op_arg args[] = {
    INOUT(out, F16 | BF16 | F32 | E4M3, "l m n"), /* rows from masked_m on are left alone */
    INOUT(dst_signals, U32, "l", .flags = OPTIONAL),
    IN(lhs, E2M1X2 | U8 | E4M3 | E5M2, "e2m1: l m k//2 | fp8: l m k", .by = "ab_kind"),
    IN(lhs_scale, E4M3 | E8M0 | U8, "l ceil(m/128) ceil(k/(4*sf_vec_size)) 32 4 4", .flags = DENSE),
    IN(rhs, LIKE(lhs), "e2m1: l n k//2 | fp8: l n k", .by = "ab_kind"),
    IN(rhs_scale, LIKE(lhs_scale), "l ceil(n/128) ceil(k/(4*sf_vec_size)) 32 4 4", .flags = DENSE),
    IN(masked_m, I32, "l", .fill = LENGTHS(0, "m")),
    IN(alpha, F32, "l", .flags = OPTIONAL),
    ENUM(ab_kind, "e2m1 fp8"),
    INT(sf_vec_size, .value = 16),
    INT(sm_count),
    INT(max_m_tiles),
    {0},
};

static const char *const rules[] = {
    "sf_vec_size == 16 or sf_vec_size == 32", "k % sf_vec_size == 0", "n % 8 == 0", "l <= 8 or sm_count == 0", NULL,
};

static const struct op_range ranges[] = {
    {"l", 1, 12, 0}, {"m", 0, 200, 0}, {"n", 1, 64, 0}, {"k", 2, 256, 2}, {"sf_vec_size", 8, 40, 8}, {"sm_count", 0, 2, 0}, {0}};

DEFINE_OP("gemm", "out[e] = alpha[e] * (lhs[e] * scales) (rhs[e] * scales)^T for the first masked_m[e] rows", .rules = rules,
          .ranges = ranges);
