#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Our DLPack declarations have the layout and the codes of the real header (from the apache-tvm-ffi package), and step aside for
# it.
set -eu
real=$("$1/venv/bin/python" -c 'import os, tvm_ffi; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "include"))')
facts='
    offsetof(DLTensor, data), offsetof(DLTensor, device), offsetof(DLTensor, ndim), offsetof(DLTensor, dtype),
    offsetof(DLTensor, shape), offsetof(DLTensor, strides), offsetof(DLTensor, byte_offset), sizeof(DLTensor), sizeof(DLDevice),
    sizeof(DLDataType), offsetof(DLDataType, code), offsetof(DLDataType, bits), offsetof(DLDataType, lanes), kDLCPU, kDLCUDA,
    kDLCUDAHost, kDLCUDAManaged, kDLInt, kDLUInt, kDLFloat, kDLOpaqueHandle, kDLBfloat, kDLComplex, kDLBool, kDLFloat8_e4m3fn,
    kDLFloat8_e5m2, kDLFloat8_e8m0fnu, kDLFloat4_e2m1fn'
program() {
    printf '#include <stdio.h>\n#include <stddef.h>\n%s\nint main(void) {\n' "$1"
    printf 'const long facts[] = {%s};\n' "$facts"
    printf 'for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) printf("%%ld\\n", facts[i]);\nreturn 0;\n}\n'
}
program '#include "flashinfer/dlpack.h"' | gcc -x c -std=c11 -Wall -Werror -Iinclude -o "$1/dlpack_ours" -
program '#include <dlpack/dlpack.h>' | gcc -x c -std=c11 -Wall -Werror -I"$real" -o "$1/dlpack_real" -
"$1/dlpack_ours" >"$1/dlpack_ours.txt"
"$1/dlpack_real" >"$1/dlpack_real.txt"
cmp "$1/dlpack_ours.txt" "$1/dlpack_real.txt"
printf '#include <dlpack/dlpack.h>\n#include "flashinfer/flashinfer.h"\n' |
    gcc -x c -std=c11 -Wall -Wextra -Werror -Iinclude -I"$real" -fsyntax-only -
