/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu on a CPU. A part has a head of a sequence, row after row; the first of a group appends its B.
 *
 *   T          f16, bf16
 *   STATE      dtype of states
 *   STATE_DIM  a multiple of 32, at most 256
 *   RANDOM     rounds of Philox, for states, of 16 bits, that are rounded at random; 0: to nearest */
#include "mamba_cpu.h"
#include "checkpointing_ssu_args.h"

#include <string.h>

/* Of a head: delta and decay of the live tokens, then of the new ones, and where their x and B are. */
struct walk {
    struct ring_sequence s;
    int64_t sequence, head, group;
    float delta[2 * WINDOW], decay[2 * WINDOW];
    const T *x[2 * WINDOW], *B[2 * WINDOW];
};

static float weight(const struct head_weights *w, int64_t head)
{
    return w->data ? at(w->data, head * w->head, w->wide) : 0.0f;
}

static int64_t token_at(const struct token_rows *rows, const struct walk *w, int64_t i, int64_t head)
{
    return w->sequence * rows->sequence + (w->s.begin + i) * rows->token + head * rows->head;
}

static T *ring_at(const struct state_rows *ring, const struct walk *w, int64_t head, int32_t place)
{
    return (T *)ring->data + w->s.row * ring->row + head * ring->head + place * ring->dim;
}

static void find_tokens(const struct checkpointing_ssu_args *a, struct walk *w)
{
    float A = weight(&a->A, w->head), bias = weight(&a->dt_bias, w->head);
    float *deltas = a->dt_cache + w->s.row * a->dt_cache_row + w->head * a->dt_cache_head;
    for (int i = 0; i < w->s.live + w->s.count; i++) {
        int32_t place = ring_place(a, &w->s, i), new = i - w->s.live;
        w->x[i] = ring_at(&a->x_cache, w, w->head, place);
        w->B[i] = ring_at(&a->B_cache, w, w->group, place);
        if (new >= 0) {
            w->x[i] = (const T *)a->x.data + token_at(&a->x, w, new, w->head);
            w->B[i] = (const T *)a->B.data + token_at(&a->B, w, new, w->group);
            deltas[place] = delta_of(at(a->dt.data, token_at(&a->dt, w, new, w->head), a->dt.wide) + bias, a->softplus);
        }
        w->delta[i] = deltas[place];
        w->decay[i] = expf(A * deltas[place]);
    }
}

/* Live rows are elsewhere in the ring than those that are written. */
static void append(const struct checkpointing_ssu_args *a, const struct walk *w)
{
    for (int i = w->s.live; i < w->s.live + w->s.count; i++) {
        int32_t place = ring_place(a, &w->s, i);
        memcpy(ring_at(&a->x_cache, w, w->head, place), w->x[i], (size_t)a->head_dim * sizeof(T));
        if (w->head % a->group_heads == 0)
            memcpy(ring_at(&a->B_cache, w, w->group, place), w->B[i], STATE_DIM * sizeof(T));
    }
}

static void update(float *s, const struct walk *w, int i, int64_t row)
{
    float input = w->delta[i] * to_float(w->x[i][row]);
    for (int j = 0; j < STATE_DIM; j += LANES)
        vec_store(s + j, vec_load(s + j) * w->decay[i] + vec_load(w->B[i] + j) * input);
}

static float output(const struct checkpointing_ssu_args *a, const float *s, const struct walk *w, int new, int64_t row)
{
    const T *c = (const T *)a->C.data + token_at(&a->C, w, new, w->group);
    vec sum = {0};
    for (int j = 0; j < STATE_DIM; j += LANES)
        sum += vec_load(s + j) * vec_load(c + j);
    float y = vec_sum(sum) + weight(&a->D, w->head) * to_float(w->x[w->s.live + new][row]);
    if (a->z.data) {
        float z = to_float(((const T *)a->z.data)[token_at(&a->z, w, new, w->head) + row]);
        y *= z / (1.0f + expf(-z));
    }
    return y;
}

void checkpointing_ssu_cpu(const struct checkpointing_ssu_args *a, int part, int parts)
{
    struct walk w = {.sequence = part / a->num_heads, .head = part % a->num_heads};
    (void)parts;
    w.s = ring_sequence(a, w.sequence);
    w.group = w.head / a->group_heads;
    if (w.s.row >= 0)
        find_tokens(a, &w);
    for (int64_t row = 0; row < a->head_dim; row++) {
        float s[STATE_DIM];
        STATE *state = (STATE *)a->state.data + w.s.row * a->state.row + w.head * a->state.head + row * a->state.dim;
        for (int j = 0; w.s.row >= 0 && j < STATE_DIM; j += LANES)
            vec_store(s + j, vec_load(state + j));
        for (int i = 0; w.s.row >= 0 && i < w.s.live; i++)
            update(s, &w, i, row);
        if (w.s.row >= 0 && w.s.count > 0 && ring_is_full(a, &w.s))
            put_state(state, s, &a->seed, ((w.s.row * a->num_heads + w.head) * a->head_dim + row) * STATE_DIM);
        for (int new = 0; new < w.s.all; new++) {
            int served = w.s.row >= 0 && new < w.s.count;
            if (served)
                update(s, &w, w.s.live + new, row);
            ((T *)a->out.data)[token_at(&a->out, &w, new, w.head) + row] =
                FROM_FLOAT(T, served ? output(a, s, &w, new, row) : 0.0f);
        }
    }
    if (w.s.row >= 0)
        append(a, &w);
}
