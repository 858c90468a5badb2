/* SPDX-License-Identifier: Apache-2.0 */
/* FLASHINFER_VALIDATE_INPUTS: what lies in page tables, and in the lists of new tokens, is refused, entry by entry, before
 * anything runs; good ones run as ever. Without the variable nobody looks. It is read once in a process, so that the first test,
 * without it, runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "tests/jit/support.h"
#include "tests/ops/attention_batch.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { REQUESTS = 3, TOKENS = 8, NUM_PAGES = 9, PAGE = 4 };

static struct attention_batch batch;

#define T(which) (&batch.tensor[BATCH_##which])

static flashinfer_status run_attention(void) { return attention_batch_run(&batch); }

/* Over the new tokens, of which kv_indptr gives 2, 0 and 4 to the requests. */
static flashinfer_status run_ragged(void)
{
    return FLASHINFER(batch_prefill_ragged, &batch.exec, .out = T(OUT), .lse = T(LSE), .plan = &batch.plan, .q = T(Q), .k = T(K),
                      .v = T(V), .qo_indptr = T(QO_INDPTR), .kv_indptr = T(KV_INDPTR));
}

static flashinfer_status run_positions(void)
{
    return FLASHINFER(get_batch_indices_positions, &batch.exec, .batch_indices = T(INDICES), .positions = T(POSITIONS),
                      .append_indptr = T(QO_INDPTR), .seq_lens = T(KV_LEN), .nnz = batch.shapes[BATCH_INDICES][0]);
}

static flashinfer_status run_append(void)
{
    return FLASHINFER(append_paged_kv_cache, &batch.exec, .k_cache = T(K_CACHE), .v_cache = T(V_CACHE), .append_key = T(K),
                      .append_value = T(V), .batch_indices = T(INDICES), .positions = T(POSITIONS), .kv_indices = T(KV_INDICES),
                      .kv_indptr = T(KV_INDPTR));
}

/* What is called: it writes first_output and the tensor after it. */
static const struct tested {
    const char *name;
    int32_t max_total_qo; /* of the batch; 0: one token of each request */
    enum batch_tensor first_output;
    flashinfer_status (*run)(void);
} prefill = {"batch_prefill", TOKENS, BATCH_OUT, run_attention}, decode = {"batch_decode", 0, BATCH_OUT, run_attention},
  ragged = {"batch_prefill_ragged", TOKENS, BATCH_OUT, run_ragged},
  positions = {"get_batch_indices_positions", TOKENS, BATCH_INDICES, run_positions},
  append = {"append_paged_kv_cache", TOKENS, BATCH_K_CACHE, run_append};

static size_t output(const struct tested *tested, int i, unsigned char **data)
{
    const DLTensor *tensor = &batch.tensor[tested->first_output + i];
    *data = tensor->data;
    return (size_t)tensor_elements(tensor) * (size_t)dtype_bytes(tensor_dtype(tensor));
}

static bool is_poisoned(const struct tested *tested)
{
    bool poisoned = true;
    unsigned char *data;
    for (int i = 0; i < 2; i++)
        for (size_t at = 0, bytes = output(tested, i, &data); at < bytes; at++)
            poisoned &= data[at] == 0x7f;
    return poisoned;
}

/* Three requests, of 7, 0 and 13 tokens: 2, 0 and 4 pages. The new tokens, if there are TOKENS, are 3, 0 and 5. */
static void make_batch(const struct tested *tested)
{
    static const int32_t qo_len[] = {3, 0, 5}, one[] = {1, 1, 1}, kv_len[] = {7, 0, 13};
    const struct attention_shape shape = {.dtype = DTYPE_F16,
                                          .num_qo_heads = 2,
                                          .num_kv_heads = 2,
                                          .head_dim = 64,
                                          .page_size = PAGE,
                                          .num_pages = NUM_PAGES,
                                          .max_batch_size = REQUESTS,
                                          .max_total_qo = tested->max_total_qo};
    const struct device *device;
    unsigned char *data;
    MUST(device_get((DLDevice){kDLCPU, 0}, &device));
    attention_batch_create(&batch, &shape, device, 3);
    attention_batch_requests(&batch, REQUESTS, tested->max_total_qo ? qo_len : one, kv_len, 4);
    attention_batch_show(&batch, false);
    if (tested == &append)
        MUST(run_positions());
    for (int i = 0; i < 2; i++) {
        size_t bytes = output(tested, i, &data);
        memset(data, 0x7f, bytes);
    }
}

