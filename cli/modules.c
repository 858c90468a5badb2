/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer list-modules and module-status: kernels, and which of their specialisations the cache holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gather.h"
#include "cli/table.h"
#include "core/arch.h"
#include "harness/specs.h"
#include "jit/cache_files.h"

struct modules {
    struct spec_list list; /* one item for each kernel */
    const char *op;
    const struct device *device;
};

static void found(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec)
{
    struct modules *m = context;
    for (int i = 0; i < m->list.count; i++)
        if (!strcmp(m->list.items[i].spec.kernel->name, spec->kernel->name))
            return;
    spec_list_add(&m->list,
                  &(struct spec_item){.spec = *spec, .device = m->device, .op = m->op, .row = row->name, .shape = shape});
}

static void refused(void *context, const char *shape, const char *sentence)
{
    (void)context;
    (void)shape;
    (void)sentence;
}

static void walk(struct modules *m, const struct options *options, const struct device *device)
{
    m->device = device;
    for (int i = 0; options->op[i]; i++) {
        m->op = options->op[i]->name;
        specs_walk(&(struct specs_walk){.op = options->op[i], .device = device, .context = m, .found = found, .failed = refused});
    }
}

static void list_module(struct table *table, const struct spec_item *item, const struct jit_cache_file *files, int count)
{
    int64_t bytes = 0;
    int compiled = 0;
    for (int i = 0; i < count; i++)
        if (files[i].kind == JIT_CACHE_KERNEL && !files[i].wrong && !strcmp(files[i].kernel, item->spec.kernel->name)) {
            compiled++;
            bytes += files[i].bytes;
        }
    table_text(table, "module", item->spec.kernel->name);
    table_text(table, "status", compiled ? "compiled" : "not compiled");
    table_integer(table, "files", compiled);
    table_integer(table, "bytes", bytes);
    table_text(table, "runs on", item->spec.kernel->target == JIT_CUDA ? "cuda" : "cpu");
    table_text(table, "op", item->op);
    table_end_row(table);
}

static int run_list(const struct options *options)
{
    static struct device imagined;
    struct modules modules = {0};
    const struct device *device;
    struct jit_cache_file *files;
    int count, shown = 0;
    const char *name = options->num_words ? options->word[0] : NULL;
    if (options->num_words > 1)
        return usage_error(&command_list_modules, "name one module");
    if (!device_get((DLDevice){kDLCPU, 0}, &device))
        walk(&modules, options, device);
    for (int i = 0; arch_numbers[i]; i++)
        if (!device_imagine(arch_numbers[i], &imagined))
            walk(&modules, options, &imagined);
    flashinfer_status status = jit_cache_files(&files, &count);
    struct table *table = table_open(options->json);
    for (int i = 0; !status && i < modules.list.count; i++)
        if (!name || !strcmp(name, modules.list.items[i].spec.kernel->name)) {
            list_module(table, &modules.list.items[i], files, count);
            shown++;
        }
    table_close(table);
    free(files);
    spec_list_free(&modules.list);
    if (status)
        return exit_with(status);
    return shown ? EXIT_FINE : usage_error(&command_list_modules, "there is no module \"%s\"", name ? name : "");
}

const struct command command_list_modules = {
    .name = "list-modules",
    .summary = "list the kernels, and how many files of each the cache holds",
    .operands_text = "[NAME]",
    .operands = OPERANDS_WORDS,
    .description =
        "Prints each kernel that the named shapes of the ops lead to, on this CPU and on every architecture: its name, whether "
        "the cache holds a specialisation of it, how many and of what size. NAME: this one only. `flashinfer cache list` has the "
        "files one by one, `flashinfer module-status` the specialisations.",
    .json = "module, status, files, bytes, runs on, op",
    .environment = (const char *const[]){"FLASHINFER_CACHE_DIR", NULL},
    .examples = "flashinfer list-modules\n",
    .run = run_list,
};

static flashinfer_status report(const struct options *options, const struct spec_item *item, struct table *table, int *compiled)
{
    char constants[256], path[4096];
    bool there;
    TRY(jit_is_cached(&item->spec, item->device, &there));
    *compiled += there;
    if (options->filter && strcmp(options->filter, "all") && !strcmp(options->filter, "compiled") != there)
        return FLASHINFER_OK;
    TRY(jit_cache_path(&item->spec, item->device, path, sizeof path));
    specs_constants(&item->spec, constants, sizeof constants);
    table_text(table, "module", item->spec.kernel->name);
    table_text(table, "for", item->device->arch ? item->device->isa : "cpu");
    table_text(table, "status", there ? "compiled" : "not compiled");
    table_text(table, "constants", constants);
    if (!options->detailed)
        table_json_only(table);
    table_text(table, "op", item->op);
    table_text(table, "file", path);
    table_end_row(table);
    return FLASHINFER_OK;
}

static int run_status(const struct options *options)
{
    struct gathered gathered;
    int compiled = 0, code = gather(&command_module_status, options, &gathered);
    flashinfer_status status = FLASHINFER_OK;
    if (code < 0) {
        struct table *table = table_open(options->json);
        for (int i = 0; i < gathered.list.count && !status; i++)
            status = report(options, &gathered.list.items[i], table, &compiled);
        table_close(table);
        if (!options->json && !status)
            printf("%d in all, %d compiled, %d not compiled\n", gathered.list.count, compiled, gathered.list.count - compiled);
        code = exit_with(status);
    }
    gather_free(&gathered);
    return code;
}

const struct command command_module_status = {
    .name = "module-status",
    .summary = "say which kernels that calls need are in the cache",
    .operands_text = "[OP...] [NAME=VALUE...] [-- -ARGUMENT...]",
    .operands = OPERANDS_OPS_VALUES,
    .description =
        "For what `flashinfer compile` would compile with the same arguments (default: every op, with its named shapes): whether "
        "the cache holds it, whole and with the key that this library, compiler and device ask for.",
    .options = (const struct command_option[]){{OPTION_FILTER, "default all"},
                                               {OPTION_DETAILED, "the op that needs it, and its file, too"},
                                               {OPTION_FROM, "what a list or a record names"},
                                               {OPTION_ARCH, "for these architectures (90: sm_90), whatever GPU there is"},
                                               {OPTION_DEVICE, "default all: the CPU, and a GPU if there is one"},
                                               {OPTION_KERNEL, "by this kernel, instead of the one that a call takes"},
                                               {OPTION_END, NULL}},
    .json = "module, for, status, constants, op, file",
    .environment = (const char *const[]){"FLASHINFER_CACHE_DIR", NULL},
    .examples = "flashinfer module-status --arch 90 --filter not-compiled\n"
                "flashinfer module-status --from engine.kernels\n",
    .run = run_status,
};
