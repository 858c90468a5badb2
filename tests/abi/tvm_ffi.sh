#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bindings/tvm_ffi_abi.h has the layout and the codes of the real header (from the apache-tvm-ffi package).
set -eu
real=$("$1/venv/bin/python" -c 'import os, tvm_ffi; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "include"))')
facts() { # HEADER ANY OBJECT BYTES TYPE SIZE FACTS...
    header=$1 any=$2 object=$3 bytes=$4 type=$5 size=$6
    shift 6
    printf '#include <stdio.h>\n#include <stddef.h>\n#include %s\nint main(void) {\nconst long facts[] = {' "$header"
    printf 'sizeof(%s), offsetof(%s, %s), offsetof(%s, %s), sizeof(%s), offsetof(%s, %s), sizeof(%s), offsetof(%s, size)' \
        "$any" "$any" "$type" "$any" "$size" "$object" "$object" "$type" "$bytes" "$bytes"
    printf ', %s' "$@"
    printf '};\nfor (size_t i = 0; i < sizeof facts / sizeof *facts; i++) printf("%%ld\\n", facts[i]);\nreturn 0;\n}\n'
}
facts '"bindings/tvm_ffi_abi.h"' 'struct ffi_any' 'struct ffi_object' 'struct ffi_bytes' type size \
    'offsetof(struct ffi_any, value.i)' 'offsetof(struct ffi_any, value.bytes)' 'offsetof(struct ffi_any, value.dtype)' \
    FFI_NONE FFI_INT FFI_BOOL FFI_FLOAT FFI_POINTER FFI_DATA_TYPE FFI_DEVICE FFI_DLTENSOR FFI_RAW_STRING FFI_SMALL_STRING \
    FFI_STRING FFI_TENSOR | gcc -x c -std=c11 -Wall -Werror -Iinclude -I. -o "$1/tvm_ffi_ours" -
facts '<tvm/ffi/c_api.h>' TVMFFIAny TVMFFIObject TVMFFIByteArray type_index small_str_len \
    'offsetof(TVMFFIAny, v_int64)' 'offsetof(TVMFFIAny, v_bytes)' 'offsetof(TVMFFIAny, v_dtype)' \
    kTVMFFINone kTVMFFIInt kTVMFFIBool kTVMFFIFloat kTVMFFIOpaquePtr kTVMFFIDataType kTVMFFIDevice kTVMFFIDLTensorPtr \
    kTVMFFIRawStr kTVMFFISmallStr kTVMFFIStr kTVMFFITensor | gcc -x c -std=c11 -Wall -Werror -I"$real" -o "$1/tvm_ffi_real" -
"$1/tvm_ffi_ours" >"$1/tvm_ffi_ours.txt"
"$1/tvm_ffi_real" >"$1/tvm_ffi_real.txt"
cmp "$1/tvm_ffi_ours.txt" "$1/tvm_ffi_real.txt"
