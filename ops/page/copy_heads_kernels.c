/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops share that copy heads of tokens. Kernels: copy_heads_sm80.cu, copy_heads_cpu.c. */
#include "ops/page/copy_heads_kernels.h"

#include "op/validate.h"
#include "ops/page/copy_heads_args.h"

enum {
    THREADS = 256,
    MANY_THREADS = 128, /* of a block whose threads have several tokens of a paged cache */
    MANY_TOKENS = 2,      /* of a thread, where there are enough to fill the GPU */
    MANY_PAGED_TOKENS = 3,
    BLOCKS_PER_SM = 8,
    AHEAD_BYTES = 32768, /* of a multiprocessor, that are fetched to the L2 cache before */
    MAX_GRID_Y = 65535,
    CPU_BYTES_PER_PART = 65536, /* some 2 us */
};

enum { WAY_BYTES, WAY_THREADS, WAY_CHUNKS, WAY_TOKENS, WAY_BLOCK_TOKENS };

static const struct jit_kernel sm80 = {"copy_heads_sm80", JIT_CUDA, {"BYTES", "PAGED", "TOKENS", "POWERS_OF_TWO"}};
static const struct jit_kernel cpu = {"copy_heads_cpu", JIT_CPU, {"PAGED"}};

static bool is_hnd(const struct copy_heads_view *v, const DLTensor *to)
{
    return to->ndim == 4 && v->kv_layout == FLASHINFER_HND;
}

static int64_t num_heads(const struct copy_heads_view *v, const DLTensor *to)
{
    return v->paged.kv_indptr ? to->ndim == 4 ? tensor_shape(to, is_hnd(v, to) ? 1 : 2) : 1 : tensor_shape(to, 1);
}

/* All but pieces and first_piece. */
static struct copy_segment segment(const struct copy_heads_view *v, const struct copy_heads_pair *p)
{
    const DLTensor *from = p->from, *to = p->to;
    int64_t bytes = dtype_bytes(tensor_dtype(from));
    bool repeats = from->ndim == 3 && tensor_shape(from, 1) == 1, hnd = is_hnd(v, to);
    struct copy_segment s = {
        .from = tensor_data(from),
        .to = tensor_at(to, p->first),
        .from_stride = {tensor_stride_bytes(from, 0), from->ndim == 3 && !repeats ? tensor_stride_bytes(from, 1) : 0},
        .to_stride = {tensor_stride_bytes(to, 0)},
        .heads = num_heads(v, to),
        .width = tensor_shape(from, -1) * bytes,
    };
    if (!v->paged.kv_indptr) {
        s.to_stride[2] = tensor_stride_bytes(to, 1);
        return s;
    }
    s.to_stride[1] = tensor_stride_bytes(to, hnd ? 2 : 1);
    s.to_stride[2] = to->ndim == 4 ? tensor_stride_bytes(to, hnd ? 1 : 2) : 0;
    return s;
}

static int64_t page_size(const struct copy_heads_view *v)
{
    return tensor_shape(v->pair[0].to, is_hnd(v, v->pair[0].to) ? 2 : 1);
}

static struct copy_heads_args fill_args(const struct copy_heads_view *v, int bytes)
{
    struct copy_heads_args a = {.nnz = tensor_shape(v->pair[0].from, 0)};
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        struct copy_segment *s = &a.segment[i];
        *s = segment(v, &v->pair[i]);
        s->pieces = (uint32_t)(s->width / bytes);
        s->first_piece = a.pieces;
        a.pieces += (uint32_t)s->heads * s->pieces;
    }
    if (v->paged.kv_indptr)
        a.tokens = paged_tokens_of(&v->paged, page_size(v));
    return a;
}

/* A token's pieces side by side, in blocks of equal size. */
static void cut_pieces(int64_t nnz, int64_t pieces, int64_t most, int64_t *value)
{
    value[WAY_CHUNKS] = ceil_div(pieces, most);
    value[WAY_THREADS] = value[WAY_CHUNKS] > 1 ? ceil_div(pieces, value[WAY_CHUNKS]) : pieces;
    value[WAY_BLOCK_TOKENS] = value[WAY_THREADS] ? least(most / value[WAY_THREADS], nnz) : 1;
}

