/* SPDX-License-Identifier: Apache-2.0 */
/* 64 values of a state as accumulators of a warpgroup, and what it meets: fragments, tiles of a chunk, the ring of stages. */
#ifndef GATED_DELTA_STATE_SM90_CUH
#define GATED_DELTA_STATE_SM90_CUH

#include "gated_delta_sm90.cuh"
#include "gated_delta_state.cuh"

enum { STAGES = GATED_DELTA_STAGES, WARPS = 4, STRIP_BYTES = CHUNK * 32, MATRIX_BYTES = 4 * STRIP_BYTES };

#define AT(field) shared_address(&sm->field)

/* Places of a thread: its row and column of pairs in fragments, and where its lane's row and 16-byte piece lie in a tile of 64
 * tokens by 64 values. */
struct place {
    int row, pair, offset;
};

DEVICE struct place make_place()
{
    int thread = threadIdx.x % 128, lane = lane_id();
    int token = lane / 16 * 8 + lane % 8, piece = thread / 32 * 2 + lane / 8 % 2;
    return {thread / 32 * 16 + lane / 4, lane % 4, token * 128 + ((piece ^ token % 8) << 4)};
}

/* Steps of 16 of k, in 16 bytes: in a tile of two slabs, and in T and P. */
DEVICE int step_128(int k)
{
    return (k / 4 * SLAB_BYTES + k % 4 * 32) / 16;
}
DEVICE int step_64(int k)
{
    return k * STRIP_BYTES / 16;
}

/* Rows of a state: those of the thread, `line` elements apart. */
template <typename E> DEVICE void load_state(float (&s)[64], const E *from, int64_t line, const struct place &p)
{
    from += p.row * line + 2 * p.pair;
#pragma unroll
    for (int j = 0; j < 32; j++) {
        float two[2];
        load(two, from + j % 2 * 8 * line + j / 2 * 8);
        s[2 * j] = two[0];
        s[2 * j + 1] = two[1];
    }
}

template <typename E> DEVICE void store_state(const float (&s)[64], E *to, int64_t line, const struct place &p)
{
    to += p.row * line + 2 * p.pair;
#pragma unroll
    for (int j = 0; j < 32; j++) {
        const float two[2] = {s[2 * j], s[2 * j + 1]};
        store(to + j % 2 * 8 * line + j / 2 * 8, two);
    }
}

/* V^T of a chunk, as fragments. */
DEVICE void load_values(uint32_t (&v)[16], uint32_t values, const struct place &p)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, values + p.offset + j * 2048);
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[4 * j + i] = r[i];
    }
}

/* The products of a chunk, each a group that is begun here and waited for where it is used. Matrices are described as wgmma takes
 * them; the state and U stand in fragments. */

/* x = S K^T */
DEVICE void multiply_keys(float (&x)[32], const uint32_t (&state)[32], uint64_t keys)
{
    wgmma_pin(x);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; k++)
        wgmma_rows(x, state + 4 * k, keys + step_128(k), k != 0, T());
    wgmma_commit();
}

/* x = E M or, where it is added, x += E M; M is T or P */
DEVICE void multiply_matrix(float (&x)[32], const uint32_t (&e)[16], uint64_t matrix, bool adds)
{
    wgmma_pin(x);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_rows(x, e + 4 * k, matrix + step_64(k), adds || k != 0, Matrix());
    wgmma_commit();
}

/* s += U K */
DEVICE void add_update(float (&s)[64], const uint32_t (&update)[16], uint64_t key_columns)
{
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_columns(s, update + 4 * k, key_columns + k * 128, T());
    wgmma_commit();
}

/* x, S K^T, becomes E = beta (V^T - S K^T); v: fragments of V^T. */
DEVICE void subtract_all(float (&x)[32], const uint32_t (&v)[16], const float2 (&beta)[8])
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float2 two = unpack2(T(), v[i]);
        x[2 * i] = beta[i / 2].x * (two.x - x[2 * i]);
        x[2 * i + 1] = beta[i / 2].y * (two.y - x[2 * i + 1]);
    }
}

/* Factors `known`, and those of U for the state. */
DEVICE void fetch_known(float2 (&known)[8], const struct gated_delta_gates *gates, const struct place &p)
{
    fetch_factors(known, DECAYS || !F16_MATRICES ? gates->known : NULL, p.pair);
}
DEVICE void fetch_update(float2 (&update)[8], const struct gated_delta_gates *gates, const struct place &p)
{
    fetch_factors(update, DECAYS ? gates->update : NULL, p.pair);
}

/* Of x, S K^T, E and its fragments; returns the units that are taken from rows. */
DEVICE float2 make_e(float (&x)[32], uint32_t (&e)[16], const uint32_t (&v)[16], const float2 (&known)[8], const float *beta,
                     const struct place &p)
{
    if (DECAYS || F16_MATRICES)
        subtract_known(x, v, known, F16_MATRICES ? NULL : beta, p.pair);
    else
        subtract_all(x, v, known);
    float2 unit = F16_MATRICES ? take_units(x) : make_float2(1.0f, 1.0f);
    pack(e, x, Matrix());
    return unit;
}

/* T or P, of which the tiles have not the blocks above the diagonal: rows 0 to 16 j - 1 of strip j. */
DEVICE void load_matrix(unsigned char *to, const unsigned char *from, uint32_t full)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        bulk_load(shared_address(to + j * (STRIP_BYTES + 512)), from, STRIP_BYTES - j * 512, full);
        from += STRIP_BYTES - j * 512;
    }
}

/* These blocks, in 16-byte pieces: where the i-th lies. */
enum { UPPER_PIECES = 192 };
DEVICE int upper_piece(int i)
{
    int strip = i < 32 ? 1 : i < 96 ? 2 : 3;
    return strip * STRIP_BYTES + (i - 16 * strip * (strip - 1)) * 16;
}

/* By `threads` threads. */
DEVICE void clear_upper(unsigned char *matrix, int thread, int threads)
{
    for (int i = thread; i < UPPER_PIECES; i += threads)
        *(uint4 *)(matrix + upper_piece(i)) = make_uint4(0, 0, 0, 0);
}

#endif
