#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library exports what exported_symbols.txt lists and the ops of ops.def, and nothing else; it links nothing but the C library's
# parts, and is smaller than 5 MB.
set -eu
library=$1/libflashinfer.so.0
expected=$({
    grep -v '^#' tests/abi/exported_symbols.txt
    sed -n 's/^OP_ENTRY(\(.*\))$/flashinfer_\1/p' ops/ops.def
} | sort)
found=$(nm -D --defined-only "$library" | awk '{print $3}' | sort)
if [ "$expected" != "$found" ]; then
    echo 'exported symbols differ (left: expected, right: found):'
    printf '%s\n' "$expected" >"$1/expected_symbols"
    printf '%s\n' "$found" >"$1/found_symbols"
    diff "$1/expected_symbols" "$1/found_symbols"
fi
linked=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -v -E '^(libc|libm|libdl|libpthread|ld-linux-.*)\.so' || true)
[ -z "$linked" ] || { echo "the library links $linked"; exit 1; }
strip -o "$1/stripped.so" "$library"
bytes=$(stat -c %s "$1/stripped.so")
[ "$bytes" -lt 5000000 ] || { echo "the library has $bytes bytes, 5000000 are allowed"; exit 1; }
echo "$bytes bytes, $(echo "$found" | wc -l) symbols"