static void set(enum batch_tensor which, int at, int32_t value)
{
    ((int32_t *)batch.tensor[which].data)[at] = value;
}

/* Page -1 lies before the cache, in memory that is there; a last page of length 0 makes a request shorter, and so does a length
 * below the number of new tokens. */
static void nobody_looks(void)
{
    const int32_t page = PAGE * 2 * 64 * 2;
    make_batch(&prefill);
    for (int which = BATCH_K_CACHE; which <= BATCH_V_CACHE; which++) {
        batch.tensor[which].data = (char *)batch.tensor[which].data + page;
        batch.shapes[which][0]--;
    }
    set(BATCH_KV_INDICES, 0, -1);
    set(BATCH_KV_LAST_PAGE_LEN, 2, 0);
    CHECK(attention_batch_run(&batch) == FLASHINFER_OK);
    CHECK(!is_poisoned(&prefill));
    set(BATCH_KV_LEN, 0, 2);
    CHECK(run_positions() == FLASHINFER_OK);
}

static void test_without(void **state)
{
    (void)state;
    assert_int_equal(in_child(nobody_looks), 0);
    setenv("FLASHINFER_VALIDATE_INPUTS", "1", 1); /* for the tests that follow */
}

static void accepted(const struct tested *tested)
{
    MUST(tested->run());
    assert_false(is_poisoned(tested));
    attention_batch_destroy(&batch);
}

static void test_good_tables(void **state)
{
    const struct tested *attention[] = {&prefill, &decode};
    (void)state;
    for (int i = 0; i < 2; i++) {
        make_batch(attention[i]);
        /* Not looked at: the last page of a request without pages, and page ids that no request has. */
        set(BATCH_KV_LAST_PAGE_LEN, 1, -5);
        set(BATCH_KV_INDICES, 6, 1 << 30);
        accepted(attention[i]);
    }
    make_batch(&ragged);
    accepted(&ragged);
}

static void test_good_appends(void **state)
{
    (void)state;
    make_batch(&positions);
    set(BATCH_QO_INDPTR, 3, 7); /* fewer tokens than entries */
    accepted(&positions);

    make_batch(&append);
    /* Not looked at: the position of a token without a request, and page ids that no request has. */
    set(BATCH_INDICES, 0, -1);
    set(BATCH_POSITIONS, 0, -7);
    set(BATCH_INDICES, 4, INT32_MIN);
    set(BATCH_POSITIONS, 4, INT32_MAX);
    set(BATCH_KV_INDICES, 6, 1 << 30);
    set(BATCH_POSITIONS, 1, 0); /* the first slot of a request, and the last one */
    set(BATCH_POSITIONS, 2, 7);
    accepted(&append);
}

/* The op's name stands before the sentence. */
static void refused(const struct tested *tested, enum batch_tensor which, int at, int32_t value, const char *sentence)
{
    char expected[300];
    make_batch(tested);
    set(which, at, value);
    snprintf(expected, sizeof expected, "%s: %s", tested->name, sentence);
    assert_int_equal(tested->run(), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), expected);
    assert_true(is_poisoned(tested));
    attention_batch_destroy(&batch);
}

