#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command as a person and a program use it: help of every subcommand, what is refused and how, --json lines that parse.
#   usage: tests/cli/command.sh BUILD
build=$1
. tests/cli/lib/expect.sh

# Every command that the help names has a page, which says what its options, exit codes and defaults are.
names=$(flashinfer --help | sed -n '/^COMMANDS/,/^$/{s/^  \([a-z-]*\( [a-z]*\)\{0,1\}\)  .*/\1/p;}')
[ "$(echo "$names" | wc -l)" -ge 16 ] || complain "flashinfer --help names too few commands: $names"
while read -r name; do
    # shellcheck disable=SC2086
    for section in 'usage: flashinfer' '^DESCRIPTION' '^OPTIONS' '^EXIT STATUS' '^  -h, --help'; do
        expect 0 "$section" $name --help
    done
    expect 0 '^.SH NAME' help --man $name
    expect 2 'unknown option --no-such-option' $name --no-such-option
    expect 2 'unknown option -Z' $name -Z
    flashinfer $name --help | awk 'length > 100 || / $/ { print; wrong = 1 } END { exit wrong }' ||
        complain "$name --help: lines of more than 100 characters, or that end with blanks"
done <<NAMES
$names
NAMES
expect 0 '^.SH COMMANDS' help --man
while read -r name; do
    [ "$name" = clear-cache ] || expect 0 "^.SH $name$" help --man
done <<NAMES
$names
NAMES
if command -v groff >/dev/null; then
    flashinfer help --man | groff -man -Tascii -ww -z 2>"$work/err"
    [ -s "$work/err" ] && complain "troff warns of the manual page: $(head -n 3 "$work/err")"
fi
expect 0 'cache verify' cache --help
expect 2 'cache is several commands' cache
expect 2 'there is no command "cache frob"' cache frob
expect 2 'there is no command "comple"; near it: compile' help comple
expect 2 'usage: flashinfer COMMAND'
expect 0 'usage: flashinfer COMMAND' --help
expect 2 'there is no command "chekc"; near it: check' chekc
expect 2 'near it: .*rmsnorm' check rmsnrom
expect 2 'there is no op "hidden"; `flashinfer list` names all' explain rmsnorm hidden
expect 2 'unknown option --frob$' check --frob
expect 2 'unknown option --problms; near it: --problems' check --problms 3
expect 2 '--problems needs a value' check --problems
expect 2 '--problems 3x: must be a number from 1 to' check --problems 3x
expect 2 '--problems -3: must be a number from 1 to' check --problems -3
expect 2 '--seed 99999999999999999999999: must be' check --seed 99999999999999999999999
expect 2 '--json=yes: the option takes no value' check --json=yes
expect 2 '-j needs a value' specs -j
expect 2 '--jobs 0: must be' specs -j 0
expect 2 '--device gpu: must be cpu, cuda or all' check --device gpu
expect 2 '--arch 75: must be one or more of' explain mm --arch 75
expect 2 '--arch ,: names no architecture' explain mm --arch ,
expect 3 'nothing to time' bench rmsnorm --kernel norm_sm80 --device cpu
expect 0 'mm_onednn .* no .* a dimension is more than' explain mm m=2 n=300 k=4294967296 dtype=bf16 --device cpu
expect 0 'batch_decode_stream_sm80 .* no .* more pairs of a request and a KV head' explain batch_decode batch=2700000 \
    max_batch_size=2700000 num_qo_heads=32 num_kv_heads=32 head_dim=64 page_size=1 num_pages=4 num_indices=4 --arch 90
expect 3 'outputs have no elements' bench rmsnorm rows=0 hidden=64 --device cpu
expect 2 'mm: m is given twice' explain mm m=3 n=64 k=64 m=4
expect 2 'mm: m is given twice' explain mm m=3 'n=64,m=4' k=64
expect 2 'mm: -bias is given twice' check mm -- -bias m=3 -bias
expect 2 'mm: a:dtype is given twice' bench mm m=3 a:dtype=f16 a:dtype=f16 --device cpu
expect 3 '^flashinfer: mm: no memory for a and its' check mm m=1000000000 n=1000000000 k=1000000000 --device cpu
(ulimit -v 4000000 && expect 3 'rmsnorm: no memory for input and its 40960000000 elements' \
    bench rmsnorm rows=10000000 hidden=4096 --device cpu
    exit $status) || status=1
