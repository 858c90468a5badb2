/* SPDX-License-Identifier: Apache-2.0 */
#include "op/replay.h"

#include <string.h>

#include "core/slot.h"
#include "op/words.h"

enum { SETS = 256, WAYS = 4, RELUCTANCE = 8, MAX_LAUNCHES = 4, MAX_BYTES = 1536, MAX_TOLD = 128, ALIGNMENT = 64 };
enum { TOLD_SETS = 256, TOLD_WAYS = 8, PLACES = SETS * WAYS };

#define TOO_LONG UINT64_C(1) /* no hash of a call: those are larger than any place */

struct noted {
    const struct jit_module *module;
    const char *name;
    struct jit_launch launch;
};

struct replay {
    struct slot *slot;
    uint64_t description;
    void *workspace;
    size_t workspace_size;
    const char *row;
    bool forced; /* by exec.kernel, for which rows may launch something else */
    int num_launches;
    uint32_t bytes; /* of args */
    uint64_t told_hash; /* of `told`; 0: it holds nothing yet; TOO_LONG: it has no room */
    struct jit_queue queue;
    struct noted noted[MAX_LAUNCHES];
    uintptr_t low[OP_MAX_ARGS];
    uint64_t told[MAX_TOLD]; /* by what words a binding was told of this call, the first one that made it again */
    _Alignas(ALIGNMENT) unsigned char args[MAX_BYTES];
};

/* A set fills a line of the cache: many calls are looked for in vain, and then no other line is touched. */
static _Alignas(ALIGNMENT) struct slot slots[SETS][WAYS];
static struct replay table[SETS][WAYS];
static _Alignas(ALIGNMENT) _Atomic uint64_t told_places[TOLD_SETS][TOLD_WAYS]; /* hashes; the lowest bits: a place in `table` */
static atomic_uint turn; /* counts calls to be noted: says which of them take a full set's way, and which way */

static uint64_t hash_of(const struct replay_key *key)
{
    const uintptr_t workspace = key->exec ? (uintptr_t)key->exec->workspace : 0;
    return slot_mix(hash_word(key->hash, workspace) ^ key->description) | 1;
}

static unsigned set_of(uint64_t hash) { return (unsigned)(hash >> 32) & (SETS - 1); }

static bool is_same(const struct replay *replay, const struct replay_key *key)
{
    static const flashinfer_exec none;
    const flashinfer_exec *exec = key->exec ? key->exec : &none;
    return replay->description == key->description && replay->workspace == exec->workspace &&
           replay->workspace_size == exec->workspace_size &&
           !memcmp(replay->low, key->low, (size_t)key->num_tensors * sizeof *key->low) && /* whose number the description tells */
           (exec->kernel ? replay->forced && !strcmp(exec->kernel, replay->row) : !replay->forced);
}

struct replay *replay_find(const struct replay_key *key)
{
    const uint64_t hash = hash_of(key);
    const unsigned set = set_of(hash);
    for (int way = 0; way < WAYS; way++) {
        if (!slot_hold_if(&slots[set][way], hash))
            continue;
        if (is_same(&table[set][way], key))
            return &table[set][way];
        slot_release(&slots[set][way]);
    }
    return NULL;
}

void replay_let_go(struct replay *replay) { slot_release(replay->slot); }

static _Atomic uint64_t *told_set(uint64_t hash) { return told_places[hash >> 32 & (TOLD_SETS - 1)]; }

static struct replay *at_place(unsigned place) { return &table[place / WAYS][place % WAYS]; }

struct replay *replay_find_told(uint64_t hash, const uint64_t **words)
{
    const _Atomic uint64_t *set = told_set(hash);
    for (int way = 0; way < TOLD_WAYS; way++) {
        const uint64_t found = atomic_load_explicit(&set[way], memory_order_relaxed);
        if ((found ^ hash) / PLACES)
            continue;
        const unsigned place = found % PLACES;
        if (!slot_hold(&slots[place / WAYS][place % WAYS]))
            return NULL;
        struct replay *replay = at_place(place);
        *words = replay->told;
        if (replay->told_hash == hash)
            return replay;
        replay_let_go(replay);
    }
    return NULL;
}

