/* SPDX-License-Identifier: Apache-2.0 */
/* What the rope ops share. Kernels: rope_sm80.cu, rope_cpu.c. */
#include "ops/rope/rope_kernels.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "core/status.h"
#include "op/validate.h"
#include "ops/rope/rope_args.h"

enum {
    MAX_THREADS = 512,
    SINE_THREADS = 128,      /* worth having, if there are so many pairs */
    RESIDENT_THREADS = 1024, /* on a multiprocessor, at 64 registers */
    MAX_TOKENS_PER_BLOCK = 16,
    MAX_PAIRS = 1 << ROPE_POWERS,
    MAX_GRID_Y = 65535,
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
};

static const struct jit_kernel sm80 = {
    "rope_sm80", JIT_CUDA, {"T:dtype", "OUT:dtype", "POS:dtype", "VEC", "INTERLEAVE", "INDPTR", "CACHE", "PAGED"}};
static const struct jit_kernel cpu = {
    "rope_cpu", JIT_CPU, {"T:dtype", "OUT:dtype", "POS:dtype", "INTERLEAVE", "INDPTR", "CACHE", "PAGED"}};

/* Heads of a tensor that are rotated or copied to another one, from some element of a head on. */
struct part {
    const DLTensor *from, *to;
    int64_t heads, width, from_first, to_first;
    bool rotates, paged;
    double scale;
};

static int64_t head_dim(const struct rope_view *v, const DLTensor *t)
{
    return v->head_size ? v->head_size : tensor_shape(t, -1);
}

static int64_t heads_of(const struct rope_view *v, const DLTensor *t)
{
    int64_t all = t->ndim == 3 ? tensor_shape(t, 1) : v->head_size ? tensor_shape(t, 1) / v->head_size : 1;
    return head_dim(v, t) ? all : 0;
}

static int64_t rotary_dim(const struct rope_view *v)
{
    return v->cos_sin_cache ? tensor_shape(v->cos_sin_cache, 1) : v->rotary_dim ? v->rotary_dim : head_dim(v, v->q);
}

static int list_parts(const struct rope_view *v, struct part *parts)
{
    int64_t rotary = rotary_dim(v), rest = head_dim(v, v->q) - rotary;
    bool paged = v->kv_indptr != NULL;
    int64_t q_heads = heads_of(v, v->q), k_heads = heads_of(v, v->k);
    int n = 0;
    parts[n++] = (struct part){v->q, v->q_out, q_heads, rotary, 0, 0, true, false, v->q_scale};
    parts[n++] = (struct part){v->k, v->k_out, k_heads, rotary, 0, 0, true, paged, v->kv_scale};
    if (v->q_out != v->q)
        parts[n++] = (struct part){v->q, v->q_out, q_heads, rest, rotary, rotary, false, false, v->q_scale};
    if (v->k_out != v->k)
        parts[n++] = (struct part){v->k, v->k_out, k_heads, rest, rotary, rotary, false, paged, v->kv_scale};
    if (v->q_nope && v->q_nope_out)
        parts[n++] = (struct part){v->q_nope, v->q_nope_out, heads_of(v, v->q_nope), tensor_shape(v->q_nope, -1), 0, 0, false,
                                   false,     v->q_scale};
    if (v->k_nope && v->k_nope_out)
        parts[n++] = (struct part){v->k_nope,
                                   v->k_nope_out,
                                   heads_of(v, v->k_nope),
                                   tensor_shape(v->k_nope, -1),
                                   0,
                                   v->k_nope_out == v->k_out ? rotary : 0,
                                   false,
                                   paged,
                                   v->kv_scale};
    if (v->v)
        parts[n++] = (struct part){v->v, v->v_out, heads_of(v, v->v), tensor_shape(v->v, -1), 0, 0, false, paged, v->kv_scale};
    return n;
}

enum { MAX_PARTS = 7 };

/* Elements that every run of every part consists of, which can be loaded and stored at once. */
static int vector_length(const struct rope_view *v, const struct part *parts, int num_parts)
{
    int64_t pairs = rotary_dim(v) / 2;
    int vec = 8;
    for (int i = 0; i < num_parts; i++) {
        const struct part *p = &parts[i];
        int64_t runs = p->rotates && !v->interleave ? pairs : p->width;
        while (vec > 1 && (runs % vec || p->from_first % vec || p->to_first % vec ||
                           !tensor_is_aligned(p->from, vec * dtype_bytes(tensor_dtype(p->from))) ||
                           !tensor_is_aligned(p->to, vec * dtype_bytes(tensor_dtype(p->to)))))
            vec /= 2;
    }
    return vec;
}

