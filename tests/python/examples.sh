#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples in Python run; each compares what it gets with another computation of the same.
#   usage: tests/python/examples.sh BUILD
set -eu
make -s BUILD="$1" python
build=$(realpath "$1")
for example in examples/python/*.py; do
    echo "$example"
    PYTHONPATH=$build/python PYTHONDONTWRITEBYTECODE=1 tools/with_nvrtc.sh "$1" "$build/venv/bin/python" "$example"
done
