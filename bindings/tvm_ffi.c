/* SPDX-License-Identifier: Apache-2.0 */
/* __tvm_ffi_<op> for every op: what TVM-FFI's module loader finds in libflashinfer.so. Arguments are positional, in the order of
 * the declaration, outputs first; None, and what is left out at the end, is absent.
 *
 *     tensor   a Tensor or DLTensor *         number   float, int or, where the field takes one, a one-element tensor
 *     int      int or bool                    enum     int, or a name in any case
 *     dtype    dtype, or a name               plan     pointer to a flashinfer_plan, or a host tensor of its 1024 bytes
 *
 * The options of a call may follow: flags, workspace (a tensor), kernel, threads, device. The stream is the environment's for the
 * device of the first CUDA tensor. A workspace that is needed and not given is allocated as the environment allocates tensors. An
 * error is raised with the sentence of flashinfer_last_error. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bindings/ffi_told.h"
#include "core/device.h"
#include "core/status.h"
#include "core/text.h"
#include "op/variant.h"

enum { FFI_MAX_STRINGS = 8, FFI_MAX_STRING = 128, FFI_WORKSPACE_ALIGNMENT = 256 };

struct ffi_functions {
    ffi_raise raise;
    ffi_stream stream;
    ffi_tensor_alloc tensor_alloc;
    ffi_object_release object_release;
};

/* A call being unpacked. */
struct ffi_call {
    const struct op *op;
    const struct ffi_environment *environment;
    flashinfer_exec exec;
    struct ffi_told told;
    uint64_t hash; /* of what is told */
    bool wrong_type;
    const DLTensor *first; /* tensor of the call's device */
    void *workspace;       /* the environment's handle */
    void *host_workspace;
    int num_strings;
    char string[FFI_MAX_STRINGS][FFI_MAX_STRING]; /* NUL-terminated copies */
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
};

static const char *const option_names[FFI_OPTIONS] = {"flags", "workspace", "kernel", "threads", "device"};

static struct ffi_functions functions;

static void find_functions(void)
{
    *(void **)&functions.raise = dlsym(RTLD_DEFAULT, "TVMFFIErrorSetRaisedFromCStr");
    *(void **)&functions.stream = dlsym(RTLD_DEFAULT, "TVMFFIEnvGetStream");
    *(void **)&functions.tensor_alloc = dlsym(RTLD_DEFAULT, "TVMFFIEnvTensorAlloc");
    *(void **)&functions.object_release = dlsym(RTLD_DEFAULT, "TVMFFIObjectDecRef");
}

/* Whoever calls an entry has libtvm_ffi in the process; NULL if not. */
static const struct ffi_functions *ffi_functions(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_functions);
    const struct ffi_functions *f = &functions;
    return f->raise && f->stream && f->tensor_alloc && f->object_release ? f : NULL;
}

static void *current_stream(int32_t device_type, int32_t device_id)
{
    return functions.stream(device_type, device_id);
}

static int allocate_tensor(const DLTensor *prototype, void **handle, void **data)
{
    struct ffi_object *tensor;
    int status = functions.tensor_alloc(prototype, &tensor);
    if (status)
        return status;
    *handle = tensor;
    *data = tensor_data((const DLTensor *)(tensor + 1));
    return 0;
}

static void release_tensor(void *handle) { functions.object_release(handle); }

static const struct ffi_environment tvm_environment = {current_stream, allocate_tensor, release_tensor};

__attribute__((cold)) static const char *error_kind(flashinfer_status status)
{
    switch (status) {
    case FLASHINFER_INVALID:
    case FLASHINFER_WORKSPACE:
    case FLASHINFER_FOREIGN_PLAN:
        return "ValueError";
    case FLASHINFER_UNSUPPORTED:
        return "NotImplementedError";
    case FLASHINFER_MEMORY:
        return "MemoryError";
    default:
        return "RuntimeError";
    }
}

