/* SPDX-License-Identifier: Apache-2.0 */
/* What the CUDA kernels for Mamba-2's states share: numbers of either dtype, and how a state is stored, rounded to nearest or at
 * random. T, STATE, RANDOM, PIECE and ACCESS are the kernel's. */
#ifndef MAMBA_STATE_CUH
#define MAMBA_STATE_CUH

#include "vec.cuh"
#include "mamba_args.h"

/* The bits of an element, to be read as f32 or T when they are there: nothing waits for one load before the next. */
DEVICE uint32_t fetch(const void *data, int64_t i, int wide)
{
    if (wide || sizeof(T) == 4)
        return ((const uint32_t *)data)[i];
    return ((const uint16_t *)data)[i];
}

DEVICE float meant(uint32_t bits, int wide)
{
    vec_elements<T, 1> narrow;
    narrow.all.bits = bits;
    return wide ? __uint_as_float(bits) : to_float(narrow.at[0]);
}

#if RANDOM
DEVICE uint16_t random_bits(f16, float x, uint32_t random) { return f16_random_bits(x, random); }
DEVICE uint16_t random_bits(bf16, float x, uint32_t random) { return bf16_random_bits(x, random); }

/* The same bits as random_bits has, unless an element is large, infinite or no number: then false. A sum is cut twice, to float32
 * and to f16, which is as good as once; so no element needs a branch, and half of the work is not the integer units'. */
DEVICE bool round_usual(vec<f16, 4> &to, const float (&x)[4], const struct philox &random)
{
    float sum[4], large = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t bits = __float_as_uint(x[i]), base = max(bits & 0x7f800000u, 113u << 23);
        float more = __uint_as_float(base | (random.word[i] & 0x1fff)) - __uint_as_float(base);
        sum[i] = __uint_as_float(__float_as_uint(__fadd_rz(fabsf(x[i]), more)) | (bits & 0x80000000u));
        large = fmaf(fabsf(x[i]), 0x1p113f, large);
    }
    to.bits = make_uint2(cut2(f16(), sum[0], sum[1]), cut2(f16(), sum[2], sum[3]));
    return large < INFINITY;
}

DEVICE bool round_usual(vec<bf16, 4> &, const float (&)[4], const struct philox &) { return false; }

DEVICE vec<STATE, 4> round_four(float4 x, uint64_t seed, int64_t at)
{
    struct philox random = rounding_bits(seed, at, RANDOM);
    float four[4] = {x.x, x.y, x.z, x.w};
    vec_elements<STATE, 4> rounded;
    if (round_usual(rounded.all, four, random))
        return rounded.all;
#pragma unroll
    for (int i = 0; i < 4; i++)
        rounded.at[i].bits = random_bits(STATE(), four[i], random.word[i]);
    return rounded.all;
}

/* Not inlined: a thread has up to sixteen fours, and compiling them would take seconds. Two at once wait for less. */
#if PIECE == 8
static __device__ __noinline__ vec<STATE, PIECE> round_piece(float4 x, float4 y, uint64_t seed, int64_t at)
{
    vec_accesses<STATE, PIECE, 4> rounded;
    rounded.at[0] = round_four(x, seed, at);
    rounded.at[1] = round_four(y, seed, at + 4);
    return rounded.all;
}
#else
static __device__ __noinline__ vec<STATE, 4> round_piece(float4 x, uint64_t seed, int64_t at)
{
    return round_four(x, seed, at);
}
#endif

/* read: the first element that the piece was read from, in the pool as if it were dense. */
DEVICE void store_piece(STATE *to, const float (&x)[PIECE], uint64_t seed, int64_t read)
{
    vec_elements<STATE, PIECE> rounded;
#if PIECE == 8
    rounded.all = round_piece(make_float4(x[0], x[1], x[2], x[3]), make_float4(x[4], x[5], x[6], x[7]), seed, read);
#elif PIECE == 4
    rounded.all = round_piece(make_float4(x[0], x[1], x[2], x[3]), seed, read);
#else
    vec_elements<STATE, 4> four;
    four.all = round_piece(make_float4(x[0], x[1], x[0], x[1]), seed, read / 4 * 4);
    rounded.at[0] = four.at[read % 4];
    rounded.at[1] = four.at[read % 4 + 1];
#endif
    store_global_by<ACCESS>(to, rounded.all);
}
#else
DEVICE void store_piece(STATE *to, const float (&x)[PIECE], uint64_t, int64_t)
{
    store_by<ACCESS>(to, x);
}
#endif

#endif
