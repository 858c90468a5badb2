/* SPDX-License-Identifier: Apache-2.0 */
/* From declaration to program. */
#ifndef OP_PROGRAM_COMPILE_H
#define OP_PROGRAM_COMPILE_H

#include "op/program.h"

/* One block of memory, to be freed with free(); NULL and a sentence if the declaration is wrong or there is no memory. */
struct program *program_compile(const struct op *op);

#endif
