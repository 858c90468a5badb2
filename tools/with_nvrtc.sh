#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command so that the library finds NVRTC: an installed one, else the one that tools/setup.sh put under BUILD.
#   usage: tools/with_nvrtc.sh BUILD COMMAND [ARGUMENT ...]
# Exit status 3 if there is none.
set -eu
build=$1
shift
installed() {
    ldconfig -p | grep -q 'libnvrtc\.so' && return
    for file in /usr/local/cuda*/lib64/libnvrtc.so*; do
        [ -e "$file" ] && return
    done
    return 1
}
if [ -z "${FLASHINFER_NVRTC:-}" ] && ! installed; then
    fetched=$(ls "$build"/nvrtc/libnvrtc.so.* 2>/dev/null | head -n 1)
    [ -n "$fetched" ] || { echo "no NVRTC is installed, and none is under $build/nvrtc" >&2; exit 3; }
    FLASHINFER_NVRTC=$(realpath "$fetched")
    export FLASHINFER_NVRTC
fi
exec "$@"
