/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer cache list, verify, prune and clear. */
#include "jit/cache_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/options.h"
#include "cli/table.h"

/* A temporary file that is younger may be being written. */
enum { LEFTOVER_SECONDS = 3600 };

static const char *const kinds[] = {
    [JIT_CACHE_KERNEL] = "kernel", [JIT_CACHE_LEFTOVER] = "leftover", [JIT_CACHE_SOURCE] = "source that did not compile"};

static const char *const environment_names[] = {"FLASHINFER_CACHE_DIR", NULL};

/* "45 s", "3.2 h": how long ago. */
static const char *ago(int64_t when, int64_t now, char *buffer, size_t size)
{
    static const struct {
        double seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    double seconds = now > when ? (double)(now - when) : 0;
    size_t i = 0;
    while (i < 3 && seconds < units[i].seconds)
        i++;
    snprintf(buffer, size, i == 3 ? "%.0f %s" : "%.1f %s", seconds / units[i].seconds, units[i].unit);
    return buffer;
}

static const char *state(const struct jit_cache_file *file)
{
    if (file->kind != JIT_CACHE_KERNEL)
        return kinds[file->kind];
    return file->wrong ? "damaged" : strcmp(file->version, flashinfer_version()) ? "of another version" : "whole";
}

static void add_row(struct table *table, const struct jit_cache_file *file, bool json, int64_t now)
{
    char text[64];
    table_text(table, "kernel", file->kernel);
    table_text(table, "target", file->target);
    table_integer(table, "bytes", file->bytes);
    if (json)
        table_integer(table, "made", file->made);
    else
        table_text(table, "age", ago(file->made, now, text, sizeof text));
    if (json)
        table_integer(table, "used", file->used);
    else
        table_text(table, "used", ago(file->used, now, text, sizeof text));
    table_text(table, "state", state(file));
    table_json_only(table);
    table_text(table, "version", file->version);
    table_text(table, "file", file->name);
    table_text(table, "wrong", file->wrong ? file->wrong : "");
    table_end_row(table);
}

static int run_list(const struct options *options)
{
    struct jit_cache_file *files;
    int count;
    int64_t bytes = 0;
    const char *why;
    flashinfer_status status = jit_cache_files(&files, &count);
    if (status)
        return exit_with(status);
    struct table *table = table_open(options->json);
    for (int i = 0; i < count; i++) {
        add_row(table, &files[i], options->json, time(NULL));
        bytes += files[i].bytes;
    }
    table_close(table);
    if (!options->json)
        printf("%d files, %.1f MiB in %s\n", count, (double)bytes / 1048576, jit_cache_folder(&why));
    free(files);
    return EXIT_FINE;
}

const struct command command_cache_list = {
    .name = "cache list",
    .summary = "list what lies in the cache",
    .description =
        "Prints each file of the cache: the kernel, what it is compiled for, its size, how long ago it was compiled and last "
        "loaded by a program, and its state. Files that the library did not name are not shown.",
    .json = "kernel, target, bytes, made and used (seconds since 1970), state, version, file, wrong",
    .environment = environment_names,
    .examples = "flashinfer cache list\n"
                "flashinfer cache list --json | jq -s 'map(.bytes) | add'\n",
    .run = run_list,
};

static int run_verify(const struct options *options)
{
    struct jit_cache_file *files;
    int count, whole = 0, others = 0, damaged = 0;
    const char *why;
    flashinfer_status status = jit_cache_files(&files, &count);
    if (status)
        return exit_with(status);
    struct table *table = options->json ? table_open(true) : NULL;
    for (int i = 0; i < count; i++) {
        damaged += files[i].wrong != NULL;
        whole += files[i].kind == JIT_CACHE_KERNEL && !files[i].wrong;
        others += files[i].kind != JIT_CACHE_KERNEL;
        if (options->json)
            add_row(table, &files[i], true, 0);
        else if (files[i].wrong)
            printf("FAIL %s: %s\n", files[i].name, files[i].wrong);
    }
    table_close(table);
    if (!options->json)
        printf("%d whole, %d damaged, %d other files in %s\n", whole, damaged, others, jit_cache_folder(&why));
    free(files);
    return damaged ? EXIT_FAILED : EXIT_FINE;
}

const struct command command_cache_verify = {
    .name = "cache verify",
    .summary = "compare every file of the cache with its footer",
    .description =
        "Reads every compiled kernel and compares it with the key and the checksum in its footer. A damaged file is printed; it "
        "does no harm, for the library compiles the kernel again rather than load it; `flashinfer cache prune` removes it. Other "
        "files are leftovers of processes that were killed, and sources that did not compile.",
    .json = "as of cache list",
    .environment = environment_names,
    .run = run_verify,
};

static bool is_useless(const struct jit_cache_file *file, const struct options *options, int64_t now)
{
    if (file->wrong || (file->kind == JIT_CACHE_LEFTOVER && now - file->made >= LEFTOVER_SECONDS))
        return true;
    if (options->unused_for && now - file->used >= options->unused_for)
        return true;
    return options->other_versions && file->kind == JIT_CACHE_KERNEL && strcmp(file->version, flashinfer_version());
}

static int by_use(const void *a, const void *b)
{
    const struct jit_cache_file *x = a, *y = b;
    return x->used < y->used ? -1 : x->used > y->used;
}

static int remove_files(const struct options *options, bool all)
{
    struct jit_cache_file *files;
    int count, removed = 0;
    int64_t kept = 0, freed = 0, now = time(NULL);
    flashinfer_status status = jit_cache_files(&files, &count);
    if (status)
        return exit_with(status);
    if (count)
        qsort(files, (size_t)count, sizeof *files, by_use);
    for (int i = 0; i < count; i++)
        kept += all || is_useless(&files[i], options, now) ? 0 : files[i].bytes;
    struct table *table = options->json || !all || options->dry_run ? table_open(options->json) : NULL;
    for (int i = 0; i < count && !status; i++) {
        bool useless = all || is_useless(&files[i], options, now);
        if (!useless && (options->max_size < 0 || kept <= options->max_size))
            continue;
        kept -= useless ? 0 : files[i].bytes;
        status = options->dry_run ? FLASHINFER_OK : jit_cache_remove(&files[i]);
        removed += !status;
        freed += status ? 0 : files[i].bytes;
        if (!status)
            add_row(table, &files[i], options->json, now);
    }
    table_close(table);
    if (!options->json)
        printf("%d files, %.1f MiB %s\n", removed, (double)freed / 1048576, options->dry_run ? "would be removed" : "removed");
    free(files);
    return exit_with(status);
}

static int run_prune(const struct options *options)
{
    return remove_files(options, false);
}

static int run_clear(const struct options *options)
{
    return remove_files(options, true);
}

const struct command command_cache_prune = {
    .name = "cache prune",
    .summary = "remove what is of no use from the cache",
    .description =
        "Removes damaged files, and what processes that were killed left behind more than an hour ago; and, if asked to, kernels "
        "that no program has loaded for long, the least recently used ones until the rest is small enough, and those of other "
        "versions of the library. Programs that run meanwhile keep what they have loaded, and compile again what they miss.",
    .options = (const struct command_option[]){{OPTION_UNUSED_FOR, "what was not loaded for so long: 90s, 30m, 12h, 30d, 4w"},
                                               {OPTION_MAX_SIZE,
                                                "the least recently used, until at most so much is left: 4096, 100K, 500M, 2G"},
                                               {OPTION_OTHER_VERSIONS, "what other versions of the library compiled"},
                                               {OPTION_DRY_RUN, "say what would be removed, and remove nothing"},
                                               {OPTION_END, NULL}},
    .json = "what is removed, as of cache list",
    .environment = environment_names,
    .examples = "flashinfer cache prune --unused-for 30d --other-versions\n"
                "flashinfer cache prune --max-size 500M --dry-run\n",
    .run = run_prune,
};

const struct command command_cache_clear = {
    .name = "cache clear",
    .summary = "remove everything from the cache",
    .description =
        "Removes every file that the library wrote into the cache, and no other. Programs that run meanwhile keep what they have "
        "loaded.",
    .options =
        (const struct command_option[]){{OPTION_DRY_RUN, "say what would be removed, and remove nothing"}, {OPTION_END, NULL}},
    .json = "what is removed, as of cache list",
    .environment = environment_names,
    .run = run_clear,
};
