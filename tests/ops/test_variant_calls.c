/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of variants: what prepare compiles and a record says of it, what no kernel serves, and a text that does not compile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "flashinfer/attention.h"
#include "jit/internal.h"
#include "op/variant.h"
#include "tests/jit/support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { TOKENS = 3, HEADS = 2, HEAD_DIM = 64 };

/* A call of a variant of single_prefill_with_kv_cache with one further tensor. */
static struct attention {
    uint16_t memory[4][TOKENS * HEADS * HEAD_DIM];
    float lse[TOKENS * HEADS], slopes[HEADS];
    int64_t shape[3], heads;
    DLTensor out, lse_tensor, q, k, v, slopes_tensor;
    struct {
        struct flashinfer_single_prefill_with_kv_cache base;
        const DLTensor *slopes;
    } args;
} c;

static DLTensor tensor(void *data, enum dtype dtype, int ndim, int64_t *shape)
{
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype_dlpack(dtype), .shape = shape};
}

static void reset(void)
{
    memset(&c, 0, sizeof c);
    memcpy(c.shape, (const int64_t[]){TOKENS, HEADS, HEAD_DIM}, sizeof c.shape);
    c.heads = HEADS;
    for (int i = 0; i < TOKENS * HEADS * HEAD_DIM; i++)
        for (int t = 1; t < 4; t++)
            dtype_store(DTYPE_BF16, &c.memory[t][i], (double)((i * 7 + t) % 11) / 8 - 0.5);
    c.out = tensor(c.memory[0], DTYPE_BF16, 3, c.shape);
    c.q = tensor(c.memory[1], DTYPE_BF16, 3, c.shape);
    c.k = tensor(c.memory[2], DTYPE_BF16, 3, c.shape);
    c.v = tensor(c.memory[3], DTYPE_BF16, 3, c.shape);
    c.lse_tensor = tensor(c.lse, DTYPE_F32, 2, c.shape);
    c.slopes_tensor = tensor(c.slopes, DTYPE_F32, 1, &c.heads);
    c.args.base = (struct flashinfer_single_prefill_with_kv_cache){
        .size = sizeof c.args, .out = &c.out, .lse = &c.lse_tensor, .q = &c.q, .k = &c.k, .v = &c.v};
    c.args.slopes = &c.slopes_tensor;
}

static flashinfer_variant *create(const char *hooks, uint32_t flags)
{
    static const struct flashinfer_variant_argument slopes = {
        .size = sizeof slopes, .name = "slopes", .shape = "num_qo_heads", .optional = 1};
    const struct flashinfer_variant_source source = {.size = sizeof source,
                                                     .name = "mine",
                                                     .base = "single_prefill_with_kv_cache",
                                                     .hooks = hooks,
                                                     .arguments = &slopes,
                                                     .num_arguments = 1,
                                                     .flags = flags};
    flashinfer_variant *variant = NULL;
    reset();
    CHECK(flashinfer_variant_create(&source, &variant) == FLASHINFER_OK);
    return variant;
}

