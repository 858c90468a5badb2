/* SPDX-License-Identifier: Apache-2.0 */
/* The declarations of declarations.h: each generates random problems, whose calls are accepted and tell the dimensions that they
 * were made from, and for each of its rules a call that breaks it alone, which is refused by that rule. */
#include <stdlib.h>

#include "harness/refuse.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

extern const struct op op_rmsnorm;

enum { PROBLEMS = 80, BROKEN = 6, NUM_OPS = 7 };

static int comm; /* its address stands for a group of ranks */

/* paged_prefill with a bias per head, an optional tensor per request, and a number. */
static const struct op *variant(void)
{
    static struct op *made;
    static const struct op_arg extra[] = {
        {.name = "bias", .kind = OP_IN, .dtype.set = F32, .shape = "num_qo_heads"},
        {.name = "temperature", .kind = OP_IN, .flags = OPTIONAL, .dtype.set = F32, .shape = "batch 1"},
        {.name = "logit_scale", .kind = OP_NUMBER, .value = 1},
        {.name = "prefix", .kind = OP_INT, .min = 0},
    };
    if (!made)
        assert_int_equal(op_extend(&op_paged_prefill, "flash_sigmoid", extra, 4, &made), FLASHINFER_OK);
    return made;
}

static const struct op *op_number_i(int i)
{
    const struct op *ops[NUM_OPS] = {
        &op_norm_fp4_sample, &op_grouped_gemm_nt_masked, &op_paged_prefill_plan, &op_paged_prefill, variant(), &op_top_k,
        &op_allreduce_fusion};
    return ops[i];
}

static const struct device *cpu(void)
{
    const struct device *device;
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &device), FLASHINFER_OK);
    return device;
}

static void place(const struct problem *problem, struct placement **out)
{
    if (placement_create(problem, cpu(), out))
        fail_msg("%s: %s", problem->text, flashinfer_last_error());
    for (int i = 0; i < problem->program->num_args; i++)
        if (problem->op->args[i].kind == OP_COMM)
            *(void **)op_field((*out)->args, &problem->op->args[i]) = &comm;
}

static void accept(const struct op *op, uint64_t seed)
{
    struct problem *problem;
    struct placement *placement;
    struct call call;
    const struct problem_request request = {.op = op, .seed = seed};
    if (problem_create(&request, &problem))
        fail_msg("%s: no problem of seed %d: %s", op->name, (int)seed, flashinfer_last_error());
    place(problem, &placement);
    if (placement_check(placement, &call))
        fail_msg("%s: %s", problem->text, flashinfer_last_error());
    for (int i = 0; i < call.program->num_symbols; i++)
        if (call.bound >> i & 1 && call.dim[i] != problem->dim[i])
            fail_msg("%s (%s): %s is %lld, was made as %lld", op->name, problem->text, call.program->symbol[i].name,
                     (long long)call.dim[i], (long long)problem->dim[i]);
    placement_destroy(placement);
    problem_destroy(problem);
}

static void test_problems_are_accepted(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_OPS; i++) {
        if (op_validate(op_number_i(i)))
            fail_msg("%s", flashinfer_last_error());
        for (uint64_t seed = 0; seed <= PROBLEMS; seed++)
            accept(op_number_i(i), seed);
    }
}

/* The sentence quotes the rule and says what each dimension in it is. */
static void refuse(const struct op *op, int rule, uint64_t seed)
{
    struct problem *problem;
    struct placement *placement;
    struct call call;
    char expected[400];
    const struct problem_request request = {.op = op, .seed = seed, .broken_rule = rule + 1};
    if (problem_create(&request, &problem))
        fail_msg("%s: no problem of seed %d breaks \"%s\" alone: %s", op->name, (int)seed, op->rules[rule],
                 flashinfer_last_error());
    place(problem, &placement);
    assert_int_equal(placement_check(placement, &call), FLASHINFER_INVALID);
    const char *sentence = flashinfer_last_error();
    snprintf(expected, sizeof expected, "%s: %s does not hold: ", op->name, op->rules[rule]);
    if (strncmp(sentence, expected, strlen(expected)))
        fail_msg("\"%s\" should begin with \"%s\"", sentence, expected);
    for (uint64_t left = problem->program->rules[rule].symbols; left; left &= left - 1) {
        int symbol = __builtin_ctzll(left);
        snprintf(expected, sizeof expected, "%s = %lld", problem->program->symbol[symbol].name, (long long)problem->dim[symbol]);
        if (!strstr(sentence, expected))
            fail_msg("\"%s\" should contain \"%s\"", sentence, expected);
    }
    placement_destroy(placement);
    problem_destroy(problem);
}

