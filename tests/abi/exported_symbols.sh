#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library, shared and static, exports what exported_symbols.txt lists and the ops of ops.def, and nothing else; it links
# nothing but the C library's parts, and is smaller than 5 MB.
set -eu
build=$1
library=$build/libflashinfer.so
expected=$({
    grep -v '^#' tests/abi/exported_symbols.txt
    sed -n 's/^OP_ENTRY(\(.*\))$/flashinfer_\1\n__tvm_ffi_\1/p' ops/ops.def
} | sort)
same() { # FILE FOUND
    [ "$expected" != "$2" ] || return 0
    echo "exported symbols of $1 differ (left: expected, right: found):"
    printf '%s\n' "$expected" >"$build/expected_symbols"
    printf '%s\n' "$2" >"$build/found_symbols"
    diff "$build/expected_symbols" "$build/found_symbols"
}
found=$(nm -D --defined-only "$library" | awk '{print $3}' | sort)
same "$library" "$found"
same "$build/libflashinfer.a" "$(nm --extern-only --defined-only "$build/libflashinfer.a" | awk 'NF == 3 {print $3}' | sort)"
linked=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
    grep -v -E '^(libc|libm|libdl|libpthread|ld-linux-.*)\.so' || true)
[ -z "$linked" ] || { echo "the library links $linked"; exit 1; }
strip -o "$build/stripped.so" "$library"
bytes=$(stat -c %s "$build/stripped.so")
[ "$bytes" -lt 5000000 ] || { echo "the library has $bytes bytes, 5000000 are allowed"; exit 1; }
echo "$bytes bytes, $(echo "$found" | wc -l) symbols"
