/* SPDX-License-Identifier: Apache-2.0 */
/* The op mm: out = a @ b + bias. Kernels: mm_small_m_sm80.cu, mm_sm80.cu, mm_small_m_cpu.c, mm_cpu.c; and
 * rows that call cuBLASLt and oneDNN. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/cublaslt.h"
#include "backend/onednn.h"
#include "flashinfer/gemm.h"
#include "harness/reference.h"
#include "ops/gemm/mm_args.h"

#define OP mm
DIMS(m, n, k);

static const struct op_arg args[] = {
    OUT(out, F16 | BF16 | F32, "m n"),
    IN(a, F16 | BF16, "m k", .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_INFINITY | SPECIAL_NAN)),
    IN(b, LIKE(a), "k n", .flags = STRIDED | COLUMN_MAJOR, .fill = NORMAL_WITH(SPECIAL_ZERO)),
    IN(bias, LIKE(a), "n", .flags = OPTIONAL),
    {0},
};

static const struct jit_kernel small_m_sm80 = {
    "mm_small_m_sm80", JIT_CUDA, {"T:dtype", "OUT:dtype", "WARPS", "ROUNDS", "BLOCKS", "STAGES"}};
static const struct jit_kernel sm80 = {
    "mm_sm80", JIT_CUDA, {"T:dtype", "OUT:dtype", "BLOCK_M", "BLOCK_N", "WARPS_M", "WARPS_N", "STAGES", "LOADER"}};
static const struct jit_kernel small_m_cpu = {"mm_small_m_cpu", JIT_CPU, {"T:dtype", "OUT:dtype"}};
static const struct jit_kernel cpu = {"mm_cpu", JIT_CPU, {"T:dtype", "OUT:dtype"}};

enum { WAY_GRID, WAY_BLOCK, WAY_SMEM, WAY_CLUSTER };
enum { VECTOR = 8, VECTOR_BYTES = 16, SMALL_M = 16 };

static const char columns_not_contiguous[] = "the columns of b are not contiguous";
static const char not_invariant[] = "its bits depend on m, which FLASHINFER_BATCH_INVARIANT forbids";
static const char too_large[] = "a dimension is more than 2^31 - 1";

/* The launch argument. Strides of axes of size 1, which may be anything, become those of a dense tensor. */
static struct mm_args kernel_args(const struct call *call)
{
    const struct flashinfer_mm *t = call_args(call);
    const struct dims *d = call_dims(call);
    struct mm_args a = {.out = tensor_data(t->out),
                        .a = tensor_data(t->a),
                        .b = tensor_data(t->b),
                        .bias = tensor_data_or_null(t->bias),
                        .m = d->m,
                        .n = d->n,
                        .k = d->k};
    a.out_stride = d->m > 1 ? tensor_stride(t->out, 0) : d->n;
    a.a_stride = d->m > 1 ? tensor_stride(t->a, 0) : d->k;
    a.b_k_stride = d->k > 1 ? tensor_stride(t->b, 0) : 1;
    a.b_n_stride = d->n > 1 ? tensor_stride(t->b, 1) : a.b_k_stride == 1 ? d->k : 1;
    return a;
}

static bool is_invariant(const struct call *call) { return call->exec.flags & FLASHINFER_BATCH_INVARIANT; }

static double operations(const struct dims *d) { return 2.0 * (double)d->m * (double)d->n * (double)d->k; }

/* The spec with its first two constants, T and OUT. */
static int32_t *spec(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct flashinfer_mm *t = call_args(call);
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(t->a);
    constant[1] = tensor_dtype(t->out);
    return constant;
}

/* What a kernel that copies 16 bytes at a time may take for granted. */
static int loader(const struct mm_args *a)
{
    bool columns = a->b_k_stride == 1;
    int64_t b_stride = columns ? a->b_n_stride : a->b_k_stride;
    if (((uintptr_t)a->a | (uintptr_t)a->b) % VECTOR_BYTES || a->a_stride % VECTOR || b_stride % VECTOR)
        return MM_ANY_STRIDES;
    return columns ? MM_COLUMNS_CONTIGUOUS : a->b_n_stride == 1 ? MM_ROWS_CONTIGUOUS : MM_ANY_STRIDES;
}

