/* SPDX-License-Identifier: Apache-2.0 */
/* A second opinion on calls that the checker accepted: reads the declaration's text itself, element by element where the checker
 * compares ranges, and shares no code with it. The values that the checker found for the dimensions are taken as a proposal: if
 * with them every shape, rule and range holds, the call is legal. */
#ifndef TESTS_FUZZ_ORACLE_H
#define TESTS_FUZZ_ORACLE_H

#include "op/program.h"

struct oracle {
    const struct call *call; /* as the checker left it */
    const void *args;        /* as the caller gave them */
    const flashinfer_exec *exec;
    bool loosely, elsewhere; /* as call_check was asked */
};

/* NULL if the call keeps all that its op declares, else which argument does not. Kept until the next call. */
const char *oracle_judge(const struct oracle *oracle);

/* Calls `each` with the address of every element. False, and nothing is called, if there are more than `most` elements. */
bool oracle_elements(const DLTensor *tensor, int64_t most, void (*each)(void *context, uintptr_t address), void *context);

/* The addresses of an accepted tensor's elements lie in [low, high). */
void oracle_extent(const DLTensor *tensor, uintptr_t *low, uintptr_t *high);

#endif
