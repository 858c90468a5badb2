#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Debian packages build from the archive of make dist, without git and without network; they hold what they should, lintian
# has nothing to say, and what they install works.
#   usage: tests/packaging/debian.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "$*"; exit 1; }
version=$(sed -n 's/^#define FLASHINFER_VERSION "\(.*\)"/\1/p' include/flashinfer/core.h)
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
here=$PWD

make -s dist BUILD="$build"
cp "$build/flashinfer-c-$version.tar.gz" "$work/flashinfer-c_$version.orig.tar.gz"
cd "$work"
tar -xf "flashinfer-c_$version.orig.tar.gz"
offline=
if unshare -n true 2>/dev/null; then offline='unshare -n'; elif unshare -rn true 2>/dev/null; then offline='unshare -rn'; fi
started=$(date +%s)
(cd "flashinfer-c-$version" && env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 $offline dpkg-buildpackage -us -uc -j"$(nproc)") \
    >build.log 2>&1 ||
    { tail -n 60 build.log; die 'dpkg-buildpackage fails'; }
echo "dpkg-buildpackage: $(($(date +%s) - started)) s${offline:+, without network}"

expect_contents() { # PACKAGE: its files, without Debian's own; standard input: what they must be
    dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x -C root 2>/dev/null || die "$1: is not there"
    dpkg-deb -c "$1"_*.deb | awk '{ print $6, $7, $8 }' | grep -v '/ *$' | sed 's/ *$//' |
        grep -v -e "^\./usr/share/doc/$1/" -e "^\./usr/share/lintian/" | sort >found
    sort | diff - found || die "$1: holds other files than expected (left: expected, right: found)"
}
mkdir root
lib=./usr/lib/$multiarch
expect_contents libflashinfer0 <<LIST
$lib/libflashinfer.so.$version
$lib/libflashinfer.so.${version%%.*} -> libflashinfer.so.$version
LIST
{
    for header in "$here"/include/flashinfer/*.h; do echo "./usr/include/flashinfer/${header##*/}"; done
    cat <<LIST
$lib/cmake/flashinfer/flashinfer-config-version.cmake
$lib/cmake/flashinfer/flashinfer-config.cmake
$lib/libflashinfer.a
$lib/libflashinfer.so -> libflashinfer.so.${version%%.*}
$lib/pkgconfig/flashinfer.pc
LIST
} | expect_contents libflashinfer-dev
{
    echo ./usr/bin/flashinfer
    echo ./usr/share/man/man1/flashinfer.1.gz
    [ ! -e "$here/cli/completion.c" ] || {
        echo ./usr/share/bash-completion/completions/flashinfer
        echo ./usr/share/zsh/vendor-completions/_flashinfer
    }
} | expect_contents flashinfer-c

# The source package is looked at too. Suppressed is what is about uploads to Debian itself, whose debian/ is kept apart from
# the sources.
lintian --allow-root --display-info --fail-on error,warning,info --suppress-tags \
    initial-upload-closes-no-bugs,no-debian-changes,debian-watch-file-is-missing flashinfer-c_*.changes || die 'lintian complains'

[ "$(root/usr/bin/flashinfer version)" = "flashinfer $version" ] || die 'the installed command does not run'
export PKG_CONFIG_SYSROOT_DIR="$work/root" PKG_CONFIG_LIBDIR="$work/root/usr/lib/$multiarch/pkgconfig"
gcc "$here/examples/quickstart.c" -o quickstart $(pkg-config --cflags --libs flashinfer)
LD_LIBRARY_PATH="$work/root/usr/lib/$multiarch" ./quickstart
