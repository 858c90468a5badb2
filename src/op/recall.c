/* SPDX-License-Identifier: Apache-2.0 */
#include "op/recall.h"

#include <string.h>

#include "core/slot.h"
#include "op/plan.h"
#include "op/program.h"

enum { SETS = 32, WAYS = 4, MAX_TENSOR_WORDS = 2 + 2 * TENSOR_MAX_DIMS, CALL_WORDS = 6 };

/* Where a tensor lies behind its address. */
struct extent {
    uintptr_t bytes, misaligned; /* from its first to past its last; bits that its address must not have */
};

struct entry {
    struct slot slot;
    int num_words;
    uint64_t word[RECALL_MAX_WORDS];
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

static inline uint64_t load(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline const DLTensor *tensor_at_offset(const unsigned char *args, int offset)
{
    return *(const DLTensor *const *)(args + offset);
}

/* Writes the words of a tensor. Returns past the last; NULL if it is not one to be described. */
static inline uint64_t *describe_tensor(uint64_t *word, const DLTensor *t)
{
    const int ndim = t->ndim;
    if ((uint32_t)ndim - 1 >= TENSOR_MAX_DIMS || !t->shape)
        return NULL;
    _Static_assert(offsetof(DLTensor, shape) - offsetof(DLTensor, device) == 2 * sizeof *word, "device, ndim and dtype");
    memcpy(word, &t->device, 2 * sizeof *word);
    word += 2;
    const int64_t *sizes = t->shape, *strides = t->strides;
    if (!strides) {
        for (int i = 0; i < ndim; i++)
            word[i] = (uint64_t)sizes[i];
        return word + ndim;
    }
    for (int i = 0; i < ndim; i++, word += 2) {
        word[0] = (uint64_t)sizes[i];
        word[1] = (uint64_t)strides[i];
    }
    return word;
}

static bool describe(struct recall *r, const struct program *program, const unsigned char *args, const flashinfer_exec *exec)
{
    uint64_t *word = r->word + CALL_WORDS, *end = r->word + RECALL_MAX_WORDS - MAX_TENSOR_WORDS, hash = program->serial;
    uint64_t given = 0, strided = 0, placed = 0;
    int n = 0;
    for (int i = 0; i < program->num_words; i++)
        *word++ = load(args + program->word_offset[i]);
    for (int i = 0; i < program->num_tensors; i++) {
        const DLTensor *t = tensor_at_offset(args, program->tensor_offset[i]);
        if (i == program->num_written)
            r->num_written = n;
        if (!t)
            continue;
        if (word > end || !(word = describe_tensor(word, t)))
            return false;
        given |= UINT64_C(1) << i;
        strided |= (uint64_t)!!t->strides << i;
        placed |= (uint64_t)!!t->data << i;
        hash = (hash ^ (uint64_t)t->shape[0] ^ (uint64_t)t->shape[t->ndim - 1] << 24) * SLOT_FACTOR;
        r->low[n++] = (uintptr_t)t->data + t->byte_offset;
    }
    r->low[n] = 0;
    r->num_tensors = n;
    if (program->num_written == program->num_tensors)
        r->num_written = n;
    r->word[0] = program->serial;
    r->word[1] = given;
    r->word[2] = strided;
    r->word[3] = placed;
    r->word[4] = r->word[5] = 0;
    if (exec) {
        memcpy(&r->word[4], &exec->device, sizeof exec->device);
        r->word[5] = (uint64_t)exec->flags << 32 | (uint32_t)exec->threads;
    }
    r->num_words = (int)(word - r->word);
    r->hash = hash | 1;
    return true;
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

/* Two at a time; there is one past the last, 0. */
typedef uintptr_t pair __attribute__((vector_size(2 * sizeof(uintptr_t))));

static inline pair load_pair(const uintptr_t *at)
{
    pair x;
    memcpy(&x, at, sizeof x);
    return x;
}

/* Those that an output's addresses meet lie from it where they lay: whether elements meet is known. */
__attribute__((noinline)) static bool meet_as_before(const struct recall *r, const struct entry *entry)
{
    for (int i = 0; i < r->num_written; i++)
        for (int k = i + 1; k < r->num_tensors; k++)
            if (r->low[i] < r->low[k] + entry->extent[k].bytes && r->low[k] < r->low[i] + entry->extent[i].bytes &&
                r->low[k] - r->low[i] != entry->low[k] - entry->low[i])
                return false;
    return true;
}

/* Aligned, within memory, and outputs share no more of it than they did. */
static bool addresses_are_right(const struct recall *r, const struct entry *entry)
{
    const struct extent *extent = entry->extent;
    const uintptr_t *low = r->low;
    uintptr_t high[OP_MAX_ARGS + 1], misaligned = 0, beyond = 0; /* its sign says whether something is */
    const int count = r->num_tensors, written = r->num_written;
    pair meet = {0}; /* negative: two do */
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

static bool is_like(const struct entry *entry, const struct recall *r, const flashinfer_plan *const *plan)
{
    return entry->num_words == r->num_words && !memcmp(entry->word, r->word, (size_t)r->num_words * sizeof *r->word) &&
           (!plan || same_plan(&entry->plan, *plan)) && addresses_are_right(r, entry);
}

static const flashinfer_plan *const *plan_field(const struct program *program, const void *args)
{
    const int arg = program->plan_arg;
    return arg < 0 ? NULL : (const void *)((const unsigned char *)args + program->arg[arg].offset);
}

/* The arguments of then, with the tensors and the plan of now. */
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

static bool find(const struct recall *r, struct call *call, const void *args)
{
    struct entry *set = set_of(r->hash);
    for (int way = 0; way < WAYS; way++) {
        struct entry *entry = &set[way];
        if (!slot_hold_if(&entry->slot, r->hash))
            continue;
        const bool found = is_like(entry, r, plan_field(call->program, args));
        if (found)
            take_over(call, entry, args);
        slot_release(&entry->slot);
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
    if (!program || !args || makes_plan(op, program) || load(args) != op->args_bytes || (exec && exec->size != sizeof *exec) ||
        !describe(r, program, args, exec))
        return false;
    call->op = op;
    call->program = program;
    if (!find(r, call, args) || (exec && exec->stream && call->device->id.device_type == kDLCPU))
        return false;
    if (exec)
        call->exec = *exec;
    else
        memset(&call->exec, 0, sizeof call->exec);
    call->args = call->storage;
    call->empty = false;
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

void recall_keep(const struct recall *r, const struct call *call)
{
    const struct program *program = call->program;
    struct entry *entry = &set_of(r->hash)[atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % WAYS];
    if (!r->hash || has_number_tensors(call) || !slot_hold(&entry->slot))
        return;
    slot_name(&entry->slot, r->hash);
    measure_all(call, entry->extent);
    memcpy(entry->low, r->low, (size_t)r->num_tensors * sizeof *r->low);
    entry->num_words = r->num_words;
    memcpy(entry->word, r->word, (size_t)r->num_words * sizeof *r->word);
    entry->device = call->device;
    entry->bound = call->bound;
    memcpy(entry->dim, call->dim, (size_t)program->num_symbols * sizeof *call->dim);
    memcpy(entry->storage, call->storage, call->op->args_bytes);
    if (call->plan)
        entry->plan = *(const struct plan_blob *)*plan_field(program, call->args);
    slot_release(&entry->slot);
}
