#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make dist gives the same bytes from another folder, under another umask, at another time, and from its own contents, without
# git.
#   usage: tests/packaging/dist.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "$*"; exit 1; }
archive=flashinfer-c-$(sed -n 's/^#define FLASHINFER_VERSION "\(.*\)"/\1/p' include/flashinfer/core.h).tar.gz

make -s dist BUILD="$build"
cp "$build/$archive" "$work/first.tar.gz"

unpacked() { # FOLDER UMASK: the archive, made there of the first one's files, all of them touched
    (
        umask "$2"
        mkdir -p "$work/$1" && cd "$work/$1"
        tar -x --no-same-permissions --strip-components=1 -f "$work/first.tar.gz"
        find . -type f -exec touch -d "2001-02-03 04:05:06" {} +
        mkdir -p build-other && echo 'int stray;' >build-other/stray.c
        TZ=Asia/Tokyo LC_ALL=C.UTF-8 make -s dist BUILD=build
    )
    cmp "$work/first.tar.gz" "$work/$1/build/$archive" || die "folder $1, umask $2: another archive"
}
unpacked a 022
unpacked 'b/deeper' 077
unpacked c 002

tar -tf "$work/first.tar.gz" | sed 's,^[^/]*/,,' | LC_ALL=C sort >"$work/listed"
if [ -e .git ]; then
    git ls-files | LC_ALL=C sort | diff - "$work/listed" ||
        die 'the archive does not hold what git tracks (left: tracked, right: archive)'
fi
others=$(tar -tvf "$work/first.tar.gz" | awk '$2 != "0/0" || ($1 != "-rw-r--r--" && $1 != "-rwxr-xr-x")')
[ -z "$others" ] || die "owner or mode is not normal: $others"
sha256sum "$work/first.tar.gz" | cut -c1-64
