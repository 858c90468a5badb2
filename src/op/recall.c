/* SPDX-License-Identifier: Apache-2.0 */
#include "op/recall.h"

#include <string.h>

#include "core/slot.h"
#include "op/plan.h"
#include "op/program.h"
#include "op/words.h"

enum { SETS = 32, WAYS = 4, HASHED_TENSORS = 4, MAX_WORDS = 384 };

/* Where a tensor lies behind its address. */
struct extent {
    uintptr_t bytes, misaligned; /* from its first to past its last; bits that its address must not have */
};

/* A tensor's field in the op's struct, and which of its pointers are given. */
struct field {
    uint16_t offset;
    bool strided, placed;
};

struct entry {
    struct slot slot;
    uint64_t number; /* no other description has or had it */
    uint64_t serial; /* of the program */
    uint64_t where, how; /* of exec */
    int num_given, num_written;          /* tensors; those that are written stand first */
    struct field field[OP_MAX_ARGS];     /* of those given, then of those absent */
    uint64_t word[MAX_WORDS];            /* values, then what each tensor given is */
    uintptr_t low[OP_MAX_ARGS];
    struct extent extent[OP_MAX_ARGS];
    const struct device *device;
    uint64_t bound;
    int64_t dim[OP_MAX_DIMS];
    _Alignas(16) unsigned char storage[OP_MAX_ARGS_BYTES];
    struct plan_blob plan;
};

static struct entry table[SETS][WAYS];
static atomic_uint turn; /* of the ways of a set to be forgotten */

static struct entry *set_of(uint64_t hash) { return table[hash >> 32 & (SETS - 1)]; }

static inline const DLTensor *tensor_at_offset(const unsigned char *args, int offset)
{
    return *(const DLTensor *const *)(args + offset);
}

/* Of the sizes of a few tensors, which tell most calls of an op apart. 0: the call cannot be described. */
static uint64_t hash_of(const struct program *program, const unsigned char *args)
{
    uint64_t hash = program->serial;
    const int count = program->num_tensors < HASHED_TENSORS ? program->num_tensors : HASHED_TENSORS;
    for (int i = 0; i < count; i++) {
        const DLTensor *t = tensor_at_offset(args, program->tensor_offset[i]);
        if (!t)
            continue;
        if (!is_describable(t))
            return 0;
        hash = (hash ^ (uint64_t)t->shape[0] ^ (uint64_t)t->shape[t->ndim - 1] << 24) * SLOT_FACTOR;
    }
    return hash | 1;
}

static inline uint64_t where_of(const flashinfer_exec *exec) { return exec ? load_word(&exec->device) : 0; }

static inline uint64_t how_of(const flashinfer_exec *exec)
{
    return exec ? (uint64_t)exec->flags << 32 | (uint32_t)exec->threads : 0;
}

static void describe_field(struct recall *r, struct entry *entry, int offset, const DLTensor *t)
{
    const int i = entry->num_given++;
    entry->field[i] = (struct field){(uint16_t)offset, t->strides, t->data};
    entry->low[i] = r->low[i] = tensor_low(t);
    r->key.hash = hash_word(r->key.hash, r->low[i]);
}

/* False: it has too many words. */
static bool describe(struct recall *r, struct entry *entry, const struct program *program, const unsigned char *args,
                     const flashinfer_exec *exec)
{
    uint64_t *word = entry->word, *end = entry->word + MAX_WORDS - MAX_TENSOR_WORDS;
    struct field *absent = entry->field + program->num_tensors;
    r->key.hash = 0;
    entry->serial = program->serial;
    entry->where = where_of(exec);
    entry->how = how_of(exec);
    entry->num_given = entry->num_written = 0;
    for (int i = 0; i < program->num_words; i++)
        *word++ = load_word(args + program->word_offset[i]);
    for (int i = 0; i < program->num_tensors; i++) {
        const DLTensor *t = tensor_at_offset(args, program->tensor_offset[i]);
        if (!t) {
            *--absent = (struct field){program->tensor_offset[i], false, false};
            continue;
        }
        if (word > end || !is_describable(t))
            return false;
        word = describe_tensor(word, t);
        describe_field(r, entry, program->tensor_offset[i], t);
        entry->num_written += i < program->num_written;
    }
    r->key.num_tensors = entry->num_given;
    return true;
}

