/* SPDX-License-Identifier: Apache-2.0 */
/* Overlap of views against brute force over random small views, and the views of serving: K and V of one
 * cache, q, k and v of one row, transposed, broadcast, negative strides. Also rows, density, alignment,
 * descriptions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/tensor.h"

static char memory[1 << 16];

struct view {
    DLTensor tensor;
    int64_t shape[8], strides[8];
};

/* A view of f16 at an element offset into memory; strides NULL: dense. */
static DLTensor *view_set(struct view *view, int64_t offset, int ndim, const int64_t *shape, const int64_t *strides)
{
    memcpy(view->shape, shape, (size_t)ndim * sizeof *shape);
    if (strides)
        memcpy(view->strides, strides, (size_t)ndim * sizeof *strides);
    view->tensor = (DLTensor){.data = memory, .device = {kDLCPU, 0}, .ndim = ndim, .dtype = {kDLFloat, 16, 1},
                              .shape = view->shape, .strides = strides ? view->strides : NULL,
                              .byte_offset = (uint64_t)(2 * offset)};
    return &view->tensor;
}

#define VIEW(view, offset, ndim, ...) view_set(view, offset, ndim, (int64_t[]){__VA_ARGS__}, (int64_t[]){__VA_ARGS__} + (ndim))
#define DENSE(view, offset, ndim, ...) view_set(view, offset, ndim, (int64_t[]){__VA_ARGS__}, NULL)

static void test_serving_views(void **state)
{
    (void)state;
    struct view k, v, q, out;
    /* [pages, 2, page_size, heads, head_dim], NHD: K and V interleaved by page. */
    VIEW(&k, 0, 4, 10, 4, 2, 8, 128, 16, 8, 1);
    VIEW(&v, 64, 4, 10, 4, 2, 8, 128, 16, 8, 1);
    assert_false(tensor_overlap(&k.tensor, &v.tensor));
    assert_false(tensor_overlap(&v.tensor, &k.tensor));
    assert_true(tensor_overlap(&k.tensor, &k.tensor));
    VIEW(&v, 63, 4, 10, 4, 2, 8, 128, 16, 8, 1);
    assert_true(tensor_overlap(&k.tensor, &v.tensor));
    /* q, k, v slices of one [tokens, 3 * 16] row. */
    VIEW(&q, 0, 3, 50, 2, 8, 48, 8, 1);
    VIEW(&k, 16, 3, 50, 2, 8, 48, 8, 1);
    VIEW(&v, 32, 3, 50, 2, 8, 48, 8, 1);
    assert_false(tensor_overlap(&q.tensor, &k.tensor));
    assert_false(tensor_overlap(&k.tensor, &v.tensor));
    assert_false(tensor_overlap(&q.tensor, &v.tensor));
    VIEW(&v, 31, 3, 50, 2, 8, 48, 8, 1);
    assert_true(tensor_overlap(&k.tensor, &v.tensor));
    /* Even and odd columns; a transposed view of the same matrix; rows backwards. */
    VIEW(&q, 0, 2, 20, 20, 40, 2);
    VIEW(&k, 1, 2, 20, 20, 40, 2);
    assert_false(tensor_overlap(&q.tensor, &k.tensor));
    VIEW(&k, 0, 2, 40, 40, 1, 40);
    assert_true(tensor_overlap(&q.tensor, &k.tensor));
    VIEW(&q, 40 * 9, 2, 10, 40, -40, 1);
    VIEW(&k, 40 * 10, 2, 10, 40, 40, 1);
    assert_false(tensor_overlap(&q.tensor, &k.tensor));
    DENSE(&out, 0, 1, 1);
    assert_true(tensor_overlap(&q.tensor, &out.tensor));
    /* Empty views and NULL data overlap nothing. */
    DENSE(&out, 0, 2, 0, 40);
    assert_false(tensor_overlap(&q.tensor, &out.tensor));
    out = q;
    out.tensor.data = NULL;
    assert_false(tensor_overlap(&q.tensor, &out.tensor));
}

static void test_itself(void **state)
{
    (void)state;
    struct view a;
    assert_false(tensor_overlap(DENSE(&a, 0, 3, 4, 5, 6), NULL));
    assert_true(tensor_overlap(VIEW(&a, 0, 2, 4, 5, 0, 1), NULL));
    assert_false(tensor_overlap(VIEW(&a, 0, 2, 1, 5, 0, 1), NULL));
    assert_true(tensor_overlap(VIEW(&a, 0, 2, 4, 5, 4, 1), NULL));
    assert_false(tensor_overlap(VIEW(&a, 0, 2, 4, 5, 5, 1), NULL));
    assert_false(tensor_overlap(VIEW(&a, 100, 2, 4, 5, -5, 1), NULL));
    assert_false(tensor_overlap(VIEW(&a, 0, 2, 2, 2, 2, 3), NULL));
    assert_true(tensor_overlap(VIEW(&a, 0, 2, 4, 3, 2, 3), NULL));
    assert_true(tensor_overlap(VIEW(&a, 0, 2, INT64_MAX / 2, 2, 16, 1), NULL));
    assert_false(tensor_overlap(VIEW(&a, 0, 3, INT64_MAX / 2, 0, 2, 16, 1, 1), NULL));
}

