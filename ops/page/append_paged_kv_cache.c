/* SPDX-License-Identifier: Apache-2.0 */
/* The op append_paged_kv_cache. Kernels: append_paged_kv_cache_sm80.cu, append_paged_kv_cache_cpu.c. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/status.h"
#include "flashinfer/page.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/validate.h"
#include "ops/page/append_paged_kv_cache_args.h"

#define OP append_paged_kv_cache
DIMS(pages, page_size, num_kv_heads, head_dim, nnz, num_indices, batch);

#define CACHE "NHD: pages page_size num_kv_heads head_dim | HND: pages num_kv_heads page_size head_dim"

static const struct op_arg args[] = {
    INOUT(k_cache, F16 | BF16 | F32 | E4M3 | E5M2 | U8 | I8, CACHE, .by = "kv_layout"),
    INOUT(v_cache, LIKE(k_cache), CACHE, .by = "kv_layout"),
    IN(append_key, LIKE(k_cache), "nnz num_kv_heads head_dim"),
    IN(append_value, LIKE(k_cache), "nnz num_kv_heads head_dim"),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_last_page_len, I32, "batch", .flags = OPTIONAL),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"page_size > 0", NULL};

enum {
    MAX_THREADS = 256,
    MAX_PIECES = 64, /* of a block, along a head */
    MAX_TOKENS = 64, /* of a block */
    MAX_GRID_YZ = 65535,
    CPU_BYTES_PER_PART = 65536, /* some 2 us */
};
enum { WAY_PIECES, WAY_HEADS, WAY_TOKENS, WAY_HEAD_BLOCKS, WAY_PIECE_BLOCKS };

static const struct jit_kernel sm80 = {"append_paged_kv_cache_sm80", JIT_CUDA, {"BYTES"}};
static const struct jit_kernel cpu = {"append_paged_kv_cache_cpu", JIT_CPU, {NULL}};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t at_most(int64_t a, int64_t limit) { return a < limit ? a : limit; }

/* Strides in bytes of a tensor's leading axes, all but the last; those of HND caches in the order of NHD. */
static void fill_strides(int64_t *stride, const DLTensor *t, bool hnd)
{
    const int bytes = dtype_bytes(tensor_dtype(t));
    for (int i = 0; i < t->ndim - 1; i++)
        stride[hnd && i ? 3 - i : i] = tensor_stride(t, i) * bytes;
}

static struct append_paged_kv_cache_args fill_args(const struct call *call)
{
    const struct flashinfer_append_paged_kv_cache *c = call_args(call);
    const struct dims *d = call_dims(call);
    struct append_paged_kv_cache_args a = {
        .k_cache = tensor_data(c->k_cache),
        .v_cache = tensor_data(c->v_cache),
        .key = tensor_data(c->append_key),
        .value = tensor_data(c->append_value),
        .batch_indices = tensor_data(c->batch_indices),
        .positions = tensor_data(c->positions),
        .kv_indices = tensor_data(c->kv_indices),
        .kv_indptr = tensor_data(c->kv_indptr),
        .nnz = d->nnz,
        .num_heads = (int32_t)d->num_kv_heads,
        .head_bytes = (int32_t)d->head_dim * dtype_bytes(tensor_dtype(c->append_key)),
        .page_size = (int32_t)d->page_size,
    };
    fill_strides(a.k_cache_stride, c->k_cache, c->kv_layout == FLASHINFER_HND);
    fill_strides(a.v_cache_stride, c->v_cache, c->kv_layout == FLASHINFER_HND);
    fill_strides(a.key_stride, c->append_key, false);
    fill_strides(a.value_stride, c->append_value, false);
    return a;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_append_paged_kv_cache *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *copied[] = {c->k_cache, c->v_cache, c->append_key, c->append_value};
    int64_t head_bytes = d->head_dim * dtype_bytes(tensor_dtype(c->append_key));
    if (head_bytes > INT32_MAX || d->page_size > INT32_MAX || d->nnz > INT32_MAX)
        return "head_dim, page_size or nnz exceeds 32 bits";
    int bytes = 16;
    for (int i = 0; i < 4; i++)
        while (head_bytes % bytes || !tensor_is_aligned(copied[i], bytes))
            bytes /= 2;
    int64_t pieces = head_bytes / bytes;
    int64_t *value = way->value;
    value[WAY_PIECES] = at_most(pieces, MAX_PIECES);
    value[WAY_HEADS] = at_most(d->num_kv_heads, value[WAY_PIECES] ? MAX_THREADS / value[WAY_PIECES] : 1);
    int64_t token = value[WAY_PIECES] * value[WAY_HEADS];
    value[WAY_TOKENS] = at_most(d->nnz, at_most(token ? MAX_THREADS / token : 1, MAX_TOKENS));
    if (token) {
        value[WAY_HEAD_BLOCKS] = ceil_div(d->num_kv_heads, value[WAY_HEADS]);
        value[WAY_PIECE_BLOCKS] = ceil_div(pieces, value[WAY_PIECES]);
    }
    if (value[WAY_HEAD_BLOCKS] > MAX_GRID_YZ || value[WAY_PIECE_BLOCKS] > MAX_GRID_YZ)
        return "there are more heads or elements than a grid has blocks for";
    way_spec(way, &sm80)[0] = bytes;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct dims *d = call_dims(call);
    if (d->head_dim > INT32_MAX / 4 || d->page_size > INT32_MAX || d->num_kv_heads > INT32_MAX)
        return "head_dim, page_size or num_kv_heads exceeds 32 bits";
    way_spec(way, &cpu);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct append_paged_kv_cache_args a = fill_args(call);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    int64_t token = (int64_t)a.num_heads * a.head_bytes;
    if (a.nnz == 0 || token == 0)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, way->value[WAY_TOKENS]);
        launch.grid[1] = (uint32_t)way->value[WAY_HEAD_BLOCKS];
        launch.grid[2] = (uint32_t)way->value[WAY_PIECE_BLOCKS];
        launch.block[0] = (uint32_t)way->value[WAY_PIECES];
        launch.block[1] = (uint32_t)way->value[WAY_HEADS];
        launch.block[2] = (uint32_t)way->value[WAY_TOKENS];
    } else {
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, ceil_div(CPU_BYTES_PER_PART, 2 * token));
    }
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"append_paged_kv_cache_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"append_paged_kv_cache_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* The integers of a call, on the host. */
struct integers {
    int32_t *batch_indices, *positions, *kv_indices, *kv_indptr;
};

