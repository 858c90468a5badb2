#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test and counts. Each step prints its own account; the last line is "N passed, N failed".
#   usage: tests/run.sh BUILD [--gpu]
# Unit tests (cmocka), plain and under sanitizers, checks of headers, symbols and declarations, the command as a shell sees it,
# every op against its reference (flashinfer check), every CUDA kernel compiled for every architecture (flashinfer specs), the
# example against an independent model.
set -u
build=$1
device=cpu require=
[ "${2:-}" = --gpu ] && device=all require='--require cuda'
passed=0 failed=0 skipped=0
log=$build/test-logs
mkdir -p "$log"
FLASHINFER_CACHE_DIR=${FLASHINFER_CACHE_DIR:-$(realpath "$build")/test-cache}
export FLASHINFER_CACHE_DIR

seconds() { date +%s; }

step() { # NAME COMMAND...: one check, passed if the command succeeds
    name=$1
    shift
    started=$(seconds)
    if "$@" >"$log/$name.log" 2>&1; then
        passed=$((passed + 1))
        printf '  ok    %-42s %3d s\n' "$name" $(($(seconds) - started))
    else
        failed=$((failed + 1))
        printf '  FAIL  %-42s %3d s   (%s)\n' "$name" $(($(seconds) - started)) "$log/$name.log"
        tail -n 25 "$log/$name.log" | sed 's/^/        | /'
    fi
}

unit() { # FOLDER PROGRAM: counts the cases of a test
    name=$(echo "${2#"$1"/tests/}" | tr / _)
    [ "$1" = "$build" ] || name=$(basename "$1")_$name
    started=$(seconds)
    CMOCKA_MESSAGE_OUTPUT=TAP $fixed_addresses tools/with_nvrtc.sh "$build" "$2" >"$log/$name.log" 2>&1
    status=$?
    good=$(grep -c '^ok ' "$log/$name.log")
    left_out=$(grep -c '^not ok .*# SKIP' "$log/$name.log")
    bad=$(($(grep -c '^not ok ' "$log/$name.log") - left_out))
    [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
    [ "$((good + bad + left_out))" = 0 ] && bad=1
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left_out))
    if [ "$bad" = 0 ]; then
        printf '  ok    %-42s %3d s   %d cases\n' "$name" $(($(seconds) - started)) "$good"
    else
        printf '  FAIL  %-42s %3d s   %d of %d cases (%s)\n' "$name" $(($(seconds) - started)) "$bad" $((good + bad)) "$log/$name.log"
        grep -v '^ok ' "$log/$name.log" | tail -n 25 | sed 's/^/        | /'
    fi
}

echo 'Headers, symbols, sources'
for script in tests/abi/*.sh tests/tree/*.sh; do
    [ -e "$script" ] && step "$(basename "$script" .sh)" "$script" "$build"
done

echo 'The command'
for script in tests/cli/*.sh; do
    step "cli_$(basename "$script" .sh)" "$script" "$build"
done

FLASHINFER_TEST_MODEL=$(tools/fetch_model.sh) || { echo 'the model could not be fetched'; failed=$((failed + 1)); }
export FLASHINFER_TEST_MODEL

fixed_addresses=
units() { # FOLDER
    for program in $(find "$1/tests" -type f -name 'test_*' -perm -u+x | sort); do
        unit "$1" "$program"
    done
}

echo 'Unit tests'
units "$build"

echo 'Unit tests under address and undefined-behaviour sanitizers'
step build_sanitized make -s -j"$(nproc)" BUILD="$build/sanitized" SANITIZE=address,undefined OPTIMISE=-O1 tests
units "$build/sanitized"

echo 'Threads under the thread sanitizer'
threaded='tests/core/test_threads tests/jit/test_cache tests/torture/test_cold_cache tests/torture/test_processes'
step build_tsan make -s -j"$(nproc)" BUILD="$build/tsan" SANITIZE=thread OPTIMISE=-O1 $(printf "$build/tsan/%s " $threaded)
setarch -R true 2>/dev/null && fixed_addresses='setarch -R' # where addresses are too random for the sanitizer
for program in $threaded; do
    unit "$build/tsan" "$build/tsan/$program"
done
fixed_addresses=

echo 'Every kernel against its reference'
for op in $("$build/flashinfer" list | cut -d' ' -f1); do
    step "check_$op" tools/with_nvrtc.sh "$build" "$build/flashinfer" check "$op" --device "$device" $require
done

echo 'Every CUDA kernel, compiled for every architecture'
step specs tools/with_nvrtc.sh "$build" "$build/flashinfer" specs

echo 'Packaging: the installed tree, programs built against it, Debian packages, the archive of sources'
for script in tests/packaging/*.sh; do
    step "packaging_$(basename "$script" .sh)" "$script" "$build"
done

echo 'The language model'
for script in tests/generate/*.sh; do
    [ -e "$script" ] && step "$(basename "$script" .sh)" "$script" "$build" "$device"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
