# SPDX-License-Identifier: Apache-2.0
"""The life cycle of the decode wrappers against attention in float64: plan, run, plan again, the buffers of CUDA-graph mode; what
all attention wrappers refuse. On CPU tensors, and CUDA tensors where there is a GPU; captured graphs there only.
"""

import functools
import inspect
import math

import pytest
import torch

import flashinfer_c as flashinfer
from attention_reference import (DIM, HEADS, KV_HEADS, PAGE, Pages, attention, check_decode, close, decode, prefill, randn,
                                 starts, workspace)

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_decode(device, layout, dtype):
    decode(device, Pages([5, 9, 1, 30], PAGE, KV_HEADS, DIM, dtype, device, layout), dtype=dtype)


def test_decode_of_an_empty_request(device):
    pages = Pages([5, 0, 3], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = decode(device, Pages([2], PAGE, KV_HEADS, DIM, torch.float16, device))
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    out, lse = wrapper.run(randn(3, HEADS, DIM, device=device), pages.cache, return_lse=True)
    assert not out[1].any() and (lse[1] == -math.inf).all()


def test_decode_options_and_outputs(device):
    pages = Pages([5, 9, 1, 30], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = decode(device, pages, on_host=False, plan={"sm_scale": 0.3, "logits_soft_cap": 8.0, "window_left": 6})
    assert (wrapper._window_left, wrapper._logits_soft_cap, wrapper._sm_scale, wrapper._page_size) == (6, 8.0, 0.3, PAGE)
    assert wrapper._plan_info is not None and wrapper._cached_module is not None
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    assert (wrapper._window_left, wrapper._logits_soft_cap, wrapper._sm_scale) == (-1, 0.0, None)
    q = randn(4, HEADS, DIM, device=device)
    out, lse = torch.empty_like(q), torch.empty(4, HEADS, dtype=torch.float32, device=device)
    result = wrapper.run(q, pages.cache.unbind(1), out=out, lse=lse, return_lse=True)
    assert result[0] is out and result[1] is lse
    check_decode(result, q, pages)
    assert torch.equal(wrapper.run_return_lse(q, pages.cache)[0], out)
    assert torch.equal(wrapper.run(q, tuple(pages.cache.unbind(1))), out)


def test_decode_with_sinks(device):
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    decode(device, pages, sinks=randn(HEADS, device=device, dtype=torch.float32, seed=9))


def test_decode_of_several_tokens(device):
    pages, wrapper = Pages([5, 9, 6], PAGE, KV_HEADS, DIM, torch.float16, device), None
    for q_len in (3, 2, 1, 4):
        wrapper = decode(device, pages, q_len=q_len, wrapper=wrapper)


def test_decode_plans_again(device):
    wrapper = None
    for lengths in ([5, 9], [3], [17, 1, 2, 40], [1]):
        wrapper = decode(device, Pages(lengths, PAGE, KV_HEADS, DIM, torch.float16, device), wrapper=wrapper, seed=len(lengths))


def test_forward_replaces_options(device):
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = decode(device, pages)
    wrapper.begin_forward(*pages.tables(device), HEADS, KV_HEADS, DIM, PAGE, "NONE", q_data_type=torch.float16)
    q = randn(2, HEADS, DIM, device=device)
    out, lse = wrapper.forward_return_lse(q, pages.cache, sm_scale=0.2, logits_soft_cap=5.0)
    check_decode((out, lse), q, pages, plan={"sm_scale": 0.2, "logits_soft_cap": 5.0})
    assert torch.equal(wrapper.forward(q, pages.cache, sm_scale=0.2, logits_soft_cap=5.0), out)
    wrapper.end_forward()


def test_plan_info_is_kept_and_put_back(device):
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = decode(device, pages)
    kept = wrapper._plan_info
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE, sm_scale=0.7)
    wrapper._plan_info, wrapper._sm_scale = kept, None
    q = randn(2, HEADS, DIM, device=device)
    check_decode(wrapper.run(q, pages.cache, return_lse=True), q, pages)
    empty = torch.empty(0, dtype=torch.float16)
    wrapper._plan_info = wrapper._cached_module.plan(None, None, None, pages.indptr, 2, HEADS, KV_HEADS, PAGE, False, -1, 0.0,
                                                     DIM, DIM, empty, empty)
    check_decode(wrapper.run(q, pages.cache, return_lse=True), q, pages)


@pytest.mark.parametrize("fp8", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_caches_of_8_bits(device, fp8):
    pages = Pages([5, 9, 30], PAGE, KV_HEADS, DIM, torch.float16, device)
    codes = pages.cache.to(fp8)
    q = randn(3, HEADS, DIM, device=device)
    k_heads = torch.tensor([0.5, 1.5], device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE, q_data_type=torch.float16, kv_data_type=fp8)
    for k_scale, v_scale in ((None, None), (0.5, 2.0), (torch.tensor([0.5]), torch.tensor(2.0)), (k_heads, 0.25)):
        scale = [torch.as_tensor(1.0 if s is None else s).to(device).reshape(-1, 1, 1, 1) for s in (k_scale, v_scale)]
        pages.cache = codes.to(torch.float16) * torch.stack([s.expand(KV_HEADS, 1, 1, 1)[:, 0, 0] for s in scale])[None, :, None]
        check_decode(wrapper.run(q, codes, k_scale=k_scale, v_scale=v_scale, return_lse=True), q, pages)


def test_variants(device):
    hooks = """
        HOOK float logits(struct variant v, float s, struct at a)
        {
            return s - v.factor * v.slopes[a.qo_head] * (a.kv_len - a.qo_len + a.q - a.kv);
        }
    """
    pages, qo_lens = Pages([5, 30], PAGE, KV_HEADS, DIM, torch.float16, device), [1, 1]
    slopes, q = torch.rand(HEADS, device=device), randn(2, HEADS, DIM, device=device)
    k, v = (torch.cat(t) for t in zip(pages.request(0), pages.request(1)))
    outs = []
    ragged = flashinfer.BatchPrefillWithRaggedKVCacheWrapper, (starts(qo_lens), starts(pages.lengths)), (k, v)
    for base, cls, plan, run in (
        ("batch_decode", flashinfer.BatchDecodeWithPagedKVCacheWrapper, pages.tables(), (pages.cache,)),
        ("batch_prefill", flashinfer.BatchDecodeWithPagedKVCacheWrapper, pages.tables(), (pages.cache,)),
        ("batch_prefill", flashinfer.BatchPrefillWithPagedKVCacheWrapper, (starts(qo_lens), *pages.tables()), (pages.cache,)),
        ("batch_prefill_ragged", *ragged)):
        variant = flashinfer.Variant(f"wrapped_{len(outs)}", base, hooks, slopes=("float32", "num_qo_heads"), factor=float)
        wrapper = cls(workspace(device), jit_args=variant)
        wrapper.plan(*plan, HEADS, KV_HEADS, DIM, *(() if base == "batch_prefill_ragged" else (PAGE,)))
        outs.append(wrapper.run(q, *run, slopes, 0.5))
        with pytest.raises(TypeError, match="further arguments"):
            wrapper.run(q, *run, slopes)
    for b in (0, 1):
        keys, values = pages.request(b)
        distance = len(keys) - 1 - torch.arange(len(keys), device=device)
        expected = attention(q[b:b + 1], keys, values, bias=-0.5 * slopes.double()[:, None, None] * distance)[0]
        for out in outs:
            close(out[b:b + 1], expected)


def test_as_vllm_calls_it(device):
    """int8 workspace, a cache of heads before slots seen as slots before heads, indptr on the host and indices on the device, -1
    for no split size, an empty request, out given, one layer after the other with scales."""
    pages = Pages([5, 0, 9], PAGE, KV_HEADS, DIM, torch.bfloat16, device, "HND")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(torch.empty(16 << 20, dtype=torch.int8, device=device), "NHD",
                                                            use_tensor_cores=True)
    wrapper.plan(pages.indptr, pages.indices.to(device), pages.last_page_len, num_qo_heads=HEADS, num_kv_heads=KV_HEADS,
                 head_dim=DIM, page_size=PAGE, pos_encoding_mode="NONE", sm_scale=0.2, window_left=-1, logits_soft_cap=None,
                 q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16, o_data_type=torch.bfloat16, fixed_split_size=-1,
                 disable_split_kv=False)
    assert (wrapper._window_left, wrapper._logits_soft_cap or 0.0, wrapper._sm_scale) == (-1, 0.0, 0.2)
    q, out = randn(3, HEADS, DIM, device=device, dtype=torch.bfloat16), torch.empty(3, HEADS, DIM, dtype=torch.bfloat16,
                                                                                    device=device)
    wrapper.run(q, pages.cache.permute(0, 1, 3, 2, 4), k_scale=1.0, v_scale=2.0, out=out)
    for b in (0, 2):
        close(out[b:b + 1] / 2, attention(q[b:b + 1], *pages.request(b), sm_scale=0.2)[0], torch.bfloat16)
    assert not out[1].any()


def test_as_sglang_calls_it(device):
    """Pages of one token without an axis of their own, more indices than the page table uses, forward() with scale and soft
    cap.
    """
    length, heads = 20, (KV_HEADS, DIM)
    k, v = randn(length, *heads, device=device), randn(length, *heads, device=device, seed=2)
    indptr = torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
    indices = torch.randperm(length, generator=torch.Generator().manual_seed(3)).int().to(device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), "NHD", use_tensor_cores=False)
    wrapper.begin_forward(indptr, indices, torch.ones(2, dtype=torch.int32, device=device), HEADS, KV_HEADS, DIM, 1,
                          data_type=torch.float16, q_data_type=torch.float16, non_blocking=True)
    q = randn(2, HEADS, DIM, device=device)
    out = wrapper.forward(q.contiguous(), (k, v), sm_scale=0.3, logits_soft_cap=20.0)
    for b, (begin, end) in enumerate(((0, 3), (3, 8))):
        seen = indices[begin:end].long()
        close(out[b:b + 1], attention(q[b:b + 1], k[seen], v[seen], sm_scale=0.3, soft_cap=20.0)[0])


def test_fast_decode_plan(device):
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = decode(device, Pages([3, 3, 3], PAGE, KV_HEADS, DIM, torch.float16, device))
    wrapper.begin_forward = functools.partial(flashinfer.fast_decode_plan, wrapper)
    assert wrapper.begin_forward.func == flashinfer.decode.fast_decode_plan
    assert "q_len_per_req" in inspect.signature(flashinfer.fast_decode_plan).parameters
    wrapper.begin_forward(*pages.tables(device), HEADS, KV_HEADS, DIM, PAGE, q_data_type=torch.float16,
                          global_override_indptr_cpu=pages.indptr)
    q = randn(2, HEADS, DIM, device=device)
    check_decode(wrapper.run(q, pages.cache, return_lse=True), q, pages)


def test_fast_decode_plan_keeps_dtypes(device):
    for dtype, out in ((torch.bfloat16, None), (torch.bfloat16, torch.float32), (torch.float16, None)):
        pages = Pages([5, 9], PAGE, KV_HEADS, DIM, dtype, device)
        wrapper = decode(device, pages, dtype=dtype)
        wrapper.plan(*pages.tables(device), HEADS, KV_HEADS, DIM, PAGE, q_data_type=dtype, o_data_type=out)
        q = randn(2, HEADS, DIM, device=device, dtype=dtype)
        expected = wrapper.run(q, pages.cache)
        flashinfer.fast_decode_plan(wrapper, *pages.tables(device), HEADS, KV_HEADS, DIM, PAGE)
        found = wrapper.run(q, pages.cache)
        assert found.dtype == expected.dtype == (out or dtype) and torch.equal(found, expected)
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.bfloat16, device)
    flashinfer.fast_decode_plan(wrapper, *pages.tables(device), HEADS, KV_HEADS, DIM, PAGE, q_data_type="bfloat16")
    result = wrapper.run(q.bfloat16(), pages.cache, return_lse=True)
    assert result[0].dtype == torch.bfloat16
    check_decode(result, q.bfloat16(), pages, dtype=torch.bfloat16)


