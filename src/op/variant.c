/* SPDX-License-Identifier: Apache-2.0 */
/* The public face of variants: from a source to a declaration and a text, both checked. */
#include "op/variant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/identifier.h"
#include "core/structure.h"
#include "op/program.h"

enum { MAX_WHAT = 128 };
enum { TENSOR_TYPES = F32 | F16 | BF16 | I32 | I64 | U8 | I8 | BOOL };

static bool is_tensor(int kind) { return kind == FLASHINFER_VARIANT_TENSOR || kind == FLASHINFER_VARIANT_OUTPUT; }

static flashinfer_status declare_number(const char *variant, const struct flashinfer_variant_argument *a, struct op_arg *out)
{
    const bool any = a->min == 0 && a->max == 0;
    if (!(a->min <= a->max))
        return fail(FLASHINFER_INVALID, "variant %s: %s has the range %g to %g", variant, a->name, a->min, a->max);
    if (a->shape || a->optional)
        return fail(FLASHINFER_INVALID, "variant %s: %s is a number, and has a shape or is optional", variant, a->name);
    *out = (struct op_arg){.name = a->name,
                           .kind = a->kind == FLASHINFER_VARIANT_FLOAT ? OP_NUMBER : OP_INT,
                           .flags = !any && a->max == 0 ? UP_TO_ZERO : 0,
                           .min = any ? -INFINITY : a->min,
                           .max = a->max};
    return FLASHINFER_OK;
}

static flashinfer_status declare_argument(const char *variant, int i, const struct flashinfer_variant_argument *a,
                                          struct op_arg *out)
{
    static const DLDataType f32 = {kDLFloat, 32, 1};
    const bool typed = a->dtype.bits || a->dtype.lanes || a->dtype.code;
    const enum dtype dtype = dtype_of(typed ? a->dtype : f32);
    if (!is_identifier(a->name))
        return fail(FLASHINFER_INVALID,
                    "variant %s: arguments[%d].name is \"%s\", must be a C identifier of at most %d characters", variant, i,
                    a->name ? a->name : "", IDENTIFIER_MAX);
    if (a->kind < FLASHINFER_VARIANT_TENSOR || a->kind > FLASHINFER_VARIANT_INT)
        return fail(FLASHINFER_INVALID, "variant %s: %s has kind %d, must be 0 (tensor), 1 (output), 2 (float) or 3 (int)",
                    variant, a->name, (int)a->kind);
    if (!is_tensor(a->kind))
        return declare_number(variant, a, out);
    if (!(TENSOR_TYPES >> dtype & 1))
        return fail(FLASHINFER_INVALID, "variant %s: %s has dtype {%d, %d, %d}, must be f32, f16, bf16, i32, i64, u8, i8 or bool",
                    variant, a->name, a->dtype.code, a->dtype.bits, a->dtype.lanes);
    if (!a->shape || strpbrk(a->shape, ".|"))
        return fail(FLASHINFER_INVALID, "variant %s: %s has the shape \"%s\", must be 1 to %d axes, without ... and |", variant,
                    a->name, a->shape ? a->shape : "", FLASHINFER_VARIANT_MAX_AXES);
    *out = (struct op_arg){.name = a->name,
                           .kind = a->kind == FLASHINFER_VARIANT_TENSOR ? OP_IN : OP_INOUT,
                           .flags = a->optional ? OPTIONAL : 0,
                           .dtype.set = 1u << dtype,
                           .shape = a->shape};
    return FLASHINFER_OK;
}

/* The op with the further arguments, and what of them kernels are to be told. */
static flashinfer_status declare(const struct op *base, const struct flashinfer_variant_source *s, flashinfer_variant *out)
{
    struct op_arg extra[FLASHINFER_VARIANT_MAX_ARGUMENTS];
    struct op_variant *v = &out->variant;
    for (int i = 0; i < s->num_arguments; i++) {
        struct flashinfer_variant_argument a;
        char what[MAX_WHAT];
        snprintf(what, sizeof what, "variant %s: arguments[%d]", s->name, i);
        TRY(structure_read(&a, sizeof a, (const char *)s->arguments + (size_t)i * s->arguments->size, what));
        TRY(declare_argument(s->name, i, &a, &extra[i]));
        v->argument[i].kind = (uint8_t)a.kind;
        v->argument[i].offset = (uint16_t)(base->args_bytes + (size_t)i * sizeof(double));
    }
    v->num_arguments = s->num_arguments;
    TRY(op_extend(base, s->name, extra, s->num_arguments, &out->op));
    const struct program *program = op_program(out->op);
    for (int i = 0; i < s->num_arguments; i++) {
        const int shape = program->arg[program_argument(program, extra[i].name)].first_shape;
        const int axes = is_tensor(v->argument[i].kind) ? program->shapes[shape].count : 0;
        if (axes > FLASHINFER_VARIANT_MAX_AXES || (is_tensor(v->argument[i].kind) && axes == 0))
            return fail(FLASHINFER_INVALID, "variant %s: %s has the shape \"%s\", must be 1 to %d axes, without ... and |",
                        s->name, extra[i].name, extra[i].shape, FLASHINFER_VARIANT_MAX_AXES);
        v->argument[i].axes = (uint8_t)axes;
    }
    return FLASHINFER_OK;
}

