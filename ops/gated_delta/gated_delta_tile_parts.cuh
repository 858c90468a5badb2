/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels that make tiles of chunks share: gated_delta_tile_sm80.cuh and gated_delta_tiles_sm90.cu. */
#ifndef GATED_DELTA_TILE_PARTS_CUH
#define GATED_DELTA_TILE_PARTS_CUH

#include "gated_delta_chunk.cuh"
#include "mma.cuh"
#include "vec.cuh"

#define MIN_LOG2 -64.0f /* a smaller alpha counts as 2^-64 */

/* A warp's two n8 halves of a product with a 16 x 16 matrix b. */
DEVICE void multiply(float (&d)[2][4], const uint32_t (&a)[4], const uint32_t (&b)[4])
{
    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
    mma_m16n8k16(d[0], a, low, f16());
    mma_m16n8k16(d[1], a, high, f16());
}

DEVICE void pack_f16(uint32_t (&a)[4], const float (&d)[2][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = pack2(f16(), d[i / 2][i % 2 * 2], d[i / 2][i % 2 * 2 + 1]);
}

/* A 16 x 16 block of an inverse, -z: in f16 for the next level, or in T for the tile. */
template <typename Type> DEVICE void store_inverse(uint32_t to, const float (&z)[2][4], Type type)
{
    stmatrix_x4(to, pack2(type, -z[0][0], -z[0][1]), pack2(type, -z[0][2], -z[0][3]), pack2(type, -z[1][0], -z[1][1]),
                pack2(type, -z[1][2], -z[1][3]));
}

/* A column of the inverse of I + a block of 8 x 8, of which rows are so many floats apart. */
DEVICE void substitute(float (&x)[8], const float *block, int stride, int column)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float sum = i == column ? 1.0f : 0.0f;
        const float *row = block + i * stride;
        float4 low = *(const float4 *)row, high = *(const float4 *)(row + 4);
        const float factor[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int j = 0; j < i; j++)
            sum -= factor[j] * x[j];
        x[i] = sum;
    }
}

/* What couples two of them, by a warp: lower times coupling times upper. A lane has lower[row][2 pair ..], where row is lane / 4
 * and pair lane % 4, and [2 pair ..][row] of the others. */
DEVICE void couple_8(float (&z)[4], float2 lower, const float (&coupling)[2], const float (&upper)[2])
{
    float y[4] = {};
    const float a1[4] = {lower.x, 0.0f, lower.y, 0.0f};
    mma_m16n8k8(y, a1, coupling);
    const float a0[4] = {y[0], 0.0f, y[1], 0.0f};
    mma_m16n8k8(z, a0, upper);
}

/* The same of 16 x 16 blocks in shared memory. */
DEVICE void couple_16(float (&z)[2][4], uint32_t lower, uint32_t coupling, uint32_t upper)
{
    uint32_t a[4], b[4];
    float y[2][4] = {};
    ldmatrix_x4(a, lower);
    ldmatrix_x4_trans(b, coupling);
    multiply(y, a, b);
    ldmatrix_x4_trans(b, upper);
    pack_f16(a, y);
    multiply(z, a, b);
}

/* Sums from the first token on, which are also written; a lane has its own token and the one 32 after. */
DEVICE void sum_tokens(float (&c)[2], float *sums)
{
    int lane = lane_id();
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        float low = __shfl_up_sync(0xffffffffu, c[0], step), high = __shfl_up_sync(0xffffffffu, c[1], step);
        c[0] += lane >= step ? low : 0.0f;
        c[1] += lane >= step ? high : 0.0f;
    }
    c[1] += __shfl_sync(0xffffffffu, c[0], 31);
    sums[lane] = c[0];
    sums[lane + 32] = c[1];
}

/* Keeps the unit that the row of P of a token lacks: each tiles' kernel in its own way. */
DEVICE void put_unit(struct gated_delta_gates *gates, int token, float unit);

/* Q K^T, a thread's row and the one 8 further, as f16 takes it, and the units to the gates of up to four heads. */
DEVICE void lower_queries(float (&qk)[32], struct gated_delta_tile *tile, int max_chunks, int heads, int row)
{
    float2 unit = take_units(qk);
    int h = lane_id() % 4;
    if (h < heads) {
        struct gated_delta_gates *gates = &tile[(int64_t)h * max_chunks].gates;
        put_unit(gates, row, unit.x);
        put_unit(gates, row + 8, unit.y);
    }
}

/* The reciprocal of the norm of a row of so many 16-byte pieces in slabs. */
DEVICE float inverse_norm(const unsigned char *slabs, int row, int pieces)
{
    float sum = 1e-6f;
    for (int piece = 0; piece < pieces; piece++) {
        uint4 x = *(const uint4 *)(slabs + piece / 8 * SLAB_BYTES + row * 128 + ((piece ^ row) % 8) * 16);
        const uint32_t word[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 two = unpack2(T(), word[i]);
            sum += two.x * two.x + two.y * two.y;
        }
    }
    return rsqrtf(sum);
}

#endif
