/* SPDX-License-Identifier: Apache-2.0 */
/* Bits of more than 2^32 elements, and of segments up to the 2^31 that an indptr can tell: `flashinfer check --huge` cannot make
 * these, for no axis of theirs is rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "tests/gpu/gpu.h"

#include <cmocka.h> /* last: it makes fail() a macro */

/* Bytes of y after which the elements repeat: a prime, so that addresses a power of two apart hold different ones. */
enum { PERIOD = 1009, SEGMENTS = 3 };

static unsigned char pattern[PERIOD * 8], packed[PERIOD];

static void make_pattern(void)
{
    uint32_t random = 1;
    memset(packed, 0, sizeof packed);
    for (int i = 0; i < PERIOD * 8; i++) {
        random = random * 1664525u + 1013904223u;
        pattern[i] = random >> 31;
        packed[i / 8] |= (unsigned char)(pattern[i] << i % 8);
    }
}

/* The pattern, again and again. */
static DLTensor make_elements(const struct device *device, int64_t *elements)
{
    DLTensor x = {.device = device->id, .ndim = 1, .dtype = dtype_dlpack(DTYPE_U8), .shape = elements};
    size_t all = (size_t)*elements;
    MUST(device_alloc(device, all, &x.data));
    MUST(device_upload(device, x.data, pattern, sizeof pattern));
    MUST(device_repeat(device, x.data, sizeof pattern, all));
    return x;
}

static DLTensor make_bits(const struct device *device, int64_t *bytes)
{
    DLTensor y = {.device = device->id, .ndim = 1, .dtype = dtype_dlpack(DTYPE_U8), .shape = bytes};
    MUST(device_alloc(device, (size_t)*bytes, &y.data));
    return y;
}

static unsigned char *downloaded(const struct device *device, const DLTensor *t)
{
    unsigned char *bytes = malloc((size_t)*t->shape);
    assert_non_null(bytes);
    MUST(device_download(device, bytes, t->data, (size_t)*t->shape));
    return bytes;
}

/* That so many bytes are those of the elements from `first` on, a multiple of 8. */
static void compare(const unsigned char *got, int64_t first, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++)
        if (got[i] != packed[(first / 8 + i) % PERIOD])
            fail_msg("byte %lld of the bits from element %lld on is wrong", (long long)i, (long long)first);
}

static void packbits(void **state)
{
    (void)state;
    enum { MORE = 3 };
    const struct device *device = gpu_or_skip();
    int64_t whole = (INT64_C(1) << 29) + 5, elements = whole * 8 + MORE, bytes = whole + 1;
    DLTensor x = make_elements(device, &elements), y = make_bits(device, &bytes);
    MUST(FLASHINFER(packbits, NULL, .y = &y, .x = &x, .bitorder = FLASHINFER_BITORDER_LITTLE));
    unsigned char *got = downloaded(device, &y);
    compare(got, 0, whole);
    assert_int_equal(got[whole], packed[whole % PERIOD] & ((1 << MORE) - 1));
    free(got);
    device_free(device, x.data);
    device_free(device, y.data);
}

static void segment_packbits(void **state)
{
    (void)state;
    const struct device *device = gpu_or_skip();
    const int32_t begin[SEGMENTS + 1] = {0, 8000, INT32_MAX - 8007, INT32_MAX - 7}; /* whole bytes */
    int64_t entries = SEGMENTS + 1, elements = begin[SEGMENTS], bytes = elements / 8 + 100;
    DLTensor x = make_elements(device, &elements), y = make_bits(device, &bytes);
    DLTensor indptr = {.device = device->id, .ndim = 1, .dtype = dtype_dlpack(DTYPE_I32), .shape = &entries};
    DLTensor packed_indptr = indptr;
    MUST(device_alloc(device, sizeof begin, &indptr.data));
    MUST(device_alloc(device, sizeof begin, &packed_indptr.data));
    MUST(device_upload(device, indptr.data, begin, sizeof begin));
    MUST(FLASHINFER(segment_packbits, NULL, .y = &y, .new_indptr = &packed_indptr, .x = &x, .indptr = &indptr,
                    .bitorder = FLASHINFER_BITORDER_LITTLE));
    int32_t packed_begin[SEGMENTS + 1];
    MUST(device_download(device, packed_begin, packed_indptr.data, sizeof packed_begin));
    unsigned char *got = downloaded(device, &y);
    for (int i = 0; i <= SEGMENTS; i++)
        assert_int_equal(packed_begin[i], begin[i] / 8);
    compare(got, 0, begin[SEGMENTS] / 8);
    for (int64_t i = begin[SEGMENTS] / 8; i < bytes; i++)
        assert_int_equal(got[i], 0);
    free(got);
    device_free(device, x.data);
    device_free(device, y.data);
    device_free(device, indptr.data);
    device_free(device, packed_indptr.data);
}

int main(void)
{
    make_pattern();
    const struct CMUnitTest tests[] = {cmocka_unit_test(packbits), cmocka_unit_test(segment_packbits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