static flashinfer_status check_base(const struct flashinfer_variant_source *s, const struct op **out)
{
    const struct op *base = s->base ? op_find(s->base) : NULL;
    if (!base)
        return fail(FLASHINFER_INVALID, "variant %s: base is \"%s\", which is no op; `flashinfer list` names all", s->name,
                    s->base ? s->base : "");
    *out = base;
    if (!base->hooks)
        return fail(FLASHINFER_INVALID, "variant %s: no kernel of its base %s takes in hooks", s->name, s->base);
    return FLASHINFER_OK;
}

static flashinfer_status check_source(const struct flashinfer_variant_source *s, const struct op **base, struct op_variant *v)
{
    if (!is_identifier(s->name))
        return fail(FLASHINFER_INVALID,
                    "flashinfer_variant_create: name is \"%s\", must be a C identifier of at most %d characters",
                    s->name ? s->name : "", IDENTIFIER_MAX);
    if (op_find(s->name))
        return fail(FLASHINFER_INVALID, "flashinfer_variant_create: name is \"%s\", which is an op", s->name);
    TRY(check_base(s, base));
    if (!s->hooks)
        return fail(FLASHINFER_INVALID, "variant %s: hooks is NULL, must be their text", s->name);
    if (s->num_arguments < 0 || s->num_arguments > FLASHINFER_VARIANT_MAX_ARGUMENTS || (s->num_arguments && !s->arguments))
        return fail(FLASHINFER_INVALID, "variant %s: num_arguments is %d and arguments %s, must be up to %d of them", s->name,
                    (int)s->num_arguments, s->arguments ? "given" : "NULL", FLASHINFER_VARIANT_MAX_ARGUMENTS);
    if (s->flags & ~(uint32_t)FLASHINFER_VARIANT_NO_SOFTMAX)
        return fail(FLASHINFER_INVALID, "variant %s: flags is %#x, must be FLASHINFER_VARIANT_NO_SOFTMAX or 0", s->name,
                    s->flags);
    TRY(variant_find_hooks(s->name, s->hooks, &v->hooks));
    if (!(s->flags & FLASHINFER_VARIANT_NO_SOFTMAX))
        return FLASHINFER_OK;
    if (!(v->hooks & HOOK_LOGITS))
        return fail(FLASHINFER_INVALID,
                    "variant %s: FLASHINFER_VARIANT_NO_SOFTMAX without a hook logits, which makes the weights", s->name);
    v->hooks |= HOOK_NO_SOFTMAX;
    return FLASHINFER_OK;
}

static flashinfer_status make(const struct flashinfer_variant_source *s, flashinfer_variant *v)
{
    const struct op *base = NULL;
    struct text text = {0};
    TRY(check_source(s, &base, &v->variant));
    TRY(declare(base, s, v));
    flashinfer_status status = variant_write_text(s, v->op, &v->variant, &text);
    if (!status && !(v->variant.text = jit_keep_text(text.data, false)))
        status = fail(FLASHINFER_MEMORY, "variant %s: out of memory", s->name);
    text_free(&text);
    v->op->variant = &v->variant;
    return status;
}

flashinfer_status flashinfer_variant_create(const struct flashinfer_variant_source *source, flashinfer_variant **out)
{
    struct flashinfer_variant_source s;
    if (!out)
        return fail(FLASHINFER_INVALID, "flashinfer_variant_create: out is NULL");
    *out = NULL;
    TRY(structure_read(&s, sizeof s, source, "flashinfer_variant_create: source"));
    flashinfer_variant *made = calloc(1, sizeof *made);
    if (!made)
        return fail(FLASHINFER_MEMORY, "flashinfer_variant_create: out of memory");
    flashinfer_status status = make(&s, made);
    if (status)
        flashinfer_variant_destroy(made);
    else
        *out = made;
    return status;
}

void flashinfer_variant_destroy(flashinfer_variant *variant)
{
    if (variant)
        op_extend_end(variant->op);
    free(variant);
}

static flashinfer_status check_handle(const flashinfer_variant *variant, const char *function)
{
    return variant ? FLASHINFER_OK : fail(FLASHINFER_INVALID, "%s: variant is NULL", function);
}

flashinfer_status flashinfer_variant_call(const flashinfer_variant *variant, const void *args, const flashinfer_exec *exec)
{
    TRY(check_handle(variant, "flashinfer_variant_call"));
    return op_call(variant->op, args, exec);
}

flashinfer_status flashinfer_variant_prepare(const flashinfer_variant *variant, const void *args, const flashinfer_exec *exec)
{
    TRY(check_handle(variant, "flashinfer_variant_prepare"));
    return op_prepare(variant->op, args, exec);
}

flashinfer_status flashinfer_variant_workspace_size(const flashinfer_variant *variant, const void *args,
                                                    const flashinfer_exec *exec, size_t *bytes)
{
    TRY(check_handle(variant, "flashinfer_variant_workspace_size"));
    if (!bytes)
        return fail(FLASHINFER_INVALID, "%s: bytes is NULL", variant->op->name);
    return op_workspace_size(variant->op, args, exec, bytes);
}
