/* SPDX-License-Identifier: Apache-2.0 */
/* Bad input, one kind after the other, each with the sentence it must be refused with; and input that looks odd but is legal. */
#include <math.h>

#include "flashinfer/norm.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

extern const struct op op_rmsnorm, op_fused_add_rmsnorm;

static _Alignas(64) unsigned char memory[16][16384];
static char note[] = "anything but a stream";

/* Calls that are right, to be spoiled. Their tensors live as long as the test function. */
#define RMSNORM(a)                                                                                     \
    DLTensor out = TENSOR(memory[0], DTYPE_F16, 3, 64), input = TENSOR(memory[1], DTYPE_F16, 3, 64),   \
             weight = TENSOR(memory[2], DTYPE_F16, 64);                                                \
    struct flashinfer_rmsnorm a = {.size = sizeof a, .out = &out, .input = &input, .weight = &weight}; \
    ACCEPTED(&op_rmsnorm, &a, NULL)

#define SAMPLE(a)                                                                            \
    DLTensor y = TENSOR(memory[0], DTYPE_F32, 6, 8), x = TENSOR(memory[1], DTYPE_F32, 6, 8); \
    struct flashinfer_sample a = {.size = sizeof a, .out = &y, .x = &x};                     \
    ACCEPTED(&op_sample, &a, NULL)

static void test_struct(void **state)
{
    (void)state;
    RMSNORM(a);
    REFUSED(&op_rmsnorm, NULL, NULL, "rmsnorm: args is NULL, must point to a struct flashinfer_rmsnorm");
    a.size = 0;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: args.size is 0, must be the size of its struct, 40");
    a.size = 123456;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: args.size is 123456, must be the size of its struct, 40");
    a.size = offsetof(struct flashinfer_rmsnorm, eps); /* a program older than eps */
    a.eps = NAN;
    ACCEPTED(&op_rmsnorm, &a, NULL);
    a.size = offsetof(struct flashinfer_rmsnorm, weight);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight is NULL, must be given");

    struct {
        struct flashinfer_rmsnorm known;
        uint64_t later;
    } newer = {{sizeof newer, &out, &input, &weight, 0}, 0};
    ACCEPTED(&op_rmsnorm, &newer, NULL);
    newer.later = 1;
    REFUSED(&op_rmsnorm, &newer, NULL,
            "rmsnorm: args.size is 48, and a field that this version, whose size is 40, does not know is set");
}

static void test_null(void **state)
{
    (void)state;
    RMSNORM(a);
    a.weight = NULL;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight is NULL, must be given");
    a.weight = &weight;
    a.out = NULL;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out is NULL, must be given");
    a.out = &out;
    input.data = NULL;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input.data is NULL, but it has elements");
    input.shape = NULL;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input.shape is NULL, must point to 2 sizes");
    out = TENSOR(NULL, DTYPE_F16, 0, 64);
    input = TENSOR(NULL, DTYPE_F16, 0, 64);
    ACCEPTED(&op_rmsnorm, &a, NULL);
}

static void test_dtype(void **state)
{
    (void)state;
    RMSNORM(a);
    weight.dtype = dtype_dlpack(DTYPE_F32);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight is f32, must be f16 as input");
    weight.dtype = input.dtype;
    out.dtype = dtype_dlpack(DTYPE_BF16);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out is bf16, must be f16 as input");
    input.dtype = dtype_dlpack(DTYPE_I64);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input is i64, must be one of f16, bf16, f32");
    input.dtype = (DLDataType){kDLFloat, 16, 4};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has dtype {code 2, bits 16, lanes 4}, must be one of f16, bf16, f32");
    input.dtype = (DLDataType){kDLComplex, 64, 1};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has dtype {code 5, bits 64, lanes 1}, must be one of f16, bf16, f32");
}

