# SPDX-License-Identifier: Apache-2.0
"""A value that is no array where one must be: every public function and every method of the wrappers says so by a TypeError that
names the argument. An array without axes where there must be some is a ValueError.
"""

import functools
import importlib
import inspect
import sys

import numpy
import pytest
import test_functions  # noqa: F401  its cases
import torch

import flashinfer_c
from cases import CASES
from flashinfer_c import _api

WRONG = {"int": 3, "str": "text", "list": [1.0], "object": object()}
WORKSPACE = torch.empty(4096, dtype=torch.uint8)
TABLE = [torch.zeros(2, dtype=torch.int32)] * 2 + [torch.zeros(1, dtype=torch.int32)]
MADE_OF = {"BatchAttention": ("NHD", "cpu"), "MultiLevelCascadeAttentionWrapper": (1, WORKSPACE),
           "CUDAGraphBatchDecodeWithPagedKVCacheWrapper": (WORKSPACE, *TABLE)}  # others: of a workspace
PLANNED_FAST = flashinfer_c.BatchDecodeWithPagedKVCacheWrapper(WORKSPACE)
LATER = {("BatchPrefillWithSharedPrefixPagedKVCacheWrapper", "begin_forward")}  # keeps its arguments for forward()


def find(name):
    module, _, name = name.rpartition(".")
    return getattr(importlib.import_module("flashinfer_c." + module), name)


def arrays(function):
    """The parameters that must be arrays, whether they may be left out, and values that they must not be."""
    for name, parameter in inspect.signature(function).parameters.items():
        kinds = function.__annotations__.get(name, "").split(" | ")
        if "Tensor" in "".join(kinds):
            yield name, "None" in kinds, \
                [value for kind, value in WRONG.items() if not (kind == "int" and {"int", "float"} & set(kinds))]


def refuses(call, function, name, value, *args, **keywords):
    with pytest.raises(TypeError, match=rf"\b{function}: {name} is .*must be"):
        call(*args, **keywords | {name: value})


