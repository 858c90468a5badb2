/* SPDX-License-Identifier: Apache-2.0 */
/* What every call shares: status, error text, where and how a call runs, numbers, plans, preparation.
 *
 *     struct flashinfer_exec exec = {.size = sizeof exec, .stream = stream};
 *     if (FLASHINFER(rmsnorm, &exec, .out = &y, .input = &x, .weight = &w))
 *         fprintf(stderr, "%s\n", flashinfer_last_error());
 *
 * Rules that hold everywhere:
 * - every structure starts with its size; a field that is zero or NULL is absent or has its default; fields are only
 *   appended, so a program compiled against an older header keeps working;
 * - all arguments are checked before anything is enqueued; on failure nothing was enqueued and no output was touched;
 * - the caller owns all memory: tensors, workspace, plans. Once a kernel is prepared, a call allocates nothing, waits for
 *   nothing, and reads no file and no environment variable, so it can be captured in a CUDA graph;
 * - calls on CPU tensors are synchronous, and take up to 1 MB of their thread's stack; calls on CUDA tensors are enqueued on
 *   exec->stream;
 * - every function may be called from any thread.
 *
 * Tensors are DLPack's. In comments [rows, hidden] is a shape, and dtypes are
 *
 *     f16   {kDLFloat, 16, 1}     e4m3    {kDLFloat8_e4m3fn, 8, 1}                          i32, i64  {kDLInt, 32 or 64, 1}
 *     bf16  {kDLBfloat, 16, 1}    e5m2    {kDLFloat8_e5m2, 8, 1}                            u8, u64   {kDLUInt, 8 or 64, 1}
 *     f32   {kDLFloat, 32, 1}     e8m0    {kDLFloat8_e8m0fnu, 8, 1}                         i8        {kDLInt, 8, 1}
 *     bool  {kDLBool, 8, 1}       e2m1x2  {kDLFloat4_e2m1fn, 4, 2}: a byte is one element
 *
 * Unless an argument's comment says otherwise:
 * - the last axis is contiguous, and the others may have any strides of 0 and above; "dense" means all are contiguous;
 * - data begins at a multiple of the element's bytes. It may be NULL, and strides are free, where a size is 0: that is legal, and
 *   with nothing to write, nothing runs;
 * - an output shares no memory with any other argument, nor one of its elements with another;
 * - all arguments lie on one device. kDLCUDAHost counts as CPU, kDLCUDAManaged as CUDA;
 * - what index tensors hold (indptr, page tables, positions) is not looked at: an entry that breaks its comment may crash the
 *   program or write to memory of others. FLASHINFER_VALIDATE_INPUTS=1 in the environment has every call check it, waiting for
 *   the device. */
#ifndef FLASHINFER_CORE_H
#define FLASHINFER_CORE_H

#include <stddef.h>
#include <stdint.h>

#include "flashinfer/dlpack.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FLASHINFER_API __attribute__((visibility("default")))
#define FLASHINFER_VERSION "0.1.0"

/* What a function returns. Values never change their meaning. */
typedef enum flashinfer_status {
    FLASHINFER_OK = 0,
    FLASHINFER_INVALID = 1,       /* an argument breaks a rule of the op */
    FLASHINFER_UNSUPPORTED = 2,   /* legal, but no kernel here does it; the sentence lists every kernel's reason */
    FLASHINFER_WORKSPACE = 3,     /* the workspace is too small; the sentence states needed and given */
    FLASHINFER_FOREIGN_PLAN = 4,  /* the plan is of another op, device or build, or no plan at all */
    FLASHINFER_NOT_PREPARED = 5,  /* the kernel is not compiled and may not be compiled now */
    FLASHINFER_NO_DRIVER = 6,     /* no CUDA driver or no device */
    FLASHINFER_NO_COMPILER = 7,   /* neither NVRTC (CUDA) nor a C compiler (CPU) was found */
    FLASHINFER_COMPILE = 8,       /* a kernel does not compile; the sentence holds the log and the path of the source */
    FLASHINFER_LOAD = 9,          /* a compiled kernel cannot be loaded */
    FLASHINFER_MEMORY = 10,       /* out of host or device memory */
    FLASHINFER_DEVICE = 11,       /* the device reported an error */
    FLASHINFER_IO = 12,           /* a file cannot be read or written */
    FLASHINFER_INTERNAL = 13      /* a defect of this library */
} flashinfer_status;

/* "FLASHINFER_INVALID" and so on; "unknown status" for anything else. Never NULL. */
FLASHINFER_API const char *flashinfer_status_name(flashinfer_status status);

/* The sentence for the last failed call of this thread; "" if none failed. Valid until the thread's next failed call. */
FLASHINFER_API const char *flashinfer_last_error(void);

/* "0.1.0": the version of the loaded library, which may be newer than FLASHINFER_VERSION. */
FLASHINFER_API const char *flashinfer_version(void);

/* A number that may be absent, given by value, or read from a one-element tensor on the call's device.
 * {0} is absent: the field's documented default holds. */
typedef enum flashinfer_number_kind {
    FLASHINFER_NUMBER_ABSENT = 0,
    FLASHINFER_NUMBER_INT = 1,
    FLASHINFER_NUMBER_FLOAT = 2,
    FLASHINFER_NUMBER_TENSOR = 3
} flashinfer_number_kind;