static void test_each_rule_refuses(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_OPS; i++)
        for (int rule = 0; op_number_i(i)->rules[rule]; rule++)
            for (uint64_t seed = 1; seed <= BROKEN; seed++)
                refuse(op_number_i(i), rule, seed);
}

static void complain(void *context, const char *sentence)
{
    print_error("%s: %s\n", ((const struct op *)context)->name, sentence);
    fail();
}

/* Every argument is violated, too. The harness has no group of ranks to give. */
static void test_each_argument_refuses(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_OPS; i++) {
        int tried = 0;
        const struct op *op = op_number_i(i);
        if (op == &op_allreduce_fusion)
            continue;
        assert_int_equal(refuse_all(op, cpu(), &tried, complain, (void *)(uintptr_t)op), FLASHINFER_OK);
        assert_true(tried > 20);
    }
}

/* What random problems do not say in so many words. */
static void test_norm_fp4_sample(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[6][4096];
    DLTensor input = TENSOR(memory[0], DTYPE_F16, 2, 3, 64), weight = TENSOR(memory[1], DTYPE_F16, 64),
             y_fp4 = TENSOR(memory[2], DTYPE_U8, 2, 3, 32), scale = TENSOR(memory[3], DTYPE_E4M3, 2, 3, 4),
             linear = TENSOR(memory[4], DTYPE_E4M3, 2, 3, 4);
    struct flashinfer_norm_fp4_sample a = {
        .size = sizeof a, .y_fp4 = &y_fp4, .block_scale = &scale, .input = &input, .weight = &weight};
    const struct op *op = &op_norm_fp4_sample;
    ACCEPTED(op, &a, NULL);
    a.sf_layout = 1;
    REFUSED(op, &a, NULL,
            "norm_fp4_sample: block_scale has shape [2, 3, 4], must be [ceil(rows/128)*ceil(hidden/(4*block_size))*512] with "
            "rows = 6 (from input), hidden = 64 (from input), block_size = 16, sf_layout = 1 (swizzled)");
    scale = TENSOR(memory[3], DTYPE_E4M3, 512);
    ACCEPTED(op, &a, NULL);
    a.output_both_sf_layouts = 1;
    REFUSED(op, &a, NULL,
            "norm_fp4_sample: block_scale_unswizzled is NULL, must be given where output_both_sf_layouts == 1: "
            "output_both_sf_layouts = 1");
    a.block_scale_unswizzled = &linear;
    ACCEPTED(op, &a, NULL);
    a.block_size = 32;
    a.scale_format = 1;
    REFUSED(op, &a, NULL,
            "norm_fp4_sample: block_scale_unswizzled has shape [2, 3, 4], must be [..., hidden//block_size] with "
            "... = [2, 3] (from input), hidden = 64 (from input), block_size = 32");
    a = (struct flashinfer_norm_fp4_sample){
        .size = sizeof a, .y_fp4 = &y_fp4, .block_scale = &scale, .input = &input, .weight = &weight};
    input = TENSOR(memory[0], DTYPE_F16, 2, 3, 100);
    weight = TENSOR(memory[1], DTYPE_F16, 100);
    y_fp4 = TENSOR(memory[2], DTYPE_E2M1X2, 2, 3, 50);
    scale = TENSOR(memory[3], DTYPE_E4M3, 2, 3, 6);
    REFUSED(op, &a, NULL, "norm_fp4_sample: hidden % block_size == 0 does not hold: hidden = 100 (from input), block_size = 16");
}

