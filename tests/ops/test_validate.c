/* SPDX-License-Identifier: Apache-2.0 */
/* FLASHINFER_VALIDATE_INPUTS: what lies in page tables is refused, entry by entry, before anything runs; a good table runs as
 * ever. Without the variable nobody looks. It is read once in a process, so that the first test, without it, runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/jit/support.h"
#include "tests/ops/attention_batch.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { REQUESTS = 3, TOKENS = 8, NUM_PAGES = 9, PAGE = 4 };

static struct attention_batch batch;

/* Three requests, of 7, 0 and 13 tokens: 2, 0 and 4 pages. */
static void make_batch(int32_t max_total_qo)
{
    static const int32_t qo_len[] = {3, 0, 5}, one[] = {1, 1, 1}, kv_len[] = {7, 0, 13};
    const struct attention_shape shape = {.dtype = DTYPE_F16,
                                          .num_qo_heads = 2,
                                          .num_kv_heads = 2,
                                          .head_dim = 64,
                                          .page_size = PAGE,
                                          .num_pages = NUM_PAGES,
                                          .max_batch_size = REQUESTS,
                                          .max_total_qo = max_total_qo};
    const struct device *device;
    MUST(device_get((DLDevice){kDLCPU, 0}, &device));
    attention_batch_create(&batch, &shape, device, 3);
    attention_batch_requests(&batch, REQUESTS, max_total_qo ? qo_len : one, kv_len, 4);
    attention_batch_show(&batch, false);
    attention_batch_poison(&batch, 0x7f);
}

static void set(enum batch_tensor which, int at, int32_t value)
{
    ((int32_t *)batch.tensor[which].data)[at] = value;
}

static bool is_poisoned(void)
{
    size_t bytes;
    bool poisoned = true;
    for (int which = BATCH_OUT; which <= BATCH_LSE; which++) {
        unsigned char *data = attention_batch_fetch(&batch, (enum batch_tensor)which, &bytes);
        for (size_t i = 0; i < bytes; i++)
            poisoned &= data[i] == 0x7f;
        free(data);
    }
    return poisoned;
}

/* Page -1 lies before the cache, in memory that is there; a last page of length 0 makes a request shorter. */
static void nobody_looks(void)
{
    const int32_t page = PAGE * 2 * 64 * 2;
    make_batch(TOKENS);
    for (int which = BATCH_K_CACHE; which <= BATCH_V_CACHE; which++) {
        batch.tensor[which].data = (char *)batch.tensor[which].data + page;
        batch.shapes[which][0]--;
    }
    set(BATCH_KV_INDICES, 0, -1);
    set(BATCH_KV_LAST_PAGE_LEN, 2, 0);
    CHECK(attention_batch_run(&batch) == FLASHINFER_OK);
    CHECK(!is_poisoned());
}

static void test_without(void **state)
{
    (void)state;
    assert_int_equal(in_child(nobody_looks), 0);
    setenv("FLASHINFER_VALIDATE_INPUTS", "1", 1); /* for the tests that follow */
}

static void test_good_tables(void **state)
{
    (void)state;
    for (int decode = 0; decode < 2; decode++) {
        make_batch(decode ? 0 : TOKENS);
        /* Not looked at: the last page of a request without pages, and page ids that no request has. */
        set(BATCH_KV_LAST_PAGE_LEN, 1, -5);
        set(BATCH_KV_INDICES, 6, 1 << 30);
        MUST(attention_batch_run(&batch));
        assert_false(is_poisoned());
        attention_batch_destroy(&batch);
    }
}

/* The op's name stands before the sentence. */
static void refused(bool decode, enum batch_tensor which, int at, int32_t value, const char *sentence)
{
    char expected[300];
    make_batch(decode ? 0 : TOKENS);
    set(which, at, value);
    snprintf(expected, sizeof expected, "%s: %s", decode ? "batch_decode" : "batch_prefill", sentence);
    assert_int_equal(attention_batch_run(&batch), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), expected);
    assert_true(is_poisoned());
    attention_batch_destroy(&batch);
}

static void test_bad_tables(void **state)
{
    (void)state;
    for (int decode = 0; decode < 2; decode++) {
        refused(decode, BATCH_KV_INDPTR, 0, 1, "kv_indptr[0] is 1, must be 0");
        refused(decode, BATCH_KV_INDPTR, 0, -1, "kv_indptr[0] is -1, must be 0");
        refused(decode, BATCH_KV_INDPTR, 2, 1, "kv_indptr[2] is 1, must be at least kv_indptr[1], which is 2");
        refused(decode, BATCH_KV_INDPTR, 1, 7, "kv_indptr[2] is 2, must be at least kv_indptr[1], which is 7");
        refused(decode, BATCH_KV_INDPTR, 3, 10, "kv_indptr[3] is 10, must be at most the length of kv_indices, which is 9");
        refused(decode, BATCH_KV_INDICES, 3, 9, "kv_indices[3] is 9, must be at least 0 and below 9, the pages of k_cache");
        refused(decode, BATCH_KV_INDICES, 5, -1, "kv_indices[5] is -1, must be at least 0 and below 9, the pages of k_cache");
        refused(decode, BATCH_KV_INDICES, 0, INT32_MIN,
                "kv_indices[0] is -2147483648, must be at least 0 and below 9, the pages of k_cache");
        refused(decode, BATCH_KV_LAST_PAGE_LEN, 0, 0, "kv_last_page_len[0] is 0, must be 1 to page_size, which is 4");
        refused(decode, BATCH_KV_LAST_PAGE_LEN, 2, 5, "kv_last_page_len[2] is 5, must be 1 to page_size, which is 4");
    }
    refused(false, BATCH_QO_INDPTR, 0, 2, "qo_indptr[0] is 2, must be 0");
    refused(false, BATCH_QO_INDPTR, 2, 2, "qo_indptr[2] is 2, must be at least qo_indptr[1], which is 3");
    refused(false, BATCH_QO_INDPTR, 3, 9, "qo_indptr[3] is 9, must be at most the number of query tokens, which is 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without, setup_folder, teardown_folder),
        cmocka_unit_test(test_good_tables),
        cmocka_unit_test(test_bad_tables),
    };
    unsetenv("FLASHINFER_VALIDATE_INPUTS");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
