/* SPDX-License-Identifier: Apache-2.0 */
/* What the torture tests share: a cache and a TMPDIR under the folder of the case, a compiler that takes as long as it is told,
 * and a look at what was left behind. FLASHINFER_TORTURE=10 runs ten times as many rounds. */
#ifndef TESTS_TORTURE_TORTURE_H
#define TESTS_TORTURE_TORTURE_H

#include "tests/jit/support.h"

/* As many as are asked for, multiplied by FLASHINFER_TORTURE; a fifth under a sanitizer. */
int torture_rounds(int rounds);

void torture_path(char *path, size_t size, const char *name); /* in the folder of the case */

/* Makes a C compiler for multiply_spec(1) to multiply_spec(factors): waits, notes process and factor in "compiled", and copies
 * what was compiled beforehand. It serves children that call torture_use_compiler. */
void torture_make_compiler(int factors, double seconds);
void torture_use_compiler(void);

/* Files in a folder of the case, hidden ones too. */
int torture_files(const char *name);
void torture_empty(const char *name);

/* Waits until nothing runs any more that torture_start, or a process that it started, left behind; true if something does after
 * that time. */
int torture_orphans_left(double seconds);

/* A child that runs on; it fails unless `run` returns. */
pid_t torture_start(void (*run)(void));

#endif
