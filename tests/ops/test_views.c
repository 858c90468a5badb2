/* SPDX-License-Identifier: Apache-2.0 */
/* Input that looks odd but is legal: K and V of one fused cache, q, k and v of one row, tensors that miss their alignment.
 * Results are those of separate, aligned tensors, bit for bit on the CPU; on a GPU another specialisation or another kernel is
 * taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "op/op.h"
#include "tests/ops/attention_batch.h"
#include "tests/ops/right_calls.h"

#include <cmocka.h> /* last: it makes fail() a macro */

static const struct device *cpu(void)
{
    const struct device *device;
    MUST(device_get((DLDevice){kDLCPU, 0}, &device));
    return device;
}

static void expect_equal(const struct attention_batch *a, const struct attention_batch *b, enum batch_tensor which)
{
    size_t bytes, other;
    unsigned char *x = attention_batch_fetch(a, which, &bytes), *y = attention_batch_fetch(b, which, &other);
    assert_int_equal(bytes, other);
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
}

/* Rotates and appends the new tokens, then attends, in a layout and in the plain one. */
static void compare_layouts(struct attention_shape shape)
{
    static const int32_t qo_len[] = {3, 0, 5}, kv_len[] = {7, 0, 21}, one[] = {1, 1, 1}, decode_kv_len[] = {1, 9, 17};
    struct attention_batch odd, plain;
    bool decode = !shape.max_total_qo;
    attention_batch_create(&odd, &shape, cpu(), 5);
    shape.fused = false;
    shape.offset = 0;
    attention_batch_create(&plain, &shape, cpu(), 5);
    for (struct attention_batch *b = &odd; b; b = b == &odd ? &plain : NULL) {
        attention_batch_requests(b, 3, decode ? one : qo_len, decode ? decode_kv_len : kv_len, 9);
        attention_batch_show(b, false);
        attention_batch_poison(b, 0x7f);
        MUST(attention_batch_append(b));
        MUST(attention_batch_run(b));
    }
    for (int which = BATCH_OUT; which <= BATCH_V_CACHE; which++)
        expect_equal(&odd, &plain, (enum batch_tensor)which);
    attention_batch_destroy(&odd);
    attention_batch_destroy(&plain);
}

static void test_attention(void **state)
{
    (void)state;
    const struct attention_shape prefill = {.dtype = DTYPE_BF16,
                                            .num_qo_heads = 6,
                                            .num_kv_heads = 2,
                                            .head_dim = 64,
                                            .page_size = 4,
                                            .num_pages = 12,
                                            .max_batch_size = 3,
                                            .max_total_qo = 8};
    for (int i = 0; i < 8; i++) {
        struct attention_shape shape = prefill;
        shape.fused = i & 1;
        shape.offset = i & 2 ? 3 : 0;
        shape.max_total_qo = i & 4 ? 0 : 8;
        shape.kv_layout = i & 1 ? FLASHINFER_HND : FLASHINFER_NHD;
        compare_layouts(shape);
    }
}

/* What a call with these tensors would run on an H200. */
static const char *picked(const struct op *op, const void *args, const flashinfer_exec *exec, struct jit_spec *spec)
{
    struct call call;
    struct way way = {.num_specs = 0};
    const struct op_kernel *row = NULL;
    struct device imagined;
    MUST(device_imagine(90, &imagined));
    MUST(call_check(&call, op, args, exec, false, &imagined));
    MUST(call_pick(&call, &row, &way));
    *spec = way.spec[0];
    return row->name;
}

static struct right_calls c;

/* The kernel for the right call, and that with one tensor an element further; the same kernel must be another specialisation. */
#define EXPECT(op, argument, aligned, misaligned)                                             \
    do {                                                                                      \
        struct jit_spec first, second;                                                        \
        assert_string_equal(picked(op_find(#op), &c.op.args, &c.exec, &first), aligned);      \
        c.op.argument.data = (char *)c.op.argument.data + (c.op.argument.dtype.bits + 7) / 8; \
        assert_string_equal(picked(op_find(#op), &c.op.args, &c.exec, &second), misaligned);  \
        assert_memory_not_equal(&first, &second, sizeof first);                               \
    } while (0)

static void plan_for_cuda(void)
{
    c.batch_prefill_plan.args.plan = &c.prefill_plan;
    c.batch_decode_plan.args.plan = &c.decode_plan;
    static const char *const names[] = {"batch_prefill_plan", "batch_decode_plan"};
    const void *const args[] = {&c.batch_prefill_plan.args, &c.batch_decode_plan.args};
    struct device imagined;
    MUST(device_imagine(90, &imagined));
    for (int i = 0; i < 2; i++) {
        struct call call;
        struct way way;
        const struct op_kernel *row;
        MUST(call_check(&call, op_find(names[i]), args[i], NULL, true, &imagined));
        MUST(call_pick(&call, &row, &way));
        MUST(call_run(&call, row, &way));
    }
}

static void test_kernels_of_misaligned_tensors(void **state)
{
    (void)state;
    right_calls_reset(&c);
    plan_for_cuda();
    EXPECT(rmsnorm, input, "norm_short_sm80", "norm_short_sm80");
    EXPECT(fused_add_rmsnorm, residual, "norm_short_sm80", "norm_short_sm80");
    EXPECT(silu_and_mul, input, "gated_activation_sm80", "gated_activation_sm80");
    EXPECT(apply_rope_pos_ids, k_rope, "rope_sm80", "rope_sm80");
    EXPECT(apply_rope_pos_ids_inplace, q, "rope_sm80", "rope_sm80");
    EXPECT(append_paged_kv_cache, append_value, "copy_heads_sm80", "copy_heads_sm80");
    EXPECT(batch_prefill, k_cache, "batch_prefill_sm80", "batch_prefill_sm80");
    EXPECT(batch_decode, q, "batch_decode_stream_sm80", "batch_decode_stream_sm80");
    EXPECT(softmax, logits, "softmax_sm80", "softmax_sm80");
    EXPECT(sampling_from_probs, probs, "sampling_sm80", "sampling_sm80");
    c.mm.b.strides = (int64_t[]){1, HIDDEN};
    EXPECT(mm, a, "mm_small_m_sm80", "mm_sm80");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention), cmocka_unit_test(test_kernels_of_misaligned_tensors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