static void test_variant(void **state)
{
    (void)state;
    const struct op *op = variant();
    struct op *failed;
    assert_string_equal(op->name, "flash_sigmoid");
    assert_int_equal(op->args_bytes, sizeof(struct flashinfer_paged_prefill) + 4 * 8);
    assert_ptr_equal(op->plan, &op_paged_prefill_plan);
    static const struct op_arg unknown = {.name = "bias", .kind = OP_IN, .dtype.set = F32, .shape = "num_experts*batch"};
    assert_int_equal(op_extend(&op_paged_prefill, "broken", &unknown, 1, &failed), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), "the declaration of broken is wrong: nothing tells num_experts");
    static const struct op_arg twice = {.name = "q", .kind = OP_IN, .dtype.set = F32, .shape = "batch"};
    assert_int_equal(op_extend(&op_paged_prefill, "broken", &twice, 1, &failed), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), "the declaration of broken is wrong: it has two arguments q");
}

static void test_allreduce(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[6][4096];
    DLTensor input = TENSOR(memory[0], DTYPE_BF16, 4, 64), output = TENSOR(memory[1], DTYPE_BF16, 4, 64),
             residual = TENSOR(memory[2], DTYPE_BF16, 4, 64), gamma = TENSOR(memory[3], DTYPE_BF16, 64);
    struct flashinfer_allreduce_fusion a = {.size = sizeof a, .output = &output, .input = &input};
    const struct op *op = &op_allreduce_fusion;
    REFUSED(op, &a, NULL, "allreduce_fusion: comm is NULL, must be given");
    a.comm = (flashinfer_comm *)(void *)&comm;
    ACCEPTED(op, &a, NULL);
    a.pattern = 1;
    REFUSED(op, &a, NULL,
            "allreduce_fusion: norm_out is NULL, must be given where pattern == 1: pattern = 1 (RESIDUAL_RMS_NORM)");
    a.norm_out = &output;
    a.output = NULL;
    REFUSED(op, &a, NULL,
            "allreduce_fusion: residual_in is NULL, must be given where pattern != 0: pattern = 1 (RESIDUAL_RMS_NORM)");
    a.residual_in = &residual;
    a.rms_gamma = &gamma;
    a.residual_out = &residual;
    ACCEPTED(op, &a, NULL);
    a.residual_out = NULL;
    a.norm_out = &residual;
    REFUSED(op, &a, NULL, "allreduce_fusion: norm_out overlaps residual_in, must share no memory with it");
}

static const char *fit_never(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return "it serves nothing";
}

static flashinfer_status run_never(const struct call *call, const struct way *way)
{
    (void)call;
    (void)way;
    return FLASHINFER_OK;
}

enum { MOST_ARGS = 24 };

static struct op copy_of(const struct op *from, struct op_arg *args)
{
    struct op op = *from;
    for (int i = 0; i == 0 || args[i - 1].kind != OP_END; i++)
        args[i] = from->args[i];
    op.args = args;
    return op;
}

static void expect_refused(struct op op, const char *sentence)
{
    _Atomic(const struct program *) slot = NULL;
    char expected[200];
    op.compiled = &slot;
    snprintf(expected, sizeof expected, "the declaration of %s is wrong: %s", op.name, sentence);
    assert_int_equal(op_validate(&op), FLASHINFER_INTERNAL);
    assert_string_equal(flashinfer_last_error(), expected);
    free((void *)(uintptr_t)atomic_load(&slot)); /* which lives as long as its slot */
}

/* Declarations that cannot be: an op with the shape of one argument replaced is refused with that sentence. */
static void expect_wrong(struct op op, int arg, const char *shape, const char *sentence)
{
    struct op_arg args[MOST_ARGS];
    op = copy_of(&op, args);
    args[arg].shape = shape;
    expect_refused(op, sentence);
}

/* An op of which `change`, in terms of `op` and `args`, is changed. */
#define WRONG(from, change, sentence)             \
    do {                                          \
        struct op_arg args[MOST_ARGS];            \
        struct op op = copy_of(&from, args);      \
        change;                                   \
        expect_refused(op, sentence);             \
    } while (0)

