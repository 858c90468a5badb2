/* SPDX-License-Identifier: Apache-2.0 */
/* What the rope ops share. Kernels: rope_sm80.cu, rope_cpu.c. */
#include "ops/rope/rope_kernels.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/power.h"
#include "core/status.h"
#include "op/validate.h"
#include "ops/rope/rope_args.h"

enum {
    SINE_THREADS = 128,           /* worth having, if there are so many pairs */
    RESIDENT_THREADS = 1280,      /* on a multiprocessor, at 48 registers */
    MANY_HEADS = 2,               /* of a thread, where there are more pieces than the GPU holds at once */
    FEW_SEGMENTS = 2,             /* whose kernel takes so few registers that one head each keeps enough bytes on their way */
    AHEAD_BYTES = 40960,          /* of a multiprocessor, that are fetched to the L2 cache before */
    MAX_PAIRS = 1 << ROPE_POWERS,
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
};

enum { WAY_CHUNK_BITS, WAY_THREADS, WAY_HEADS };

#define FORM_CONSTANTS "T:dtype", "OUT:dtype", "POS:dtype", "INTERLEAVE", "INDPTR", "CACHE", "PAGED"
enum { NUM_FORM_CONSTANTS = 7 };

static const struct jit_kernel sm80 = {"rope_sm80", JIT_CUDA, {FORM_CONSTANTS, "VEC", "SEGMENTS", "ROTATING", "EXACT",
                                                               "POWERS_OF_TWO", "HEADS", "CHUNKED", "WIDE"}};
static const struct jit_kernel cpu = {"rope_cpu", JIT_CPU, {FORM_CONSTANTS}};

/* Heads of a tensor that are rotated or copied to another one, from some element of a head on. */
struct part {
    const DLTensor *from, *to;
    int64_t heads, width, from_first, to_first;
    bool paged;
    double scale;
};

