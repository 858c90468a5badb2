/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer list */
#include <stdio.h>
#include <string.h>

#include "cli/options.h"
#include "op/describe.h"

static void print_json(const struct op *op)
{
    struct text text = {0};
    op_describe(&text, op);
    if (text_check(&text) == FLASHINFER_OK)
        puts(text.data);
    text_free(&text);
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
    .json = "name, family, summary, plan, size, arguments (with offset and bytes of the field), rules, kernels",
    .examples = "flashinfer list\n"
                "flashinfer list --json rmsnorm\n",
    .run = run,
};
