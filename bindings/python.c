/* SPDX-License-Identifier: Apache-2.0 */
/* Ops as functions of CPython that take torch's tensors as they are. TVM-FFI, which serves every framework and language, takes a
 * reference and allocates for each tensor of a call; here a tensor is described on the stack (DLPack's exchange functions, which
 * torch brings), which is a third of a call's cost. A value of another type goes to TVM-FFI's function of the same op.
 *
 * CPython's stable ABI is all that is used, found with dlsym: whoever calls has it in the process. So there is no extension
 * module to build, one library serves every CPython, and Python's headers are not needed. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/ffi_call.h"
#include "bindings/python_abi.h"
#include "core/status.h"

enum { MAX_VALUES = OP_MAX_ARGS + FFI_OPTIONS };

/* Of CPython and torch, found once. */
static struct python {
    struct object *(*function_new)(const struct method *method, struct object *self, struct object *module);
    struct object *(*capsule_new)(void *pointer, const char *name, void (*destroy)(struct object *capsule));
    void *(*capsule_pointer)(struct object *capsule, const char *name);
    long long (*as_integer)(struct object *integer, int *overflow);
    double (*as_double)(struct object *number);
    const char *(*as_text)(struct object *string, intptr_t *size);
    struct object *(*tuple_new)(intptr_t size);
    int (*tuple_set)(struct object *tuple, intptr_t at, struct object *item);
    struct object *(*call)(struct object *callable, struct object *args, struct object *keywords);
    void (*raise)(struct object *type, const char *message), (*forget_error)(void);
    void *(*unlock)(void);
    void (*lock)(void *thread);
    void (*keep)(struct object *), (*drop)(struct object *);
    struct object *none, *true_, *false_;
    const void *integer, *number, *string;                    /* types */
    struct object **type_error, **value_error, **unserved, **memory, **other; /* exceptions */
    struct object *tensor, *parameter;                        /* torch's types */
    const struct exchange *exchange;
} python;

struct function { /* content of a capsule */
    struct method method;
    const struct op *op;
    struct object *otherwise;
};

/* The names of the first pointers of `python`, in order. */
static const char *const names[] = {
    "PyCFunction_NewEx", "PyCapsule_New", "PyCapsule_GetPointer", "PyLong_AsLongLongAndOverflow", "PyFloat_AsDouble",
    "PyUnicode_AsUTF8AndSize", "PyTuple_New", "PyTuple_SetItem", "PyObject_Call", "PyErr_SetString", "PyErr_Clear",
    "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "Py_DecRef", "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct",
    "PyLong_Type", "PyFloat_Type", "PyUnicode_Type", "PyExc_TypeError", "PyExc_ValueError", "PyExc_NotImplementedError",
    "PyExc_MemoryError", "PyExc_RuntimeError"};
_Static_assert(sizeof names == offsetof(struct python, tensor), "a name for each");

static bool find_python(void)
{
    void *found[sizeof names / sizeof *names];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(found[i] = dlsym(RTLD_DEFAULT, names[i])))
            return false;
    memcpy(&python, found, sizeof found);
    return true;
}

static void *current_stream(int32_t device_type, int32_t device_id)
{
    void *stream = NULL;
    python.exchange->stream(device_type, device_id, &stream);
    return stream;
}

static void say_nothing(void *context, const char *kind, const char *message) { (void)context, (void)kind, (void)message; }

static int allocate(const DLTensor *prototype, void **handle, void **data)
{
    struct managed_tensor *tensor;
    int status = python.exchange->allocate(prototype, &tensor, NULL, say_nothing);
    if (status)
        return status;
    *handle = tensor;
    *data = tensor_data(&tensor->tensor);
    return 0;
}

static void release(void *handle)
{
    struct managed_tensor *tensor = handle;
    tensor->release(tensor);
}

static const struct ffi_environment torch_environment = {current_stream, allocate, release};