/* Those that have elements; the first `rotating` of them are rotated. */
struct parts {
    struct part part[ROPE_MAX_SEGMENTS];
    int count, rotating;
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

static void add_part(struct parts *parts, const struct part *p)
{
    if (p->heads && p->width)
        parts->part[parts->count++] = *p;
}

static void list_parts(const struct rope_view *v, struct parts *parts)
{
    int64_t rotary = rotary_dim(v), rest = head_dim(v, v->q) - rotary;
    bool paged = v->paged.kv_indptr != NULL;
    int64_t q_heads = heads_of(v, v->q), k_heads = heads_of(v, v->k);
    parts->count = 0;
    add_part(parts, &(struct part){v->q, v->q_out, q_heads, rotary, 0, 0, false, v->q_scale});
    add_part(parts, &(struct part){v->k, v->k_out, k_heads, rotary, 0, 0, paged, v->kv_scale});
    parts->rotating = parts->count;
    if (rest && v->q_out != v->q)
        add_part(parts, &(struct part){v->q, v->q_out, q_heads, rest, rotary, rotary, false, v->q_scale});
    if (rest && v->k_out != v->k)
        add_part(parts, &(struct part){v->k, v->k_out, k_heads, rest, rotary, rotary, paged, v->kv_scale});
    if (v->q_nope && v->q_nope_out)
        add_part(parts, &(struct part){v->q_nope, v->q_nope_out, heads_of(v, v->q_nope), tensor_shape(v->q_nope, -1), 0, 0, false,
                                       v->q_scale});
    if (v->k_nope && v->k_nope_out)
        add_part(parts, &(struct part){v->k_nope, v->k_nope_out, heads_of(v, v->k_nope), tensor_shape(v->k_nope, -1), 0,
                                       v->k_nope_out == v->k_out ? rotary : 0, paged, v->kv_scale});
    if (v->v)
        add_part(parts, &(struct part){v->v, v->v_out, heads_of(v, v->v), tensor_shape(v->v, -1), 0, 0, paged, v->kv_scale});
}

/* Elements that every run of every part consists of, which can be loaded and stored at once: a power of two. head_size: how far
 * apart heads are of which a tensor has rows. */
static int vector_length(const struct rope_view *v, const struct parts *parts)
{
    int64_t all = 8 | v->head_size;
    int from_bytes = dtype_bytes(tensor_dtype(v->q)), to_bytes = dtype_bytes(tensor_dtype(v->q_out));
    for (int i = 0; i < parts->count; i++) {
        const struct part *p = &parts->part[i];
        all |= i < parts->rotating && !v->interleave ? p->width / 2 : p->width;
        all |= p->from_first | p->to_first;
    }
    int vec = (int)(all & -all);
    for (int i = 0; i < parts->count; i++) {
        const struct part *p = &parts->part[i];
        while (vec > 1 && (!tensor_is_aligned(p->from, vec * from_bytes) ||
                           (p->to != p->from && !tensor_is_aligned(p->to, vec * to_bytes))))
            vec /= 2;
    }
    return vec;
}

/* Of a head: vec is a power of two. */
static int64_t pieces_of(const struct part *p, int vec)
{
    return (p->width + 2 * vec - 1) >> (__builtin_ctz((unsigned)vec) + 1);
}

static void fill_segment(const struct rope_view *v, const struct part *p, bool rotates, int vec, struct rope_segment *s)
{
    bool hnd = p->to->ndim == 4 && v->kv_layout == FLASHINFER_HND, pairs_side_by_side = rotates && v->interleave && vec == 1;
    s->from = tensor_at(p->from, p->from_first);
    s->to = tensor_at(p->to, p->to_first);
    s->from_stride[0] = tensor_stride(p->from, 0);
    s->from_stride[1] = p->from->ndim == 3 ? tensor_stride(p->from, 1) : head_dim(v, p->from);
    s->heads = (int32_t)p->heads;
    s->width = (int32_t)p->width;
    s->pieces = (int32_t)pieces_of(p, vec);
    s->half = pairs_side_by_side ? 1 : s->pieces * vec;
    s->paged = p->paged;
    s->scale = (float)p->scale;
    s->to_stride[0] = tensor_stride(p->to, 0);
    if (p->paged) {
        s->to_stride[1] = tensor_stride(p->to, hnd ? 2 : 1);
        s->to_stride[2] = p->to->ndim == 4 ? tensor_stride(p->to, hnd ? 1 : 2) : 0;
    } else {
        s->to_stride[1] = 0;
        s->to_stride[2] = p->to->ndim == 3 ? tensor_stride(p->to, 1) : head_dim(v, p->to);
    }
}

static void fill_frequencies(const struct rope_view *v, struct rope_args *a)
{
    a->power[0] = remembered_pow(v->rope_theta, -1.0 / a->num_pairs);
    for (int i = 1; (a->num_pairs - 1) >> i; i++)
        a->power[i] = a->power[i - 1] * a->power[i - 1];
    a->low = 1 / v->rope_scale;
    a->smooth[0] = a->smooth[1] = 0;
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

/* Those of the first of so many heads that a thread has at most. */
static void number_pieces(int32_t heads, struct rope_args *a)
{
    a->pieces = a->rotating_pieces = 0;
    for (int i = 0; i < a->num_segments; i++) {
        struct rope_segment *s = &a->segment[i];
        s->apart = (int32_t)ceil_div(s->heads, heads);
        s->first_piece = a->pieces;
        a->pieces += s->apart * s->pieces;
        if (i < a->num_rotating)
            a->rotating_pieces = a->pieces;
    }
}

static void fill_args(const struct rope_view *v, const struct parts *parts, int vec, struct rope_args *a)
{
    a->nnz = (int32_t)tensor_shape(v->q, 0);
    a->num_segments = parts->count;
    a->num_rotating = parts->rotating;
    a->num_pairs = (int32_t)(rotary_dim(v) / 2);
    for (int i = 0; i < parts->count; i++)
        fill_segment(v, &parts->part[i], i < parts->rotating, vec, &a->segment[i]);
    number_pieces(1, a);
    a->pos_ids = tensor_data_or_null(v->pos_ids);
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
    if (v->paged.kv_indptr)
        a->tokens = paged_tokens_of(&v->paged, tensor_shape(v->k_out, slot_axis(v)));
}

/* What the declaration's rules cannot say, and no kernel serves. */
static const char *misfit(const struct rope_view *v)
{
    if (v->high_freq_factor != 0 && v->high_freq_factor <= v->low_freq_factor)
        return "high_freq_factor must be above low_freq_factor";
    if (rotary_dim(v) / 2 > MAX_PAIRS && !v->cos_sin_cache)
        return "without cos_sin_cache it rotates at most 8192 elements of a head";
    return NULL;
}

#define TOO_MANY "there are more tokens, heads or elements than a grid has blocks for"

static int32_t *set_forms(const struct rope_view *v, int32_t cache, int32_t *constant)
{
    constant[0] = tensor_dtype(v->q);
    constant[1] = tensor_dtype(v->q_out);
    constant[2] = tensor_dtype(v->pos_ids ? v->pos_ids : v->indptr);
    constant[3] = v->interleave;
    constant[4] = v->indptr != NULL;
    constant[5] = cache;
    constant[6] = v->paged.kv_indptr != NULL;
    return constant + NUM_FORM_CONSTANTS;
}

/* Threads that fill the table, if there is one. */
static int32_t sharers_of(const struct rope_view *v, const struct rope_args *a, int32_t cache)
{
    if (!a->rotating_pieces || cache == ROPE_CACHED_BY_EACH)
        return 0;
    return cache == ROPE_CACHED_BY_FOUR ? a->num_pairs / 2 : v->indptr ? (int32_t)ceil_div(a->num_pairs, 32) * 32 : a->num_pairs;
}

/* Threads for the pieces of a token, of which each has up to so many heads, in as few blocks as hold them. */
static void cut_tokens(int64_t heads, int64_t max_threads, struct rope_args *a, int64_t *value)
{
    int bits = 0;
    number_pieces((int32_t)heads, a);
    while (max_threads << bits < a->pieces)
        bits++;
    int64_t threads = most(ceil_div(a->pieces, INT64_C(1) << bits), least(a->sharers, SINE_THREADS));
    value[WAY_HEADS] = heads;
    value[WAY_CHUNK_BITS] = bits;
    value[WAY_THREADS] = ceil_div(threads, 32) * 32;
}

/* Whole tokens, if their heads lie side by side, in units of 16 bytes. */
static struct fetch_ahead fetch_tokens_ahead(const struct call *call, const struct rope_view *v, const struct rope_args *a)
{
    int64_t element = dtype_bytes(tensor_dtype(v->q)), bytes = 0;
    for (int i = 0; i < a->num_segments; i++) {
        const struct rope_segment *s = &a->segment[i];
        int64_t token = (int64_t)s->heads * s->width * element;
        if (token == 0 || (s->heads > 1 && s->from_stride[1] != s->width) ||
            (token | wrapping_product(s->from_stride[0], element) | (int64_t)(uintptr_t)s->from) % 16)
            return (struct fetch_ahead){0};
        bytes += token;
    }
    return fetch_ahead((int64_t)call->device->sms * AHEAD_BYTES, a->nnz, bytes);
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct rope_view *v = call_view(call);
    struct rope_args *a = WAY_ARGS(way, struct rope_args);
    struct parts parts;
    list_parts(v, &parts);
    int vec = vector_length(v, &parts);
    int64_t pieces = 0, odd = 0, nnz = tensor_shape(v->q, 0), pairs = rotary_dim(v) / 2;
    bool exact = true;
    if (misfit(v))
        return misfit(v);
    for (int i = 0; i < parts.count; i++) {
        const struct part *p = &parts.part[i];
        if (p->width > INT32_MAX || p->heads > INT32_MAX)
            return "there are more heads or elements than 32 bits count";
        pieces += p->heads * pieces_of(p, vec);
        odd |= pieces_of(p, vec) & (pieces_of(p, vec) - 1);
        exact = exact && p->width % (2 * vec) == 0;
    }
    if (pieces > INT32_MAX / 2 || nnz > INT32_MAX)
        return TOO_MANY;
    if (pairs > MAX_PAIRS)
        return "it rotates at most 8192 elements of a head";
    fill_args(v, &parts, vec, a);
    bool quads = v->cos_sin_cache && vec >= 4 && pairs % 4 == 0 && tensor_is_aligned(v->cos_sin_cache, 16);
    bool many = nnz * a->pieces > (int64_t)call->device->sms * RESIDENT_THREADS;
    bool quantizes = dtype_bytes(tensor_dtype(v->q_out)) == 1;
    /* Few tokens wait less for a table than for what each thread would read. */
    int32_t cached = !quads ? ROPE_CACHED : many ? ROPE_CACHED_BY_EACH : ROPE_CACHED_BY_FOUR;
    int32_t cache = v->cos_sin_cache ? cached : ROPE_WORKED_OUT;
    a->sharers = sharers_of(v, a, cache);
    cut_tokens(many && (quantizes || parts.count > FEW_SEGMENTS) ? MANY_HEADS : 1,
               quantizes ? ROPE_MAX_QUANTIZING_THREADS : ROPE_MAX_THREADS, a, way->value);
    a->chunk_bits = (int32_t)way->value[WAY_CHUNK_BITS];
    if (nnz > INT32_MAX >> a->chunk_bits)
        return TOO_MANY;
    a->ahead = fetch_tokens_ahead(call, v, a);
    int32_t *constant = set_forms(v, cache, way_spec(way, &sm80));
    constant[0] = vec;
    constant[1] = parts.count ? parts.count : 1;
    constant[2] = parts.rotating;
    constant[3] = exact;
    constant[4] = !odd;
    constant[5] = (int32_t)way->value[WAY_HEADS];
    constant[6] = a->chunk_bits > 0;
    constant[7] = a->sharers > way->value[WAY_THREADS];
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct rope_view *v = call_view(call);
    struct parts parts;
    if (misfit(v))
        return misfit(v);
    int64_t pieces = 0;
    list_parts(v, &parts);
    for (int i = 0; i < parts.count; i++) {
        const struct part *p = &parts.part[i];
        if (p->width > INT32_MAX / 2 || p->heads > INT32_MAX / 2)
            return "there are more heads or elements than 32 bits count";
        pieces += p->heads * pieces_of(p, 8);
    }
    if (pieces > INT32_MAX || tensor_shape(v->q, 0) > INT32_MAX)
        return "there are more tokens, or heads and elements, than 32 bits count";
    fill_args(v, &parts, 8, WAY_ARGS(way, struct rope_args));
    set_forms(v, v->cos_sin_cache != NULL, way_spec(way, &cpu));
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct rope_args *a = WAY_ARGS(way, const struct rope_args);
    struct jit_launch launch = {.args = a, .args_size = sizeof *a};
    if (a->nnz == 0 || a->pieces == 0)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)a->nnz << a->chunk_bits;
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
        launch.smem = a->sharers ? (uint32_t)(2 * ROPE_TABLE_FLOATS(a->num_pairs) * sizeof(float)) : 0;
    } else {
        launch.grid[0] = jit_parts(ceil_div(a->nnz, ceil_div(CPU_ELEMENTS_PER_PART, (int64_t)a->pieces * 16)));
    }
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
    struct parts parts;
    double tokens = (double)tensor_shape(v->q, 0), of_token = v->pos_ids ? dtype_bytes(tensor_dtype(v->pos_ids)) : 0;
    list_parts(v, &parts);
    for (int i = 0; i < parts.count; i++)
        of_token += (double)(parts.part[i].heads * parts.part[i].width) *
                    (dtype_bytes(tensor_dtype(parts.part[i].from)) + dtype_bytes(tensor_dtype(parts.part[i].to)));
    if (v->cos_sin_cache)
        of_token += (double)rotary_dim(v) * (double)sizeof(float);
    if (v->paged.kv_indptr)
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
    if (status || !v->paged.kv_indptr)
        return status;
    return validate_paged_tokens(call, &v->paged, tensor_shape(v->k_out, 0), tensor_shape(v->k_out, slot_axis(v)),
                                 v->k_out->ndim == 4 ? "k_cache" : "kpe_cache");
}

