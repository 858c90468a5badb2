#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source starts with its license line; files, lines and functions of C and CUDA stay within their budgets; no inline assembly
# outside the kernels' vocabulary.
set -u
status=0
# What git tracks or would track; without git, everything outside the build folder.
files=$(git ls-files --cached --others --exclude-standard '*.c' '*.h' '*.cpp' '*.rs' '*.cu' '*.cuh' '*.sh' '*.py' 2>/dev/null) ||
    files=$(find . -path "./$1" -prune -o -name '.git' -prune -o \( -name '*.[ch]' -o -name '*.cpp' -o -name '*.rs' \
        -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' \) -print)
for file in $files; do
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || { echo "$file: no SPDX line"; status=1; }
    lines=$(wc -l <"$file")
    case "$file" in
    ops/*.cu | ops/*.cuh | ops/*_cpu.c | ops/*_cpu.h) budget=400 ;;
    examples/generate/unicode_ranges.c) budget=2000 ;; # a generated table
    *) budget=600 ;;
    esac
    [ "$lines" -le "$budget" ] || { echo "$file: $lines lines, the budget is $budget"; status=1; }
    case "$file" in
    *.sh | *.rs) ;;
    *) awk -v file="$file" '
        length > 130 {print file ":" NR ": " length " columns, 130 are allowed"; wrong = 1}
        /^{$/ {begin = NR}
        /^}$/ && begin && file ~ /\.(c|h|cu|cuh)$/ && NR - begin >= 80 {
            print file ":" begin ": more than 80 lines"; wrong = 1
        }
        /^}$/ {begin = 0}
        END {exit wrong}' "$file" || status=1 ;;
    esac
done
if grep -n -w -E 'asm|__asm__' ops/*/*.cu ops/*/*.cuh 2>/dev/null; then
    echo 'inline assembly belongs into device/'
    status=1
fi
exit $status
