/* SPDX-License-Identifier: Apache-2.0 */
/* Launches made again. What a call launches depends on what recall.h describes, on addresses, on the workspace and on the kernel
 * that is asked for: fit is pure, and a row with specs does its work by call_launch alone. A call that is an earlier one in all
 * of this launches what that one did, with the same bytes of arguments, on the stream that it names. */
#ifndef OP_REPLAY_H
#define OP_REPLAY_H

#include "op/op.h"

struct replay;

/* What tells one call from another among those of one description. */
struct replay_key {
    uint64_t description; /* its number; 0: none, nothing is found or noted */
    uint64_t hash;        /* of the addresses */
    const uintptr_t *low; /* of the tensors given */
    int num_tensors;
    const flashinfer_exec *exec; /* or NULL */
};

/* The launches of a call; NULL if they are not known. They are held until replay_run has made them. */
struct replay *replay_find(const struct replay_key *key);
flashinfer_status replay_run(struct replay *replay, void *stream);

/* The launches of a call that a binding was told of by words of this hash; NULL if there are none. words: by which ones; if these
 * are not the caller's, neither is the call, and it must be let go. Held until then, or until replay_run. */
struct replay *replay_find_told(uint64_t hash, const uint64_t **words);
void replay_let_go(struct replay *replay);

/* From now on this call is also found by what that binding was told. */
void replay_tell(struct replay *replay, const struct call_for *binding);

/* Begins to note what a call launches; NULL if that cannot be. replay_end: with what became of the call. */
struct replay *replay_begin(const struct replay_key *key, const struct call *call, const struct op_kernel *row);
void replay_note(struct replay *replay, const struct jit_module *module, const char *name, const struct jit_queue *queue,
                 const struct jit_launch *launch);
void replay_end(struct replay *replay, flashinfer_status status);

#endif