/* Few rows, and copies of 16 bytes: what mm_small_m_sm80 serves, or leaves to mm_sm80. */
static bool is_read_once(const struct call *call)
{
    struct mm_args a = kernel_args(call);
    return a.m <= SMALL_M && a.k % VECTOR == 0 && loader(&a) == MM_COLUMNS_CONTIGUOUS;
}

static bool has_many_columns(const struct call *call, const struct mm_args *a) { return a->n > (int64_t)64 * call->device->sms; }

/* How mm_small_m_sm80 goes about it. Where a does not stay in registers, two blocks of a cluster divide k. Short columns take so
 * few warps that two blocks fit, where there are tiles for them. Otherwise blocks take as much shared memory as keeps others
 * away: those of the next kernel would fetch its b before this one has its a. */
static const char *plan_small_m_sm80(const struct call *call, const struct mm_args *a, struct way *way)
{
    enum { MAX_WARPS = 16, FEW_WARPS = 8, ENOUGH_SMEM = 128 << 10, CLUSTER_ARCH = 90, LONG = 4096 };
    enum { SHORT_WARPS = 12, SHORT_ROUNDS = 2, ROUNDS_AT_ONCE = 4, RESERVED = 1024 };
    const struct device *device = call->device;
    int64_t tiles = ceil_div(a->n, MM_SMALL_M_COLUMNS);
    int32_t blocks = device->arch >= CLUSTER_ARCH && a->k > LONG && !has_many_columns(call, a) ? 2 : 1;
    int64_t chunks = most(1, MM_SMALL_M_PART(a->k, blocks) / MM_SMALL_M_CHUNK);
    int64_t rounds = ceil_div(chunks, device->smem_block >= ENOUGH_SMEM ? MAX_WARPS : FEW_WARPS);
    int64_t warps = ceil_div(chunks, rounds);
    bool two_fit = warps <= SHORT_WARPS && rounds <= SHORT_ROUNDS &&
                   2 * (MM_SMALL_M_SMEM(warps, 3, 0) + RESERVED) <= device->smem_sm;
    int32_t per_sm = two_fit && tiles > device->sms ? 2 : 1;
    int64_t clusters = least(tiles, most(1, device->sms * per_sm / blocks)), turns = clusters ? ceil_div(tiles, clusters) : 0;
    int64_t sums = (rounds > ROUNDS_AT_ONCE ? turns : 0) + (blocks > 1 ? ceil_div(turns, blocks) * blocks : 0);
    int32_t stages = rounds > SHORT_ROUNDS && turns > 1 ? 4 : 3;
    int64_t smem = MM_SMALL_M_SMEM(warps, stages, sums);
    if (smem > device->smem_block && stages > 3)
        smem = MM_SMALL_M_SMEM(warps, --stages, sums);
    if (smem > device->smem_block)
        return "b has so many columns that shared memory cannot hold their sums";
    int32_t *constant = spec(call, way, &small_m_sm80);
    const int32_t rest[] = {(int32_t)warps, (int32_t)rounds, blocks, stages};
    memcpy(constant + 2, rest, sizeof rest);
    way->value[WAY_GRID] = blocks * clusters;
    way->value[WAY_BLOCK] = 32 * warps;
    way->value[WAY_SMEM] = most(smem, device->smem_sm / (per_sm + 1));
    way->value[WAY_CLUSTER] = blocks;
    return NULL;
}

static const char *fit_small_m_sm80(const struct call *call, struct way *way)
{
    enum { MAX_K = 1 << 30, SHORT = 1024, MANY_SHORT = 128 };
    struct mm_args a = kernel_args(call);
    if (a.m > SMALL_M)
        return "a has more than 16 rows";
    if (a.n > INT32_MAX)
        return too_large;
    if (a.k > MAX_K)
        return "k is more than 2^30";
    if (is_invariant(call))
        return not_invariant;
    if (a.b_k_stride != 1)
        return columns_not_contiguous;
    if (a.k % VECTOR || loader(&a) != MM_COLUMNS_CONTIGUOUS)
        return "k, or the address or a stride of a or b, is no multiple of 16 bytes";
    if (a.k <= SHORT && a.n > (int64_t)MANY_SHORT * call->device->sms && !call->exec.kernel)
        return "b has so many columns of so few elements that mm_sm80 reads it faster";
    return plan_small_m_sm80(call, &a, way);
}

