/* SPDX-License-Identifier: Apache-2.0 */
/* NVRTC, NVIDIA's run-time compiler, opened with dlopen when the first kernel is compiled: not before, since
 * that takes 7 to 50 ms and a program whose kernels are all in the cache never needs it. */
#ifndef BACKEND_NVRTC_H
#define BACKEND_NVRTC_H

#include "core/status.h"

typedef struct nvrtc_program_ *nvrtc_program;

/* field, symbol, parameters */
#define NVRTC_FUNCTIONS(X)                                                                                \
    X(version, nvrtcVersion, (int *major, int *minor))                                                    \
    X(create, nvrtcCreateProgram,                                                                         \
      (nvrtc_program * program, const char *source, const char *name, int num_headers,                    \
       const char *const *headers, const char *const *include_names))                                     \
    X(destroy, nvrtcDestroyProgram, (nvrtc_program * program))                                            \
    X(compile, nvrtcCompileProgram, (nvrtc_program program, int num_options, const char *const *options)) \
    X(log_size, nvrtcGetProgramLogSize, (nvrtc_program program, size_t *bytes))                           \
    X(log, nvrtcGetProgramLog, (nvrtc_program program, char *log))                                        \
    X(cubin_size, nvrtcGetCUBINSize, (nvrtc_program program, size_t *bytes))                              \
    X(cubin, nvrtcGetCUBIN, (nvrtc_program program, char *cubin))

struct nvrtc {
#define NVRTC_FIELD(field, symbol, parameters) int(*field) parameters;
    NVRTC_FUNCTIONS(NVRTC_FIELD)
#undef NVRTC_FIELD
    const char *(*error_string)(int result);
};

enum { NVRTC_OK = 0, NVRTC_OUT_OF_MEMORY = 1, NVRTC_COMPILATION = 6 };

/* Where NVRTC is: FLASHINFER_NVRTC, else the file found first in LD_LIBRARY_PATH, the system's folders and
 * those of the CUDA toolkit, else what the dynamic loader knows. FLASHINFER_NO_COMPILER, with everything that
 * was tried, if it is nowhere. Opens nothing unless only the loader can tell. */
flashinfer_status nvrtc_path(const char **path);

flashinfer_status nvrtc_get(const struct nvrtc **out);

/* Stand around the use of its functions, in any number of threads: a process that exits meanwhile waits, since NVRTC takes
 * itself apart then. What begins after that never returns. */
void nvrtc_begin(void);
void nvrtc_end(void);

#endif
