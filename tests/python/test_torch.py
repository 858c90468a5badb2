# SPDX-License-Identifier: Apache-2.0
"""torch.compile, CUDA graphs, streams."""

import subprocess
import sys

import pytest
import torch

import flashinfer_c as fi
from flashinfer_c import _core

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def layer(x, residual, norm, gate_up, positions, cache):
    fi.fused_add_rmsnorm(x, residual, norm)
    y = fi.silu_and_mul(fi.mm_bf16(x, gate_up.T))
    q, k = fi.apply_rope_with_cos_sin_cache(positions, y, y, 64, cache)
    quantized = torch.empty_like(q, dtype=torch.float8_e4m3fn)
    fi.rmsnorm_quant(quantized, q, norm, 1 + cache[0, :1].double())
    return fi.rmsnorm(q, norm) + k * 2, fi.softmax(y.float(), 0.7), quantized.view(torch.uint8)


def arguments(device):
    cache = torch.rand(16, 64, device=device)
    return (torch.randn(5, 256, device=device).bfloat16(), torch.randn(5, 256, device=device).bfloat16(),
            torch.randn(256, device=device).bfloat16(), torch.randn(512, 256, device=device).bfloat16(),
            torch.arange(5, device=device), cache)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_whole(device, backend):
    args = arguments(device)
    first, second = [x.clone() for x in args], [x.clone() for x in args]
    expected = layer(*first)
    found = torch.compile(layer, backend=backend, fullgraph=True)(*second)
    for one, other in zip((*expected, *first), (*found, *second)):
        assert one.equal(other)


def test_custom_ops_know_what_they_write(device):
    """torch's own check of an op: schema, fake, functionalization."""
    x, w = torch.randn(3, 64, device=device), torch.randn(64, device=device)
    torch.library.opcheck(torch.ops.flashinfer_c.rmsnorm.default, (torch.empty_like(x), x, w, 1e-6, 0))
    y = torch.empty(3, 32, device=device, dtype=torch.float16)
    torch.library.opcheck(torch.ops.flashinfer_c.silu_and_mul.default, (y, x.half(), None, torch.tensor([2.0], device=device), 0))


def test_every_launcher_is_an_op_of_torch():
    for name in _core.op_names:
        _core.launcher(name)
        assert hasattr(torch.ops.flashinfer_c, name)


TRACED = """
import importlib.util
{0}
import flashinfer_c as fi, torch
{1}
step = lambda x, w: fi.rmsnorm(x, w) * 2
x, w = torch.randn(3, 64), torch.randn(64)
assert torch.compile(step, backend="eager", fullgraph=True)(x, w).equal(step(x, w))
"""


@pytest.mark.parametrize("before, after", [("import torch._dynamo", ""), ("", "importlib.util.find_spec('torch._dynamo')")])
def test_the_tracer_is_told_whenever_it_is_imported(before, after):
    subprocess.run([sys.executable, "-c", TRACED.format(before, after)], check=True)


def test_inference_mode_and_gradients(device):
    x, w = torch.randn(3, 64, device=device), torch.nn.Parameter(torch.randn(64, device=device))
    expected = fi.rmsnorm(x, w)
    with torch.inference_mode():
        assert fi.rmsnorm(x, w).equal(expected)
    with torch.no_grad():
        assert fi.rmsnorm(x, w).equal(expected)


@needs_gpu
def test_graph():
    args = arguments("cuda")
    kept = [x.clone() for x in args]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        layer(*[x.clone() for x in args])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = layer(*args)
    for seed in range(3):
        torch.manual_seed(seed)
        new = torch.randn_like(args[0])
        args[0].copy_(new)
        args[1].copy_(kept[1])
        graph.replay()
        expected = layer(new, kept[1].clone(), *kept[2:])
        torch.cuda.synchronize()
        for one, other in zip(found, expected):
            assert one.equal(other)


@needs_gpu
def test_streams():
    """A call is enqueued on torch's current stream: behind what is there, and not behind what is elsewhere."""
    x, w = torch.randn(4096, 4096, device="cuda"), torch.randn(4096, device="cuda")
    fi.rmsnorm(x, w)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.mul_(3)
        out = fi.rmsnorm(x, w, 1e-3)
    assert not side.query()
    side.synchronize()
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (4096,), w, 1e-3), rtol=1e-4, atol=1e-4)