static void test_wrong_arguments(void **state)
{
    (void)state;
    enum { VALUES, INDICES, INPUT, K, SORTED, TIE_BREAK = 6, LAST };
    static const struct op_fill unbounded = BELOW("nowhere");
    WRONG(op_top_k, args[SORTED].max = -1, "sorted: max is less than min");
    WRONG(op_top_k, args[SORTED].value = 2, "sorted: the default is out of range");
    WRONG(op_top_k, args[K].value = -3, "k: the default is out of range");
    WRONG(op_top_k, (args[INDICES] = op_top_k.args[INPUT], args[INPUT] = op_top_k.args[INDICES]),
          "indices is an output and stands behind input, which is none");
    WRONG(op_top_k, (args[SORTED] = op_top_k.args[SORTED + 1], args[SORTED + 1] = op_top_k.args[SORTED]),
          "sorted stands behind deterministic in the table, and before it in the struct");
    WRONG(op_top_k, memmove(args + SORTED, op_top_k.args + SORTED + 1, (LAST - SORTED) * sizeof *args),
          "the struct has a field behind k that is not in the table");
    WRONG(op_top_k, op.args_bytes += 8, "the struct has a field behind tie_break that is not in the table");
    WRONG(op_top_k, args[INPUT].required_if = "k > 1", "input has a condition but is not OPTIONAL");
    WRONG(op_top_k, args[INPUT].may_alias = "values", "input may alias but is not written");
    WRONG(op_top_k, args[VALUES].may_alias = "k", "values may alias k, which is no tensor");
    WRONG(op_top_k, args[INPUT].fill = unbounded, "the values of input are bounded by nowhere, which is unknown");
    WRONG(op_top_k, args[INPUT].shape = NULL, "input has no shape");
    WRONG(op_top_k, args[INPUT].dtype.set = 0, "input has no dtypes");
    WRONG(op_top_k, args[INPUT].dtype.like = "nobody", "the dtype of input is like nobody, which has none");
    WRONG(op_top_k, args[K].bytes = 2, "k has a C type that its kind does not have");
    WRONG(op_top_k, args[K].offset = 60000, "k lies outside of the struct");
    WRONG(op_top_k, args[K].value_of = "sorted", "k defaults to sorted, which is no INT before it");
    WRONG(op_top_k, args[TIE_BREAK].names = "", "tie_break has no names");
}

static void test_wrong_plans_and_kernels(void **state)
{
    (void)state;
    enum { K_CACHE = 3, V_SCALE = 14, PLAN };
    static const char *const rules[] = {"nothing > 0", NULL};
    static const struct op_kernel unfit[] = {{"any", OP_CPU, 0, 0, NULL, run_never}, {0}};
    static const struct op_kernel idle[] = {{"any", OP_CPU, 0, 0, fit_never, NULL}, {0}};
    WRONG(op_top_k, op.rules = rules, "nothing is no dimension and no integer argument");
    WRONG(op_top_k, op.kernels = unfit, "kernel any lacks fit or run");
    WRONG(op_top_k, op.kernels = idle, "kernel any lacks fit or run");
    WRONG(op_top_k, op.args_bytes = OP_MAX_ARGS_BYTES + 1, "its struct is larger than 640 bytes");
    WRONG(op_top_k, op.plan = &op_paged_prefill_plan, "it names the op that makes its plan, but reads no plan");
    WRONG(op_paged_prefill, op.plan = NULL, "the dtype of out is like o_data_type, which has none");
    WRONG(op_paged_prefill, (args[V_SCALE] = args[PLAN], args[V_SCALE].name = "other"),
          "it has two plans, or one that no op makes");
    WRONG(op_paged_prefill, args[K_CACHE].by = "q_scale", "q_scale is no ENUM argument");
    WRONG(op_paged_prefill, args[K_CACHE].shape = "NHD: pages 1 | NDH: pages 1",
          "an alternative of \"NHD: pages 1 | NDH: pages 1\" does not start with one of: NHD HND");
    WRONG(op_paged_prefill, args[K_CACHE].shape = "NHD: pages 1 | NHD: pages 1",
          "an alternative of \"NHD: pages 1 | NHD: pages 1\" does not start with one of: NHD HND");
    WRONG(op_paged_prefill, args[K_CACHE].shape = "NHD: pages 1", "\"NHD: pages 1\" has no alternative for some of: NHD HND");
}