void replay_tell(struct replay *replay, const struct call_for *binding)
{
    const struct call_told *told = &binding->told;
    if (!told->hash || (replay->told_hash && replay->told_hash != told->hash))
        return;
    if (!replay->told_hash) {
        const bool fits = told->write(binding->context, replay->told, MAX_TOLD);
        replay->told_hash = fits ? told->hash : TOO_LONG;
        if (!fits)
            return;
    }
    const uint64_t place = (uint64_t)((char *)replay - (char *)table) / sizeof *replay;
    const uint64_t entry = told->hash / PLACES * PLACES + place;
    _Atomic uint64_t *set = told_set(told->hash);
    int way = 0;
    while (way < TOLD_WAYS && set[way] && set[way] != entry)
        way++;
    atomic_store_explicit(&set[way < TOLD_WAYS ? way : (int)(place % TOLD_WAYS)], entry, memory_order_relaxed);
}

flashinfer_status replay_run(struct replay *replay, void *stream)
{
    flashinfer_status status = FLASHINFER_OK;
    replay->queue.stream = stream;
    for (int i = 0; i < replay->num_launches && !status; i++) {
        const struct noted *noted = &replay->noted[i];
        status = jit_launch_module(noted->module, noted->name, &replay->queue, &noted->launch);
    }
    slot_release(replay->slot);
    return status;
}

/* Where a call is to be noted, held: an empty way; if there is none, one call in RELUCTANCE takes another's. A note costs more
 * than a call that is worked out, and a program that goes round more calls than there is room for would never read one. */
static struct replay *make_room(uint64_t hash)
{
    const unsigned set = set_of(hash), now = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
    unsigned way = 0;
    while (way < WAYS && atomic_load_explicit(&slots[set][way].hash, memory_order_relaxed))
        way++;
    if (way == WAYS && now % RELUCTANCE)
        return NULL;
    way = way == WAYS ? now / RELUCTANCE % WAYS : way;
    if (!slot_hold(&slots[set][way]))
        return NULL;
    slot_name(&slots[set][way], hash);
    table[set][way].slot = &slots[set][way];
    return &table[set][way];
}

struct replay *replay_begin(const struct replay_key *key, const struct call *call, const struct op_kernel *row)
{
    if (!key->description || call->op->variant)
        return NULL;
    struct replay *replay = make_room(hash_of(key));
    if (!replay)
        return NULL;
    replay->description = key->description;
    replay->workspace = call->exec.workspace;
    replay->workspace_size = call->exec.workspace_size;
    replay->row = row->name;
    replay->forced = call->exec.kernel != NULL;
    memcpy(replay->low, key->low, (size_t)key->num_tensors * sizeof *key->low);
    replay->num_launches = 0;
    replay->bytes = 0;
    replay->told_hash = 0;
    return replay;
}

/* If a launch does not fit, the call is not noted at all. */
void replay_note(struct replay *replay, const struct jit_module *module, const char *name, const struct jit_queue *queue,
                 const struct jit_launch *launch)
{
    if (replay->num_launches == MAX_LAUNCHES || launch->args_size > MAX_BYTES - replay->bytes) {
        replay->description = 0;
        return;
    }
    struct noted *noted = &replay->noted[replay->num_launches++];
    *noted = (struct noted){module, name, *launch};
    noted->launch.args = memcpy(replay->args + replay->bytes, launch->args, launch->args_size);
    replay->bytes += (launch->args_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    replay->queue = *queue;
}

void replay_end(struct replay *replay, flashinfer_status status)
{
    if (status || !replay->num_launches || !replay->description)
        slot_name(replay->slot, 0);
    slot_release(replay->slot);
}
