/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer version */
#include <stdio.h>

#include "cli/options.h"
#include "cli/table.h"

static int run(int argc, char **argv)
{
    struct options options;
    int code = options_parse(&command_version, argc, argv, "", false, false, &options);
    if (code >= 0)
        return code;
    if (!options.json) {
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
    .help = "usage: flashinfer version [--json]\n\n"
            "Prints the version of the library.\n\n"
            "OPTIONS\n"
            "  --json   {\"version\": ...}\n"
            "  --help   this text\n\n" EXIT_CODES_HELP,
    .run = run,
};
