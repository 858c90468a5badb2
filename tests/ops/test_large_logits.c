/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill where a key at the start of some requests, which batch_prefill_sm90 looks at last, has logits far above all others of
 * some rows, so that tasks have to be done again, or a NaN. On the CPU, and on a GPU if there is one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "harness/device_memory.h"
#include "tests/ops/attention_batch.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { QO_HEADS = 8, KV_HEADS = 4, GROUP = QO_HEADS / KV_HEADS, MOST = 40, KEY = 3, STEP = 5 };
enum { BF16_NAN = 0x7fc0, BF16_16 = 0x4180 };

/* A batch and what it holds, on the host. */
struct scene {
    struct attention_batch b;
    int32_t batch, qo[MOST], kv[MOST], *pages, *first;
    uint16_t *q, *k, *v;
    size_t q_bytes, k_bytes;
};

static void set_up(struct scene *s, const struct device *device, int32_t head_dim, int32_t page_size, bool full)
{
    int32_t tokens = 0, pages = 0;
    size_t bytes;
    s->batch = device_is_cuda(device) ? MOST : 6;
    for (int32_t i = 0; i < s->batch; i++) {
        tokens += s->qo[i] = 20 + 61 * i % 500;
        s->kv[i] = s->qo[i] + 300 * (i % 4);
        pages += (s->kv[i] + page_size - 1) / page_size;
    }
    const struct attention_shape shape = {.dtype = DTYPE_BF16, .num_qo_heads = QO_HEADS, .num_kv_heads = KV_HEADS,
                                          .head_dim = head_dim, .page_size = page_size, .num_pages = pages, .full = full,
                                          .max_batch_size = s->batch, .max_total_qo = tokens,
                                          .kernel = device_is_cuda(device) ? "batch_prefill_sm90" : NULL};
    attention_batch_create(&s->b, &shape, device, 1);
    attention_batch_requests(&s->b, s->batch, s->qo, s->kv, 2);
    s->pages = attention_batch_fetch(&s->b, BATCH_KV_INDICES, &bytes);
    s->first = attention_batch_fetch(&s->b, BATCH_KV_INDPTR, &bytes);
    s->q = attention_batch_fetch(&s->b, BATCH_Q, &s->q_bytes);
    s->k = attention_batch_fetch(&s->b, BATCH_K_CACHE, &s->k_bytes);
    s->v = attention_batch_fetch(&s->b, BATCH_V_CACHE, &bytes);
}

static void tear_down(struct scene *s)
{
    attention_batch_destroy(&s->b);
    free(s->pages);
    free(s->first);
    free(s->q);
    free(s->k);
    free(s->v);
}

/* Which rows the key is for: heads of the first two KV heads. */
static bool is_for(int32_t token, int32_t head) { return token % STEP == 0 && head < 2 * GROUP; }
static bool is_hit(int32_t request) { return request % 3 != 1; }

/* Where the key of a request and head, and its value, lie in the caches. */
static int64_t place_of(const struct scene *s, int32_t request, int32_t kv_head)
{
    int32_t size = s->b.shape.page_size, slot = s->pages[s->first[request] + KEY / size] * size + KEY % size;
    return (int64_t)(slot * KV_HEADS + kv_head) * s->b.shape.head_dim;
}

struct results {
    uint16_t *out;
    float *lse;
    size_t out_bytes, lse_bytes;
};

/* Queries have 16 or 0 in their first element, keys 0; but that key of the requests that are hit has `value`, a bf16, there. */
static struct results run(struct scene *s, uint16_t value)
{
    struct results r;
    int64_t dim = s->b.shape.head_dim;
    for (int32_t i = 0; i < (int32_t)((int64_t)s->q_bytes / 2 / dim); i++)
        s->q[i * dim] = is_for(i / QO_HEADS, i % QO_HEADS) ? BF16_16 : 0;
    for (int64_t i = 0; i < (int64_t)s->k_bytes / 2 / dim; i++)
        s->k[i * dim] = 0;
    for (int32_t i = 0; i < s->batch; i++)
        for (int32_t head = 0; is_hit(i) && head < KV_HEADS; head++)
            s->k[place_of(s, i, head)] = value;
    MUST(device_upload(s->b.device, s->b.tensor[BATCH_Q].data, s->q, s->q_bytes));
    MUST(device_upload(s->b.device, s->b.tensor[BATCH_K_CACHE].data, s->k, s->k_bytes));
    attention_batch_poison(&s->b, 0x55);
    MUST(attention_batch_run(&s->b));
    r.out = attention_batch_fetch(&s->b, BATCH_OUT, &r.out_bytes);
    r.lse = attention_batch_fetch(&s->b, BATCH_LSE, &r.lse_bytes);
    return r;
}

