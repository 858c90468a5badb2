/* SPDX-License-Identifier: Apache-2.0 */
/* What a program used, one kernel a line, so that another machine can compile it before the program starts:
 *
 *     norm_sm80 sm_90a T:dtype=bf16 VEC=8
 *     scale cpu FACTOR=3 text="void scale(...)\n{\n..."
 *
 * kernel, architecture, constants; a user's source is the last word, `text` if it is the kernel, `variant` if it is hooks. A line
 * is written at once, at the end of the file, so that processes may share one. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arch.h"
#include "core/dtype.h"
#include "core/environment.h"
#include "core/file.h"
#include "core/identifier.h"
#include "jit/internal.h"

static const char text_word[] = "text=\"", variant_word[] = "variant=\"";

static bool is_dtype(const char *constant)
{
    const char *colon = strchr(constant, ':');
    return colon && !strcmp(colon, ":dtype");
}

static void add_quoted(struct text *line, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            text_add(line, "\\n", 2);
        else if (*text == '\\' || *text == '"')
            text_print(line, "\\%c", *text);
        else
            text_add(line, text, 1);
    text_add(line, "\"", 1);
}

void jit_record(const struct jit_spec *spec, const struct device *device)
{
    struct text line = {0};
    const char *path = environment()->record;
    if (!*path)
        return;
    text_print(&line, "%s %s", spec->kernel->name, spec->kernel->target == JIT_CUDA ? device->isa : "cpu");
    for (int i = 0; i < JIT_MAX_CONSTANTS && spec->kernel->constants[i]; i++) {
        const char *name = spec->kernel->constants[i];
        if (is_dtype(name))
            text_print(&line, " %s=%s", name, dtype_name((enum dtype)spec->constant[i]));
        else
            text_print(&line, " %s=%d", name, (int)spec->constant[i]);
    }
    if (spec->user) {
        text_print(&line, " %s", spec->user->is_kernel ? text_word : variant_word);
        add_quoted(&line, spec->user->text);
    }
    text_add(&line, "\n", 1);
    int file = text_check(&line) ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    if (file >= 0) {
        file_write(file, line.data, line.size);
        close(file);
    }
    text_free(&line);
}

/* The user's source up to its closing quote, which ends the line. */
static flashinfer_status parse_text(char *at, bool is_kernel, struct jit_spec *spec)
{
    const char *text = at;
    char *out = at;
    for (; *at && *at != '"'; at++)
        if (*at != '\\')
            *out++ = *at;
        else if (*++at == 'n')
            *out++ = '\n';
        else if (*at == '\\' || *at == '"')
            *out++ = *at;
        else
            return fail(FLASHINFER_INVALID, "in the source text, \\ stands before neither n, \\ nor \"");
    if (*at != '"' || at[1 + strspn(at + 1, " \r\n")])
        return fail(FLASHINFER_INVALID, "the source text does not end with \" and the line");
    *out = 0;
    spec->user = jit_keep_text(text, is_kernel);
    return spec->user ? FLASHINFER_OK : fail(FLASHINFER_MEMORY, "out of host memory");
}

/* "T:dtype=bf16" or "VEC=8"; the name is kept where it stands. */
static flashinfer_status parse_constant(char *word, const char **name, int32_t *value)
{
    char *equals = strchr(word, '='), *end;
    if (!equals)
        return fail(FLASHINFER_INVALID, "\"%s\" is not NAME=VALUE", word);
    *equals = 0;
    char *colon = strchr(word, ':');
    bool dtype = is_dtype(word);
    if (colon)
        *colon = 0;
    bool right = is_identifier(word) && (!colon || dtype);
    if (colon)
        *colon = ':';
    if (!right)
        return fail(FLASHINFER_INVALID, "\"%s\" is no name of a constant", word);
    *name = word;
    if (dtype) {
        *value = (int32_t)dtype_by_name(equals + 1);
        return *value ? FLASHINFER_OK : fail(FLASHINFER_INVALID, "\"%s\" is no dtype", equals + 1);
    }
    long number = strtol(equals + 1, &end, 10);
    *value = (int32_t)number;
    return end > equals + 1 && !*end && !isspace((unsigned char)equals[1]) && number == *value
               ? FLASHINFER_OK
               : fail(FLASHINFER_INVALID, "%s=%s: must be a 32-bit integer", word, equals + 1);
}

static flashinfer_status parse_words(char *line, struct jit_spec *spec, int32_t *arch)
{
    char *rest, *word = strtok_r(line, " \r\n", &rest);
    struct jit_kernel kernel = {.name = word};
    int32_t archs[2];
    int n = 0;
    if (!word || !is_identifier(word))
        return fail(FLASHINFER_INVALID, "\"%s\" is no kernel's name", word ? word : "");
    if (!(word = strtok_r(NULL, " \r\n", &rest)))
        return fail(FLASHINFER_INVALID, "no architecture follows %s", kernel.name);
    kernel.target = strcmp(word, "cpu") ? JIT_CUDA : JIT_CPU;
    *arch = 0;
    if (kernel.target == JIT_CUDA && (strncmp(word, "sm_", 3) || arch_parse_list(word, archs, 1)))
        return fail(FLASHINFER_INVALID, "\"%s\" is neither cpu nor an architecture that kernels are compiled for", word);
    if (kernel.target == JIT_CUDA)
        *arch = archs[0];
    while (rest && *(rest += strspn(rest, " \r\n"))) {
        bool text = !strncmp(rest, text_word, sizeof text_word - 1),
             variant = !strncmp(rest, variant_word, sizeof variant_word - 1);
        if (text || variant) {
            TRY(parse_text(rest + (text ? sizeof text_word : sizeof variant_word) - 1, text, spec));
            break;
        }
        if (n == JIT_MAX_CONSTANTS)
            return fail(FLASHINFER_INVALID, "kernel %s has more than %d constants", kernel.name, n);
        TRY(parse_constant(strtok_r(NULL, " \r\n", &rest), &kernel.constants[n], &spec->constant[n]));
        n++;
    }
    spec->kernel = jit_keep_kernel(&kernel);
    return spec->kernel ? FLASHINFER_OK : fail(FLASHINFER_MEMORY, "out of host memory");
}

flashinfer_status jit_record_parse(const char *line, struct jit_spec *spec, int32_t *arch)
{
    char *copy = strdup(line);
    memset(spec, 0, sizeof *spec);
    if (!copy)
        return fail(FLASHINFER_MEMORY, "out of host memory");
    flashinfer_status status = parse_words(copy, spec, arch);
    free(copy);
    return status;
}
