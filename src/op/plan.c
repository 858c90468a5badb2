/* SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading plans. */
#include "op/plan.h"

#include <string.h>

#include "core/status.h"

/* A sum in which each word has an odd factor of its own: it changes if one word does, and hardly stays if two do. */
static inline uint64_t add_words(uint64_t sum, const void *words, size_t bytes)
{
    uint64_t word, odd = 0, factor = 1;
    const char *at = words, *end = at + bytes;
    for (; at + sizeof word < end; at += 2 * sizeof word, factor += 4) {
        memcpy(&word, at, sizeof word);
        sum += word * factor;
        memcpy(&word, at + sizeof word, sizeof word);
        odd += word * (factor + 2);
    }
    if (at < end) {
        memcpy(&word, at, sizeof word);
        sum += word * factor;
    }
    return sum + odd;
}

/* Over all that is used, but for what plan_read compares or only quotes. */
static uint64_t checksum_of(const struct plan_blob *blob)
{
    enum { FIRST = offsetof(struct plan_blob, device), END = offsetof(struct plan_blob, op) };
    uint64_t sum = add_words(blob->build, (const char *)blob + FIRST, END - FIRST);
    sum = 3 * add_words(sum, blob->symbol, blob->num_symbols * sizeof *blob->symbol);
    return add_words(sum, blob->constants, blob->constants_bytes);
}

static bool is_intact(const struct plan_blob *blob)
{
    return blob->num_symbols <= PLAN_MAX_SYMBOLS && blob->constants_bytes <= PLAN_MAX_CONSTANTS &&
           blob->checksum == checksum_of(blob);
}

flashinfer_status call_write_plan(const struct call *call, flashinfer_plan *plan, const void *constants, size_t bytes,
                                  size_t workspace)
{
    const struct program *program = call->program;
    if (bytes > PLAN_MAX_CONSTANTS || program->num_symbols > PLAN_MAX_SYMBOLS)
        return fail(FLASHINFER_INTERNAL, "%s: a plan of %zu bytes and %d dimensions is too large", call->op->name, bytes,
                    program->num_symbols);
    struct plan_blob blob = {
        .magic = PLAN_MAGIC,
        .build = program->build,
        .device = call->device->id,
        .workspace = workspace,
        .bound = call->bound,
        .num_symbols = (uint32_t)program->num_symbols,
        .constants_bytes = (uint32_t)bytes,
    };
    strncpy(blob.op, call->op->name, sizeof blob.op - 1);
    memcpy(blob.symbol, call->dim, (size_t)program->num_symbols * sizeof *call->dim);
    memcpy(blob.constants, constants, bytes);
    blob.checksum = checksum_of(&blob);
    memcpy(plan, &blob, sizeof blob);
    return FLASHINFER_OK;
}

__attribute__((cold)) static flashinfer_status complain(const struct op *op, const struct plan_blob *blob)
{
    const char *name = op->args[op_program(op)->plan_arg].name, *maker = op->plan->name;
    char given[sizeof blob->op];
    memcpy(given, blob->op, sizeof given);
    given[sizeof given - 1] = 0;
    if (blob->magic != PLAN_MAGIC)
        return fail(FLASHINFER_FOREIGN_PLAN, "%s: %s is no plan, must be written by %s", op->name, name, maker);
    if (strncmp(given, maker, sizeof given - 1))
        return fail(FLASHINFER_FOREIGN_PLAN, "%s: %s was written by %s, must be written by %s", op->name, name, given, maker);
    if (blob->build == op_program(op->plan)->build)
        return fail(FLASHINFER_FOREIGN_PLAN, "%s: %s was changed after %s wrote it", op->name, name, maker);
    return fail(FLASHINFER_FOREIGN_PLAN,
                "%s: %s was written by another build of this library, must be written by %s of version %s", op->name, name, maker,
                FLASHINFER_VERSION);
}

flashinfer_status plan_read(const struct op *op, const flashinfer_plan *plan, const struct plan_blob **out)
{
    const struct program *maker = op_program(op->plan);
    const struct plan_blob *blob = (const struct plan_blob *)plan;
    if (!maker)
        return FLASHINFER_INTERNAL;
    if (blob->magic != PLAN_MAGIC || blob->build != maker->build || !is_intact(blob))
        return complain(op, blob);
    *out = blob;
    return FLASHINFER_OK;
}

flashinfer_status flashinfer_plan_workspace_size(const flashinfer_plan *plan, size_t *bytes)
{
    if (!plan || !bytes)
        return fail(FLASHINFER_INVALID, "flashinfer_plan_workspace_size: %s is NULL", plan ? "bytes" : "plan");
    struct plan_blob blob;
    memcpy(&blob, plan, sizeof blob);
    if (blob.magic != PLAN_MAGIC || !is_intact(&blob))
        return fail(FLASHINFER_FOREIGN_PLAN, "flashinfer_plan_workspace_size: plan is no plan");
    *bytes = blob.workspace;
    return FLASHINFER_OK;
}
