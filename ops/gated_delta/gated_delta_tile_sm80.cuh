/* SPDX-License-Identifier: Apache-2.0 */
/* What a chunk of 64 tokens needs beside the state, made by four warps for up to four heads that share q and k. With c the
 * product of alpha from the chunk's beginning on:
 *
 *     A[t][s] = beta_t c_t/c_s k_t.k_s, s < t;   T = (I + A)^-1 - I;   P[t][s] = scale c_t/c_s q_t.k_s, s <= t
 *
 * T and P are f16, rows of P divided by units. The inverse: 8x8 diagonal blocks by substitution in float32 (lane = column), then
 * [D0 0; A10 D1]^-1 = [D0' 0; -D1' A10 D0' D1'] at 8 -> 16 in tf32, 16 -> 32 and 32 -> 64 in f16. Ratios of c are powers of two
 * of differences of logarithms, so that none of them overflows.
 *
 * Included where HEAD_DIM is known. */
#ifndef GATED_DELTA_TILE_SM80_CUH
#define GATED_DELTA_TILE_SM80_CUH

#include "gated_delta_tile_parts.cuh"
#include "math.cuh"

enum { HEADS = 4, F16_ROW = 144, BLOCK_ROW = 20, IMAGE_BYTES = 2 * GATED_DELTA_MATRIX_BYTES };
struct smem {
    unsigned char tile[2][2 * SLAB_BYTES]; /* K and Q; later images of T and P, of one head and the next, and the inverse, f16 */
    unsigned char a[48 * F16_ROW];         /* rows 16 to 63 of A, f16 */
    float block[4][16][BLOCK_ROW];         /* of each warp: a diagonal block of A, then of the inverse */
    float log2[HEADS][CHUNK], beta[HEADS][CHUNK];
    float k_norm[CHUNK], q_norm[CHUNK]; /* their reciprocals */
};
static_assert(sizeof(struct smem) == GATED_DELTA_SM80_TILES_SMEM, "the host counts on it");
static_assert(2 * IMAGE_BYTES + 64 * F16_ROW <= sizeof(((struct smem *)0)->tile), "they follow K and Q");

/* Places of a thread: its row and columns in fragments, and where its lane points in matrices of 16 x 16. */
struct place {
    int warp, lane, row, pair; /* lane / 4, lane % 4 */
    uint32_t tile, a, x;
};

DEVICE struct place make_place(struct smem *sm)
{
    return {warp_id(),
            lane_id(),
            lane_id() / 4,
            lane_id() % 4,
            shared_address(sm->tile),
            shared_address(sm->a),
            shared_address(sm->tile) + 2 * IMAGE_BYTES};
}

DEVICE uint32_t at_a(const struct place &p, int row, int column)
{
    return p.a + (row - 16 + p.lane % 16) * F16_ROW + (column + p.lane / 16 * 8) * 2;
}

DEVICE uint32_t at_x(const struct place &p, int row, int column)
{
    return p.x + (row + p.lane % 16) * F16_ROW + (column + p.lane / 16 * 8) * 2;
}

/* Rows from `row` on of a strip of an image: the strips before have 64, 48 and 32 rows. */
DEVICE uint32_t at_image(const struct place &p, uint32_t image, int row, int strip)
{
    return image + 256 * strip * (7 - strip) + (row + p.lane % 16) * 32 + ((p.lane / 16 ^ p.lane / 4 % 2) << 4);
}

/* One warp per head: logarithms of alpha, summed; lane l has tokens l and l + 32. */
DEVICE void sum_logarithms(const struct gated_delta_args &a, struct smem *sm, int64_t token, int length, int head, int h,
                           float (&c)[2])
{
    int lane = lane_id();
    const float *alpha = (const float *)a.alpha + head, *beta = (const float *)a.beta + head;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = lane + 32 * i;
        float x = t < length && a.alpha ? log2f(alpha[(token + t) * a.alpha_token]) : 0.0f;
        c[i] = x < MIN_LOG2 ? MIN_LOG2 : x;
        sm->beta[h][t] = t >= length ? 0.0f : a.beta ? beta[(token + t) * a.beta_token] : 1.0f;
    }
    sum_tokens(c, sm->log2[h]);
}

