/* SPDX-License-Identifier: Apache-2.0 */
/* Opens oneDNN, makes a primitive once for each of the latest shapes, and runs products. Declared here is the part of its C
 * ABI that is used. In version 2 descriptors are structs, of which all that has to be known is that they fit
 * into a buffer; in version 3 they are objects. */
#include "backend/onednn.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/table.h"

enum { SUCCESS = 0, OUT_OF_MEMORY = 1, UNIMPLEMENTED = 3 };
enum { TYPE_F16 = 1, TYPE_BF16 = 2, TYPE_F32 = 3, ENGINE_CPU = 1, STREAM_IN_ORDER = 1 };
enum { ARGUMENT_A = 1, ARGUMENT_OUT = 17, ARGUMENT_B = 33, ARGUMENT_BIAS = 41 };
enum operand { OUT, A, B, BIAS, OPERANDS };
enum { LAYOUT_BYTES = 2048, OPERATION_BYTES = 32768 };

struct version {
    int major, minor, patch;
};

struct argument { /* dnnl_exec_arg_t */
    int which;
    void *memory;
};

/* field, symbol, parameters */
#define FUNCTIONS(X)                                                                                               \
    X(engine_create, dnnl_engine_create, (void **engine, int kind, size_t index))                                  \
    X(stream_create, dnnl_stream_create, (void **stream, void *engine, unsigned flags))                            \
    X(stream_wait, dnnl_stream_wait, (void *stream))                                                               \
    X(memory_create, dnnl_memory_create, (void **memory, const void *layout, void *engine, void *data))            \
    X(memory_set, dnnl_memory_set_data_handle, (void *memory, void *data))                                         \
    X(primitive_create, dnnl_primitive_create, (void **primitive, const void *desc))                               \
    X(memory_destroy, dnnl_memory_destroy, (void *memory))                                                         \
    X(primitive_destroy, dnnl_primitive_destroy, (void *primitive))                                                \
    X(desc_destroy, dnnl_primitive_desc_destroy, (void *desc))                                                     \
    X(execute, dnnl_primitive_execute, (void *primitive, void *stream, int count, const struct argument *arguments))

#define FUNCTIONS_2(X)                                                                                             \
    X(layout_init, dnnl_memory_desc_init_by_strides,                                                               \
      (void *layout, int axes, const int64_t *dims, int type, const int64_t *strides))                             \
    X(matmul_init, dnnl_matmul_desc_init,                                                                          \
      (void *operation, const void *a, const void *b, const void *bias, const void *out))                          \
    X(desc_create, dnnl_primitive_desc_create,                                                                     \
      (void **desc, const void *operation, const void *attributes, void *engine, const void *hint))

#define FUNCTIONS_3(X)                                                                                             \
    X(layout_create, dnnl_memory_desc_create_with_strides,                                                         \
      (void **layout, int axes, const int64_t *dims, int type, const int64_t *strides))                            \
    X(layout_destroy, dnnl_memory_desc_destroy, (void *layout))                                                    \
    X(matmul_create, dnnl_matmul_primitive_desc_create,                                                            \
      (void **desc, void *engine, const void *a, const void *b, const void *bias, const void *out,                 \
       const void *attributes))

#define FIELD(field, symbol, parameters) int(*field) parameters;
static struct {
    FUNCTIONS(FIELD)
    FUNCTIONS_2(FIELD)
    FUNCTIONS_3(FIELD)
} library;
#undef FIELD

static int major;
static void *engine, *stream;
static char why[256]; /* it cannot be used; empty if it can */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER; /* the stream serves one call at a time */

struct layout {
    void *desc;
    _Alignas(16) unsigned char bytes[LAYOUT_BYTES];
};

struct plan {
    const char *why; /* there is none; NULL if there is */
    struct layout layout[OPERANDS];
    void *memory[OPERANDS], *primitive;
    int operands; /* OPERANDS, less the bias if there is none */
};

struct function {
    const char *symbol;
    size_t offset;
};

static void find(void *handle, const struct function *functions, size_t count)
{
    for (size_t i = 0; i < count && !*why; i++) {
        void *address = dlsym(handle, functions[i].symbol);
        if (!address)
            snprintf(why, sizeof why, "oneDNN cannot be used: it lacks %s", functions[i].symbol);
        memcpy((char *)&library + functions[i].offset, &address, sizeof address);
    }
}

/* Its threads (OpenMP) do not exist here, and it would wait for them. */
static void after_fork_in_child(void)
{
    if (!*why)
        snprintf(why, sizeof why, "oneDNN was in use before this process was forked, and does not work after that");
}

static void open_once(void)
{
#define ROW(field, symbol, parameters) {#symbol, (size_t)((char *)&library.field - (char *)&library)},
    static const struct function common[] = {FUNCTIONS(ROW)};
    static const struct function only_2[] = {FUNCTIONS_2(ROW)}, only_3[] = {FUNCTIONS_3(ROW)};
#undef ROW
    void *handle = dlopen("libdnnl.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        handle = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(why, sizeof why, "oneDNN is not installed: the loader knows neither libdnnl.so.3 nor libdnnl.so.2");
        return;
    }
    void *address = dlsym(handle, "dnnl_version");
    const struct version *(*version)(void);
    memcpy(&version, &address, sizeof version);
    major = address ? version()->major : 0;
    if (major != 2 && major != 3) {
        snprintf(why, sizeof why, "oneDNN cannot be used: its version is %d, not 2 or 3", major);
        return;
    }
    find(handle, common, sizeof common / sizeof *common);
    if (major == 2)
        find(handle, only_2, sizeof only_2 / sizeof *only_2);
    else
        find(handle, only_3, sizeof only_3 / sizeof *only_3);
    if (*why)
        return;
    if (library.engine_create(&engine, ENGINE_CPU, 0) || library.stream_create(&stream, engine, STREAM_IN_ORDER))
        snprintf(why, sizeof why, "oneDNN cannot be used: it makes no engine for this CPU");
    else
        pthread_atfork(NULL, NULL, after_fork_in_child);
}