__attribute__((cold)) static const char *type_text(int32_t type)
{
    switch (type) {
    case FFI_NONE:
        return "None";
    case FFI_INT:
        return "an int";
    case FFI_BOOL:
        return "a bool";
    case FFI_FLOAT:
        return "a float";
    case FFI_POINTER:
        return "a pointer";
    case FFI_DATA_TYPE:
        return "a dtype";
    case FFI_DEVICE:
        return "a device";
    case FFI_DLTENSOR:
    case FFI_TENSOR:
        return "a tensor";
    case FFI_RAW_STRING:
    case FFI_SMALL_STRING:
    case FFI_STRING:
        return "a string";
    default:
        return "of a type that no argument has";
    }
}

/* A wrong type is raised as TypeError; the status only says that something was. */
__attribute__((cold)) static flashinfer_status complain_type(struct ffi_call *c, const char *name, const char *wanted,
                                                             const struct ffi_any *value)
{
    c->wrong_type = true;
    return fail(FLASHINFER_INVALID, "%s: %s is %s, must be %s", c->op->name, name, type_text(value->type), wanted);
}

/* A NUL-terminated string; NULL if the value is none or has no room. */
static const char *string_of(struct ffi_call *c, const struct ffi_any *value)
{
    if (value->type == FFI_RAW_STRING)
        return value->value.string;
    struct ffi_bytes bytes = {value->value.bytes, value->size};
    if (value->type == FFI_STRING)
        bytes = *(const struct ffi_bytes *)(value->value.object + 1);
    else if (value->type != FFI_SMALL_STRING)
        return NULL;
    if (bytes.size >= FFI_MAX_STRING || c->num_strings == FFI_MAX_STRINGS)
        return NULL;
    char *copy = c->string[c->num_strings++];
    memcpy(copy, bytes.data, bytes.size);
    copy[bytes.size] = 0;
    return copy;
}

static bool is_integer(const struct ffi_any *value)
{
    return value->type == FFI_INT || value->type == FFI_BOOL;
}

static void note_stream(struct ffi_call *c, const DLTensor *tensor)
{
    const DLDevice device = tensor->device;
    if (c->told.stream_device.device_type || (device.device_type != kDLCUDA && device.device_type != kDLCUDAManaged))
        return;
    c->told.stream_device = device;
    c->exec.stream = c->environment->stream(device.device_type, device.device_id);
}

static flashinfer_status unpack_tensor(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value, void *field)
{
    const DLTensor *tensor = ffi_tensor(value);
    if (!tensor)
        return complain_type(c, arg->name, "a tensor", value);
    *(const DLTensor **)field = tensor;
    if (arg->flags & HOST)
        return FLASHINFER_OK;
    note_stream(c, tensor);
    c->first = c->first ? c->first : tensor;
    return FLASHINFER_OK;
}

static flashinfer_status unpack_number(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value, void *field)
{
    const DLTensor *tensor = ffi_tensor(value);
    const bool integer = is_integer(value), whole = arg->kind == OP_INT;
    const bool by_kind = arg->bytes == sizeof(flashinfer_number);
    if (tensor && by_kind && !(arg->flags & HOST)) {
        *(flashinfer_number *)field = (flashinfer_number)FLASHINFER_TENSOR(tensor);
        note_stream(c, tensor);
        return FLASHINFER_OK;
    }
    if (!integer && (whole || value->type != FFI_FLOAT))
        return complain_type(c, arg->name, whole ? "an int" : "a number", value);
    if (by_kind) {
        *(flashinfer_number *)field = integer ? (flashinfer_number)FLASHINFER_INT(value->value.i)
                                              : (flashinfer_number)FLASHINFER_FLOAT(value->value.f);
        return FLASHINFER_OK;
    }
    const double number = integer ? (double)value->value.i : value->value.f;
    if (number == 0 && arg->value != 0)
        return fail(FLASHINFER_INVALID, "%s: %s is 0, must be another number (absent: %g)", c->op->name, arg->name, arg->value);
    if (!whole)
        *(double *)field = number;
    else if (arg->bytes == sizeof(int64_t))
        *(int64_t *)field = value->value.i;
    else if (value->value.i != (int32_t)value->value.i)
        return fail(FLASHINFER_INVALID, "%s: %s is %lld, does not fit into 32 bits", c->op->name, arg->name,
                    (long long)value->value.i);
    else
        *(int32_t *)field = (int32_t)value->value.i;
    return FLASHINFER_OK;
}

