/* SPDX-License-Identifier: Apache-2.0 */
/* fused_qk_rmsnorm_rope on a CPU: q and k of a token are normalised over all their heads and rotated by the token's place in a
 * video; v is copied. A part takes a range of tokens; sines and cosines are computed once for all heads of a token.
 *
 *   T          f16, bf16
 *   OUT        T, e4m3
 *   HEAD_DIM   64, 128, 256
 *   INTERLEAVE 0: pair i of a head is (i, HEAD_DIM / 2 + i); 1: (2 i, 2 i + 1) */
#include "stream.h"
#include "fused_qk_rmsnorm_rope_args.h"

enum { PAIRS = HEAD_DIM / 2, ORDER = PAIR_ORDER(T), KNOWN = IS_BF16(T) && IS_BF16(OUT) ? NUMBERS : WILD };

/* By element of a head, thirty-two of which are in ORDER; sines with the sign of the partner's share. */
struct rotation {
    float cosine[HEAD_DIM], sine[HEAD_DIM];
};

/* Pair i turns by place[axis[i]] * turns[i]. */
struct frequencies {
    double turns[PAIRS];
    int axis[PAIRS];
};

static void fill_frequencies(struct frequencies *f, const struct fused_qk_rmsnorm_rope_args *a)
{
    int pair = 0;
    for (int axis = 0; axis < 3; axis++) {
        double turns = 0.15915494309189535; /* 1 / (2 pi) */
        for (int i = 0; i < a->channels[axis] / 2; i++, pair++) {
            double share = fmin(fmax((i - a->ramp_low) * a->ramp_scale, 0), 1);
            f->turns[pair] = turns * (share * a->inverse_factor + (1 - share));
            f->axis[pair] = axis;
            turns *= a->ratio[axis];
        }
    }
}

INLINE int place_of(int i) { return ORDER == HALVES ? i : i / PAIR * PAIR + i % 2 * LANES + i % PAIR / 2; }

static void fill_rotation(struct rotation *r, const struct frequencies *f, const struct fused_qk_rmsnorm_rope_args *a, int token)
{
    int in_frame = token % a->frame_len;
    double place[3] = {token / a->frame_len, in_frame / a->width, in_frame % a->width};
    for (int at = 0; at < PAIRS; at += LANES) {
        float fraction[LANES];
        vec sine, cosine;
        for (int i = 0; i < LANES; i++) {
            double angle = place[f->axis[at + i]] * f->turns[at + i];
            fraction[i] = (float)(angle - rint(angle));
        }
        vec_sincos_turns(vec_load_f32(fraction), &sine, &cosine);
        for (int i = 0; i < LANES; i++) {
            int first = place_of((1 + INTERLEAVE) * (at + i)), second = place_of(INTERLEAVE ? 2 * (at + i) + 1 : PAIRS + at + i);
            r->cosine[first] = r->cosine[second] = cosine[i] * a->attention_factor;
            r->sine[first] = -sine[i] * a->attention_factor;
            r->sine[second] = sine[i] * a->attention_factor;
        }
    }
}

INLINE vec round_to_input(vec x)
{
    T rounded[LANES];
    vec_store(rounded, x);
    return vec_load(rounded);
}

/* Thirty-two elements, normalised. What is `next` elements on is needed soon after. */
INLINE struct pair load_x(const T *from, const T *weight, float deviation, int64_t next)
{
    struct pair x = pair_load(from, ORDER), w;
    __builtin_prefetch(from + next, 0, 2);
    if (!weight)
        return x;
    w = pair_load(weight, ORDER);
    for (int i = 0; i < 2; i++) {
        x.v[i] = x.v[i] * deviation * w.v[i];
        x.v[i] = sizeof(OUT) > 1 ? round_to_input(x.v[i]) : x.v[i];
    }
    return x;
}

INLINE struct pair rotated(struct pair x, struct pair other, const struct rotation *r, int at, float scale)
{
    struct pair cosine = pair_load_f32(r->cosine + at, HALVES), sine = pair_load_f32(r->sine + at, HALVES);
    for (int i = 0; i < 2; i++)
        x.v[i] = (x.v[i] * cosine.v[i] + other.v[i] * sine.v[i]) * scale;
    return x;
}

