#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each public header compiles alone, as C99, C11, C17, C++11 and C++17, with warnings as errors. Each op of ops/ops.def is in one.
set -eu
for header in include/flashinfer/*.h; do
    for standard in c99 c11 c17; do
        echo "#include \"flashinfer/$(basename "$header")\"" |
            gcc -x c -std=$standard -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -Iinclude -fsyntax-only -
    done
    for standard in c++11 c++17; do
        echo "#include \"flashinfer/$(basename "$header")\"" |
            g++ -x c++ -std=$standard -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -
    done
done
for op in $(sed -n 's/^OP_ENTRY(\(.*\))$/\1/p' ops/ops.def); do
    grep -q "^FLASHINFER_DECLARE_OP($op);" include/flashinfer/*.h ||
        { echo "$op stands in ops/ops.def, and no header in include/flashinfer says FLASHINFER_DECLARE_OP($op);"; exit 1; }
done