def graph_decode(device, batch, room):
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (batch + 1, room, batch)]
    return flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(workspace(device), *buffers), buffers


def test_decode_with_fixed_buffers(device):
    wrapper, buffers = graph_decode(device, 3, 40)
    assert wrapper.is_cuda_graph_enabled and wrapper._fixed_batch_size == 3
    for lengths in ([5, 9, 1], [30, 2, 17]):
        decode(device, Pages(lengths, PAGE, KV_HEADS, DIM, torch.float16, device), wrapper=wrapper)
        assert wrapper._paged_kv_indptr_buf is buffers[0] and wrapper._paged_kv_indices_buf is buffers[1]
    small = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    with pytest.raises(ValueError, match="fixed at 3"):
        wrapper.plan(*small.tables(), HEADS, KV_HEADS, DIM, PAGE)
    long = Pages([60, 60, 60], PAGE, KV_HEADS, DIM, torch.float16, device)
    with pytest.raises(ValueError, match="room for 40"):
        wrapper.plan(*long.tables(), HEADS, KV_HEADS, DIM, PAGE)
    with pytest.raises(ValueError, match="q_len_per_req"):
        decode(device, Pages([5, 9, 7], PAGE, KV_HEADS, DIM, torch.float16, device), wrapper=wrapper, q_len=2)
    with pytest.raises(ValueError, match="paged_kv_indices_buffer"):
        flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), use_cuda_graph=True, paged_kv_indptr_buffer=buffers[0],
                                                      paged_kv_last_page_len_buffer=buffers[2])