/* Whether the tensors are as described. Tells where they lie. */
static inline bool same_tensors(const struct entry *entry, struct recall *r, const uint64_t *word, const unsigned char *args)
{
    const int count = entry->num_given;
    struct difference different = {0};
    uint64_t hash = 0;
    for (int i = 0; i < count; i++) {
        const struct field *field = &entry->field[i];
        const DLTensor *t = tensor_at_offset(args, field->offset);
        if (!t || (t->strides != NULL) != field->strided || (t->data != NULL) != field->placed ||
            !compare_tensor(t, field->strided, &word, &different))
            return false;
        r->low[i] = tensor_low(t);
        hash = hash_word(hash, r->low[i]);
    }
    r->low[count] = 0;
    r->key.hash = hash;
    r->key.num_tensors = count;
    return !is_different(&different);
}

static bool same_description(const struct entry *entry, struct recall *r, const struct program *program,
                             const unsigned char *args, const flashinfer_exec *exec)
{
    uint64_t different = (where_of(exec) ^ entry->where) | (how_of(exec) ^ entry->how);
    const uint64_t *word = entry->word;
    if (entry->serial != program->serial)
        return false;
    for (int i = 0; i < program->num_words; i++)
        different |= load_word(args + program->word_offset[i]) ^ *word++;
    for (int i = entry->num_given; i < program->num_tensors; i++)
        different |= (uintptr_t)tensor_at_offset(args, entry->field[i].offset);
    return !different && same_tensors(entry, r, word, args);
}

static inline size_t plan_head(const struct plan_blob *plan)
{
    return offsetof(struct plan_blob, symbol) + plan->num_symbols * sizeof *plan->symbol;
}

/* Byte for byte, as far as it is used. */
static bool same_plan(const struct plan_blob *known, const flashinfer_plan *given)
{
    const struct plan_blob *blob = (const struct plan_blob *)given;
    return given && (uintptr_t)given % _Alignof(flashinfer_plan) == 0 && !memcmp(known, blob, plan_head(known)) &&
           !memcmp(known->constants, blob->constants, known->constants_bytes);
}

/* Every tensor whose addresses an output overlaps lies as far from it as it did then, and so shares no more with it. */
__attribute__((noinline)) static bool meet_as_before(const struct recall *r, const struct entry *entry)
{
    for (int i = 0; i < entry->num_written; i++)
        for (int k = i + 1; k < entry->num_given; k++)
            if (r->low[i] < r->low[k] + entry->extent[k].bytes && r->low[k] < r->low[i] + entry->extent[i].bytes &&
                r->low[k] - r->low[i] != entry->low[k] - entry->low[i])
                return false;
    return true;
}

/* They are aligned and within memory, and outputs overlap no more than they did. low[count] is 0. */
static bool addresses_are_right(const struct recall *r, const struct entry *entry)
{
    const struct extent *extent = entry->extent;
    const uintptr_t *low = r->low;
    uintptr_t high[OP_MAX_ARGS + 1], misaligned = 0, beyond = 0; /* its sign says whether something is */
    const int count = entry->num_given, written = entry->num_written;
    word_pair meet = {0}; /* negative: two do */
    high[count] = 0;
    for (int i = 0; i < count; i++) {
        high[i] = low[i] + extent[i].bytes;
        misaligned |= low[i] & extent[i].misaligned;
        beyond |= low[i] | high[i];
    }
    for (int i = 0; i < written; i++) {
        const uintptr_t begin = low[i], end = high[i];
        for (int k = i + 1; k < count; k += 2)
            meet |= (begin - load_pair(&high[k])) & (load_pair(&low[k]) - end);
    }
    if ((intptr_t)beyond < 0 || misaligned)
        return false;
    return (intptr_t)(meet[0] | meet[1]) >= 0 || meet_as_before(r, entry);
}

static const flashinfer_plan *const *plan_field(const struct program *program, const void *args)
{
    const int arg = program->plan_arg;
    return arg < 0 ? NULL : (const void *)((const unsigned char *)args + program->arg[arg].offset);
}

/* The earlier call's arguments, with the tensors and the plan of this one. */
static void take_over(struct call *call, const struct entry *entry, const unsigned char *args)
{
    const struct program *program = call->program;
    const flashinfer_plan *const *plan = plan_field(program, args);
    memcpy(call->storage, entry->storage, call->op->args_bytes);
    for (int i = 0; i < program->num_tensors; i++) {
        const int offset = program->tensor_offset[i];
        *(const DLTensor **)(call->storage + offset) = tensor_at_offset(args, offset);
    }
    memcpy(call->dim, entry->dim, (size_t)program->num_symbols * sizeof *call->dim);
    call->bound = entry->bound;
    call->device = entry->device;
    call->plan = NULL;
    if (plan) {
        *(const flashinfer_plan **)(call->storage + program->arg[program->plan_arg].offset) = *plan;
        call->plan = ((const struct plan_blob *)*plan)->constants;
    }
}

