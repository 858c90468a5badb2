/* SPDX-License-Identifier: Apache-2.0 */
/* An op that computes nothing and has an argument of every kind. */
#include <math.h>

#include "tests/op/declarations.h"

#define OP sample
DIMS(n, heads, pairs);

static const struct op_arg args[] = {
    OUT(out, LIKE(out_dtype), "n heads"),
    INOUT(cache, F16 | BF16, "NHD: pages slots heads | HND: pages heads slots", .by = "layout", .flags = OPTIONAL),
    IN(packed, U8, "pairs//2", .flags = OPTIONAL),
    IN(x, F16 | BF16 | F32, "n heads", .flags = STRIDED),
    IN(dense, LIKE_OR(x, U8 | I8), "n*heads", .flags = OPTIONAL | DENSE),
    IN(indptr, I32 | I64, "n+1", .flags = OPTIONAL | HOST),
    IN(twice, U8, "2*n", .flags = OPTIONAL),
    IN(needs_pairs, U8, "pairs*n", .flags = OPTIONAL),
    NUMBER(scale, .value = 1, .shape = "n"),
    NUMBER(eps, .value = 1e-6),
    NUMBER(offset, .min = -INFINITY),
    NUMBER(probability, .value = 0.5, .max = 1),
    INT(seed, .min = -INFINITY),
    INT(count, .value = 4, .min = 1, .max = 64),
    INT(window, .value = -1, .min = -1, .flags = HOST),
    INT(other_count, .value_of = "count"),
    FLAG(fast),
    ENUM(layout, "NHD HND"),
    DTYPE(out_dtype, F16 | BF16 | F32, .dtype.like = "x"),
    TEXT(note, .flags = OPTIONAL),
    {0},
};

static const char *const rules[] = {"heads % count == 0 or count == 4", "fast == 0 or window >= 0", NULL};

DEFINE_OP("test", "nothing", .rules = rules);