expect 2 '--shape does not go with --seed' bench rmsnorm --shape odd --seed 3
expect 2 'rope_quantize_fp8: -q_nope needs values for which this does not hold: q_nope_dim > 0' \
    bench --device cpu -- rope_quantize_fp8 nnz=4 -q_nope
expect 2 '--overhead does not go with --compile' bench rmsnorm --overhead --compile
expect 2 '--arch goes with --compile only' bench rmsnorm --arch 90
expect 2 '--rounds goes with --compile only' bench rmsnorm --rounds 3
expect 2 '--pdl is for a GPU' bench rmsnorm --pdl --device cpu
expect 2 '--arch names GPUs' explain rmsnorm --arch 90 --device cpu
expect 0 '1 trials, 0 calls to be refused, 0 failures' check rmsnorm --shape odd --seed 3 --device cpu
expect 2 '--huge goes with neither' check rmsnorm --huge --seed 3
expect 2 '"hidden=4" was not expected: `specs` takes names of ops' specs rmsnorm hidden=4
expect 2 'there is no op "norm"; `flashinfer list` names all' check norm
expect 2 'there is no op "append"; near it: .*append_paged_kv_cache, ' check append
expect 2 'unknown option -x; options stand after a command' -x list
expect 2 'no op has a shape named none' check --shape none
expect 2 'none/x cannot be written: No such file' pack x86-64-v3 "$work/none/x"
expect 2 'cannot be written: Is a directory' pack x86-64-v3 "$work"
expect 2 '"stray" was not expected' version stray
expect 2 'too many values' explain mm "$(printf 'm=%0640d' 1)"
expect 0 'sm_90a' explain rmsnorm --arch sm_90a
expect 0 'sm_80' explain rmsnorm --arch 8.0,90
expect 0 'lower_bound .*, at least -100, at most 0' explain recurrent_kda
expect 2 'no op that was asked for has a kernel' check rmsnorm --kernel none
expect 2 'rmsnorm has no dimension or number rwos; `flashinfer explain rmsnorm` names all' check rmsnorm --device cpu rwos=3
expect 2 'neither batch_decode nor batch_decode_plan has the dimension or number kv_len' explain batch_decode kv_len=100
expect 2 'rmsnorm: rows=-3 is below 0' explain rmsnorm --device cpu rows=-3
expect 2 'rmsnorm: rows=0x10 must be an integer of at most 64 bits' explain rmsnorm --device cpu rows=0x10
expect 2 'rmsnorm: "=" is neither NAME=VALUE nor -ARGUMENT' explain rmsnorm --device cpu =
expect 2 'rmsnorm: "-" is neither NAME=VALUE nor -ARGUMENT' explain rmsnorm --device cpu -- -
expect 2 'kv_layout=XYZ must be one of: NHD HND' explain single_decode_with_kv_cache --device cpu kv_layout=XYZ
expect 2 'rotary_dim=4294967298 does not fit into 32 bits' explain apply_rope_pos_ids --device cpu rotary_dim=4294967298
expect 0 'rows=10 ' explain rmsnorm --device cpu rows=010
for dtype in f64 e4m3 half; do # none is the input's, whose dtype the others have
    expect 2 "rmsnorm: dtype=$dtype must be one of f16, bf16, f32" check rmsnorm --device cpu dtype=$dtype
done
expect 2 'rmsnorm: weight:dtype=f16 must be f32' explain rmsnorm input:dtype=f32 weight:dtype=f16
for given in '' '--shape odd'; do
    expect 2 'rmsnorm has no dimension or number foo' check rmsnorm --device cpu $given foo=3
    grep -q FAIL "$work/out" && complain "check $given foo=3: told as a failure of a shape"
done
expect 2 'rmsnorm has no shape named none' check rmsnorm --device cpu --shape none
expect 2 'name one op' explain
expect 2 'has no dimension' explain rmsnorm --device cpu foo=3
tail -n 1 "$work/out" | grep -q '^flashinfer: ' || complain 'explain: what is wrong stands before what was found'
# Examples that need neither a GPU nor time do what their pages say.
for name in list explain show-config help version completion; do
    flashinfer "$name" --help | sed -n '/^EXAMPLES/,$s/^  flashinfer \([^|>]*\)$/\1/p' >"$work/examples"
    while read -r example; do
        # shellcheck disable=SC2086
        expect 0 '' $example
    done <"$work/examples"
