/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in float64, token by token, with the error that float32 kernels may have; what tests put into caches; what a call
 * costs. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "flashinfer/attention.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/variant.h"
#include "ops/attention/attention_host.h"

enum { MAX_HEAD_DIM = 512 };

/* A row and the request it belongs to. */
struct row {
    const struct attention_plan *plan;
    const struct attention_view *t;
    int64_t request, first_page, kv_len; /* first_page: in kv_indices; ragged: the first slot */
    int64_t qo_len, token, head; /* token: counted from the request's first */
    int64_t first_q, first_out;  /* of the request, in q and out */
    int64_t begin, end;          /* tokens it sees, but for masks */
    double scale, v_scale;
    double *logit, *logit_error; /* [kv_len] natural logits, or without softmax weights, and by how much a kernel's may differ */
    const struct reference *r;
    const struct attention_reference_hooks *hooks;
    bool without_softmax;
};

static struct at place_of(const struct row *row, int64_t key, int element)
{
    return (struct at){.request = (int)row->request,
                       .qo_len = (int)row->qo_len,
                       .kv_len = (int)row->kv_len,
                       .q = (int)row->token,
                       .kv = (int)key,
                       .qo_head = (int)row->head,
                       .kv_head = (int)(row->head / row->plan->group),
                       .element = element,
                       .row = (int)(row->first_q + row->token)};
}

/* The number, or if it is a tensor of more than one element the head's. */
static double number_of(const flashinfer_number *number, int64_t head)
{
    if (number->kind == FLASHINFER_NUMBER_ABSENT)
        return 1;
    if (number->kind != FLASHINFER_NUMBER_TENSOR)
        return number_value(number);
    const DLTensor *tensor = number->value.tensor;
    return ((const double *)tensor->data)[tensor_elements(tensor) > 1 ? head : 0];
}

/* A token's key or value for the row's head. */
static const double *find(const struct row *row, const DLTensor *cache, int64_t token)
{
    const struct attention_plan *p = row->plan;
    const double *data = cache->data;
    bool apart = row->t->v_indptr && cache == row->t->v_cache;
    int64_t first = apart ? (int64_t)((const double *)row->t->v_indptr->data)[row->request] : row->first_page;
    int64_t page = 0, slot = first + token, slots = tensor_shape(cache, -3 + (p->kv_layout != FLASHINFER_NHD));
    int64_t kv_head = row->head / p->group;
    if (row->t->kv_indices) {
        const double *kv_indices = row->t->kv_indices->data;
        page = (int64_t)kv_indices[row->first_page + token / slots];
        slot = token % slots;
    }
    int64_t at = p->kv_layout == FLASHINFER_NHD ? (page * slots + slot) * p->num_kv_heads + kv_head
                                                : (page * p->num_kv_heads + kv_head) * slots + slot;
    return data + at * tensor_shape(cache, -1);
}

/* Half a unit in the last place of 1 of the dtype that is multiplied, and half its smallest number. */
static double unit_of(const struct attention_plan *p) { return p->dtype == DTYPE_F16 ? 0x1p-11 : 0x1p-8; }
static double smallest_of(const struct attention_plan *p) { return p->dtype == DTYPE_F16 ? 0x1p-25 : FLT_MIN; }

/* Writes a query or key, turned by its position if need be, and by how much a kernel's may differ. A turned one is rounded to the
 * dtype that is multiplied; its angle is off by less than 2^-20. */
static void turn(const struct attention_plan *p, const double *x, int64_t position, double *turned, double *error)
{
    int half = p->head_dim / 2;
    double power = 1;
    memset(error, 0, (size_t)p->head_dim * sizeof *error);
    memcpy(turned, x, (size_t)p->head_dim * sizeof *x);
    for (int i = 0; p->pos == ATTENTION_POS_ROPE && i < half; i++, power *= p->rope_ratio) {
        double angle = (double)position * 2 * M_PI * p->rope_unit * power, c = cos(angle), s = sin(angle);
        turned[i] = x[i] * c - x[i + half] * s;
        turned[i + half] = x[i + half] * c + x[i] * s;
        for (int j = i; j <= i + half; j += half)
            error[j] = (fabs(x[i]) + fabs(x[i + half])) * 0x1p-20 + fabs(turned[j]) * 2 * unit_of(p) + smallest_of(p);
    }
}

