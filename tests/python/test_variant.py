# SPDX-License-Identifier: Apache-2.0
"""Hooks given as source text."""

import copy
import pathlib
import pickle
import re

import pytest
import torch

import flashinfer_c as fi

ALIBI = """
    HOOK float logits(struct variant v, float s, struct at a)
    {
        return s - v.factor * v.slopes[a.qo_head] * (a.kv_len - a.qo_len + a.q - a.kv);
    }
"""


def attention(q, k, v, bias):
    k, v = (x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q.float(), k) * q.shape[-1] ** -0.5 + bias
    return torch.einsum("hqk,khd->qhd", logits.softmax(-1), v)


def test_hook_with_arguments(device):
    alibi = fi.Variant("test_alibi", "single_prefill_with_kv_cache", ALIBI, slopes=("float32", "num_qo_heads"), factor=float)
    q, k, v = (torch.randn(n, heads, 64, device=device).half() for n, heads in ((5, 4), (9, 2), (9, 2)))
    slopes = torch.rand(4, device=device)
    distance = 4 + torch.arange(5, device=device)[:, None] - torch.arange(9, device=device)
    expected = attention(q, k, v, -0.5 * slopes[:, None, None] * distance)
    out = alibi(out=torch.float16, q=q, k=k, v=v, slopes=slopes, factor=0.5)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)
    assert "slopes: [num_qo_heads], float32" in alibi.__doc__
    with pytest.raises(ValueError, match="test_alibi: slopes is NULL"):
        alibi(out=torch.float16, q=q, k=k, v=v, factor=0.5)
    with pytest.raises(TypeError, match=r"test_alibi\(\) got an unexpected argument 'slope'"):
        alibi(q=q, k=k, v=v, slope=slopes)
    for copied in copy.copy, copy.deepcopy, pickle.dumps:
        with pytest.raises(TypeError, match="cannot be copied"):
            copied(alibi)


@pytest.mark.parametrize("hook", ["query", "key", "logits", "output"])
def test_hooks_see_what_the_header_tells(device, hook):
    header = (pathlib.Path(fi.__file__).parent / "include/flashinfer/variant.h").read_text()
    fields = [name for line in re.findall(r"^ \*     int ([a-z_, ]+);", header, re.MULTILINE) for name in line.split(", ")]
    assert len(fields) == 9
    told = fi.Variant(f"test_told_{hook}", "single_prefill_with_kv_cache", f"""
        HOOK float {hook}(struct variant v, float x, struct at a)
        {{
            return {" + ".join("a." + name for name in fields)} < 0 ? 0.0f : x;
        }}
    """)
    q, k = torch.randn(5, 4, 64, device=device).half(), torch.randn(9, 2, 64, device=device).half()
    torch.testing.assert_close(told(out=torch.float16, q=q, k=k, v=k).float(), attention(q, k, k, 0.0), rtol=1e-2, atol=1e-2)


def test_refused():
    with pytest.raises(ValueError, match="base is \"rmsnrom\", which is no op"):
        fi.Variant("test_refused", "rmsnrom", ALIBI)
    with pytest.raises(ValueError, match="rmsnorm"):
        fi.Variant("rmsnorm", "batch_decode", ALIBI)
    with pytest.raises(ValueError, match="must be 'optional' or 'output'"):
        fi.Variant("test_refused", "batch_decode", ALIBI, slopes=("float32", "num_qo_heads", "maybe"))


def test_text_that_does_not_compile():
    broken = fi.Variant("test_broken", "single_prefill_with_kv_cache", ALIBI, slopes=("float32", "num_qo_heads"))
    q = torch.randn(5, 2, 64).half()
    with pytest.raises(RuntimeError, match="factor"):
        broken(out=torch.float16, q=q, k=q, v=q, slopes=torch.rand(2))
