/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of architectures as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/arch.h"
#include "core/device.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

static void test_archs(void **state)
{
    static const struct {
        const char *text;
        int32_t archs[4];
    } right[] = {
        {"90", {90}},           {"90,80", {90, 80}}, {"8.0 9.0a", {80, 90}}, {"sm_90a;sm_120f, 10.3a ", {90, 120, 103}},
        {"90,9.0,sm_90", {90}},
    };
    static const char *const wrong[] = {"",   " ",   ",",    "75",  "9",     "90x",        "90aa",       "9.0.0",
                                        "9.", "sm_", "sm90", "-90", "90,75", "9000000000", "08.6", "090", "80,86,89,90"};
    int32_t archs[4];
    (void)state;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        assert_null(arch_parse_list(right[i].text, archs, 3));
        for (int k = 0; k == 0 || archs[k - 1]; k++)
            assert_int_equal(archs[k], right[i].archs[k]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_non_null(arch_parse_list(wrong[i], archs, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_archs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