done
expect 0 '^  hidden  *out, input, weight$' explain rmsnorm --device cpu
expect 0 '^  plan  *plan  *of batch_decode_plan$' explain batch_decode --device cpu
expect 0 ' 0 failures' check rmsnorm --device cpu --problems 4
expect 0 'rmsnorm' list
expect 0 'TMPDIR' show-config

# An environment that makes no sense is told, once, and does not stand in the way.
export FLASHINFER_NUM_THREADS=four
expect 0 'FLASHINFER_NUM_THREADS is "four", must be an integer of at least 1' show-config
expect 0 'flashinfer: note: FLASHINFER_NUM_THREADS is "four"' list
[ "$(grep -c 'FLASHINFER_NUM_THREADS' "$work/out")" = 1 ] || complain 'a note is told more than once'
unset FLASHINFER_NUM_THREADS
export FLASHINFER_CACHEDIR=/tmp FLASHINFER_LOGLEVEL=3
expect 0 'flashinfer: note: FLASHINFER_CACHEDIR is not read; near it: FLASHINFER_CACHE_DIR' list
[ "$(grep -c 'flashinfer: note' "$work/out")" = 1 ] || complain 'a variable of others is taken for a misspelt one'
expect 0 'FLASHINFER_CACHEDIR *-' show-config
expect 0 'is not read; near it: FLASHINFER_CACHE_DIR' show-config
expect 0 'FLASHINFER_LOGLEVEL *-' show-config
unset FLASHINFER_CACHEDIR FLASHINFER_LOGLEVEL
FLASHINFER_NVRTC=/etc/passwd expect 3 '^flashinfer: NVRTC cannot be used: /etc/passwd' specs rmsnorm
[ "$(wc -l <"$work/out")" = 1 ] || complain 'one NVRTC that cannot be used is told more than once'

gpu=0
"$build/flashinfer" explain rmsnorm --device cuda >"$work/out" 2>&1 && gpu=1
if [ "$gpu" = 0 ]; then # what asks for a GPU does not pass without one
    for which in '--require cuda' '--device cuda'; do
        # shellcheck disable=SC2086
        expect 3 'no CUDA' check rmsnorm $which --problems 1
        # shellcheck disable=SC2086
        expect 3 'no CUDA' bench rmsnorm $which --shape odd
    done
    echo 'rmsnorm rows=1 hidden=64' >"$work/calls"
    expect 3 'calls:1: no CUDA' compile --from "$work/calls" --device cuda
fi

expect_json list
expect_json explain rmsnorm --device cpu
expect_json check rmsnorm --device cpu --problems 2
expect_json bench rmsnorm --device cpu --shape "$("$build/flashinfer" explain rmsnorm --device cpu |
    sed -n '/^Named shapes/{n;s/^ *\([^ ]*\).*/\1/p;}')"
expect_json show-config
expect_json version

# A signal that ends long work does not take what was found with it. SIGTERM, since a shell may have the others ignored.
interrupted() { # COMMAND: after so many seconds it has a row, however busy the machine is
    for seconds in 2 10 50; do
        got=0
        timeout -k 20 $seconds tools/with_nvrtc.sh "$build" "$build/flashinfer" "$1" --device cpu >"$work/out" 2>&1 || got=$?
        [ "$got" = 124 ] || return 1
        grep -q '^rmsnorm  *norm_cpu  *cpu ' "$work/out" && return 0
    done
    return 1
}
for command in bench check; do
    require "flashinfer $command: loses its rows to SIGTERM" interrupted $command
done

# A crash tells what repeats it, on whichever thread it happens.
mkdir "$work/tree" && cp -r device ops "$work/tree"
sed -i 's/^    float factor = a->scale/    *(volatile int *)16 = 0;\n&/' "$work/tree/ops/activation/gated_activation_cpu.c"
again='check silu_and_mul --kernel gated_activation_cpu --shape llama_8b_decode --device cpu'
# shellcheck disable=SC2086
for attempt in 1 2 3 4; do
    FLASHINFER_SOURCE_DIR=$work/tree expect 139 "crashed in: flashinfer $again" $again
done

# What could not be printed was not done.
if [ -c /dev/full ]; then
    flashinfer list >/dev/full 2>"$work/err" && complain "flashinfer list >/dev/full: succeeds"
fi
exit $status
