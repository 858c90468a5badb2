/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel sources that are embedded in the library, and the one text that a kernel's source becomes when
 * every file it includes takes the place of its #include. That text is what is hashed and what is compiled,
 * so nothing else can change a kernel. #line directives make compilers, debuggers and sanitizers speak of the files
 * by their paths in the tree. FLASHINFER_SOURCE_DIR names a tree whose files take the place of the embedded ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

enum { MAX_FILES = 64, MAX_NAME = 64, MAX_PATH = 256, MAX_DIRECTIVE = 160 };

/* A file that a kernel reaches. */
struct source_file {
    char path[MAX_PATH]; /* in the tree; of a text of the user, its name */
    const char *text;    /* NULL: there is no such file */
    size_t size;
    struct text read; /* holds the text if it comes from FLASHINFER_SOURCE_DIR */
};

struct flattening {
    const struct jit_spec *spec;
    struct text *out;
    int files;
    struct file {
        char name[MAX_NAME];
        bool open;     /* being taken in: one that includes itself adds nothing */
        bool taken;    /* stands outside any #if: adds nothing again */
        bool optional; /* stood inside an #if, which may be false: a macro tells whether it was seen */
    } file[MAX_FILES];
};

struct directive {
    enum { OTHER, IF, IFNDEF, ENDIF, INCLUDE, LINE, PRAGMA_ONCE } kind;
    char name[MAX_NAME]; /* of INCLUDE */
    char path[MAX_PATH]; /* of LINE */
    int line;            /* of LINE */
};

static int compare_name(const void *name, const void *source)
{
    return strcmp(name, ((const struct embedded_source *)source)->name);
}

static const struct embedded_source *find_embedded(const char *name)
{
    return bsearch(name, embedded_sources, embedded_source_count, sizeof *embedded_sources, compare_name);
}

const char *jit_source(const char *name, size_t *size)
{
    const struct embedded_source *source = find_embedded(name);
    *size = source ? source->size : 0;
    return source ? source->text : NULL;
}

static bool read_from_tree(struct source_file *file, const char *path)
{
    char full[4096];
    snprintf(full, sizeof full, "%s/%s", environment()->source_dir, path);
    if (!file_read(full, &file->read))
        return false;
    snprintf(file->path, sizeof file->path, "%s", path);
    file->text = file->read.size ? file->read.data : "";
    file->size = file->read.size;
    return true;
}

/* A file that is new in the tree stands in one of the folders of those that are known. */
static void find_in_tree(struct source_file *file, const char *name)
{
    char path[MAX_PATH];
    const struct embedded_source *known = find_embedded(name);
    bool found = known && read_from_tree(file, known->path);
    for (uint64_t i = 0; i < embedded_source_count && !known && !found; i++) {
        const char *other = embedded_sources[i].path;
        snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(other, '/') + 1 - other), other, name);
        found = read_from_tree(file, path);
    }
}

static void find_source(struct source_file *file, const char *name)
{
    const struct embedded_source *known;
    *file = (struct source_file){.text = NULL};
    if (*environment()->source_dir) {
        find_in_tree(file, name);
    } else if ((known = find_embedded(name))) {
        snprintf(file->path, sizeof file->path, "%s", known->path);
        file->text = known->text;
        file->size = known->size;
    }
}

static void take_user_text(struct source_file *file, const char *name, const char *text)
{
    *file = (struct source_file){.text = text, .size = strlen(text)};
    snprintf(file->path, sizeof file->path, "%s", name);
}

static const char *where_searched(void)
{
    return *environment()->source_dir ? environment()->source_dir : "this library";
}

static struct directive parse(const char *line, size_t length)
{
    struct directive d = {OTHER, "", "", 0};
    char text[MAX_DIRECTIVE], word[16], rest[MAX_DIRECTIVE] = "";
    while (length > 0 && (*line == ' ' || *line == '\t'))
        line++, length--;
    if (length == 0 || *line != '#' || length >= sizeof text)
        return d;
    memcpy(text, line + 1, length - 1);
    text[length - 1] = 0;
    if (sscanf(text, " %15[a-z] %159[^\n]", word, rest) < 1)
        return d;
    if (!strcmp(word, "if") || !strcmp(word, "ifdef"))
        d.kind = IF;
    else if (!strcmp(word, "ifndef"))
        d.kind = IFNDEF;
    else if (!strcmp(word, "endif"))
        d.kind = ENDIF;
    else if (!strcmp(word, "include") && sscanf(rest, "\"%63[^\"]\"", d.name) == 1)
        d.kind = INCLUDE;
    else if (!strcmp(word, "line") && sscanf(rest, "%d \"%159[^\"]\"", &d.line, d.path) == 2)
        d.kind = LINE;
    else if (!strcmp(word, "pragma") && !strncmp(rest, "once", 4))
        d.kind = PRAGMA_ONCE;
    return d;
}

