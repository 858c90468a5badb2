/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels share that take the gated delta rule by chunks of 64 tokens. Rows of q, k and v lie in shared memory in slabs of
 * 64 elements: 64 rows of 128 bytes, whose 16-byte piece c lies at c ^ (row % 8). */
#ifndef GATED_DELTA_CHUNK_CUH
#define GATED_DELTA_CHUNK_CUH

#include "gated_delta_args.h"
#include "types.cuh"

enum { CHUNK = GATED_DELTA_CHUNK, SLAB_BYTES = CHUNK * 128 };

DEVICE int lane_id()
{
    return threadIdx.x % 32;
}
DEVICE int warp_id()
{
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
}

/* The largest power of two up to x, from 2^-60, below which it is 1, to 2^126: one that has a reciprocal. */
DEVICE float unit_of(float x)
{
    uint32_t bits = __float_as_uint(x) & 0x7f800000;
    return __uint_as_float(bits < 0x21800000 ? 0x3f800000 : min(bits, 0x7e800000));
}

DEVICE float over_unit(float unit)
{
    return __uint_as_float(0x7f000000 - __float_as_uint(unit));
}

/* Divides a row of 64 and the one 8 further, in accumulators, by the units of their largest elements, so that f16 takes them
 * whatever they are. Returns the units. */
DEVICE float2 take_units(float (&x)[32])
{
    float2 most = {};
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
        most.x = fmaxf(most.x, fmaxf(fabsf(x[i]), fabsf(x[i + 1])));
        most.y = fmaxf(most.y, fmaxf(fabsf(x[i + 2]), fabsf(x[i + 3])));
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        most.x = fmaxf(most.x, __shfl_xor_sync(0xffffffffu, most.x, step));
        most.y = fmaxf(most.y, __shfl_xor_sync(0xffffffffu, most.y, step));
    }
    most = make_float2(unit_of(most.x), unit_of(most.y));
#pragma unroll
    for (int i = 0; i < 32; i++)
        x[i] *= over_unit(i / 2 % 2 ? most.y : most.x);
    return most;
}

#endif