/* The largest tiles that give every multiprocessor one and waste no half of their rows or columns, else the
 * smallest; for few rows, which have half of the smallest, those that read b fastest. */
static const char *fit_sm80(const struct call *call, struct way *way)
{
    enum { ROW_BYTES = 128 }; /* of a tile in shared memory */
    static const struct tile {
        int32_t m, n, warps_m, warps_n, stages;
    } tiles[] = {{128, 128, 2, 4, 3}, {64, 64, 2, 2, 4}, {32, 32, 2, 2, 6}};
    static const struct tile few_rows[] = {{16, 32, 1, 2, 8}, {16, 32, 1, 2, 5}, {16, 64, 1, 4, 5}};
    enum { SMALLEST = sizeof tiles / sizeof *tiles - 1 };
    struct mm_args a = kernel_args(call);
    int by = loader(&a), which = by == MM_ANY_STRIDES ? SMALLEST : 0;
    if (a.m > INT32_MAX || a.n > INT32_MAX || a.k > INT32_MAX)
        return too_large;
    for (; which < SMALLEST; which++) {
        const struct tile *t = &tiles[which];
        if (a.m > t->m / 2 && a.n > t->n / 2 && ceil_div(a.m, t->m) * ceil_div(a.n, t->n) >= call->device->sms)
            break;
    }
    const struct tile *t = &tiles[which];
    if (a.m <= SMALL_M && by != MM_ANY_STRIDES)
        t = &few_rows[!has_many_columns(call, &a) ? 0 : by == MM_COLUMNS_CONTIGUOUS ? 1 : 2];
    way->value[WAY_GRID] = ceil_div(a.m, t->m) * ceil_div(a.n, t->n);
    way->value[WAY_BLOCK] = 32 * t->warps_m * t->warps_n;
    way->value[WAY_SMEM] = t->stages * (t->m + t->n) * ROW_BYTES;
    if (way->value[WAY_GRID] > INT32_MAX)
        return "out has more tiles than a grid has blocks";
    int32_t *constant = spec(call, way, &sm80);
    const int32_t rest[] = {t->m, t->n, t->warps_m, t->warps_n, t->stages, by};
    memcpy(constant + 2, rest, sizeof rest);
    return NULL;
}

static const char *fit_small_m_cpu(const struct call *call, struct way *way)
{
    enum { MAX_ROWS = 48, COLUMNS = 16, ROWS_AT_ONCE = 4, BYTES_PER_PART = 65536, MAX_PARTS = 512 };
    struct mm_args a = kernel_args(call);
    if (a.b_k_stride != 1)
        return columns_not_contiguous;
    if (a.m > MAX_ROWS && !is_invariant(call) && !call->exec.kernel)
        return "a has more than 48 rows, for which packing b pays";
    double bytes = 2.0 * (double)a.n * (double)a.k * (double)ceil_div(a.m, ROWS_AT_ONCE);
    int64_t parts = bytes > (double)BYTES_PER_PART * MAX_PARTS ? MAX_PARTS : (int64_t)(bytes / BYTES_PER_PART);
    way->value[WAY_GRID] = most(1, least(parts, ceil_div(a.n, COLUMNS)));
    spec(call, way, &small_m_cpu);
    return NULL;
}

/* Several panels make a part where fetching the next one pays, that is where few rows meet a panel, and
 * enough parts are left. */
static const char *fit_cpu(const struct call *call, struct way *way)
{
    enum { FEW_ROWS = 64, SOME_ROWS = 128, MIN_PARTS = 6 };
    struct mm_args a = kernel_args(call);
    int64_t panels = ceil_div(a.n, MM_CPU_COLUMNS), blocks = ceil_div(a.m, MM_CPU_ROWS);
    int64_t panels_per_part = a.m <= FEW_ROWS ? 4 : a.m <= SOME_ROWS ? 2 : 1;
    while (panels_per_part > 1 && panels / panels_per_part < MIN_PARTS)
        panels_per_part /= 2;
    way->value[WAY_GRID] = blocks * ceil_div(panels, panels_per_part);
    if (way->value[WAY_GRID] > INT32_MAX)
        return "out is too large";
    spec(call, way, &cpu);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct mm_args a = kernel_args(call);
    return call_launch(call, way, 0, &(struct jit_launch){.grid = {(uint32_t)way->value[WAY_GRID]},
                                                         .block = {(uint32_t)way->value[WAY_BLOCK]},
                                                         .cluster = {(uint32_t)way->value[WAY_CLUSTER]},
                                                         .smem = (uint32_t)way->value[WAY_SMEM],
                                                         .args = &a,
                                                         .args_size = sizeof a});
}

