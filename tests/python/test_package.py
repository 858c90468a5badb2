# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: what it exports, how it documents itself, arrays that are not torch's, install()."""

import copy
import inspect
import pickle
import signal
import subprocess
import sys
import typing

import numpy
import pytest
import torch

import flashinfer_c as fi
from flashinfer_c import _api, _arguments, _core


def public():
    for name in _api.PUBLIC:
        module, _, function = name.rpartition(".")
        found = getattr(sys.modules[f"flashinfer_c.{module}"], function)
        if not inspect.isclass(found) and name not in ("decode.fast_decode_plan", "sparse.convert_bsr_mask_layout"):
            yield name, found  # the arguments of the others are no op's: they stand in the docstring


def test_every_op_is_reached():
    """By a function under upstream's name, or by a wrapper; and under its own in ops."""
    for name in _core.op_names:
        assert callable(getattr(fi.ops, name))
    assert set(dir(fi.ops)) == set(_core.op_names)
    with pytest.raises(AttributeError):
        fi.ops.no_such_op


@pytest.mark.parametrize("name, function", list(public()))
def test_documentation(name, function):
    """help() tells each argument, and each has something said of it."""
    lines = [line.strip() for line in function.__doc__.splitlines()]
    arguments = lines[lines.index("Arguments:") + 1:]
    for parameter in inspect.signature(function).parameters:
        assert any(line.startswith(f"{parameter}: ") for line in arguments), f"{name}: nothing is said of {parameter}"
    assert "Returns" in function.__doc__ and _api.PUBLIC[name]
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        hinted = parameter.name in hints or parameter.name == "self"
        assert hinted or parameter.default is None, f"{name}: {parameter.name} has no type hint"


def test_hints_of_methods():
    plan = typing.get_type_hints(fi.BatchDecodeWithPagedKVCacheWrapper.plan)
    assert plan["num_qo_heads"] is int and plan["sm_scale"] == float | None and plan["non_blocking"] is bool
    assert typing.get_type_hints(fi.BatchPrefillWithRaggedKVCacheWrapper.run)["out"] == _arguments.Tensor | None


def test_help_of_ops():
    text = fi.ops.append_paged_kv_cache.__doc__
    assert "k_cache: NHD: [pages, page_size, num_kv_heads, head_dim]; HND: [pages, num_kv_heads, page_size, head_dim]" in text
    assert inspect.signature(fi.ops.rmsnorm).parameters["input"].default is inspect.Parameter.empty


def test_help_says_what_arguments_mean():
    """Every op and nearly every argument is found in the headers, and what they say is told once, in terms of Python."""
    from flashinfer_c import _headers

    silent = []
    for name in _core.op_names:
        declared = _core.op(name)
        fields = _headers._structs()[name][1]
        silent += [f"{name}.{a.name}" for a in declared.arguments if not fields.get(a.name)]
        assert not any("NULL" in _headers.meaning(name, a) for a in declared.arguments), name
    assert len(silent) < 20, silent
    lines = fi.chunk_gated_delta_rule.__doc__.splitlines()
    g, = (line for line in lines if line.strip().startswith("g: "))
    assert "alpha, 0 to 1, not its logarithm" in g and "None: 1" in g and g.count("float32") == 1
    assert "    scale: a number, at least 0; None: 1 / sqrt(head_dim)" in lines
    assert any(line.startswith("    checkpoint_every_n_tokens: ") and "; 0: no checkpoints" in line for line in lines)
    assert "    eps: a number, at least 1e-30, default 1e-06" in fi.rmsnorm.__doc__.splitlines()


def test_versions():
    assert fi.__version__ == _core.version and fi.upstream_version == "0.7.2"


def test_what_does_not_exist_is_absent():
    for name in "allreduce_fusion", "cutlass_fused_moe", "trtllm_fp4_block_scale_moe":
        assert not hasattr(fi, name)


def numpy_pair():
    rng = numpy.random.default_rng(1)
    return rng.standard_normal((5, 128), dtype="float32"), rng.standard_normal(128, dtype="float32")