static flashinfer_status take(struct flattening *f, const struct source_file *source, bool in_if);

static flashinfer_status include(struct flattening *f, const char *name, bool in_if, const char *from, int line)
{
    int i = 0;
    while (i < f->files && strcmp(f->file[i].name, name))
        i++;
    if (i == MAX_FILES)
        return fail(FLASHINFER_COMPILE, "kernel %s reaches more than %d files", f->spec->kernel->name, MAX_FILES);
    struct file *file = &f->file[i];
    if (i == f->files) {
        f->files++;
        *file = (struct file){0};
        snprintf(file->name, sizeof file->name, "%s", name);
    }
    if (file->open || file->taken)
        return FLASHINFER_OK;

    const struct jit_text *user = f->spec->user;
    struct source_file source;
    if (user && !user->is_kernel && !strcmp(name, "variant.h"))
        take_user_text(&source, name, user->text);
    else
        find_source(&source, name);
    if (!source.text)
        return fail(FLASHINFER_COMPILE, "kernel %s: line %d of %s includes \"%s\", which is not a source of %s",
                    f->spec->kernel->name, line, from, name, where_searched());
    bool guarded = in_if || file->optional;
    file->open = true;
    file->taken = !in_if;
    file->optional = in_if;
    if (guarded)
        text_print(f->out, "#ifndef FLATTENED_%d\n#define FLATTENED_%d\n", i, i);
    flashinfer_status status = take(f, &source, in_if);
    text_free(&source.read);
    if (guarded)
        text_print(f->out, "#endif\n");
    f->file[i].open = false;
    return status;
}

/* Adds a file line by line. Its own include guard, an #ifndef before any other directive, is no condition:
 * `guard` is how deep in #ifs a line outside all others stands. */
static flashinfer_status take(struct flattening *f, const struct source_file *source, bool in_if)
{
    int line = 1, depth = 0, guard = -1;
    char path[MAX_PATH];
    snprintf(path, sizeof path, "%s", source->path);
    text_print(f->out, "#line 1 \"%s\"\n", source->path);
    for (const char *text = source->text, *end = text + source->size, *next; text < end; text = next, line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        next = newline ? newline + 1 : end;
        struct directive d = parse(text, (size_t)(next - text));
        if (d.kind != OTHER && guard < 0)
            guard = d.kind == IFNDEF;
        if (d.kind == IF || d.kind == IFNDEF)
            depth++;
        else if (d.kind == ENDIF && --depth == 0)
            guard = 0;
        if (d.kind == INCLUDE) {
            TRY(include(f, d.name, in_if || depth > guard, path, line));
            text_print(f->out, "#line %d \"%s\"\n", line + 1, path);
        } else if (d.kind == LINE) {
            text_add(f->out, text, (size_t)(next - text));
            snprintf(path, sizeof path, "%s", d.path);
            line = d.line - 1;
        } else if (d.kind == PRAGMA_ONCE) {
            text_add(f->out, "\n", 1);
        } else {
            text_add(f->out, text, (size_t)(next - text));
            if (!newline)
                text_add(f->out, "\n", 1);
        }
    }
    return FLASHINFER_OK;
}

flashinfer_status jit_flatten(const struct jit_spec *spec, struct text *out)
{
    const struct jit_text *user = spec->user;
    struct flattening f = {.spec = spec, .out = out};
    struct source_file source;
    char name[MAX_NAME + 8];
    snprintf(name, sizeof name, "%s%s", spec->kernel->name, spec->kernel->target == JIT_CUDA ? ".cu" : ".c");
    if (user && user->is_kernel)
        take_user_text(&source, name, user->text);
    else
        find_source(&source, name);
    if (!source.text)
        return fail(*environment()->source_dir ? FLASHINFER_IO : FLASHINFER_INTERNAL, "kernel %s has no source: %s is not in %s",
                    spec->kernel->name, name, where_searched());
    flashinfer_status status = take(&f, &source, false);
    text_free(&source.read);
    return status ? status : text_check(out);
}
