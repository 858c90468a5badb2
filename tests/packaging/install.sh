#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make install: what lies where with which mode, nothing compiled, nothing that names the staging folder, one version
# everywhere; make uninstall leaves nothing.
#   usage: tests/packaging/install.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage="$work/a stage"
die() { echo "$*"; exit 1; }
umask 077

packaged() { # TARGET: with every folder elsewhere than by default
    make -s "$1" BUILD="$build" DESTDIR="$stage" prefix=/opt/fi exec_prefix=/opt/fi/exec libdir=/opt/fi/lib/multi \
        includedir=/opt/fi/inc \
        datarootdir=/opt/data
}

touch "$work/before"
packaged install
compiled=$(find "$build" -newer "$work/before" ! -type d ! -path '*/test-*')
[ -z "$compiled" ] || die "make install writes into the build folder: $compiled"

version=$(sed -n 's/^#define FLASHINFER_VERSION "\(.*\)"/\1/p' include/flashinfer/core.h)
{
    echo "755 ./opt/fi/exec/bin/flashinfer"
    for header in include/flashinfer/*.h; do echo "644 ./opt/fi/inc/flashinfer/${header##*/}"; done
    echo "644 ./opt/fi/lib/multi/cmake/flashinfer/flashinfer-config-version.cmake"
    echo "644 ./opt/fi/lib/multi/cmake/flashinfer/flashinfer-config.cmake"
    echo "644 ./opt/fi/lib/multi/libflashinfer.a"
    echo "777 ./opt/fi/lib/multi/libflashinfer.so -> libflashinfer.so.0"
    echo "777 ./opt/fi/lib/multi/libflashinfer.so.0 -> libflashinfer.so.$version"
    echo "755 ./opt/fi/lib/multi/libflashinfer.so.$version"
    echo "644 ./opt/fi/lib/multi/pkgconfig/flashinfer.pc"
    echo "644 ./opt/data/man/man1/flashinfer.1"
    for pack in "$build"/pack/*; do [ ! -f "$pack" ] || echo "644 ./opt/fi/lib/multi/flashinfer/${pack##*/}"; done
    [ ! -e cli/completion.c ] || {
        echo "644 ./opt/data/bash-completion/completions/flashinfer"
        echo "644 ./opt/data/zsh/site-functions/_flashinfer"
    }
} | sort >"$work/expected"
(cd "$stage" && find . -type l -printf '%m %p -> %l\n' -o -type f -printf '%m %p\n') | sort >"$work/found"
diff "$work/expected" "$work/found" || die 'other files were installed than expected (left: expected, right: found)'
closed=$(find "$stage/opt" -type d ! -perm 755)
[ -z "$closed" ] || die "folders that not everybody may enter: $closed"
! grep -rl -F "$work" "$stage" || die 'these files name the staging folder'

[ "$("$stage/opt/fi/exec/bin/flashinfer" version)" = "flashinfer $version" ] || die 'the command is of another version'
grep -q "^Version: $version$" "$stage/opt/fi/lib/multi/pkgconfig/flashinfer.pc" || die 'flashinfer.pc is of another version'
head -n 1 debian/changelog | grep -q -F "flashinfer-c ($version-" || die "debian/changelog is not of version $version"
readelf -d "$stage/opt/fi/lib/multi/libflashinfer.so" | grep -q -F "soname: [libflashinfer.so.${version%%.*}]" ||
    die 'the soname is another'

packaged install
packaged uninstall
left=$(find "$stage" ! -type d)
[ -z "$left" ] || die "make uninstall leaves $left"
left=$(find "$stage" -type d -name '*flashinfer*')
[ -z "$left" ] || die "make uninstall leaves $left"
