/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule on a CPU, token by token. A part has one state.
 *
 *   T              f16, bf16
 *   HEAD_DIM       a multiple of 16, at most 256
 *   VALUES_LAST    1: states are keys by values
 *   GATES          GATES_GIVEN, GATES_FROM_LOGITS, GATES_PER_KEY, GATES_PER_KEY_FROM_LOGITS */
#include "gated_delta_cpu.h"

enum { D = HEAD_DIM };

struct token {
    float q[D], k[D], v[D];
    float alpha[D], beta; /* alpha: of each key */
};

static void load_row(float *to, const struct head_rows *from, int64_t sequence, int64_t token, int64_t head, int l2norm)
{
    const T *row = (const T *)from->data + sequence * from->sequence + token * from->token + head * from->head;
    vec sum = {0};
    for (int i = 0; i < D; i += LANES) {
        vec x = vec_load(row + i);
        sum += x * x;
        vec_store(to + i, x);
    }
    float factor = l2norm ? 1.0f / sqrtf(vec_sum(sum) + 1e-6f) : 1.0f;
    for (int i = 0; i < D; i += LANES)
        vec_store(to + i, vec_load(to + i) * factor);
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

#if GATES >= GATES_PER_KEY
static void load_gates(struct token *x, const struct gated_delta_args *a, int64_t sequence, int64_t token, int64_t head)
{
    const T *gate = (const T *)a->alpha + sequence * a->alpha_sequence + token * a->alpha_token + head * a->alpha_head;
    float beta = to_float(((const T *)a->beta)[sequence * a->beta_sequence + token * a->beta_token + head]);
    for (int i = 0; i < D; i++) {
        float log_alpha = to_float(gate[i]);
        if (GATES == GATES_PER_KEY_FROM_LOGITS) {
            int64_t own = head / a->q_group;
            float slope = expf(a->A_log[own]);
            log_alpha += a->dt_bias ? ((const float *)a->dt_bias)[own * D + i] : 0.0f;
            log_alpha = a->lower_bound < 0.0f ? a->lower_bound * sigmoid(slope * log_alpha) : -slope * softplus(log_alpha);
        }
        x->alpha[i] = expf(log_alpha);
    }
    x->beta = a->beta_is_logit ? sigmoid(beta) : beta;
}
#else
static void load_gates(struct token *x, const struct gated_delta_args *a, int64_t sequence, int64_t token, int64_t head)
{
    int64_t alpha_at = sequence * a->alpha_sequence + token * a->alpha_token + head;
    int64_t beta_at = sequence * a->beta_sequence + token * a->beta_token + head;
#if GATES == GATES_FROM_LOGITS
    float bias = a->dt_bias_wide ? ((const float *)a->dt_bias)[head] : to_float(((const T *)a->dt_bias)[head]);
    float alpha = expf(-expf(a->A_log[head]) * softplus(to_float(((const T *)a->alpha)[alpha_at]) + bias));
    x->beta = sigmoid(to_float(((const T *)a->beta)[beta_at]));
#else
    float alpha = a->alpha ? ((const float *)a->alpha)[alpha_at] : 1.0f;
    x->beta = a->beta ? ((const float *)a->beta)[beta_at] : 1.0f;
#endif
    for (int i = 0; i < D; i++)
        x->alpha[i] = alpha;
}
#endif

static void load_token(struct token *x, const struct gated_delta_args *a, int64_t sequence, int64_t token, int64_t head)
{
    load_row(x->q, &a->q, sequence, token, head / a->q_group, a->l2norm);
    load_row(x->k, &a->k, sequence, token, head / a->k_group, a->l2norm);
    load_row(x->v, &a->v, sequence, token, head / a->v_group, 0);
    load_gates(x, a, sequence, token, head);
}

/* Lines of the state are values by keys: each stands alone. added: what the values gain along k. */
static void step_lines(float (*s)[D], float *added, struct token *x, float scale, T *output)
{
    for (int v = 0; v < D; v++) {
        vec known = {0}, sum = {0};
        for (int i = 0; i < D; i += LANES) {
            vec y = vec_load(&s[v][i]) * vec_load(x->alpha + i);
            known += y * vec_load(x->k + i);
            vec_store(&s[v][i], y);
        }
        float u = added[v] = x->beta * (x->v[v] - vec_sum(known));
        for (int i = 0; i < D; i += LANES) {
            vec y = vec_load(&s[v][i]) + u * vec_load(x->k + i);
            sum += y * vec_load(x->q + i);
            vec_store(&s[v][i], y);
        }
        output[v] = FROM_FLOAT(T, scale * vec_sum(sum));
    }
}

/* Lines are keys by values: all of them make a value. */
static void step_columns(float (*s)[D], struct token *x, float scale, T *output)
{
    for (int i = 0; i < D; i += LANES) {
        vec known = {0}, sum = {0};
        for (int k = 0; k < D; k++) {
            vec y = vec_load(&s[k][i]) * x->alpha[k];
            known += y * x->k[k];
            vec_store(&s[k][i], y);
        }
        vec u = x->beta * (vec_load(x->v + i) - known);
        for (int k = 0; k < D; k++) {
            vec y = vec_load(&s[k][i]) + u * x->k[k];
            sum += y * x->q[k];
            vec_store(&s[k][i], y);
        }
        vec_store(output + i, scale * sum);
    }
}

static void load_state(float (*s)[D], const struct state_pool *pool, int64_t row, int64_t head)
{
    int64_t from = row * pool->row + head * pool->head;
    for (int line = 0; line < D; line++, from += pool->line)
        for (int i = 0; i < D; i += LANES)
            vec_store(&s[line][i], state_load(pool, from + i));
}

static void store_state(float (*s)[D], const struct state_pool *pool, int64_t row, int64_t head)
{
    int64_t to = row * pool->row + head * pool->head;
    for (int line = 0; line < D; line++, to += pool->line)
        for (int i = 0; i < D; i += LANES)
            state_store(pool, to + i, vec_load(&s[line][i]));
}

#if GATES >= GATES_PER_KEY
/* What a later kernel does the n-th token again from, from 0 on. */
static void keep_token(const struct gated_delta_args *a, const float *added, int64_t row, int64_t sequence, int64_t token,
                       int64_t n, int64_t head)
{
    const struct token_pool *to = &a->added, *raw = &a->given;
    if (to->data && n < to->steps)
        memcpy((float *)to->data + row * to->row + head * to->head + n * to->step, added, D * sizeof *added);
    if (raw->data && n < raw->steps) {
        T *given = (T *)raw->data + row * raw->row + head * raw->head + n * raw->step;
        const T *k = (const T *)a->k.data + sequence * a->k.sequence + token * a->k.token + head / a->k_group * a->k.head;
        memcpy(given, k, D * sizeof *k);
        memcpy(given + D, (const T *)a->alpha + sequence * a->alpha_sequence + token * a->alpha_token + head * a->alpha_head,
               D * sizeof *given);
    }
}
#else
static void keep_token(const struct gated_delta_args *a, const float *added, int64_t row, int64_t sequence, int64_t token,
                       int64_t n, int64_t head)
{
    (void)a, (void)added, (void)row, (void)sequence, (void)token, (void)n, (void)head;
}
#endif

void gated_delta_recurrent_cpu(const struct gated_delta_args *a, int part, int parts)
{
    int64_t head = part % a->num_heads, sequence = part / a->num_heads, row = initial_row(a, sequence);
    int64_t begin = sequence_begin(a, sequence), end = sequence_begin(a, sequence + 1);
    float s[D][D], gained[D];
    (void)parts;
    memset(s, 0, sizeof s);
    if (a->initial.data && row >= 0)
        load_state(s, &a->initial, row, head);
    int64_t first = a->kept_first && !(a->pads && row < 0) ? kept_row(a, sequence, 0) : -1;
    if (first >= 0)
        store_state(s, &a->kept, first, head);
    for (int64_t token = begin; token < end; token++) {
        T *output = (T *)a->output.data + sequence * a->output.sequence + token * a->output.token + head * a->output.head;
        struct token x;
        if (a->pads && row < 0) {
            memset(output, 0, D * sizeof *output);
            continue;
        }
        load_token(&x, a, sequence, token, head);
        if (VALUES_LAST)
            step_columns(s, &x, a->scale, output);
        else
            step_lines(s, gained, &x, a->scale, output);
        keep_token(a, gained, row, sequence, token, token - begin, head);
        int64_t kept = kept_row(a, sequence, token - begin + 1);
        if (kept >= 0)
            store_state(s, &a->kept, kept, head);
    }
    if (a->pads && row < 0)
        return;
    row = state_row(a->final_rows, sequence);
    if (a->final.data && row >= 0)
        store_state(s, &a->final, row, head);
}
