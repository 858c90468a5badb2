#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tests of the Python package, on the tree's own; with a GPU, by the python3 there whose torch sees it.
#   usage: tests/python/pytest.sh BUILD [cpu|all]
set -eu
make -s BUILD="$1" python
build=$(realpath "$1")
python=$build/venv/bin/python
[ "${2:-cpu}" = cpu ] ||
    ! python3 -c 'import pytest, torch, tvm_ffi; assert torch.cuda.is_available()' 2>/dev/null || python=python3
PYTHONPATH=$build/python PYTHONDONTWRITEBYTECODE=1 tools/with_nvrtc.sh "$1" "$python" -m pytest \
    -q -p no:cacheprovider tests/python
