/* SPDX-License-Identifier: Apache-2.0 */
/* How a subcommand ends that failed. */
#include <stdarg.h>
#include <stdio.h>

#include "cli/command.h"

int exit_with(flashinfer_status status)
{
    if (status == FLASHINFER_OK)
        return EXIT_FINE;
    fflush(stdout); /* what was found before it, where both go to one file */
    fprintf(stderr, "flashinfer: %s\n", flashinfer_last_error());
    switch (status) {
    case FLASHINFER_INVALID:
    case FLASHINFER_IO:
        return EXIT_USAGE;
    case FLASHINFER_UNSUPPORTED:
    case FLASHINFER_MEMORY:
    case FLASHINFER_NO_DRIVER:
    case FLASHINFER_NO_COMPILER:
        return EXIT_UNSUPPORTED;
    default:
        return EXIT_FAILED;
    }
}

int exit_after(flashinfer_status status, int failures)
{
    const int code = exit_with(status);
    return failures ? EXIT_FAILED : code;
}

int usage_error(const struct command *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("flashinfer: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nTry `flashinfer%s%s --help`.\n", command ? " " : "", command ? command->name : "");
    return EXIT_USAGE;
}
