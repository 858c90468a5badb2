/* SPDX-License-Identifier: Apache-2.0 */
/* What a warp of batch_decode_stream_ does with a tile of keys and values in shared memory: attends to it with operands
 * swapped, so that 8 rows fill a tensor core: logits are K Q^T, [tokens, rows], results V^T P^T, [dimensions, rows].
 *
 * Keys of a tile are tokens by HEAD_DIM elements, row by row, or, in boxes, 128 bytes of each row of a box by 128 bytes;
 * then its values. A 16-byte chunk of a row has its place in `chunk_address`, so that neither copies nor ldmatrix have bank
 * conflicts. With g = lane / 4 and t = lane % 4 a lane holds, of eight rows, the queries of row g (operand b of mma.cuh),
 * logits and results of rows 2t and 2t + 1 (operand d). Elements of 8 bits are widened to f16 when they are operands. There
 * the four bytes that ldmatrix gives a lane are neighbours, where 16-bit elements leave gaps: of keys, the queries are
 * permuted alike; of values, results are dimensions 2g and 2g + 1 of 16 instead of g and g + 8. */
#ifndef DECODE_STREAM_TILE_CUH
#define DECODE_STREAM_TILE_CUH

#include "attention_rules.cuh"
#include "mma.cuh"
#include "vec.cuh"

#ifndef HEADS
#define HEADS 1
#endif

enum {
    NARROW = sizeof(KV) == 1,
    ROW_BYTES = HEAD_DIM * sizeof(KV),
    CHUNKS = ROW_BYTES / 16,
    TILE = ATTENTION_STREAM_TILE(ROW_BYTES),
    STEPS = TILE / 16, /* of 16 tokens */
    DIM_STEPS = HEAD_DIM / 16,
    QUERIES_SHARED = ATTENTION_STREAM_QUERIES_SHARED(ROW_TILES, HEAD_DIM),
    TILE_BYTES = TILE * ROW_BYTES,
    STAGE_BYTES = 2 * TILE_BYTES
};

/* What operands are made of. */
template <int bytes> struct operand_of { typedef T type; };
template <> struct operand_of<1> { typedef f16 type; };
typedef operand_of<sizeof(KV)>::type operand;

/* The type of keys and values if they are of 8 bits; else any that is. */
template <int bytes> struct narrow_of { typedef e4m3 type; };
template <> struct narrow_of<1> { typedef KV type; };
typedef narrow_of<sizeof(KV)>::type narrow_kv;

DEVICE uint32_t widen_low(uint32_t x) { return as_f16_2(narrow_kv(), x); }
DEVICE uint32_t widen_high(uint32_t x) { return as_f16_2(narrow_kv(), x >> 16); }

/* What weights are relative to is LIFT below the largest logit that it was set by, and may be LAZY below the largest there is.
 * Weights that multiply 8-bit values are f16, up to 2^LAZY; what is lost of those that are small is 2^-25 of 2^LIFT. */
#define LIFT (NARROW ? 7.0f : 0.0f)
#define LAZY (8.0f + LIFT)

/* Rows of a warp, in groups of eight. Logits are in base 2. */
struct rows {
    uint32_t q[QUERIES_SHARED ? 1 : ROW_TILES][DIM_STEPS][2];
    uint2 *shared_q;                   /* or the same here: [ROW_TILES][DIM_STEPS][32] */
    float factor[ROW_TILES][2];        /* of 8-bit keys: how a product becomes a logit; else rule.factor does that */
    float top[ROW_TILES][2];           /* what weights are relative to */
    float sum[ROW_TILES][2];           /* of exp2(logit - top), over this lane's tokens */
    float o[ROW_TILES][DIM_STEPS][4];  /* values weighted alike: first dimension, rows 2t and 2t + 1; second dimension */
};

/* The packed rows that a warp has, of one request. */
struct row_range {
    int first, end; /* the first one, and the request's number of them */
    int qo_len, kv_len;
};

#if !BOX_TOKENS
DEVICE int turn_of(int row)
{
    return CHUNKS % 8 == 0 ? row & 7 : CHUNKS % 4 == 0 ? row >> 1 & 3 : CHUNKS % 2 == 0 ? row >> 2 & 1 : 0;
}
#endif

