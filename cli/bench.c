/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer bench */
#include "harness/bench.h"
#include "harness/reproduce.h"

#include <stdio.h>

#include "cli/crash.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/table.h"

struct output {
    struct table *table;
    bool json;
};

static void trying(void *context, const char *command)
{
    (void)context;
    crash_attempt(command);
}

static void report_time(void *context, const struct bench_result *r)
{
    static const char *const outcomes[] = {[BENCH_CHECKED] = "yes",
                                           [BENCH_UNCHECKED] = "no",
                                           [BENCH_NOT_COMPILED] = "does not compile",
                                           [BENCH_WRONG] = "wrong",
                                           [BENCH_FAILED] = "failed"};
    struct output *out = context;
    double rate = r->seconds > 0 ? r->bytes / r->seconds : -1,
           operations = r->seconds > 0 && r->operations > 0 ? r->operations / r->seconds : -1;
    progress_show(0, 0, "%s %s %s", r->op, r->row, r->shape);
    if (r->why && !out->json) {
        progress_clear();
        printf("FAIL %s %s, shape %s on %s: %s\n", r->op, r->row, r->shape, reproduce_device(r->device->id.device_type), r->why);
    }
    table_text(out->table, "op", r->op);
    table_text(out->table, "kernel", r->row);
    table_text(out->table, "device", reproduce_device(r->device->id.device_type));
    table_text(out->table, "shape", r->shape);
    table_number(out->table, "us", r->seconds > 0 ? r->seconds * 1e6 : -1, 2);
    table_number(out->table, "GB/s", rate > 0 ? rate * 1e-9 : -1, 1);
    table_number(out->table, "of copy", rate > 0 && r->ceiling > 0 ? rate / r->ceiling : -1, 2);
    table_number(out->table, "TFLOP/s", operations > 0 ? operations * 1e-12 : -1, 3);
    table_text(out->table, "checked", outcomes[r->outcome]);
    table_json_only(out->table);
    table_text(out->table, "problem", r->problem);
    table_text(out->table, "machine", r->device->name);
    table_number(out->table, "us_p10", r->fastest * 1e6, 2);
    table_number(out->table, "us_p90", r->slowest * 1e6, 2);
    table_number(out->table, "bytes", r->bytes, 0);
    table_number(out->table, "operations", r->operations, 0);
    table_number(out->table, "copy_GB/s", r->ceiling * 1e-9, 1);
    table_integer(out->table, "copies", r->copies);
    table_text(out->table, "wrong", r->why ? r->why : "");
    table_end_row(out->table);
}

static void report_overhead(void *context, const struct bench_overhead *r)
{
    struct output *out = context;
    table_text(out->table, "op", r->op);
    table_text(out->table, "kernel", r->row);
    table_text(out->table, "device", reproduce_device(r->device->id.device_type));
    table_number(out->table, "call us", r->call * 1e6, 3);
    table_number(out->table, "bare us", r->bare * 1e6, 3);
    table_number(out->table, "overhead us", r->call > r->bare ? (r->call - r->bare) * 1e6 : 0, 3);
    table_text(out->table, "problem", r->problem);
    table_end_row(out->table);
}

static void report_compiled(void *context, const struct bench_compiled *r)
{
    struct output *out = context;
    char arch[16] = "cpu";
    if (r->arch)
        snprintf(arch, sizeof arch, "sm_%d", r->arch);
    if (r->wrong[0] && !out->json)
        printf("FAIL %s (%s): %s\n", r->kernel[0] ? r->kernel : r->op, r->constants, r->wrong);
    if (!r->kernel[0] && !out->json)
        return;
    table_text(out->table, "kernel", r->kernel);
    table_text(out->table, "for", arch);
    table_number(out->table, "compile s", r->compile, 3);
    table_number(out->table, "processor s", r->processor, 3);
    table_number(out->table, "load ms", r->load < 0 ? -1 : r->load * 1e3, 2);
    table_text(out->table, "constants", r->constants);
    table_json_only(out->table);
    table_text(out->table, "op", r->op);
    table_text(out->table, "row", r->row);
    table_text(out->table, "wrong", r->wrong);
    table_end_row(out->table);
}

static flashinfer_status compile(const struct options *options, struct output *out, int *failures)
{
    struct bench_compile_options compile = {options->op, options->kernel, false, options->archs[0], options->rounds};
    flashinfer_status status = FLASHINFER_OK;
    if (options->cpu || !options->device_given)
        status = bench_compile(&compile, report_compiled, out, failures);
    compile.on_cuda = true;
    if (!status && (options->cuda || !options->device_given))
        status = bench_compile(&compile, report_compiled, out, failures);
    return status;
}

static flashinfer_status measure(const struct options *options, const struct device *device, struct output *out, int *failures)
{
    const struct bench_options bench = {.kernel = options->kernel,
                                        .shape = options->shape,
                                        .seed = options->seed,
                                        .values = options->values[0] ? options->values : NULL,
                                        .unchecked = options->no_refcheck,
                                        .warm = options->warm,
                                        .pdl = options->pdl,
                                        .trying = trying};
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; options->op[i] && !status; i++)
        status = options->overhead ? bench_overhead_op(options->op[i], device, &bench, report_overhead, out)
                                   : bench_op(options->op[i], device, &bench, report_time, out, failures);
    return status;
}