static double slope_of(const struct attention_plan *p, int64_t head)
{
    double n = exp2(floor(log2(p->num_qo_heads))), h = (double)head;
    return h < n ? exp2(-8 * (h + 1) / n) : exp2(-4 * (2 * (h - n) + 1) / n);
}

/* Whether masks let the row see a token of its range. */
static bool is_seen(const struct row *row, int64_t key)
{
    const struct attention_view *t = row->t;
    if (row->plan->mask == ATTENTION_MASK_CUSTOM && t->custom_mask)
        return ((const double *)t->custom_mask->data)[row->token * row->kv_len + key] != 0;
    if (row->plan->mask == ATTENTION_MASK_CUSTOM) {
        int64_t start = t->mask_indptr ? (int64_t)((const double *)t->mask_indptr->data)[row->request] : 0;
        int64_t bit = row->token * row->kv_len + key;
        return (int64_t)((const double *)t->packed_custom_mask->data)[start + bit / 8] >> bit % 8 & 1;
    }
    if (row->plan->mask == ATTENTION_MASK_ITEMS) {
        int64_t own = row->kv_len - row->qo_len + row->token, columns = tensor_shape(t->token_pos_in_items, 1);
        int64_t prefix = (int64_t)((const double *)t->prefix_len->data)[row->request];
        const double *places = (const double *)t->token_pos_in_items->data + row->request * columns;
        if (own < prefix || key < prefix)
            return true;
        return key > own - (own - prefix < columns ? (int64_t)places[own - prefix] : 0);
    }
    return true;
}

/* A query or key of the row's head, as the hook changes it. */
static const double *change(const struct row *row, double (*hook)(const struct reference *, double, struct at, double *),
                            const double *x, int64_t key, double *changed)
{
    for (int i = 0; i < row->plan->head_dim; i++) {
        double error = 0; /* rounding to the dtype that is multiplied is far more */
        struct at at = place_of(row, key, i);
        if (hook == row->hooks->key) {
            at.q = 0;
            at.row = (int)row->first_q;
            at.qo_head = at.kv_head * row->plan->group;
        }
        changed[i] = hook(row->r, x[i], at, &error);
    }
    return changed;
}

/* Each of the head_dim additions of a dot product is off by at most 2 units of the sum of magnitudes (tensor cores truncate),
 * or by a subnormal that counts as zero; scales and the subtraction of the largest logit add 8 units of the logit. tanh by 2^x
 * is off by 2^-20 times the cap, absolutely. */
static void compute_logits(const struct row *row)
{
    const struct attention_plan *p = row->plan;
    const double *q = (const double *)row->t->q->data + ((row->first_q + row->token) * p->num_qo_heads + row->head) * p->head_dim;
    double slope = p->pos == ATTENTION_POS_ALIBI ? slope_of(p, row->head) : 0, changed[MAX_HEAD_DIM], changed_q[MAX_HEAD_DIM];
    double x[MAX_HEAD_DIM], x_error[MAX_HEAD_DIM], y[MAX_HEAD_DIM], y_error[MAX_HEAD_DIM];
    if (row->hooks->query)
        q = change(row, row->hooks->query, q, 0, changed_q);
    turn(p, q, row->kv_len - row->qo_len + row->token, x, x_error);
    for (int64_t j = row->begin; j < row->end; j++) {
        const double *k = find(row, row->t->k_cache, j);
        double dot = 0, magnitude = 0, error = 0;
        if (!is_seen(row, j) || (row->hooks->mask && !row->hooks->mask(row->r, place_of(row, j, 0)))) {
            row->logit[j] = row->without_softmax ? 0 : -INFINITY;
            row->logit_error[j] = 0;
            continue;
        }
        if (row->hooks->key)
            k = change(row, row->hooks->key, k, j, changed);
        turn(p, k, j, y, y_error);
        for (int i = 0; i < p->head_dim; i++) {
            double x_off = x_error[i] + (row->hooks->query ? fabs(x[i]) * 2 * unit_of(p) + smallest_of(p) : 0);
            double y_off = y_error[i] + (row->hooks->key ? fabs(y[i]) * 2 * unit_of(p) + smallest_of(p) : 0);
            dot += x[i] * y[i];
            magnitude += fabs(x[i] * y[i]);
            error += fabs(x[i]) * y_off + fabs(y[i]) * x_off + x_off * y_off;
        }
        double bias = slope * (double)(j - row->token), logit = dot * row->scale + bias;
        error = fabs(row->scale) * (p->head_dim * (2 * REFERENCE_UNIT * magnitude + FLT_MIN) + error);
        error += 8 * REFERENCE_UNIT * (fabs(logit) + fabs(bias) + fabs(dot * row->scale));
        if (p->logits_soft_cap > 0) {
            logit = p->logits_soft_cap * tanh(logit / p->logits_soft_cap);
            error += p->logits_soft_cap * 0x1p-20;
        }
        row->logit[j] = row->hooks->logits ? row->hooks->logits(row->r, logit, place_of(row, j, 0), &error) : logit;
        row->logit_error[j] = error;
    }
}

