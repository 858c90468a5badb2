/* SPDX-License-Identifier: Apache-2.0 */
/* apply_rope on a CPU: rotates the pairs of each head of q and k by angles that depend on the token's position, and copies the
 * rest. A part takes a range of tokens. For each token sines and cosines are computed once, for CHUNK pairs at a time, and serve
 * all heads.
 *
 *   T          f16, bf16
 *   POS        i32, i64
 *   INTERLEAVE 0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1) */
#include "vec.h"
#include "apply_rope_args.h"

enum { CHUNK = 256 };

/* One token's heads of q or of k: where they come from and go to. */
struct heads {
    const T *from;
    T *to;
    int64_t from_stride, to_stride; /* between heads */
    int32_t num;
};

/* Of each pair in the chunk. Interleaved: of each element, sines with the sign of their partner's share. */
struct rotation {
    float cosine[(1 + INTERLEAVE) * CHUNK], sine[(1 + INTERLEAVE) * CHUNK];
};

/* Only the fraction of a turn counts, so it is split off in float64. */
static void fill_rotation(struct rotation *r, double position, const double *turns, int n)
{
    for (int at = 0; at < n; at += LANES) {
        float fraction[LANES];
        vec sine, cosine;
        for (int i = 0; i < LANES; i++) {
            double angle = position * turns[at + i];
            fraction[i] = (float)(angle - rint(angle));
        }
        vec_sincos_turns(vec_load_f32(fraction), &sine, &cosine);
#if INTERLEAVE
        for (int i = 0; i < LANES; i++) {
            r->cosine[2 * (at + i)] = r->cosine[2 * (at + i) + 1] = cosine[i];
            r->sine[2 * (at + i)] = -sine[i];
            r->sine[2 * (at + i) + 1] = sine[i];
        }
#else
        vec_store_f32(r->cosine + at, cosine);
        vec_store_f32(r->sine + at, sine);
#endif
    }
}

/* Pairs [first, first + n) of one head. */
static void rotate(T *to, const T *from, const struct rotation *r, int32_t first, int32_t n, int32_t num_pairs)
{
#if INTERLEAVE
    (void)num_pairs;
    for (int32_t at = 0; at < 2 * n; at += LANES) {
        vec x = vec_load_n(from + 2 * first + at, 2 * n - at);
        vec turned = x * vec_load_f32(r->cosine + at) + vec_swap_neighbours(x) * vec_load_f32(r->sine + at);
        vec_store_n(to + 2 * first + at, turned, 2 * n - at);
    }
#else
    for (int32_t at = 0; at < n; at += LANES) {
        vec x = vec_load_n(from + first + at, n - at), y = vec_load_n(from + num_pairs + first + at, n - at);
        vec cosine = vec_load_f32(r->cosine + at), sine = vec_load_f32(r->sine + at);
        vec_store_n(to + first + at, x * cosine - y * sine, n - at);
        vec_store_n(to + num_pairs + first + at, y * cosine + x * sine, n - at);
    }
#endif
}

static void rotate_heads(struct heads h, const struct rotation *r, int32_t first, int32_t n, const struct apply_rope_args *a)
{
    for (int32_t head = 0; head < h.num; head++) {
        const T *from = h.from + head * h.from_stride;
        T *to = h.to + head * h.to_stride;
        rotate(to, from, r, first, n, a->num_pairs);
        if (first == 0 && a->num_rest && to != from)
            memcpy(to + 2 * a->num_pairs, from + 2 * a->num_pairs, (size_t)a->num_rest * sizeof *to);
    }
}

void apply_rope_cpu(const struct apply_rope_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts);
    double next = a->first_turns;
    for (int32_t first = 0; first < a->num_pairs; first += CHUNK) {
        int32_t n = a->num_pairs - first < CHUNK ? a->num_pairs - first : CHUNK;
        double turns[CHUNK] = {0};
        for (int i = 0; i < n; i++, next *= a->ratio)
            turns[i] = next;
        for (int64_t token = part_begin(a->nnz, part, parts); token < end; token++) {
            struct rotation r;
            fill_rotation(&r, (double)((const POS *)a->pos_ids)[token], turns, n);
            struct heads q = {(const T *)a->q + token * a->q_stride[0], (T *)a->q_rope + token * a->q_rope_stride[0],
                              a->q_stride[1], a->q_rope_stride[1], a->num_qo_heads};
            struct heads k = {(const T *)a->k + token * a->k_stride[0], (T *)a->k_rope + token * a->k_rope_stride[0],
                              a->k_stride[1], a->k_rope_stride[1], a->num_kv_heads};
            rotate_heads(q, &r, first, n, a);
            rotate_heads(k, &r, first, n, a);
        }
    }
}