static flashinfer_status measure_all(const struct options *options, struct output *out, int *failures)
{
    struct devices devices;
    TRY(devices_wanted(options, &devices));
    for (int i = 0; devices.device[i]; i++)
        TRY(measure(options, devices.device[i], out, failures));
    return FLASHINFER_OK;
}

static int run(const struct options *options)
{
    int failures = 0;
    struct output out = {.table = table_open(options->json), .json = options->json};
    if (options->archs[0] && !options->compile)
        return usage_error(&command_bench, "--arch goes with --compile only");
    if (options->archs[0] && options->archs[1])
        return usage_error(&command_bench, "--arch: one architecture");
    if (options->rounds && !options->compile)
        return usage_error(&command_bench, "--rounds goes with --compile only");
    if (options->pdl && options->device_given && !options->cuda)
        return usage_error(&command_bench, "--pdl is for a GPU, and does not go with --device cpu");
    if (options->warm && (options->overhead || options->compile))
        return usage_error(&command_bench, "--warm goes with neither --overhead nor --compile");
    if (options->pdl && options->compile)
        return usage_error(&command_bench, "--pdl does not go with --compile");
    if (options->overhead && options->compile)
        return usage_error(&command_bench, "--overhead does not go with --compile");
    if (options->shape && options->seed)
        return usage_error(&command_bench, "--shape does not go with --seed");
    progress_watch_compiler();
    interrupt_watch();
    crash_watch();
    flashinfer_status status = options->compile ? compile(options, &out, &failures) : measure_all(options, &out, &failures);
    progress_clear();
    int rows = table_close(out.table);
    if (!status && !failures && !rows)
        status = fail(FLASHINFER_UNSUPPORTED,
                      "nothing to time: outputs have no elements, or no kernel that was asked for serves that; "
                      "`flashinfer explain OP` says why");
    return exit_after(status, failures);
}

const struct command command_bench = {
    .name = "bench",
    .summary = "time every kernel",
    .operands_text = "[OP...] [NAME=VALUE...] [-- -ARGUMENT...]",
    .operands = OPERANDS_OPS_VALUES,
    .description =
        "Times each kernel that serves the named shapes of each OP (default: every op), after comparing what it writes "
        "with the reference. Calls take copies of the tensors in turn, larger together than three times the last-level "
        "cache. On a GPU they are nodes of a graph between two events. Prints the median of one call, the bytes that it "
        "must move and the floating-point operations that it must do per second, and the share of what a copy moves: a "
        "large one, or, beside a cold call that moves 10 MB and more on a GPU, one of as many bytes, timed the same way. "
        "On a CPU, calls on 64 MB and more take turns with two copies of what no cache holds, by memcpy and past "
        "the caches, of which the faster one counts; with FLASHINFER_NUM_THREADS=1 their clock is the thread's own, which "
        "other programs do not move.\n\n"
        "NAME=VALUE times the first named shape, or that of --shape, with that dimension, number, enum or dtype instead.",
    .options =
        (const struct command_option[]){
            {OPTION_DEVICE, "default all: the CPU, and a GPU if there is one"},
            {OPTION_REQUIRE, "fail if there is no GPU"},
            {OPTION_KERNEL, "this kernel only"},
            {OPTION_SHAPE, "this named shape only"},
            {OPTION_SEED, "the random problem of seed N instead"},
            {OPTION_NO_REFCHECK, "do not compare with the reference first"},
            {OPTION_REFCHECK, "compare first, which is the default"},
            {OPTION_WARM,
             "the same tensors every time, so that caches are warm; on a GPU the latency of a node: of 100 in a graph, one after "
             "the other"},
            {OPTION_PDL, "with programmatic dependent launch (FLASHINFER_PDL; GPUs from sm_90)"},
            {OPTION_OVERHEAD,
             "instead: a whole call (its checks, the choice of a kernel) beside the bare launch in its end, for the smallest "
             "named shape, host time per call; on a CPU with one thread"},
            {OPTION_COMPILE,
             "instead: seconds to compile each kernel with an empty cache, those that processors spent on it, and to load it "
             "from the disk"},
            {OPTION_ROUNDS, "with --compile: compile all so many times, and give the least; default 1"},
            {OPTION_ARCH, "with --compile: the architecture where there is no GPU; default 90"},
            {OPTION_END, NULL}},
    .json = "more figures: percentiles, bytes, operations, the machine",
    .environment = (const char *const[]){"FLASHINFER_CACHE_DIR", "FLASHINFER_NUM_THREADS", NULL},
    .examples = "flashinfer bench rmsnorm --device cpu\n"
                "flashinfer bench mm m=16 n=4096 k=4096 dtype=bf16\n"
                "flashinfer bench --warm --pdl rmsnorm rows=1 hidden=4096 dtype=bf16\n"
                "flashinfer bench --overhead rmsnorm\n",
    .run = run,
};