DEVICE uint32_t chunk_address(uint32_t tile, int row, int chunk)
{
#if BOX_TOKENS
    return tile + row / BOX_TOKENS * (BOX_TOKENS * ROW_BYTES) + chunk / 8 * (BOX_TOKENS * 128) + row % BOX_TOKENS * 128 +
           ((chunk & 7 ^ row & 7) << 4);
#else
    return tile + row * ROW_BYTES + ((chunk ^ turn_of(row)) << 4);
#endif
}

/* The address of a chunk `chunks` (an even number) further along a row than the one at `address`, which is its first or
 * second. */
DEVICE uint32_t further(uint32_t address, int chunks)
{
    enum { TURNS = BOX_TOKENS || CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : CHUNKS % 2 == 0 ? 2 : 1 };
    return (address ^ chunks % TURNS << 4) + chunks / TURNS * (TURNS * 16 * (BOX_TOKENS ? BOX_TOKENS : 1));
}

/* Where a token's key and value lie. */
struct __align__(16) place {
    const KV *key, *value;
};

/* bf16 as f16, by a power of two that leaves the row's largest element in f16's range, and with it all that counts beside it. The
 * factor that is returned takes the power away again. */
DEVICE float fit_queries(uint32_t (&q)[DIM_STEPS][2])
{
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < DIM_STEPS; k++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 two = unpack2(T(), q[k][h]);
            largest = fmaxf(largest, fmaxf(fabsf(two.x), fabsf(two.y)));
        }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    int exponent = min(254, max(21, __float_as_int(largest) >> 23)); /* so that both powers are normal */
    float scale = __int_as_float((268 - exponent) << 23);
#pragma unroll
    for (int k = 0; k < DIM_STEPS; k++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 two = unpack2(T(), q[k][h]);
            q[k][h] = pack2(f16(), two.x * scale, two.y * scale);
        }
    return __int_as_float((exponent - 14) << 23);
}

/* Which of the heads that lie side by side a query head reads, that one of a group. */
DEVICE int side_of(const struct attention_args &a, int head) { return HEADS == 2 && 2 * head >= a.group; }

/* Of eight rows from `first` on; gives what the lane's row of products is multiplied by. In place of rows that the request does
 * not have stands its last one. */
DEVICE float load_queries(const struct attention_args &a, const struct row_range &range, int kv_head, int first_q, int first,
                          uint32_t (&q)[DIM_STEPS][2])
{
    int lane = threadIdx.x % 32, row = min(first + lane / 4, range.end - 1), token = divide(row, a.by_group);
    int head = kv_head * a.group + row - token * a.group, side = side_of(a, row - token * a.group);
    const T *from = (const T *)a.q + (first_q + token) * a.q_token + head * a.q_head + lane % 4 * (NARROW ? 4 : 2);
#pragma unroll
    for (int k = 0; k < DIM_STEPS / HEADS; k++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t two = load_pair<ALIGNED>(from + 16 * k + (NARROW ? 2 : 8) * h);
            q[k][h] = side ? 0 : two;
            if (HEADS == 2)
                q[k + DIM_STEPS / 2][h] = side ? two : 0;
        }
    return NARROW ? fit_queries(q) : 1.0f;
}

/* Empty rows, with their queries. Of those in shared memory each stream of the block brings some, for all. */
DEVICE void begin_rows(const struct attention_args &a, const struct row_range &range, int kv_head, int first_q, float factor,
                       int stream, struct rows &r)
{
    __shared__ float factors[QUERIES_SHARED ? ROW_WARPS : WARPS][8 * ROW_TILES];
    float *own = factors[threadIdx.x / 32 % (QUERIES_SHARED ? ROW_WARPS : WARPS)];
    int lane = threadIdx.x % 32;
#pragma unroll(QUERIES_SHARED ? 1 : ROW_TILES)
    for (int n = QUERIES_SHARED ? stream : 0; n < ROW_TILES; n += QUERIES_SHARED ? WARPS / ROW_WARPS : 1) {
        uint32_t(&q)[DIM_STEPS][2] = r.q[QUERIES_SHARED ? 0 : n];
        float of_row = load_queries(a, range, kv_head, first_q, range.first + 8 * n, q);
        if (NARROW && lane % 4 == 0)
            own[8 * n + lane / 4] = of_row;
#pragma unroll
        for (int k = 0; k < DIM_STEPS && QUERIES_SHARED; k++)
            r.shared_q[(n * DIM_STEPS + k) * 32 + lane] = make_uint2(q[k][0], q[k][1]);
    }
    if (QUERIES_SHARED)
        __syncthreads();
    else if (NARROW)
        __syncwarp();
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            r.factor[n][j] = NARROW ? factor * own[8 * n + lane % 4 * 2 + j] : factor;
            r.top[n][j] = -INFINITY;
            r.sum[n][j] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < DIM_STEPS; k++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                r.o[n][k][j] = 0.0f;
    }
}