static void rotate(OUT *to, const T *from, const T *weight, float deviation, const struct rotation *r, float scale, int64_t next,
                   bool past_caches)
{
    for (int at = 0; at < (INTERLEAVE ? HEAD_DIM : PAIRS); at += PAIR) {
        struct pair x = load_x(from + at, weight ? weight + at : NULL, deviation, next);
#if INTERLEAVE
        pair_write(to + at, rotated(x, pair_swap_neighbours(x, ORDER), r, at, scale), ORDER, KNOWN, past_caches);
#else
        struct pair y = load_x(from + PAIRS + at, weight ? weight + PAIRS + at : NULL, deviation, next);
        pair_write(to + at, rotated(x, y, r, at, scale), ORDER, KNOWN, past_caches);
        pair_write(to + PAIRS + at, rotated(y, x, r, PAIRS + at, scale), ORDER, KNOWN, past_caches);
#endif
    }
}

static void copy(OUT *to, const T *from, float scale, int64_t next, bool past_caches)
{
    for (int at = 0; at < HEAD_DIM; at += PAIR) {
        struct pair x = load_x(from + at, NULL, 1, next);
        pair_write(to + at, ((struct pair){{x.v[0] * scale, x.v[1] * scale}}), ORDER, KNOWN, past_caches);
    }
}

static float deviation_of(const T *from, int64_t hidden, float inverse_hidden, float eps)
{
    struct pair sums[2] = {{{{0}}}};
    for (int64_t at = 0; at < hidden; at += 2 * PAIR)
        for (int i = 0; i < 2; i++) {
            struct pair x = pair_load(from + at + i * PAIR, ORDER);
            for (int k = 0; k < 2; k++)
                sums[i].v[k] += x.v[k] * x.v[k];
        }
    return 1.0f / sqrtf(vec_sum((sums[0].v[0] + sums[0].v[1]) + (sums[1].v[0] + sums[1].v[1])) * inverse_hidden + eps);
}

static void do_row(const struct fused_qk_rmsnorm_rope_args *a, const struct rotation *r, int64_t row, bool past_caches)
{
    const T *from = (const T *)a->qkv + row * a->qkv_stride;
    for (int part = 0; part < 3; part++) {
        OUT *to = (OUT *)a->out[part] + row * a->out_stride[part][0];
        const T *weight = part < 2 && a->is_qk_norm ? a->weight[part] : NULL;
        float deviation =
            weight ? deviation_of(from, (int64_t)a->heads[part] * HEAD_DIM, a->inverse_hidden[part], a->eps) : 1.0f;
        for (int head = 0; head < a->heads[part]; head++, from += HEAD_DIM, to += a->out_stride[part][1])
            if (part < 2)
                rotate(to, from, weight ? weight + head * HEAD_DIM : NULL, deviation, r, a->scale[part], a->qkv_stride,
                       past_caches);
            else
                copy(to, from, a->scale[part], a->qkv_stride, past_caches);
    }
}

/* Whether each head of an output begins a line. */
static bool are_lines(const struct fused_qk_rmsnorm_rope_args *a)
{
    int64_t bits = 0;
    for (int part = 0; part < 3; part++)
        bits |= (intptr_t)a->out[part] | (a->out_stride[part][0] | a->out_stride[part][1]) * (int64_t)sizeof(OUT);
    return bits % 64 == 0;
}

void fused_qk_rmsnorm_rope_cpu(const struct fused_qk_rmsnorm_rope_args *a, int part, int parts)
{
    struct frequencies f;
    struct rotation r;
    fill_frequencies(&f, a);
    int64_t heads = (int64_t)a->heads[0] + a->heads[1] + a->heads[2];
    bool past_caches = are_lines(a) && streams(a->rows * heads * HEAD_DIM * (int)sizeof(OUT));
    for (int64_t row = part_begin(a->rows, part, parts); row < part_begin(a->rows, part + 1, parts); row++) {
        fill_rotation(&r, &f, a, (int)(row % a->seq_len));
        do_row(a, &r, row, past_caches);
    }
    if (past_caches)
        stream_end();
}