static flashinfer_status unpack_enum(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value, void *field)
{
    if (is_integer(value)) {
        *(int32_t *)field = value->value.i == (int32_t)value->value.i ? (int32_t)value->value.i : -1;
        return FLASHINFER_OK;
    }
    const char *name = string_of(c, value);
    if (!name)
        return complain_type(c, arg->name, "a name or an int", value);
    const size_t size = strlen(name);
    int32_t index = 0;
    for (const char *at = arg->names; *at; index++) {
        const size_t length = strcspn(at, " ");
        if (length == size && !strncasecmp(at, name, size)) {
            *(int32_t *)field = index;
            return FLASHINFER_OK;
        }
        at += length + strspn(at + length, " ");
    }
    return fail(FLASHINFER_INVALID, "%s: %s is \"%s\", must be one of: %s", c->op->name, arg->name, name, arg->names);
}

static flashinfer_status unpack_dtype(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value, void *field)
{
    if (value->type == FFI_DATA_TYPE) {
        *(DLDataType *)field = value->value.dtype;
        return FLASHINFER_OK;
    }
    const char *name = string_of(c, value);
    if (!name)
        return complain_type(c, arg->name, "a dtype", value);
    const enum dtype dtype = dtype_by_name(name);
    if (!dtype)
        return fail(FLASHINFER_INVALID, "%s: %s is \"%s\", which is no dtype", c->op->name, arg->name, name);
    *(DLDataType *)field = dtype_dlpack(dtype);
    return FLASHINFER_OK;
}

static int64_t dense_bytes(const DLTensor *t) { return tensor_elements(t) * t->dtype.bits * t->dtype.lanes / 8; }

static flashinfer_status unpack_plan(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value, void *field)
{
    const DLTensor *tensor = ffi_tensor(value);
    void *data = value->type == FFI_POINTER ? value->value.pointer : NULL;
    if (tensor && arg->kind == OP_PLAN) {
        const int64_t bytes = dense_bytes(tensor);
        if (tensor->device.device_type != kDLCPU || bytes != sizeof(flashinfer_plan) || !tensor_is_dense(tensor))
            return fail(FLASHINFER_INVALID, "%s: %s must be %zu dense bytes on the host", c->op->name, arg->name,
                        sizeof(flashinfer_plan));
        data = tensor_data(tensor);
    }
    if (!data)
        return complain_type(c, arg->name, "a pointer, or a tensor of a plan's bytes", value);
    if ((uintptr_t)data % _Alignof(flashinfer_plan))
        return fail(FLASHINFER_INVALID, "%s: %s lies at %p, must be a multiple of %zu bytes", c->op->name, arg->name, data,
                    _Alignof(flashinfer_plan));
    *(void **)field = data;
    return FLASHINFER_OK;
}

static flashinfer_status unpack(struct ffi_call *c, const struct op_arg *arg, const struct ffi_any *value)
{
    void *field = c->args + arg->offset;
    if (value->type == FFI_NONE)
        return FLASHINFER_OK;
    switch ((enum op_kind)arg->kind) {
    case OP_IN:
    case OP_OUT:
    case OP_INOUT:
        return unpack_tensor(c, arg, value, field);
    case OP_NUMBER:
    case OP_INT:
        return unpack_number(c, arg, value, field);
    case OP_ENUM:
        return unpack_enum(c, arg, value, field);
    case OP_DTYPE:
        return unpack_dtype(c, arg, value, field);
    case OP_TEXT:
        *(const char **)field = string_of(c, value);
        return *(const char **)field ? FLASHINFER_OK : complain_type(c, arg->name, "a short string", value);
    case OP_PLAN:
    case OP_COMM:
        return unpack_plan(c, arg, value, field);
    case OP_END:
        break;
    }
    return fail(FLASHINFER_INTERNAL, "%s: %s has a kind that this binding does not know", c->op->name, arg->name);
}