/* Operand b of a step. */
DEVICE void queries_of(const struct rows &r, int n, int k, uint32_t (&q)[2])
{
    if (QUERIES_SHARED) {
        uint2 both = r.shared_q[(n * DIM_STEPS + k) * 32 + threadIdx.x % 32];
        q[0] = both.x;
        q[1] = both.y;
    } else {
        q[0] = r.q[QUERIES_SHARED ? 0 : n][k][0];
        q[1] = r.q[QUERIES_SHARED ? 0 : n][k][1];
    }
}

/* s += products with keys of 16 tokens, which x holds from step k on: 16 elements of each, or 32 of 8 bits. */
DEVICE void multiply_keys(float (&s)[ROW_TILES][4], const uint32_t (&x)[4], const struct rows &r, int k)
{
#pragma unroll
    for (int h = 0; h < 1 + NARROW && k + h < DIM_STEPS; h++) {
        uint32_t keys[4] = {x[0], x[1], x[2], x[3]};
        if (NARROW) {
            keys[0] = widen_low(x[2 * h]);
            keys[1] = widen_low(x[2 * h + 1]);
            keys[2] = widen_high(x[2 * h]);
            keys[3] = widen_high(x[2 * h + 1]);
        }
#pragma unroll
        for (int n = 0; n < ROW_TILES; n++) {
            uint32_t q[2];
            queries_of(r, n, k + h, q);
            mma_m16n8k16(s[n], keys, q, operand());
        }
    }
}

/* Products of 16 tokens: rows 2t and 2t + 1 of token g, then of token g + 8. Even and odd steps are summed apart, because one
 * chain of products would be waited for. */
DEVICE void multiply_queries(float (&s)[ROW_TILES][4], const struct rows &r, uint32_t keys, int first)
{
    int lane = threadIdx.x % 32;
    uint32_t at = chunk_address(keys, first + lane % 16, lane / 16);
    float odd[ROW_TILES][4];
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[n][j] = odd[n][j] = 0.0f;
#pragma unroll
    for (int k = 0; k < DIM_STEPS; k += 1 + NARROW) {
        uint32_t x[4];
        int chunk = NARROW ? k : 2 * k;
        if (chunk == CHUNKS - 1) /* of an odd number of chunks, the last one stands alone */
            at = chunk_address(keys, first + lane % 16, 0);
        ldmatrix_x4(x, further(at, chunk));
        multiply_keys(ROW_TILES < 4 && k / (1 + NARROW) % 2 ? odd : s, x, r, k);
    }
#pragma unroll
    for (int n = 0; n < ROW_TILES && ROW_TILES < 4; n++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[n][j] += odd[n][j];
}

/* Hides from each row the tokens that it does not see. `first` is the first token. */
DEVICE void mask_logits(const struct attention_args &a, const struct row_range &range, float (&s)[STEPS][ROW_TILES][4], int first)
{
    int lane = threadIdx.x % 32, token = first + lane / 4;
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int own = range.kv_len - range.qo_len + divide(range.first + 8 * n + lane % 4 * 2 + j, a.by_group);
            int begin = a.window_left >= 0 ? own - a.window_left : 0, end = a.causal ? min(own + 1, range.kv_len) : range.kv_len;
#pragma unroll
            for (int i = 0; i < 2 * STEPS; i++)
                if (token + 8 * i < begin || token + 8 * i >= end)
                    s[i / 2][n][j + i % 2 * 2] = -INFINITY;
        }
}