static struct rope_segment segment(const struct rope_view *v, const struct part *p, int vec)
{
    bool hnd = p->to->ndim == 4 && v->kv_layout == FLASHINFER_HND, pairs_side_by_side = p->rotates && v->interleave && vec == 1;
    struct rope_segment s = {
        .from = tensor_at(p->from, p->from_first),
        .to = tensor_at(p->to, p->to_first),
        .from_stride = {tensor_stride(p->from, 0), p->from->ndim == 3 ? tensor_stride(p->from, 1) : head_dim(v, p->from)},
        .heads = (int32_t)p->heads,
        .width = (int32_t)p->width,
        .pieces = (int32_t)ceil_div(p->width, 2 * vec),
        .rotates = p->rotates,
        .paged = p->paged,
        .scale = (float)p->scale,
    };
    s.half = pairs_side_by_side ? 1 : s.pieces * vec;
    s.to_stride[0] = tensor_stride(p->to, 0);
    if (p->paged) {
        s.to_stride[1] = tensor_stride(p->to, hnd ? 2 : 1);
        s.to_stride[2] = p->to->ndim == 4 ? tensor_stride(p->to, hnd ? 1 : 2) : 0;
    } else {
        s.to_stride[2] = p->to->ndim == 3 ? tensor_stride(p->to, 1) : head_dim(v, p->to);
    }
    return s;
}

static void fill_frequencies(const struct rope_view *v, struct rope_args *a)
{
    double ratio = pow(v->rope_theta, -1.0 / a->num_pairs);
    for (int i = 0; i < ROPE_POWERS; i++, ratio *= ratio)
        a->power[i] = ratio;
    a->low = 1 / v->rope_scale;
    if (v->high_freq_factor != 0) {
        double width = v->high_freq_factor - v->low_freq_factor;
        a->smooth[0] = v->old_context_len / (6.283185307179586476925 * width);
        a->smooth[1] = -v->low_freq_factor / width;
    }
}

/* The axis of a cache's slots. */
static int slot_axis(const struct rope_view *v)
{
    return v->k_out->ndim == 4 && v->kv_layout == FLASHINFER_HND ? 2 : 1;
}

static void fill_args(const struct rope_view *v, int vec, struct rope_args *a)
{
    struct part parts[MAX_PARTS];
    int num_parts = list_parts(v, parts);
    *a = (struct rope_args){.num_pairs = (int32_t)(rotary_dim(v) / 2), .nnz = tensor_shape(v->q, 0)};
    for (int i = 0; i < num_parts; i++) {
        if (parts[i].heads * parts[i].width == 0)
            continue;
        struct rope_segment *s = &a->segment[a->num_segments++];
        *s = segment(v, &parts[i], vec);
        s->first_piece = a->pieces;
        a->pieces += s->heads * s->pieces;
        a->rotating_pieces += s->rotates ? s->heads * s->pieces : 0;
    }
    if (v->pos_ids)
        a->pos_ids = tensor_data(v->pos_ids);
    if (v->indptr) {
        a->indptr = tensor_data(v->indptr);
        a->offsets = tensor_data(v->offsets);
        a->batch = tensor_shape(v->offsets, 0);
    }
    if (v->cos_sin_cache) {
        a->cos_sin = tensor_data(v->cos_sin_cache);
        a->cos_sin_stride = tensor_stride(v->cos_sin_cache, 0);
    } else if (a->num_pairs) {
        fill_frequencies(v, a);
    }
    if (v->kv_indptr)
        a->tokens = (struct paged_tokens){.batch_indices = tensor_data(v->batch_indices),
                                          .positions = tensor_data(v->positions),
                                          .kv_indices = tensor_data(v->kv_indices),
                                          .kv_indptr = tensor_data(v->kv_indptr),
                                          .page_size = tensor_shape(v->k_out, slot_axis(v))};
}

/* What the declaration's rules cannot say, and no kernel serves. */
static const char *misfit(const struct rope_view *v)
{
    if (v->high_freq_factor != 0 && v->high_freq_factor <= v->low_freq_factor)
        return "high_freq_factor must be above low_freq_factor";
    return NULL;
}

static int32_t *set_constants(const struct rope_view *v, int32_t *constant)
{
    *constant++ = tensor_dtype(v->q);
    *constant++ = tensor_dtype(v->q_out);
    *constant++ = tensor_dtype(v->pos_ids ? v->pos_ids : v->indptr);
    return constant;
}

static void set_forms(const struct rope_view *v, int32_t *constant)
{
    constant[0] = v->interleave;
    constant[1] = v->indptr != NULL;
    constant[2] = v->cos_sin_cache != NULL;
    constant[3] = v->kv_indptr != NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct rope_view *v = call_view(call);
    struct part parts[MAX_PARTS];
    int num_parts = list_parts(v, parts), vec = vector_length(v, parts, num_parts);
    int64_t pieces = 0;
    if (misfit(v))
        return misfit(v);
    for (int i = 0; i < num_parts; i++) {
        if (parts[i].width > INT32_MAX || parts[i].heads > INT32_MAX)
            return "there are more heads or elements than 32 bits count";
        pieces += parts[i].heads * ceil_div(parts[i].width, 2 * vec);
    }
    if (ceil_div(pieces, MAX_THREADS) > MAX_GRID_Y || tensor_shape(v->q, 0) > INT32_MAX)
        return "there are more tokens, heads or elements than a grid has blocks for";
    if (rotary_dim(v) > 2 * MAX_PAIRS)
        return "it rotates at most 8192 elements of a head";
    way->value[0] = vec;
    int32_t *constant = set_constants(v, way_spec(way, &sm80));
    *constant++ = vec;
    set_forms(v, constant);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct rope_view *v = call_view(call);
    struct part parts[MAX_PARTS];
    if (misfit(v))
        return misfit(v);
    for (int i = list_parts(v, parts) - 1; i >= 0; i--)
        if (parts[i].width > INT32_MAX / 2 || parts[i].heads > INT32_MAX / 2)
            return "there are more heads or elements than 32 bits count";
    set_forms(v, set_constants(v, way_spec(way, &cpu)));
    way->value[0] = 8;
    return NULL;
}

