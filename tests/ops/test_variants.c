/* SPDX-License-Identifier: Apache-2.0 */
/* Variants of attention: each of these, over each op that has variants, by each kernel that takes its hooks in, against the
 * reference with the same hooks in float64. As many at a time as there are processors, as compiling is most of the work. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flashinfer/attention.h"
#include "harness/check.h"
#include "harness/placement.h"
#include "harness/reference.h"
#include "op/program.h"
#include "op/variant.h"
#include "ops/attention/attention_host.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { UNITS = 8 };

#define ARGUMENT(...) {.size = sizeof(struct flashinfer_variant_argument), __VA_ARGS__}

/* A further argument of the call that a reference sees: float64 tensors, and numbers as they are. */
static const void *field(const struct reference *r, const char *name)
{
    const struct program *program = op_program(r->call->op);
    return op_field_const(r->args, &program->op->args[program_argument(program, name)]);
}

static DLTensor *tensor(const struct reference *r, const char *name) { return *(DLTensor *const *)field(r, name); }
static double number(const struct reference *r, const char *name) { return (float)*(const double *)field(r, name); }

static double element_of(const struct reference *r, const char *name, int64_t at)
{
    return ((const double *)tensor(r, name)->data)[at];
}

/* ---- out = sigmoid(q k * scale + bias) v, which no softmax follows */

