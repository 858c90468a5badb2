#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make CC=clang: every C source of the host compiles under clang without a warning, too.
set -u
warnings=$(sed -n 's/^WARNINGS = //p' Makefile)
ls src/*/*.c bindings/*.c cli/*.c examples/*.c examples/*/*.c tests/*/*.c ops/*/*.c | grep -v '^ops/.*_cpu\.c$' |
    xargs -P "$(nproc)" -n 20 clang -fsyntax-only -std=c11 -D_GNU_SOURCE $warnings -Iinclude -Isrc -I. -Idevice