/* False: TVM-FFI's function is to look at it. */
static bool convert(struct object *from, struct ffi_any *to, DLTensor *tensor)
{
    *to = (struct ffi_any){.type = FFI_NONE};
    if (from->type == python.tensor || from->type == python.parameter) {
        to->type = FFI_DLTENSOR;
        to->value.pointer = tensor;
        if (!python.exchange->describe(from, tensor))
            return true;
        python.forget_error();
        return false;
    }
    if (from == python.none)
        return true;
    if (from == python.true_ || from == python.false_) {
        to->type = FFI_BOOL;
        to->value.i = from == python.true_;
        return true;
    }
    if (from->type == python.number) {
        to->type = FFI_FLOAT;
        to->value.f = python.as_double(from);
        return true;
    }
    if (from->type == python.integer) {
        int overflow = 0;
        to->type = FFI_INT;
        to->value.i = python.as_integer(from, &overflow);
        return !overflow;
    }
    if (from->type == python.string) {
        intptr_t size;
        to->type = FFI_RAW_STRING;
        to->value.string = python.as_text(from, &size);
        if (to->value.string && strlen(to->value.string) == (size_t)size)
            return true;
        python.forget_error();
    }
    return false;
}

__attribute__((cold)) static struct object *call_otherwise(const struct function *f, struct object *const *args,
                                                           intptr_t num_args)
{
    struct object *tuple = python.tuple_new(num_args);
    if (!tuple)
        return NULL;
    for (intptr_t i = 0; i < num_args; i++) {
        python.keep(args[i]);
        python.tuple_set(tuple, i, args[i]);
    }
    struct object *result = python.call(f->otherwise, tuple, NULL);
    python.drop(tuple);
    return result;
}

__attribute__((cold)) static struct object *raise(const char *kind)
{
    struct object **type = !strcmp(kind, "TypeError")             ? python.type_error
                           : !strcmp(kind, "ValueError")          ? python.value_error
                           : !strcmp(kind, "NotImplementedError") ? python.unserved
                           : !strcmp(kind, "MemoryError")         ? python.memory
                                                                  : python.other;
    python.raise(*type, flashinfer_last_error());
    return NULL;
}

static struct object *call(struct object *self, struct object *const *args, intptr_t num_args)
{
    const struct function *f = python.capsule_pointer(self, NULL);
    struct ffi_any values[MAX_VALUES];
    DLTensor tensors[MAX_VALUES];
    if (num_args > MAX_VALUES)
        return call_otherwise(f, args, num_args);
    for (intptr_t i = 0; i < num_args; i++)
        if (!convert(args[i], &values[i], &tensors[i]))
            return call_otherwise(f, args, num_args);
    const char *kind;
    void *thread = python.unlock();
    flashinfer_status status = ffi_call(f->op, &torch_environment, values, (int32_t)num_args, &kind);
    python.lock(thread);
    if (status)
        return raise(kind);
    python.keep(python.none);
    return python.none;
}

static void destroy(struct object *capsule)
{
    struct function *f = python.capsule_pointer(capsule, NULL);
    python.drop(f->otherwise);
    free(f);
}

/* The op as a function of positional arguments, as bindings/tvm_ffi.c lists them. tensor, parameter: torch.Tensor and
 * torch.nn.Parameter, the very types. exchange: their __dlpack_c_exchange_api__. otherwise: TVM-FFI's function of the op. NULL if
 * there is no such op, or CPython's functions are not to be found. The caller holds the interpreter's lock. */
FLASHINFER_API struct object *flashinfer_python_function(const char *op, struct object *tensor, struct object *parameter,
                                                         struct object *exchange, struct object *otherwise);
struct object *flashinfer_python_function(const char *op, struct object *tensor, struct object *parameter,
                                          struct object *exchange, struct object *otherwise)
{
    const struct op *found = op_find(op);
    if (!found || (!python.exchange && !find_python()))
        return NULL;
    const struct exchange *functions = python.capsule_pointer(exchange, "dlpack_exchange_api");
    if (!functions || functions->major != 1 || !functions->describe)
        return NULL;
    if (!python.exchange) {
        python.keep(tensor);
        python.keep(parameter);
        python.tensor = tensor;
        python.parameter = parameter;
        python.exchange = functions;
    }
    struct function *f = malloc(sizeof *f);
    if (!f)
        return NULL;
    *f = (struct function){{found->name, call, PYTHON_FASTCALL, NULL}, found, otherwise};
    python.keep(otherwise);
    struct object *capsule = python.capsule_new(f, NULL, destroy);
    if (!capsule) {
        python.drop(otherwise);
        free(f);
        return NULL;
    }
    struct object *function = python.function_new(&f->method, capsule, NULL);
    python.drop(capsule);
    return function;
}