static void destroy(struct results *r)
{
    free(r->out);
    free(r->lse);
}

static float widen(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static bool is_near(const uint16_t *x, const uint16_t *y, int32_t count, float absolute, float relative)
{
    bool near = true;
    for (int32_t i = 0; i < count; i++)
        near &= fabsf(widen(x[i]) - widen(y[i])) <= absolute + relative * fabsf(widen(y[i]));
    return near;
}

/* A row that the key is for has its value, but for two roundings; one of a request that is not hit the same bits as before; any
 * other the same numbers. */
static void compare(const struct scene *s, const struct results *plain, const struct results *r, uint16_t value)
{
    const int32_t dim = s->b.shape.head_dim;
    const float peak = 16.0f * widen(value) / sqrtf((float)dim) * 1.442695f;
    for (int32_t i = 0, token = 0; i < s->batch; i++)
        for (int32_t at = 0; at < s->qo[i]; at++, token++)
            for (int32_t head = 0; head < QO_HEADS; head++) {
                int32_t row = token * QO_HEADS + head;
                const uint16_t *x = r->out + (int64_t)row * dim, *usual = plain->out + (int64_t)row * dim;
                float lse = r->lse[row], usual_lse = plain->lse[row];
                bool sees = s->b.shape.full || s->kv[i] - s->qo[i] + at >= KEY;
                if (!is_hit(i)) {
                    assert_memory_equal(x, usual, (size_t)dim * 2);
                    assert_true(lse == usual_lse);
                } else if (value == BF16_NAN) {
                    assert_true(isnan(widen(x[1])) == sees);
                } else if (is_for(token, head) && sees) {
                    assert_true(is_near(x, s->v + place_of(s, i, head / GROUP), dim, 0.0f, 0x1p-7f));
                    assert_true(fabsf(lse - peak) < 25.0f + 0.01f * peak);
                } else {
                    assert_true(is_near(x, usual, dim, 0.02f, 0.0f) && fabsf(lse - usual_lse) < 0.02f);
                }
            }
}

static void test_on(const struct device *device)
{
    /* Weights of 2^41, 2^163 and 2^8357 at head_dim 128, of which float32 holds the first alone; and a NaN. */
    static const uint16_t values[] = {0x41a0, 0x42a0, 0x4580, BF16_NAN};
    static const struct {
        int32_t head_dim, page_size;
        bool full;
    } forms[] = {{64, 16, false}, {64, 16, true}, {64, 1, false}, {128, 16, false}, {128, 16, true}, {128, 1, true},
                 {256, 16, false}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct scene s;
        set_up(&s, device, forms[i].head_dim, forms[i].page_size, forms[i].full);
        struct results plain = run(&s, 0);
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            struct results r = run(&s, values[k]), again = run(&s, values[k]);
            compare(&s, &plain, &r, values[k]);
            assert_memory_equal(r.out, again.out, r.out_bytes);
            assert_memory_equal(r.lse, again.lse, r.lse_bytes);
            destroy(&r);
            destroy(&again);
        }
        destroy(&plain);
        tear_down(&s);
    }
}

static void test_cpu(void **state)
{
    (void)state;
    test_on(attention_batch_device(kDLCPU));
}

static void test_gpu(void **state)
{
    (void)state;
    const struct device *device = attention_batch_device(kDLCUDA);
    if (!device || device->arch < 90 || device->arch >= 100)
        skip();
    test_on(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
