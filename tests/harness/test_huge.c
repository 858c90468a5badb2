/* SPDX-License-Identifier: Apache-2.0 */
/* The check of huge tensors, at sizes that a CPU has time for: planted defects are found, and what cannot be checked is said. */
#include "fake_op.h"
#include "harness/huge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct found {
    int right, wrong, not_served;
    char dimensions[128], why[TRIAL_SENTENCE + 64], problem[PROBLEM_MAX_TEXT];
    double elements;
};

static void report(void *context, const struct huge_result *r)
{
    struct found *found = context;
    size_t used = strlen(found->dimensions);
    found->right += r->outcome == HUGE_RIGHT;
    found->wrong += r->outcome == HUGE_WRONG;
    found->not_served += r->outcome == HUGE_NOT_SERVED;
    snprintf(found->dimensions + used, sizeof found->dimensions - used, "%s ", r->dimension);
    snprintf(found->why, sizeof found->why, "%s", r->why ? r->why : "");
    snprintf(found->problem, sizeof found->problem, "%s", r->problem);
    found->elements = r->elements;
}

static struct found check(const struct op *op, const struct op_kernel *kernels, double elements)
{
    const struct huge_options options = {.min_elements = elements};
    const struct device *cpu;
    struct found found = {0};
    struct op changed = *op;
    int failures = 0;
    if (kernels)
        changed.kernels = kernels;
    assert_non_null(op_program(op)); /* compiled once, for an op that outlives this one */
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    if (huge_op(&changed, cpu, &options, report, &found, &failures))
        fail_msg("%s", flashinfer_last_error());
    assert_int_equal(failures, found.wrong);
    return found;
}

static void good(void **state)
{
    (void)state;
    struct found found = check(&op_fake, fake_good, 80000);
    if (found.right != 1 || found.wrong || found.not_served)
        fail_msg("%s", found.why);
    assert_string_equal(found.dimensions, "rows ");
    assert_true(found.elements > 80000 && found.elements < 81000);
}

/* Only a problem of more than 2^16 elements shows it: the same defect at 2^32 needs more than those. */
static void wrapping(void **state)
{
    (void)state;
    assert_int_equal(check(&op_fake, fake_wrapping, 60000).right, 1);
    struct found found = check(&op_fake, fake_wrapping, 80000);
    assert_int_equal(found.wrong, 1);
    assert_non_null(strstr(found.why, "out["));
}

static void wrong(void **state)
{
    (void)state;
    struct found found = check(&op_fake, fake_wrong_element, 80000);
    assert_int_equal(found.wrong, 1);
    found = check(&op_fake, fake_outside, 80000);
    assert_int_equal(found.wrong, 1);
    assert_non_null(strstr(found.why, "memory behind out was written"));
    found = check(&op_fake, fake_input_changed, 80000);
    assert_int_equal(found.wrong, 1);
    assert_non_null(strstr(found.why, "bias, which is only read, was written"));
    assert_non_null(strstr(check(&op_fake, fake_failing, 80000).why, "the call failed: fake: it fails on purpose"));
}

static void not_served(void **state)
{
    (void)state;
    struct found found = check(&op_fake, fake_row_number, 80000);
    assert_int_equal(found.not_served, 1);
    assert_non_null(strstr(found.why, "equal rows of inputs do not give equal rows of outputs"));
    found = check(&op_fake, fake_unreached, 80000);
    assert_int_equal(found.right, 1);
    assert_int_equal(found.not_served, 1);
    assert_string_equal(found.why, "it serves nothing");
    found = check(op_find("get_batch_indices_positions"), NULL, 80000);
    assert_int_equal(found.not_served, 1);
    assert_int_equal(found.right + found.wrong, 0);
    assert_string_equal(found.why, "batch_indices is written, but has no axis batch");
}

/* Page numbers are numbers of rows; tokens repeat what they write. */
static void page_numbers(void **state)
{
    (void)state;
    struct found found = check(op_find("append_paged_kv_cache"), NULL, 2e6);
    if (found.right != 2 || found.wrong || found.not_served)
        fail_msg("%d %d %d %s", found.right, found.wrong, found.not_served, found.why);
    assert_string_equal(found.dimensions, "pages nnz ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(wrapping), cmocka_unit_test(wrong),
                                       cmocka_unit_test(not_served), cmocka_unit_test(page_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
