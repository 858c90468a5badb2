#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example as a person runs it: --help, what is refused and how, a second run that compiles nothing, text that a seed repeats
# and that does not depend on who else is in the batch.
#   usage: tests/generate/command_line.sh BUILD      (FLASHINFER_TEST_MODEL names the model)
set -eu
build=$1
model=$FLASHINFER_TEST_MODEL
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

generate() { tools/with_nvrtc.sh "$build" "$build/generate" "$@"; }

complain() { echo "$*"; exit 1; }

refused() { # WHAT-THE-SENTENCE-SAYS OPTION...
    sentence=$1
    shift
    status=0
    generate "$@" >"$work/out" 2>"$work/err" || status=$?
    [ "$status" = 2 ] || complain "generate $*: exit status $status, must be 2"
    grep -q -e "$sentence" "$work/err" || complain "generate $*: says '$(cat "$work/err")', must name '$sentence'"
    [ "$(grep -c . "$work/err")" -le 2 ] || complain "generate $*: says more than a sentence: $(cat "$work/err")"
}

generate --help | grep -q 'usage: generate' || complain '--help'
refused '--model is missing'
refused 'cannot' --model "$work/none.gguf"
refused "'3x'" --model "$model" --max-tokens 3x
refused '--top-p' --model "$model" --top-p 2
refused 'f16 or bf16' --model "$model" --dtype f32
refused 'without a name' --model "$model" stray
printf 'GGUX' >"$work/bad.gguf"
refused "$work/bad.gguf" --model "$work/bad.gguf"
head -c 1000000 "$model" >"$work/truncated.gguf"
refused "$work/truncated.gguf" --model "$work/truncated.gguf"
sed 's/llama\.block_count/llama.block_cOunt/' "$model" >"$work/nameless.gguf"
refused 'llama.block_count' --model "$work/nameless.gguf"
sed 's/\x14\x00\x00\x00\x00\x00\x00\x00general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00llama/\x14\x00\x00\x00\x00\x00\x00\x00general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00lllmm/' \
    "$model" >"$work/other.gguf"
refused "only 'llama'" --model "$work/other.gguf"

common="--device cpu --max-tokens 24 --seed 7 --temperature 0.8"
generate --model "$model" $common --prompt 'What is a lighthouse?' --prompt 'Count to five.' >"$work/first"
generate --model "$model" $common --prompt 'What is a lighthouse?' --prompt 'Count to five.' >"$work/second"
grep -q '^kernels  *0 compiled' "$work/second" || complain "the second run compiles: $(grep '^kernels' "$work/second")"
grep '^\[' "$work/first" >"$work/first_text"
grep '^\[' "$work/second" >"$work/second_text"
cmp "$work/first_text" "$work/second_text" || complain 'the same seed gives other text'
generate --model "$model" $common --prompt 'What is the capital of France?' --temperature 0 >"$work/paris"
grep -q 'Paris' "$work/paris" || complain "the capital of France: $(cat "$work/paris")"
