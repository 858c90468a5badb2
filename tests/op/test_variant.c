/* SPDX-License-Identifier: Apache-2.0 */
/* Making variants: what a source may say, the sentences for what it may not, and what kernels see of it. */
#include <pthread.h>
#include <stdlib.h>

#include "flashinfer/attention.h"
#include "op/program.h"
#include "op/variant.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

#define LOGITS "HOOK float logits(struct variant v, float s, struct at a) { return s; }\n"
#define ARGUMENT(...) {.size = sizeof(struct flashinfer_variant_argument), __VA_ARGS__}

static const struct flashinfer_variant_source usual = {
    .size = sizeof(struct flashinfer_variant_source), .name = "mine", .base = "batch_prefill", .hooks = LOGITS};

static flashinfer_variant *create(const struct flashinfer_variant_source *source)
{
    flashinfer_variant *variant = NULL;
    if (flashinfer_variant_create(source, &variant))
        fail_msg("%s", flashinfer_last_error());
    return variant;
}

static void refuse(const struct flashinfer_variant_source *source, const char *sentence)
{
    flashinfer_variant *variant = (void *)(uintptr_t)1;
    assert_int_equal(flashinfer_variant_create(source, &variant), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), sentence);
    assert_null(variant);
}

/* The usual source with a change is refused. */
#define REFUSED_WITH(change, sentence)                   \
    do {                                                 \
        struct flashinfer_variant_source source = usual; \
        source.change;                                   \
        refuse(&source, sentence);                       \
    } while (0)

static void refuse_argument(const struct flashinfer_variant_argument *argument, const char *sentence)
{
    struct flashinfer_variant_source source = usual;
    source.arguments = argument;
    source.num_arguments = 1;
    refuse(&source, sentence);
}

static void test_sources(void **state)
{
    (void)state;
    struct flashinfer_variant_source raw = usual;
    raw.hooks = "HOOK bool mask(struct variant v, struct at a) { return 1; }";
    raw.flags = FLASHINFER_VARIANT_NO_SOFTMAX;
    refuse(NULL, "flashinfer_variant_create: source is NULL");
    REFUSED_WITH(name = NULL, "flashinfer_variant_create: name is \"\", must be a C identifier of at most 60 characters");
    REFUSED_WITH(name = "flash-sigmoid",
                 "flashinfer_variant_create: name is \"flash-sigmoid\", must be a C identifier of at most 60 characters");
    REFUSED_WITH(name = "rmsnorm", "flashinfer_variant_create: name is \"rmsnorm\", which is an op");
    REFUSED_WITH(base = "prefill", "variant mine: base is \"prefill\", which is no op; `flashinfer list` names all");
    REFUSED_WITH(base = "rmsnorm", "variant mine: no kernel of its base rmsnorm takes in hooks");
    REFUSED_WITH(hooks = NULL, "variant mine: hooks is NULL, must be their text");
    REFUSED_WITH(num_arguments = 1, "variant mine: num_arguments is 1 and arguments NULL, must be up to 16 of them");
    REFUSED_WITH(flags = 2, "variant mine: flags is 0x2, must be FLASHINFER_VARIANT_NO_SOFTMAX or 0");
    refuse(&raw, "variant mine: FLASHINFER_VARIANT_NO_SOFTMAX without a hook logits, which makes the weights");
    assert_int_equal(flashinfer_variant_create(&usual, NULL), FLASHINFER_INVALID);
}

static void test_hooks(void **state)
{
    (void)state;
    static const char none[] = "variant mine: its text has no hook, such as: "
                               "HOOK float logits(struct variant v, float s, struct at a)";
    REFUSED_WITH(hooks = "", none);
    REFUSED_WITH(hooks = "float logits(float s) { return s; }", none);
    REFUSED_WITH(hooks = "/* HOOK float logits( */ // HOOK float mask(\n\"HOOK float key(\" '\\'' \"\\\"HOOK\"", none);
    REFUSED_WITH(hooks = "/* HOOK", none);
    REFUSED_WITH(hooks = LOGITS LOGITS, "variant mine: its text has the hook logits twice");
    REFUSED_WITH(hooks = "HOOK float bias(struct variant v)",
                "variant mine: its text has a hook \"bias\", must be one of: query, key, logits, mask, output");
    REFUSED_WITH(hooks = LOGITS "HOOK",
                 "variant mine: its text has a hook \"\", must be one of: query, key, logits, mask, output");
    struct flashinfer_variant_source all = usual;
    all.hooks = "/**/HOOK float query(x)HOOK/*\n*/float\nkey (x) HOOK bool mask(x) ANYWHERE int f(x); "
                "HOOK float output(x)" LOGITS;
    flashinfer_variant *variant = create(&all);
    assert_int_equal(variant->variant.hooks, HOOK_QUERY | HOOK_KEY | HOOK_LOGITS | HOOK_MASK | HOOK_OUTPUT);
    flashinfer_variant_destroy(variant);
}