/* Several tokens a thread where there are enough to fill the GPU. */
static void cut_tokens(const struct device *device, int64_t nnz, int64_t pieces, bool paged, int64_t *value)
{
    cut_pieces(nnz, pieces, THREADS, value);
    int64_t blocks = nnz ? ceil_div(nnz, value[WAY_BLOCK_TOKENS]) : 0, resident = (int64_t)device->sms * BLOCKS_PER_SM;
    value[WAY_TOKENS] = blocks * value[WAY_CHUNKS] > resident ? paged ? MANY_PAGED_TOKENS : MANY_TOKENS : 1;
    if (paged && value[WAY_TOKENS] > 1)
        cut_pieces(nnz, pieces, MANY_THREADS, value);
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct copy_heads_view *v = call_view(call);
    int64_t pieces = 0, odd = 0, nnz = tensor_shape(v->pair[0].from, 0), all = 16;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        const struct copy_heads_pair *p = &v->pair[i];
        int element = dtype_bytes(tensor_dtype(p->from));
        all |= tensor_shape(p->from, -1) * element | p->first * element;
    }
    int bytes = (int)(all & -all);
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++)
        while (!tensor_is_aligned(v->pair[i].from, bytes) || !tensor_is_aligned(v->pair[i].to, bytes))
            bytes /= 2;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        const DLTensor *from = v->pair[i].from;
        int64_t of_head = tensor_shape(from, -1) * dtype_bytes(tensor_dtype(from)) >> __builtin_ctz((unsigned)bytes);
        pieces += num_heads(v, v->pair[i].to) * of_head;
        odd |= of_head & (of_head - 1);
    }
    if (ceil_div(pieces, v->paged.kv_indptr ? MANY_THREADS : THREADS) > MAX_GRID_Y || nnz > INT32_MAX)
        return "there are more tokens, heads or elements than a grid has blocks for";
    if (v->paged.kv_indptr && page_size(v) > INT32_MAX)
        return "page_size exceeds 32 bits";
    cut_tokens(call->device, nnz, pieces, v->paged.kv_indptr, way->value);
    way->value[WAY_BYTES] = bytes;
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = bytes;
    constant[1] = v->paged.kv_indptr != NULL;
    constant[2] = (int32_t)way->value[WAY_TOKENS];
    constant[3] = !odd;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct copy_heads_view *v = call_view(call);
    if (v->paged.kv_indptr && page_size(v) > INT32_MAX)
        return "page_size exceeds 32 bits";
    way_spec(way, &cpu)[0] = v->paged.kv_indptr != NULL;
    way->value[WAY_BYTES] = 1;
    return NULL;
}

/* Whole tokens, if their heads lie side by side, in units of 16 bytes. */
static struct fetch_ahead fetch_tokens_ahead(const struct call *call, const struct copy_heads_args *a, int64_t tokens_of_block)
{
    int64_t bytes = 0;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        const struct copy_segment *s = &a->segment[i];
        int64_t token = s->heads * s->width;
        if (token && (s->from_stride[0] != token || (s->heads > 1 && s->from_stride[1] != s->width) || token % 16 ||
                      (uintptr_t)s->from % 16))
            return (struct fetch_ahead){0};
        bytes += token;
    }
    return fetch_ahead((int64_t)call->device->sms * AHEAD_BYTES, a->nnz / tokens_of_block, bytes * tokens_of_block);
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct copy_heads_args a = fill_args(call_view(call), (int)way->value[WAY_BYTES]);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    int64_t token = a.segment[0].heads * a.segment[0].width + a.segment[1].heads * a.segment[1].width;
    if (a.nnz == 0 || token == 0)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        int64_t tokens = way->value[WAY_BLOCK_TOKENS] * way->value[WAY_TOKENS];
        a.ahead = fetch_tokens_ahead(call, &a, tokens);
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, tokens);
        launch.grid[1] = (uint32_t)way->value[WAY_CHUNKS];
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
        launch.block[1] = (uint32_t)way->value[WAY_BLOCK_TOKENS];
    } else {
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, ceil_div(CPU_BYTES_PER_PART, token));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel copy_heads_kernels[] = {
    {"copy_heads_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"copy_heads_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

flashinfer_status copy_heads_validate(const struct call *call)
{
    const struct copy_heads_view *v = call_view(call);
    const DLTensor *to = v->pair[0].to;
    return validate_paged_tokens(call, &v->paged, tensor_shape(to, 0), page_size(v), to->ndim == 4 ? "k_cache" : "ckv_cache");
}

/* Where token's head 0 lies in `to`, and how far heads are apart; false: nowhere. */
static bool place(const struct copy_heads_view *v, const DLTensor *to, int64_t token, int64_t *at, int64_t *stride)
{
    int64_t heads = num_heads(v, to), width = tensor_shape(to, -1);
    *stride = width;
    *at = token * heads * width;
    if (!v->paged.kv_indptr)
        return true;
    int64_t slots = page_size(v), slot = reference_slot(&v->paged, slots, token);
    *stride = is_hnd(v, to) ? slots * width : width;
    *at = (is_hnd(v, to) ? slot / slots * slots * heads + slot % slots : slot * heads) * width;
    return slot >= 0;
}

void copy_heads_reference(const struct reference *r)
{
    const struct copy_heads_view *v = r->view;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        const struct copy_heads_pair *p = &v->pair[i];
        int64_t heads = num_heads(v, p->to), width = tensor_shape(p->from, -1), nnz = tensor_shape(p->from, 0), at, stride;
        int64_t from_heads = p->from->ndim == 3 ? tensor_shape(p->from, 1) : 1;
        const double *from = p->from->data;
        double *to = p->to->data;
        for (int64_t token = 0; token < nnz; token++) {
            if (!place(v, p->to, token, &at, &stride))
                continue;
            for (int64_t head = 0; head < heads; head++)
                for (int64_t e = 0; e < width; e++)
                    to[at + head * stride + p->first + e] = from[(token * from_heads + (from_heads == 1 ? 0 : head)) * width + e];
        }
    }
}

void copy_heads_cost(const struct call *call, double *bytes, double *operations)
{
    const struct copy_heads_view *v = call_view(call);
    double of_token = v->paged.kv_indptr ? 2 * sizeof(int32_t) : 0;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
        const struct copy_heads_pair *p = &v->pair[i];
        double width = (double)tensor_shape(p->from, -1) * dtype_bytes(tensor_dtype(p->from));
        of_token += width * (double)(num_heads(v, p->to) + (p->from->ndim == 3 ? tensor_shape(p->from, 1) : 1));
    }
    *bytes = (double)tensor_shape(v->pair[0].from, 0) * of_token;
    *operations = 0;
}
