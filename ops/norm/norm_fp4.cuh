/* SPDX-License-Identifier: Apache-2.0 */
/* What norms to e2m1 do beside others: scales, where they lie and their padding, and codes. A part of norm.cuh, which explains
 * rows, pieces and constants. */
#ifndef NORM_FP4_CUH
#define NORM_FP4_CUH

enum { STEADY = STEP % (4 * BLOCK_SIZE) == 0 }; /* scales in tiles are equally far apart */

/* The row from a thread's first element on: its pieces have constant places then. */
DEVICE struct norm_row row_from(struct norm_row r, uint32_t first)
{
    r.input += first;
    r.residual += first;
    r.out += first / 2;
    r.y += first;
    r.linear_scales += first / BLOCK_SIZE;
    r.first_block = first / BLOCK_SIZE;
    if (STEADY)
        r.swizzled_scales += scale_in_row(r.first_block);
    return r;
}

/* Writes the zeros that pad the swizzled scales of a row: behind its blocks, or all if it lies behind the last row. After
 * pdl_wait. */
DEVICE void pad_scales(const struct norm_args &a, const struct norm_row &row, bool exists, int thread, int threads)
{
    uint32_t blocks = hidden_of(a) / BLOCK_SIZE;
#pragma unroll 1
    for (uint32_t i = (exists ? blocks : 0) + thread; i < (blocks + 3) / 4 * 4; i += threads)
        row.swizzled_scales[scale_in_row(i)] = 0;
}

/* By a block that has the row blockIdx.x alone, after pdl_wait. False if that lies behind the last row, so that all is done. */
DEVICE bool pad_row_of_block(const struct norm_args &a, const struct norm_row &row)
{
    if (!(SCALES & 2) || !a.pads)
        return true;
    bool exists = blockIdx.x < rows_of(a);
    pad_scales(a, row, exists, threadIdx.x, blockDim.x);
    return exists;
}

/* The largest magnitudes of a piece's parts become what the parts are multiplied with; one thread of each block stores the scale.
 * Of two parts neighbours have halves of two blocks: each speaks for one. */
DEVICE void scale_parts(float (&part)[PARTS], float global_scale, const struct norm_row &row, int at)
{
    bool second = PARTS > 1 && threadIdx.x % 2;
    float amax = second ? part[PARTS - 1] : part[0];
    if (PARTS > 1)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, second ? part[0] : part[PARTS - 1], 1));
    if (PARTS > 1 && BLOCK_SIZE > VEC)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
    if (PARTS == 1)
        amax = lanes_max(amax, BLOCK_SIZE / VEC);
    struct block_scale s = E8M0 ? block_scale_e8m0(amax, 6.0f) : block_scale_e4m3(amax, global_scale);
    if (threadIdx.x / PARTS % (BLOCK_SIZE / VEC) == 0) {
        uint32_t block = (uint32_t)(at + second * PARTS_APART) / BLOCK_SIZE;
        if (SCALES & 1)
            row.linear_scales[block] = (uint8_t)s.code;
        if (SCALES & 2)
            row.swizzled_scales[scale_in_row(STEADY ? block : row.first_block + block)] = (uint8_t)s.code;
    }
    part[0] = s.multiplier;
    if (PARTS > 1) {
        float other = __shfl_xor_sync(0xffffffffu, s.multiplier, 1);
        part[0] = second ? other : s.multiplier;
        part[PARTS - 1] = second ? s.multiplier : other;
    }
}

/* Of x, whose parts are multiplied with `part`. */
DEVICE void store_codes(const float (&x)[VEC], const float (&part)[PARTS], const struct norm_row &row, int at)
{
    uint32_t words[VEC / 8];
    e2m1_pack_up(words, x, part);
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        vec_elements<uint32_t, PART / 8> codes;
        vec<uint8_t, PART / 2> bytes;
#pragma unroll
        for (int i = 0; i < PART / 8; i++)
            codes.at[i] = words[k * (PART / 8) + i];
        bytes.bits = codes.all.bits;
        store_vec_by<(PART_ACCESS > 1 ? PART_ACCESS / 2 : 1)>((uint8_t *)row.out + (at + k * PARTS_APART) / 2, bytes);
    }
}

#if WEIGHED
/* y = x * weight, rounded to T, takes the place of x. waits: it is worked out where it stands, so that x and weights need no
 * registers while the row's statistics are waited for. Returns the largest magnitude of either half of the pairs. W is T. */
DEVICE uint32_t weigh_piece(struct piece &p, const struct weights &w, bool waits = true)
{
    vec_elements<uint32_t, VEC / 2> pairs, factors;
    uint32_t most;
    pairs.all.bits = p.input.bits;
    factors.all.bits = w.weight.bits;
#pragma unroll
    for (int i = 0; i < VEC / 2; i++) {
        pairs.at[i] = mul2(T(), pairs.at[i], factors.at[i]);
        most = i ? magnitude2(T(), most, pairs.at[i]) : pairs.at[0];
    }
    p.input.bits = pairs.all.bits;
    if (waits) {
        forget(p.input);
        forget(most);
    }
    return most;
}

/* Of y, times deviation; in pairs as far as that goes. What is the largest before deviation is the largest after it. Codes
 * follow from one product, y times a part of deviation * multiplier. */
DEVICE void finish_weighed(const struct piece &p, const struct norm_row &row, int at, uint32_t most, float deviation,
                           float global_scale)
{
    float x[VEC];
    float2 two = unpack2(T(), most);
    float amax = fmaxf(fmaxf(fabsf(two.x), fabsf(two.y)) * deviation, 0.0f), multiplier[] = {amax};
    scale_parts(multiplier, global_scale, row, at);
    if (E8M0 && amax == 0.0f)
        multiplier[0] = 1.0f; /* times deviation, that of 2^127 may be infinite */
    float part[] = {deviation * E2M1_PART * multiplier[0]};
    widen(x, p.input);
    if (part[0] < 1.17549435e-38f) { /* lacks digits, or is 0 */
        part[0] = deviation * multiplier[0];
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] *= E2M1_PART;
    }
    store_codes(x, part, row, at);
}
#endif

#endif
