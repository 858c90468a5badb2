/* SPDX-License-Identifier: Apache-2.0 */
/* Variants: an op with hooks of a user. variant.c checks them and makes their declaration with op_extend; variant_text.c makes
 * the text that kernels include as "variant.h"; call.c gives it to the kernels, with the values of the further arguments from
 * variant_pass.c. */
#ifndef OP_VARIANT_H
#define OP_VARIANT_H

#include "core/text.h"
#include "flashinfer/variant.h"
#include "op/op.h"

/* What struct op points to. */
struct op_variant {
    const struct jit_text *text;
    uint32_t hooks; /* that the text has, bits of enum op_hook; and HOOK_NO_SOFTMAX */
    int num_arguments;
    struct {
        uint8_t kind;    /* FLASHINFER_VARIANT_ */
        uint8_t axes;    /* of a tensor */
        uint16_t offset; /* in the op's struct */
    } argument[FLASHINFER_VARIANT_MAX_ARGUMENTS];
};

struct flashinfer_variant {
    struct op *op; /* for those who walk ops */
    struct op_variant variant;
};

enum { VARIANT_MAX_BYTES = FLASHINFER_VARIANT_MAX_ARGUMENTS * 8 * (1 + 2 * FLASHINFER_VARIANT_MAX_AXES) };

/* variant_pass.c. Why kernels that take in `hooks` cannot serve a call of the variant, or NULL. */
const char *variant_unserved(const struct op_variant *variant, uint32_t hooks);

/* Writes what kernels call struct variant: at most VARIANT_MAX_BYTES. Returns how many. */
size_t variant_pack(const struct call *call, void *to);

/* variant_text.c: the hooks that a text has, and the text for kernels. */
flashinfer_status variant_find_hooks(const char *name, const char *text, uint32_t *hooks);
flashinfer_status variant_write_text(const struct flashinfer_variant_source *source, const struct op *op,
                                     const struct op_variant *variant, struct text *out);
const char *variant_hook_name(uint32_t hook);

#endif
