/* SPDX-License-Identifier: Apache-2.0 */
/* Before a crash ends the process, it says the command that was being done. */
#ifndef CLI_CRASH_H
#define CLI_CRASH_H

/* From now on. */
void crash_watch(void);

/* What is being done. */
void crash_attempt(const char *command);

#endif
