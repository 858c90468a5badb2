/* SPDX-License-Identifier: Apache-2.0 */
/* Handles the signals of a crash. */
#include "cli/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char sentence[1152] = "\nflashinfer: crashed\n";

/* Only what is safe in a handler. Several threads may crash at once: the first speaks, and ends the others
 * too. */
static void crashed(int signal_number)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&said))
        pause();
    ssize_t ignored = write(STDERR_FILENO, sentence, strlen(sentence));
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
    snprintf(sentence, sizeof sentence, "\nflashinfer: crashed in: %s\n", command);
}