/* By how much a weight that is multiplied may be off beside its rounding, relative to the largest. With 8-bit values and bf16
 * queries batch_decode_stream multiplies f16, but there the largest is at least 2^7. */
static double smallest_weight_of(const struct attention_plan *p)
{
    bool narrow = p->kv_dtype == DTYPE_E4M3 || p->kv_dtype == DTYPE_E5M2;
    return narrow && p->dtype != DTYPE_F16 ? 0x1p-32 : smallest_of(p);
}

/* The weights' sum is at least 1 relative to the largest. A weight is off by its logit's error, by 16 units for 2^x and its
 * rescalings, and by 2 units of its distance to the largest logit; when rounded to the dtype of v, by half a unit in the last
 * place of that, at least by smallest_weight_of. Sums of n terms are off by 2 n units. */
static void finish_row(const struct row *row, enum dtype dtype, double *out, double *bound, double *lse, double *lse_bound)
{
    const struct attention_plan *p = row->plan;
    const double *sinks = row->t->sinks ? row->t->sinks->data : NULL;
    double top = sinks ? sinks[row->head] : -INFINITY, sum = 0, sum_error = 0;
    double sums = 2 * (double)(row->end - row->begin) * REFERENCE_UNIT;
    double rounding = unit_of(p), smallest = smallest_weight_of(p);
    double largest = dtype == DTYPE_E4M3 ? 448 : dtype == DTYPE_E5M2 ? 57344 : INFINITY; /* of out */
    double base = row->t->lse_in_base_e ? 1 : M_LOG2E;
    double error[MAX_HEAD_DIM] = {0};

    for (int64_t j = row->begin; j < row->end; j++)
        top = row->logit[j] > top || isnan(row->logit[j]) ? row->logit[j] : top;
    if (sinks)
        sum = exp(sinks[row->head] - top);
    sum_error = sum * 16 * REFERENCE_UNIT;
    for (int64_t j = row->begin; j < row->end; j++) {
        const double *v = find(row, row->t->v_cache, j);
        if (row->logit[j] == -INFINITY)
            continue;
        double weight = exp(row->logit[j] - top);
        double off = weight * (expm1(row->logit_error[j] + 2 * REFERENCE_UNIT * fabs(row->logit[j] - top)) + 16 * REFERENCE_UNIT);
        sum += weight;
        sum_error += off;
        for (int i = 0; i < p->head_dim_vo; i++) {
            out[i] += weight * v[i];
            error[i] += fabs(v[i]) * (off + weight * (rounding + sums) + smallest) + FLT_MIN;
        }
    }
    double off = sum > 0 ? sum_error / sum + sums + 8 * REFERENCE_UNIT : 0;
    for (int i = 0; i < p->head_dim_vo; i++) {
        out[i] = sum == 0 ? 0 : out[i] * row->v_scale / sum;
        bound[i] = sum == 0    ? 0
                   : off < 0.5 ? (error[i] * fabs(row->v_scale) / sum + fabs(out[i]) * off) / (1 - off) + FLT_TRUE_MIN
                               : INFINITY;
        out[i] = out[i] > largest ? largest : out[i] < -largest ? -largest : out[i];
    }
    if (lse) {
        *lse = sum == 0 ? -INFINITY : (top + log(sum)) * base;
        double rounded = (fabs(top) + fabs(log(sum > 0 ? sum : 1))) * base; /* the two terms of lse */
        *lse_bound = off < 0.5 ? -log1p(-off) * base + 5 * REFERENCE_UNIT * rounded : INFINITY;
    }
}