static void test_rank_and_shape(void **state)
{
    (void)state;
    RMSNORM(a);
    weight = TENSOR(memory[2], DTYPE_F16, 128);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight has shape [128], must be [hidden] with hidden = 64 (from input)");
    weight = TENSOR(memory[2], DTYPE_F16, 1, 64);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight has shape [1, 64], must be [hidden] with hidden = 64 (from input)");
    weight = TENSOR(memory[2], DTYPE_F16, 64);
    out = TENSOR(memory[0], DTYPE_F16, 4, 64);
    REFUSED(&op_rmsnorm, &a, NULL,
            "rmsnorm: out has shape [4, 64], must be [..., hidden] with ... = [3] (from input), hidden = 64 (from input)");
    out = TENSOR(memory[0], DTYPE_F16, 3, 1, 64);
    REFUSED(&op_rmsnorm, &a, NULL,
            "rmsnorm: out has shape [3, 1, 64], must be [..., hidden] with ... = [3] (from input), hidden = 64 (from input)");
    out.ndim = input.ndim = 0;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has shape [], must be [..., hidden]");
    input.ndim = 9;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has 9 axes, must be 0 to 8");
    input.ndim = -1;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has -1 axes, must be 0 to 8");
    input = TENSOR(memory[1], DTYPE_F16, 3, -64);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: axis 1 of input has size -64, must not be negative");
    input = TENSOR(memory[1], DTYPE_F16, INT64_MAX, 64);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input does not fit into memory: its sizes are too large");
    input = TENSOR(memory[1], DTYPE_F16, INT64_MAX / 2, INT64_MAX / 2, 64);
    REFUSED(&op_rmsnorm, &a, NULL,
            "rmsnorm: input has shape [4611686018427387903, 4611686018427387903, 64], must be [..., hidden]");
    out = TENSOR(memory[0], DTYPE_F16, 64);
    input = TENSOR(memory[1], DTYPE_F16, 64);
    ACCEPTED(&op_rmsnorm, &a, NULL);
}

/* Each size is small, and the elements of out are 2^64 + 2^47: 2^47 in 64 bits. */
static void test_elements_beyond_64_bits(void **state)
{
    (void)state;
    enum { L = 1 << 24, M = 1 << 20, N = (1 << 20) + 8, K = 32 };
    DLTensor out = TENSOR((void *)(UINT64_C(1) << 50), DTYPE_F16, L, M, N),
             lhs = TENSOR((void *)(UINT64_C(2) << 50), DTYPE_E2M1X2, L, M, K / 2),
             lhs_scale = TENSOR((void *)(UINT64_C(3) << 50), DTYPE_E4M3, L, M / 128, 1, 32, 4, 4),
             rhs = TENSOR((void *)(UINT64_C(4) << 50), DTYPE_E2M1X2, L, N, K / 2),
             rhs_scale = TENSOR((void *)(UINT64_C(5) << 50), DTYPE_E4M3, L, N / 128 + 1, 1, 32, 4, 4),
             masked_m = TENSOR((void *)(UINT64_C(6) << 50), DTYPE_I32, L);
    const struct flashinfer_grouped_gemm_nt_masked a = {.size = sizeof a,
                                                        .out = &out,
                                                        .lhs = &lhs,
                                                        .lhs_scale = &lhs_scale,
                                                        .rhs = &rhs,
                                                        .rhs_scale = &rhs_scale,
                                                        .masked_m = &masked_m};
    REFUSED(&op_grouped_gemm_nt_masked, &a, NULL,
            "grouped_gemm_nt_masked: out does not fit into memory: its sizes are too large");
}

static void test_expressions_in_shapes(void **state)
{
    (void)state;
    SAMPLE(a);
    DLTensor tensor = TENSOR(memory[3], DTYPE_U8, 11);
    a.twice = &tensor;
    REFUSED(&op_sample, &a, NULL, "sample: twice has shape [11], must be [2*n] with n = 6 (from x)");
    a.twice = NULL;
    a.indptr = &tensor;
    tensor = TENSOR(memory[3], DTYPE_I32, 6);
    REFUSED(&op_sample, &a, NULL, "sample: indptr has shape [6], must be [n+1] with n = 6 (from x)");
    a.indptr = NULL;
    a.dense = &tensor;
    tensor = TENSOR(memory[3], DTYPE_F32, 47);
    REFUSED(&op_sample, &a, NULL, "sample: dense has shape [47], must be [n*heads] with n = 6 (from x), heads = 8 (from x)");
    a.dense = NULL;
    a.needs_pairs = &tensor;
    tensor = TENSOR(memory[3], DTYPE_U8, 60);
    REFUSED(&op_sample, &a, NULL, "sample: needs_pairs must be [pairs*n], but no argument tells pairs");
    DLTensor packed = TENSOR(memory[4], DTYPE_U8, 5); /* so pairs is 10 */
    a.packed = &packed;
    ACCEPTED(&op_sample, &a, NULL);
    tensor = TENSOR(memory[3], DTYPE_U8, 66);
    REFUSED(&op_sample, &a, NULL,
            "sample: needs_pairs has shape [66], must be [pairs*n] with n = 6 (from x), pairs = 10 (from packed)");
    a.needs_pairs = NULL;

    DLTensor cache = TENSOR(memory[5], DTYPE_BF16, 2, 5, 8);
    a.cache = &cache;
    ACCEPTED(&op_sample, &a, NULL);
    a.layout = 1;
    REFUSED(&op_sample, &a, NULL, "sample: x has shape [6, 8], must be [n, heads] with n = 6 (from x), heads = 5 (from cache)");
    cache = TENSOR(memory[5], DTYPE_BF16, 2, 8);
    REFUSED(&op_sample, &a, NULL, "sample: cache has shape [2, 8], must be [pages, heads, slots] with layout = 1 (HND)");
}

