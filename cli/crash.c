/* SPDX-License-Identifier: Apache-2.0 */
/* Handles the signals of a crash. */
#include "cli/crash.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char attempt[1024];

/* Only what is safe in a handler. */
static void crashed(int signal_number)
{
    static const char before[] = "\nflashinfer: crashed in: ";
    ssize_t ignored = write(STDERR_FILENO, before, sizeof before - 1);
    ignored += write(STDERR_FILENO, attempt, strlen(attempt));
    ignored += write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void crash_watch(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], crashed);
}

void crash_attempt(const char *command)
{
    snprintf(attempt, sizeof attempt, "%s", command);
}
