/* SPDX-License-Identifier: Apache-2.0 */
/* A handler tells a thread, which may print; children that are forks of this process end as if it had not been there. */
#include "cli/interrupt.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/progress.h"
#include "cli/table.h"

static int message[2]; /* a pipe: the number of the signal */
static pid_t process;

static void end_by(int signal_number)
{
    signal(signal_number, SIG_DFL);
    kill(getpid(), signal_number);
}

/* A second one changes nothing: timeout(1) sends one to the process and one to its group. A third one ends a print that hangs. */
static void interrupted(int signal_number)
{
    static atomic_int count;
    int before = atomic_fetch_add(&count, 1);
    if (getpid() != process || before > 1 ||
        (before == 0 && write(message[1], &signal_number, sizeof signal_number) < 0))
        end_by(signal_number);
}

static void *print_and_end(void *unused)
{
    int signal_number;
    if (read(message[0], &signal_number, sizeof signal_number) != sizeof signal_number)
        return unused;
    progress_clear();
    table_print_last();
    end_by(signal_number);
    return unused;
}

void interrupt_watch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART}, before;
    pthread_t thread;
    process = getpid();
    if (pipe2(message, O_CLOEXEC) || pthread_create(&thread, NULL, print_and_end, NULL))
        return;
    pthread_detach(thread);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (!sigaction(signals[i], NULL, &before) && before.sa_handler == SIG_DFL) /* nohup and shells ignore some */
            sigaction(signals[i], &action, NULL);
}