def test_numpy():
    x, w = numpy_pair()
    for found, expected in (
        (fi.rmsnorm(x, w), fi.rmsnorm(torch.from_numpy(x), torch.from_numpy(w))),
        (fi.softmax(x), torch.from_numpy(x).softmax(-1)),
        (fi.silu_and_mul(x.astype("float16")), fi.silu_and_mul(torch.from_numpy(x).half())),
        (fi.ops.rmsnorm(input=x, weight=w), fi.rmsnorm(torch.from_numpy(x), torch.from_numpy(w))),
        (fi.fp4_quantize(x.astype("float16"))[0], fi.fp4_quantize(torch.from_numpy(x).half())[0]),
        (fi.packbits(x[0] > 0), torch.from_numpy(numpy.packbits(x[0] > 0))),
        (fi.get_seq_lens(numpy.array([0, 2], "int32"), numpy.array([3], "int32"), 16), torch.tensor([19])),
    ):
        assert isinstance(found, numpy.ndarray)
        numpy.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    probs = numpy.full((50, 4), 0.25, "float32")
    drawn = fi.top_k_top_p_sampling_from_probs(probs, 2, 0.9, generator=numpy.random.default_rng(5))
    again = fi.top_k_top_p_sampling_from_probs(probs, 2, 0.9, generator=numpy.random.default_rng(5))
    assert drawn.dtype == numpy.int32 and (drawn == again).all() and drawn.max() < 4


@pytest.mark.parametrize("framework", ["cupy", "jax.numpy"])
def test_arrays_of_other_frameworks(framework):
    """Come and go as they are; on a GPU, in order with the framework's own work before and after."""
    xp = pytest.importorskip(framework)
    try:
        x, w = (xp.asarray(array) for array in numpy_pair())
    except Exception as error:  # CuPy's own, on a machine without a GPU
        pytest.skip(f"{framework}: {error}")
    host = numpy.asarray if framework == "jax.numpy" else xp.asnumpy
    expected = fi.rmsnorm(*numpy_pair())
    for found in fi.rmsnorm(x, w), fi.ops.rmsnorm(input=x, weight=w), fi.rmsnorm(x * 2, w, 4e-6) + 0:
        assert isinstance(found, type(x))
        numpy.testing.assert_allclose(host(found), expected, rtol=1e-5, atol=1e-5)
    drawn = fi.top_k_sampling_from_probs(fi.softmax(x), 3, seed=1, offset=0)
    numpy.testing.assert_array_equal(host(drawn), fi.top_k_sampling_from_probs(fi.softmax(numpy_pair()[0]), 3, seed=1, offset=0))


def test_what_jax_would_copy_is_not_written():
    jnp = pytest.importorskip("jax.numpy")
    table = [jnp.asarray(indices, dtype="int32") for indices in ([3], [0, 1], [1])]
    key, token = jnp.ones((1, 2, 64)), jnp.zeros(1, dtype="int32")
    pair = jnp.zeros((4, 16, 2, 64)), jnp.zeros((4, 16, 2, 64))
    fi.append_paged_kv_cache(key, key, token, token, pair, *table)
    assert pair[0][3, 0].min() == pair[1].max() == 1
    for cache in jnp.stack(pair, 1), (pair[0][:, 0], pair[1][:, 0]):
        with pytest.raises(ValueError, match="a cache of JAX must be a pair"):
            fi.append_paged_kv_cache(key, key, token, token, cache, *table)


def test_cupys_current_stream():
    cupy = pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    x, w = cupy.random.standard_normal((4096, 4096), dtype="float32"), cupy.ones(4096, "float32")
    expected = cupy.asnumpy(fi.rmsnorm(x, w))
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True):
        for _ in range(20):
            slow = x @ x
        y = cupy.zeros_like(x)
        fi.rmsnorm(x + 0 * slow, w, out=y)
        found = cupy.asnumpy(y + 0)
    numpy.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_plan_is_bytes():
    plan = fi.ops.batch_decode_plan(max_batch_size=4, num_qo_heads=8, num_kv_heads=2, head_dim=64, page_size=16, sm_scale=0.5,
                                    q_data_type="float16", device=(1, 0))
    assert plan.workspace_size >= 0
    for copied in pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), copy.copy(plan):
        assert bytes(copied._bytes) == bytes(plan._bytes) and copied.pointer.value != plan.pointer.value


