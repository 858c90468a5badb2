# SPDX-License-Identifier: Apache-2.0
"""__tvm_ffi_<op>, called as any user of TVM-FFI would."""

import concurrent.futures
import ctypes
import random
import sys

import numpy
import pytest
import torch
import tvm_ffi

from flashinfer_c import _core

module = tvm_ffi.load_module(_core.LIBRARY)


def tensors(device):
    x, w = torch.randn(3, 64, device=device), torch.randn(64, device=device)
    return torch.empty_like(x), x, w


def expected(x, w, eps=1e-6):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w


def test_every_op_has_an_entry():
    assert len(_core.op_names) > 70
    for name in _core.op_names:
        module.get_function(name)


def test_call(device):
    y, x, w = tensors(device)
    assert module.rmsnorm(y, x, w, 1e-6) is None
    torch.testing.assert_close(y, expected(x, w))
    module.rmsnorm(y, x, w, 1)  # an int where a number is wanted
    torch.testing.assert_close(y, expected(x, w, 1))
    for absent in ((None,), ()):
        module.rmsnorm(y, x, w, *absent)
        torch.testing.assert_close(y, expected(x, w))


def test_parameters_and_strided_views(device):
    y, x, w = tensors(device)
    wide = torch.randn(3, 128, device=device)[:, ::1][:, :64]
    module.rmsnorm(y, wide, torch.nn.Parameter(w))
    torch.testing.assert_close(y, expected(wide, w))


def test_numpy():
    x, w = numpy.random.randn(3, 64).astype("float32"), numpy.random.randn(64).astype("float32")
    y = numpy.empty_like(x)
    module.rmsnorm(y, x, w)
    numpy.testing.assert_allclose(y, expected(torch.from_numpy(x), torch.from_numpy(w)).numpy(), rtol=1e-5, atol=1e-6)


def test_numbers_as_tensors(device):
    x = torch.randn(3, 128, device=device).half()
    outs = [torch.empty(3, 64, device=device, dtype=torch.float8_e4m3fn) for _ in range(2)]
    module.silu_and_mul(outs[0], x, 3.0)
    module.silu_and_mul(outs[1], x, torch.tensor([3.0], device=device))
    assert outs[0].view(torch.uint8).equal(outs[1].view(torch.uint8))


def test_enums(device):
    x = torch.randint(0, 2, (20,), device=device, dtype=torch.uint8)
    outs = [torch.empty(3, device=device, dtype=torch.uint8) for _ in range(3)]
    for out, order in zip(outs, (1, "LITTLE", "little")):
        module.packbits(out, x, order)
    assert outs[0].equal(outs[1]) and outs[0].equal(outs[2])
    with pytest.raises(ValueError, match='bitorder is "middle", must be one of: BIG LITTLE'):
        module.packbits(outs[0], x, "middle")
    with pytest.raises(ValueError, match="bitorder"):
        module.packbits(outs[0], x, 2**40)


def plan(*options, **given):
    declared = _core.op("batch_decode_plan")
    given = {"max_batch_size": 4, "num_qo_heads": 8, "num_kv_heads": 2, "head_dim": 64, "page_size": 16, "sm_scale": 0.5} | given
    module.batch_decode_plan(*(given.get(a.name) for a in declared.arguments), *options)


def test_plans():
    cpu = 0, None, None, None, tvm_ffi.device("cpu")
    by_tensor, by_pointer = torch.zeros(1024, dtype=torch.uint8), ctypes.create_string_buffer(1024 + 8)
    address = (ctypes.addressof(by_pointer) + 7) // 8 * 8
    for dtype in torch.float16, "f16":
        plan(*cpu, plan=by_tensor, q_data_type=dtype)
        plan(*cpu, plan=ctypes.c_void_p(address), q_data_type=dtype)
        assert bytes(by_tensor.numpy()) == ctypes.string_at(address, 1024) != bytes(1024)
    for wrong, error, words in ((torch.zeros(1023, dtype=torch.uint8), ValueError, "1024 dense bytes"),
                                (5, TypeError, "must be a pointer"),
                                (ctypes.c_void_p(address + 1), ValueError, "multiple of 8")):
        with pytest.raises(error, match=words):
            plan(*cpu, plan=wrong)
    with pytest.raises(ValueError, match="no dtype"):
        plan(*cpu, plan=by_tensor, q_data_type="f17")


