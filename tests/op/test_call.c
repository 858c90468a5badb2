/* SPDX-License-Identifier: Apache-2.0 */
/* What follows the check of a call: the choice of a kernel, its workspace, plans, validation of contents, preparation. */
#include <pthread.h>
#include <stdlib.h>

#include "op/plan.h"
#include "op/recall.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

static _Alignas(256) unsigned char memory[3][1 << 12], workspace[1 << 12];
static int runs[3], validations;
static bool contents_are_bad;
static const void *seen_plan;

static const char *fit_small(const struct call *call, struct way *way)
{
    const struct flashinfer_top_k *a = call_args(call);
    (void)way;
    return a->k > 8 ? "k is more than 8" : NULL;
}

static const char *fit_wide(const struct call *call, struct way *way)
{
    const struct flashinfer_top_k *a = call_args(call);
    way->value[0] = 7;
    way->workspace = 1000;
    return a->k > 64 ? "k is more than 64" : NULL;
}

static const char *fit_hopper(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return NULL;
}

static flashinfer_status run_small(const struct call *call, const struct way *way)
{
    (void)call;
    runs[0]++;
    return way->value[0] || way->workspace ? FLASHINFER_INTERNAL : FLASHINFER_OK;
}

static flashinfer_status run_wide(const struct call *call, const struct way *way)
{
    (void)call;
    runs[1]++;
    return way->value[0] == 7 && way->workspace == 1000 ? FLASHINFER_OK : FLASHINFER_INTERNAL;
}

static flashinfer_status validate(const struct call *call)
{
    (void)call;
    validations++;
    return contents_are_bad ? FLASHINFER_INVALID : FLASHINFER_OK;
}

static const struct op_kernel rows[] = {
    {"top_k_sm90", OP_CUDA, 90, 90, fit_hopper, run_small},
    {"top_k_small_cpu", OP_CPU, 0, 0, fit_small, run_small},
    {"top_k_wide_cpu", OP_CPU, 0, 0, fit_wide, run_wide},
    {0},
};

/* top_k with these rows. */
static const struct op *top_k(void)
{
    static _Atomic(const struct program *) compiled;
    static struct op op;
    op = op_top_k;
    op.kernels = rows;
    op.compiled = &compiled;
    op.validate = validate;
    return &op;
}

