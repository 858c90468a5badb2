#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets up, builds, runs every test and counts. Each step prints its own account; the last line is "N passed, N failed".
#   usage: tests/run.sh BUILD [--gpu]
# Unit tests (cmocka), checks of headers, symbols and declarations, every op against its reference (flashinfer check), both also
# under sanitizers, fuzzing, the command as a shell sees it, every CUDA kernel compiled for every architecture (flashinfer specs),
# packaging, the example against an independent model. Each stage has minutes allotted, 60 in all on two cores; one that takes
# longer is a failure.
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

stage_name= allotted=0 began=$(date +%s) times=

stage() { # NAME MINUTES: ends the stage before, and begins one
    end_stage
    stage_name=$1 stage_minutes=$2 stage_started=$(seconds)
    allotted=$((allotted + $2))
    echo "$1"
}

print_time() { # SECONDS MINUTES NAME
    printf '  %2d:%02d of %2d:00   %s\n' $(($1 / 60)) $(($1 % 60)) "$2" "$3"
}

end_stage() {
    [ -n "$stage_name" ] || return 0
    taken=$(($(seconds) - stage_started))
    times="$times$(print_time "$taken" "$stage_minutes" "$stage_name")
"
    [ "$taken" -le $((60 * stage_minutes)) ] || step "time of: $stage_name" over_time "$taken" "$stage_minutes"
}

over_time() { # SECONDS MINUTES
    echo "it took $1 s, and $2 minutes are allotted in tests/run.sh"
    return 1
}

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
        printf '  FAIL  %-42s %3d s   %d of %d cases (%s)\n' "$name" $(($(seconds) - started)) "$bad" $((good + bad)) \
            "$log/$name.log"
        grep -v '^ok ' "$log/$name.log" | tail -n 25 | sed 's/^/        | /'
    fi
}

stage 'Setting up and building' 4
tools/setup.sh "$build" test && make --no-print-directory -s -j"$(nproc)" BUILD="$build" all tests || exit 2

stage 'Headers, symbols, sources' 1
for script in tests/abi/*.sh tests/tree/*.sh; do
    [ -e "$script" ] && step "$(basename "$script" .sh)" "$script" "$build"
done

stage 'The command' 2
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

stage 'Unit tests' 6
units "$build"
for example in variant paged_attention; do
    step "example_$example" "$build/$example"
done

stage 'The Python package' 2
for script in tests/python/*.sh; do
    step "python_$(basename "$script" .sh)" "$script" "$build" "$device"
done

stage 'Every kernel against its reference' 6
ops=$("$build/flashinfer" list | cut -d' ' -f1)
for op in $ops; do
    step "check_$op" tools/with_nvrtc.sh "$build" "$build/flashinfer" check "$op" --device "$device" $require
done

# The search for leaks takes the thread-local storage of oneDNN's threads for other than it is, and dies of it.
stage 'Unit tests, and every CPU kernel against its reference, under address and undefined-behaviour sanitizers' 12
step build_sanitized make -s -j"$(nproc)" BUILD="$build/sanitized" SANITIZE=address,undefined OPTIMISE=-O1 tests \
    "$build/sanitized/flashinfer"
units "$build/sanitized"
for op in $ops; do
    step "sanitized_check_$op" env ASAN_OPTIONS=intercept_tls_get_addr=0 "$build/sanitized/flashinfer" check "$op" --device cpu
done

stage 'Threads under the thread sanitizer' 2
threaded='tests/core/test_table tests/core/test_threads tests/jit/test_cache'
threaded="$threaded tests/torture/test_cold_cache tests/torture/test_processes"
step build_tsan make -s -j"$(nproc)" BUILD="$build/tsan" SANITIZE=thread OPTIMISE=-O1 $(printf "$build/tsan/%s " $threaded)
setarch -R true 2>/dev/null && fixed_addresses='setarch -R' # where addresses are too random for the sanitizer
for program in $threaded; do
    unit "$build/tsan" "$build/tsan/$program"
done
fixed_addresses=

stage 'Fuzzing, all targets together for a minute' 3
step build_fuzz make --no-print-directory BUILD="$build" build-fuzz
targets=$(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
for target in $targets; do
    step "$target" tests/fuzz/run.sh "$build" $((60 / $(echo "$targets" | wc -l))) "$target"
done

stage 'Every CUDA kernel, compiled for every architecture' 9
step specs tools/with_nvrtc.sh "$build" "$build/flashinfer" specs

stage 'Packaging: the installed tree, programs built against it, Debian packages, the archive of sources' 2
for script in tests/packaging/*.sh; do
    step "packaging_$(basename "$script" .sh)" "$script" "$build"
done

stage 'The language model' 11
for script in tests/generate/*.sh; do
    [ -e "$script" ] && step "$(basename "$script" .sh)" "$script" "$build" "$device"
done

end_stage
echo 'Time, of that allotted'
printf '%s' "$times"
print_time $(($(seconds) - began)) "$allotted" 'in all'
[ "$allotted" -le 60 ] || { echo "$allotted minutes are allotted, and 60 are there"; failed=$((failed + 1)); }

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
