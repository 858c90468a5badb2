#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What docs/debugging.md shows: gdb stops in a kernel of the library and names its file and line, valgrind finds a mistake in a
# kernel of the user and names its line in the user's file.
#   usage: tests/tree/debugging.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export FLASHINFER_CACHE_DIR="$work/cache" FLASHINFER_JIT_DEBUG=1
unset FLASHINFER_PACK_DIR
complain() { echo "$1:"; cat "$work/out"; exit 1; }

line=$(grep -n 'out.data)\[i\] = (float)i' examples/out_of_bounds.c | head -n 1 | cut -d: -f1)
valgrind "$build/out_of_bounds" cpu >"$work/out" 2>&1 || complain 'valgrind'
grep -A 1 'Invalid write of size 4' "$work/out" | grep -q "at .*: out_of_bounds (out_of_bounds.c:$line)" ||
    complain "valgrind does not name line $line of the kernel"
grep -q 'Address .* is 0 bytes after a block of size 4,000' "$work/out" || complain 'valgrind names another block'

if gdb -q -batch -ex run --args true 2>&1 | grep -q 'exited normally'; then
    gdb -q -batch -ex 'set breakpoint pending on' -ex 'break norm_cpu' -ex run -ex backtrace -ex 'print part' \
        --args "$build/quickstart" >"$work/out" 2>&1 || complain gdb
    grep -q '^#0  norm_cpu (a=0x[0-9a-f]*, part=0, parts=1) at ops/norm/norm_cpu.c:[0-9]*$' "$work/out" ||
        complain 'gdb does not name the file and line of the kernel'
    grep -q '^\$1 = 0$' "$work/out" || complain 'gdb cannot print a variable'
else
    echo 'gdb may not trace processes here'
fi