#define TOP_K(a, rows_, k_)                                                                                               \
    DLTensor values_##a = TENSOR(memory[0], DTYPE_F32, rows_, k_), indices_##a = TENSOR(memory[1], DTYPE_I64, rows_, k_), \
             input_##a = TENSOR(memory[2], DTYPE_F32, rows_, 100);                                                        \
    const struct flashinfer_top_k a = {sizeof a, &values_##a, &indices_##a, &input_##a, k_, 0, 0, 0}

static int reset(void **state)
{
    (void)state;
    memset(runs, 0, sizeof runs);
    validations = 0;
    contents_are_bad = false;
    return 0;
}

static void expect_status(flashinfer_status got, flashinfer_status expected, const char *sentence)
{
    if (got)
        assert_string_equal(flashinfer_last_error(), sentence);
    assert_int_equal(got, expected);
}

static void test_first_that_fits(void **state)
{
    (void)state;
    TOP_K(a, 2, 5);
    expect_status(op_call(top_k(), &a, NULL), FLASHINFER_OK, "");
    assert_int_equal(runs[0], 1);
    TOP_K(b, 2, 9);
    expect_status(op_call(top_k(), &b, EXEC(.workspace = workspace, .workspace_size = 1000)), FLASHINFER_OK, "");
    assert_int_equal(runs[0], 1);
    assert_int_equal(runs[1], 1);
}

static void test_forced(void **state)
{
    (void)state;
    TOP_K(a, 2, 5);
    expect_status(op_call(top_k(), &a, EXEC(.kernel = "top_k_wide_cpu", .workspace = workspace, .workspace_size = 4096)),
                  FLASHINFER_OK, "");
    assert_int_equal(runs[1], 1);
    expect_status(op_call(top_k(), &a, EXEC(.kernel = "top_k_avx")), FLASHINFER_INVALID,
                  "top_k: exec.kernel is \"top_k_avx\", must be one of: top_k_sm90, top_k_small_cpu, top_k_wide_cpu");
    TOP_K(b, 2, 9);
    expect_status(op_call(top_k(), &b, EXEC(.kernel = "top_k_small_cpu")), FLASHINFER_UNSUPPORTED,
                  "top_k: the kernel named by exec.kernel does not serve this call: top_k_small_cpu: k is more than 8 "
                  "(k = 9)");
    TOP_K(c, 2, 65);
    expect_status(op_call(top_k(), &c, NULL), FLASHINFER_UNSUPPORTED,
                  "top_k: no kernel serves this call: top_k_small_cpu: k is more than 8; "
                  "top_k_wide_cpu: k is more than 64 (k = 65)");
    expect_status(op_call(&op_top_k, &a, NULL), FLASHINFER_UNSUPPORTED, "top_k: no kernel serves this call: the op has none");
    assert_int_equal(runs[0], 0);
    assert_int_equal(runs[1], 1);
}

static void test_architectures(void **state)
{
    (void)state;
    struct call call;
    struct way way;
    struct device device;
    TOP_K(a, 2, 5);
    static const struct op_kernel later = {"later", OP_CUDA, 90, 0, fit_hopper, run_small},
                                  between = {"between", OP_CUDA, 80, 86, fit_hopper, run_small};
    assert_int_equal(device_imagine(90, &device), FLASHINFER_OK);
    assert_int_equal(call_check(&call, top_k(), &a, NULL, true, &device), FLASHINFER_OK);
    assert_null(call_fit(&call, &rows[0], &way));
    assert_null(call_fit(&call, &later, &way));
    assert_string_equal(call_fit(&call, &rows[1], &way), "runs on CPUs");
    assert_string_equal(call_fit(&call, &between, &way), "needs sm_80 to sm_86, the device is sm_90");
    assert_int_equal(device_imagine(80, &device), FLASHINFER_OK);
    assert_string_equal(call_fit(&call, &rows[0], &way), "needs sm_90, the device is sm_80");
    assert_string_equal(call_fit(&call, &later, &way), "needs sm_90 or later, the device is sm_80");
    assert_null(call_fit(&call, &between, &way));
}

static void test_workspace(void **state)
{
    (void)state;
    size_t bytes = 1;
    TOP_K(small, 2, 5);
    TOP_K(a, 2, 9);
    expect_status(op_workspace_size(top_k(), &small, NULL, &bytes), FLASHINFER_OK, "");
    assert_int_equal(bytes, 0);
    input_a.data = values_a.data = NULL;
    expect_status(op_workspace_size(top_k(), &a, NULL, &bytes), FLASHINFER_OK, "");
    assert_int_equal(bytes, 1000);
    expect_status(op_prepare(top_k(), &a, NULL), FLASHINFER_OK, "");
    input_a.data = memory[2];
    values_a.data = memory[0];
    expect_status(op_call(top_k(), &a, NULL), FLASHINFER_WORKSPACE,
                  "top_k: kernel top_k_wide_cpu needs 1000 bytes of workspace, exec.workspace has 0");
    expect_status(op_call(top_k(), &a, EXEC(.workspace = workspace, .workspace_size = 999)), FLASHINFER_WORKSPACE,
                  "top_k: kernel top_k_wide_cpu needs 1000 bytes of workspace, exec.workspace has 999");
    expect_status(op_call(top_k(), &a, EXEC(.workspace_size = 4000)), FLASHINFER_WORKSPACE,
                  "top_k: kernel top_k_wide_cpu needs 1000 bytes of workspace, exec.workspace has 0");
    assert_int_equal(op_call(top_k(), &a, EXEC(.workspace = workspace + 16, .workspace_size = 4000)), FLASHINFER_INVALID);
    assert_non_null(strstr(flashinfer_last_error(), ", must be a multiple of 256 bytes"));
    assert_int_equal(runs[1], 0);
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    TOP_K(a, 0, 9);
    expect_status(op_call(top_k(), &a, NULL), FLASHINFER_OK, "");
    assert_int_equal(runs[0] + runs[1], 0);
}

/* FLASHINFER_VALIDATE_INPUTS is set, see main. */
static void test_validation(void **state)
{
    (void)state;
    TOP_K(a, 2, 5);
    expect_status(op_call(top_k(), &a, NULL), FLASHINFER_OK, "");
    assert_int_equal(validations, 1);
    contents_are_bad = true;
    assert_int_equal(op_call(top_k(), &a, NULL), FLASHINFER_INVALID);
    assert_int_equal(runs[0], 1);
}

#define PLAN(a, plan_)                                                     \
    const struct flashinfer_paged_prefill_plan a = {.size = sizeof a,      \
                                                    .plan = plan_,         \
                                                    .max_batch_size = 3,   \
                                                    .max_total_tokens = 9, \
                                                    .max_kv_len = 40,      \
                                                    .num_qo_heads = 6,     \
                                                    .num_kv_heads = 2,     \
                                                    .head_dim_qk = 16,     \
                                                    .page_size = 4,        \
                                                    .kv_layout = FLASHINFER_HND}

static const char *fit_run(const struct call *call, struct way *way)
{
    (void)way;
    seen_plan = call->plan;
    return *(const int64_t *)call->plan == 3 ? NULL : "the plan's constants are not those that were written";
}

static const struct op_kernel run_rows[] = {{"paged_prefill_cpu", OP_CPU, 0, 0, fit_run, run_small}, {0}};

/* paged_prefill with that row. */
static const struct op *paged_prefill(void)
{
    static _Atomic(const struct program *) compiled;
    static struct op op;
    op = op_paged_prefill;
    op.kernels = run_rows;
    op.compiled = &compiled;
    return &op;
}

#define RUN(a, plan_)                                                                                      \
    DLTensor out = TENSOR(memory[0], DTYPE_F16, 5, 6, 16), q = TENSOR(memory[1], DTYPE_F16, 5, 6, 16),     \
             k = TENSOR(memory[2], DTYPE_F16, 2, 2, 4, 16), v = TENSOR(memory[2], DTYPE_F16, 2, 2, 4, 16), \
             indptr = TENSOR(workspace, DTYPE_I32, 3), indices = TENSOR(workspace, DTYPE_I32, 4),          \
             last = TENSOR(workspace, DTYPE_I32, 2);                                                       \
    struct flashinfer_paged_prefill a = {.size = sizeof a,                                                 \
                                         .out = &out,                                                      \
                                         .q = &q,                                                          \
                                         .k_cache = &k,                                                    \
                                         .v_cache = &v,                                                    \
                                         .qo_indptr = &indptr,                                             \
                                         .paged_kv_indptr = &indptr,                                       \
                                         .paged_kv_indices = &indices,                                     \
                                         .paged_kv_last_page_len = &last,                                  \
                                         .plan = plan_}

static void test_plan(void **state)
{
    (void)state;
    flashinfer_plan plan, copy;
    size_t bytes = 0;
    PLAN(p, &plan);
    expect_status(op_call(&op_paged_prefill_plan, &p, NULL), FLASHINFER_INVALID,
                  "paged_prefill_plan: exec.device is not given, must name the device, since no argument tells it");
    expect_status(op_call(&op_paged_prefill_plan, &p, EXEC(.device = {kDLCPU, 0})), FLASHINFER_OK, "");
    copy = plan;
    memset(&plan, 0, sizeof plan);
    RUN(r, &copy);
    expect_status(op_call(paged_prefill(), &r, NULL), FLASHINFER_OK, "");
    assert_true((const char *)seen_plan > (const char *)&copy && (const char *)seen_plan < (const char *)(&copy + 1));
    expect_status(flashinfer_plan_workspace_size(&copy, &bytes), FLASHINFER_OK, "");
    assert_int_equal(bytes, 4096);
    q = TENSOR(memory[1], DTYPE_F16, 5, 4, 16);
    REFUSED(paged_prefill(), &r, NULL,
            "paged_prefill: q has shape [5, 4, 16], must be [tokens, num_qo_heads, head_dim_qk] with tokens = 5 (from q), "
            "num_qo_heads = 6 (from the plan), head_dim_qk = 16 (from the plan)");
    q = TENSOR(memory[1], DTYPE_BF16, 5, 6, 16);
    REFUSED(paged_prefill(), &r, NULL, "paged_prefill: q is bf16, must be f16 as q_data_type");
    q = TENSOR(memory[1], DTYPE_F16, 5, 6, 16);
    k = TENSOR(memory[2], DTYPE_F16, 2, 4, 2, 16);
    REFUSED(paged_prefill(), &r, NULL,
            "paged_prefill: k_cache has shape [2, 4, 2, 16], must be [pages, num_kv_heads, page_size, head_dim_qk] with "
            "pages = 2 (from k_cache), num_kv_heads = 2 (from the plan), head_dim_qk = 16 (from the plan), "
            "kv_layout = 1 (HND, from the plan), page_size = 4 (from the plan)");
    k = TENSOR(memory[2], DTYPE_F16, 2, 2, 4, 16);
    indptr = TENSOR(workspace, DTYPE_I32, 5);
    last = TENSOR(workspace, DTYPE_I32, 4);
    REFUSED(
        paged_prefill(), &r, NULL,
        "paged_prefill: batch <= max_batch_size does not hold: batch = 4 (from qo_indptr), max_batch_size = 3 (from the plan)");
}

/* A call is taken for an earlier one only with the same plan, in every byte that is used. */
static void test_recalled_plan(void **state)
{
    (void)state;
    flashinfer_plan plan;
    static struct recall recall;
    static struct call call;
    const struct op *op = paged_prefill();
    PLAN(p, &plan);
    RUN(r, &plan);
    expect_status(op_call(&op_paged_prefill_plan, &p, EXEC(.device = {kDLCPU, 0})), FLASHINFER_OK, "");
    recall_find(&recall, &call, op, &r, NULL);
    assert_int_equal(call_check(&call, op, &r, NULL, false, NULL), FLASHINFER_OK);
    recall_keep(&recall, &call, &r, NULL);
    assert_true(recall_find(&recall, &call, op, &r, NULL));
    const struct plan_blob *blob = (const struct plan_blob *)&plan;
    const size_t head = offsetof(struct plan_blob, symbol) + blob->num_symbols * sizeof *blob->symbol;
    for (size_t i = 0; i < offsetof(struct plan_blob, constants) + blob->constants_bytes; i++) {
        if (i >= head && i < offsetof(struct plan_blob, constants))
            continue;
        ((unsigned char *)&plan)[i] ^= 1;
        if (recall_find(&recall, &call, op, &r, NULL))
            fail_msg("a plan with another byte %zu is taken for the one before", i);
        ((unsigned char *)&plan)[i] ^= 1;
    }
    assert_true(recall_find(&recall, &call, op, &r, NULL));
}

static void test_foreign_plan(void **state)
{
    (void)state;
    struct call call;
    struct device imagined;
    flashinfer_plan plan = {{0}};
    size_t bytes;
    const char *none = "paged_prefill: plan is no plan, must be written by paged_prefill_plan";
    RUN(r, &plan);
    REFUSED_AS(FLASHINFER_FOREIGN_PLAN, &op_paged_prefill, &r, NULL, none);
    expect_status(flashinfer_plan_workspace_size(&plan, &bytes), FLASHINFER_FOREIGN_PLAN,
                  "flashinfer_plan_workspace_size: plan is no plan");
    PLAN(p, &plan);
    assert_int_equal(device_imagine(90, &imagined), FLASHINFER_OK);
    assert_int_equal(call_check(&call, &op_paged_prefill_plan, &p, NULL, true, &imagined), FLASHINFER_OK);
    assert_int_equal(call_write_plan(&call, &plan, "", 1, 0), FLASHINFER_OK);
    REFUSED_AS(FLASHINFER_FOREIGN_PLAN, &op_paged_prefill, &r, NULL,
               "paged_prefill: plan was made for cuda:0, must be made for cpu");
    plan.word[1]++;
    REFUSED_AS(FLASHINFER_FOREIGN_PLAN, &op_paged_prefill, &r, NULL,
               "paged_prefill: plan was written by another build of this library, must be written by paged_prefill_plan of "
               "version " FLASHINFER_VERSION);
    TOP_K(a, 2, 5);
    assert_int_equal(call_check(&call, top_k(), &a, NULL, false, NULL), FLASHINFER_OK);
    assert_int_equal(call_write_plan(&call, &plan, "", 1, 0), FLASHINFER_OK);
    REFUSED_AS(FLASHINFER_FOREIGN_PLAN, &op_paged_prefill, &r, NULL,
               "paged_prefill: plan was written by top_k, must be written by paged_prefill_plan");
    r.plan = NULL;
    REFUSED(&op_paged_prefill, &r, NULL, "paged_prefill: plan is NULL, must be given");
    r.plan = (const flashinfer_plan *)(uintptr_t)0x1004;
    REFUSED(&op_paged_prefill, &r, NULL, "paged_prefill: plan begins at 0x1004, must be a multiple of 8 bytes");
}

static void test_names(void **state)
{
    (void)state;
    size_t bytes;
    assert_ptr_equal(op_find("rmsnorm"), op_registry[0]);
    assert_null(op_find("rmsnorm2"));
    expect_status(flashinfer_call("rmsnorm2", NULL, NULL), FLASHINFER_INVALID,
                  "no op is called \"rmsnorm2\"; `flashinfer list` names all");
    expect_status(flashinfer_prepare(NULL, NULL, NULL), FLASHINFER_INVALID, "the name of the op is NULL");
    expect_status(flashinfer_workspace_size("rmsnorm", NULL, NULL, NULL), FLASHINFER_INVALID, "rmsnorm: bytes is NULL");
    expect_status(flashinfer_workspace_size("rmsnorm", NULL, NULL, &bytes), FLASHINFER_INVALID,
                  "rmsnorm: args is NULL, must point to a struct flashinfer_rmsnorm");
    expect_status(flashinfer_call("rmsnorm", NULL, NULL), FLASHINFER_INVALID,
                  "rmsnorm: args is NULL, must point to a struct flashinfer_rmsnorm");
}

static void *compile(void *op)
{
    return (void *)(uintptr_t)op_program(op);
}

/* Threads that meet at the first use of an op get the same program. */
static void test_first_use(void **state)
{
    (void)state;
    enum { THREADS = 8, ROUNDS = 50 };
    for (int round = 0; round < ROUNDS; round++) {
        static _Atomic(const struct program *) slot;
        struct op op = op_norm_fp4_sample;
        pthread_t threads[THREADS];
        void *program[THREADS];
        atomic_store(&slot, NULL);
        op.compiled = &slot;
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, compile, &op), 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], &program[i]);
        for (int i = 0; i < THREADS; i++)
            assert_ptr_equal(program[i], program[0]);
        assert_non_null(program[0]);
        free(program[0]);
    }
}

int main(void)
{
    setenv("FLASHINFER_VALIDATE_INPUTS", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_first_that_fits, reset),
        cmocka_unit_test_setup(test_forced, reset),
        cmocka_unit_test_setup(test_architectures, reset),
        cmocka_unit_test_setup(test_workspace, reset),
        cmocka_unit_test_setup(test_nothing_to_do, reset),
        cmocka_unit_test_setup(test_validation, reset),
        cmocka_unit_test_setup(test_plan, reset),
        cmocka_unit_test_setup(test_recalled_plan, reset),
        cmocka_unit_test_setup(test_foreign_plan, reset),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_first_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