/* normed: the norms are in shared memory; else they are 1. */
DEVICE void write_gates(const struct gated_delta_args &a, const struct smem *sm, struct gated_delta_gates *gates, int h,
                        int length, const float (&c)[2], bool normed)
{
    float end = __shfl_sync(0xffffffffu, c[1], 31);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = lane_id() + 32 * i;
        float k_norm = normed ? sm->k_norm[t] : 1.0f, q_norm = normed ? sm->q_norm[t] : 1.0f;
        float beta = sm->beta[h][t];
        gates->beta[t] = beta;
        gates->known[t] = exp2_approx(c[i]) * k_norm * beta;
        gates->update[t] = t < length ? exp2_approx(end - c[i]) * k_norm : 0.0f;
        gates->output[t] = exp2_approx(c[i]) * a.scale * q_norm;
    }
    gates->end[lane_id() % 16] = exp2_approx(end);
}

/* Threads 0 to 63: a row of K, 64 to 127: of Q. */
DEVICE void find_norms(struct smem *sm)
{
    int row = threadIdx.x % 64, of_q = threadIdx.x / 64;
    (of_q ? sm->q_norm : sm->k_norm)[row] = inverse_norm(sm->tile[of_q], row, HEAD_DIM / 8);
}

/* K K^T and scale Q K^T, of normalised rows if asked for. */
DEVICE void normalise(const struct smem *sm, float (&kk)[32], float (&qk)[32], const struct place &p,
                      const struct gated_delta_args &a)
{
    int row = 16 * p.warp + p.row;
#pragma unroll
    for (int i = 0; i < 32; i++)
        qk[i] *= a.scale;
    if (!a.l2norm)
        return;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        float column = sm->k_norm[8 * (i / 4) + 2 * p.pair + i % 2];
        kk[i] *= column * sm->k_norm[row + 8 * (i / 2 % 2)];
        qk[i] *= column * sm->q_norm[row + 8 * (i / 2 % 2)];
    }
}

/* A to shared memory, its diagonal block in float32, and P to the image. Left of the diagonal block the decay is split at its
 * edge: 2^(c_t - m) 2^(m - c_s), both at most 1; inside the block it is taken directly. */
DEVICE void decay(struct smem *sm, const float (&kk)[32], const float (&qk)[32], const struct place &p, int h, uint32_t image)
{
    const float *c = sm->log2[h], *beta = sm->beta[h];
    int row = 16 * p.warp + p.row;
    float edge = p.warp ? c[16 * p.warp - 1] : 0.0f, c0 = c[row], c1 = c[row + 8], b0 = beta[row], b1 = beta[row + 8];
    float f0 = exp2_approx(c0 - edge), f1 = exp2_approx(c1 - edge);
    float known[2] = {f0 * b0, f1 * b1}, since[2] = {f0, f1};
#pragma unroll
    for (int jj = 0; jj < 4; jj++) {
        uint32_t u[4], v[4];
        if (jj < p.warp) {
#pragma unroll
            for (int k = 0; k < 2; k++) {
                int j = 2 * jj + k;
                float2 cc = *(const float2 *)(c + 8 * j + 2 * p.pair);
                float e0 = exp2_approx(edge - cc.x), e1 = exp2_approx(edge - cc.y);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    v[2 * k + r] = pack2(f16(), kk[4 * j + 2 * r] * e0 * known[r], kk[4 * j + 2 * r + 1] * e1 * known[r]);
                    u[2 * k + r] = pack2(f16(), qk[4 * j + 2 * r] * e0 * since[r], qk[4 * j + 2 * r + 1] * e1 * since[r]);
                }
            }
            stmatrix_x4(at_a(p, 16 * p.warp, 16 * jj), v[0], v[1], v[2], v[3]);
            stmatrix_x4(at_image(p, image, 16 * p.warp, jj) + GATED_DELTA_MATRIX_BYTES, u[0], u[1], u[2], u[3]);
        } else if (jj == p.warp) {
#pragma unroll
            for (int k = 0; k < 2; k++) {
                int j = 2 * jj + k, column = 8 * k + 2 * p.pair;
                float2 cc = *(const float2 *)(c + 8 * j + 2 * p.pair);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    int own = p.row + 8 * r;
                    float e0 = column <= own ? exp2_approx((r ? c1 : c0) - cc.x) : 0.0f;
                    float e1 = column + 1 <= own ? exp2_approx((r ? c1 : c0) - cc.y) : 0.0f, b = r ? b1 : b0;
                    *(float2 *)&sm->block[p.warp][own][column] =
                        make_float2(kk[4 * j + 2 * r] * e0 * b, kk[4 * j + 2 * r + 1] * e1 * b);
                    u[2 * k + r] = pack2(f16(), qk[4 * j + 2 * r] * e0, qk[4 * j + 2 * r + 1] * e1);
                }
            }
            stmatrix_x4(at_image(p, image, 16 * p.warp, jj) + GATED_DELTA_MATRIX_BYTES, u[0], u[1], u[2], u[3]);
        }
    }
}

