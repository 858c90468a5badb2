/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel that crashes takes with it: the command that was being done is said before the process ends. */
#ifndef CLI_CRASH_H
#define CLI_CRASH_H

/* From now on. */
void crash_watch(void);

/* What is being done. */
void crash_attempt(const char *command);

#endif