static const char sigmoid_text[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                                   "{\n"
                                   "    return 1.0f / (1.0f + expf(-(s + v.bias)));\n"
                                   "}\n";
static const struct flashinfer_variant_argument sigmoid_arguments[] = {
    ARGUMENT(.name = "bias", .kind = FLASHINFER_VARIANT_FLOAT, .min = -4, .max = 4)};

static double sigmoid_logits(const struct reference *r, double s, struct at at, double *error)
{
    double x = s + number(r, "bias"), weight = 1 / (1 + exp(-x));
    (void)at;
    *error = weight * fmin(expm1(*error + 2 * REFERENCE_UNIT * (fabs(s) + fabs(x))), 1e300);
    *error += UNITS * REFERENCE_UNIT * weight + 0x1p-126;
    return weight;
}

static const struct attention_reference_hooks sigmoid_hooks = {.logits = sigmoid_logits};
static void sigmoid_reference(const struct reference *r) { attention_reference_with(r, &sigmoid_hooks); }

/* ---- ALiBi, with slopes of the caller */

static const char alibi_text[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                                 "{\n"
                                 "    int distance = a.kv_len - a.qo_len + a.q - a.kv;\n"
                                 "    return s - v.slopes[a.qo_head] * (float)distance;\n"
                                 "}\n";
static const struct flashinfer_variant_argument alibi_arguments[] = {ARGUMENT(.name = "slopes", .shape = "num_qo_heads")};

static double alibi_logits(const struct reference *r, double s, struct at at, double *error)
{
    double bias = element_of(r, "slopes", at.qo_head) * (at.kv_len - at.qo_len + at.q - at.kv);
    *error += UNITS * REFERENCE_UNIT * (fabs(s) + fabs(bias));
    return s - bias;
}

static const struct attention_reference_hooks alibi_hooks = {.logits = alibi_logits};
static void alibi_reference(const struct reference *r) { attention_reference_with(r, &alibi_hooks); }

/* ---- the logits, written where the caller wants them; rows of what is not seen keep their values */

static const char dump_text[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                                "{\n"
                                "    if (a.kv < v.dump_shape[2])\n"
                                "        v.dump[a.qo_head * v.dump_stride[0] + a.row * v.dump_stride[1] + a.kv] = s;\n"
                                "    return s;\n"
                                "}\n";
static const struct flashinfer_variant_argument dump_arguments[] = {
    ARGUMENT(.name = "dump", .kind = FLASHINFER_VARIANT_OUTPUT, .shape = "num_qo_heads TOKENS max_kv")};

static double dump_logits(const struct reference *r, double s, struct at at, double *error)
{
    const DLTensor *dump = tensor(r, "dump");
    int64_t place = (at.qo_head * tensor_shape(dump, 1) + at.row) * tensor_shape(dump, 2) + at.kv;
    if (at.kv < tensor_shape(dump, 2)) {
        ((double *)dump->data)[place] = s;
        reference_bound(r, dump)[place] = *error + 0x1p-149; /* signs of zeros do not count */
    }
    return s;
}

static const struct attention_reference_hooks dump_hooks = {.logits = dump_logits};
static void dump_reference(const struct reference *r) { attention_reference_with(r, &dump_hooks); }

/* ---- the hooks before the logits, and those from there on; every field of struct at */

static const char later_text[] =
    "ANYWHERE float gate_of(struct variant v, struct at a)\n"
    "{\n"
    "    return v.gate ? to_float(v.gate[a.row * v.gate_stride[0] + a.qo_head]) : 1.0f;\n"
    "}\n"
    "HOOK float logits(struct variant v, float s, struct at a) { return a.kv == a.kv_len - 1 ? -INFINITY : s * 0.5f; }\n"
    "HOOK bool mask(struct variant v, struct at a) { return (a.kv + a.q * 2 + a.request + a.qo_head) % (int)v.period != 0; }\n"
    "HOOK float output(struct variant v, float x, struct at a)\n"
    "{\n"
    "    return x * gate_of(v, a) + (float)(a.element % 5 + a.kv_head + a.qo_len);\n"
    "}\n";
static const char early_text[] =
    "HOOK float query(struct variant v, float x, struct at a) { return a.element % 2 ? x * v.factor : x + (float)a.q * 0.01f; }\n"
    "HOOK float key(struct variant v, float x, struct at a) { return a.element % 3 ? x : x * to_float(v.scale[a.kv_head]); }\n";
static const struct flashinfer_variant_argument hooks_arguments[] = {
    ARGUMENT(.name = "scale", .shape = "num_kv_heads", .dtype = {kDLBfloat, 16, 1}),
    ARGUMENT(.name = "factor", .kind = FLASHINFER_VARIANT_FLOAT, .min = -2, .max = 2),
    ARGUMENT(.name = "gate", .shape = "TOKENS num_qo_heads", .optional = 1, .dtype = {kDLFloat, 16, 1}),
    ARGUMENT(.name = "period", .kind = FLASHINFER_VARIANT_INT, .min = 2, .max = 9)};

static double hook_of_query(const struct reference *r, double x, struct at at, double *error)
{
    (void)error;
    return at.element % 2 ? x * number(r, "factor") : x + at.q * 0.01;
}

static double hook_of_key(const struct reference *r, double x, struct at at, double *error)
{
    (void)error;
    return at.element % 3 ? x : x * element_of(r, "scale", at.kv_head);
}

static double hook_of_logits(const struct reference *r, double s, struct at at, double *error)
{
    (void)r, (void)error;
    return at.kv == at.kv_len - 1 ? -INFINITY : s * 0.5;
}

static bool hook_of_mask(const struct reference *r, struct at at)
{
    int64_t period = *(const int64_t *)field(r, "period");
    return (at.kv + at.q * 2 + at.request + at.qo_head) % period != 0;
}

static double hook_of_output(const struct reference *r, double x, struct at at, double *error)
{
    const DLTensor *gates = tensor(r, "gate");
    double gate = gates ? element_of(r, "gate", at.row * tensor_shape(gates, 1) + at.qo_head) : 1;
    double plus = at.element % 5 + at.kv_head + at.qo_len, y = x * gate + plus;
    *error = *error * fabs(gate) + UNITS * REFERENCE_UNIT * (fabs(x * gate) + fabs(plus));
    return y;
}

static const struct attention_reference_hooks early_hooks = {.query = hook_of_query, .key = hook_of_key};
static void early_reference(const struct reference *r) { attention_reference_with(r, &early_hooks); }

static const struct attention_reference_hooks later_hooks = {
    .logits = hook_of_logits, .mask = hook_of_mask, .output = hook_of_output};
static void later_reference(const struct reference *r) { attention_reference_with(r, &later_hooks); }

/* ---- */

struct example {
    const char *name, *text;
    const struct flashinfer_variant_argument *arguments;
    int num_arguments;
    uint32_t flags;
    void (*reference)(const struct reference *r);
    const char *values; /* of named shapes */
    int problems;       /* random ones, each of which compiles a kernel */
};

static const struct example examples[] = {
    {"flash_sigmoid", sigmoid_text, sigmoid_arguments, 1, FLASHINFER_VARIANT_NO_SOFTMAX, sigmoid_reference, "-lse bias=-1.5", 1},
    {"alibi", alibi_text, alibi_arguments, 1, 0, alibi_reference, "", 1},
    {"logits_dump", dump_text, dump_arguments, 1, 0, dump_reference, "max_kv=200", 2},
    {"early_hooks", early_text, hooks_arguments, 4, 0, early_reference, "period=3 factor=0.7", 3},
    {"later_hooks", later_text, hooks_arguments, 4, 0, later_reference, "period=3 factor=0.7", 3},
};

/* Ops, how many query tokens they have, and a shape that Hopper's kernel serves too. */
static const struct {
    const char *name, *tokens, *shape;
} bases[] = {
    {"batch_prefill", "total_q",
     "q_data_type=bf16 causal=1 num_qo_heads=8 num_kv_heads=2 head_dim_qk=128 batch=3 max_batch_size=3 total_q=500 "
     "max_total_qo=500 page_size=16 num_pages=60 num_indices=60 -packed_custom_mask -mask_indptr -prefix_len -token_pos_in_items "
     "-max_item_len -sinks -k_cache_sf -v_cache_sf"},
    {"batch_prefill_ragged", "total_q",
     "q_data_type=f16 window_left=70 logits_soft_cap=20 num_qo_heads=4 num_kv_heads=4 head_dim_qk=64 batch=4 max_batch_size=4 "
     "total_q=600 max_total_qo=600 total_kv=900 page_size=1 -packed_custom_mask -mask_indptr -prefix_len -token_pos_in_items "
     "-max_item_len -v_indptr -o_indptr -sinks -k_sf -v_sf"},
    {"single_prefill_with_kv_cache", "qo_len",
     "dtype=bf16 qo_len=300 kv_len=333 num_qo_heads=6 num_kv_heads=3 head_dim_qk=64 head_dim_vo=64 causal=1 -scale_q -scale_k "
     "-scale_v -custom_mask -packed_custom_mask -k_sf -v_sf"},
    {"batch_decode", "batch*q_len_per_req",
     "q_data_type=f16 num_qo_heads=32 num_kv_heads=8 head_dim=128 batch=5 max_batch_size=5 page_size=16 num_pages=90 "
     "num_indices=90 -sinks -k_cache_sf -v_cache_sf"},
    {"single_decode_with_kv_cache", "1", "dtype=bf16 kv_len=200 num_qo_heads=8 num_kv_heads=2 head_dim=64"},
};

enum { EXAMPLES = sizeof examples / sizeof *examples, BASES = sizeof bases / sizeof *bases };
static bool passed[EXAMPLES][BASES];

static void failed(void *context, const struct check_failure *failure)
{
    print_error("%s, %s, %s: %s\n", failure->op, failure->row ? failure->row : "-", failure->problem, failure->sentence);
    (*(int *)context)++;
}

static void trying(void *context, const char *command) { (void)context, (void)command; }

static void covered(void *context, const struct check_coverage *coverage)
{
    (void)context;
    print_message("    %-28s %-20s %-16s ran %3d, failed %d  %s\n", coverage->op, coverage->row, coverage->dtypes, coverage->ran,
                  coverage->failed, coverage->ran ? "" : coverage->skipped[0].text);
}

static flashinfer_variant *make(const struct example *example, int base)
{
    struct flashinfer_variant_argument arguments[FLASHINFER_VARIANT_MAX_ARGUMENTS];
    char shapes[FLASHINFER_VARIANT_MAX_ARGUMENTS][80];
    for (int i = 0; i < example->num_arguments; i++) {
        const char *shape = example->arguments[i].shape, *tokens = shape ? strstr(shape, "TOKENS") : NULL;
        arguments[i] = example->arguments[i];
        if (!tokens)
            continue;
        snprintf(shapes[i], sizeof *shapes, "%.*s%s%s", (int)(tokens - shape), shape, bases[base].tokens,
                 tokens + strlen("TOKENS"));
        arguments[i].shape = shapes[i];
    }
    const struct flashinfer_variant_source source = {.size = sizeof source,
                                                     .name = example->name,
                                                     .base = bases[base].name,
                                                     .hooks = example->text,
                                                     .arguments = arguments,
                                                     .num_arguments = example->num_arguments,
                                                     .flags = example->flags};
    flashinfer_variant *variant = NULL;
    if (flashinfer_variant_create(&source, &variant))
        fail_msg("%s", flashinfer_last_error());
    return variant;
}

/* Rows that none of these calls can reach. */
static const char *missing(const struct op_kernel *row)
{
    return strncmp(row->name, "batch_decode_s", strlen("batch_decode_s")) ? NULL : "takes in no hooks"; /* _sm80, _stream_sm80 */
}

static const char *missing_early(const struct op_kernel *row)
{
    return strcmp(row->name, "batch_prefill_sm90") ? missing(row) : "takes in no hook query";
}

/* Named shapes, random problems and calls to be refused, as `flashinfer check` has them for every op. */
static void check_variant(const struct example *example, int base)
{
    flashinfer_variant *variant = make(example, base);
    char values[1024];
    int failures = 0;
    struct check_counts counts = {0};
    const struct op_shape named[] = {{"hopper", values}, {0}};
    const struct check_options options = {.cpu = true, .cuda = true, .problems = example->problems};
    const struct check_events events = {.context = &failures, .trying = trying, .failed = failed, .covered = covered};
    snprintf(values, sizeof values, "%s %s", bases[base].shape, example->values);
    variant->op->reference = example->reference;
    variant->op->shapes = named;
    variant->op->missing = variant->variant.hooks & HOOK_QUERY ? missing_early : missing;
    if (check_op(variant->op, &options, &events, &counts))
        fail_msg("%s", flashinfer_last_error());
    assert_int_equal(failures, 0);
    assert_true(counts.trials > 0);
    flashinfer_variant_destroy(variant);
}

/* Hopper's kernel and the generic one compile with the hooks, without spills; no device is needed. */
static void compile_rows(const struct op *op, const struct call *call, bool *compiles)
{
    for (const struct op_kernel *row = op->kernels; row->name; row++) {
        struct call forced = *call;
        struct way way;
        char *log = NULL;
        double seconds;
        size_t bytes;
        forced.args = forced.storage;
        forced.exec.kernel = row->name;
        if (call_fit(&forced, row, &way))
            continue;
        flashinfer_status status = jit_compile_only(&way.spec[0], call->device, &log, &seconds, &bytes);
        if (status == FLASHINFER_NO_COMPILER)
            skip();
        if (status)
            fail_msg("%s", flashinfer_last_error());
        print_message("    %-28s %-20s %.2f s, %zu bytes\n", op->name, row->name, seconds, bytes);
        assert_null(strstr(log ? log : "", "warning : Registers are spilled"));
        assert_null(strstr(log ? log : "", "Potential Performance Loss"));
        free(log);
        *compiles = true;
    }
}

static void compile_variant(const struct example *example, int base)
{
    struct device hopper;
    struct problem *problem = NULL;
    struct placement *placement = NULL;
    struct call call;
    char values[1024];
    bool compiles = false;
    flashinfer_variant *variant = make(example, base);
    snprintf(values, sizeof values, "%s %s", bases[base].shape, example->values);
    const struct problem_request request = {.op = variant->op, .values = values, .without_values = true};
    if (device_imagine(90, &hopper) || problem_create(&request, &problem) || placement_create(problem, &hopper, &placement) ||
        placement_check(placement, &call))
        fail_msg("%s", flashinfer_last_error());
    compile_rows(variant->op, &call, &compiles);
    assert_true(compiles);
    placement_destroy(placement);
    problem_destroy(problem);
    flashinfer_variant_destroy(variant);
}

static void test_compiles(void **state)
{
    (void)state;
    for (int i = 0; i < EXAMPLES; i++)
        for (int base = 0; base < 2; base++)
            compile_variant(&examples[i], base);
}

/* In a process, so that nothing it does to itself or to the device is another's. A failed assertion ends it as a failed setup. */
static pid_t begin(const struct example *example, int base)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        check_variant(example, base);
        exit(0);
    }
    return pid;
}

static void await_one(const pid_t *pids, int count)
{
    int status;
    pid_t pid = wait(&status);
    assert_true(pid > 0);
    for (int i = 0; i < count; i++)
        if (pids[i] == pid)
            passed[i / BASES][i % BASES] = status == 0;
}

static int check_all(void **state)
{
    pid_t pids[EXAMPLES * BASES];
    int begun = 0, ended = 0, at_a_time = (int)sysconf(_SC_NPROCESSORS_ONLN);
    (void)state;
    for (; begun < EXAMPLES * BASES; begun++) {
        if (begun - ended == at_a_time) {
            await_one(pids, begun);
            ended++;
        }
        pids[begun] = begin(&examples[begun / BASES], begun % BASES);
    }
    for (; ended < begun; ended++)
        await_one(pids, begun);
    return 0;
}

static void test_example(void **state)
{
    int example = (int)(intptr_t)*state;
    for (int base = 0; base < BASES; base++)
        if (!passed[example][base])
            fail_msg("%s over %s", examples[example].name, bases[base].name);
}

int main(void)
{
    pid_t tests_process = getpid();
    const struct CMUnitTest tests[] = {
        {"flash_sigmoid", test_example, NULL, NULL, (void *)0}, {"alibi", test_example, NULL, NULL, (void *)1},
        {"logits_dump", test_example, NULL, NULL, (void *)2},   {"early_hooks", test_example, NULL, NULL, (void *)3},
        {"later_hooks", test_example, NULL, NULL, (void *)4},   cmocka_unit_test(test_compiles),
    };
    int failures = cmocka_run_group_tests(tests, check_all, NULL);
    return getpid() == tests_process ? failures : 1;
}