static flashinfer_status fetch_all(const struct call *call, struct integers *i)
{
    const struct flashinfer_append_paged_kv_cache *c = call_args(call);
    TRY(validate_fetch(call, c->batch_indices, &i->batch_indices));
    TRY(validate_fetch(call, c->positions, &i->positions));
    TRY(validate_fetch(call, c->kv_indices, &i->kv_indices));
    return validate_fetch(call, c->kv_indptr, &i->kv_indptr);
}

static flashinfer_status check_all(const struct call *call, const struct integers *i)
{
    const struct dims *d = call_dims(call);
    TRY(validate_indptr(call, "kv_indptr", i->kv_indptr, d->batch, d->num_indices, "the length of kv_indices"));
    TRY(validate_indices(call, "kv_indices", i->kv_indices, i->kv_indptr[d->batch], d->pages, "the pages of k_cache"));
    for (int64_t token = 0; token < d->nnz; token++) {
        int32_t batch = i->batch_indices[token], position = i->positions[token];
        if (batch < 0)
            continue;
        if (batch >= d->batch)
            return fail(FLASHINFER_INVALID, "%s: batch_indices[%" PRId64 "] is %d, must be below %" PRId64
                        ", the number of requests", call->op->name, token, batch, d->batch);
        int64_t slots = (i->kv_indptr[batch + 1] - i->kv_indptr[batch]) * d->page_size;
        if (position < 0 || position >= slots)
            return fail(FLASHINFER_INVALID, "%s: positions[%" PRId64 "] is %d, must be at least 0 and below %" PRId64
                        ", the slots of request %d", call->op->name, token, position, slots, batch);
    }
    return FLASHINFER_OK;
}

static flashinfer_status validate(const struct call *call)
{
    struct integers i = {0};
    flashinfer_status status = fetch_all(call, &i);
    if (!status)
        status = check_all(call, &i);
    free(i.batch_indices);
    free(i.positions);
    free(i.kv_indices);
    free(i.kv_indptr);
    return status;
}

