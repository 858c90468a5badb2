#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the fuzz targets one after the other and counts.
#   usage: tests/fuzz/run.sh BUILD SECONDS [TARGET...]     seconds of each target
# What a target learns stays under BUILD/fuzz/corpus; a crash is written to BUILD/fuzz and, once mended, belongs into
# tests/fuzz/corpus, from which every run starts.
set -u
build=$1 seconds=$2
shift 2
[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
FLASHINFER_CACHE_DIR=${FLASHINFER_CACHE_DIR:-$(realpath "$build")/fuzz/cache}
export FLASHINFER_CACHE_DIR
# The search for leaks takes the thread-local storage of the library's own threads for other than it is, and dies of it. oneDNN
# asks for as much memory as a product that no one has would take, and says so when there is none.
ASAN_OPTIONS=intercept_tls_get_addr=0:allocator_may_return_null=1
export ASAN_OPTIONS
status=0
for target; do
    learnt=$build/fuzz/corpus/$target log=$build/fuzz/$target.log
    mkdir -p "$learnt"
    if "$build/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2000 -print_final_stats=1 \
        -artifact_prefix="$build/fuzz/$target-" "$learnt" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        verdict=ok
    else
        verdict=FAIL status=1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '  %-5s %-20s %10s executions in %s s\n' "$verdict" "$target" "${executions:-?}" "$seconds"
    [ "$verdict" = ok ] || tail -n 40 "$log" | sed 's/^/        | /'
done
exit $status
