/* SPDX-License-Identifier: Apache-2.0 */
/* What bench times: caches cold, tensors that change from call to call; warm, the same ones; flags as asked for. */
#include "fake_op.h"
#include "harness/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct seen {
    const void *first;
    int calls, elsewhere; /* calls, and those whose input was not the first one's */
    uint32_t flags;
    int results, copies;
    double seconds;
} seen;

static const char *fit(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    (void)way;
    if (!seen.calls++)
        seen.first = a->input->data;
    seen.elsewhere += a->input->data != seen.first;
    seen.flags = call->exec.flags;
    return FLASHINFER_OK;
}

static void report(void *context, const struct bench_result *result)
{
    (void)context;
    seen.results++;
    seen.copies = result->copies;
    seen.seconds = result->seconds;
}

static void bench(bool warm, bool pdl)
{
    static const struct op_kernel kernels[] = {{"watching", OP_CPU, 0, 0, fit, run}, {0}};
    const struct bench_options options = {.shape = "small", .unchecked = true, .warm = warm, .pdl = pdl};
    const struct device *cpu;
    struct op op = op_fake;
    int failures = 0;
    op.kernels = kernels;
    seen = (struct seen){0};
    assert_non_null(op_program(&op_fake)); /* compiled once, for an op that outlives this one */
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    assert_int_equal(bench_op(&op, cpu, &options, report, NULL, &failures), FLASHINFER_OK);
    assert_int_equal(failures, 0);
    assert_int_equal(seen.results, 1);
    assert_true(seen.seconds > 0);
}

static void cold(void **state)
{
    (void)state;
    bench(false, false);
    assert_true(seen.copies > 1);
    assert_true(seen.elsewhere > seen.calls / 2);
    assert_int_equal(seen.flags, 0);
}

static void warm(void **state)
{
    (void)state;
    bench(true, false);
    assert_int_equal(seen.copies, 1);
    assert_int_equal(seen.elsewhere, 0);
    assert_true(seen.calls > 10);
}

static void flags(void **state)
{
    (void)state;
    bench(true, true);
    assert_int_equal(seen.flags, FLASHINFER_PDL);
    bench(false, true);
    assert_int_equal(seen.flags, FLASHINFER_PDL);
    assert_true(seen.elsewhere > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cold), cmocka_unit_test(warm), cmocka_unit_test(flags)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