/* Marks each byte of a view; returns true if one was marked by another element already. */
static int mark(const DLTensor *t, unsigned char *bytes, int64_t origin)
{
    int64_t n = tensor_elements(t);
    int twice = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = origin;
        for (int axis = t->ndim - 1; axis >= 0; axis--) {
            at += rest % t->shape[axis] * tensor_stride(t, axis);
            rest /= t->shape[axis];
        }
        twice |= bytes[at]++ > 0;
    }
    return twice;
}

static int64_t random_below(int64_t n) { return (int64_t)((unsigned)rand() % (unsigned)n); }

static int64_t random_view(struct view *view)
{
    int64_t shape[4], strides[4], offset = 1500 + random_below(200);
    int ndim = (int)random_below(4);
    for (int i = 0; i < ndim; i++) {
        shape[i] = 1 + random_below(5);
        strides[i] = random_below(3) ? random_below(40) - 8 : 1 + random_below(3);
    }
    view_set(view, offset, ndim, shape, strides);
    return offset;
}

static void test_brute_force(void **state)
{
    (void)state;
    srand(1);
    int overlaps = 0, itself = 0;
    for (int trial = 0; trial < 200000; trial++) {
        unsigned char a_bytes[4096] = {0}, b_bytes[4096] = {0};
        struct view a, b;
        int64_t a_origin = random_view(&a), b_origin = random_view(&b);
        int twice = mark(&a.tensor, a_bytes, a_origin), shared = 0;
        mark(&b.tensor, b_bytes, b_origin);
        for (int i = 0; i < 4096; i++)
            shared |= a_bytes[i] && b_bytes[i];
        assert_int_equal(tensor_overlap(&a.tensor, &b.tensor), shared);
        assert_int_equal(tensor_overlap(&a.tensor, NULL), twice);
        overlaps += shared;
        itself += twice;
    }
    assert_true(overlaps > 10000 && overlaps < 190000);
    assert_true(itself > 10000 && itself < 190000);
}

static void test_shape_questions(void **state)
{
    (void)state;
    struct view a;
    int64_t rows, stride;
    DENSE(&a, 0, 3, 2, 3, 64);
    assert_int_equal(tensor_stride(&a.tensor, 0), 192);
    assert_int_equal(tensor_stride(&a.tensor, -2), 64);
    assert_int_equal(tensor_shape(&a.tensor, -1), 64);
    assert_int_equal(tensor_elements(&a.tensor), 384);
    assert_true(tensor_rows(&a.tensor, 1, &rows, &stride) && rows == 6 && stride == 64);
    assert_true(tensor_rows(&a.tensor, 3, &rows, &stride) && rows == 1 && stride == 384);
    VIEW(&a, 0, 3, 2, 3, 64, 300, 100, 1);
    assert_false(tensor_is_dense(&a.tensor));
    assert_true(tensor_rows(&a.tensor, 1, &rows, &stride) && rows == 6 && stride == 100);
    VIEW(&a, 0, 3, 2, 3, 64, 400, 100, 1);
    assert_false(tensor_rows(&a.tensor, 1, &rows, &stride));
    assert_true(tensor_rows(&a.tensor, 2, &rows, &stride) && rows == 2 && stride == 400);
    VIEW(&a, 0, 4, 1, 3, 1, 64, 7, 100, 9, 1);
    assert_true(tensor_rows(&a.tensor, 1, &rows, &stride) && rows == 3 && stride == 100);
    VIEW(&a, 0, 3, 2, 0, 64, 7, 100, 1);
    assert_true(tensor_rows(&a.tensor, 1, &rows, &stride) && rows == 0);
    assert_true(tensor_is_dense(&a.tensor));
    VIEW(&a, 0, 3, 1, 3, 64, 5, 64, 1);
    assert_true(tensor_is_dense(&a.tensor));
    assert_true(tensor_is_aligned(&a.tensor, 16));
    VIEW(&a, 4, 2, 3, 64, 64, 1);
    assert_false(tensor_is_aligned(&a.tensor, 16));
    assert_true(tensor_is_aligned(&a.tensor, 8));
    VIEW(&a, 0, 2, 3, 64, 68, 1);
    assert_false(tensor_is_aligned(&a.tensor, 16));
    DENSE(&a, 0, 2, 3, 7);
    assert_false(tensor_is_aligned(&a.tensor, 4));
    DENSE(&a, 0, 0, 0);
    assert_true(tensor_is_dense(&a.tensor) && tensor_elements(&a.tensor) == 1);
}

static void test_describe(void **state)
{
    (void)state;
    struct view a;
    char text[128], tiny[8];
    DENSE(&a, 0, 3, 2, 3, 64);
    a.tensor.device = (DLDevice){kDLCUDA, 1};
    assert_string_equal(tensor_describe(&a.tensor, text, sizeof text), "[2, 3, 64] f16 on cuda:1");
    VIEW(&a, 0, 2, 3, 64, 68, 1);
    a.tensor.dtype = (DLDataType){kDLInt, 4, 1};
    assert_string_equal(tensor_describe(&a.tensor, text, sizeof text),
                        "[3, 64] strides [68, 1] dtype {code 0, bits 4, lanes 1} on cpu");
    assert_string_equal(tensor_describe(&a.tensor, tiny, sizeof tiny), "[3, 64]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serving_views), cmocka_unit_test(test_itself),
        cmocka_unit_test(test_brute_force),   cmocka_unit_test(test_shape_questions),
        cmocka_unit_test(test_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