static void sum_weights(const struct row *row, double *out, double *bound)
{
    const struct attention_plan *p = row->plan;
    double error[MAX_HEAD_DIM] = {0}, sums = 2 * (double)(row->end - row->begin) * REFERENCE_UNIT;
    for (int64_t j = row->begin; j < row->end; j++) {
        const double *v = find(row, row->t->v_cache, j);
        double weight = row->logit[j];
        for (int i = 0; weight != 0 && i < p->head_dim_vo; i++) {
            out[i] += weight * v[i];
            error[i] += fabs(v[i]) * (row->logit_error[j] + fabs(weight) * (unit_of(p) + sums) + smallest_of(p)) + FLT_MIN;
        }
    }
    for (int i = 0; i < p->head_dim_vo; i++) {
        out[i] *= row->v_scale;
        bound[i] = error[i] * fabs(row->v_scale) + fabs(out[i]) * 8 * REFERENCE_UNIT + FLT_TRUE_MIN;
    }
}

static void compute_row(const struct reference *r, const struct row *row)
{
    const struct attention_plan *p = row->plan;
    int64_t at = (row->first_out + row->token) * p->num_qo_heads + row->head, column = at * p->head_dim_vo;
    double *lse = row->t->lse ? row->t->lse->data : NULL, *lse_bound = lse ? reference_bound(r, row->t->lse) : NULL;
    double *out = row->t->out->data, *bound = reference_bound(r, row->t->out);
    if (!reference_wants(r, at))
        return;
    compute_logits(row);
    if (row->without_softmax)
        sum_weights(row, out + column, bound + column);
    else
        finish_row(row, reference_dtype(r, row->t->out), out + column, bound + column, lse ? lse + at : NULL,
                   lse ? lse_bound + at : NULL);
    for (int i = 0; row->hooks->output && i < p->head_dim_vo; i++)
        out[column + i] = row->hooks->output(r, out[column + i], place_of(row, 0, i), &bound[column + i]);
}

static int64_t entry(const DLTensor *indptr, int64_t request, int64_t total)
{
    return indptr ? (int64_t)((const double *)indptr->data)[request] : request * total;
}

static void compute_request(const struct reference *r, struct row *row)
{
    const struct attention_plan *p = row->plan;
    const struct attention_view *t = row->t;
    int64_t total_kv = tensor_shape(t->k_cache, -3 + (p->kv_layout != FLASHINFER_NHD));
    int64_t total_q = t->kv_indptr && !t->qo_indptr ? p->q_len_per_req : attention_total_q(t); /* decode: of each request */
    int64_t qo_len = entry(t->qo_indptr, row->request + 1, total_q) - entry(t->qo_indptr, row->request, total_q);
    int64_t pages = entry(t->kv_indptr, row->request + 1, total_kv) - entry(t->kv_indptr, row->request, total_kv);
    bool own_window = t->window_left && t->window_left->kind != FLASHINFER_NUMBER_ABSENT;
    int64_t window_left = own_window ? t->window_left->value.i : p->window_left;

    row->qo_len = qo_len;
    row->first_q = entry(t->qo_indptr, row->request, total_q);
    row->first_out = t->o_indptr ? entry(t->o_indptr, row->request, 0) : row->first_q;
    row->first_page = entry(t->kv_indptr, row->request, total_kv);
    row->kv_len = pages;
    if (t->kv_last_page_len && pages)
        row->kv_len = (pages - 1) * p->page_size + (int64_t)((const double *)t->kv_last_page_len->data)[row->request];
    row->logit = calloc((size_t)row->kv_len + 1, sizeof *row->logit);
    row->logit_error = calloc((size_t)row->kv_len + 1, sizeof *row->logit_error);
    for (int64_t i = 0; row->logit && row->logit_error && i < qo_len; i++)
        for (row->head = 0; row->head < p->num_qo_heads; row->head++) {
            row->token = i;
            row->scale = p->sm_scale * number_of(t->q_scale, row->head) * number_of(t->k_scale, row->head / p->group);
            row->v_scale = number_of(t->v_scale, row->head / p->group) / (t->o_scale != 0 ? t->o_scale : 1);
            row->end = p->causal ? row->kv_len - qo_len + i + 1 : row->kv_len;
            row->end = row->end < 0 ? 0 : row->end;
            row->begin = window_left >= 0 && row->kv_len - qo_len + i > window_left ? row->kv_len - qo_len + i - window_left : 0;
            compute_row(r, row);
        }
    free(row->logit);
    free(row->logit_error);
}

