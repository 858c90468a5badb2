/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer version */
#include <stdio.h>

#include "cli/options.h"
#include "cli/table.h"

static int run(const struct options *options)
{
    if (!options->json) {
        printf("flashinfer %s\n", flashinfer_version());
        return EXIT_FINE;
    }
    struct table *table = table_open(true);
    table_text(table, "version", flashinfer_version());
    table_end_row(table);
    table_close(table);
    return EXIT_FINE;
}

const struct command command_version = {
    .name = "version",
    .summary = "print the library's version",
    .description = "Prints the version of the library. `flashinfer --version` does the same.",
    .json = "version",
    .run = run,
};