static void test_strides(void **state)
{
    (void)state;
    RMSNORM(a);
    input.strides = STRIDES(100, 1);
    out.strides = STRIDES(64, 1);
    ACCEPTED(&op_rmsnorm, &a, NULL);
    input.strides = STRIDES(0, 1); /* one row for all */
    ACCEPTED(&op_rmsnorm, &a, NULL);
    input.strides = STRIDES(1, 3);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has shape [3, 64] and strides [1, 3]: the last axis must have stride 1");
    input.strides = STRIDES(-64, 1);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input has shape [3, 64] and strides [-64, 1]: strides must not be negative");
    input.strides = STRIDES(INT64_MAX / 2, 1);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input does not fit into memory: its sizes are too large");
    input.strides = NULL;
    out.strides = STRIDES(32, 1);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out has shape [3, 64] and strides [32, 1]: elements of an output must not overlap");
    out.strides = STRIDES(0, 1);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out has shape [3, 64] and strides [0, 1]: elements of an output must not overlap");

    out = TENSOR(memory[0], DTYPE_F16, 1, 64);
    input = TENSOR(memory[1], DTYPE_F16, 1, 64);
    input.strides = STRIDES(-7, 1); /* an axis of one element has no say */
    out.strides = STRIDES(0, 1);
    ACCEPTED(&op_rmsnorm, &a, NULL);
}

static void test_more_strides(void **state)
{
    (void)state;
    SAMPLE(a);
    x.strides = STRIDES(1, 6);
    ACCEPTED(&op_sample, &a, NULL);
    DLTensor dense = TENSOR(memory[3], DTYPE_F32, 48);
    a.dense = &dense;
    ACCEPTED(&op_sample, &a, NULL);
    dense.strides = STRIDES(2);
    REFUSED(&op_sample, &a, NULL, "sample: dense has shape [48] and strides [2]: the last axis must have stride 1");
}

static void test_alignment(void **state)
{
    (void)state;
    RMSNORM(a);
    input.data = (void *)(uintptr_t)0x10001;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input begins at 0x10001, must be a multiple of its element's 2 bytes");
    input.data = (void *)(uintptr_t)0x10000;
    input.byte_offset = 3;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input begins at 0x10003, must be a multiple of its element's 2 bytes");
    input.byte_offset = 2; /* kernels that want more look for themselves */
    ACCEPTED(&op_rmsnorm, &a, NULL);
}

static void test_devices(void **state)
{
    (void)state;
    RMSNORM(a);
    weight.device = (DLDevice){kDLCUDA, 1};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight is on cuda:1, must be on cpu as input");
    input.device = (DLDevice){kDLCUDA, 0};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: weight is on cuda:1, must be on cuda:0 as input");
    weight.device = (DLDevice){kDLCUDAManaged, 0};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out is on cpu, must be on cuda:0 as input");
    input.device = (DLDevice){(DLDeviceType)4, 2};
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: input is on device type 4, must be on cpu or cuda");
    input.device = weight.device = (DLDevice){kDLCUDAHost, 3}; /* pinned memory is the CPU's */
    ACCEPTED(&op_rmsnorm, &a, NULL);

    SAMPLE(b);
    DLTensor indptr = TENSOR(memory[3], DTYPE_I32, 7);
    indptr.device = (DLDevice){kDLCUDA, 0};
    b.indptr = &indptr;
    REFUSED(&op_sample, &b, NULL, "sample: indptr is on cuda:0, must be on cpu");
}

