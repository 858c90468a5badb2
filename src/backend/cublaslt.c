/* SPDX-License-Identifier: Apache-2.0 */
/* Opens cuBLASLt, makes descriptors and asks for its choice once for each of the latest shapes, and enqueues products.
 * cuBLASLt counts matrices in columns, so it computes the transposed product: its first operand is our b, its
 * second our a. Declared here is the part of its ABI that is used; versions 12 and 13 agree on it. */
#include "backend/cublaslt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/dtype.h"
#include "core/table.h"

enum { MAX_DEVICES = 64, SUCCESS = 0, ALLOC_FAILED = 3 };
enum { TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14, COMPUTE_F32 = 68, TRANSPOSED = 1, EPILOGUE_BIAS = 4 };
enum desc_attribute { DESC_TRANSA = 3, DESC_EPILOGUE = 7, DESC_BIAS_POINTER = 8, DESC_BIAS_TYPE = 26 };
enum preference_attribute {
    PREFER_WORKSPACE = 1,
    PREFER_REDUCTION_SCHEMES = 3,
    PREFER_ALIGNMENT_A = 5,
    PREFER_ALIGNMENT_B = 6,
    PREFER_ALIGNMENT_C = 7,
    PREFER_ALIGNMENT_D = 8
};
enum { REDUCE_IN_COMPUTE_TYPE = 2 }; /* split sums stay in float32 and are added in a fixed order */

struct choice { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

#define FUNCTIONS(X)                                                                                                  \
    X(status_string, cublasLtGetStatusString, const char *, (int status))                                            \
    X(create, cublasLtCreate, int, (void **handle))                                                                  \
    X(desc_create, cublasLtMatmulDescCreate, int, (void **desc, int compute_type, int scale_type))                   \
    X(desc_destroy, cublasLtMatmulDescDestroy, int, (void *desc))                                                    \
    X(desc_set, cublasLtMatmulDescSetAttribute, int, (void *desc, int attribute, const void *value, size_t bytes))   \
    X(layout_create, cublasLtMatrixLayoutCreate, int,                                                                \
      (void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride))                                    \
    X(layout_destroy, cublasLtMatrixLayoutDestroy, int, (void *layout))                                              \
    X(preference_create, cublasLtMatmulPreferenceCreate, int, (void **preference))                                   \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy, int, (void *preference))                                  \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute, int,                                                     \
      (void *preference, int attribute, const void *value, size_t bytes))                                            \
    X(choose, cublasLtMatmulAlgoGetHeuristic, int,                                                                   \
      (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted,                   \
       struct choice *choices, int *found))                                                                          \
    X(matmul, cublasLtMatmul, int,                                                                                   \
      (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,    \
       const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const uint64_t *algorithm,          \
       void *workspace, size_t workspace_bytes, void *stream))

static struct {
#define FIELD(field, symbol, result, parameters) result(*field) parameters;
    FUNCTIONS(FIELD)
#undef FIELD
} library;

static char why[512]; /* it cannot be used; empty if it can */
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct plan {
    char why[128]; /* there is none; empty if there is */
    void *handle, *desc, *a, *b, *out;
    struct choice choice;
};

static void *open_library(void)
{
    static const char folder[] = "/usr/local/cuda/lib64/";
    const char *names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    int driver_version = 13000;
    void *handle = NULL;
    if (cuda())
        cuda()->driver_version(&driver_version);
    if (driver_version < 13000)
        names[0] = "libcublasLt.so.12", names[1] = NULL;
    for (int i = 0; i < 2 && names[i] && !handle; i++)
        handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    for (int i = 0; i < 2 && names[i] && !handle; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s%s", folder, names[i]);
        handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!handle)
            handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (!handle)
        snprintf(why, sizeof why,
                 "cuBLASLt is not installed: %s%s%s is neither loaded, nor known to the loader, nor in %s", names[0],
                 names[1] ? " or " : "", names[1] ? names[1] : "", folder);
    return handle;
}

static void open_once(void)
{
    static const struct {
        const char *symbol;
        size_t offset;
    } functions[] = {
#define ROW(field, symbol, result, parameters) {#symbol, (size_t)((char *)&library.field - (char *)&library)},
        FUNCTIONS(ROW)
#undef ROW
    };
    void *handle = open_library();
    for (size_t i = 0; handle && i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(handle, functions[i].symbol);
        if (!address) {
            snprintf(why, sizeof why, "cuBLASLt cannot be used: it lacks %s", functions[i].symbol);
            return;
        }
        memcpy((char *)&library + functions[i].offset, &address, sizeof address);
    }
}

const char *cublaslt_missing(void)
{
    pthread_once(&once, open_once);
    return *why ? why : NULL;
}

static int type_of(int32_t dtype)
{
    return dtype == DTYPE_F16 ? TYPE_F16 : dtype == DTYPE_BF16 ? TYPE_BF16 : TYPE_F32;
}

static int make_descriptors(struct plan *plan, const struct matmul_shape *s)
{
    int32_t transposed = TRANSPOSED, epilogue = EPILOGUE_BIAS, bias_type = type_of(s->input);
    bool by_rows = s->b_rows_contiguous;
    int status = library.desc_create(&plan->desc, COMPUTE_F32, TYPE_F32);
    if (!status && !by_rows)
        status = library.desc_set(plan->desc, DESC_TRANSA, &transposed, sizeof transposed);
    if (!status && s->bias_alignment) {
        uint64_t some_address = (uint64_t)s->bias_alignment; /* looked at for its alignment only */
        status = library.desc_set(plan->desc, DESC_EPILOGUE, &epilogue, sizeof epilogue);
        if (!status)
            status = library.desc_set(plan->desc, DESC_BIAS_TYPE, &bias_type, sizeof bias_type);
        if (!status)
            status = library.desc_set(plan->desc, DESC_BIAS_POINTER, &some_address, sizeof some_address);
    }
    if (!status)
        status = library.layout_create(&plan->b, type_of(s->input), (uint64_t)(by_rows ? s->n : s->k),
                                       (uint64_t)(by_rows ? s->k : s->n), s->b_stride);
    if (!status)
        status = library.layout_create(&plan->a, type_of(s->input), (uint64_t)s->k, (uint64_t)s->m, s->a_stride);
    if (!status)
        status = library.layout_create(&plan->out, type_of(s->output), (uint64_t)s->n, (uint64_t)s->m, s->out_stride);
    return status;
}

