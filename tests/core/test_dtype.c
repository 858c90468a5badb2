/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between double and the small formats, over every code and every midpoint between two codes,
 * against the definition of rounding: the nearest code, of two equally near ones the even. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"

static double load(enum dtype dtype, uint32_t code)
{
    uint16_t half = (uint16_t)code;
    uint8_t byte = (uint8_t)code;
    return dtype_load(dtype, dtype_bytes(dtype) == 2 ? (void *)&half : (void *)&byte);
}

static uint32_t store(enum dtype dtype, double value)
{
    uint16_t half = 0;
    uint8_t byte = 0;
    dtype_store(dtype, dtype_bytes(dtype) == 2 ? (void *)&half : (void *)&byte, value);
    return dtype_bytes(dtype) == 2 ? half : byte;
}

static void test_table(void **state)
{
    (void)state;
    for (int i = DTYPE_NONE + 1; i < DTYPE_COUNT; i++) {
        enum dtype dtype = (enum dtype)i;
        assert_int_equal(dtype_of(dtype_dlpack(dtype)), dtype);
        assert_int_equal(dtype_by_name(dtype_name(dtype)), dtype);
        assert_true(dtype_bytes(dtype) >= 1 && dtype_bytes(dtype) <= 8);
    }
    assert_int_equal(dtype_of((DLDataType){kDLFloat, 16, 2}), DTYPE_NONE);
    assert_int_equal(dtype_of((DLDataType){kDLFloat, 8, 1}), DTYPE_NONE);
    assert_int_equal(dtype_of((DLDataType){kDLFloat4_e2m1fn, 4, 2}), DTYPE_E2M1X2);
    assert_int_equal(dtype_bytes(DTYPE_E2M1X2), 1);
    assert_string_equal(dtype_name(DTYPE_NONE), "none");
    assert_string_equal(dtype_name((enum dtype)99), "none");
    assert_int_equal(dtype_by_name("f17"), DTYPE_NONE);
    assert_true(dtype_is_float(DTYPE_E8M0));
    assert_false(dtype_is_float(DTYPE_U8));
}

/* Values that anybody can look up. */
static void test_known_values(void **state)
{
    (void)state;
    assert_true(load(DTYPE_F16, 0x3c00) == 1.0 && load(DTYPE_F16, 0x7bff) == 65504.0);
    assert_true(load(DTYPE_F16, 0x0001) == 0x1p-24 && load(DTYPE_F16, 0x7c00) == INFINITY);
    assert_true(load(DTYPE_BF16, 0x3f80) == 1.0 && load(DTYPE_BF16, 0x7f7f) == 0x1.fep127);
    assert_true(load(DTYPE_BF16, 0x0001) == 0x1p-133 && load(DTYPE_BF16, 0xff80) == -INFINITY);
    assert_true(load(DTYPE_E4M3, 0x7e) == 448.0 && load(DTYPE_E4M3, 0x01) == 0x1p-9 && isnan(load(DTYPE_E4M3, 0x7f)));
    assert_true(load(DTYPE_E5M2, 0x7b) == 57344.0 && load(DTYPE_E5M2, 0x01) == 0x1p-16);
    assert_true(load(DTYPE_E5M2, 0xfc) == -INFINITY && isnan(load(DTYPE_E5M2, 0x7d)));
    assert_true(load(DTYPE_E8M0, 127) == 1.0 && load(DTYPE_E8M0, 0) == 0x1p-127 && isnan(load(DTYPE_E8M0, 255)));

    assert_int_equal(store(DTYPE_F16, 65519.999), 0x7bff);
    assert_int_equal(store(DTYPE_F16, 65520.0), 0x7c00);
    assert_int_equal(store(DTYPE_F16, 0x1p-25), 0);
    assert_int_equal(store(DTYPE_F16, 0x1.000001p-25), 1);
    assert_int_equal(store(DTYPE_E4M3, 1e30), 0x7e);
    assert_int_equal(store(DTYPE_E4M3, -INFINITY), 0xfe);
    assert_int_equal(store(DTYPE_E4M3, NAN) & 0x7f, 0x7f);
    assert_int_equal(store(DTYPE_E5M2, 1e30), 0x7c);
    assert_int_equal(store(DTYPE_E8M0, 0.0), 0);
    assert_int_equal(store(DTYPE_E8M0, -3.0), 0);
    assert_int_equal(store(DTYPE_E8M0, 1.5), 128);
    assert_int_equal(store(DTYPE_E8M0, 1.499), 127);
    assert_int_equal(store(DTYPE_E8M0, INFINITY), 254);
    assert_int_equal(store(DTYPE_E8M0, NAN), 255);
}

/* Codes in [0, largest] ascend in value, so neighbours are one code apart. */
static void check_format(enum dtype dtype, uint32_t largest, uint32_t sign)
{
    for (uint32_t code = 0; code < 2 * sign; code++) {
        double value = load(dtype, code);
        if (isnan(value)) {
            assert_true(isnan(load(dtype, store(dtype, value))));
            continue;
        }
        assert_int_equal(store(dtype, value), code);
        if ((code & ~sign) >= largest)
            continue;
        double next = load(dtype, code + 1), middle = (value + next) / 2; /* exact */
        assert_true(fabs(next) > fabs(value));
        assert_int_equal(store(dtype, middle), code & 1 ? code + 1 : code);
        assert_int_equal(store(dtype, nextafter(middle, value)), code);
        assert_int_equal(store(dtype, nextafter(middle, next)), code + 1);
    }
    assert_true(isnan(load(dtype, store(dtype, NAN))));
    assert_int_equal(store(dtype, 5e-324), 0);
    assert_int_equal(store(dtype, -5e-324), sign);
}

static void test_every_code(void **state)
{
    (void)state;
    check_format(DTYPE_F16, 0x7bff, 0x8000);
    check_format(DTYPE_BF16, 0x7f7f, 0x8000);
    check_format(DTYPE_E4M3, 0x7e, 0x80);
    check_format(DTYPE_E5M2, 0x7b, 0x80);
    for (uint32_t code = 0; code < 255; code++)
        assert_int_equal(store(DTYPE_E8M0, load(DTYPE_E8M0, code)), code);
}

static void test_integers(void **state)
{
    (void)state;
    int32_t i32;
    int64_t i64;
    uint64_t u64;
    uint8_t u8;
    int8_t i8;
    dtype_store(DTYPE_I32, &i32, 2.5);
    assert_int_equal(i32, 2);
    dtype_store(DTYPE_I32, &i32, -3.5);
    assert_int_equal(i32, -4);
    dtype_store(DTYPE_I32, &i32, 1e30);
    assert_int_equal(i32, INT32_MAX);
    dtype_store(DTYPE_I32, &i32, NAN);
    assert_int_equal(i32, 0);
    dtype_store(DTYPE_I64, &i64, 0x1p63);
    assert_true(i64 == INT64_MAX);
    dtype_store(DTYPE_I64, &i64, -INFINITY);
    assert_true(i64 == INT64_MIN);
    dtype_store(DTYPE_U64, &u64, 0x1p64);
    assert_true(u64 == UINT64_MAX);
    dtype_store(DTYPE_U8, &u8, -1.0);
    assert_int_equal(u8, 0);
    dtype_store(DTYPE_I8, &i8, 127.5);
    assert_int_equal(i8, 127);
    dtype_store(DTYPE_BOOL, &u8, 0.25);
    assert_int_equal(u8, 1);
    i64 = -5;
    assert_true(dtype_load(DTYPE_I64, &i64) == -5.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