static void test_bad_tables(void **state)
{
    const struct tested *with_pages[] = {&prefill, &decode, &append};
    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct tested *op = with_pages[i];
        refused(op, BATCH_KV_INDPTR, 0, 1, "kv_indptr[0] is 1, must be 0");
        refused(op, BATCH_KV_INDPTR, 0, -1, "kv_indptr[0] is -1, must be 0");
        refused(op, BATCH_KV_INDPTR, 2, 1, "kv_indptr[2] is 1, must be at least kv_indptr[1], which is 2");
        refused(op, BATCH_KV_INDPTR, 1, 7, "kv_indptr[2] is 2, must be at least kv_indptr[1], which is 7");
        refused(op, BATCH_KV_INDPTR, 3, 10, "kv_indptr[3] is 10, must be at most the length of kv_indices, which is 9");
        refused(op, BATCH_KV_INDICES, 3, 9, "kv_indices[3] is 9, must be at least 0 and below 9, the pages of k_cache");
        refused(op, BATCH_KV_INDICES, 5, -1, "kv_indices[5] is -1, must be at least 0 and below 9, the pages of k_cache");
        refused(op, BATCH_KV_INDICES, 0, INT32_MIN,
                "kv_indices[0] is -2147483648, must be at least 0 and below 9, the pages of k_cache");
    }
    for (int i = 0; i < 2; i++) {
        refused(with_pages[i], BATCH_KV_LAST_PAGE_LEN, 0, 0, "kv_last_page_len[0] is 0, must be 1 to page_size, which is 4");
        refused(with_pages[i], BATCH_KV_LAST_PAGE_LEN, 2, 5, "kv_last_page_len[2] is 5, must be 1 to page_size, which is 4");
    }
    refused(&ragged, BATCH_KV_INDPTR, 2, 1, "kv_indptr[2] is 1, must be at least kv_indptr[1], which is 2");
    refused(&ragged, BATCH_KV_INDPTR, 3, 9, "kv_indptr[3] is 9, must be at most the number of keys, which is 8");
    refused(&ragged, BATCH_QO_INDPTR, 3, 9, "qo_indptr[3] is 9, must be at most the number of query tokens, which is 8");
    refused(&prefill, BATCH_QO_INDPTR, 0, 2, "qo_indptr[0] is 2, must be 0");
    refused(&prefill, BATCH_QO_INDPTR, 2, 2, "qo_indptr[2] is 2, must be at least qo_indptr[1], which is 3");
    refused(&prefill, BATCH_QO_INDPTR, 3, 9, "qo_indptr[3] is 9, must be at most the number of query tokens, which is 8");
}

static void test_bad_rows(void **state)
{
    uint16_t elements[3 * 8] = {0};
    float table[5 * 4] = {0};
    int64_t rows[3] = {0, 5, 1};
    DLTensor query = {.data = elements, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 16, 1}, .shape = (int64_t[]){3, 8}};
    DLTensor key = {.data = NULL, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 16, 1}, .shape = (int64_t[]){3, 0}};
    DLTensor cache = {.data = table, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 32, 1}, .shape = (int64_t[]){5, 4}};
    DLTensor row_ids = {.data = rows, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLInt, 64, 1}, .shape = (int64_t[]){3}};
    struct flashinfer_apply_rope_with_cos_sin_cache_inplace call = {sizeof call, .query = &query, .key = &key,
                                                                    .positions = &row_ids, .head_size = 4,
                                                                    .cos_sin_cache = &cache};
    (void)state;
    assert_int_equal(flashinfer_apply_rope_with_cos_sin_cache_inplace(&call, NULL), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), "apply_rope_with_cos_sin_cache_inplace: positions[1] is 5, must be at least 0 "
                                                 "and below 5, the rows of cos_sin_cache");
    rows[1] = 4;
    assert_int_equal(flashinfer_apply_rope_with_cos_sin_cache_inplace(&call, NULL), FLASHINFER_OK);
    row_ids.dtype.bits = 32;
    memcpy(rows, (int32_t[]){4, 0, -1}, 12);
    assert_int_equal(flashinfer_apply_rope_with_cos_sin_cache_inplace(&call, NULL), FLASHINFER_INVALID);
    assert_non_null(strstr(flashinfer_last_error(), "positions[2] is -1"));
}

