/* SPDX-License-Identifier: Apache-2.0 */
/* Host side and reference of merge_states_sm80.cu, merge_many_states_sm80.cu and merge_states_cpu.c. */
#include "ops/attention/merge_states_kernels.h"

#include <float.h>
#include <math.h>

#include "harness/problem.h"
#include "ops/attention/merge_states_args.h"

enum { THREADS = 256, FEW_THREADS = 64, FEW = 512 /* threads of a multiprocessor */, WARP = 32 };
enum { CPU_ELEMENTS_PER_PART = 16384 /* some 2 us */ };
enum { FEW_STATES = 2, SOME_STATES = 4, MANY_STATES = 8 /* that a thread loads at a time */ };
enum { WAY_GRID, WAY_THREADS };

static const struct jit_kernel sm80 = {
    "merge_states_sm80", JIT_CUDA, {"T:dtype", "VEC", "LANES", "STATES", "THREADS", "REHEARSES"}};
static const struct jit_kernel many_sm80 = {"merge_many_states_sm80", JIT_CUDA, {"T:dtype", "VEC", "LANES"}};
static const struct jit_kernel cpu = {"merge_states_cpu", JIT_CPU, {"T:dtype"}};

static int64_t count_states(const struct merge_states_view *t)
{
    return t->v[1] ? 2 : tensor_shape(t->v[0], 1);
}

static int64_t count_heads(const struct merge_states_view *t)
{
    return tensor_shape(t->v_merged, 1);
}

static struct merge_states_input see_input(const DLTensor *v, const DLTensor *s)
{
    return (struct merge_states_input){.v = tensor_data(v),
                                       .s = tensor_data(s),
                                       .v_token = tensor_stride(v, 0),
                                       .v_head = tensor_stride(v, -2),
                                       .s_token = tensor_stride(s, 0)};
}

static struct merge_states_args fill_args(const struct merge_states_view *t)
{
    struct merge_states_args a = {.v_merged = tensor_data(t->v_merged),
                                  .s_merged = tensor_data(t->s_merged),
                                  .first = see_input(t->v[0], t->s[0]),
                                  .mask = tensor_data_or_null(t->mask),
                                  .v_merged_token = tensor_stride(t->v_merged, 0),
                                  .v_merged_head = tensor_stride(t->v_merged, 1),
                                  .s_merged_token = tensor_stride(t->s_merged, 0),
                                  .tokens = tensor_shape(t->v_merged, 0),
                                  .states = (int32_t)count_states(t),
                                  .heads = (int32_t)count_heads(t),
                                  .head_dim = (int32_t)tensor_shape(t->v_merged, 2)};
    if (t->v[1]) {
        a.rest = see_input(t->v[1], t->s[1]);
    } else {
        a.v_state = tensor_stride(t->v[0], 1);
        a.s_state = tensor_stride(t->s[0], 1);
        a.rest = a.first;
        if (a.states > 1) { /* else the pointers may be anything */
            a.rest.v = tensor_at(t->v[0], a.v_state);
            a.rest.s = tensor_at(t->s[0], a.s_state);
        }
    }
    return a;
}

/* NULL, or why no kernel takes these sizes. */
static const char *check_sizes(const struct merge_states_view *t)
{
    if (count_states(t) > INT32_MAX / 2 || tensor_shape(t->v_merged, 0) * count_heads(t) > INT32_MAX ||
        tensor_shape(t->v_merged, 2) > INT32_MAX / 2)
        return "there are more states, rows or elements of a row than a kernel counts";
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct merge_states_view *t = call_view(call);
    int64_t head_dim = tensor_shape(t->v_merged, 2), rows = tensor_shape(t->v_merged, 0) * count_heads(t), lanes = 1;
    int bytes = dtype_bytes(tensor_dtype(t->v_merged)), vec = 16 / bytes;
    while (vec > 1 && (head_dim % vec || !tensor_is_aligned(t->v_merged, vec * bytes) ||
                       !tensor_is_aligned(t->v[0], vec * bytes) || (t->v[1] && !tensor_is_aligned(t->v[1], vec * bytes))))
        vec /= 2;
    while (lanes < WARP && lanes * vec < head_dim)
        lanes *= 2;
    int64_t states = count_states(t);
    bool many = states > MANY_STATES;
    /* Few rows are latency: they are spread over multiprocessors, and the code is fetched before what it waits for. */
    bool few = !many && rows * lanes <= (int64_t)FEW * call->device->sms;
    way->value[WAY_THREADS] = few ? FEW_THREADS : THREADS;
    way->value[WAY_GRID] = ceil_div(rows, way->value[WAY_THREADS] / lanes);
    int32_t *constant = way_spec(way, many ? &many_sm80 : &sm80);
    constant[0] = tensor_dtype(t->v_merged);
    constant[1] = vec;
    constant[2] = (int32_t)lanes;
    if (!many) {
        constant[3] = states <= FEW_STATES ? FEW_STATES : states <= SOME_STATES ? SOME_STATES : MANY_STATES;
        constant[4] = (int32_t)way->value[WAY_THREADS];
        constant[5] = few && call_launches_early(call);
    }
    return check_sizes(t);
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct merge_states_view *t = call_view(call);
    int64_t elements = tensor_elements(t->v[0]) + (t->v[1] ? tensor_elements(t->v[1]) : 0);
    int64_t parts = ceil_div(elements, CPU_ELEMENTS_PER_PART);
    way->value[WAY_GRID] = parts < 1 ? 1 : parts > INT32_MAX ? INT32_MAX : parts;
    way_spec(way, &cpu)[0] = tensor_dtype(t->v_merged);
    return check_sizes(t);
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct merge_states_args a = fill_args(call_view(call));
    return call_launch(call, way, 0,
                       &(struct jit_launch){.grid = {(uint32_t)way->value[WAY_GRID]},
                                           .block = {(uint32_t)way->value[WAY_THREADS]},
                                           .args = &a,
                                           .args_size = sizeof a});
}

