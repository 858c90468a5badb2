#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The wheel: the same bytes twice, small, installed without a compiler into a venv of its own, where it works without torch; and
# pip install . gives the same package.
#   usage: tests/python/wheel.sh BUILD
set -eu
build=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "$*"; exit 1; }

wheel=$(python3 packaging/wheel.py "$build" "$work/one")
python3 packaging/wheel.py "$build" "$work/two" >/dev/null
cmp "$work/one/$wheel" "$work/two/$wheel"
bytes=$(stat -c %s "$work/one/$wheel")
[ "$bytes" -lt 10000000 ] || die "the wheel has $bytes bytes, 10000000 are allowed"

cat >"$work/test.py" <<'PYTHON'
import importlib.util
import sys

import numpy

import flashinfer_c

assert importlib.util.find_spec("torch") is None
x, w = numpy.random.randn(5, 64).astype("float32"), numpy.random.randn(64).astype("float32")
expected = x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w
numpy.testing.assert_allclose(flashinfer_c.rmsnorm(x, w), expected, rtol=1e-5, atol=1e-6)
numpy.testing.assert_allclose(flashinfer_c.ops.rmsnorm(input=x, weight=w), expected, rtol=1e-5, atol=1e-6)
assert flashinfer_c.upstream_version == "0.7.2"
flashinfer_c.install()
import flashinfer.norm
from flashinfer.quantization import packbits

assert flashinfer.norm.rmsnorm is flashinfer_c.rmsnorm and packbits(x[0] > 0).shape == (8,)
assert importlib.util.find_spec("flashinfer.comm") is None and not hasattr(flashinfer, "allreduce_fusion")
try:
    flashinfer_c.BatchDecodeWithPagedKVCacheWrapper
except AttributeError as error:
    assert "without torch" in str(error)
else:
    raise AssertionError("a wrapper without torch")
PYTHON

try() { # VENV WHAT ENVIRONMENT...: installs WHAT, tests it
    venv=$1 what=$2
    shift 2
    python3 -m venv "$venv"
    env "$@" "$venv/bin/python" -m pip install -q --disable-pip-version-check "$what" numpy
    [ ! -e "$venv/bin/flashinfer" ] || die "$what installs a script called flashinfer"
    (cd "$work" && "$venv/bin/python" test.py)
    [ "$("$venv/bin/python" -m flashinfer_c version)" = "$("$build/flashinfer" version)" ] ||
        die 'python -m flashinfer_c is another command'
}
try "$work/venv" "$work/one/$wheel" PATH="$work/venv/bin"
try "$work/source" . BUILD="$build"
diff -r -x '*.pyc' "$work"/venv/lib/python3*/site-packages/flashinfer_c "$work"/source/lib/python3*/site-packages/flashinfer_c
echo "$wheel: $bytes bytes"
