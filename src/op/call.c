/* SPDX-License-Identifier: Apache-2.0 */
/* The path of a call after its check: pick a row of the kernel table, make sure of the workspace, launch. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/environment.h"
#include "core/status.h"
#include "core/text.h"
#include "op/program.h"
#include "op/recall.h"
#include "op/replay.h"
#include "op/variant.h"

enum { WORKSPACE_ALIGNMENT = 256, PDL_ARCH = 90, MAX_LAUNCH_BYTES = 4096 /* what a kernel takes at most */ };

int32_t *way_spec(struct way *way, const struct jit_kernel *kernel)
{
    struct jit_spec *spec = &way->spec[way->num_specs++];
    memset(spec, 0, sizeof *spec);
    spec->kernel = kernel;
    return spec->constant;
}

/* Kept until this thread asks again. */
__attribute__((cold)) static const char *complain_arch(const struct op_kernel *row, int arch)
{
    static _Thread_local char reason[96];
    if (row->arch_max && row->arch_max != row->arch_min)
        snprintf(reason, sizeof reason, "needs sm_%d to sm_%d, the device is sm_%d", row->arch_min, row->arch_max, arch);
    else
        snprintf(reason, sizeof reason, "needs sm_%d%s, the device is sm_%d", row->arch_min, row->arch_max ? "" : " or later",
                 arch);
    return reason;
}

static const char *fit_variant(const struct call *call, const struct op_kernel *row, struct way *way)
{
    const struct op_variant *variant = call->op->variant;
    const char *why = row->fit(call, way);
    way->spec[0].user = variant->text;
    return why ? why : variant_unserved(variant, way->hooks);
}

bool call_row_is_for(const struct op_kernel *row, const struct device *device)
{
    return row->target == OP_ANYWHERE || (row->target == OP_CUDA) == (device->id.device_type == kDLCUDA);
}

const char *call_fit(const struct call *call, const struct op_kernel *row, struct way *way)
{
    const struct device *device = call->device;
    if (!call_row_is_for(row, device))
        return row->target == OP_CUDA ? "runs on CUDA devices" : "runs on CPUs";
    if (row->target == OP_CUDA && (device->arch < row->arch_min || (row->arch_max && device->arch > row->arch_max)))
        return complain_arch(row, device->arch);
    way->num_specs = 0;
    way->hooks = 0;
    way->workspace = 0;
    memset(way->value, 0, sizeof way->value);
    return call->op->variant ? fit_variant(call, row, way) : row->fit(call, way);
}

__attribute__((cold)) static flashinfer_status complain_unknown(const struct call *call)
{
    struct text names = {0};
    for (const struct op_kernel *row = call->op->kernels; row && row->name; row++)
        text_print(&names, "%s%s", row == call->op->kernels ? "" : ", ", row->name);
    flashinfer_status status = fail(FLASHINFER_INVALID, "%s: exec.kernel is \"%s\", must be one of: %s", call->op->name,
                                    call->exec.kernel, names.data ? names.data : "(no kernels)");
    text_free(&names);
    return status;
}

/* Whether a word of the text is that name, or what names begin with: head_dim stands for head_dim_qk, too. */
static bool is_named(const char *text, const char *name)
{
    for (size_t length; *text; text += length + !length) {
        length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
        if (length && !strncmp(text, name, length) && (!name[length] || (name[length] == '_' && memchr(text, '_', length))))
            return true;
    }
    return false;
}

static void add_value(struct text *text, const struct call *call, const struct program *program, int symbol)
{
    const int arg = program->symbol[symbol].arg, kind = arg >= 0 ? call->op->args[arg].kind : OP_INT;
    const int64_t value = call->dim[symbol];
    int length = 0;
    const char *name = kind == OP_ENUM ? op_enum_name(&call->op->args[arg], value, &length) : NULL;
    if (kind == OP_DTYPE)
        text_print(text, "%s = %s", program->symbol[symbol].name, dtype_name((enum dtype)value));
    else if (name)
        text_print(text, "%s = %.*s", program->symbol[symbol].name, length, name);
    else
        text_print(text, "%s = %" PRId64, program->symbol[symbol].name, value);
}

