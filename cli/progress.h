/* SPDX-License-Identifier: Apache-2.0 */
/* How far a long piece of work is, on standard error: a bar on a terminal, a plain line every ten seconds elsewhere. Any thread
 * may say it. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

/* `total` 0: nobody knows how much there is, and there is no bar. */
void progress_show(int done, int total, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* From now on, compilations that last are shown beside what was shown last. */
void progress_watch_compiler(void);

/* Before anything else is printed, and at the end. */
void progress_clear(void);

#endif
