/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer list */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/options.h"

static json_t *dtype_names(uint32_t set)
{
    json_t *names = json_array();
    for (int dtype = 1; dtype < DTYPE_COUNT; dtype++)
        if (set >> dtype & 1)
            json_array_append_new(names, json_string(dtype_name((enum dtype)dtype)));
    return names;
}

static json_t *describe_argument(const struct op_arg *arg)
{
    static const char *const kinds[] = {"", "in", "out", "inout", "number", "int", "enum", "dtype", "text", "plan", "comm"};
    json_t *object = json_pack("{s:s, s:s, s:b}", "name", arg->name, "kind", kinds[arg->kind], "optional", arg->flags & OPTIONAL);
    if (arg->shape)
        json_object_set_new(object, "shape", json_string(arg->shape));
    if (arg->dtype.set)
        json_object_set_new(object, "dtypes", dtype_names(arg->dtype.set));
    if (arg->dtype.like)
        json_object_set_new(object, "dtype_of", json_string(arg->dtype.like));
    if (arg->names)
        json_object_set_new(object, "names", json_string(arg->names));
    return object;
}

static void print_json(const struct op *op)
{
    json_t *arguments = json_array(), *kernels = json_array(), *rules = json_array();
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        json_array_append_new(arguments, describe_argument(arg));
    for (const struct op_kernel *row = op->kernels; row && row->name; row++)
        json_array_append_new(kernels, json_string(row->name));
    for (const char *const *rule = op->rules; rule && *rule; rule++)
        json_array_append_new(rules, json_string(*rule));
    json_t *object = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "name", op->name, "family", op->family, "summary", op->summary,
                               "arguments", arguments, "rules", rules, "kernels", kernels);
    json_dumpf(object, stdout, 0);
    putchar('\n');
    json_decref(object);
}

static int run(const struct options *options)
{
    int width = 0;
    for (int i = 0; options->op[i]; i++)
        width = (int)strlen(options->op[i]->name) > width ? (int)strlen(options->op[i]->name) : width;
    for (int i = 0; options->op[i]; i++)
        if (options->json)
            print_json(options->op[i]);
        else
            printf("%-*s  %-10s  %s\n", width, options->op[i]->name, options->op[i]->family, options->op[i]->summary);
    return EXIT_FINE;
}

const struct command command_list = {
    .name = "list",
    .summary = "list the ops",
    .operands_text = "[OP...]",
    .operands = OPERANDS_OPS,
    .description =
        "Prints one op a line (default: every op): its name, its family and what it does. `flashinfer explain OP` says more "
        "of one op.",
    .json = "name, family, summary, arguments, rules, kernels",
    .examples = "flashinfer list\n"
                "flashinfer list --json rmsnorm\n",
    .run = run,
};