static void test_exec(void **state)
{
    (void)state;
    RMSNORM(a);
    flashinfer_exec wrong = {.size = 3};
    ACCEPTED(&op_rmsnorm, &a, EXEC(.device = {kDLCPU, 0}, .threads = 2, .flags = FLASHINFER_PDL));
    REFUSED(&op_rmsnorm, &a, &wrong, "rmsnorm: exec.size is 3, must be the size of its struct, 56");
    REFUSED(&op_rmsnorm, &a, EXEC(.device = {kDLCUDA, 0}), "rmsnorm: exec.device is cuda:0, must be cpu as input");
    REFUSED(&op_rmsnorm, &a, EXEC(.threads = -1), "rmsnorm: exec.threads is -1, must not be negative");
    REFUSED(&op_rmsnorm, &a, EXEC(.flags = 12),
            "rmsnorm: exec.flags is 0xc, must be made of FLASHINFER_PDL and FLASHINFER_BATCH_INVARIANT");
    struct call call;
    assert_int_equal(call_check(&call, &op_rmsnorm, &a, EXEC(.stream = note), false, NULL), FLASHINFER_INVALID);
    assert_non_null(strstr(flashinfer_last_error(), "rmsnorm: exec.stream is 0x"));
    assert_non_null(strstr(flashinfer_last_error(), ", must be NULL on the CPU"));
}

static void test_numbers(void **state)
{
    (void)state;
    SAMPLE(b);
    b.eps = -1e-6;
    REFUSED(&op_sample, &b, NULL, "sample: eps is -1e-06, must be at least 0 and finite");
    b.eps = NAN;
    REFUSED(&op_sample, &b, NULL, "sample: eps is nan, must be at least 0 and finite");
    b.eps = INFINITY;
    REFUSED(&op_sample, &b, NULL, "sample: eps is inf, must be at least 0 and finite");
    b.eps = 0;
    b.offset = -1e30;
    ACCEPTED(&op_sample, &b, NULL);
    b.offset = -INFINITY;
    REFUSED(&op_sample, &b, NULL, "sample: offset is -inf, must be finite");
    b.offset = 0;
    b.probability = 1.25;
    REFUSED(&op_sample, &b, NULL, "sample: probability is 1.25, must be 0 to 1");
    b.probability = 1;
    b.count = -2;
    REFUSED(&op_sample, &b, NULL, "sample: count is -2, must be 1 to 64");
    b.count = 65;
    REFUSED(&op_sample, &b, NULL, "sample: count is 65, must be 1 to 64");
    b.count = 8;
    b.fast = 2;
    REFUSED(&op_sample, &b, NULL, "sample: fast is 2, must be 0 to 1");
    b.fast = 0;
    b.window = (flashinfer_number)FLASHINFER_INT(-2);
    REFUSED(&op_sample, &b, NULL, "sample: window is -2, must be at least -1");
    b.window = (flashinfer_number)FLASHINFER_FLOAT(2.5);
    REFUSED(&op_sample, &b, NULL, "sample: window is the float 2.5, must be an integer");
    b.window.kind = 9;
    REFUSED(&op_sample, &b, NULL, "sample: window has kind 9, must be 0 (absent), 1 (int), 2 (float) or 3 (tensor)");
    b.window = (flashinfer_number)FLASHINFER_INT(0);
    b.seed = (flashinfer_number)FLASHINFER_INT(INT64_MIN);
    b.scale = (flashinfer_number)FLASHINFER_FLOAT(NAN);
    REFUSED(&op_sample, &b, NULL, "sample: scale is nan, must be at least 0 and finite");
    b.scale = (flashinfer_number)FLASHINFER_INT(3);
    ACCEPTED(&op_sample, &b, NULL);
    b.layout = 2;
    REFUSED(&op_sample, &b, NULL, "sample: layout is 2, must be one of 0 (NHD), 1 (HND)");
}