static int32_t alignment(const void *pointer)
{
    enum { ENOUGH = 256 };
    uintptr_t address = (uintptr_t)pointer | ENOUGH;
    return (int32_t)(address & -address);
}

/* What libraries take: b contiguous along one axis, rows that do not overlap, no dimension of 0, for which oneDNN 2 divides by
 * zero. NULL, or why it is not so. */
static const char *library_shape(const struct call *call, struct matmul_shape *s)
{
    const struct flashinfer_mm *t = call_args(call);
    struct mm_args a = kernel_args(call);
    bool by_rows = a.b_k_stride != 1;
    *s = (struct matmul_shape){.m = a.m,
                               .n = a.n,
                               .k = a.k,
                               .out_stride = a.out_stride,
                               .a_stride = a.a_stride,
                               .b_stride = by_rows ? a.b_k_stride : a.b_n_stride,
                               .b_rows_contiguous = by_rows,
                               .input = tensor_dtype(t->a),
                               .output = tensor_dtype(t->out),
                               .device = call->device->id.device_id,
                               .out_alignment = alignment(a.out),
                               .a_alignment = alignment(a.a),
                               .b_alignment = alignment(a.b),
                               .bias_alignment = t->bias ? alignment(a.bias) : 0};
    if (is_invariant(call))
        return not_invariant;
    if (a.m == 0 || a.n == 0 || a.k == 0)
        return "m, n or k is 0";
    if (a.m > INT32_MAX || a.n > INT32_MAX || a.k > INT32_MAX)
        return too_large;
    if (by_rows && a.b_n_stride != 1)
        return "neither the rows nor the columns of b are contiguous";
    if (a.a_stride < a.k || s->b_stride < (by_rows ? a.n : a.k))
        return "rows of a, or rows or columns of b, overlap";
    if (s->output != DTYPE_F32 && s->output != s->input)
        return "out is neither of the dtype of a nor f32";
    return NULL;
}

static struct matmul_data library_data(const struct call *call)
{
    struct mm_args a = kernel_args(call);
    return (struct matmul_data){.out = a.out, .a = a.a, .b = a.b, .bias = a.bias, .workspace = call->exec.workspace};
}

static const char *fit_cublaslt(const struct call *call, struct way *way)
{
    const double worth_it = 4e9; /* operations, some 10 us: less does not repay opening half a gigabyte */
    struct matmul_shape *shape = WAY_ARGS(way, struct matmul_shape);
    const char *why = library_shape(call, shape);
    if (why)
        return why;
    if (!call->exec.kernel && operations(call_dims(call)) < worth_it)
        return "the product is too small to open cuBLASLt for";
    if (!call->exec.kernel && is_read_once(call))
        return "a has so few rows that reading b is all there is to do";
    if ((why = cublaslt_missing()) || !call->device->context)
        return why;
    if (call->exec.workspace)
        shape->workspace = (int64_t)(call->exec.workspace_size < CUBLASLT_WORKSPACE ? call->exec.workspace_size
                                                                                    : CUBLASLT_WORKSPACE);
    return cublaslt_fit(shape, call->device);
}

static flashinfer_status run_cublaslt(const struct call *call, const struct way *way)
{
    struct matmul_data data = library_data(call);
    return cublaslt_run(WAY_ARGS(way, const struct matmul_shape), call->device, call->exec.stream, &data);
}

