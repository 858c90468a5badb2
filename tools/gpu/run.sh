#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in one command, for a machine with nothing but a driver, CUDA's libraries and Python with NumPy:
# every CUDA kernel against its reference, the tests of graphs and faults, the language model, the benchmarks. Uses what is
# built in BUILD.
#   usage: tools/gpu/run.sh BUILD OUTPUT [check|huge|sanitize|model|bench ...]      (FLASHINFER_TEST_MODEL names the model)
# Logs go to OUTPUT/logs.tar.gz, figures to OUTPUT/*.csv; a short account is printed.
set -u
build=$1 results=$2
shift 2
[ $# -gt 0 ] || set -- check model bench
output=$(mktemp -d)
FLASHINFER_CACHE_DIR=${FLASHINFER_CACHE_DIR:-$output/cache}
export FLASHINFER_CACHE_DIR
mkdir -p "$results"
failed=0

step() { # NAME COMMAND...
    name=$1
    shift
    started=$(date +%s)
    if "$@" >"$output/$name.log" 2>&1; then
        printf 'ok    %-28s %4d s\n' "$name" $(($(date +%s) - started))
    else
        failed=$((failed + 1))
        printf 'FAIL  %-28s %4d s\n' "$name" $(($(date +%s) - started))
        tail -n 15 "$output/$name.log" | sed 's/^/      | /'
    fi
}

for part; do
    case $part in
    check)
        step show_config "$build/flashinfer" show-config
        # Compiling takes most of the time of a check, so several run side by side.
        "$build/flashinfer" list | cut -d' ' -f1 | xargs -P 8 -I OP sh -c '
            if "$0/flashinfer" check OP --device cuda --require cuda >"$1/check_OP.log" 2>&1; then touch "$1/check_OP.passed"
            else printf "FAIL  check_OP\n"; tail -n 15 "$1/check_OP.log" | sed "s/^/      | /"; fi' "$build" "$output"
        for op in $("$build/flashinfer" list | cut -d' ' -f1); do
            [ -e "$output/check_$op.passed" ] || failed=$((failed + 1))
        done
        for program in "$build"/tests/gpu/test_* "$build"/tests/ops/test_invariance "$build"/tests/ops/test_equal_rows \
            "$build"/tests/ops/test_large_logits "$build"/tests/ops/test_variants; do
            case $program in *.[od]) continue ;; esac
            [ -x "$program" ] && step "$(basename "$program")" "$program"
        done
        ;;
    huge)
        step huge "$build/flashinfer" check --huge
        cat "$output/huge.log"
        ;;
    sanitize)
        for tool in memcheck racecheck initcheck; do
            for op in $("$build/flashinfer" list | cut -d' ' -f1); do
                step "${tool}_$op" timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 1 \
                    "$build/flashinfer" check "$op" \
                    --device cuda --problems 4
            done
        done
        ;;
    model)
        step logits_f16 tests/generate/logits.sh "$build" all
        for batch in 1 16 128; do
            for tokens in 8 256; do # the first run leaves the kernels in the cache
                step "generate_$batch" "$build/generate" --model "$FLASHINFER_TEST_MODEL" --device cuda --quiet --ignore-end \
                    --prompt 'Explain step by step how a lighthouse works.' --requests "$batch" --batch "$batch" \
                    --max-tokens "$tokens"
            done
            grep -E '^(prefill|decode|time to|kernels)' "$output/generate_$batch.log" | sed 's/^/      /'
        done
        ;;
    bench)
        step bench "$build/flashinfer" bench --device cuda
        step overhead "$build/flashinfer" bench --overhead --device cuda
        cat "$output/overhead.log"
        ;;
    esac
done
tar -C "$output" --exclude=cache -czf "$results/logs.tar.gz" .
exit "$failed"