/* One request of 2 query tokens over 3 keys, whose mask has 6 bits. */
static void test_bad_places(void **state)
{
    uint16_t q[2 * 16] = {0}, k[3 * 16] = {0}, v[4 * 16] = {0}, out[3 * 16];
    uint8_t bits[2] = {0};
    int32_t qo_indptr[] = {0, 2}, kv_indptr[] = {0, 3}, mask_indptr[] = {1, 2}, v_indptr[] = {1, 4}, o_indptr[] = {0, 2};
    const DLDevice cpu = {kDLCPU, 0};
#define TOKENS_OF(memory, n) \
    {.data = memory, .device = cpu, .ndim = 3, .dtype = {kDLFloat, 16, 1}, .shape = (int64_t[]){n, 1, 16}}
#define INDPTR_OF(memory) {.data = memory, .device = cpu, .ndim = 1, .dtype = {kDLInt, 32, 1}, .shape = (int64_t[]){2}}
    DLTensor tq = TOKENS_OF(q, 2), tk = TOKENS_OF(k, 3), tv = TOKENS_OF(v, 3), to = TOKENS_OF(out, 2);
    DLTensor iq = INDPTR_OF(qo_indptr), ik = INDPTR_OF(kv_indptr), im = INDPTR_OF(mask_indptr), iv = INDPTR_OF(v_indptr),
             io = INDPTR_OF(o_indptr);
    DLTensor mask = {.data = bits, .device = cpu, .ndim = 1, .dtype = {kDLUInt, 8, 1}, .shape = (int64_t[]){2}};
    flashinfer_exec exec = {.size = sizeof exec, .device = cpu};
    flashinfer_plan plan;
    (void)state;
    MUST(FLASHINFER(batch_prefill_plan, &exec, .plan = &plan, .max_total_qo = 2, .max_batch_size = 1, .num_qo_heads = 1,
                    .num_kv_heads = 1, .head_dim_qk = 16, .page_size = 1, .custom_mask = 1));
    struct flashinfer_batch_prefill_ragged call = {sizeof call, .out = &to, .plan = &plan, .q = &tq, .k = &tk, .v = &tv,
                                                   .qo_indptr = &iq, .kv_indptr = &ik, .packed_custom_mask = &mask,
                                                   .mask_indptr = &im, .v_indptr = &iv, .o_indptr = &io};
    assert_int_equal(flashinfer_batch_prefill_ragged(&call, &exec), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(),
                        "batch_prefill_ragged: v_indptr[0] is 1, must be at least 0, with the request's 3 at most 3");
    v_indptr[0] = 0;
    assert_int_equal(flashinfer_batch_prefill_ragged(&call, &exec), FLASHINFER_OK);
    mask_indptr[0] = 2;
    assert_int_equal(flashinfer_batch_prefill_ragged(&call, &exec), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(),
                        "batch_prefill_ragged: mask_indptr[0] is 2, must be at least 0, with the request's 1 at most 2");
    mask_indptr[0] = 0;
    o_indptr[0] = -1;
    assert_int_equal(flashinfer_batch_prefill_ragged(&call, &exec), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(),
                        "batch_prefill_ragged: o_indptr[0] is -1, must be at least 0, with the request's 2 at most 2");
}

/* Tokens 0 to 2 are of request 0, which has 8 slots, 3 to 7 of request 2, which has 16. */
static void test_bad_appends(void **state)
{
    (void)state;
    refused(&append, BATCH_INDICES, 2, 3, "batch_indices[2] is 3, must be below 3, the number of requests");
    refused(&append, BATCH_INDICES, 0, INT32_MAX, "batch_indices[0] is 2147483647, must be below 3, the number of requests");
    refused(&append, BATCH_INDICES, 3, 1, "positions[3] is 8, must be at least 0 and below 0, the slots of request 1");
    refused(&append, BATCH_POSITIONS, 0, 8, "positions[0] is 8, must be at least 0 and below 8, the slots of request 0");
    refused(&append, BATCH_POSITIONS, 1, -1, "positions[1] is -1, must be at least 0 and below 8, the slots of request 0");
    refused(&append, BATCH_POSITIONS, 7, 16, "positions[7] is 16, must be at least 0 and below 16, the slots of request 2");

    refused(&positions, BATCH_QO_INDPTR, 0, -1, "append_indptr[0] is -1, must be 0");
    refused(&positions, BATCH_QO_INDPTR, 2, 2, "append_indptr[2] is 2, must be at least append_indptr[1], which is 3");
    refused(&positions, BATCH_QO_INDPTR, 3, 9, "append_indptr[3] is 9, must be at most nnz, which is 8");
    refused(&positions, BATCH_KV_LEN, 0, 2,
            "seq_lens[0] is 2, must be at least the number of new tokens of request 0, which is 3");
    refused(&positions, BATCH_KV_LEN, 1, -1,
            "seq_lens[1] is -1, must be at least the number of new tokens of request 1, which is 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without, setup_folder, teardown_folder),
        cmocka_unit_test(test_good_tables),
        cmocka_unit_test(test_good_appends),
        cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_bad_places),
        cmocka_unit_test(test_bad_appends),
    };
    unsetenv("FLASHINFER_VALIDATE_INPUTS");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
