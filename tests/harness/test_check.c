/* SPDX-License-Identifier: Apache-2.0 */
/* The harness finds planted defects, each by the sentence that names it, and nothing in a good kernel. */
#include "fake_op.h"
#include "harness/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { FACTOR = 4 }; /* the argument */

struct found {
    int failures, entries, ran, exact;
    uint64_t exact_outputs;
    char sentence[TRIAL_SENTENCE], command[512], problem[1024];
};

static void failed(void *context, const struct check_failure *failure)
{
    struct found *found = context;
    if (found->failures++ == 0) {
        snprintf(found->sentence, sizeof found->sentence, "%s", failure->sentence);
        snprintf(found->command, sizeof found->command, "%s", failure->command);
        snprintf(found->problem, sizeof found->problem, "%s", failure->problem);
    }
}

static void covered(void *context, const struct check_coverage *coverage)
{
    struct found *found = context;
    found->entries++;
    found->ran += coverage->ran;
    found->exact += coverage->exact;
    found->exact_outputs |= coverage->exact_outputs;
}

static struct found check(const struct op_kernel *kernels, const struct check_options *options,
                          struct check_counts *counts)
{
    struct found found = {0};
    struct op op = op_fake;
    const struct check_events events = {.context = &found, .failed = failed, .covered = covered};
    op.kernels = kernels;
    assert_non_null(op_program(&op_fake)); /* compiled once, for an op that outlives this one */
    assert_int_equal(check_op(&op, options, &events, counts), FLASHINFER_OK);
    assert_int_equal(counts->failures, found.failures);
    return found;
}

static struct found check_all(const struct op_kernel *kernels)
{
    const struct check_options options = {.cpu = true, .problems = 30};
    struct check_counts counts = {0};
    return check(kernels, &options, &counts);
}

static void finds(const struct op_kernel *kernels, const char *sentence)
{
    struct found found = check_all(kernels);
    assert_true(found.failures > 0);
    if (!strstr(found.sentence, sentence))
        fail_msg("expected \"%s\" in \"%s\"", sentence, found.sentence);
    assert_non_null(strstr(found.command, "flashinfer check fake"));
}

static void good_kernel(void **state)
{
    (void)state;
    const struct check_options options = {.cpu = true, .problems = 60};
    struct check_counts counts = {0};
    struct found found = check(fake_good, &options, &counts);
    if (found.failures)
        fail_msg("%s (%s)", found.sentence, found.problem);
    assert_true(counts.trials >= 60);
    assert_true(counts.refusals >= 50);
    assert_int_equal(found.entries, 2); /* f16 and f32 */
    assert_int_equal(found.ran, counts.trials);
    assert_int_equal(found.exact, 0); /* total is not */
    assert_int_equal(found.exact_outputs, 1); /* out */
}

/* Where a reference allows no error, the sign of a zero is one. */
static void zero_sign(void **state)
{
    (void)state;
    finds(fake_zero_sign, "out[");
}

static void wrong_element(void **state)
{
    (void)state;
    finds(fake_wrong_element, "1 of 24 elements are wrong");
}

static void outside(void **state)
{
    (void)state;
    finds(fake_outside, "near out, behind it");
}

static void between(void **state)
{
    (void)state;
    finds(fake_between, "near total, between its elements");
}

static void unwritten(void **state)
{
    (void)state;
    finds(fake_unwritten, "element 12 of out was not written");
}

static void input_changed(void **state)
{
    (void)state;
    finds(fake_input_changed, "near bias, in it");
}

static void random_bits_differ(void **state)
{
    (void)state;
    finds(fake_random, "element 0 of total differs between two runs");
}

static void workspace_overrun(void **state)
{
    (void)state;
    finds(fake_workspace_overrun, "memory around the workspace was written");
}

static void failing(void **state)
{
    (void)state;
    finds(fake_failing, "it fails on purpose");
}

static void unreached(void **state)
{
    (void)state;
    struct found found = check_all(fake_unreached);
    assert_int_equal(found.failures, 1);
    assert_string_equal(found.sentence, "no problem reached this kernel");
    assert_string_equal(found.command, "flashinfer check fake --kernel unreached --device cpu");
}

/* Once for each dtype, not for each problem; nor is it called unreached. */
static void uncompiled(void **state)
{
    (void)state;
    struct found found = check_all(fake_uncompiled);
    assert_int_equal(found.failures, 2);
    assert_int_equal(found.ran, 0);
    assert_non_null(strstr(found.sentence, "no_such_source"));
}

/* A row that is a poor choice everywhere is still checked. */
static void choosy(void **state)
{
    (void)state;
    struct found found = check_all(fake_choosy);
    assert_int_equal(found.failures, 0);
    assert_true(found.ran >= 30);
}