/* Which a call in C, where it is an address, cannot check. */
static flashinfer_status unpack_workspace(struct ffi_call *c, const struct ffi_any *value)
{
    const DLTensor *tensor = ffi_tensor(value);
    if (!tensor)
        return complain_type(c, "workspace", "a tensor", value);
    if (!tensor_is_dense(tensor))
        return fail(FLASHINFER_INVALID, "%s: workspace must be dense", c->op->name);
    const DLDevice device = device_canonical(tensor->device),
                   wanted = c->first ? device_canonical(c->first->device) : device;
    char given[64], other[64];
    if (!device_equal(device, wanted))
        return fail(FLASHINFER_INVALID, "%s: workspace is on %s, must be on %s as the tensors", c->op->name,
                    device_text(device, given, sizeof given), device_text(wanted, other, sizeof other));
    c->exec.workspace = tensor_data(tensor);
    c->exec.workspace_size = (size_t)dense_bytes(tensor);
    note_stream(c, tensor);
    return FLASHINFER_OK;
}

static flashinfer_status unpack_option(struct ffi_call *c, int option, const struct ffi_any *value)
{
    flashinfer_exec *exec = &c->exec;
    if (value->type == FFI_NONE)
        return FLASHINFER_OK;
    switch (option) {
    case 0:
        exec->flags = value->value.i == (uint32_t)value->value.i ? (uint32_t)value->value.i : UINT32_MAX; /* refused */
        return is_integer(value) ? FLASHINFER_OK : complain_type(c, option_names[option], "an int", value);
    case 1:
        return unpack_workspace(c, value);
    case 2:
        exec->kernel = string_of(c, value);
        return exec->kernel ? FLASHINFER_OK : complain_type(c, option_names[option], "a kernel's name", value);
    case 3:
        exec->threads = value->value.i == (int32_t)value->value.i ? (int32_t)value->value.i : -1;
        return is_integer(value) ? FLASHINFER_OK : complain_type(c, option_names[option], "an int", value);
    default:
        exec->device = value->value.device;
        return value->type == FFI_DEVICE ? FLASHINFER_OK : complain_type(c, option_names[option], "a device", value);
    }
}

/* Of a call that needs workspace and was given none. */
static flashinfer_status provide_workspace(void *context, struct call *call, size_t bytes)
{
    struct ffi_call *c = context;
    if (call->device->id.device_type != kDLCUDA) {
        bytes = (bytes + FFI_WORKSPACE_ALIGNMENT - 1) / FFI_WORKSPACE_ALIGNMENT * FFI_WORKSPACE_ALIGNMENT;
        call->exec.workspace = c->host_workspace = aligned_alloc(FFI_WORKSPACE_ALIGNMENT, bytes);
        if (!c->host_workspace)
            return fail(FLASHINFER_MEMORY, "%s: no memory for %zu bytes of workspace", c->op->name, bytes);
    } else {
        int64_t shape[] = {(int64_t)bytes}, strides[] = {1};
        const DLTensor prototype = {
            .device = call->device->id, .ndim = 1, .dtype = {kDLUInt, 8, 1}, .shape = shape, .strides = strides};
        if (c->environment->allocate(&prototype, &c->workspace, &call->exec.workspace))
            return fail(FLASHINFER_MEMORY, "%s: no tensor for %zu bytes of workspace could be allocated", c->op->name, bytes);
    }
    call->exec.workspace_size = bytes;
    return FLASHINFER_OK;
}

static int write_told(const void *context, uint64_t *words, int max)
{
    const struct ffi_call *c = context;
    return ffi_told_write(&c->told, words, max);
}