static const char alibi[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                            "{\n"
                            "    return s + (v.slopes ? v.slopes[a.qo_head] : 0) * (float)(a.kv - a.q);\n"
                            "}\n";

/* Prepared once, it runs without a compiler; a second variant of the same text needs none either; hooks change the results. */
static void prepared(void)
{
    char path[128];
    struct text record = {0};
    snprintf(path, sizeof path, "%s/record", folder);
    setenv("FLASHINFER_RECORD", path, 1);
    flashinfer_variant *variant = create(alibi, 0);
    c.out.data = NULL;
    CHECK(flashinfer_variant_prepare(variant, &c.args, NULL) == FLASHINFER_OK && compiled() == 1);
    c.out.data = c.memory[0];
    size_t bytes = 1;
    CHECK(flashinfer_variant_workspace_size(variant, &c.args, NULL, &bytes) == FLASHINFER_OK && bytes == 0);
    CHECK(flashinfer_variant_call(variant, &c.args, NULL) == FLASHINFER_OK && compiled() == 1);
    uint16_t plain[TOKENS * HEADS * HEAD_DIM];
    memcpy(plain, c.memory[0], sizeof plain);
    flashinfer_variant_destroy(variant);

    variant = create(alibi, 0);
    c.args.slopes = NULL;
    CHECK(flashinfer_variant_call(variant, &c.args, NULL) == FLASHINFER_OK && compiled() == 1);
    CHECK(!memcmp(plain, c.memory[0], sizeof plain));
    c.args.slopes = &c.slopes_tensor;
    c.slopes[0] = c.slopes[1] = 3;
    CHECK(flashinfer_variant_call(variant, &c.args, NULL) == FLASHINFER_OK && compiled() == 1);
    CHECK(memcmp(plain, c.memory[0], sizeof plain));

    struct jit_spec spec;
    int32_t arch;
    char line[2048];
    CHECK(file_read(path, &record) && !strncmp(record.data, "batch_prefill_cpu cpu ", 22));
    CHECK(strstr(record.data, " variant=\"#define HOOK_LOGITS\\n"));
    snprintf(line, sizeof line, "%s", record.data);
    CHECK(jit_record_parse(line, &spec, &arch) == FLASHINFER_OK && !strcmp(spec.user->text, variant->variant.text->text));
    text_free(&record);
    flashinfer_variant_destroy(variant);
}

static void test_prepared(void **state)
{
    (void)state;
    assert_int_equal(in_child(prepared), 0);
}

/* The compiler's words have the line of the text, and the source that it saw is kept. */
static void broken(void)
{
    char path[4096];
    flashinfer_variant *variant = create("ANYWHERE float f(float x) { return x; }\n"
                                         "HOOK float logits(struct variant v, float s, struct at a)\n"
                                         "{\n"
                                         "    return f(s) + v.slope[a.qo_head];\n"
                                         "}\n",
                                         0);
    c.memory[0][0] = 0x1234;
    CHECK_FAILS(flashinfer_variant_call(variant, &c.args, NULL), FLASHINFER_COMPILE, "mine:4:");
    CHECK(strstr(flashinfer_last_error(), "slope") && c.memory[0][0] == 0x1234);
    const char *at = strstr(flashinfer_last_error(), "does not compile; its source is ");
    CHECK(at && sscanf(at, "does not compile; its source is %4095[^:]", path) == 1);
    struct text source = {0};
    CHECK(file_read(path, &source) && strstr(source.data, "#line 1 \"mine\"\nANYWHERE float f"));
    text_free(&source);
    flashinfer_variant_destroy(variant);

    variant = create("HOOK float logits(float s) { return s; }\n", 0); /* not the hook's parameters */
    CHECK_FAILS(flashinfer_variant_prepare(variant, &c.args, NULL), FLASHINFER_COMPILE, "logits");
    flashinfer_variant_destroy(variant);
}

static void test_broken(void **state)
{
    (void)state;
    assert_int_equal(in_child(broken), 0);
}

static void refused(void)
{
    struct device hopper;
    struct call call;
    struct way way;
    const struct op_kernel *row;
    flashinfer_variant *variant = create(alibi, FLASHINFER_VARIANT_NO_SOFTMAX);
    CHECK_FAILS(flashinfer_variant_call(variant, &c.args, NULL), FLASHINFER_UNSUPPORTED,
                "batch_prefill_cpu: without softmax there are neither lse nor sinks");
    flashinfer_variant_destroy(variant);

    variant = create("HOOK float query(struct variant v, float x, struct at a) { return x; }\n", 0);
    const flashinfer_exec exec = {.size = sizeof exec, .kernel = "batch_prefill_sm90"};
    CHECK(device_imagine(90, &hopper) == FLASHINFER_OK);
    CHECK(call_check(&call, variant->op, &c.args, &exec, true, &hopper) == FLASHINFER_OK);
    CHECK_FAILS(call_pick(&call, &row, &way), FLASHINFER_UNSUPPORTED, "batch_prefill_sm90: takes in no hook query");
    call.exec.kernel = NULL;
    CHECK(call_pick(&call, &row, &way) == FLASHINFER_OK && !strcmp(row->name, "batch_prefill_sm80"));
    CHECK(way.spec[0].user == variant->variant.text);
    flashinfer_variant_destroy(variant);

    variant = create(alibi, 0);
    CHECK(call_check(&call, variant->op, &c.args, &exec, true, &hopper) == FLASHINFER_OK);
    CHECK(call_pick(&call, &row, &way) == FLASHINFER_OK && way.num_specs == 2 && way.spec[0].user && !way.spec[1].user);
    c.slopes_tensor.device.device_type = kDLCUDA;
    CHECK_FAILS(flashinfer_variant_call(variant, &c.args, NULL), FLASHINFER_INVALID, "mine: slopes");
    c.slopes_tensor.device.device_type = kDLCPU;
    c.heads = HEADS + 1;
    CHECK_FAILS(flashinfer_variant_call(variant, &c.args, NULL), FLASHINFER_INVALID,
                "mine: slopes has shape [3], must be [num_qo_heads] with num_qo_heads = 2");
    flashinfer_variant_destroy(variant);
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(in_child(refused), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prepared, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_broken, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_refused, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
