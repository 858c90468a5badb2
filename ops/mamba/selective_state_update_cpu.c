/* SPDX-License-Identifier: Apache-2.0 */
/* selective_state_update on a CPU. A part has a head of a sequence, row after row.
 *
 *   T          f16, bf16, f32
 *   STATE      dtype of states
 *   STATE_DIM  a multiple of 16, at most 256
 *   UNIFORM    1: A is the same for all of a row
 *   RANDOM     rounds of Philox, for states, of 16 bits, that are rounded at random; 0: to nearest */
#include "mamba_cpu.h"
#include "selective_state_update_args.h"

struct place {
    int64_t sequence, head, group;
    int64_t read; /* element of the pool that the row begins with, as if it were dense: for random rounding */
};

static float token_value(const struct token_rows *rows, const struct place *p, int64_t token, int64_t row)
{
    const int64_t place = p->sequence * rows->sequence + token * rows->token + p->head * rows->head + row * rows->dim;
    return at(rows->data, place, rows->wide);
}

static float weight(const struct head_weights *w, const struct place *p, int64_t row)
{
    return w->data ? at(w->data, p->head * w->head + row * w->dim, w->wide) : 0.0f;
}

static const T *group_row(const struct token_rows *rows, const struct place *p, int64_t token)
{
    return (const T *)rows->data + p->sequence * rows->sequence + token * rows->token + p->group * rows->head;
}

static STATE *state_row(const struct state_rows *states, const struct place *p, int64_t row, int64_t step, int64_t dim)
{
    return (STATE *)states->data + row * states->row + step * states->step + p->head * states->head + dim * states->dim;
}

static float step(const struct selective_state_update_args *a, const struct place *p, float *s, int64_t token, int64_t row)
{
    int64_t slopes = p->head * a->A.head + row * a->A.dim;
    const T *b = group_row(&a->B, p, token), *c = group_row(&a->C, p, token);
    float x = token_value(&a->x, p, token, row);
    float delta = delta_of(token_value(&a->dt, p, token, row) + weight(&a->dt_bias, p, row), a->softplus);
    vec decay = vec_set(UNIFORM ? expf(at(a->A.data, slopes, a->A.wide) * delta) : 0.0f), sum = {0};
    for (int i = 0; i < STATE_DIM; i += LANES) {
        if (!UNIFORM)
            decay = vec_exp(delta * (a->A.wide ? vec_load((const float *)a->A.data + slopes + i)
                                               : vec_load((const T *)a->A.data + slopes + i)));
        vec y = vec_load(s + i) * decay + vec_load(b + i) * (x * delta);
        sum += y * vec_load(c + i);
        vec_store(s + i, y);
    }
    float y = vec_sum(sum) + weight(&a->D, p, row) * x;
    if (a->z.data) {
        float z = token_value(&a->z, p, token, row);
        y *= z / (1.0f + expf(-z));
    }
    return y;
}

void selective_state_update_cpu(const struct selective_state_update_args *a, int part, int parts)
{
    struct place p = {part / a->num_heads, part % a->num_heads, part % a->num_heads / a->group_heads, 0};
    int64_t first = first_state(a, p.sequence), kept = a->kept_rows ? a->kept_rows[p.sequence] : p.sequence;
    struct token_range range = sequence_tokens(a, p.sequence);
    float s[STATE_DIM];
    (void)parts;
    for (int64_t row = 0; row < a->head_dim; row++) {
        p.read = ((first * a->num_heads + p.head) * a->head_dim + row) * STATE_DIM;
        for (int i = 0; first >= 0 && i < STATE_DIM; i += LANES)
            vec_store(s + i, vec_load(state_row(&a->state, &p, first, 0, row) + i));
        for (int64_t token = range.begin; token < range.end; token++) {
            T *out = (T *)a->out.data + p.sequence * a->out.sequence + token * a->out.token + p.head * a->out.head + row;
            int64_t n = token - range.begin;
            *out = FROM_FLOAT(T, first < 0 ? 0.0f : step(a, &p, s, token, row));
            int64_t to = first < 0 ? -1 : written_state(a, p.sequence, n, range.end - range.begin, first);
            if (to >= 0)
                put_state(state_row(&a->state, &p, to, 0, row), s, &a->seed, p.read);
            if (a->kept.data && kept >= 0 && first >= 0 && n < a->kept_steps)
                put_state(state_row(&a->kept, &p, kept, n, row), s, &a->seed, p.read);
        }
    }
}
