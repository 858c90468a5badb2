#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes an assembler file that embeds kernel sources in the library: a table sorted by bare name, each row with the name, the
# path in the tree, the text (a NUL after it) and its size. Fails if two files have one name or an #include names a file that is
# not there.
#
#     tools/embed_sources.sh OUT.S FILE...
set -eu
export LC_ALL=C
out=$1
shift

table=$(for file; do printf '%s %s\n' "$(basename "$file")" "$file"; done | sort)
names=$(printf '%s\n' "$table" | cut -d' ' -f1)

twice=$(printf '%s\n' "$names" | uniq -d)
if [ -n "$twice" ]; then
    echo "embed_sources: two kernel sources have the same name:" $twice >&2
    printf '%s\n' "$table" | grep -F "$twice" >&2
    exit 1
fi

# variant.h may come from the user alone.
missing=$(grep -HoE '^[[:blank:]]*#[[:blank:]]*include[[:blank:]]*"[^"]+"' "$@" | sed 's/^\([^:]*\):.*"\(.*\)"/\2 \1/' |
    awk -v names="$(echo $names) variant.h" 'BEGIN { n = split(names, list); for (i = 1; i <= n; i++) known[list[i]] = 1 }
                                     !($1 in known) { print $2 " includes \"" $1 "\", which is not embedded" }')
if [ -n "$missing" ]; then
    echo "embed_sources: $missing" >&2
    exit 1
fi

{
    echo '    .section .rodata.embedded_texts, "a", %progbits'
    i=0
    printf '%s\n' "$table" | while read -r name file; do
        printf '.Lname%d: .asciz "%s"\n.Lpath%d: .asciz "%s"\n' $i "$name" $i "$file"
        printf '.Ltext%d: .incbin "%s"\n.Lend%d: .byte 0\n' $i "$file" $i
        i=$((i + 1))
    done
    echo '    .section .data.rel.ro.embedded_sources, "aw", %progbits'
    echo '    .balign 8'
    echo '    .globl embedded_sources, embedded_source_count'
    echo '    .hidden embedded_sources, embedded_source_count'
    echo 'embedded_sources:'
    i=0
    printf '%s\n' "$names" | while read -r name; do
        printf '    .8byte .Lname%d, .Lpath%d, .Ltext%d, .Lend%d - .Ltext%d\n' $i $i $i $i $i
        i=$((i + 1))
    done
    echo 'embedded_source_count:'
    printf '    .8byte %d\n' $#
    echo '    .section .note.GNU-stack, "", %progbits'
} >"$out"
