#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lets torch run on CPUs without the CUDA libraries, gigabytes of them, which its libraries name: what is missing stands there as
# empty libraries, and one defines all functions that nobody else does. CPUs call none of them.
#   usage: tools/torch_for_cpus.sh VENV
set -eu
cd "$1"/lib/python3*/site-packages/torch/lib
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stand_in=libtorch_nvshmem.so

[ "$(uname -m)" = x86_64 ] || exit 0 # elsewhere torch has no CUDA
rm -f "$stand_in" # refers to data of a library that is missing
readelf -d ./*.so | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | while read -r name; do
    [ "$name" = "$stand_in" ] || [ -e "$name" ] && continue
    case $name in
    libcu* | libnv* | libnccl*) echo | gcc -shared -Wl,-soname,"$name" -o "$name" -x c - ;;
    esac
done
libc_libraries=$(ldd libc10.so | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p')
nm -D --undefined-only ./*.so | awk '$1 == "U" {print $2}' | sed 's/@.*//' | sort -u >"$work/wanted"
nm -D --defined-only ./*.so ./*.so.* $libc_libraries 2>/dev/null | awk 'NF == 3 {print $3}' |
    sed 's/@.*//' | sort -u >"$work/there"
{
    printf '.section .note.GNU-stack,"",@progbits\n.text\n'
    comm -23 "$work/wanted" "$work/there" | grep -E -v '^_?Py|^__(cxa|gmon|tls|stack)' |
        sed 's/.*/.globl &\n.type &,@function\n&:/'
    printf 'xor %%eax, %%eax\nret\n'
} >"$work/functions.S"
gcc -shared -Wl,-soname,"$stand_in" -o "$stand_in" "$work/functions.S"