static void launch_cuda(const struct device *device, struct rope_args *a, struct jit_launch *launch)
{
    int64_t chunks = ceil_div(a->pieces, MAX_THREADS), threads = ceil_div(a->pieces, chunks);
    if (a->rotating_pieces && threads < least(a->num_pairs, SINE_THREADS))
        threads = least(a->num_pairs, SINE_THREADS);
    threads = ceil_div(threads, 32) * 32;
    /* All blocks at once, or several times as many, of equal size. */
    int64_t resident = ceil_div(device->sms * (RESIDENT_THREADS / threads), chunks);
    int64_t waves = ceil_div(a->nnz, resident * MAX_TOKENS_PER_BLOCK);
    a->tokens_per_block = ceil_div(a->nnz, resident * waves);
    launch->grid[0] = (uint32_t)ceil_div(a->nnz, a->tokens_per_block);
    launch->grid[1] = (uint32_t)chunks;
    launch->block[0] = (uint32_t)threads;
    launch->smem = (uint32_t)(4 * ((a->num_pairs + 7) / 4 * 4) * sizeof(float));
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct rope_args a;
    fill_args(call_view(call), (int)way->value[0], &a);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (a.nnz == 0 || a.pieces == 0)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA)
        launch_cuda(call->device, &a, &launch);
    else
        launch.grid[0] = (uint32_t)least(ceil_div(a.nnz, ceil_div(CPU_ELEMENTS_PER_PART, (int64_t)a.pieces * 16)), INT32_MAX);
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel rope_kernels[] = {
    {"rope_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"rope_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

void rope_cost(const struct call *call, double *bytes, double *operations)
{
    const struct rope_view *v = call_view(call);
    struct part parts[MAX_PARTS];
    double tokens = (double)tensor_shape(v->q, 0), of_token = v->pos_ids ? dtype_bytes(tensor_dtype(v->pos_ids)) : 0;
    for (int i = list_parts(v, parts) - 1; i >= 0; i--)
        of_token += (double)(parts[i].heads * parts[i].width) *
                    (dtype_bytes(tensor_dtype(parts[i].from)) + dtype_bytes(tensor_dtype(parts[i].to)));
    if (v->cos_sin_cache)
        of_token += (double)rotary_dim(v) * (double)sizeof(float);
    if (v->kv_indptr)
        of_token += 2 * sizeof(int32_t);
    *bytes = tokens * of_token;
    *operations = 0;
}

static flashinfer_status check_rows(const struct call *call, const char *name, const int64_t *positions, int64_t rows)
{
    const struct rope_view *v = call_view(call);
    for (int64_t i = 0; i < tensor_shape(v->pos_ids, 0); i++)
        if (positions[i] < 0 || positions[i] >= rows)
            return fail(FLASHINFER_INVALID,
                        "%s: %s[%" PRId64 "] is %" PRId64 ", must be at least 0 and below %" PRId64 ", the rows of cos_sin_cache",
                        call->op->name, name, i, positions[i], rows);
    return FLASHINFER_OK;
}

flashinfer_status rope_validate(const struct call *call)
{
    const struct rope_view *v = call_view(call);
    int64_t *positions;
    flashinfer_status status = validate_fetch_wide(call, v->pos_ids, &positions);
    if (!status)
        status = check_rows(call, v->head_size ? "positions" : "pos_ids", positions, tensor_shape(v->cos_sin_cache, 0));
    free(positions);
    if (status || !v->kv_indptr)
        return status;
    return validate_paged_tokens(call, &(struct validate_paged){v->batch_indices, v->positions, v->kv_indices, v->kv_indptr,
                                                                tensor_shape(v->k_out, 0), tensor_shape(v->k_out, slot_axis(v)),
                                                                v->k_out->ndim == 4 ? "k_cache" : "kpe_cache"});
}

const char *const rope_rules[] = {"head_dim > 0", "head_dim % 2 == 0", "rotary_dim % 2 == 0", "rotary_dim <= head_dim", NULL};

const struct op_range rope_ranges[] = {{"nnz", 0, 100, 0},      {"num_qo_heads", 0, 20, 0}, {"num_kv_heads", 0, 8, 0},
                                       {"head_dim", 2, 280, 2}, {"rotary_dim", 0, 280, 2},  {0}};
