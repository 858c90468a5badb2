#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Logits of examples/generate against an independent float32 model, teacher-forced, in both dtypes and on every device.
#   usage: tests/generate/logits.sh BUILD cpu|all      (FLASHINFER_TEST_MODEL names the model)
set -eu
build=$1
devices=cpu
[ "${2:-cpu}" = all ] && devices='cpu cuda'
python=$build/venv/bin/python
[ -x "$python" ] || python=python3
for device in $devices; do
    for dtype in f16 bf16; do
        echo "$device $dtype"
        tools/with_nvrtc.sh "$build" "$build/generate" --model "$FLASHINFER_TEST_MODEL" --device "$device" --dtype "$dtype" \
            --prompt-ids tests/generate/prompts.ids --logits-out "$build/logits"
        "$python" tests/generate/reference_logits.py "$FLASHINFER_TEST_MODEL" "$build/logits" --dtype "$dtype"
    done
done
rm -f "$build/logits"