void attention_reference(const struct reference *r)
{
    static const struct attention_reference_hooks none;
    attention_reference_with(r, &none);
}

void attention_reference_with(const struct reference *r, const struct attention_reference_hooks *hooks)
{
    const struct attention_view *t = r->view;
    const struct attention_plan *plan = r->call->plan ? r->call->plan : &t->plan;
    const struct op_variant *variant = r->call->op->variant;
    struct row row = {
        .plan = plan, .t = t, .r = r, .hooks = hooks, .without_softmax = variant && variant->hooks & HOOK_NO_SOFTMAX};
    for (; row.request < attention_batch(t); row.request++)
        compute_request(r, &row);
}

/* NULL if the problem has no such argument, or leaves it out. */
static struct problem_tensor *given(struct problem *problem, const char *name)
{
    struct problem_tensor *t = problem_tensor(problem, name);
    return t && t->present ? t : NULL;
}

/* slots: of a page, or all there are. */
static int64_t kv_length(struct problem *problem, int64_t request, int64_t slots)
{
    const struct problem_tensor *indptr = problem_tensor(problem, "kv_indptr");
    const struct problem_tensor *last = problem_tensor(problem, "kv_last_page_len");
    int64_t pages = indptr ? (int64_t)(problem_get(indptr, request + 1) - problem_get(indptr, request)) : slots;
    return last && pages ? (pages - 1) * slots + (int64_t)problem_get(last, request) : pages;
}

/* The bits of a request follow those of the one before, on a new byte. */
static void place_masks(struct problem *problem, int64_t slots)
{
    struct problem_tensor *mask_indptr = given(problem, "mask_indptr"), *qo_indptr = problem_tensor(problem, "qo_indptr");
    double at = 0;
    for (int64_t b = 0; mask_indptr && b < mask_indptr->elements; b++) {
        problem_set(mask_indptr, b, at);
        if (b + 1 < mask_indptr->elements)
            at += ceil((problem_get(qo_indptr, b + 1) - problem_get(qo_indptr, b)) * (double)kv_length(problem, b, slots) / 8);
    }
}

/* Requests lie in v and out in the opposite order. */
static void place_backwards(struct problem *problem, const char *name, const char *other)
{
    struct problem_tensor *own = given(problem, name), *indptr = problem_tensor(problem, other);
    for (int64_t b = 0; own && b < own->elements; b++) {
        double end = problem_get(indptr, own->elements - 1);
        problem_set(own, b, b + 1 < own->elements ? end - problem_get(indptr, b + 1) : end);
    }
}

/* Ragged keys: the last requests end before the keys do. */
static void end_early(struct problem *problem, int64_t tokens)
{
    struct problem_tensor *kv_indptr = problem_tensor(problem, "kv_indptr");
    double end = (double)problem_random(problem, (uint64_t)tokens + 1);
    for (int64_t b = 0; b < kv_indptr->elements; b++)
        if (problem_get(kv_indptr, b) > end)
            problem_set(kv_indptr, b, end);
}

/* The first token that any query token of a request sees, of kv_len. */
static int64_t first_seen(struct problem *problem, int64_t request, int64_t kv_len)
{
    const struct problem_tensor *qo_indptr = problem_tensor(problem, "qo_indptr");
    const char *names[] = {"q_len_per_req", "qo_len"};
    int64_t qo_len = 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (problem_dim(problem, names[i]) >= 0)
            qo_len = problem_dim(problem, names[i]);
    if (qo_indptr)
        qo_len = (int64_t)(problem_get(qo_indptr, request + 1) - problem_get(qo_indptr, request));
    bool own = !problem->plan || problem->given >> program_argument(problem->program, "window_left") & 1;
    int64_t window = problem_dim(own ? problem : problem->plan, "window_left"), first = kv_len - qo_len - window;
    return window >= 0 && first > 0 ? first : 0;
}