static flashinfer_status unpack_and_call(struct ffi_call *c)
{
    const struct op *op = c->op;
    const struct ffi_any *values = c->told.values;
    const int32_t num_values = c->told.num_values;
    int32_t i = 0;
    memset(c->args, 0, op->args_bytes);
    *(size_t *)c->args = op->args_bytes;
    for (const struct op_arg *arg = op->args; arg->kind != OP_END && i < num_values; arg++)
        TRY(unpack(c, arg, &values[i++]));
    const int32_t num_args = i;
    if (num_values - num_args > FFI_OPTIONS)
        return fail(FLASHINFER_INVALID, "%s takes %d arguments and %d options, %d were given", op->name, num_args, FFI_OPTIONS,
                    num_values);
    for (; i < num_values; i++)
        TRY(unpack_option(c, i - num_args, &values[i]));
    const struct call_for binding = {provide_workspace, {c->hash, write_told}, c};
    return op_call_for(op, c->args, &c->exec, &binding);
}

__attribute__((noinline)) static flashinfer_status call_unpacked(const struct op *op, const struct ffi_environment *environment,
                                                                 const struct ffi_any *values, int32_t num_values, uint64_t hash,
                                                                 const char **kind)
{
    struct ffi_call c;
    c.op = op;
    c.environment = environment;
    c.exec = (flashinfer_exec){.size = sizeof c.exec};
    c.told = (struct ffi_told){op, values, num_values, {0}};
    c.hash = hash;
    c.wrong_type = false;
    c.first = NULL;
    c.workspace = NULL;
    c.host_workspace = NULL;
    c.num_strings = 0;
    const flashinfer_status status = unpack_and_call(&c);
    free(c.host_workspace);
    if (c.workspace)
        environment->release(c.workspace);
    if (status)
        *kind = c.wrong_type ? "TypeError" : error_kind(status);
    return status;
}

flashinfer_status ffi_call(const struct op *op, const struct ffi_environment *environment, const struct ffi_any *values,
                           int32_t num_values, const char **kind)
{
    flashinfer_status status;
    const uint64_t hash = ffi_told_hash(op, values, num_values);
    if (!ffi_told_again(hash, op, environment, values, num_values, &status))
        return call_unpacked(op, environment, values, num_values, hash, kind);
    if (status)
        *kind = error_kind(status);
    return status;
}

static int tvm_call(const struct op *op, const struct ffi_any *values, int32_t num_values)
{
    const struct ffi_functions *ffi = ffi_functions();
    if (!ffi)
        return -1;
    const char *kind;
    if (ffi_call(op, &tvm_environment, values, num_values, &kind) == FLASHINFER_OK)
        return 0;
    ffi->raise(kind, flashinfer_last_error());
    return -1;
}

/* The handle of a variant as a pointer, then the arguments of its declaration (flashinfer_variant_describe) and the options. */
FLASHINFER_API int __tvm_ffi_flashinfer_variant_call(void *handle, const struct ffi_any *values, int32_t num_values,
                                                     struct ffi_any *result);
int __tvm_ffi_flashinfer_variant_call(void *handle, const struct ffi_any *values, int32_t num_values, struct ffi_any *result)
{
    (void)handle, (void)result;
    const struct ffi_functions *ffi = ffi_functions();
    if (num_values > 0 && values->type == FFI_POINTER && values->value.pointer)
        return tvm_call(((const flashinfer_variant *)values->value.pointer)->op, values + 1, num_values - 1);
    if (ffi)
        ffi->raise("TypeError", "flashinfer_variant_call: the first argument must be the pointer of a variant");
    return -1;
}

#define OP_ENTRY(name)                                                                                                         \
    extern const struct op op_##name;                                                                                          \
    FLASHINFER_API int __tvm_ffi_##name(void *handle, const struct ffi_any *values, int32_t num_values, struct ffi_any *result); \
    int __tvm_ffi_##name(void *handle, const struct ffi_any *values, int32_t num_values, struct ffi_any *result)               \
    {                                                                                                                          \
        (void)handle, (void)result;                                                                                            \
        return tvm_call(&op_##name, values, num_values);                                                                       \
    }
#include "ops/ops.def"
#undef OP_ENTRY
