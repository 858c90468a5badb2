/* SPDX-License-Identifier: Apache-2.0 */
/* Before SIGINT, SIGTERM or SIGHUP ends a long command, the rows that the open table holds back are printed. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/* From now on. A second signal ends the process at once. */
void interrupt_watch(void);

#endif