static const char *fit_onednn(const struct call *call, struct way *way)
{
    struct matmul_shape *shape = WAY_ARGS(way, struct matmul_shape);
    const char *why = library_shape(call, shape);
    if (why || (why = onednn_missing()))
        return why;
    if (shape->k % 2)
        return "k is odd, where oneDNN makes NaN of infinities";
    shape->out_alignment = shape->a_alignment = shape->b_alignment = 0;
    shape->bias_alignment = shape->bias_alignment != 0;
    return onednn_fit(shape);
}

static flashinfer_status run_onednn(const struct call *call, const struct way *way)
{
    struct matmul_data data = library_data(call);
    return onednn_run(WAY_ARGS(way, const struct matmul_shape), &data);
}

static const struct op_kernel kernels[] = {
    {"mm_small_m_sm80", OP_CUDA, 80, 0, fit_small_m_sm80, run},
    {"mm_cublaslt", OP_CUDA, 80, 0, fit_cublaslt, run_cublaslt},
    {"mm_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"mm_small_m_cpu", OP_CPU, 0, 0, fit_small_m_cpu, run},
    {"mm_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {"mm_onednn", OP_CPU, 0, 0, fit_onednn, run_onednn},
    {0},
};

static const char *missing(const struct op_kernel *row)
{
    return row->fit == fit_cublaslt ? cublaslt_missing() : row->fit == fit_onednn ? onednn_missing() : NULL;
}

/* Products of f16 and bf16 are exact in float32. No partial sum exceeds the sum of magnitudes, whatever the
 * order, so each of k additions is off by a unit of that at most, or two units where a tensor core cuts off
 * instead of rounding. A machine that takes subnormals for zero loses less than the smallest normal number
 * times a, times b or in a sum, for each product. */
static void reference(const struct reference *r)
{
    const double tiny = 0x1p-126;
    const struct flashinfer_mm *t = r->args;
    const struct dims *d = call_dims(r->call);
    const double *a = t->a->data, *b = t->b->data, *bias = t->bias ? t->bias->data : NULL;
    double *out = t->out->data, *bound = reference_bound(r, t->out), units = 2 * REFERENCE_UNIT * (double)(d->k + 1);

    for (int64_t i = 0; i < d->m; i++, a += d->k, out += d->n, bound += d->n) {
        if (!reference_wants(r, i))
            continue;
        for (int64_t j = 0; bias && j < d->n; j++) {
            out[j] = bias[j];
            bound[j] = units * fabs(bias[j]);
        }
        for (int64_t l = 0; l < d->k; l++) {
            const double x = a[l], *y = b + l * d->n;
            for (int64_t j = 0; j < d->n; j++) {
                out[j] += x * y[j];
                bound[j] += units * fabs(x * y[j]) + tiny * (fabs(x) + fabs(y[j]) + 1);
            }
        }
    }
}

static void cost(const struct call *call, double *bytes, double *ops)
{
    const struct flashinfer_mm *t = call_args(call);
    const struct dims *d = call_dims(call);
    double m = (double)d->m, n = (double)d->n, k = (double)d->k;
    *bytes = 2 * (m * k + k * n + (t->bias ? n : 0)) + dtype_bytes(tensor_dtype(t->out)) * m * n;
    *ops = operations(d);
}

static const struct op_range ranges[] = {{"m", 0, 80, 0}, {"n", 0, 300, 0}, {"k", 0, 600, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_qkv", "m=1 n=960 k=576 dtype=bf16 -bias"},
    {"smollm2_down", "m=1 n=576 k=1536 dtype=bf16 -bias"},
    {"smollm2_logits", "m=4 n=49152 k=576 dtype=bf16 out:dtype=f32 -bias"},
    {"smollm2_gate_up_prefill", "m=256 n=3072 k=576 dtype=bf16 -bias"},
    {"odd", "m=33 n=111 k=77 dtype=f16"},
    {"bias", "m=100 n=1000 k=1000 dtype=f16"},
    {"llama_8b_decode", "m=16 n=28672 k=4096 dtype=bf16 -bias"},
    {"llama_8b_prefill", "m=2048 n=4096 k=4096 dtype=bf16 -bias"},
    {0},
};

DEFINE_OP("gemm", "out = a @ b + bias, b usually the transposed view of a weight",
          .kernels = kernels, .missing = missing, .ranges = ranges, .shapes = shapes, .reference = reference,
          .cost = cost);