const char *const merge_states_rules[] = {"head_dim > 0", NULL};

const struct op_kernel merge_states_kernels[] = {
    {"merge_states_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"merge_states_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* A row of every state. */
struct row {
    int64_t states, head_dim;
    int64_t first, step; /* index of the first state's s, and how far apart those of one tensor are */
    const struct merge_states_view *t;
};

static double s_of(const struct row *row, int64_t state)
{
    bool other = row->t->v[1] && state;
    return ((const double *)row->t->s[other]->data)[row->first + (other ? 0 : state * row->step)];
}

static double v_of(const struct row *row, int64_t state, int64_t column)
{
    bool other = row->t->v[1] && state;
    return ((const double *)row->t->v[other]->data)[(row->first + (other ? 0 : state * row->step)) * row->head_dim + column];
}

/* Relative to the largest, a weight is off by a unit of its s's distance, and by 6 units for each power of two whose factor it
 * is, of which there is one for 8 states, and by the smallest number below which powers count as zero. Sums of n terms are off by
 * 2 n units. */
static void merge_row(const struct row *row, double *v, double *v_bound, double *s, double *s_bound)
{
    double top = -INFINITY, sum = 0, sum_error = 0, sums = 2 * (double)row->states * REFERENCE_UNIT;
    double powers = 6 * (1 + (double)(row->states / MANY_STATES)) * REFERENCE_UNIT;
    for (int64_t i = 0; i < row->states; i++)
        top = fmax(top, s_of(row, i));
    for (int64_t i = 0; i < row->states && top > -INFINITY; i++) {
        double weight = exp2(s_of(row, i) - top);
        sum += weight;
        if (s_of(row, i) > -INFINITY)
            sum_error += weight * (powers + (top - s_of(row, i)) * REFERENCE_UNIT) + FLT_MIN;
    }
    double off = sum > 0 ? sum_error / sum + sums + 4 * REFERENCE_UNIT : 0;
    for (int64_t column = 0; column < row->head_dim; column++) {
        double total = 0, error = FLT_MIN;
        for (int64_t i = 0; i < row->states; i++) {
            if (s_of(row, i) == -INFINITY)
                continue;
            double weight = exp2(s_of(row, i) - top), x = v_of(row, i, column);
            total += weight * x;
            error += fabs(x) * (weight * (powers + sums + (top - s_of(row, i)) * REFERENCE_UNIT) + FLT_MIN);
        }
        v[column] = sum == 0 ? 0 : total / sum;
        v_bound[column] = sum == 0 ? 0 : error / sum + fabs(v[column]) * off;
    }
    *s = sum == 0 ? -INFINITY : top + log2(sum);
    *s_bound = sum == 0 ? 0 : off * M_LOG2E + 4 * REFERENCE_UNIT * (fabs(top) + log2(sum));
}

void merge_states_reference(const struct reference *r)
{
    const struct merge_states_view *t = r->view;
    const double *mask = t->mask ? t->mask->data : NULL;
    double *v_bound = reference_bound(r, t->v_merged), *s_bound = reference_bound(r, t->s_merged);
    int64_t heads = count_heads(t), states = count_states(t), rows = tensor_shape(t->v_merged, 0) * heads;
    for (int64_t at = 0; at < rows; at++) {
        int64_t token = at / heads;
        struct row row = {states, tensor_shape(t->v_merged, 2), t->v[1] ? at : token * states * heads + at % heads, heads, t};
        if ((mask && mask[token] == 0) || !reference_wants(r, at))
            continue;
        merge_row(&row, (double *)t->v_merged->data + at * row.head_dim, v_bound + at * row.head_dim,
                  (double *)t->s_merged->data + at, s_bound + at);
    }
}

void merge_states_spoil(struct problem *problem)
{
    static const char *const names[][2] = {{"v", "s"}, {"v_a", "s_a"}, {"v_b", "s_b"}, {"v_other", "s_other"}};
    for (int i = 0; problem->seed && i < 4; i++) {
        struct problem_tensor *v = problem_tensor(problem, names[i][0]), *s = problem_tensor(problem, names[i][1]);
        int64_t head_dim = problem_dim(problem, "head_dim");
        for (int64_t row = 0; v && s && row < s->elements; row++) {
            if (problem_random(problem, 4))
                continue;
            problem_set(s, row, -INFINITY);
            for (int64_t column = 0; column < head_dim; column++)
                problem_set(v, row * head_dim + column, NAN);
        }
    }
}
