/* SPDX-License-Identifier: Apache-2.0 */
/* gated_delta_tiles_sm90.cu: what lies in shared memory, and the inverse of I + A, whose blocks are there. 8x8 diagonal blocks by
 * substitution in float32 (lane = column), then [D0 0; A10 D1]^-1 = [D0' 0; -D1' A10 D0' D1'] at 8 -> 16 in tf32, 16 -> 32 and
 * 32 -> 64 in f16. */
#ifndef GATED_DELTA_INVERSE_SM90_CUH
#define GATED_DELTA_INVERSE_SM90_CUH

#include "gated_delta_sm90.cuh"
#include "gated_delta_tile_parts.cuh"

enum { HEADS = 4, PAIR = 2, IMAGES = 3, IMAGE_BYTES = 2 * GATED_DELTA_MATRIX_BYTES, BLOCK_BYTES = 512 };

/* A warp's diagonal block of A, then of the inverse: its 8x8 blocks, so far from each other, and from those of the other head,
 * that rows of four of them lie in different banks. */
struct diagonal {
    float upper[8][8], coupling[8][8], gap[8], lower[8][8], gap_of_warps[8];
};

struct smem {
    union {
        unsigned char tile[2][2 * SLAB_BYTES];    /* K and Q */
        unsigned char image[IMAGES][IMAGE_BYTES]; /* then T and P of a head */
    };
    /* Of either head 16x16 blocks in f16, rows as in tiles: A's below the diagonal, 10, 20, 21, 30, 31, 32, where those of the
     * inverse that are needed replace them; and the inverse's diagonal. */
    unsigned char block[PAIR][10][BLOCK_BYTES];
    struct {
        struct diagonal warp[4];
        float gap[16];
    } diagonal[PAIR];
    float log2[HEADS][CHUNK], beta[HEADS][CHUNK];
    float k_norm[CHUNK], q_norm[CHUNK]; /* their reciprocals */
    uint64_t full;
};
static_assert(sizeof(struct smem) <= GATED_DELTA_TILES_SMEM, "the host counts on it");

/* Places of a thread: its row and columns in fragments, and where its lane points in matrices of 16 x 16. */
struct place {
    int warp, lane, row, pair, offset; /* warp: of the group; row, pair: lane / 4, lane % 4 */
    uint32_t image;
};

/* The 128 threads that make tiles together. */
DEVICE void sync_group()
{
    named_barrier_sync(1 + threadIdx.x / 128, 128);
}

enum { BLOCKS = 4 * SLAB_BYTES }; /* where blocks begin */

/* Block i, j of A or the inverse, of either head of a pair. */
DEVICE uint32_t at_block(const struct place &p, int of, int i, int j)
{
    return p.image + BLOCKS + (of * 10 + (i == j ? 6 + i : i * (i - 1) / 2 + j)) * BLOCK_BYTES + p.offset;
}

/* Rows from `row` on of a strip of an image: the strips before have 64, 48 and 32 rows. */
DEVICE uint32_t at_image(const struct place &p, uint32_t image, int row, int strip)
{
    return image + 256 * strip * (7 - strip) + row * 32 + p.offset;
}

/* A warp's diagonal blocks of 8 x 8, of both heads: a lane has a column. */
DEVICE void invert_8(struct smem *sm, const struct place &p)
{
    struct diagonal *d = &sm->diagonal[p.lane / 16].warp[p.warp];
    float(*block)[8] = p.lane / 8 % 2 ? d->lower : d->upper, x[8];
    int column = p.lane % 8;
    substitute(x, block[0], 8, column);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i++)
        block[i][column] = x[i];
}

/* What couples them. */
DEVICE void invert_16(struct smem *sm, const struct place &p, int of, uint32_t image)
{
    const struct diagonal *d = &sm->diagonal[of].warp[p.warp];
    float z[4] = {};
    float2 d1 = *(const float2 *)&d->lower[p.row][2 * p.pair], d0 = *(const float2 *)&d->upper[p.row][2 * p.pair];
    const float coupling[2] = {d->coupling[2 * p.pair][p.row], d->coupling[2 * p.pair + 1][p.row]};
    const float upper[2] = {d->upper[2 * p.pair][p.row], d->upper[2 * p.pair + 1][p.row]};
    couple_8(z, d1, coupling, upper);
    const float negative[2][4] = {{-d0.x, -d0.y, z[0], z[1]}, {0.0f, 0.0f, -d1.x, -d1.y}};
    store_inverse(at_block(p, of, p.warp, p.warp), negative, f16());
    float one = 2 * p.pair == p.row, next = 2 * p.pair + 1 == p.row;
    const float rest[2][4] = {{one - d0.x, next - d0.y, z[0], z[1]}, {0.0f, 0.0f, one - d1.x, next - d1.y}};
    store_inverse(at_image(p, image, 16 * p.warp, p.warp), rest, Matrix());
}

/* The lower left 16 x 16 block of a 32 x 32 one, the first or second of a head. */
DEVICE void invert_32(const struct place &p, int of, int i, uint32_t image)
{
    float z[2][4] = {};
    couple_16(z, at_block(p, of, 2 * i + 1, 2 * i + 1), at_block(p, of, 2 * i + 1, 2 * i), at_block(p, of, 2 * i, 2 * i));
    store_inverse(at_block(p, of, 2 * i + 1, 2 * i), z, f16());
    store_inverse(at_image(p, image, 32 * i + 16, 2 * i), z, Matrix());
}

/* Four warps: a row block i and a column block of the lower left 32 x 32 one. */
DEVICE void invert_64(const struct place &p, int of, uint32_t image)
{
    int i = p.warp % 2, column = p.warp / 2;
    uint32_t a[4], b[4];
    float y[2][2][4] = {}, z[2][4] = {};
#pragma unroll
    for (int k = 0; k < 2; k++)
        if (k <= i) {
            ldmatrix_x4(a, at_block(p, of, 2 + i, 2 + k));
#pragma unroll
            for (int n = 0; n < 2; n++) {
                ldmatrix_x4_trans(b, at_block(p, of, 2 + k, n));
                multiply(y[n], a, b);
            }
        }
#pragma unroll
    for (int k = 0; k < 2; k++)
        if (k >= column) {
            ldmatrix_x4_trans(b, at_block(p, of, k, column));
            pack_f16(a, y[k]);
            multiply(z, a, b);
        }
    store_inverse(at_image(p, image, 32 + 16 * i, column), z, Matrix());
}

#endif
