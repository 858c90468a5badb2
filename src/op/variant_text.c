/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a variant: which hooks it has, and what the compilers see of it. */
#include <ctype.h>
#include <string.h>

#include "op/variant.h"

static const struct {
    const char *name, *macro;
    uint32_t hook;
} hook_names[] = {
    {"query", "HOOK_QUERY", HOOK_QUERY}, {"key", "HOOK_KEY", HOOK_KEY},          {"logits", "HOOK_LOGITS", HOOK_LOGITS},
    {"mask", "HOOK_MASK", HOOK_MASK},    {"output", "HOOK_OUTPUT", HOOK_OUTPUT},
};
enum { NUM_HOOKS = sizeof hook_names / sizeof *hook_names, MAX_WORD = 64 };

const char *variant_hook_name(uint32_t hook)
{
    for (int i = 0; i < NUM_HOOKS; i++)
        if (hook_names[i].hook == hook)
            return hook_names[i].name;
    return "";
}

/* Behind a comment or a literal that begins at `at`, else `at`. */
static const char *skip_text(const char *at)
{
    const char *end = at;
    if (at[0] == '/' && at[1] == '/')
        return at + strcspn(at, "\n");
    if (at[0] == '/' && at[1] == '*')
        return (end = strstr(at + 2, "*/")) ? end + 2 : at + strlen(at);
    if (*at != '"' && *at != '\'')
        return at;
    for (end = at + 1; *end && *end != *at && *end != '\n'; end++)
        end += *end == '\\' && end[1];
    return *end ? end + 1 : end;
}

/* The next word of letters, digits and _, or a single other character. NULL at the end of the text. */
static const char *next_word(const char *at, char word[MAX_WORD])
{
    for (const char *next; *at; at = next)
        if ((next = skip_text(at)) == at && !isspace((unsigned char)*(next = at)))
            break;
        else if (next == at)
            next++;
    if (!*at)
        return NULL;
    size_t length = 0;
    while (isalnum((unsigned char)at[length]) || at[length] == '_')
        length++;
    length = length ? length : 1;
    size_t kept = length < MAX_WORD ? length : MAX_WORD - 1;
    memcpy(word, at, kept);
    word[kept] = 0;
    return at + length;
}

static flashinfer_status add_hook(const char *variant, const char *name, uint32_t *hooks)
{
    for (int i = 0; i < NUM_HOOKS; i++) {
        if (strcmp(name, hook_names[i].name))
            continue;
        if (*hooks & hook_names[i].hook)
            return fail(FLASHINFER_INVALID, "variant %s: its text has the hook %s twice", variant, name);
        *hooks |= hook_names[i].hook;
        return FLASHINFER_OK;
    }
    return fail(FLASHINFER_INVALID, "variant %s: its text has a hook \"%s\", must be one of: query, key, logits, mask, output",
                variant, name);
}

flashinfer_status variant_find_hooks(const char *name, const char *text, uint32_t *hooks)
{
    char word[MAX_WORD], before[MAX_WORD];
    *hooks = 0;
    while ((text = next_word(text, word))) {
        if (strcmp(word, "HOOK"))
            continue;
        *before = 0;
        while ((text = next_word(text, word)) && *word != '(')
            memcpy(before, word, sizeof before);
        TRY(add_hook(name, before, hooks));
        if (!text)
            break;
    }
    if (*hooks)
        return FLASHINFER_OK;
    return fail(FLASHINFER_INVALID,
                "variant %s: its text has no hook, such as: HOOK float logits(struct variant v, float s, struct at a)", name);
}

/* Each field takes a multiple of 8 bytes, so that variant_pack need not know of padding. */
static void write_field(const struct op_arg *arg, int kind, int axes, struct text *out)
{
    if (kind == FLASHINFER_VARIANT_FLOAT)
        text_print(out, "    __attribute__((aligned(8))) float %s;\n", arg->name);
    else if (kind == FLASHINFER_VARIANT_INT)
        text_print(out, "    int64_t %s;\n", arg->name);
    if (kind == FLASHINFER_VARIANT_FLOAT || kind == FLASHINFER_VARIANT_INT)
        return;
    enum dtype dtype = (enum dtype)__builtin_ctz(arg->dtype.set);
    text_print(out, "    %s%s *%s;\n    int64_t %s_shape[%d], %s_stride[%d];\n",
               kind == FLASHINFER_VARIANT_OUTPUT ? "" : "const ", dtype == DTYPE_BOOL ? "bool" : dtype_name(dtype), arg->name,
               arg->name, axes, arg->name, axes);
}

static const struct op_arg *find_argument(const struct op *op, uint16_t offset)
{
    const struct op_arg *arg = op->args;
    while (arg->offset != offset)
        arg++;
    return arg;
}

flashinfer_status variant_write_text(const struct flashinfer_variant_source *source, const struct op *op,
                                     const struct op_variant *variant, struct text *out)
{
    for (int i = 0; i < NUM_HOOKS; i++)
        if (variant->hooks & hook_names[i].hook)
            text_print(out, "#define %s\n", hook_names[i].macro);
    if (variant->hooks & HOOK_NO_SOFTMAX)
        text_print(out, "#define HOOK_NO_SOFTMAX\n");
    text_print(out, "#line 1 \"arguments of %s\"\nstruct variant {\n", source->name);
    for (int i = 0; i < variant->num_arguments; i++)
        write_field(find_argument(op, variant->argument[i].offset), variant->argument[i].kind, variant->argument[i].axes, out);
    if (!variant->num_arguments)
        text_print(out, "    int64_t unused;\n");
    text_print(out, "};\n#line 1 \"%s\"\n%s\n", source->name, source->hooks);
    return text_check(out);
}
