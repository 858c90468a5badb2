/* SPDX-License-Identifier: Apache-2.0 */
/* Calls like one that was checked before. What call_check finds depends on the op, on the values among the arguments, on the
 * plan's content, on what each tensor is (device, dtype, sizes, strides), and on addresses only in that they are aligned and
 * outputs share memory with nothing, or with what they may. All this is described in words; a call whose description and plan
 * are those of an earlier one, and whose addresses are right, has that one's result. Anything else is left to call_check. */
#ifndef OP_RECALL_H
#define OP_RECALL_H

#include "op/replay.h"

struct recall {
    uint64_t hash; /* 0: the call cannot be described */
    struct replay_key key;
    uintptr_t low[OP_MAX_ARGS + 1]; /* where the tensors given begin, those that are written first; then 0 */
    struct replay *replay;
};

/* If a call like this one is known, fills `call` as call_check does and returns true; if even its launches are known, sets
 * recall->replay instead of filling `call`. */
bool recall_find(struct recall *recall, struct call *call, const struct op *op, const void *args, const flashinfer_exec *exec);

/* Remembers what call_check made of that call, which is not empty. */
void recall_keep(struct recall *recall, const struct call *call, const void *args, const flashinfer_exec *exec);

#endif
