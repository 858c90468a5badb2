#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs in C, C++20 and Rust are compiled against an installed tree, linked shared and static, run, and agree. The tree is
# found by pkg-config, by CMake, and by CMake after it was moved and where lib is a link into it, as /lib is into /usr.
#   usage: tests/packaging/consumers.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
multiarch=lib/$(gcc -print-multiarch)
die() { echo "$*"; exit 1; }
make -s install BUILD="$build" prefix="$prefix" libdir="$prefix/$multiarch"
export PKG_CONFIG_PATH="$prefix/$multiarch/pkgconfig"
warnings='-Wall -Wextra -Wpedantic -Werror'

# rmsnorm of 1 to 8, rounded to f16.
expected=$(python3 -c 'import struct
for i in range(1, 9):
    print("%04x" % struct.unpack("H", struct.pack("e", i / (204 / 8 + 1e-6) ** 0.5)), end=" ")')

ran=0
runs() { # NAME shared|static PROGRAM: how it is linked, and what it prints
    linked=static
    ! readelf -d "$3" | grep -q 'NEEDED.*libflashinfer' || linked=shared
    [ "$linked" = "$2" ] || die "$1: is linked $linked"
    ! readelf -d "$3" | grep -q -e RPATH -e RUNPATH || die "$1: names a folder to search"
    printed=$(LD_LIBRARY_PATH=$library_folder "$3") || die "$1: exits with $?"
    [ "${printed% }" = "${expected% }" ] || die "$1: prints '$printed', must be '$expected'"
    ran=$((ran + 1))
    echo "$1, $2: $printed"
}

library_folder=$prefix/$multiarch
[ "$(pkg-config --modversion flashinfer)" = "$("$prefix/bin/flashinfer" version | cut -d' ' -f2)" ] ||
    die 'pkg-config: another version'

gcc -std=c11 $warnings examples/quickstart.c -o "$work/c" $(pkg-config --cflags --libs flashinfer)
runs 'C, pkg-config' shared "$work/c"

# -Bstatic for our library alone.
gcc -std=c11 $warnings examples/quickstart.c -o "$work/c_static" $(pkg-config --static --cflags --libs flashinfer |
    sed 's/-lflashinfer/-Wl,-Bstatic -lflashinfer -Wl,-Bdynamic/')
runs 'C, pkg-config' static "$work/c_static"

g++ -std=c++20 $warnings examples/quickstart.cpp -o "$work/cpp" $(pkg-config --cflags --libs flashinfer)
runs 'C++20, pkg-config' shared "$work/cpp"

/usr/bin/rustc --edition 2021 -D warnings -o "$work/rust" examples/quickstart.rs $(pkg-config --libs flashinfer)
runs Rust shared "$work/rust"
/usr/bin/rustc --edition 2021 -D warnings -o "$work/rust_static" examples/quickstart.rs \
    -L "$library_folder" -l static=flashinfer -l m
runs Rust static "$work/rust_static"

with_cmake() { # NAME PREFIX
    cmake -S tests/packaging -B "$work/$1" -DCMAKE_PREFIX_PATH="$2" -DCMAKE_SKIP_RPATH=ON -DCMAKE_C_FLAGS="$warnings" \
        -DCMAKE_CXX_FLAGS="$warnings" >"$work/cmake.log" 2>&1 &&
        cmake --build "$work/$1" >>"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; die "$1: does not build"; }
    library_folder=$2/$multiarch
    runs "C++20, $1" shared "$work/$1/cpp"
    runs "C, $1" static "$work/$1/c_static"
}
with_cmake cmake "$prefix"
mkdir "$work/linked"
mv "$prefix" "$work/elsewhere"
ln -s ../elsewhere/lib "$work/linked/lib"
with_cmake cmake_moved "$work/linked"
echo "$ran programs"