/* The values of the dimensions and arguments that the reasons speak of. */
__attribute__((cold)) static void add_values(struct text *reasons, const struct call *call)
{
    const struct program *program = op_program(call->op);
    bool any = false;
    for (int i = 0; program && i < program->num_symbols; i++)
        if (call->bound >> i & 1 && reasons->data && is_named(reasons->data, program->symbol[i].name)) {
            text_print(reasons, "%s", any ? ", " : " (");
            add_value(reasons, call, program, i);
            any = true;
        }
    if (any)
        text_print(reasons, ")");
}

/* With every row's reason; those for another kind of device only if there are no others. A plan op's one row has the op's own
 * name, which is not said twice. */
__attribute__((cold)) static flashinfer_status complain_unsupported(const struct call *call)
{
    struct text reasons = {0};
    struct way way;
    bool some_here = false;
    for (const struct op_kernel *row = call->op->kernels; row && row->name; row++)
        some_here = some_here || call_row_is_for(row, call->device);
    for (const struct op_kernel *row = call->op->kernels; row && row->name; row++)
        if (call->exec.kernel ? !strcmp(call->exec.kernel, row->name) : !some_here || call_row_is_for(row, call->device))
            text_print(&reasons, "%s%s%s%s", reasons.size ? "; " : "", row->target == OP_ANYWHERE ? "" : row->name,
                       row->target == OP_ANYWHERE ? "" : ": ", call_fit(call, row, &way));
    add_values(&reasons, call);
    flashinfer_status status = fail(FLASHINFER_UNSUPPORTED, "%s: %s this call: %s", call->op->name,
                                    call->exec.kernel ? "the kernel named by exec.kernel does not serve" : "no kernel serves",
                                    reasons.data ? reasons.data : "the op has none");
    text_free(&reasons);
    return status;
}

flashinfer_status call_pick(const struct call *call, const struct op_kernel **row, struct way *way)
{
    const char *wanted = call->exec.kernel;
    bool known = !wanted;
    for (const struct op_kernel *at = call->op->kernels; at && at->name; at++) {
        if (wanted && strcmp(wanted, at->name))
            continue;
        known = true;
        if (call_fit(call, at, way))
            continue;
        *row = at;
        return FLASHINFER_OK;
    }
    return known ? complain_unsupported(call) : complain_unknown(call);
}

flashinfer_status call_run(const struct call *call, const struct op_kernel *row, const struct way *way)
{
    const flashinfer_exec *exec = &call->exec;
    if (call->empty)
        return FLASHINFER_OK;
    if (way->workspace > (exec->workspace ? exec->workspace_size : 0))
        return fail(FLASHINFER_WORKSPACE, "%s: kernel %s needs %zu bytes of workspace, exec.workspace has %zu", call->op->name,
                    row->name, way->workspace, exec->workspace ? exec->workspace_size : (size_t)0);
    if (way->workspace && (uintptr_t)exec->workspace % WORKSPACE_ALIGNMENT)
        return fail(FLASHINFER_INVALID, "%s: exec.workspace is %p, must be a multiple of %d bytes", call->op->name,
                    exec->workspace, WORKSPACE_ALIGNMENT);
    return row->run(call, way);
}

/* The arguments of the hooks stand behind the kernel's own. */
__attribute__((noinline)) static flashinfer_status launch_variant(const struct call *call, const struct jit_spec *spec,
                                                                  const struct jit_queue *queue, const struct jit_launch *launch)
{
    _Alignas(64) unsigned char args[MAX_LAUNCH_BYTES];
    struct jit_launch with_hooks = *launch;
    if (launch->args_size + VARIANT_MAX_BYTES > sizeof args)
        return fail(FLASHINFER_INTERNAL, "%s: kernel %s takes %u bytes, and hooks after them", call->op->name, spec->kernel->name,
                    launch->args_size);
    memcpy(args, launch->args, launch->args_size);
    with_hooks.args_size += (uint32_t)variant_pack(call, args + launch->args_size);
    with_hooks.args = args;
    return jit_launch(spec, queue, &with_hooks);
}