static bool is_like(const struct entry *entry, struct recall *r, const struct program *program, const void *args,
                    const flashinfer_exec *exec)
{
    const flashinfer_plan *const *plan = plan_field(program, args);
    return same_description(entry, r, program, args, exec) && (!plan || same_plan(&entry->plan, *plan));
}

/* If the call's launches are known, its addresses are an earlier call's, which were right. */
static bool find_in(const struct entry *entry, struct recall *r, struct call *call, const void *args, const flashinfer_exec *exec)
{
    if (!is_like(entry, r, call->program, args, exec) || (exec && exec->stream && entry->device->id.device_type == kDLCPU))
        return false;
    r->key.description = entry->number;
    r->replay = replay_find(&r->key);
    if (r->replay)
        return true;
    r->key.description = addresses_are_right(r, entry) ? entry->number : 0;
    if (!r->key.description)
        return false;
    take_over(call, entry, args);
    return true;
}

static bool find(struct recall *r, struct call *call, const void *args, const flashinfer_exec *exec)
{
    struct entry *set = set_of(r->hash);
    for (int way = 0; way < WAYS; way++) {
        if (!slot_hold_if(&set[way].slot, r->hash))
            continue;
        const bool found = find_in(&set[way], r, call, args, exec);
        slot_release(&set[way].slot);
        if (found)
            return true;
    }
    return false;
}

/* Whose result is more than a tensor. */
static bool makes_plan(const struct op *op, const struct program *program)
{
    return program->plan_arg >= 0 && op->args[program->plan_arg].is_output;
}

bool recall_find(struct recall *r, struct call *call, const struct op *op, const void *args, const flashinfer_exec *exec)
{
    const struct program *program = op_program(op);
    r->hash = 0;
    r->replay = NULL;
    r->key.description = 0;
    r->key.low = r->low;
    r->key.exec = exec;
    if (!program || !args || makes_plan(op, program) || load_word(args) != op->args_bytes || (exec && exec->size != sizeof *exec))
        return false;
    r->hash = hash_of(program, args);
    call->op = op;
    call->program = program;
    if (!r->hash || !find(r, call, args, exec))
        return false;
    if (r->replay)
        return true;
    if (exec)
        call->exec = *exec;
    else
        memset(&call->exec, 0, sizeof call->exec);
    call->args = call->storage;
    call->empty = false;
    call->replay = NULL;
    if (op->view)
        op->view(call->args, call->view);
    return true;
}

static struct extent measure(const DLTensor *t)
{
    const uintptr_t element = (uintptr_t)(t->dtype.bits * t->dtype.lanes) / 8;
    uintptr_t elements = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] == 0)
            return (struct extent){0, 0};
        elements += (uintptr_t)(t->shape[i] - 1) * (t->strides ? (uintptr_t)t->strides[i] : elements);
    }
    return (struct extent){elements * element, element - 1};
}

/* Numbers given as tensors are described by the address of a DLTensor alone. */
static bool has_number_tensors(const struct call *call)
{
    for (const struct op_arg *arg = call->op->args; arg->kind != OP_END; arg++)
        if (!op_is_tensor(arg) && op_tensor(call->args, arg))
            return true;
    return false;
}

static void measure_all(const struct call *call, struct extent *extent)
{
    const struct program *program = call->program;
    for (int i = 0; i < program->num_tensors; i++) {
        const DLTensor *t = tensor_at_offset(call->args, program->tensor_offset[i]);
        if (t)
            *extent++ = measure(t);
    }
}

void recall_keep(struct recall *r, const struct call *call, const void *args, const flashinfer_exec *exec)
{
    static atomic_uint_fast64_t descriptions;
    const struct program *program = call->program;
    struct entry *entry = &set_of(r->hash)[atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % WAYS];
    if (!r->hash || has_number_tensors(call) || !slot_hold(&entry->slot))
        return;
    slot_name(&entry->slot, 0);
    if (describe(r, entry, program, args, exec)) {
        measure_all(call, entry->extent);
        entry->number = r->key.description = atomic_fetch_add_explicit(&descriptions, 1, memory_order_relaxed) + 1;
        entry->device = call->device;
        entry->bound = call->bound;
        memcpy(entry->dim, call->dim, (size_t)program->num_symbols * sizeof *call->dim);
        memcpy(entry->storage, call->storage, call->op->args_bytes);
        if (call->plan)
            entry->plan = *(const struct plan_blob *)*plan_field(program, call->args);
        slot_name(&entry->slot, r->hash);
    }
    slot_release(&entry->slot);
}