/* Marks the slots whose tokens are seen; slots: of a page, or all there are; starts: where requests start in pages, or slots. */
static void mark_seen(struct problem *problem, bool *seen, int64_t slots, const struct problem_tensor *starts)
{
    const struct problem_tensor *kv_indices = problem_tensor(problem, "kv_indices");
    for (int64_t b = 0; b < (starts ? starts->elements - 1 : 1); b++) {
        int64_t kv_len = kv_length(problem, b, slots), start = starts ? (int64_t)problem_get(starts, b) : 0;
        for (int64_t token = first_seen(problem, b, kv_len); token < kv_len; token++)
            if (kv_indices)
                seen[(int64_t)problem_get(kv_indices, start + token / slots) * slots + token % slots] = true;
            else
                seen[start + token] = true;
    }
}

/* NaN and infinities where no token is seen. */
static void spoil_unseen(struct problem *problem, struct problem_tensor *cache, const struct problem_tensor *starts)
{
    bool paged = cache->ndim == 4, nhd = problem_dim(problem, "kv_layout") == FLASHINFER_NHD;
    int64_t width = cache->shape[paged + 2], outer = cache->shape[paged], inner = cache->shape[paged + 1];
    int64_t slots = nhd ? outer : inner;
    bool *seen = calloc((size_t)((paged ? cache->shape[0] : 1) * slots) + 1, 1);
    if (seen)
        mark_seen(problem, seen, slots, starts);
    for (int64_t i = 0; seen && dtype_is_float(cache->dtype) && i < cache->elements; i++) {
        int64_t slot = nhd ? i / width / inner % outer : i / width % inner, page = i / width / inner / outer;
        if (!seen[page * slots + slot])
            problem_set(cache, i, i % 3 ? NAN : INFINITY);
    }
    free(seen);
}

void attention_make(struct problem *problem)
{
    bool paged = problem_tensor(problem, "k_cache"), nhd = problem_dim(problem, "kv_layout") == FLASHINFER_NHD;
    struct problem_tensor *keys = problem_tensor(problem, paged ? "k_cache" : "k"), *v_indptr = given(problem, "v_indptr");
    struct problem_tensor *kv_indptr = problem_tensor(problem, "kv_indptr");
    int64_t slots = keys->shape[paged + !nhd];
    if (problem->seed && kv_indptr && !paged)
        end_early(problem, slots);
    place_masks(problem, slots);
    place_backwards(problem, "v_indptr", "kv_indptr");
    place_backwards(problem, "o_indptr", "qo_indptr");
    if (problem->seed) {
        spoil_unseen(problem, keys, kv_indptr);
        spoil_unseen(problem, problem_tensor(problem, paged ? "v_cache" : "v"), v_indptr ? v_indptr : kv_indptr);
    }
}

void attention_cost(const struct call *call, double *bytes, double *operations)
{
    const struct attention_plan *plan = attention_plan_of(call);
    const struct attention_view *t = call_view(call);
    double batch = (double)attention_batch(t), queries = (double)attention_total_q(t);
    double slots = (double)attention_see_cache(plan, t->k_cache).slots;
    double tokens = t->kv_indices ? (double)tensor_shape(t->kv_indices, 0) * slots : slots;
    double width = plan->head_dim + plan->head_dim_vo; /* of a key and a value */
    double kv_len = batch > 0 ? tokens / batch : 0, qo_len = batch > 0 ? queries / batch : 0;
    /* Of causal attention the last kv_len query tokens see something, and leave out a triangle. */
    double rows = fmin(qo_len, kv_len), seen = plan->causal && qo_len > 1 ? rows * (kv_len - (rows - 1) / 2) : qo_len * kv_len;
    *bytes = tokens * plan->num_kv_heads * width * dtype_bytes((enum dtype)plan->kv_dtype) +
             queries * plan->num_qo_heads *
                 (plan->head_dim * dtype_bytes((enum dtype)plan->q_dtype) +
                  plan->head_dim_vo * dtype_bytes((enum dtype)plan->o_dtype));
    *operations = 2 * batch * seen * plan->num_qo_heads * width;
}
