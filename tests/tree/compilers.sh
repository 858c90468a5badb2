#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Other compilers than gcc for this machine: every C source of the host compiles under clang without a warning, and the library is
# built for aarch64, whose gcc the packs need anyway. (Not run there.)
#   usage: tests/tree/compilers.sh BUILD
set -u
status=0
warnings=$(sed -n 's/^WARNINGS = //p' Makefile)
ls src/*/*.c bindings/*.c cli/*.c examples/*.c examples/*/*.c tests/*/*.c ops/*/*.c | grep -v '^ops/.*_cpu\.c$' |
    xargs -P "$(nproc)" -n 20 clang -fsyntax-only -std=c11 -D_GNU_SOURCE $warnings -Iinclude -Isrc -I. -Idevice || status=1
[ "$(uname -m)" = aarch64 ] ||
    make --no-print-directory -s -j"$(nproc)" BUILD="$1/aarch64" CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
        OBJCOPY=aarch64-linux-gnu-objcopy "$1/aarch64/libflashinfer.so" || status=1
exit $status
