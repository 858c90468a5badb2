/* SPDX-License-Identifier: Apache-2.0 */
/* Tables in static memory that forget: for what is cheaper to find than to make again. An entry begins with a slot. Who reads or
 * writes an entry holds it meanwhile; who finds it held does without, so that nobody waits. */
#ifndef CORE_SLOT_H
#define CORE_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct slot {
    _Atomic uint64_t hash; /* of its key; 0: empty */
    atomic_bool held;
};

#define SLOT_FACTOR UINT64_C(0x9e3779b97f4a7c15) /* odd: multiplying by it loses nothing */

/* Spreads what tells keys apart over the bits of a hash. */
static inline uint64_t slot_mix(uint64_t key)
{
    key *= SLOT_FACTOR;
    return (key ^ key >> 32) * SLOT_FACTOR;
}

static inline bool slot_hold(struct slot *slot) { return !atomic_exchange_explicit(&slot->held, true, memory_order_acquire); }

/* If its key may be that one. */
static inline bool slot_hold_if(struct slot *slot, uint64_t hash)
{
    return atomic_load_explicit(&slot->hash, memory_order_relaxed) == hash && slot_hold(slot);
}

static inline void slot_release(struct slot *slot) { atomic_store_explicit(&slot->held, false, memory_order_release); }

/* By who holds it. */
static inline void slot_name(struct slot *slot, uint64_t hash)
{
    atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
}

#endif
