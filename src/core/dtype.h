/* SPDX-License-Identifier: Apache-2.0 */
/* Element types. A dtype has a number (for kernel constants), a bit (for sets in declarations), a name and a DLPack code. */
#ifndef CORE_DTYPE_H
#define CORE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

#include "flashinfer/dlpack.h"

/* name in text and in kernels, set constant, DLPack code, bits, lanes */
#define DTYPES(X)                                \
    X(f16, F16, kDLFloat, 16, 1)                 \
    X(bf16, BF16, kDLBfloat, 16, 1)              \
    X(f32, F32, kDLFloat, 32, 1)                 \
    X(f64, F64, kDLFloat, 64, 1)                 \
    X(e4m3, E4M3, kDLFloat8_e4m3fn, 8, 1)        \
    X(e5m2, E5M2, kDLFloat8_e5m2, 8, 1)          \
    X(e8m0, E8M0, kDLFloat8_e8m0fnu, 8, 1)       \
    X(e2m1x2, E2M1X2, kDLFloat4_e2m1fn, 4, 2)    \
    X(u8, U8, kDLUInt, 8, 1)                     \
    X(i8, I8, kDLInt, 8, 1)                      \
    X(u32, U32, kDLUInt, 32, 1)                  \
    X(i32, I32, kDLInt, 32, 1)                   \
    X(u64, U64, kDLUInt, 64, 1)                  \
    X(i64, I64, kDLInt, 64, 1)                   \
    X(boolean, BOOL, kDLBool, 8, 1)

enum dtype {
    DTYPE_NONE = 0,
#define DTYPE_NUMBER(name, SET, code, bits, lanes) DTYPE_##SET,
    DTYPES(DTYPE_NUMBER)
#undef DTYPE_NUMBER
    DTYPE_COUNT
};

/* Sets of dtypes, for declarations: F16 | BF16. */
enum {
#define DTYPE_SET(name, SET, code, bits, lanes) SET = 1 << DTYPE_##SET,
    DTYPES(DTYPE_SET)
#undef DTYPE_SET
};

enum dtype dtype_of(DLDataType type);      /* DTYPE_NONE if it is none of ours */
const char *dtype_name(enum dtype dtype);  /* "bf16"; "none" */
enum dtype dtype_by_name(const char *name);

/* "f16, bf16": the names of a set, written to `text`, which it returns. */
enum { DTYPE_SET_NAMES = 16 * DTYPE_COUNT };
const char *dtype_set_names(uint32_t set, const char *separator, char text[DTYPE_SET_NAMES]);

bool dtype_is_float(enum dtype dtype);

extern const DLDataType dtype_types[DTYPE_COUNT];

/* {0} for DTYPE_NONE */
static inline DLDataType dtype_dlpack(enum dtype dtype)
{
    return dtype_types[(unsigned)dtype < DTYPE_COUNT ? dtype : DTYPE_NONE];
}

/* Of one stored element; a packed pair of e2m1 is one element of one byte. */
static inline int dtype_bytes(enum dtype dtype)
{
    const DLDataType type = dtype_dlpack(dtype);
    return type.bits * type.lanes / 8;
}

/* Exact widening, and rounding to nearest, ties to even, saturating where the format has no infinity. */
double dtype_load(enum dtype dtype, const void *element);
void dtype_store(enum dtype dtype, void *element, double value);

#endif