def call_with_nothing_right(call, function, shown):
    """With an object in place of every argument that must be given."""
    required = [p.name for p in inspect.signature(function).parameters.values()
                if p.name != "self" and p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
    needed = [name for name, _, _ in arrays(function) if name in required]
    assert needed or not {"q", "indptr", "float_workspace_buffer"} & set(required)
    if needed:
        refuses(call, shown, needed[0], object(), **dict.fromkeys(required, object()))


def first_call(name, monkeypatch):
    """The arguments by name of the first call of a function that its case makes."""
    function = find(name)

    class Enough(Exception):
        pass

    def record(*args, **keywords):
        raise Enough(inspect.signature(function).bind(*args, **keywords).arguments)

    for place in [module for path, module in sys.modules.items() if path.startswith("flashinfer_c")]:
        if getattr(place, function.__name__, None) is function:
            monkeypatch.setattr(place, function.__name__, record)
    with pytest.raises(Enough) as found:
        CASES[name]("cpu")
    return found.value.args[0]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_function_names_what_is_no_array(name, monkeypatch):
    function, arguments = find(name), first_call(name, monkeypatch)
    monkeypatch.undo()
    for parameter, optional, values in arrays(function):
        for value in values:
            try:
                refuses(function, function.__name__, parameter, value, **arguments)
            except (NotImplementedError, pytest.fail.Exception) as error:
                # What may be left out need not be looked at, and may be of a mode that is not served.
                assert optional, f"{name}: {parameter} = {value!r}: {error}"


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_function_names_what_has_no_axes(name, monkeypatch):
    function, arguments = find(name), first_call(name, monkeypatch)
    monkeypatch.undo()
    for parameter, _, _ in arrays(function):
        value = arguments.get(parameter)
        if torch.is_tensor(value) and value.dim() > 0:
            try:
                function(**arguments | {parameter: value.flatten()[0]})
            except (ValueError, NotImplementedError) as error:
                assert "to unpack" not in str(error)


def test_functions_without_a_case_name_what_is_no_array():
    for name in set(_api.PUBLIC) - set(CASES):
        function = find(name)
        if not inspect.isclass(function):
            call = functools.partial(function, PLANNED_FAST) if function is flashinfer_c.fast_decode_plan else function
            call_with_nothing_right(call, function, function.__name__)


@pytest.mark.parametrize("name", [name for name in _api.PUBLIC if inspect.isclass(find(name))])
def test_methods_name_what_is_no_array(name):
    cls = find(name)
    call_with_nothing_right(cls, cls.__init__, f"{cls.__name__}.__init__")
    wrapper = cls(*MADE_OF.get(cls.__name__, (WORKSPACE,)))
    for method in dir(cls):
        function = inspect.getattr_static(cls, method)
        if isinstance(function, functools.partialmethod):
            function = function.func
        if not method.startswith("_") and inspect.isfunction(function) and (cls.__name__, method) not in LATER:
            call_with_nothing_right(getattr(wrapper, method), function, f"{cls.__name__}.{function.__name__}")


@pytest.mark.parametrize("arguments, error, sentence", [
    ({"input": 3}, TypeError, "rmsnorm: input is of type int, must be an array"),
    ({"input": None}, TypeError, "rmsnorm: input must be given"),
    ({"input": torch.tensor(1.0)}, ValueError, r"rmsnorm: input has shape \[\], must be \[\.\.\., hidden\]"),
    ({"out": 3}, ValueError, "rmsnorm: out: 3 is no dtype"),
    ({"device": "cpu"}, TypeError, "rmsnorm: device is 'cpu', must be a pair"),
])
def test_ops_name_what_is_wrong(arguments, error, sentence):
    x = torch.ones(2, 8)
    right = {"input": x, "weight": None if arguments.get("input", x) is None else x[0]}
    with pytest.raises(error, match=sentence):
        flashinfer_c.ops.rmsnorm(**right | arguments)


@pytest.mark.parametrize("name, wrong, error, sentence", [
    ("page.get_batch_indices_positions", {"nnz": -1}, ValueError, "nnz is -1, must be at least 0"),
    ("page.get_batch_indices_positions", {"nnz": 1.5}, TypeError, "nnz is of type float, must be an int"),
    ("page.get_batch_indices_positions", {"nnz": None}, TypeError, "nnz is of type NoneType, must be an int"),
    ("norm.fused_qk_rmsnorm_rope", {"num_heads_q": -1}, ValueError, "num_heads_q is -1, must be at least 1"),
    ("norm.rmsnorm_fp4quant", {"block_size": 0}, ValueError, "block_size is 0, must be at least 16"),
    ("norm.add_rmsnorm_fp4quant", {"output_both_sf_layouts": "x"}, TypeError,
     "output_both_sf_layouts is of type str, must be a bool"),
    ("quantization.fp8_quantization.per_token_group_quant_8bit", {"group_size": "x"}, TypeError, "group_size is of type str"),
    ("quantization.fp4_quantization.mxfp4_dequantize_host", {"scale": torch.ones(2, 5, dtype=torch.uint8)}, ValueError,
     r"scale has shape \[2, 5\], must be \[5, 2\]"),
    ("quantization.fp4_quantization.e2m1_and_ufp8sf_scale_to_float", {
        "e2m1_tensor": torch.ones(128, 8, dtype=torch.int32), "ufp8_scale_tensor": torch.ones(128, 4, dtype=torch.int32)},
     ValueError, "e2m1_tensor is torch.int32, must have elements of one byte"),
    ("quantization.fp4_quantization.mxfp4_dequantize", {"a_fp4": torch.ones((), dtype=torch.uint8)}, ValueError,
     r"a_fp4 has shape \[\], must be \[..., columns//2\]"),
    ("gdn_prefill.chunk_gated_delta_rule", {"cu_seqlens": torch.ones(0, dtype=torch.int64)}, ValueError,
     r"cu_seqlens has shape \[0\]"),
])
def test_a_function_names_what_gives_no_output_a_shape(name, wrong, error, sentence, monkeypatch):
    arguments = first_call(name, monkeypatch)
    monkeypatch.undo()
    with pytest.raises(error, match=sentence):
        find(name)(**arguments | wrong)


def test_functions_name_what_has_no_memory():
    x, w = torch.ones(2, 8), torch.ones(8)
    read_only = numpy.ones((2, 8), "float32")
    read_only.setflags(write=False)
    variant = flashinfer_c.Variant("same", "single_decode_with_kv_cache",
                                   "HOOK float logits(struct variant v, float s, struct at a) { return s; }")
    for call, named in (
        (lambda: flashinfer_c.rmsnorm(x.to("meta"), w), "rmsnorm: input"),
        (lambda: flashinfer_c.rmsnorm(x, w.to("meta")), "rmsnorm: weight"),
        (lambda: flashinfer_c.rmsnorm(x, w, out=x.to("meta")), "rmsnorm: out"),
        (lambda: flashinfer_c.ops.rmsnorm(input=x.to_sparse(), weight=w), "rmsnorm: input"),
        (lambda: flashinfer_c.rmsnorm(read_only, numpy.ones(8, "float32")), "rmsnorm: input"),
        (lambda: torch.vmap(lambda row: flashinfer_c.rmsnorm(row, w))(x[None]), "rmsnorm: input"),
        (lambda: variant(q=x, k=x[None].to("meta"), v=x[None]), "same: k"),
    ):
        with pytest.raises(ValueError, match=rf"^{named} cannot be shared by DLPack: [^\n]*$"):
            call()


def test_generators_and_indices_are_named():
    for probs, wanted in (torch.rand(2, 8), "torch.Generator"), (numpy.ones((2, 8), "float32"), "numpy.random.Generator"):
        with pytest.raises(TypeError, match=f"^generator is of type int, must be a {wanted}$"):
            flashinfer_c.sampling.sampling_from_probs(probs, generator=3)
    wrapper = flashinfer_c.BatchDecodeWithPagedKVCacheWrapper(WORKSPACE)
    with pytest.raises(TypeError, match="^paged_kv_indptr is torch.float32, must be int32$"):
        wrapper.plan(TABLE[0].float(), *TABLE[1:], 2, 1, 64, 16)
    with pytest.raises(ValueError, match="plan: indices has no axes$"):
        wrapper.plan(TABLE[0], TABLE[1][0], TABLE[2], 2, 1, 64, 16)
    with pytest.raises(ValueError, match="^kv_indptr has 2 entries and kv_len_arr 2; it needs one more$"):
        flashinfer_c.BatchAttention(device="cpu").plan(*TABLE[:1] * 2, TABLE[1], TABLE[0], 2, 1, 64, 64, 16)
    with pytest.raises(TypeError, match="BlockSparseAttentionWrapper.plan: R is of type str, must be an int$"):
        flashinfer_c.BlockSparseAttentionWrapper(WORKSPACE).plan(*TABLE[:2], 16, 16, "x", 16, 2, 1, 64)


@pytest.mark.parametrize("layout, error", [("ABC", ValueError), (9, ValueError), ([], TypeError)])
def test_ops_name_a_wrong_enum(layout, error):
    x = torch.ones(4, 2, 64, dtype=torch.float16)
    with pytest.raises(error, match="single_decode_with_kv_cache: kv_layout is "):
        flashinfer_c.ops.single_decode_with_kv_cache(q=x[0], k=x, v=x, kv_layout=layout)


def test_variants_name_what_is_wrong():
    for arguments in (3, "batch_decode", ""), ("v", 3, ""), ("v", "batch_decode", 3):
        with pytest.raises(TypeError, match="Variant: .* is of type int, must be a string"):
            flashinfer_c.Variant(*arguments)
    with pytest.raises(TypeError, match="slopes is declared as 3"):
        flashinfer_c.Variant("v", "batch_decode", "", slopes=3)
