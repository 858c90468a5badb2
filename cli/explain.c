/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer explain */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/options.h"
#include "cli/table.h"
#include "harness/fits.h"
#include "harness/specs.h"
#include "op/program.h"

static void print_dtypes(const struct op_arg *arg)
{
    char names[DTYPE_SET_NAMES];
    printf("%s", dtype_set_names(arg->dtype.set, "|", names));
    if (arg->dtype.like)
        printf("%sas %s", !names[0] ? "" : op_is_tensor(arg) ? " or " : ", default ", arg->dtype.like);
}

/* An optional number that is absent stands for what the header says; one whose default is no legal value must be given. */
static void print_number(const struct op_arg *arg)
{
    bool required = arg->value < arg->min || arg->value > op_max(arg);
    const char *separator = arg->dtype.set || arg->shape ? ", " : "";
    if (!(arg->flags & OPTIONAL)) {
        if (arg->value_of)
            printf("%sdefault %s", separator, arg->value_of);
        else if (required)
            printf("%srequired", separator);
        else
            printf("%sdefault %g", separator, arg->value);
        separator = ", ";
    }
    if (isfinite(arg->min)) {
        printf("%sat least %g", separator, arg->min);
        separator = ", ";
    }
    if (isfinite(op_max(arg)))
        printf("%sat most %g", separator, arg->max);
}

static void print_argument(const struct op *op, const struct op_arg *arg)
{
    static const char *const kinds[] = {"", "in", "out", "inout", "number", "int", "enum", "dtype", "text", "plan", "comm"};
    printf("  %-24s %-7s", arg->name, kinds[arg->kind]);
    print_dtypes(arg);
    if (arg->shape)
        printf("%s[%s]", arg->dtype.set || arg->dtype.like ? " " : "", arg->shape);
    for (const char *c = arg->names; c && *c; c++)
        putchar(*c == ' ' ? '|' : *c);
    if (arg->kind == OP_PLAN)
        printf("%s%s", op->plan ? "of " : "written", op->plan ? op->plan->name : "");
    if (arg->kind == OP_NUMBER || arg->kind == OP_INT)
        print_number(arg);
    printf("%s%s\n", arg->flags & OPTIONAL ? ", optional" : "", arg->flags & HOST ? ", on the host" : "");
}

/* Each with the arguments whose shapes name it. */
static void print_dimensions(const struct program *program)
{
    const char *heading = "\nDimensions\n";
    for (int i = 0; i < program->num_symbols; i++) {
        const char *separator = "";
        uint64_t named = program->symbol[i].plan_symbol < 0;
        for (int k = 0; k < program->num_args; k++)
            named |= program_dimensions(program, k) >> i & 1;
        if (program->symbol[i].arg >= 0 || !named)
            continue;
        bool of_plan = program->symbol[i].plan_symbol >= 0;
        printf("%s  %-24s ", heading, program->symbol[i].name);
        if (of_plan || i == program->rows) {
            fputs(of_plan ? "of the plan" : "product of ...", stdout);
            separator = "; ";
        }
        for (int k = 0; k < program->num_args; k++)
            if (program_dimensions(program, k) >> i & 1) {
                printf("%s%s", separator, program->op->args[k].name);
                separator = ", ";
            }
        putchar('\n');
        heading = "";
    }
}

static void print_declaration(const struct op *op)
{
    printf("%s: %s\n\nArguments\n", op->name, op->summary);
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        print_argument(op, arg);
    const struct program *program = op_program(op);
    if (program)
        print_dimensions(program);
    if (op->rules && op->rules[0])
        puts("\nRules");
    for (const char *const *rule = op->rules; rule && *rule; rule++)
        printf("  %s\n", *rule);
    if (op->shapes && op->shapes->name)
        puts("\nNamed shapes");
    for (const struct op_shape *shape = op->shapes; shape && shape->name; shape++)
        printf("  %-24s %s\n", shape->name, shape->values);
    putchar('\n');
}

struct output {
    struct table *table;
    const struct op *op;
    const struct device *device;
};

static void found(void *context, const struct fit_row *row)
{
    static const char *const targets[] = {"cpu", "cuda", "any"};
    const struct output *out = context;
    char compiles[512] = "";
    size_t length = 0;
    for (int i = 0; !row->why_not && i < row->way->num_specs; i++) {
        char constants[256];
        specs_constants(&row->way->spec[i], constants, sizeof constants);
        length += (size_t)snprintf(compiles + length, sizeof compiles - length, "%s%s(%s)", i ? ", " : "",
                                   row->way->spec[i].kernel->name, constants);
        length = length < sizeof compiles ? length : sizeof compiles - 1;
    }
    table_text(out->table, "kernel", row->row->name);
    table_text(out->table, "runs on", targets[row->row->target]);
    table_text(out->table, "device", device_is_cuda(out->device) ? out->device->isa : "cpu");
    table_text(out->table, "serves", row->chosen ? "chosen" : row->why_not ? "no" : "yes");
    table_integer(out->table, "workspace", row->why_not ? 0 : (int64_t)row->way->workspace);
    table_text(out->table, "why not, or what is compiled", row->why_not ? row->why_not : compiles);
    table_end_row(out->table);
}

static int explain_on(const struct options *options, const struct device *device)
{
    char problem[PROBLEM_MAX_TEXT] = "";
    struct output out = {.table = table_open(options->json), .op = options->op[0], .device = device};
    flashinfer_status status = fits_explain(options->op[0], NULL, options->values, device, problem, found, &out);
    if (!options->json && problem[0])
        printf("On %s, with %s\n", device->name, problem);
    table_close(out.table);
    if (!options->json)
        putchar('\n');
    return exit_with(status);
}

static int run(const struct options *options)
{
    struct devices devices;
    int code = EXIT_FINE;
    if (options->num_named != 1)
        return usage_error(&command_explain, "name one op");
    if (!options->json)
        print_declaration(options->op[0]);
    flashinfer_status status = op_validate(options->op[0]);
    if (!status)
        status = devices_wanted(options, &devices);
    if (status)
        return exit_with(status);
    for (int i = 0; devices.device[i]; i++) {
        int next = explain_on(options, devices.device[i]);
        code = next > code ? next : code;
    }
    return code;
}

const struct command command_explain = {
    .name = "explain",
    .summary = "say what an op takes, and which kernels serve a call",
    .operands_text = "OP [NAME=VALUE...] [-- -ARGUMENT...]",
    .operands = OPERANDS_OPS_VALUES,
    .description = "Prints the declaration of OP: arguments with dtypes and shapes, rules, named shapes. Then, for a call with "
                   "the given dimensions, "
                   "each row of its kernel table in order of preference: whether it serves the call, and why not, or what is "
                   "compiled for it and how "
                   "much workspace it needs. The first row that serves is chosen.\n\n"
                   "NAME=VALUE gives a dimension, number, enum or dtype (dtype=bf16, ARGUMENT:dtype=f16); -ARGUMENT, after --, "
                   "leaves an optional "
                   "argument out. What is not given is as in the op's first named shape.",
    .options =
        (const struct command_option[]){{OPTION_DEVICE, "default all: the CPU, and a GPU if there is one"},
                                        {OPTION_ARCH, "CUDA devices of these architectures (90: sm_90), which need not be there"},
                                        {OPTION_END, NULL}},
    .json = "one row of the kernel table",
    .examples = "flashinfer explain rmsnorm\n"
                "flashinfer explain mm --arch 90 m=16 n=4096 k=4096 dtype=bf16\n"
                "flashinfer explain mm --device cpu -- -bias\n",
    .run = run,
};
