#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A machine without a compiler, and with an empty cache: the packs for each level that this CPU has serve the language model and
# every op that it calls. The pack for the other architecture is built, and of that architecture.
#   usage: tests/generate/pack.sh BUILD      (FLASHINFER_TEST_MODEL names the model)
set -eu
build=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
complain() { echo "$*"; exit 1; }

make -s pack BUILD="$1"
ls -l "$build/pack"
kernels() { readelf -s -W "$1" | grep -c ' FUNC .*_[0-9a-f]\{16\}$'; }

without_compiler() { # LEVEL COMMAND...: with that level's pack alone
    folder=$work/$1
    [ -d "$folder" ] || install -D -m 644 "$build/pack/flashinfer-cpu-$1.pack" "$folder/flashinfer-cpu-$1.pack"
    shift
    env -i HOME="$work" PATH= FLASHINFER_CC=/nonexistent FLASHINFER_CACHE_DIR="$work/cache" FLASHINFER_PACK_DIR="$folder" "$@"
}

case $(uname -m) in
x86_64)
    own=$("$build/flashinfer" show-config | grep -o 'x86-64-v[0-9]' | head -n 1)
    levels=$(printf '%s\n' x86-64-v2 x86-64-v3 x86-64-v4 | sed "/$own/q")
    readelf -h "$build/pack/flashinfer-cpu-aarch64.pack" | grep -q 'Machine: *AArch64' ||
        complain 'the pack for aarch64 is of another architecture'
    [ "$(kernels "$build/pack/flashinfer-cpu-aarch64.pack")" = "$(kernels "$build/pack/flashinfer-cpu-x86-64-v2.pack")" ] ||
        complain 'the pack for aarch64 holds other kernels'
    ;;
*) levels=$(uname -m) ;;
esac

ops=$(grep -ho 'FLASHINFER([a-z_0-9]*' examples/generate/*.c | cut -d'(' -f2 | sort -u)
[ "$(echo "$ops" | wc -l)" -ge 10 ] || complain "these are not all ops that the example calls: $ops"

# Kernels of attention are as many as head_dims, dtypes, masks and encodings multiplied: packs hold those of named shapes, and
# random problems are for the other ops. The lowest level, which every later one could run, is tried with each of these shapes.
attention='batch_prefill batch_decode'
others=$(echo "$ops" | grep -vxF "$(echo "$attention" | tr ' ' '\n')")
shapes_of() { sed -n '/op_shape .*shapes\[\]/,/^};/s/^    {"\([a-z0-9_]*\)".*/\1/p' "ops/attention/$1.c"; }
for op in $attention; do
    [ "$(shapes_of "$op" | wc -l)" -ge 10 ] || complain "these are not all shapes of $op: $(shapes_of "$op")"
    for shape in $(shapes_of "$op"); do
        without_compiler "${levels%%[!a-z0-9-]*}" "$build/flashinfer" check "$op" --shape "$shape" --device cpu \
            >"$work/out" 2>&1 ||
            complain "$op $shape: $(cat "$work/out")"
        grep -q '^[1-9][0-9]* trials, .* 0 failures' "$work/out" || complain "$op $shape: $(tail -n 1 "$work/out")"
    done
done

for level in $levels; do
    without_compiler "$level" "$build/flashinfer" check $others --device cpu --problems 10 >"$work/out" 2>&1 ||
        complain "$level: $(grep -v ' 0 *$' "$work/out" | tail -n 20)"
    grep -q ' 0 failures' "$work/out" || complain "$level: $(tail -n 1 "$work/out")"
    echo "$level: $(tail -n 1 "$work/out")"
    # In f16, where rounding decides nothing, the text is the same whatever the instructions; bf16 takes other kernels.
    for dtype in bf16 f16; do
        without_compiler "$level" "$build/generate" --model "$FLASHINFER_TEST_MODEL" --device cpu --max-tokens 8 --temperature 0 \
            --dtype "$dtype" --prompt 'What is the capital of France?' >"$work/out" 2>&1 ||
            complain "$level $dtype: $(cat "$work/out")"
        grep -q '^kernels  *0 compiled .*, 0 from the disk cache .*, [1-9][0-9]* from a pack$' "$work/out" ||
            complain "$level $dtype: kernels come from elsewhere: $(grep '^kernels' "$work/out")"
    done
    grep -q 'Paris' "$work/out" || complain "$level: the capital of France: $(cat "$work/out")"
    echo "$level: $(grep '^kernels' "$work/out")"
done

# Installed packs are found without a word: by the library beside itself, by the command in ../lib.
make -s install BUILD="$1" prefix="$work/usr" >/dev/null
cp "$build/quickstart" "$work/usr/bin"
installed() { env -i HOME="$work" PATH= FLASHINFER_CC=/nonexistent FLASHINFER_CACHE_DIR="$work/cache" "$@"; }
installed LD_LIBRARY_PATH="$work/usr/lib" "$work/usr/bin/quickstart" >"$work/out" 2>&1 || complain "installed: $(cat "$work/out")"
installed "$work/usr/bin/flashinfer" check rmsnorm --device cpu --problems 3 >"$work/out" 2>&1 ||
    complain "installed: $(cat "$work/out")"
[ ! -e "$work/cache" ] || complain "something was written to the cache: $(ls "$work/cache")"