static void test_arguments(void **state)
{
    (void)state;
    static const struct flashinfer_variant_argument nameless = ARGUMENT(.shape = "batch"), spaced = ARGUMENT(.name = "a b"),
        kind = ARGUMENT(.name = "x", .kind = 4), dtype = ARGUMENT(.name = "x", .shape = "batch", .dtype = {kDLFloat, 64, 1}),
        shapeless = ARGUMENT(.name = "x"), leading = ARGUMENT(.name = "x", .shape = "... batch"),
        many = ARGUMENT(.name = "x", .shape = "a b c d e"), none = ARGUMENT(.name = "x", .shape = " "),
        twice = ARGUMENT(.name = "q", .shape = "batch"), wrong = ARGUMENT(.name = "x", .shape = "experts*batch"),
        ranged = ARGUMENT(.name = "x", .kind = FLASHINFER_VARIANT_FLOAT, .min = 1, .max = 0.5),
        shaped = ARGUMENT(.name = "x", .kind = FLASHINFER_VARIANT_INT, .shape = "1"), sizeless = {.name = "x"};
    refuse_argument(&nameless, "variant mine: arguments[0].name is \"\", must be a C identifier of at most 60 characters");
    refuse_argument(&spaced, "variant mine: arguments[0].name is \"a b\", must be a C identifier of at most 60 characters");
    refuse_argument(&kind, "variant mine: x has kind 4, must be 0 (tensor), 1 (output), 2 (float) or 3 (int)");
    refuse_argument(&dtype, "variant mine: x has dtype {2, 64, 1}, must be f32, f16, bf16, i32, i64, u8, i8 or bool");
    refuse_argument(&shapeless, "variant mine: x has the shape \"\", must be 1 to 4 axes, without ... and |");
    refuse_argument(&leading, "variant mine: x has the shape \"... batch\", must be 1 to 4 axes, without ... and |");
    refuse_argument(&many, "variant mine: x has the shape \"a b c d e\", must be 1 to 4 axes, without ... and |");
    refuse_argument(&none, "variant mine: x has the shape \" \", must be 1 to 4 axes, without ... and |");
    refuse_argument(&twice, "the declaration of mine is wrong: it has two arguments q");
    refuse_argument(&wrong, "the declaration of mine is wrong: nothing tells experts");
    refuse_argument(&ranged, "variant mine: x has the range 1 to 0.5");
    refuse_argument(&shaped, "variant mine: x is a number, and has a shape or is optional");
    refuse_argument(&sizeless, "variant mine: arguments[0]: size is 0, must be the size of the structure");
}

/* Outputs stand behind the base's, and fields in the order of the arguments. */
static void test_declaration(void **state)
{
    (void)state;
    static const struct flashinfer_variant_argument arguments[] = {
        ARGUMENT(.name = "slopes", .shape = "num_qo_heads"),
        ARGUMENT(.name = "dump", .kind = FLASHINFER_VARIANT_OUTPUT, .shape = "num_qo_heads total_q max_kv"),
        ARGUMENT(.name = "scale", .kind = FLASHINFER_VARIANT_FLOAT),
        ARGUMENT(.name = "flags", .shape = "batch 1", .optional = 1, .dtype = {kDLBool, 8, 1}),
        ARGUMENT(.name = "period", .kind = FLASHINFER_VARIANT_INT, .min = -3, .max = 9),
        ARGUMENT(.name = "decay", .kind = FLASHINFER_VARIANT_FLOAT, .min = -5),
    };
    struct flashinfer_variant_source source = usual;
    source.arguments = arguments;
    source.num_arguments = 6;
    flashinfer_variant *variant = create(&source);
    const struct op *op = variant->op, *base = op_find("batch_prefill");
    assert_int_equal(op_validate(op), FLASHINFER_OK);
    assert_string_equal(op->name, "mine");
    assert_int_equal(op->args_bytes, base->args_bytes + 6 * 8);
    int dump = program_argument(op_program(op), "dump"), period = program_argument(op_program(op), "period");
    assert_true(op_max(&op->args[period]) == 9 && op_max(&op->args[program_argument(op_program(op), "decay")]) == 0);
    assert_true(isinf(op_max(&op->args[program_argument(op_program(op), "scale")])));
    assert_int_equal(op->args[dump].offset, base->args_bytes + 8);
    assert_int_equal(op->args[dump].kind, OP_INOUT);
    assert_string_equal(op->args[dump - 1].name, "lse");
    assert_int_equal(op->args[period].offset, base->args_bytes + 4 * 8);
    assert_string_equal(variant->variant.text->text,
                        "#define HOOK_LOGITS\n"
                        "#line 1 \"arguments of mine\"\n"
                        "struct variant {\n"
                        "    const f32 *slopes;\n    int64_t slopes_shape[1], slopes_stride[1];\n"
                        "    f32 *dump;\n    int64_t dump_shape[3], dump_stride[3];\n"
                        "    __attribute__((aligned(8))) float scale;\n"
                        "    const bool *flags;\n    int64_t flags_shape[2], flags_stride[2];\n"
                        "    int64_t period;\n"
                        "    __attribute__((aligned(8))) float decay;\n"
                        "};\n#line 1 \"mine\"\n" LOGITS "\n");
    flashinfer_variant_destroy(variant);
    flashinfer_variant_destroy(NULL);
}

