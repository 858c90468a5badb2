/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer specs */
#include "harness/specs.h"

#include <stdio.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/table.h"

struct output {
    struct table *table;
    bool json, progress;
};

static void report(void *context, const struct specs_result *r)
{
    const struct output *out = context;
    if (out->progress)
        fprintf(stderr, "\r\033[K%d of %d: %s for sm_%d", r->done, r->total, r->kernel, r->arch);
    if (r->wrong && !out->json) {
        if (out->progress)
            fputs("\r\033[K", stderr);
        if (r->kernel[0])
            printf("FAIL %s (%s) for sm_%d, shape %s of %s: %s\n", r->kernel, r->constants, r->arch, r->shape,
                   r->op, r->wrong);
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
}

static int run(int argc, char **argv)
{
    struct options options;
    int failures = 0,
        code = options_parse(&command_specs, argc, argv, "kernel arch threads all", true, false, &options);
    if (code >= 0)
        return code;
    if (options.kernel && !options_has_kernel(&options))
        return usage_error(&command_specs, "no op that was asked for has a kernel \"%s\"", options.kernel);
    struct output out = {.table = table_open(options.json),
                         .json = options.json,
                         .progress = isatty(STDERR_FILENO) && !options.json};
    const struct specs_options specs = {.ops = options.op,
                                        .kernel = options.kernel,
                                        .arch = options.arch,
                                        .all_dtypes = options.all,
                                        .threads = options.threads};
    flashinfer_status status = specs_compile(&specs, report, &out, &failures);
    if (out.progress)
        fputs("\r\033[K", stderr);
    table_close(out.table);
    if (!options.json && !status)
        printf("%d failures\n", failures);
    return status ? exit_with(status) : failures ? EXIT_FAILED : EXIT_FINE;
}

const struct command command_specs = {
    .name = "specs",
    .summary = "compile every CUDA kernel for every architecture",
    .help =
        "usage: flashinfer specs [OPTION...] [OP...]\n\n"
        "Compiles each specialisation of each CUDA kernel that the named shapes of the ops lead to (default: "
        "all ops), for every\n"
        "architecture, several at once. Needs NVRTC but no GPU. Prints what the compiler says of each: "
        "seconds, registers, shared\n"
        "memory, spilled bytes. A spill, a warning of a performance loss or an error is a failure; so is"
        " a kernel\nwhose entry has not its file's name, a named shape that is none, and a wrong "
        "declaration.\n\n"
        "OPTIONS\n"
        "  --kernel NAME  this kernel only\n"
        "  --arch N       this architecture only (90: sm_90)\n"
        "  --all          with every dtype that the declarations allow, not only those of the named shapes\n"
        "  --threads N    compile so many at once; default: as many as there are processors\n"
        "  --json         one object a line\n"
        "  --help         this text\n\n" EXIT_CODES_HELP,
    .run = run,
};
