/* SPDX-License-Identifier: Apache-2.0 */
/* The source of the gather kernel, for GPUs and for CPUs, and its launch. ZEROES, a constant of the kernel, says whether it is
 * passed a tensor to be zeroed. */
#include "gather.h"

enum { THREADS = 128 };

#define ARGUMENTS                          \
    "#include \"arguments.h\"\n"           \
    "struct args {\n"                      \
    "    struct tensor out, table, ids;\n" \
    "#if ZEROES\n"                         \
    "    struct tensor zeroed;\n"          \
    "#endif\n"                             \
    "};\n"

static const char cuda[] =
    "#include \"pdl.cuh\"\n" ARGUMENTS "extern \"C\" __global__ void gather_rows(const __grid_constant__ struct args a)\n"
    "{\n"
    "    pdl_launch();\n"
    "    pdl_wait();\n"
    "    int64_t row = ((const int32_t *)a.ids.data)[blockIdx.x * a.ids.stride[0]];\n"
    "    const uint16_t *from = (const uint16_t *)a.table.data + row * a.table.stride[0];\n"
    "    uint16_t *to = (uint16_t *)a.out.data + blockIdx.x * a.out.stride[0];\n"
    "    for (int i = threadIdx.x; i < a.out.shape[1]; i += blockDim.x) {\n"
    "        to[i] = from[i];\n"
    "#if ZEROES\n"
    "        ((float *)a.zeroed.data)[blockIdx.x * a.zeroed.stride[0] + i] = 0.0f;\n"
    "#endif\n"
    "    }\n"
    "}\n";

static const char cpu[] =
    "#include <string.h>\n" ARGUMENTS "void gather_rows(const struct args *a, int part, int parts)\n"
    "{\n"
    "    int64_t rows = a->out.shape[0];\n"
    "    size_t width = (size_t)a->out.shape[1];\n"
    "    for (int64_t i = rows * part / parts; i < rows * (part + 1) / parts; i++) {\n"
    "        int64_t row = ((const int32_t *)a->ids.data)[i * a->ids.stride[0]];\n"
    "        memcpy((uint16_t *)a->out.data + i * a->out.stride[0], (const uint16_t *)a->table.data + row * a->table.stride[0],\n"
    "               width * sizeof(uint16_t));\n"
    "#if ZEROES\n"
    "        memset((float *)a->zeroed.data + i * a->zeroed.stride[0], 0, width * sizeof(float));\n"
    "#endif\n"
    "    }\n"
    "}\n";

flashinfer_status gather_create(flashinfer_kernel **kernel)
{
    static const char *const constants[] = {"ZEROES", NULL};
    struct flashinfer_kernel_source source = {
        .size = sizeof source, .name = "gather_rows", .cuda = cuda, .cpu = cpu, .constants = constants};
    return flashinfer_kernel_create(&source, kernel);
}

flashinfer_status gather_rows(const flashinfer_kernel *kernel, const DLTensor *out, const DLTensor *zeroed, const DLTensor *table,
                              const DLTensor *ids, const flashinfer_exec *exec)
{
    const DLTensor *tensors[] = {out, table, ids, zeroed};
    struct flashinfer_kernel_launch launch = {.size = sizeof launch,
                                              .tensors = tensors,
                                              .num_tensors = zeroed ? 4 : 3,
                                              .constants = (const int32_t[]){zeroed != NULL},
                                              .block = {THREADS}};
    launch.grid[0] = out->device.device_type == kDLCPU ? 1 : (uint32_t)out->shape[0];
    return flashinfer_kernel_launch(kernel, &launch, exec);
}