static int choose(struct plan *plan, const struct matmul_shape *s)
{
    void *preference;
    int found = 0, status = library.preference_create(&preference);
    if (status)
        return status;
    uint64_t workspace = (uint64_t)s->workspace;
    uint32_t scheme = REDUCE_IN_COMPUTE_TYPE;
    const struct {
        int attribute;
        uint32_t value;
    } alignments[] = {{PREFER_ALIGNMENT_A, (uint32_t)s->b_alignment},
                      {PREFER_ALIGNMENT_B, (uint32_t)s->a_alignment},
                      {PREFER_ALIGNMENT_C, (uint32_t)s->out_alignment},
                      {PREFER_ALIGNMENT_D, (uint32_t)s->out_alignment}};
    status = library.preference_set(preference, PREFER_WORKSPACE, &workspace, sizeof workspace);
    if (!status)
        status = library.preference_set(preference, PREFER_REDUCTION_SCHEMES, &scheme, sizeof scheme);
    for (int i = 0; i < 4 && !status; i++)
        status = library.preference_set(preference, alignments[i].attribute, &alignments[i].value,
                                        sizeof alignments[i].value);
    if (!status)
        status = library.choose(plan->handle, plan->desc, plan->b, plan->a, plan->out, plan->out, preference, 1,
                                &plan->choice, &found);
    library.preference_destroy(preference);
    if (!status && found < 1)
        snprintf(plan->why, sizeof plan->why, "cuBLASLt has no kernel for it");
    return status;
}

static int make_handle(int device, void **handle)
{
    static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
    static void *handles[MAX_DEVICES];
    pthread_mutex_lock(&making);
    const int status = handles[device] ? SUCCESS : library.create(&handles[device]);
    *handle = handles[device];
    pthread_mutex_unlock(&making);
    return status;
}

/* In the device's context. */
static void make_plan(const void *key, void *value)
{
    const struct matmul_shape *shape = key;
    struct plan *plan = value;
    int status = make_handle(shape->device, &plan->handle);
    if (!status)
        status = make_descriptors(plan, shape);
    if (!status)
        status = choose(plan, shape);
    if (status)
        snprintf(plan->why, sizeof plan->why, "cuBLASLt refuses it: %s", library.status_string(status));
}

static void drop_plan(void *value)
{
    const struct plan *plan = value;
    void *const layouts[] = {plan->a, plan->b, plan->out};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            library.layout_destroy(layouts[i]);
    if (plan->desc)
        library.desc_destroy(plan->desc);
}

static struct table plans = TABLE(struct matmul_shape, struct plan, make_plan, drop_plan);

/* True if it has to be popped again. */
static bool enter(const struct device *device)
{
    cuda_context current = NULL;
    cuda()->context_current(&current);
    return current != device->context && cuda()->context_push(device->context) == CUDA_OK;
}

static void leave(bool entered)
{
    cuda_context before;
    if (entered)
        cuda()->context_pop(&before);
}

const char *cublaslt_fit(const struct matmul_shape *shape, const struct device *device)
{
    static _Thread_local char reason[sizeof((struct plan *)0)->why];
    if (shape->device < 0 || shape->device >= MAX_DEVICES)
        return "the device's number is too high";
    const bool entered = enter(device);
    struct plan *plan = table_take(&plans, shape);
    if (plan) {
        memcpy(reason, plan->why, sizeof reason);
        table_give(plan);
    }
    leave(entered);
    return !plan ? "out of memory" : *reason ? reason : NULL;
}

static flashinfer_status enqueue(const struct plan *plan, bool has_bias, void *stream, const struct matmul_data *data)
{
    const float one = 1, zero = 0;
    if (*plan->why)
        return fail(FLASHINFER_DEVICE, "cublasLtMatmul: %s", plan->why);
    int status = has_bias ? library.desc_set(plan->desc, DESC_BIAS_POINTER, &data->bias, sizeof data->bias) : SUCCESS;
    if (!status)
        status = library.matmul(plan->handle, plan->desc, &one, data->b, plan->b, data->a, plan->a, &zero, data->out,
                                plan->out, data->out, plan->out, plan->choice.algorithm, data->workspace,
                                plan->choice.workspace, stream);
    if (status)
        return fail(status == ALLOC_FAILED ? FLASHINFER_MEMORY : FLASHINFER_DEVICE, "cublasLtMatmul: %s",
                    library.status_string(status));
    return FLASHINFER_OK;
}

flashinfer_status cublaslt_run(const struct matmul_shape *shape, const struct device *device, void *stream,
                               const struct matmul_data *data)
{
    const bool entered = enter(device);
    struct plan *plan = table_take(&plans, shape);
    const flashinfer_status status = plan ? enqueue(plan, shape->bias_alignment, stream, data)
                                          : fail(FLASHINFER_MEMORY, "cublasLtMatmul: no memory for a plan");
    if (plan)
        table_give(plan);
    leave(entered);
    return status;
}