@on_gpu
def test_decode_in_a_captured_graph():
    wrapper, _ = graph_decode("cuda", 3, 60)
    pages = Pages([5, 9, 1], PAGE, KV_HEADS, DIM, torch.float16, "cuda")
    decode("cuda", pages, wrapper=wrapper)
    longer = Pages([70, 33, 18], PAGE, KV_HEADS, DIM, torch.float16, "cuda")
    q = randn(3, HEADS, DIM, device="cuda")
    out, lse = torch.empty_like(q), torch.empty(3, HEADS, dtype=torch.float32, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        wrapper.run(q, longer.cache, out=out, lse=lse, return_lse=True)
    for seed in (3, 4):
        q.copy_(randn(3, HEADS, DIM, device="cuda", seed=seed))
        wrapper.plan(*longer.tables(), HEADS, KV_HEADS, DIM, PAGE)
        graph.replay()
        check_decode((out, lse), q, longer)


@on_gpu
def test_plan_from_the_host_does_not_synchronise():
    pages = Pages([5, 9, 1], PAGE, KV_HEADS, DIM, torch.float16, "cuda")
    tables, qo_indptr, q = pages.tables(), starts([1, 1, 1]), randn(3, HEADS, DIM, device="cuda")
    wrappers = (decode("cuda", pages), flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace("cuda")))
    captured = decode("cuda", pages, wrapper=graph_decode("cuda", 3, 60)[0])
    wrappers[1].plan(qo_indptr, *tables, HEADS, KV_HEADS, DIM, PAGE)
    wrappers[1].run(q, pages.cache)
    torch.cuda.synchronize()
    event = torch.cuda.Event()
    torch.cuda._sleep(400_000_000)
    event.record()
    for wrapper in (wrappers[0], captured):
        wrapper.plan(*tables, HEADS, KV_HEADS, DIM, PAGE)
        wrapper.run(q, pages.cache)
    wrappers[1].plan(qo_indptr, *tables, HEADS, KV_HEADS, DIM, PAGE)
    wrappers[1].run(q, pages.cache)
    assert not event.query(), "plan() or run() waited for the device"
    torch.cuda.synchronize()


