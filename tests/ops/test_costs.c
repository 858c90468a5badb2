/* SPDX-License-Identifier: Apache-2.0 */
/* What benchmarks say that a call moves: at most every element read once and written once, and, in the shape in which an op comes
 * nearest to that, half of its elements at least. Caches and pools are large, and calls touch few of their rows. */
#include "harness/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"

#undef fail
#include <cmocka.h>

/* Over the bytes of all tensors; -1 where no call can be made of the shape. */
static double share_moved(const struct op *op, const struct op_shape *shape, const struct device *cpu)
{
    const struct problem_request request = {.op = op, .values = shape->values, .without_values = true};
    static struct call call;
    struct problem *problem;
    struct placement *p = NULL;
    double bytes = 0, operations = -1, share = -1;
    assert_int_equal(problem_create(&request, &problem), FLASHINFER_OK);
    if (placement_create(problem, cpu, &p) == FLASHINFER_OK && placement_check(p, &call) == FLASHINFER_OK) {
        op->cost(&call, &bytes, &operations);
        share = bytes / problem_bytes(problem);
        if (!(bytes > 0 && share < 2.01 && operations >= 0))
            fail_msg("%s, %s: %g bytes, %.3f of all, %g operations", op->name, shape->name, bytes, share, operations);
    }
    placement_destroy(p);
    problem_destroy(problem);
    return share;
}

static void test_bytes(void **state)
{
    (void)state;
    const struct device *cpu;
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    for (const struct op *const *op = op_registry; *op; op++) {
        double most = -1;
        if (!(*op)->cost)
            continue;
        for (const struct op_shape *shape = (*op)->shapes; shape->name; shape++) {
            double share = share_moved(*op, shape, cpu);
            most = share > most ? share : most;
        }
        if (most < 0.5)
            fail_msg("%s: %.3f of the bytes at most", (*op)->name, most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
