/* SPDX-License-Identifier: Apache-2.0 */
/* The op get_batch_indices_positions. Kernels: get_batch_indices_positions_sm80.cu, get_batch_indices_positions_cpu.c. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/status.h"
#include "flashinfer/page.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/validate.h"
#include "ops/page/get_batch_indices_positions_args.h"

#define OP get_batch_indices_positions
DIMS(nnz, batch);

static const struct op_arg args[] = {
    OUT(batch_indices, I32, "nnz"),
    OUT(positions, I32, "nnz"),
    IN(append_indptr, I32, "batch+1", .fill = INDPTR("nnz")),
    IN(seq_lens, I32, "batch"),
    INT(nnz),
    {0},
};

enum { THREADS = 128, CPU_ENTRIES_PER_PART = 8192 /* some 2 us */ };

static const struct jit_kernel sm80 = {"get_batch_indices_positions_sm80", JIT_CUDA, {NULL}};
static const struct jit_kernel cpu = {"get_batch_indices_positions_cpu", JIT_CPU, {NULL}};

static const char *fit(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct dims *d = call_dims(call);
    if (d->nnz > INT32_MAX || d->batch >= INT32_MAX)
        return "nnz or batch exceeds 32 bits";
    way_spec(way, kernel);
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way) { return fit(call, way, &sm80); }
static const char *fit_cpu(const struct call *call, struct way *way) { return fit(call, way, &cpu); }

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_get_batch_indices_positions *c = call_args(call);
    const struct dims *d = call_dims(call);
    struct get_batch_indices_positions_args a = {
        .batch_indices = tensor_data(c->batch_indices),
        .positions = tensor_data(c->positions),
        .append_indptr = tensor_data(c->append_indptr),
        .seq_lens = tensor_data(c->seq_lens),
        .nnz = d->nnz,
        .batch_size = (int32_t)d->batch,
    };
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    bool is_cuda = way->spec[0].kernel->target == JIT_CUDA;
    int64_t each = is_cuda ? THREADS : CPU_ENTRIES_PER_PART;
    launch.grid[0] = (uint32_t)(ceil_div(a.nnz, each));
    launch.block[0] = is_cuda ? THREADS : 0;
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"get_batch_indices_positions_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"get_batch_indices_positions_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static flashinfer_status check_all(const struct call *call, const int32_t *append_indptr, const int32_t *seq_lens)
{
    const struct dims *d = call_dims(call);
    TRY(validate_indptr(call, "append_indptr", append_indptr, d->batch, d->nnz, "nnz"));
    for (int64_t b = 0; b < d->batch; b++) {
        int32_t new_tokens = append_indptr[b + 1] - append_indptr[b];
        if (seq_lens[b] < new_tokens)
            return fail(FLASHINFER_INVALID, "%s: seq_lens[%" PRId64 "] is %d, must be at least the number of new tokens of "
                        "request %" PRId64 ", which is %d",
                        call->op->name, b, seq_lens[b], b, new_tokens);
    }
    return FLASHINFER_OK;
}

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_get_batch_indices_positions *c = call_args(call);
    int32_t *append_indptr = NULL, *seq_lens = NULL;
    flashinfer_status status = validate_fetch(call, c->append_indptr, &append_indptr);
    if (!status)
        status = validate_fetch(call, c->seq_lens, &seq_lens);
    if (!status)
        status = check_all(call, append_indptr, seq_lens);
    free(append_indptr);
    free(seq_lens);
    return status;
}

static void reference(const struct reference *r)
{
    const struct flashinfer_get_batch_indices_positions *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *indptr = a->append_indptr->data, *seq_lens = a->seq_lens->data;
    double *batch_indices = a->batch_indices->data, *positions = a->positions->data;

    for (int64_t i = 0; i < d->nnz; i++) {
        batch_indices[i] = -1;
        positions[i] = 0;
    }
    for (int64_t batch = 0; batch < d->batch; batch++) {
        int64_t begin = (int64_t)indptr[batch], count = (int64_t)indptr[batch + 1] - begin;
        for (int64_t j = 0; j < count; j++) {
            batch_indices[begin + j] = (double)batch;
            positions[begin + j] = seq_lens[batch] - (double)(count - j);
        }
    }
}

/* Lengths hold the new tokens. In random problems there may be fewer tokens than entries. */
static void make(struct problem *problem)
{
    struct problem_tensor *indptr = problem_tensor(problem, "append_indptr"), *seq_lens = problem_tensor(problem, "seq_lens");
    int64_t nnz = problem_dim(problem, "nnz"), num_requests = problem_dim(problem, "batch");
    int64_t total = problem->seed ? (int64_t)problem_random(problem, 2 * (uint64_t)nnz + 1) : nnz;
    for (int64_t batch = 0; batch <= num_requests; batch++)
        if (problem_get(indptr, batch) > (double)total)
            problem_set(indptr, batch, (double)total);
    for (int64_t batch = 0; batch < num_requests; batch++)
        problem_set(seq_lens, batch,
                    problem_get(indptr, batch + 1) - problem_get(indptr, batch) + (double)problem_random(problem, 1000));
}

static const struct op_range ranges[] = {{"nnz", 0, 1000, 0}, {"batch", 0, 100, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "nnz=1 batch=1"},
    {"odd", "nnz=37 batch=5"},
    {"llama_8b_decode", "nnz=128 batch=128"},
    {"llama_8b_prefill", "nnz=65536 batch=16"},
    {0},
};

DEFINE_OP("page", "request and position of each new token of a batch",
          .kernels = kernels, .validate = validate, .ranges = ranges, .shapes = shapes, .reference = reference, .make = make);
