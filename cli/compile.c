/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer compile */
#include <stdio.h>

#include "cli/gather.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "core/clock.h"
#include "harness/specs.h"

struct output {
    struct table *table;
    bool json;
    int compiled, there;
};

static void report(void *context, const struct warm_result *r)
{
    struct output *out = context;
    const struct spec_item *item = r->item;
    const char *target = item->device->arch ? item->device->isa : "cpu";
    char constants[256];
    specs_constants(&item->spec, constants, sizeof constants);
    out->there += !r->wrong && r->stored.was_there;
    out->compiled += !r->wrong && !r->stored.was_there;
    if (r->wrong && !out->json) {
        progress_clear();
        printf("FAIL %s (%s) for %s: %s\n", item->spec.kernel->name, constants, target, r->wrong);
    }
    table_text(out->table, "kernel", item->spec.kernel->name);
    table_text(out->table, "for", target);
    table_text(out->table, "result", r->wrong ? "failed" : r->stored.was_there ? "was there" : "compiled");
    table_number(out->table, "seconds", r->wrong || r->stored.was_there ? -1 : r->stored.seconds, 3);
    table_integer(out->table, "bytes", (int64_t)r->stored.bytes);
    table_text(out->table, "constants", constants);
    table_json_only(out->table);
    table_text(out->table, "op", item->op);
    table_text(out->table, "row", item->row);
    table_text(out->table, "shape", item->shape);
    table_text(out->table, "wrong", r->wrong ? r->wrong : "");
    table_end_row(out->table);
    progress_show(r->done, r->total, "%s for %s", item->spec.kernel->name, target);
}

static int run(const struct options *options)
{
    struct gathered gathered;
    struct output out = {.json = options->json};
    int failures = 0;
    if (!options->num_named && !options->from && !options->list && !options->all)
        return usage_error(&command_compile, "name ops, or say --all or --from FILE");
    if (options->all && (options->num_named || options->from))
        return usage_error(&command_compile, "--all: neither ops nor --from may stand beside it");
    if ((options->from || options->list) && !options->num_named && options->values[0])
        return usage_error(&command_compile, "values belong to an op: %s", options->values);
    int code = gather(&command_compile, options, &gathered);
    if (code < 0 && options->kernel && gathered.list.count == 0) {
        fprintf(stderr, "flashinfer: kernel %s serves none of these calls on these devices, or has nothing to be compiled\n",
                options->kernel);
        code = EXIT_UNSUPPORTED;
    }
    if (code < 0) {
        double begin = clock_seconds();
        progress_watch_compiler();
        interrupt_watch();
        out.table = table_open(options->json);
        flashinfer_status status = warm_compile(&gathered.list, options->jobs, report, &out, &failures);
        progress_clear();
        table_close(out.table);
        if (!options->json)
            printf("%d compiled, %d already there, %d failed, %.1f s\n", out.compiled, out.there, failures,
                   clock_seconds() - begin);
        code = exit_after(status, failures);
    }
    gather_free(&gathered);
    return code;
}

const struct command command_compile = {
    .name = "compile",
    .summary = "compile kernels into the cache before they are needed",
    .operands_text = "[OP...] [NAME=VALUE...] [-- -ARGUMENT...]",
    .operands = OPERANDS_OPS_VALUES,
    .description = "Compiles into the cache what calls of each OP with the given values need, several kernels at once; with no "
                   "values, what its named "
                   "shapes need. A program that makes these calls then compiles nothing: FLASHINFER_DISABLE_JIT proves it.\n\n"
                   "No device is needed: --arch compiles for GPUs that are elsewhere, with NVRTC alone. A CPU kernel is compiled "
                   "for this machine's "
                   "processor. The key of a file in the cache is made of the kernel's source and constants, the compiler, the "
                   "architecture and the "
                   "version of the library, so that the machine that uses the cache needs the same NVRTC or C compiler; "
                   "FLASHINFER_CACHE_DIR may be "
                   "copied to it.\n\n"
                   "--from FILE takes a list. A line is OP [NAME=VALUE...], as on the command line; or a line of a record, which "
                   "names a kernel and its "
                   "architecture. Every program that runs with FLASHINFER_RECORD=FILE records what it loads, also kernels of its "
                   "own: run it once, "
                   "compile the record where the program will run or where its image is built, and it starts with everything "
                   "compiled. Empty lines "
                   "and lines that begin with # are passed over; - is the standard input.\n\n"
                   "In place of OP may stand the name of a list: gdn_prefill, the 32 specialisations of FlashInfer's module for "
                   "chunk_gated_delta_rule on Hopper (two dtypes, values grouped or not, g, beta and initial_state given or not);"
                   " --all beside it changes nothing.",
    .options =
        (const struct command_option[]){
            {OPTION_ALL, "every op, with its named shapes"},
            {OPTION_FROM, "what a list or a record names"},
            {OPTION_ARCH, "for these architectures (90: sm_90), whatever GPU there is; of a record, these only"},
            {OPTION_DEVICE, "for the CPU, for the GPU, or for both; default: all, and with --arch: cuda"},
            {OPTION_KERNEL, "by this kernel, instead of the one that a call takes"},
            {OPTION_JOBS, "compile so many at once; default: as many as there are processors"},
            {OPTION_END, NULL}},
    .json = "kernel, for, result (compiled, was there, failed), seconds, bytes, constants, op, row, shape, wrong",
    .environment = (const char *const[]){"FLASHINFER_CACHE_DIR", "FLASHINFER_RECORD", "FLASHINFER_NVRTC", "FLASHINFER_CC", NULL},
    .examples = "flashinfer compile mm m=1 n=4096 k=4096 dtype=bf16 --arch 90\n"
                "flashinfer compile --all --arch 80,90 -j 16\n"
                "flashinfer compile gdn_prefill --all --arch 90\n"
                "FLASHINFER_RECORD=engine.kernels my-engine --model ...\n"
                "flashinfer compile --from engine.kernels\n",
    .run = run,
};