def test_call_allocates_and_refuses():
    x, w = numpy_pair()
    codes, scales = fi.ops.nvfp4_quantize(a=x.astype("float16"), out="uint8", out_scale="uint8", sf_layout="SCALES_LINEAR")
    assert codes.shape == (5, 64) and scales.shape == (5, 8)
    with pytest.raises(TypeError, match="unexpected argument 'weigth'; it takes out, input, weight, eps"):
        fi.ops.rmsnorm(input=x, weigth=w)
    with pytest.raises(TypeError, match="input must be given"):
        fi.ops.rmsnorm(input=None)
    with pytest.raises(TypeError, match="y must be given: nothing tells"):
        fi.ops.segment_packbits(x=numpy.zeros(9, "uint8"), indptr=numpy.array([0, 9], "int32"))
    with pytest.raises(TypeError, match="^batch_decode: out must be given: nothing tells its dtype$"):
        fi.ops.batch_decode(q=x[None], k_cache=x[None, None], v_cache=x[None, None])
    with pytest.raises(ValueError, match="no dtype that this library knows"):
        fi.ops.rmsnorm(out="float17", input=x, weight=w)


@pytest.mark.parametrize("call, words", [
    (lambda x, w: fi.rmsnorm(3, w), "rmsnorm: input is of type int, must be an array"),
    (lambda x, w: fi.rmsnorm(None, w), "rmsnorm: input is of type NoneType, must be an array"),
    (lambda x, w: fi.rmsnorm(3, w, out=x), "rmsnorm: input is an int, must be a tensor"),
    (lambda x, w: fi.rmsnorm(x, 3), "rmsnorm: weight is an int, must be a tensor"),
    (lambda x, w: fi.layernorm([1.0], w, w), "layernorm: input is of type list, must be an array"),
    (lambda x, w: fi.silu_and_mul("x"), "silu_and_mul: input is of type str, must be an array"),
    (lambda x, w: fi.apply_rope_pos_ids(x, 3, w), "apply_rope_pos_ids: k is of type int, must be an array"),
    (lambda x, w: fi.softmax(3), "softmax: logits is of type int, must be an array"),
])
def test_what_is_no_array_is_named(call, words):
    with pytest.raises(TypeError, match=words):
        call(*numpy_pair())


@pytest.mark.parametrize("name, expected", [("torch.float16", "float16"), ("half", "float16"), ("e4m3", "float8_e4m3fn"),
                                            ("bool", "bool")])
def test_dtype_names(name, expected):
    assert _core.dtype_name(name) == expected
    if hasattr(torch, expected):
        assert _core.dtype_name(getattr(torch, expected)) == expected
    if hasattr(numpy, expected) and expected != "bool":
        assert _core.dtype_name(getattr(numpy, expected)) == expected == _core.dtype_name(numpy.dtype(expected))


INSTALL = """
import sys
import flashinfer_c
flashinfer_c.install()
flashinfer_c.install()
import flashinfer
import flashinfer.norm
from flashinfer.quantization.fp4_quantization import SfLayout
assert flashinfer is flashinfer_c and flashinfer.norm.rmsnorm is flashinfer_c.rmsnorm and SfLayout is flashinfer_c.SfLayout
import importlib.util
assert importlib.util.find_spec("flashinfer.comm") is None and importlib.util.find_spec("flashinfer.norm") is not None
try:
    from flashinfer.norm import no_such_function
except ImportError:
    print("fine")
"""


def test_install():
    assert subprocess.run([sys.executable, "-c", INSTALL], check=True, capture_output=True, text=True).stdout == "fine\n"
    other = "import sys, flashinfer_c; sys.modules['flashinfer'] = sys; flashinfer_c.install()"
    refused = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert refused.returncode and "flashinfer is imported already" in refused.stderr


def test_command_ends_in_silence_where_its_reader_does():
    command = subprocess.Popen([sys.executable, "-m", "flashinfer_c", "help", "--man"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == -signal.SIGPIPE