const char *const rope_rules[] = {"head_dim > 0", "head_dim % 2 == 0", "rotary_dim % 2 == 0", "rotary_dim <= head_dim", NULL};
const char *const rope_cache_rules[] = {"rotary_dim > 0",
                                        "rotary_dim % 2 == 0",
                                        "rotary_dim <= head_size",
                                        "nnz == 0 or max_positions > 0",
                                        "q_columns % head_size == 0",
                                        "k_columns % head_size == 0",
                                        NULL};

const struct op_range rope_ranges[] = {{"nnz", 0, 100, 0},      {"num_qo_heads", 0, 20, 0}, {"num_kv_heads", 0, 8, 0},
                                       {"head_dim", 2, 280, 2}, {"rotary_dim", 0, 280, 2},  {0}};
const struct op_range rope_cache_ranges[] = {{"nnz", 0, 100, 0},       {"q_columns", 0, 900, 6},  {"k_columns", 0, 300, 6},
                                             {"head_size", 2, 280, 2}, {"rotary_dim", 2, 280, 2}, {"max_positions", 1, 500, 0},
                                             {0}};

const struct op_shape rope_request_shapes[] = {
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 head_dim=64 dtype=bf16 batch=1 indptr:dtype=i32"},
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 head_dim=90 rotary_dim=54 interleave=1 dtype=f16 batch=3 indptr:dtype=i64"},
    {"llama_8b_decode",
     "nnz=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 batch=128 indptr:dtype=i32"},
    {"llama_8b_prefill",
     "nnz=4096 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 batch=4 indptr:dtype=i64"},
    {"partial",
     "nnz=64 num_qo_heads=32 num_kv_heads=32 head_dim=80 rotary_dim=32 interleave=1 dtype=f16 batch=40 indptr:dtype=i32"},
    {0},
};

