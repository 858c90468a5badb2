/* SPDX-License-Identifier: Apache-2.0 */
/* The source of the gather kernel, for GPUs and for CPUs, and its launch. */
#include "gather.h"

enum { THREADS = 128 };

static const char cuda[] =
    "#include \"arguments.h\"\n"
    "#include \"pdl.cuh\"\n"
    "struct args { struct tensor out, table, ids; };\n"
    "extern \"C\" __global__ void gather_rows(const __grid_constant__ struct args a)\n"
    "{\n"
    "    pdl_wait();\n"
    "    pdl_launch();\n"
    "    int64_t row = ((const int32_t *)a.ids.data)[blockIdx.x * a.ids.stride[0]];\n"
    "    const uint16_t *from = (const uint16_t *)a.table.data + row * a.table.stride[0];\n"
    "    uint16_t *to = (uint16_t *)a.out.data + blockIdx.x * a.out.stride[0];\n"
    "    for (int i = threadIdx.x; i < a.out.shape[1]; i += blockDim.x)\n"
    "        to[i] = from[i];\n"
    "}\n";

static const char cpu[] =
    "#include \"arguments.h\"\n"
    "#include <string.h>\n"
    "struct args { struct tensor out, table, ids; };\n"
    "void gather_rows(const struct args *a, int part, int parts)\n"
    "{\n"
    "    int64_t rows = a->out.shape[0];\n"
    "    for (int64_t i = rows * part / parts; i < rows * (part + 1) / parts; i++) {\n"
    "        int64_t row = ((const int32_t *)a->ids.data)[i * a->ids.stride[0]];\n"
    "        memcpy((uint16_t *)a->out.data + i * a->out.stride[0], (const uint16_t *)a->table.data + row * a->table.stride[0],\n"
    "               2 * (size_t)a->out.shape[1]);\n"
    "    }\n"
    "}\n";

flashinfer_status gather_create(flashinfer_kernel **kernel)
{
    struct flashinfer_kernel_source source = {.size = sizeof source, .name = "gather_rows", .cuda = cuda, .cpu = cpu};
    return flashinfer_kernel_create(&source, kernel);
}

flashinfer_status gather_rows(const flashinfer_kernel *kernel, const DLTensor *out, const DLTensor *table, const DLTensor *ids,
                              const flashinfer_exec *exec)
{
    const DLTensor *tensors[] = {out, table, ids};
    struct flashinfer_kernel_launch launch = {.size = sizeof launch, .tensors = tensors, .num_tensors = 3, .block = {THREADS}};
    launch.grid[0] = out->device.device_type == kDLCPU ? 1 : (uint32_t)out->shape[0];
    return flashinfer_kernel_launch(kernel, &launch, exec);
}