@on_gpu
def test_pinned_page_indices_are_the_callers_after_plan():
    pages, q = Pages([5, 9, 1], PAGE, KV_HEADS, DIM, torch.float16, "cuda"), randn(3, HEADS, DIM, device="cuda")
    tables = [table.pin_memory() for table in pages.tables()]
    wrapper = decode("cuda", pages, wrapper=graph_decode("cuda", 3, 60)[0])
    wrapper._paged_kv_indices_buf.zero_()
    torch.cuda.synchronize()
    event = torch.cuda.Event()
    torch.cuda._sleep(400_000_000)
    event.record()
    wrapper.plan(*tables, HEADS, KV_HEADS, DIM, PAGE)
    tables[1].zero_()
    result = wrapper.run(q, pages.cache, return_lse=True)
    assert not event.query(), "plan() or run() waited for the device"
    check_decode(result, q, pages)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_whole(device, backend):
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    decoder = decode(device, pages)
    prefiller = prefill(device, pages, [2, 5], causal=True)

    def layer(q, k_scale):
        out, lse = decoder.run(q[:2], pages.cache, return_lse=True)
        return out * 2, lse, prefiller.run(q * 2, pages.cache, k_scale=k_scale)

    arguments = randn(7, HEADS, DIM, device=device), 0.5
    expected = layer(*arguments)
    for found in (torch.compile(layer, backend=backend, fullgraph=True)(*arguments), layer(*arguments)):
        assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_refusals(device):
    buffer = workspace(device)
    for wrapper in (flashinfer.BatchDecodeWithPagedKVCacheWrapper, flashinfer.BatchPrefillWithPagedKVCacheWrapper,
                    flashinfer.BatchPrefillWithRaggedKVCacheWrapper):
        variant = ("uri", *[torch.float16] * 3, torch.int32, DIM, DIM, [], [], [], [], "MyVariant", "struct MyVariant {};")
        with pytest.raises(NotImplementedError, match="hooks"):
            wrapper(buffer, jit_args=variant)
        with pytest.raises(NotImplementedError, match="trtllm-gen"):
            wrapper(buffer, backend="trtllm-gen")
        with pytest.raises(KeyError, match="kv_layout"):
            wrapper(buffer, "DHN")
        with pytest.raises(ValueError, match="float_workspace_buffer"):
            wrapper(buffer[4:])
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(buffer)
    pages = Pages([5, 9], PAGE, KV_HEADS, DIM, torch.float16, device)
    q = randn(2, HEADS, DIM, device=device)
    with pytest.raises(RuntimeError, match="plan"):
        wrapper.run(q, pages.cache)
    with pytest.raises(ValueError, match="one more"):
        wrapper.plan(pages.indptr[:-1], *pages.tables()[1:], HEADS, KV_HEADS, DIM, PAGE)
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    with pytest.raises(ValueError, match="q"):
        wrapper.run(q.bfloat16(), pages.cache)
    with pytest.raises(ValueError, match="out"):
        wrapper.run(q, pages.cache, out=torch.empty(3, HEADS, DIM, dtype=torch.float16, device=device))
    with pytest.raises(ValueError, match="sm_scale is 0"):
        wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE, sm_scale=0.0)
    for single in (flashinfer.single_decode_with_kv_cache, flashinfer.single_prefill_with_kv_cache):
        with pytest.raises(ValueError, match="sm_scale is 0"):
            single(q[0] if "decode" in single.__name__ else q, *pages.request(0), sm_scale=0)
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    assert sum(wrapper.workspace_size(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)) >= 0
