/* SPDX-License-Identifier: Apache-2.0 */
/* device/fetch_ahead.h: no block fetches for one behind the grid, nor where the distance is large beside the grid. */
#include "fetch_ahead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_distance(void **state)
{
    (void)state;
    struct fetch_ahead a = fetch_ahead(132 * 32768, 8192, 8192);
    assert_int_equal(a.distance, 528);
    assert_int_equal(a.blocks, 8192 - 528);
}

static void test_none(void **state)
{
    (void)state;
    const int64_t refused[][3] = {
        {1 << 20, 255, 1 << 14},       /* the distance is more than a quarter of the grid */
        {1 << 20, 1 << 20, (1 << 20) + 1}, /* or less than a block */
        {1 << 20, 0, 1 << 14}, {1 << 20, 1 << 20, 0}, {0, 1 << 20, 1 << 14}, {1 << 20, (int64_t)1 << 31, 1 << 14},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct fetch_ahead a = fetch_ahead(refused[i][0], refused[i][1], refused[i][2]);
        assert_int_equal(a.distance, 0);
        assert_int_equal(a.blocks, 0);
    }
    assert_int_equal(fetch_ahead(1 << 20, 256, 1 << 14).blocks, 256 - 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_distance), cmocka_unit_test(test_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
