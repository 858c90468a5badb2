/* SPDX-License-Identifier: Apache-2.0 */
/* The k largest of each row; its kernels want a workspace. */
#include "tests/op/declarations.h"

#define OP top_k
DIMS(num_rows, d, k);

static const struct op_arg args[] = {
    OUT(values, LIKE(input), "num_rows k"),
    OUT(indices, I64, "num_rows k"),
    IN(input, F32 | F16 | BF16, "num_rows d"),
    INT(k, .min = 1),
    FLAG(sorted),
    FLAG(deterministic),
    ENUM(tie_break, "NONE SMALL LARGE"),
    {0},
};

static const char *const rules[] = {"k <= d", "tie_break == 0 or deterministic == 1", NULL};
static const struct op_range ranges[] = {{"num_rows", 0, 64, 0}, {"d", 1, 4096, 0}, {"k", 1, 256, 0}, {0}};

DEFINE_OP("sampling", "values, indices = the k largest of each row", .rules = rules, .ranges = ranges);