def test_options():
    y, x, w = tensors("cpu")
    module.rmsnorm(y, x, w, None, 0, None, "norm_cpu", 1, tvm_ffi.device("cpu"))
    torch.testing.assert_close(y, expected(x, w))
    with pytest.raises(ValueError, match='exec.kernel is "nope"'):
        module.rmsnorm(y, x, w, None, 0, None, "nope")
    with pytest.raises(ValueError, match="4 arguments and 5 options, 10 were given"):
        module.rmsnorm(y, x, w, *[None] * 7)
    for position in range(5):
        with pytest.raises(TypeError, match="must be"):
            module.rmsnorm(y, x, w, None, *[None] * position, 0.5)


@pytest.mark.parametrize("args, error, words", [
    (lambda y, x, w: (y, x), ValueError, "rmsnorm: weight is NULL, must be given"),
    (lambda y, x, w: (y, x, w.half()), ValueError, "rmsnorm: weight is f16, must be f32 as input"),
    (lambda y, x, w: (y, x, w[1:]), ValueError, "weight"),
    (lambda y, x, w: (y, x, "w"), TypeError, "rmsnorm: weight is a string, must be a tensor"),
    (lambda y, x, w: (y, x, w, "eps"), TypeError, "rmsnorm: eps is a string, must be a number"),
    (lambda y, x, w: (y, x, w, 0.0), ValueError, "rmsnorm: eps is 0"),
    (lambda y, x, w: (y, x, w, w[:1]), TypeError, "rmsnorm: eps is a tensor, must be a number"),
    (lambda y, x, w: (y, x.t().contiguous().t(), w), ValueError, "input"),
])
def test_refused(args, error, words):
    y, x, w = tensors("cpu")
    y.fill_(7)
    with pytest.raises(error, match=words):
        module.rmsnorm(*args(y, x, w))
    assert (y == 7).all()


def test_integers_are_not_rounded():
    out, probs = torch.empty(2, dtype=torch.int32), torch.tensor([[0.5, 0.5]] * 2)
    with pytest.raises(TypeError, match="seed is a float, must be an int"):
        module.sampling_from_probs(out, None, probs, None, 1, None, 1.5)
    with pytest.raises(ValueError, match="does not fit into 32 bits"):
        plan(plan=torch.zeros(1024, dtype=torch.uint8), max_batch_size=2**33)


def test_not_served():
    out, probs = torch.empty(2, dtype=torch.int32), torch.tensor([[0.5, 0.5]] * 2)
    with pytest.raises(NotImplementedError, match="check_nan would have to wait"):
        module.sampling_from_probs(out, None, probs, None, 1, 1)


def alike(device):
    """Calls of rmsnorm on the same memory, each like another but for one thing: arguments, and what they read and write."""
    memory = [torch.zeros(3, 256, device=device) for _ in range(3)]
    for dtype in torch.float32, torch.float16, torch.bfloat16:
        y, x, w = (m.view(dtype).as_strided((3, 64), (64, 1)) for m in memory)
        w = w[0]
        wide = x.as_strided((3, 64), (128, 1))
        yield from (((y, x, w, *eps), y, x, w, eps) for eps in ((), (1e-2,), (1e-1,), (1,), (True,), (None, 2), (1e-2, 2)))
        yield (y[:2], x[:2], w), y[:2], x[:2], w, ()
        yield (y[:2, :32], x[:2, :32], w[:32]), y[:2, :32], x[:2, :32], w[:32], ()
        yield (y[0], x[0], w), y[0], x[0], w, ()
        yield (y, wide, w), y, wide, w, ()
        yield (y.unsqueeze(0), x.unsqueeze(0), w), y, x, w, ()
        yield (x, x, w), x, x, w, ()


def test_calls_made_again(device):
    """Whatever was called before, and how often, a call does what it says; what is refused is refused each time."""
    random_, calls, function = random.Random(1), list(alike(device)), (module.rmsnorm, _core.op("rmsnorm").function)
    for step in range(12 * len(calls)):
        args, y, x, w, eps = random_.choice(calls)
        for tensor in y, x, w:
            tensor.copy_(torch.randn(tensor.shape, device=device))
        want = expected(x.float(), w.float(), float(eps[0]) if eps and eps[0] is not None else 1e-6)
        function[step % 2](*args)
        torch.testing.assert_close(y.float(), want, rtol=1e-2, atol=1e-2)
        for wrong in (args[0], args[1], args[2][1:]), (args[0], args[1].to(torch.float64), args[2]), (*args[:3], -1.0):
            with pytest.raises(ValueError):
                function[step % 2](*wrong)


