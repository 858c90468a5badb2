#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Warm-up: what was compiled from a list, or from the record of another run, is not compiled by the program that needs it.
#   usage: tests/cli/compile.sh BUILD
build=$1
. tests/cli/lib/expect.sh
export FLASHINFER_CACHE_DIR="$work/cache"
unset FLASHINFER_RECORD FLASHINFER_DISABLE_JIT

# Misuse.
expect 2 'name ops, or say --all or --from' compile
expect 2 'neither ops nor --from' compile --all rmsnorm
expect 2 'rmsnorm has no dimension or number hiden' compile rmsnorm hiden=64
expect 2 'no kernel "none"\|has a kernel "none"' compile rmsnorm --kernel none
expect 3 'serves none of these calls' compile rmsnorm --kernel norm_sm80 --device cpu
expect 2 'cannot be read: No such file' compile --from "$work/none"
expect 2 'cannot be read: Is a directory' compile --from "$work"
expect 2 'the line holds a NUL' compile --from "$build/flashinfer"
[ -e "$FLASHINFER_CACHE_DIR" ] && [ "$(find "$FLASHINFER_CACHE_DIR" -type f | wc -l)" != 0 ] &&
    complain 'what was refused compiled something'

refused_line() { # SAYS LINE
    printf '# first\n%s\n' "$2" >"$work/list"
    expect 2 "list:2: .*$1" compile --from "$work/list" --device cpu
}
refused_line 'there is no op "rmsnrom"; near it: .*rmsnorm' 'rmsnrom hidden=64'
refused_line 'no dimension or number hiden' 'rmsnorm hiden=64'
refused_line 'neither cpu nor an architecture' 'norm_sm80 sm_75 T:dtype=f16'
refused_line '"../x" is no kernel' '../x cpu'
refused_line '"bf17" is no dtype' 'norm_cpu cpu T:dtype=bf17'
refused_line '"VEC" is not NAME=VALUE' 'norm_cpu cpu VEC'
refused_line 'must be a 32-bit integer' 'norm_cpu cpu VEC=4294967296'
refused_line '"A B;" is no name\|is not NAME=VALUE' 'norm_cpu cpu A B;=3'
refused_line 'does not end with' 'mine cpu text="void mine('

# A folder that is none, and one that takes no file.
: >"$work/file"
FLASHINFER_CACHE_DIR=$work/file expect 2 'is not a folder' compile rmsnorm --device cpu
FLASHINFER_CACHE_DIR=/proc/self expect 2 'cannot be written into the cache\|there is no cache' compile rmsnorm --device cpu
mkdir -m 777 "$work/open" && chmod 777 "$work/open"
FLASHINFER_CACHE_DIR=$work/open expect 2 'others may write' compile rmsnorm --device cpu
FLASHINFER_CC=/none expect 3 'no C compiler' compile rmsnorm --device cpu

# By hand, several at once, twice.
expect 0 '3 compiled, 0 already there, 0 failed' compile rmsnorm --device cpu -j 4
expect 0 '0 compiled, 3 already there, 0 failed' compile rmsnorm --device cpu
printf '# by hand\n\n  rmsnorm dtype=bf16\r\nsilu_and_mul dtype=f16' >"$work/list"
expect 0 '1 compiled, 1 already there, 0 failed' compile --from "$work/list" --device cpu
expect 0 '0 compiled, 2 already there, 0 failed' compile --from - --device cpu <"$work/list"
expect_json compile --from "$work/list" --device cpu
expect 0 '2 in all, 2 compiled, 0 not compiled' module-status --from "$work/list" --device cpu
expect 0 '1 in all, 0 compiled, 1 not compiled' module-status silu_and_mul dtype=bf16 --device cpu
expect 0 'norm_cpu  *compiled  *3' list-modules norm_cpu
expect_json module-status rmsnorm --device cpu --detailed
expect_json list-modules
expect 2 'there is no module "none"' list-modules none

# A list that has a name.
expect 2 'values belong to an op' compile gdn_prefill dtype=f16 --arch 90
expect 2 'there is no op "gdn_prefil"' compile gdn_prefil --arch 90
expect 2 'there is no op "gdn_prefill"' bench gdn_prefill

# For GPUs that are not there.
expect 0 '3 compiled, 0 already there, 0 failed' compile rmsnorm --arch 80,90,sm_120a hidden=4096 rows=8
expect 0 ' sm_120a ' cache list
expect 0 '3 in all, 3 compiled' module-status rmsnorm --arch 80,9.0,120 hidden=4096 rows=8

# Record, compile elsewhere, run there without a compiler.
for program in quickstart 'flashinfer check batch_decode --device cpu --problems 3'; do
    rm -rf "$work/first" "$work/second" "$work/record"
    # shellcheck disable=SC2086
    FLASHINFER_CACHE_DIR=$work/first FLASHINFER_RECORD=$work/record "$build"/$program >"$work/out" 2>&1 ||
        complain "$program: $(cat "$work/out")"
    lines=$(grep -c ' cpu ' "$work/record") || complain "$program recorded nothing"
    rm -rf "$work/first"
    FLASHINFER_CACHE_DIR=$work/second expect 0 "$lines compiled, 0 already there, 0 failed" compile --from "$work/record"
    FLASHINFER_CACHE_DIR=$work/second expect 0 "0 compiled, $lines already there" compile --from "$work/record" --device cpu
    FLASHINFER_CACHE_DIR=$work/second expect 0 '^0 compiled, 0 already there' \
        compile --from "$work/record" --device cuda --arch 90
    # shellcheck disable=SC2086
    FLASHINFER_CACHE_DIR=$work/second FLASHINFER_DISABLE_JIT=1 "$build"/$program >"$work/out" 2>&1 ||
        complain "$program, after its record was compiled, wants to compile: $(tail -n 3 "$work/out")"
    # shellcheck disable=SC2086
    FLASHINFER_CACHE_DIR=$work/third FLASHINFER_DISABLE_JIT=1 "$build"/$program >"$work/out" 2>&1 &&
        complain "$program needs nothing compiled: this test shows nothing"
done
printf 'norm_sm80 sm_90a T:dtype=bf16\n' >"$work/record"
expect 0 '^0 compiled' compile --from "$work/record" --arch 80

# A record that cannot be written is no failure of the program.
FLASHINFER_RECORD=$work/none/record expect 0 ' 0 failures' check rmsnorm --device cpu --problems 2

# A compilation that lasts is shown: as a bar on a terminal, not on a pipe.
printf '#!/bin/sh\nsleep 1.4\nexec cc "$@"\n' >"$work/slow-cc"
chmod 700 "$work/slow-cc"
export FLASHINFER_CC="$work/slow-cc"
"$python" - "$build/flashinfer" compile rmsnorm --device cpu -j 1 >"$work/terminal" <<'EOT'
import pty, sys
sys.exit(pty.spawn(sys.argv[1:]))
EOT
grep -q '1 s, 1 of 1 at once: norm_cpu (T=' "$work/terminal" || complain "no seconds on a terminal: $(cat "$work/terminal")"
grep -q '\[######## *\] 1/3 norm_cpu' "$work/terminal" || complain "no bar on a terminal: $(cat "$work/terminal")"
rm -rf "$FLASHINFER_CACHE_DIR"
flashinfer compile rmsnorm --device cpu >"$work/out" 2>"$work/err"
[ -s "$work/err" ] && complain "standard error, which is no terminal: $(cat "$work/err")"
exit $status
