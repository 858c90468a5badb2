#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every link of the documentation leads to a file of the tree and, behind a #, to one of its headings; figures have their files.
#   usage: tests/tree/links.sh BUILD
set -u
status=0

anchors() { # FILE: what a heading is linked by: lower case, spaces as hyphens, other signs left out
    sed -n 's/^##* //p' "$1" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9_\n-'
}

for page in *.md docs/*.md; do
    for link in $(grep -o '](\([^)]*\))' "$page" | sed 's/^](//; s/)$//' | grep -v '^[a-z]*://'); do
        file=${link%%#*} anchor=
        [ "$link" = "$file" ] || anchor=${link#*#}
        target=$page
        [ -z "$file" ] || target=$(dirname "$page")/$file
        if [ ! -e "$target" ]; then
            echo "$page: there is no $target"
            status=1
        elif [ -n "$anchor" ] && ! anchors "$target" | grep -qx -e "$anchor"; then
            echo "$page: $target has no heading #$anchor"
            status=1
        fi
    done
done

# Figures have their source: every CSV file that a page names is there.
for file in $(grep -oh '[a-z0-9_/-]*\.csv' README.md docs/*.md | sed 's|.*/||' | sort -u); do
    ls bench/results/*/"$file" >/dev/null 2>&1 || { echo "a page names $file, which is not in bench/results"; status=1; }
done
exit $status