static void test_number_tensors(void **state)
{
    (void)state;
    SAMPLE(a);
    DLTensor number = TENSOR(memory[3], DTYPE_F32, 1, 1, 1);
    a.scale = (flashinfer_number)FLASHINFER_TENSOR(&number);
    ACCEPTED(&op_sample, &a, NULL);
    number = TENSOR(memory[3], DTYPE_F32, 6); /* one for each of n */
    ACCEPTED(&op_sample, &a, NULL);
    number.ndim = 0;
    ACCEPTED(&op_sample, &a, NULL);
    number = TENSOR(memory[3], DTYPE_F32, 2);
    REFUSED(&op_sample, &a, NULL, "sample: scale has shape [2], must have one element or be [n] with n = 6 (from x)");
    number = TENSOR(memory[3], DTYPE_F16, 1);
    REFUSED(&op_sample, &a, NULL, "sample: scale is f16, must be f32");
    number = TENSOR(memory[3], DTYPE_F32, 1);
    number.device = (DLDevice){kDLCUDA, 0};
    REFUSED(&op_sample, &a, NULL, "sample: scale is on cuda:0, must be on cpu as x");
    number = TENSOR(memory[0], DTYPE_F32, 1);
    REFUSED(&op_sample, &a, NULL, "sample: out overlaps scale, must share no memory with it");
    a.scale = (flashinfer_number){.kind = FLASHINFER_NUMBER_TENSOR};
    REFUSED(&op_sample, &a, NULL, "sample: scale has kind 3 (tensor), but the tensor is NULL");
    a.scale = (flashinfer_number){0};
    number = TENSOR(memory[3], DTYPE_I64, 1);
    a.seed = (flashinfer_number)FLASHINFER_TENSOR(&number);
    ACCEPTED(&op_sample, &a, NULL);
    number = TENSOR(memory[3], DTYPE_I64, 6);
    REFUSED(&op_sample, &a, NULL, "sample: seed has shape [6], must have one element");
    number = TENSOR(memory[3], DTYPE_F32, 1);
    REFUSED(&op_sample, &a, NULL, "sample: seed is f32, must be one of u32, i32, u64, i64");
    a.seed = (flashinfer_number){0};
    number = TENSOR(memory[3], DTYPE_I64, 1);
    a.window = (flashinfer_number)FLASHINFER_TENSOR(&number);
    REFUSED(&op_sample, &a, NULL, "sample: window is given as a tensor, must be given by value");
}

static void test_dtype_arguments(void **state)
{
    (void)state;
    SAMPLE(a);
    a.out_dtype = dtype_dlpack(DTYPE_BF16);
    REFUSED(&op_sample, &a, NULL, "sample: out is f32, must be bf16 as out_dtype");
    y.dtype = a.out_dtype;
    ACCEPTED(&op_sample, &a, NULL);
    a.out_dtype = dtype_dlpack(DTYPE_U8);
    REFUSED(&op_sample, &a, NULL, "sample: out_dtype is u8, must be one of f16, bf16, f32");
    a.out_dtype = (DLDataType){kDLFloat, 128, 1};
    REFUSED(&op_sample, &a, NULL, "sample: out_dtype has dtype {code 2, bits 128, lanes 1}, must be one of f16, bf16, f32");
}

static void test_dtype_as_another_or_one_of_a_set(void **state)
{
    (void)state;
    SAMPLE(a);
    DLTensor dense = TENSOR(memory[2], DTYPE_F32, 6 * 8);
    a.dense = &dense;
    ACCEPTED(&op_sample, &a, NULL);
    dense.dtype = dtype_dlpack(DTYPE_I8);
    ACCEPTED(&op_sample, &a, NULL);
    dense.dtype = dtype_dlpack(DTYPE_F16);
    REFUSED(&op_sample, &a, NULL, "sample: dense is f16, must be f32 as x, or one of u8, i8");
}

static void test_rules(void **state)
{
    (void)state;
    SAMPLE(a);
    a.count = 3;
    REFUSED(&op_sample, &a, NULL, "sample: heads % count == 0 or count == 4 does not hold: heads = 8 (from x), count = 3");
    a.count = 2;
    a.fast = 1;
    REFUSED(&op_sample, &a, NULL, "sample: fast == 0 or window >= 0 does not hold: window = -1, fast = 1");
    a.window = (flashinfer_number)FLASHINFER_INT(5);
    ACCEPTED(&op_sample, &a, NULL);
}

