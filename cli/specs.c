/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer specs */
#include "harness/specs.h"

#include <stdio.h>

#include "backend/nvrtc.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "core/environment.h"

struct output {
    struct table *table;
    bool json;
};

static void report(void *context, const struct specs_result *r)
{
    const struct output *out = context;
    if (r->wrong && !out->json) {
        progress_clear();
        if (r->kernel[0])
            printf("FAIL %s (%s) for sm_%d, shape %s of %s: %s\n", r->kernel, r->constants, r->arch, r->shape, r->op, r->wrong);
        else
            printf("FAIL %s%s%s: %s\n", r->op, r->shape[0] ? ", shape " : "", r->shape, r->wrong);
    }
    if (!r->kernel[0] && !out->json)
        return;
    table_text(out->table, "kernel", r->kernel);
    table_integer(out->table, "arch", r->arch);
    table_number(out->table, "seconds", r->seconds, 3);
    table_integer(out->table, "registers", r->registers);
    table_integer(out->table, "smem", r->smem_bytes);
    table_integer(out->table, "stack", r->stack_bytes);
    table_integer(out->table, "spills", r->spill_bytes);
    table_integer(out->table, "bytes", (int64_t)r->binary_bytes);
    table_text(out->table, "constants", r->constants);
    table_json_only(out->table);
    table_text(out->table, "op", r->op);
    table_text(out->table, "row", r->row);
    table_text(out->table, "shape", r->shape);
    table_text(out->table, "wrong", r->wrong ? r->wrong : "");
    table_end_row(out->table);
    progress_show(r->done, r->total, "%s for sm_%d", r->kernel, r->arch);
}

static int run(const struct options *options)
{
    int failures = 0;
    const struct nvrtc *nvrtc;
    flashinfer_status status = nvrtc_get(&nvrtc);
    if (status)
        return exit_with(status);
    struct output out = {.table = table_open(options->json), .json = options->json};
    const struct specs_options specs = {.ops = options->op,
                                        .kernel = options->kernel,
                                        .archs = options->archs[0] ? options->archs : environment_archs(),
                                        .all_dtypes = options->all,
                                        .threads = options->jobs};
    progress_watch_compiler();
    interrupt_watch();
    status = specs_compile(&specs, report, &out, &failures);
    progress_clear();
    table_close(out.table);
    if (!options->json && !status)
        printf("%d failures\n", failures);
    return exit_after(status, failures);
}

const struct command command_specs = {
    .name = "specs",
    .summary = "compile every CUDA kernel for every architecture, keeping nothing",
    .operands_text = "[OP...]",
    .operands = OPERANDS_OPS,
    .description =
        "Compiles each specialisation of each CUDA kernel that the named shapes of the ops lead to (default: all ops), for every "
        "architecture, several at once. Needs NVRTC but no GPU; leaves the cache alone. Prints what the compiler says of each: "
        "seconds, "
        "registers, shared memory, spilled bytes.\n\n"
        "A spill, a warning of a performance loss or an error is a failure; so is a kernel whose entry has not its file's name, "
        "a named "
        "shape that is none, and a wrong declaration.",
    .options =
        (const struct command_option[]){
            {OPTION_KERNEL, "this kernel only"},
            {OPTION_ARCH, "these architectures only (90: sm_90); default: those of FLASHINFER_CUDA_ARCH_LIST, else all"},
            {OPTION_ALL, "with every dtype that the declarations allow, not only those of the named shapes"},
            {OPTION_JOBS, "compile so many at once; default: as many as there are processors"},
            {OPTION_END, NULL}},
    .json = "kernel, arch, seconds, registers, smem, stack, spills, bytes, constants, op, row, shape, wrong",
    .environment = (const char *const[]){"FLASHINFER_CUDA_ARCH_LIST", "FLASHINFER_NVRTC", NULL},
    .examples = "flashinfer specs --all --arch 90\n",
    .run = run,
};