static void test_wrong_declarations(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *sentence;
    } cases[] = {
        {"num_rows d +", "a number, a name or a parenthesis is missing in \"+\""},
        {"num_rows ceil(d)", "ceil takes a quotient, a/b in \"ceil(d)\""},
        {"num_rows ... d", "... does not stand first in \"num_rows ... d\""},
        {"num_rows d 1 1 1 1 1 1 1", "too many axes in \"num_rows d 1 1 1 1 1 1 1\""},
        {"num_rows d*e", "nothing tells d"},
        {"num_rows indices", "indices is an argument without a value of its own"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_wrong(op_top_k, 2, cases[i].shape, cases[i].sentence);
}

static void test_dtypes_in_a_circle(void **state)
{
    (void)state;
    struct op_arg args[8];
    memcpy(args, op_top_k.args, sizeof args);
    args[2].dtype.set = 0;
    args[2].dtype.like = "values";
    struct op op = op_top_k;
    op.args = args;
    expect_wrong(op, 0, args[0].shape, "the dtype of values is like its own");
}

/* Kernels would read past the end of a weight of another size. */
static void test_misspelt_dimension_of_an_input(void **state)
{
    (void)state;
    expect_wrong(op_rmsnorm, 2, "hiden",
                 "weight has a dimension hiden, which nothing else names: no other argument, DIMS, rule, fill or range");
}

/* One other place that names it is enough. */
static void test_dimension_of_one_input(void **state)
{
    (void)state;
    static const char *const rules[] = {"hiden > 0", NULL};
    static const struct op_range ranges[] = {{"hiden", 1, 9, 0}, {0}};
    static const struct op_fill fill = BELOW("hiden");
    for (int i = 0; i < 3; i++) {
        _Atomic(const struct program *) slot = NULL;
        struct op_arg args[16];
        struct op op = op_rmsnorm;
        for (int k = 0; k == 0 || args[k - 1].kind != OP_END; k++)
            args[k] = op_rmsnorm.args[k];
        args[2].shape = "hiden";
        op.args = args;
        op.compiled = &slot;
        op.ranges = NULL;
        if (i == 0)
            op.rules = rules;
        else if (i == 1)
            op.ranges = ranges;
        else
            args[1].fill = fill;
        if (op_validate(&op))
            fail_msg("%d: %s", i, flashinfer_last_error());
        free((void *)(uintptr_t)atomic_load(&slot));
    }
}

/* Those that compile, but that no problem can be made from, or judged by. */
static void test_senseless_declarations(void **state)
{
    (void)state;
    static const struct op_kernel kernels[] = {{"any", OP_CPU, 0, 0, fit_never, run_never}, {0}};
    static const struct op_range unknown[] = {{"dd", 1, 2, 0}, {0}}, empty[] = {{"d", 2, 1, 0}, {0}};
    static const struct {
        const char *values_shape; /* of the first output */
        const struct op_range *ranges;
        const struct op_kernel *kernels;
        const char *sentence;
    } cases[] = {
        {"num_rows kk", NULL, NULL, "values has a dimension kk, which no input has and DIMS does not name"},
        {"num_rows k", unknown, NULL, "ranges name dd, which is no dimension or number of top_k"},
        {"num_rows k", empty, NULL, "the range of d is empty"},
        {"num_rows k", NULL, kernels, "top_k has neither reference nor verify"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct op op = op_top_k;
        op.ranges = cases[i].ranges;
        op.kernels = cases[i].kernels;
        expect_wrong(op, 0, cases[i].values_shape, cases[i].sentence);
    }
}

static void test_registry(void **state)
{
    (void)state;
    for (const struct op *const *op = op_registry; *op; op++) {
        if (op_validate(*op))
            fail_msg("%s", flashinfer_last_error());
        assert_ptr_equal(op_find((*op)->name), *op);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_problems_are_accepted),
        cmocka_unit_test(test_each_rule_refuses),
        cmocka_unit_test(test_each_argument_refuses),
        cmocka_unit_test(test_norm_fp4_sample),
        cmocka_unit_test(test_variant),
        cmocka_unit_test(test_allreduce),
        cmocka_unit_test(test_wrong_declarations),
        cmocka_unit_test(test_wrong_arguments),
        cmocka_unit_test(test_wrong_plans_and_kernels),
        cmocka_unit_test(test_dtypes_in_a_circle),
        cmocka_unit_test(test_misspelt_dimension_of_an_input),
        cmocka_unit_test(test_dimension_of_one_input),
        cmocka_unit_test(test_senseless_declarations),
        cmocka_unit_test(test_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
