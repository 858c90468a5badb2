#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs the sources: what git tracks, or, in a tree that was unpacked from such an archive, every file outside BUILD. Names
# sorted, owner, mode and time normalised (the time is that of the newest entry of debian/changelog), so that anyone gets the
# same bytes.
#   usage: packaging/dist.sh ARCHIVE BUILD
set -eu
export LC_ALL=C
archive=$1 build=${2%/}
folder=$(basename "$archive" .tar.gz)
time=${SOURCE_DATE_EPOCH:-$(date -d "$(sed -n 's/^ -- .*>  //p' debian/changelog | head -n 1)" +%s)}

list() {
    if [ -e .git ]; then
        git ls-files -z
    else
        find . \( -path ./build -o -path './build-*' -o -path "./${build#./}" -o -name __pycache__ \) -prune -o \
            ! -type d -printf '%P\0'
    fi
}

list >"$archive.list"
sort -z "$archive.list" | tar --create --null --no-recursion --files-from=- --format=ustar --transform="flags=r;s,^,$folder/," \
    --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$time" >"$archive.tar"
gzip -9n <"$archive.tar" >"$archive"
rm "$archive.tar" "$archive.list"