const char *onednn_missing(void)
{
    pthread_once(&once, open_once);
    return *why ? why : NULL;
}

static int type_of(int32_t dtype)
{
    return dtype == DTYPE_F16 ? TYPE_F16 : dtype == DTYPE_BF16 ? TYPE_BF16 : TYPE_F32;
}

static int make_layout(struct layout *layout, int32_t dtype, int64_t rows, int64_t columns, int64_t row_stride,
                       int64_t column_stride)
{
    const int64_t dims[2] = {rows, columns}, strides[2] = {row_stride, column_stride};
    if (major == 2) {
        layout->desc = layout->bytes;
        return library.layout_init(layout->bytes, 2, dims, type_of(dtype), strides);
    }
    void *made = NULL;
    int status = library.layout_create(&made, 2, dims, type_of(dtype), strides);
    layout->desc = made;
    return status;
}

static int make_desc(void **desc, const struct plan *plan)
{
    const struct layout *l = plan->layout;
    const void *bias = plan->operands > BIAS ? l[BIAS].desc : NULL;
    if (major == 3)
        return library.matmul_create(desc, engine, l[A].desc, l[B].desc, bias, l[OUT].desc, NULL);
    _Alignas(16) unsigned char operation[OPERATION_BYTES];
    int status = library.matmul_init(operation, l[A].desc, l[B].desc, bias, l[OUT].desc);
    return status ? status : library.desc_create(desc, operation, NULL, engine, NULL);
}

static void make_plan(const void *key, void *value)
{
    const struct matmul_shape *s = key;
    struct plan *plan = value;
    void *desc = NULL;
    int64_t b_k_stride = s->b_rows_contiguous ? s->b_stride : 1, b_n_stride = s->b_rows_contiguous ? 1 : s->b_stride;
    plan->operands = s->bias_alignment ? OPERANDS : OPERANDS - 1;
    int status = make_layout(&plan->layout[OUT], s->output, s->m, s->n, s->out_stride, 1);
    if (!status)
        status = make_layout(&plan->layout[A], s->input, s->m, s->k, s->a_stride, 1);
    if (!status)
        status = make_layout(&plan->layout[B], s->input, s->k, s->n, b_k_stride, b_n_stride);
    if (!status && plan->operands > BIAS)
        status = make_layout(&plan->layout[BIAS], s->input, 1, s->n, s->n, 1);
    if (!status)
        status = make_desc(&desc, plan);
    if (!status)
        status = library.primitive_create(&plan->primitive, desc);
    if (desc)
        library.desc_destroy(desc);
    for (int i = 0; i < plan->operands && !status; i++)
        status = library.memory_create(&plan->memory[i], plan->layout[i].desc, engine, NULL);
    if (status)
        plan->why = status == UNIMPLEMENTED   ? "oneDNN has no kernel for it on this CPU"
                    : status == OUT_OF_MEMORY ? "oneDNN is out of memory"
                                              : "oneDNN refuses it";
}

static void drop_plan(void *value)
{
    const struct plan *plan = value;
    for (int i = 0; i < OPERANDS; i++) {
        if (plan->memory[i])
            library.memory_destroy(plan->memory[i]);
        if (major == 3 && plan->layout[i].desc)
            library.layout_destroy(plan->layout[i].desc);
    }
    if (plan->primitive)
        library.primitive_destroy(plan->primitive);
}

static struct table plans = TABLE(struct matmul_shape, struct plan, make_plan, drop_plan);

const char *onednn_fit(const struct matmul_shape *shape)
{
    struct plan *plan = table_take(&plans, shape);
    if (!plan)
        return "out of memory";
    const char *reason = plan->why;
    table_give(plan);
    return reason;
}

static flashinfer_status execute(const struct plan *plan, const struct matmul_data *data)
{
    static const int which[OPERANDS] = {ARGUMENT_OUT, ARGUMENT_A, ARGUMENT_B, ARGUMENT_BIAS};
    const void *const pointers[OPERANDS] = {data->out, data->a, data->b, data->bias};
    struct argument arguments[OPERANDS];
    int status = SUCCESS;
    if (plan->why)
        return fail(FLASHINFER_INTERNAL, "dnnl_primitive_execute: %s", plan->why);
    pthread_mutex_lock(&running);
    for (int i = 0; i < plan->operands && !status; i++) {
        arguments[i] = (struct argument){which[i], plan->memory[i]};
        status = library.memory_set(plan->memory[i], (void *)(uintptr_t)pointers[i]);
    }
    if (!status)
        status = library.execute(plan->primitive, stream, plan->operands, arguments);
    if (!status)
        status = library.stream_wait(stream);
    pthread_mutex_unlock(&running);
    if (status)
        return fail(status == OUT_OF_MEMORY ? FLASHINFER_MEMORY : FLASHINFER_INTERNAL,
                    "dnnl_primitive_execute: status %d", status);
    return FLASHINFER_OK;
}

flashinfer_status onednn_run(const struct matmul_shape *shape, const struct matmul_data *data)
{
    struct plan *plan = table_take(&plans, shape);
    if (!plan)
        return fail(FLASHINFER_MEMORY, "dnnl_primitive_execute: no memory for a plan");
    const flashinfer_status status = execute(plan, data);
    table_give(plan);
    return status;
}
