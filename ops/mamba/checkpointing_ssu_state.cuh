/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: a state on its way to shared memory, and its product with C. T, STATE, SAME, STATE_DIM, TILES,
 * ACCESS and HEADS are the kernel's. */
#ifndef CHECKPOINTING_SSU_STATE_CUH
#define CHECKPOINTING_SSU_STATE_CUH

#include "checkpointing_ssu_tokens.cuh"

/* What tf32 leaves of a number. */
DEVICE float below_tf32(float x) { return x - __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

enum { EACH = 16 / sizeof(STATE), ROW_PIECES = STATE_DIM / EACH };

/* Pieces of every second pair of rows change places by so many, so that lanes that read two pairs meet no bank twice. */
enum { SWAP = EACH == 4 ? 1 : STATE_DIM % 64 == 0 ? 4 : 0 };

/* Of the lane's piece of these 32: whether its row is of such a pair. */
DEVICE int odd_pair(int n, const struct lane &l)
{
    return 32 % ROW_PIECES == 0 ? (n / ROW_PIECES + l.at / ROW_PIECES) / 2 % 2 : (n + l.at) / ROW_PIECES / 2 % 2;
}

/* The warp's rows of a state, on their way to shared memory. from: its first row; where rows are dense, the lane's piece. */
DEVICE void begin_state(uint32_t stage, const STATE *from, const struct checkpointing_ssu_args &a, const struct lane &l)
{
    int left = (int)a.head_dim - (int)blockIdx.x * ROWS - 16 * l.warp;
    stage += 16 * l.warp * STATE_DIM * sizeof(STATE);
    if (ACCESS > 1 && left >= 16) {
#pragma unroll
        for (int n = 0; n < 16 * ROW_PIECES; n += 32)
            cp_async_16(stage + 16 * n + 16 * (l.at ^ odd_pair(n, l) * SWAP), from + n * EACH, 16);
        return;
    }
#pragma unroll 1
    for (int n = 0; n < 16 * ROW_PIECES; n += 32) {
        int row = (n + l.at) / ROW_PIECES;
        if (row < left)
            begin_piece(stage + 16 * n + 16 * (l.at ^ odd_pair(n, l) * SWAP),
                        from + (ACCESS > 1 ? n * EACH : row * a.state.dim + (n + l.at) % ROW_PIECES * EACH), EACH);
    }
}

/* Eight numbers of the lane's row. */
DEVICE vec<STATE, 8> state_piece(const struct stage &stage, const struct lane &l, int half, int q)
{
    vec_accesses<STATE, 8, EACH> v;
    const STATE *row = &stage.state[(16 * l.warp + 2 * l.g + half) * STATE_DIM + 8 * l.t];
#pragma unroll
    for (int i = 0; i < 8 / EACH; i++) {
        int piece = 32 / EACH * q + i, swap = l.g % 2 * SWAP * EACH;
        v.at[i] = load_vec<EACH>(row + piece * EACH + (piece & SWAP ? -swap : swap));
    }
    return v.all;
}

/* S . C of the lane's rows for outputs 2t and 2t + 1, in two sums, that not every product waits for the one before. */
DEVICE void multiply_state(float (&y)[TILES][4], const struct stage &stage, const struct pieces (&c)[TILES], const struct lane &l)
{
    float other[TILES][4] = {};
#pragma unroll
    for (int q = 0; q < PIECES; q++) {
#if SAME
        vec_elements<uint32_t, 4> up, down;
        up.all.bits = state_piece(stage, l, 0, q).bits;
        down.all.bits = state_piece(stage, l, 1, q).bits;
#else
        float up[8], down[8];
        widen(up, state_piece(stage, l, 0, q));
        widen(down, state_piece(stage, l, 1, q));
#endif
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#if SAME
            vec_elements<uint32_t, 4> right;
            right.all.bits = c[tile].at[q].bits;
#pragma unroll
            for (int k = 0; k < 4; k += 2) {
                uint32_t left[4] = {up.at[k], down.at[k], up.at[k + 1], down.at[k + 1]}, two[2] = {right.at[k], right.at[k + 1]};
                mma_m16n8k16(k ? other[tile] : y[tile], left, two, T());
            }
#else
            float right[8];
            vec<T, 8> narrow = c[tile].at[q];
            if (HEADS > 1) /* widened once for all heads they would fill registers */
                forget(narrow);
            widen(right, narrow);
#pragma unroll
            for (int k = 0; k < 8; k += 2) {
                float left[4] = {up[k], down[k], up[k + 1], down[k + 1]}, two[2] = {right[k], right[k + 1]};
                mma_m16n8k8(y[tile], left, two);
                if (sizeof(STATE) == 4) {
                    float low[4] = {below_tf32(left[0]), below_tf32(left[1]), below_tf32(left[2]), below_tf32(left[3])};
                    mma_m16n8k8(other[tile], low, two);
                }
            }
#endif
        }
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            y[tile][e] += other[tile][e];
}

#endif
