/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer show-config */
#include <stdio.h>
#include <unistd.h>

#include "backend/cuda.h"
#include "cli/nearest.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/environment.h"
#include "core/threads.h"

/* Without JSON: two lines, since values and meanings are long. */
static void add(struct table *table, const char *what, const char *value, const char *meaning)
{
    if (!table) {
        printf("%-26s %s\n%-26s   %s\n", what, value[0] ? value : "-", "", meaning);
        return;
    }
    table_text(table, "what", what);
    table_text(table, "value", value);
    table_text(table, "meaning", meaning);
    table_end_row(table);
}

static void add_devices(struct table *table)
{
    char text[512], name[24];
    const struct device *device;
    if (!device_get((DLDevice){kDLCPU, 0}, &device)) {
        snprintf(text, sizeof text, "%s, %d processors, %s", device->name, device->sms, device->isa);
        add(table, "cpu", text, "where calls on CPU tensors run");
    }
    int count = 0;
    const struct cuda *driver = cuda();
    if (!driver || driver->device_count(&count) || count == 0) {
        device_get((DLDevice){kDLCUDA, 0}, &device);
        add(table, "cuda:0", "", flashinfer_last_error());
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "cuda:%d", i);
        if (device_get((DLDevice){kDLCUDA, i}, &device)) {
            add(table, name, "", flashinfer_last_error());
            continue;
        }
        snprintf(text, sizeof text, "%s, %s, %d multiprocessors", device->name, device->isa, device->sms);
        add(table, name, text, "where calls on CUDA tensors run");
    }
}

static void add_unread(struct table *table)
{
    char name[VARIABLE_NAME], near[128], meaning[160];
    for (char **setting = environ; *setting; setting++)
        if (is_unread_variable(*setting, name, near, sizeof near)) {
            snprintf(meaning, sizeof meaning, "is not read%s", near);
            add(table, name, "", meaning);
        }
}

static int run(const struct options *options)
{
    struct table *table = options->json ? table_open(true) : NULL;
    char text[1024];
    const char *why;
    struct environment_entry entry;
    add(table, "version", flashinfer_version(), "of the library");
    add_devices(table);
    snprintf(text, sizeof text, "%d", threads_count(0));
    add(table, "threads", text, "of a CPU kernel, unless the caller says otherwise");
    add(table, "cpu compiler", jit_toolchain(JIT_CPU, text, sizeof text), "compiles CPU kernels");
    add(table, "cuda compiler", jit_toolchain(JIT_CUDA, text, sizeof text), "compiles CUDA kernels");
    const char *folder = jit_cache_folder(&why);
    add(table, "cache", folder, why[0] ? why : "folder of compiled kernels");
    add(table, "pack", jit_pack(text, sizeof text), "prebuilt CPU kernels");
    for (int i = 0; environment_entry(i, &entry); i++)
        add(table, entry.name, entry.value, entry.wrong ? entry.wrong : entry.meaning);
    add_unread(table);
    table_close(table);
    return EXIT_FINE;
}

const struct command command_show_config = {
    .name = "show-config",
    .summary = "print what the library found on this machine",
    .description =
        "Prints the devices, compilers and cache that the library found, or why there are none, and every environment variable "
        "that it reads, with the value in force and what is wrong with the one that was given; last, variables that look like "
        "these, and are not read.",
    .json = "what, value, meaning",
    .examples = "flashinfer show-config\n"
                "flashinfer show-config --json | jq -r 'select(.what == \"cache\").value'\n",
    .run = run,
};
