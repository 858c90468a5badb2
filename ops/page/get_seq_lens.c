/* SPDX-License-Identifier: Apache-2.0 */
/* The op get_seq_lens. Kernels: get_seq_lens_sm80.cu, get_seq_lens_cpu.c. */
#include <stdlib.h>

#include "flashinfer/page.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/validate.h"
#include "ops/page/get_seq_lens_args.h"

#define OP get_seq_lens
DIMS(batch);

static const struct op_arg args[] = {
    OUT(seq_lens, I32, "batch"),
    IN(kv_indptr, I32, "batch+1"),
    IN(kv_last_page_len, I32, "batch"),
    INT(page_size, .min = 1),
    {0},
};

enum { THREADS = 128, CPU_REQUESTS_PER_PART = 8192 /* some 2 us */ };

static const struct jit_kernel sm80 = {"get_seq_lens_sm80", JIT_CUDA, {NULL}};
static const struct jit_kernel cpu = {"get_seq_lens_cpu", JIT_CPU, {NULL}};

static const char *fit(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct dims *d = call_dims(call);
    if (d->batch >= INT32_MAX)
        return "batch exceeds 32 bits";
    way_spec(way, kernel);
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way) { return fit(call, way, &sm80); }
static const char *fit_cpu(const struct call *call, struct way *way) { return fit(call, way, &cpu); }

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_get_seq_lens *c = call_args(call);
    const struct dims *d = call_dims(call);
    struct get_seq_lens_args a = {.seq_lens = tensor_data(c->seq_lens),
                                  .kv_indptr = tensor_data(c->kv_indptr),
                                  .kv_last_page_len = tensor_data(c->kv_last_page_len),
                                  .batch_size = (int32_t)d->batch,
                                  .page_size = c->page_size};
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    bool is_cuda = way->spec[0].kernel->target == JIT_CUDA;
    int64_t each = is_cuda ? THREADS : CPU_REQUESTS_PER_PART;
    launch.grid[0] = (uint32_t)(ceil_div(d->batch, each));
    launch.block[0] = is_cuda ? THREADS : 0;
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"get_seq_lens_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"get_seq_lens_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_get_seq_lens *c = call_args(call);
    const struct dims *d = call_dims(call);
    int32_t *indptr;
    flashinfer_status status = validate_fetch(call, c->kv_indptr, &indptr);
    if (!status)
        status = validate_indptr(call, "kv_indptr", indptr, d->batch, INT32_MAX, "the largest i32");
    free(indptr);
    return status;
}

static void reference(const struct reference *r)
{
    const struct flashinfer_get_seq_lens *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *indptr = a->kv_indptr->data, *last = a->kv_last_page_len->data;
    for (int64_t batch = 0; batch < d->batch; batch++) {
        double pages = indptr[batch + 1] - indptr[batch];
        ((double *)a->seq_lens->data)[batch] = pages == 0 ? 0 : (pages - 1) * a->page_size + last[batch];
    }
}

/* Requests of 0 to 5 pages. */
static void make(struct problem *problem)
{
    struct problem_tensor *indptr = problem_tensor(problem, "kv_indptr"), *last = problem_tensor(problem, "kv_last_page_len");
    uint64_t page_size = (uint64_t)problem_dim(problem, "page_size");
    problem_set(indptr, 0, 0);
    for (int64_t batch = 0; batch < problem_dim(problem, "batch"); batch++) {
        problem_set(indptr, batch + 1, problem_get(indptr, batch) + (double)problem_random(problem, 6));
        problem_set(last, batch, 1 + (double)problem_random(problem, page_size));
    }
}

static const struct op_range ranges[] = {{"batch", 0, 1000, 0}, {"page_size", 1, 300, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "batch=1 page_size=16"},
    {"odd", "batch=37 page_size=5"},
    {"llama_8b_decode", "batch=128 page_size=16"},
    {"deepseek_v3_decode", "batch=512 page_size=64"},
    {"many", "batch=20000 page_size=1"},
    {0},
};

DEFINE_OP("page", "lengths of requests from their page tables",
          .kernels = kernels, .validate = validate, .ranges = ranges, .shapes = shapes, .reference = reference, .make = make);
