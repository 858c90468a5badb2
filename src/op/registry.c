/* SPDX-License-Identifier: Apache-2.0 */
/* All ops, from ops/ops.def: the table, the public entry of each, and the entries that take an op's name. */
#include <string.h>

#include "core/status.h"
#include "op/op.h"

#define OP_ENTRY(name) extern const struct op op_##name;
#include "ops/ops.def"
#undef OP_ENTRY

const struct op *const op_registry[] = {
#define OP_ENTRY(name) &op_##name,
#include "ops/ops.def"
#undef OP_ENTRY
    NULL,
};

#define OP_ENTRY(name)                                                                                     \
    struct flashinfer_##name;                                                                              \
    FLASHINFER_DECLARE_OP(name);                                                                           \
    flashinfer_status flashinfer_##name(const struct flashinfer_##name *args, const flashinfer_exec *exec) \
    {                                                                                                      \
        return op_call(&op_##name, args, exec);                                                            \
    }
#include "ops/ops.def"
#undef OP_ENTRY

const struct op *op_find(const char *name)
{
    for (const struct op *const *op = op_registry; *op; op++)
        if (!strcmp((*op)->name, name))
            return *op;
    return NULL;
}

static flashinfer_status find(const char *name, const struct op **op)
{
    if (!name)
        return fail(FLASHINFER_INVALID, "the name of the op is NULL");
    *op = op_find(name);
    return *op ? FLASHINFER_OK : fail(FLASHINFER_INVALID, "no op is called \"%s\"; `flashinfer list` names all", name);
}

flashinfer_status flashinfer_call(const char *name, const void *args, const flashinfer_exec *exec)
{
    const struct op *op;
    TRY(find(name, &op));
    return op_call(op, args, exec);
}

flashinfer_status flashinfer_prepare(const char *name, const void *args, const flashinfer_exec *exec)
{
    const struct op *op;
    TRY(find(name, &op));
    return op_prepare(op, args, exec);
}

flashinfer_status flashinfer_workspace_size(const char *name, const void *args, const flashinfer_exec *exec, size_t *bytes)
{
    const struct op *op;
    TRY(find(name, &op));
    if (!bytes)
        return fail(FLASHINFER_INVALID, "%s: bytes is NULL", name);
    return op_workspace_size(op, args, exec, bytes);
}