bool call_launches_early(const struct call *call)
{
    return call->exec.flags & FLASHINFER_PDL && call->device->arch >= PDL_ARCH;
}

uint32_t call_ballast(const struct call *call, int64_t blocks)
{
    enum { OF_BLOCK = 1024 }; /* bytes that CUDA takes for each block; a 16th is left for the kernel's own shared memory */
    return call_launches_early(call) ? (uint32_t)(call->device->smem_sm / 16 * 15 / blocks - OF_BLOCK) : 0;
}

flashinfer_status call_launch(const struct call *call, const struct way *way, int i, const struct jit_launch *launch)
{
    const struct jit_queue queue = {call->device, call->exec.stream, call->exec.threads, call_launches_early(call)};
    if (way->spec[i].user)
        return launch_variant(call, &way->spec[i], &queue, launch);
    const struct jit_module *module;
    const char *name = way->spec[i].kernel->name;
    TRY(jit_load_for(&queue, &way->spec[i], &module));
    if (call->replay)
        replay_note(call->replay, module, name, &queue, launch);
    return jit_launch_module(module, name, &queue, launch);
}

/* To look at what lies on a device one must wait for its stream, which a capture does not allow. */
__attribute__((noinline)) static flashinfer_status validate(const struct call *call)
{
    int capturing = 0;
    if (call->device->id.device_type == kDLCUDA && call->exec.stream) {
        const struct cuda *driver;
        TRY(cuda_get(&driver));
        CUDA_TRY(driver->stream_is_capturing(call->exec.stream, &capturing), "cuStreamIsCapturing");
    }
    if (capturing)
        return fail(FLASHINFER_INVALID, "%s: exec.stream captures, which FLASHINFER_VALIDATE_INPUTS does not allow",
                    call->op->name);
    return call->op->validate(call);
}

/* Picks a row for a call whose launches are not known, runs it, and notes what it launches. */
static flashinfer_status do_call(struct call *call, const struct replay_key *key, const struct call_for *binding)
{
    struct way way;
    const struct op_kernel *row;
    const bool validates = call->op->validate && environment()->validate_inputs;
    TRY(call_pick(call, &row, &way));
    const bool provides = binding && way.workspace && !call->exec.workspace;
    if (validates)
        TRY(validate(call));
    if (provides)
        TRY(binding->provide(binding->context, call, way.workspace));
    if (validates || provides)
        return call_run(call, row, &way);
    call->replay = replay_begin(key, call, row);
    const flashinfer_status status = call_run(call, row, &way);
    if (call->replay)
        replay_end(call->replay, status);
    return status;
}

flashinfer_status op_call_for(const struct op *op, const void *args, const flashinfer_exec *exec, const struct call_for *binding)
{
    struct call call;
    struct recall recall;
    if (recall_find(&recall, &call, op, args, exec)) {
        if (!recall.replay)
            return do_call(&call, &recall.key, binding);
        if (binding)
            replay_tell(recall.replay, binding);
        return replay_run(recall.replay, exec ? exec->stream : NULL);
    }
    TRY(call_check(&call, op, args, exec, false, NULL));
    if (call.empty)
        return FLASHINFER_OK;
    recall_keep(&recall, &call, args, exec);
    return do_call(&call, &recall.key, binding);
}

flashinfer_status op_call(const struct op *op, const void *args, const flashinfer_exec *exec)
{
    return op_call_for(op, args, exec, NULL);
}

flashinfer_status op_prepare(const struct op *op, const void *args, const flashinfer_exec *exec)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    const struct jit_module *module;
    TRY(call_check(&call, op, args, exec, true, NULL));
    TRY(call_pick(&call, &row, &way));
    for (int i = 0; i < way.num_specs; i++)
        TRY(jit_load(&way.spec[i], call.device, &module));
    return FLASHINFER_OK;
}

flashinfer_status op_workspace_size(const struct op *op, const void *args, const flashinfer_exec *exec, size_t *bytes)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    TRY(call_check(&call, op, args, exec, true, NULL));
    TRY(call_pick(&call, &row, &way));
    *bytes = way.workspace;
    return FLASHINFER_OK;
}