/* A dtype that few problems draw is looked for. */
static void seldom(void **state)
{
    (void)state;
    const struct check_options options = {.cpu = true, .problems = 2};
    struct check_counts counts = {0};
    struct found found = check(fake_seldom, &options, &counts);
    if (found.failures)
        fail_msg("%s (%s)", found.sentence, found.command);
}

/* An op that nothing can judge is not right. */
static void unjudged(void **state)
{
    (void)state;
    struct found found = {0};
    struct check_counts counts = {0};
    const struct check_options options = {.cpu = true, .problems = 1};
    const struct check_events events = {.context = &found, .failed = failed, .covered = covered};
    struct op op = op_fake;
    op.reference = NULL;
    assert_non_null(op_program(&op_fake));
    assert_int_equal(check_op(&op, &options, &events, &counts), FLASHINFER_OK);
    assert_int_equal(counts.failures, 1);
    assert_non_null(strstr(found.sentence, "fake has neither reference nor verify"));
}

/* Limits whose neighbours are themselves, and none at all. */
static void extreme_limits(void **state)
{
    (void)state;
    static const double limits[][2] = {{-1e30, 1e30}, {-INFINITY, 0}, {-INFINITY, INFINITY}, {-1e308, 1e308}, {-5, -4}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        static _Atomic(const struct program *) compiled[sizeof limits / sizeof *limits];
        static struct op ops[sizeof limits / sizeof *limits];
        static struct op_arg args[sizeof limits / sizeof *limits][8];
        struct found found = {0};
        struct check_counts counts = {0};
        const struct check_options options = {.cpu = true, .problems = 20};
        const struct check_events events = {.context = &found, .failed = failed, .covered = covered};
        memcpy(args[i], op_fake.args, sizeof args[i]);
        args[i][FACTOR].min = limits[i][0];
        args[i][FACTOR].max = limits[i][1];
        args[i][FACTOR].value = limits[i][1] < 0 ? limits[i][1] : 1;
        ops[i] = op_fake;
        ops[i].args = args[i];
        ops[i].compiled = &compiled[i];
        ops[i].shapes = NULL;
        assert_int_equal(check_op(&ops[i], &options, &events, &counts), FLASHINFER_OK);
        if (counts.failures)
            fail_msg("%g to %g: %s (%s)", limits[i][0], limits[i][1], found.sentence, found.problem);
    }
}

/* What a failure prints must find the same failure again. */
static void reproduces(void **state)
{
    (void)state;
    struct check_counts counts = {0};
    const struct check_options options = {.cpu = true, .seed = 7, .problems = 1, .kernel = "wrong_element"};
    struct found first = check(fake_wrong_element, &options, &counts);
    counts = (struct check_counts){0};
    struct found second = check(fake_wrong_element, &options, &counts);
    assert_int_equal(first.failures, 1);
    assert_string_equal(first.sentence, second.sentence);
    assert_string_equal(first.problem, second.problem);
    assert_string_equal(first.command, "flashinfer check fake --kernel wrong_element --seed 7 --device cpu");
}

static void unbreakable_rule(void **state)
{
    (void)state;
    static const char *const rules[] = {"n > 0", "n % pieces == 0", "n >= 0", NULL};
    static _Atomic(const struct program *) compiled;
    struct found found = {0};
    struct check_counts counts = {0};
    const struct check_options options = {.cpu = true, .problems = 1};
    const struct check_events events = {.context = &found, .failed = failed, .covered = covered};
    static struct op op;
    op = op_fake;
    op.rules = rules;
    op.compiled = &compiled;
    assert_int_equal(check_op(&op, &options, &events, &counts), FLASHINFER_OK);
    assert_int_equal(found.failures, 1);
    assert_string_equal(found.sentence, "no call was found that breaks the rule \"n >= 0\" alone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_kernel),
        cmocka_unit_test(wrong_element),
        cmocka_unit_test(zero_sign),
        cmocka_unit_test(outside),
        cmocka_unit_test(between),
        cmocka_unit_test(unwritten),
        cmocka_unit_test(input_changed),
        cmocka_unit_test(random_bits_differ),
        cmocka_unit_test(workspace_overrun),
        cmocka_unit_test(failing),
        cmocka_unit_test(unreached),
        cmocka_unit_test(uncompiled),
        cmocka_unit_test(choosy),
        cmocka_unit_test(seldom),
        cmocka_unit_test(unjudged),
        cmocka_unit_test(extreme_limits),
        cmocka_unit_test(reproduces),
        cmocka_unit_test(unbreakable_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