/* What kernels find in struct variant. */
static void test_values(void **state)
{
    (void)state;
    static const struct flashinfer_variant_argument arguments[] = {
        ARGUMENT(.name = "scale", .kind = FLASHINFER_VARIANT_FLOAT), ARGUMENT(.name = "period", .kind = FLASHINFER_VARIANT_INT),
        ARGUMENT(.name = "bias", .shape = "a b"), ARGUMENT(.name = "absent", .shape = "c", .optional = 1)};
    struct flashinfer_variant_source source = usual;
    source.arguments = arguments;
    source.num_arguments = 4;
    flashinfer_variant *variant = create(&source);
    struct {
        struct flashinfer_batch_prefill base;
        double scale;
        int64_t period;
        const DLTensor *bias, *absent;
    } args = {.scale = 0.25, .period = -7};
    struct {
        float scale, padding;
        int64_t period;
        void *bias;
        int64_t shape[2], stride[2];
        void *absent;
        int64_t absent_axis[2];
    } packed;
    int64_t strides[] = {5, 1};
    float memory[10];
    DLTensor bias = TENSOR(memory, DTYPE_F32, 2, 3);
    bias.strides = strides;
    args.bias = &bias;
    static struct call call;
    call.op = variant->op;
    call.args = &args;
    assert_int_equal(variant_pack(&call, &packed), sizeof packed);
    assert_true(packed.scale == 0.25f && packed.period == -7 && packed.bias == memory);
    assert_true(packed.shape[0] == 2 && packed.shape[1] == 3 && packed.stride[0] == 5 && packed.stride[1] == 1);
    assert_true(!packed.absent && packed.absent_axis[0] == 0 && packed.absent_axis[1] == 0);
    flashinfer_variant_destroy(variant);
}

static void *create_often(void *unused)
{
    (void)unused;
    static const struct flashinfer_variant_argument slopes = ARGUMENT(.name = "slopes", .shape = "num_qo_heads");
    struct flashinfer_variant_source source = usual;
    source.arguments = &slopes;
    source.num_arguments = 1;
    const struct jit_text *text = NULL;
    for (int i = 0; i < 200; i++) {
        flashinfer_variant *variant = create(&source);
        assert_true(!text || text == variant->variant.text);
        text = variant->variant.text;
        flashinfer_variant_destroy(variant);
    }
    return (void *)(uintptr_t)text;
}

/* Variants of the same text share it, whoever makes them, and so what is compiled of it. */
static void test_threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    void *text[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, create_often, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], &text[i]);
    for (int i = 1; i < THREADS; i++)
        assert_ptr_equal(text[i], text[0]);
}

static void test_handles(void **state)
{
    (void)state;
    flashinfer_variant *variant = create(&usual);
    size_t bytes;
    assert_int_equal(flashinfer_variant_call(NULL, NULL, NULL), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), "flashinfer_variant_call: variant is NULL");
    assert_int_equal(flashinfer_variant_prepare(NULL, NULL, NULL), FLASHINFER_INVALID);
    assert_int_equal(flashinfer_variant_workspace_size(NULL, NULL, NULL, &bytes), FLASHINFER_INVALID);
    assert_int_equal(flashinfer_variant_workspace_size(variant, NULL, NULL, NULL), FLASHINFER_INVALID);
    assert_int_equal(flashinfer_variant_call(variant, NULL, NULL), FLASHINFER_INVALID);
    assert_string_equal(flashinfer_last_error(), "mine: args is NULL, must point to a struct flashinfer_mine");
    flashinfer_variant_destroy(variant);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),     cmocka_unit_test(test_hooks),  cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_declaration), cmocka_unit_test(test_values), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_handles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