def test_workspace_is_allocated(device):
    """packbits of segments divides the work with a table in workspace, on GPUs."""
    x = torch.ones(5000, device=device, dtype=torch.bool)
    indptr = torch.arange(0, 5001, 50, device=device, dtype=torch.int32)
    y, new = torch.empty(700, device=device, dtype=torch.uint8), torch.empty(101, device=device, dtype=torch.int32)
    module.segment_packbits(y, new, x, indptr, "LITTLE")
    assert new.tolist() == list(range(0, 701, 7)) and y.view(100, 7)[:, :6].eq(255).all() and y.view(100, 7)[:, 6].eq(3).all()


def test_threads(device):
    """Calls release Python's lock: threads run at once, each with its own errors."""
    def work(width):
        x, w = torch.randn(50, width, device=device), torch.randn(width, device=device)
        for _ in range(100):
            y = torch.empty_like(x)
            module.rmsnorm(y, x, w)
            torch.testing.assert_close(y, expected(x, w))
            with pytest.raises(ValueError, match=f"hidden = {width}"):
                module.rmsnorm(y, x, torch.empty(width + 1, device=device))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64, 80)))


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("odd", [
    lambda x: x, torch.nn.Parameter, lambda x: x.as_subclass(Subclass), lambda x: x.numpy(), lambda x: x.to("meta"),
    lambda x: x.to_sparse(), lambda x: x.to_sparse_csr(), lambda x: x.to(torch.cfloat), lambda x: [1.0], lambda x: 2**70,
    lambda x: "a\0b", lambda x: "\ud800", lambda x: 1j, lambda x: torch.float32,
], ids=range(14))
def test_the_direct_way_is_the_same(odd):
    """The library's own function of CPython does what TVM-FFI's does, to which it leaves whatever is not quite torch's tensor; an
    error of torch's is told with the argument's name."""
    direct, ffi = _core.op("rmsnorm").function, module.rmsnorm
    assert type(direct) is type(print) and direct.__name__ == "rmsnorm" and type(ffi) is not type(print)
    found = []
    for function in direct, ffi:
        y, x, w = tensors("cpu")
        x, w = x.fill_(3).index_fill_(0, torch.tensor([1]), 0.5), w.fill_(2)
        y.fill_(7)
        try:
            function(y, odd(x), w, 1e-3)
            found.append(y.tolist())
        except Exception as error:
            found.append((type(error), str(error).partition("\n")[0]))
    if found[1][0] is RuntimeError:
        found[1] = ValueError, f"rmsnorm: input cannot be shared by DLPack: {found[1][1]}"
    assert found[0] == found[1]


def test_the_direct_way_keeps_no_references():
    direct, (y, x, w) = _core.op("rmsnorm").function, tensors("cpu")
    argument_lists = (y, x, w, 1e-3), (y, x, w.half()), (y, x.numpy(), w), (y, x, "weight")
    counted = y, x, w, direct, argument_lists[1][2], argument_lists[2][1]
    counts = [sys.getrefcount(value) for value in counted]
    for _ in range(100):
        for arguments in argument_lists:
            try:
                assert direct(*arguments) is None
            except (ValueError, TypeError):
                pass
    assert counts == [sys.getrefcount(value) for value in counted]
    with pytest.raises(TypeError, match="keyword"):
        direct(y, x, weight=w)
    with pytest.raises(ValueError, match="4 arguments and 5 options, 200 were given"):
        direct(y, x, w, *[None] * 197)


ANYTHING = [
    lambda r: None, lambda r: 0, lambda r: 1, lambda r: -1, lambda r: 2**40, lambda r: True, lambda r: 0.5,
    lambda r: float("nan"), lambda r: "NHD",
    lambda r: "f16", lambda r: "x" * 300, lambda r: torch.bfloat16, lambda r: tvm_ffi.device("cpu"),
    lambda r: tvm_ffi.device("cuda", 99),
    lambda r: torch.zeros(r.choices((0, 1, 2, 8, 16, 64), k=r.randrange(4)),
                          dtype=r.choice((torch.float16, torch.float32, torch.int32, torch.uint8))),
    lambda r: torch.zeros(16, 128, dtype=torch.float16)[::2, ::3], lambda r: torch.zeros(1024, dtype=torch.uint8),
    lambda r: [1, 2], lambda r: b"bytes",
]


@pytest.mark.parametrize("name", _core.op_names)
def test_whatever_is_passed_is_served_or_refused(name):
    random_ = random.Random(name)
    declared, sentences = _core.op(name), 0
    for _ in range(60):
        given = [random_.choice(ANYTHING)(random_) for _ in range(random_.randrange(len(declared.arguments) + 8))]
        try:
            declared.function(*given)
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            sentences += bool(str(error))
    assert sentences > 30