static void test_overlap(void **state)
{
    (void)state;
    RMSNORM(a);
    out.data = input.data;
    ACCEPTED(&op_rmsnorm, &a, NULL);
    out.data = (char *)input.data + 2;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out overlaps input, must be the very same tensor or share no memory with it");
    out.data = input.data;
    out.strides = STRIDES(128, 1);
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out overlaps input, must be the very same tensor or share no memory with it");
    out.data = weight.data;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out overlaps weight, must share no memory with it");
    input.strides = out.strides = STRIDES(128, 1);
    out.data = (char *)input.data + 128; /* two halves of the same rows */
    ACCEPTED(&op_rmsnorm, &a, NULL);
    out.data = (char *)input.data + 126;
    REFUSED(&op_rmsnorm, &a, NULL, "rmsnorm: out overlaps input, must be the very same tensor or share no memory with it");

    DLTensor first = TENSOR(memory[3], DTYPE_BF16, 2, 8), second = TENSOR(memory[4], DTYPE_BF16, 2, 8),
             scale = TENSOR(memory[5], DTYPE_BF16, 8);
    struct flashinfer_fused_add_rmsnorm b = {sizeof b, &first, &second, &scale, 0};
    ACCEPTED(&op_fused_add_rmsnorm, &b, NULL);
    second.data = first.data;
    REFUSED(&op_fused_add_rmsnorm, &b, NULL, "fused_add_rmsnorm: residual overlaps input, must share no memory with it");
    second.data = scale.data;
    REFUSED(&op_fused_add_rmsnorm, &b, NULL, "fused_add_rmsnorm: residual overlaps weight, must share no memory with it");
}

/* What a kernel finds in the call. */
static void test_results(void **state)
{
    (void)state;
    struct call call;
    RMSNORM(a);
    input = TENSOR(memory[1], DTYPE_F16, 3, 2, 32);
    out = TENSOR(memory[0], DTYPE_F16, 3, 2, 32);
    weight = TENSOR(memory[2], DTYPE_F16, 32);
    assert_int_equal(call_check(&call, &op_rmsnorm, &a, NULL, false, NULL), FLASHINFER_OK);
    const struct flashinfer_rmsnorm *seen = call_args(&call);
    assert_true(seen->eps == 1e-6);
    assert_ptr_equal(seen->input, &input);
    assert_int_equal(call.dim[0], 6);
    assert_int_equal(call.dim[1], 32);
    assert_false(call.empty);
    assert_int_equal(call.device->id.device_type, kDLCPU);

    input = TENSOR(NULL, DTYPE_F16, 3, 0, 32);
    out = TENSOR(NULL, DTYPE_F16, 3, 0, 32);
    assert_int_equal(call_check(&call, &op_rmsnorm, &a, NULL, false, NULL), FLASHINFER_OK);
    assert_true(call.empty);

    SAMPLE(b);
    x = TENSOR(NULL, DTYPE_F32, 6, 8);
    b.out->data = NULL;
    assert_int_equal(call_check(&call, &op_sample, &b, NULL, true, NULL), FLASHINFER_OK);
    const struct flashinfer_sample *s = call_args(&call);
    assert_int_equal(s->count, 4);
    assert_int_equal(s->other_count, 4);
    assert_int_equal(s->window.kind, FLASHINFER_NUMBER_INT);
    assert_int_equal(s->window.value.i, -1);
    assert_true(number_value(&s->scale) == 1);
    assert_int_equal(dtype_of(s->out_dtype), DTYPE_F32);
    assert_int_equal(call.dim[program_symbol(call.program, "out_dtype")], DTYPE_F32);

    struct device imagined;
    assert_int_equal(device_imagine(90, &imagined), FLASHINFER_OK);
    assert_int_equal(call_check(&call, &op_sample, &b, EXEC(.stream = note), true, &imagined), FLASHINFER_OK);
    assert_ptr_equal(call.device, &imagined);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_struct),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_dtype),
        cmocka_unit_test(test_rank_and_shape),
        cmocka_unit_test(test_elements_beyond_64_bits),
        cmocka_unit_test(test_expressions_in_shapes),
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_more_strides),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_exec),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_number_tensors),
        cmocka_unit_test(test_dtype_arguments),
        cmocka_unit_test(test_dtype_as_another_or_one_of_a_set),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