/* A warp's diagonal block: two of 8 x 8 by forward substitution, then what couples them. */
DEVICE void invert_16(float (&d)[16][BLOCK_ROW], const struct place &p, uint32_t image)
{
    int half = p.lane / 8 % 2, column = p.lane % 8;
    float x[8];
    substitute(x, &d[8 * half][8 * half], BLOCK_ROW, column);
    __syncwarp();
    if (p.lane < 16) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            d[8 * half + i][8 * half + column] = x[i];
    }
    __syncwarp();
    float z[4] = {};
    float2 d1 = *(const float2 *)&d[8 + p.row][8 + 2 * p.pair], d0 = *(const float2 *)&d[p.row][2 * p.pair];
    const float coupling[2] = {d[8 + 2 * p.pair][p.row], d[9 + 2 * p.pair][p.row]};
    const float upper[2] = {d[2 * p.pair][p.row], d[2 * p.pair + 1][p.row]};
    couple_8(z, d1, coupling, upper);
    const float negative[2][4] = {{-d0.x, -d0.y, z[0], z[1]}, {0.0f, 0.0f, -d1.x, -d1.y}};
    store_inverse(at_x(p, 16 * p.warp, 16 * p.warp), negative, f16());
    float one = 2 * p.pair == p.row, next = 2 * p.pair + 1 == p.row;
    const float rest[2][4] = {{one - d0.x, next - d0.y, z[0], z[1]}, {0.0f, 0.0f, one - d1.x, next - d1.y}};
    store_inverse(at_image(p, image, 16 * p.warp, p.warp), rest, f16());
}

/* Two warps: the lower left 16 x 16 block of a 32 x 32 one. */
DEVICE void invert_32(const struct place &p, uint32_t image)
{
    int o = 32 * p.warp;
    float z[2][4] = {};
    couple_16(z, at_x(p, o + 16, o + 16), at_a(p, o + 16, o), at_x(p, o, o));
    store_inverse(at_x(p, o + 16, o), z, f16());
    store_inverse(at_image(p, image, o + 16, 2 * p.warp), z, f16());
}

/* Four warps: a row block i and a column block of the lower left 32 x 32 one. */
DEVICE void invert_64(const struct place &p, uint32_t image)
{
    int i = p.warp % 2, column = p.warp / 2;
    uint32_t a[4], b[4];
    float y[2][2][4] = {}, z[2][4] = {};
#pragma unroll
    for (int k = 0; k < 2; k++)
        if (k <= i) {
            ldmatrix_x4(a, at_x(p, 32 + 16 * i, 32 + 16 * k));
#pragma unroll
            for (int n = 0; n < 2; n++) {
                ldmatrix_x4_trans(b, at_a(p, 32 + 16 * k, 16 * n));
                multiply(y[n], a, b);
            }
        }
#pragma unroll
    for (int k = 0; k < 2; k++)
        if (k >= column) {
            ldmatrix_x4_trans(b, at_x(p, 16 * k, 16 * column));
            pack_f16(a, y[k]);
            multiply(z, a, b);
        }
    store_inverse(at_image(p, image, 32 + 16 * i, column), z, f16());
}

/* T and P of a head to its image: that of h % 2. A barrier follows. */
DEVICE uint32_t make_image(struct smem *sm, const float (&kk)[32], const float (&qk)[32], const struct place &p, int h)
{
    uint32_t image = p.tile + h % 2 * IMAGE_BYTES;
    decay(sm, kk, qk, p, h, image);
    __syncwarp();
    invert_16(sm->block[p.warp], p, image);
    __syncthreads();
    if (p.warp < 2)
        invert_32(p, image);
    __syncthreads();
    invert_64(p, image);
    return image;
}

#endif