static void reference(const struct reference *r)
{
    const struct flashinfer_append_paged_kv_cache *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *batch_indices = a->batch_indices->data, *positions = a->positions->data;
    const double *indices = a->kv_indices->data, *indptr = a->kv_indptr->data;
    const double *key = a->append_key->data, *value = a->append_value->data;
    double *k_cache = a->k_cache->data, *v_cache = a->v_cache->data;

    for (int64_t token = 0; token < d->nnz; token++) {
        if (batch_indices[token] < 0)
            continue;
        int64_t position = (int64_t)positions[token];
        int64_t page = (int64_t)indices[(int64_t)indptr[(int64_t)batch_indices[token]] + position / d->page_size];
        int64_t slot = position % d->page_size;
        for (int64_t head = 0; head < d->num_kv_heads; head++)
            for (int64_t i = 0; i < d->head_dim; i++) {
                int64_t row = a->kv_layout == FLASHINFER_NHD ? (page * d->page_size + slot) * d->num_kv_heads + head
                                                             : (page * d->num_kv_heads + head) * d->page_size + slot;
                k_cache[row * d->head_dim + i] = key[(token * d->num_kv_heads + head) * d->head_dim + i];
                v_cache[row * d->head_dim + i] = value[(token * d->num_kv_heads + head) * d->head_dim + i];
            }
    }
}

/* Gives tokens to the requests in equal runs, each run to the last slots of its request. A token whose slot is taken or missing,
 * and in random problems one of eight, has no request. */
static void make(struct problem *problem)
{
    struct problem_tensor *batch_indices = problem_tensor(problem, "batch_indices");
    struct problem_tensor *positions = problem_tensor(problem, "positions");
    const struct problem_tensor *indices = problem_tensor(problem, "kv_indices");
    const struct problem_tensor *indptr = problem_tensor(problem, "kv_indptr");
    int64_t nnz = problem_dim(problem, "nnz"), num_requests = problem_dim(problem, "batch");
    int64_t page_size = problem_dim(problem, "page_size"), pages = problem_dim(problem, "pages");
    bool *taken = calloc((size_t)(pages * page_size) + 1, sizeof *taken);
    for (int64_t token = 0; token < nnz; token++) {
        problem_set(batch_indices, token, -1);
        problem_set(positions, token, 0);
    }
    for (int64_t batch = 0; taken && batch < num_requests; batch++) {
        int64_t first_page = (int64_t)problem_get(indptr, batch), last_page = (int64_t)problem_get(indptr, batch + 1);
        int64_t begin = batch * nnz / num_requests, end = (batch + 1) * nnz / num_requests;
        for (int64_t token = begin; token < end; token++) {
            int64_t position = (last_page - first_page) * page_size - (end - token);
            if (position < 0 || (problem->seed && problem_random(problem, 8) == 0))
                continue;
            int64_t page = (int64_t)problem_get(indices, first_page + position / page_size);
            bool *slot = &taken[page * page_size + position % page_size];
            if (*slot)
                continue;
            *slot = true;
            problem_set(batch_indices, token, (double)batch);
            problem_set(positions, token, (double)position);
        }
    }
    free(taken);
}

static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_append_paged_kv_cache *a = call_args(call);
    const struct dims *d = call_dims(call);
    *bytes = (double)d->nnz * (4.0 * (double)(d->num_kv_heads * d->head_dim) * dtype_bytes(tensor_dtype(a->append_key)) + 8);
    *operations = 0;
}

static const struct op_range ranges[] = {{"pages", 20, 30, 0},   {"page_size", 1, 20, 0}, {"num_kv_heads", 0, 6, 0},
                                         {"head_dim", 0, 160, 0}, {"nnz", 0, 100, 0},      {"num_indices", 0, 20, 0},
                                         {"batch", 0, 8, 0},      {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "pages=64 page_size=16 num_kv_heads=3 head_dim=64 nnz=1 num_indices=16 batch=1 dtype=bf16"},
    {"odd", "pages=9 page_size=5 num_kv_heads=1 head_dim=37 nnz=19 num_indices=7 batch=3 dtype=u8"},
    {"llama_8b_decode", "pages=512 page_size=16 num_kv_heads=8 head_dim=128 nnz=128 num_indices=512 batch=128 dtype=bf16"},
    {"llama_8b_prefill", "pages=300 page_size=16 num_kv_heads=8 head_dim=128 nnz=4096 num_indices=300 batch=4 dtype=bf16"},
    {"head_major",
     "pages=40 page_size=32 num_kv_heads=8 head_dim=128 nnz=999 num_indices=40 batch=3 kv_layout=HND dtype=e4m3"},
    {0},
};

DEFINE_OP("page", "copies keys and values of new tokens into a paged cache",
          .rules = rules, .kernels = kernels, .validate = validate, .ranges = ranges, .shapes = shapes,
          .reference = reference, .make = make, .cost = cost);