/* Moves the rows' tops to their largest logits, if one of them is far above. */
DEVICE void raise_tops(struct rows &r, const float (&s)[STEPS][ROW_TILES][4])
{
    float top[ROW_TILES][2];
    bool far_above = false;
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            top[n][j] = fmaxf(s[0][n][j], s[0][n][j + 2]);
#pragma unroll
            for (int i = 1; i < STEPS; i++)
                top[n][j] = fmaxf(top[n][j], fmaxf(s[i][n][j], s[i][n][j + 2]));
            far_above |= top[n][j] > r.top[n][j] + LAZY;
        }
    if (!__any_sync(0xffffffffu, far_above))
        return;
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float peak = fmaxf(top[n][j] - LIFT, r.top[n][j]);
#pragma unroll
            for (int lanes = 4; lanes < 32; lanes *= 2)
                peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, lanes));
            float shrink = exp2_approx(r.top[n][j] - (peak == -INFINITY ? 0.0f : peak));
            r.top[n][j] = peak;
            r.sum[n][j] *= shrink;
#pragma unroll
            for (int k = 0; k < DIM_STEPS; k++) {
                r.o[n][k][j] *= shrink;
                r.o[n][k][j + 2] *= shrink;
            }
        }
}

/* o += weights times values of 16 tokens. */
DEVICE void accumulate(struct rows &r, const uint32_t (&weights)[ROW_TILES][2], uint32_t values, int first)
{
    int lane = threadIdx.x % 32, row = first + lane % 8 + lane / 16 * 8;
    uint32_t at = chunk_address(values, row, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < DIM_STEPS; k += 1 + NARROW) {
        uint32_t x[4];
        int chunk = NARROW ? k : 2 * k;
        if (chunk == CHUNKS - 1)
            at = chunk_address(values, row, 0);
        ldmatrix_x4_trans(x, further(at, chunk));
        if (!NARROW) {
#pragma unroll
            for (int n = 0; n < ROW_TILES; n++)
                mma_m16n8k16(r.o[n][k], x, weights[n], operand());
            continue;
        }
#pragma unroll
        for (int h = 0; h < 2 && k + h < DIM_STEPS; h++) {
            uint32_t low = __byte_perm(x[h], 0, 0x3120), high = __byte_perm(x[h + 2], 0, 0x3120);
            uint32_t both[4] = {widen_low(low), widen_high(low), widen_low(high), widen_high(high)};
#pragma unroll
            for (int n = 0; n < ROW_TILES; n++)
                mma_m16n8k16(r.o[n][k + h], both, weights[n], operand());
        }
    }
}

/* Attends to the tile in `stage`, whose first token is `first`. */
DEVICE void attend_tile(const struct attention_args &a, const struct row_range &range, const struct logit_rule &rule,
                        struct rows &r, uint32_t stage, int first, bool masked)
{
    float s[STEPS][ROW_TILES][4];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        multiply_queries(s[i], r, stage, 16 * i);
#pragma unroll
        for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[i][n][j] *= NARROW ? r.factor[n][j % 2] : rule.factor;
        if (rule.cap > 0.0f) {
#pragma unroll
            for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    s[i][n][j] = rule.cap * tanh_exp2(s[i][n][j]);
        }
    }
    if (masked)
        mask_logits(a, range, s, first);
    raise_tops(r, s);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        uint32_t weights[ROW_TILES][2];
#pragma unroll
        for (int n = 0; n < ROW_TILES; n++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float top = r.top[n][j % 2];
                s[i][n][j] = exp2_approx(s[i][n][j] - (top == -INFINITY ? 0.0f : top));
                r.sum[n][j % 2] += s[i][n][j];
            }
            weights[n][0] = transpose_8x8(pack2(operand(), s[i][n][0], s[i][n][1]));
            weights[n][1] = transpose_8x8(pack2(operand(), s[i][n][2], s[i][n][3]));
        }
        accumulate(r, weights, stage + TILE_BYTES, 16 * i);
    }
}

/* Sums over the lanes that share a row. */
DEVICE void complete_sums(struct rows &r)
{
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int lanes = 4; lanes < 32; lanes *= 2)
                r.sum[n][j] += __shfl_xor_sync(0xffffffffu, r.sum[n][j], lanes);
}

#endif
