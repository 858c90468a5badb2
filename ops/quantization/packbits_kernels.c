/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of packbits and segment_packbits: packbits_sm80.cu, segment_indptr_sm80.cu, packbits_cpu.c. */
#include "ops/quantization/packbits_kernels.h"

#include "core/status.h"
#include "ops/quantization/packbits_args.h"

enum { THREADS = 256, BYTES_PER_THREAD = 8, SCAN_THREADS = 1024, CPU_BYTES_PER_PART = 4096 /* some 2 us */ };

static const struct jit_kernel sm80 = {"packbits_sm80", JIT_CUDA, {"SEGMENTS", "ALIGNED"}};
static const struct jit_kernel indptr_sm80 = {"segment_indptr_sm80", JIT_CUDA, {NULL}};
static const struct jit_kernel cpu = {"packbits_cpu", JIT_CPU, {"SEGMENTS"}};

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct packbits_view *t = call_view(call);
    if (tensor_elements(t->packed) / THREADS >= INT32_MAX)
        return "there are more bytes than a grid has blocks for";
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = t->indptr != NULL;
    constant[1] = tensor_is_aligned(t->x, 16) && tensor_is_aligned(t->packed, 4);
    if (t->indptr)
        way_spec(way, &indptr_sm80);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct packbits_view *t = call_view(call);
    way_spec(way, &cpu)[0] = t->indptr != NULL;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct packbits_view *t = call_view(call);
    struct packbits_args a = {.packed = tensor_data(t->packed),
                              .new_indptr = t->indptr ? tensor_data(t->new_indptr) : NULL,
                              .x = tensor_data(t->x),
                              .indptr = tensor_data_or_null(t->indptr),
                              .bytes = tensor_elements(t->packed),
                              .size = tensor_elements(t->x),
                              .batch = t->indptr ? tensor_elements(t->indptr) - 1 : 0,
                              .little = t->bitorder == FLASHINFER_BITORDER_LITTLE};
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CPU) {
        launch.grid[0] = (uint32_t)ceil_div(a.bytes, CPU_BYTES_PER_PART);
        return call_launch(call, way, 0, &launch);
    }
    if (t->indptr) {
        launch.block[0] = SCAN_THREADS;
        TRY(call_launch(call, way, 1, &launch));
    }
    if (a.bytes == 0)
        return FLASHINFER_OK;
    launch.grid[0] = (uint32_t)ceil_div(a.bytes, THREADS * BYTES_PER_THREAD);
    launch.block[0] = THREADS;
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel packbits_kernels[] = {
    {"packbits_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"packbits_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

void packbits_reference(const struct reference *r)
{
    const struct packbits_view *t = r->view;
    const double *x = t->x->data, *indptr = t->indptr ? t->indptr->data : NULL;
    double *packed = t->packed->data;
    int64_t bytes = tensor_elements(t->packed), batch = indptr ? tensor_elements(t->indptr) - 1 : 1, at = 0;
    for (int64_t i = 0; i < bytes; i++)
        packed[i] = 0;
    for (int64_t segment = 0; segment < batch; segment++) {
        int64_t begin = indptr ? (int64_t)indptr[segment] : 0;
        int64_t end = indptr ? (int64_t)indptr[segment + 1] : tensor_elements(t->x);
        if (indptr)
            ((double *)t->new_indptr->data)[segment] = (double)at;
        for (int64_t i = begin; i < end; i++) {
            int64_t bit = (i - begin) % 8, byte = at + (i - begin) / 8;
            if (x[i] != 0 && byte < bytes)
                packed[byte] += 1 << (t->bitorder == FLASHINFER_BITORDER_LITTLE ? bit : 7 - bit);
        }
        at += (end - begin + 7) / 8;
    }
    if (indptr)
        ((double *)t->new_indptr->data)[batch] = (double)at;
}