typedef struct flashinfer_number {
    int32_t kind; /* flashinfer_number_kind */
    union {
        int64_t i;
        double f;
        const DLTensor *tensor;
    } value;
} flashinfer_number;

#define FLASHINFER_INT(v) {FLASHINFER_NUMBER_INT, {.i = (v)}}
#define FLASHINFER_FLOAT(v) {FLASHINFER_NUMBER_FLOAT, {.f = (v)}}
#define FLASHINFER_TENSOR(v) {FLASHINFER_NUMBER_TENSOR, {.tensor = (v)}}

/* Memory layout of keys and values. */
enum {
    FLASHINFER_NHD = 0, /* [..., page_size, num_kv_heads, head_dim] */
    FLASHINFER_HND = 1  /* [..., num_kv_heads, page_size, head_dim] */
};

enum {
    FLASHINFER_PDL = 1u << 0,            /* CUDA: programmatic dependent launch; ignored before sm_90 */
    FLASHINFER_BATCH_INVARIANT = 1u << 1 /* bits of a row or sequence do not depend on the others of the batch; may be slower */
};

/* Where and how one call runs. NULL stands for all defaults. */
typedef struct flashinfer_exec {
    size_t size;           /* sizeof(struct flashinfer_exec) */
    void *stream;          /* CUstream / cudaStream_t of the tensors' device; NULL: legacy default stream. CPU: NULL */
    void *workspace;       /* on the call's device, 256-byte aligned; see flashinfer_workspace_size */
    size_t workspace_size; /* bytes */
    const char *kernel;    /* take this kernel and no other; NULL: the first that fits */
    DLDevice device;       /* required where no argument tells the device (plan); else zero, or the tensors' device */
    int32_t threads;       /* CPU: 0: FLASHINFER_NUM_THREADS, else as many as the affinity mask has */
    uint32_t flags;        /* FLASHINFER_PDL | FLASHINFER_BATCH_INVARIANT */
} flashinfer_exec;

/* A plan: constants that `<op>_plan` derives from maxima, heads and dtypes, for any number of runs. Plain bytes with no
 * pointers: copy it, keep it, send it. Written by <op>_plan only. */
typedef struct flashinfer_plan {
    uint64_t word[128];
} flashinfer_plan;

/* Calls the op NAME ("rmsnorm"); args points to its struct flashinfer_<NAME>. The same as flashinfer_<NAME>(args, exec). */
FLASHINFER_API flashinfer_status flashinfer_call(const char *name, const void *args, const flashinfer_exec *exec);

/* Checks the arguments and compiles and loads what this call, with these flags, needs, without running it: do so before a CUDA
 * graph is captured and before the first request. Outputs are not touched; data pointers may be NULL. */
FLASHINFER_API flashinfer_status flashinfer_prepare(const char *name, const void *args, const flashinfer_exec *exec);

/* The bytes of workspace that this call needs (0 if none). Data pointers may be NULL. Workspace contents need no
 * initialisation and do not survive a call. */
FLASHINFER_API flashinfer_status flashinfer_workspace_size(const char *name, const void *args,
                                                           const flashinfer_exec *exec, size_t *bytes);

/* The bytes of workspace that any run with this plan needs at most. */
FLASHINFER_API flashinfer_status flashinfer_plan_workspace_size(const flashinfer_plan *plan, size_t *bytes);

/* The name of the index-th op, in the order of `flashinfer list`; NULL past the last. */
FLASHINFER_API const char *flashinfer_op_name(size_t index);

/* The declaration of an op as a JSON object, for bindings: name, family, summary, the size of its struct, arguments in the order
 * of the op's TVM-FFI entry (kind, offset and bytes of the field, dtypes, shape, default, range), rules, kernels. What each
 * member means stands in docs/other-languages.md. Writes it and a NUL to `text` if its `size` bytes hold them, and the bytes that
 * this takes to `needed`. */
FLASHINFER_API flashinfer_status flashinfer_describe(const char *name, char *text, size_t size, size_t *needed);

/* This process' figures of just-in-time compilation since the library was loaded. */
struct flashinfer_jit_statistics {
    size_t size;
    uint64_t compiled;      /* kernels compiled */
    uint64_t loaded;        /* kernels loaded from the disk cache */
    double compile_seconds; /* summed over compiling threads */
    double load_seconds;    /* reading, verifying and loading what the disk cache held */
    uint64_t packed;        /* CPU kernels taken from a pack of prebuilt ones */
};
FLASHINFER_API flashinfer_status flashinfer_jit_statistics(struct flashinfer_jit_statistics *out);

/* Declares the entry of one op; its struct flashinfer_<op> stands above. The two share a name, so that C++, too, wants the word
 * `struct` before the type: struct flashinfer_rmsnorm args = {}; args.size = sizeof args; ... */
#define FLASHINFER_DECLARE_OP(op) \
    FLASHINFER_API flashinfer_status flashinfer_##op(const struct flashinfer_##op *args, const flashinfer_exec *exec)

#ifndef __cplusplus
/* FLASHINFER(rmsnorm, &exec, .out = &y, .input = &x, .weight = &w): a call with named arguments. */
#define FLASHINFER(op, exec, ...) \
    flashinfer_##op(&(const struct flashinfer_##op){.size = sizeof(struct flashinfer_##op), __VA_ARGS__}, exec)
#endif

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_CORE_H */