const struct op_shape rope_position_shapes[] = {
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 head_dim=64 dtype=bf16 pos_ids:dtype=i32"},
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 head_dim=90 rotary_dim=54 interleave=1 dtype=f16 pos_ids:dtype=i64"},
    {"llama_8b_decode", "nnz=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 pos_ids:dtype=i32"},
    {"llama_8b_prefill", "nnz=4096 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 pos_ids:dtype=i64"},
    {"partial", "nnz=64 num_qo_heads=32 num_kv_heads=32 head_dim=80 rotary_dim=32 interleave=1 dtype=f16 pos_ids:dtype=i32"},
    {"llama_8b_prefill_16k",
     "nnz=16384 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 pos_ids:dtype=i32"},
    {"qwen3_235b_decode", "nnz=32 num_qo_heads=64 num_kv_heads=4 head_dim=128 rope_theta=1000000 dtype=bf16 pos_ids:dtype=i64"},
    {"wide", "nnz=3 num_qo_heads=2 num_kv_heads=1 head_dim=1152 dtype=f16 pos_ids:dtype=i32"},
    {0},
};

const struct op_shape rope_cache_shapes[] = {
    {"smollm2_135m",
     "nnz=1 q_columns=576 k_columns=192 head_size=64 rotary_dim=64 max_positions=8192 dtype=bf16 positions:dtype=i64"},
    {"odd",
     "nnz=7 q_columns=450 k_columns=90 head_size=90 rotary_dim=54 max_positions=99 interleave=1 dtype=f16 positions:dtype=i32"},
    {"llama_8b_decode",
     "nnz=128 q_columns=4096 k_columns=1024 head_size=128 rotary_dim=128 max_positions=8192 dtype=bf16 positions:dtype=i64"},
    {"llama_8b_prefill",
     "nnz=4096 q_columns=4096 k_columns=1024 head_size=128 rotary_dim=128 max_positions=8192 dtype=bf16 positions:dtype=i64"},
    {"partial", "nnz=64 q_columns=2560 k_columns=2560 head_size=80 rotary_dim=32 max_positions=2048 interleave=1 dtype=f16 "
                "positions:dtype=i64"},
    {"odd_halves",
     "nnz=5 q_columns=150 k_columns=100 head_size=50 rotary_dim=26 max_positions=64 dtype=bf16 positions:dtype=i32"},
    {"odd_heads",
     "nnz=5 q_columns=400 k_columns=200 head_size=100 rotary_dim=64 max_positions=64 dtype=bf16 positions:dtype=i64"},
    {0},
};
