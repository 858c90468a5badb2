# SPDX-License-Identifier: Apache-2.0
"""The life cycle of every attention wrapper against attention in float64: plan, run, plan again, the buffers of CUDA-graph mode,
what is refused. On CPU tensors everywhere, on CUDA tensors too where there is a GPU; captured graphs and streams there only."""
import copy
import functools
import inspect
import math
import pickle

import pytest
import torch

import flashinfer_c as flashinfer
from attention_reference import Pages, attention, starts

HEADS, KV_HEADS, DIM, PAGE = 8, 2, 64, 4
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
# What one rounding to the dtype of the output and weights rounded before they multiply values allow.
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def workspace(device, bytes=16 << 20):
    return torch.empty(bytes, dtype=torch.uint8, device=device)


def randn(*shape, device="cpu", dtype=torch.float16, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def close(actual, expected, dtype=torch.float16):
    torch.testing.assert_close(actual.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def decode(device, pages, q_len=1, wrapper=None, on_host=True, dtype=torch.float16, seed=1, plan=None, **run):
    """Plans, runs and compares a decode wrapper; returns it."""
    wrapper = wrapper or flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), pages.layout)
    tables = pages.tables("cpu" if on_host else device)
    wrapper.plan(*tables, HEADS, KV_HEADS, DIM, PAGE, q_data_type=dtype, q_len_per_req=q_len, **(plan or {}))
    q = randn(len(pages.lengths) * q_len, HEADS, DIM, device=device, dtype=dtype, seed=seed)
    check_decode(wrapper.run(q, pages.cache, return_lse=True, **run), q, pages, q_len, dtype, plan or {}, run)
    return wrapper


def check_decode(result, q, pages, q_len=1, dtype=torch.float16, plan=None, run=None):
    out, lse = result
    plan, run = plan or {}, run or {}
    for b in range(len(pages.lengths)):
        rows = slice(b * q_len, (b + 1) * q_len)
        k, v = pages.request(b)
        expected, expected_lse = attention(q[rows], k, v, causal=True, sm_scale=plan.get("sm_scale"),
                                           window_left=plan.get("window_left", -1), soft_cap=plan.get("logits_soft_cap") or 0,
                                           sinks=run.get("sinks"))
        close(out[rows], expected, dtype)
        torch.testing.assert_close(lse[rows].double(), expected_lse, atol=1e-3, rtol=1e-3)


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


def test_queries_of_8_bits(device):
    fp8 = torch.float8_e4m3fn
    pages = Pages([5, 30], PAGE, KV_HEADS, DIM, torch.float16, device)
    codes, q = pages.cache.to(fp8), randn(7, HEADS, DIM, device=device).to(fp8)
    q_scales, k_scales, v_scales = (0.5 + torch.rand(n, device=device) for n in (HEADS, KV_HEADS, KV_HEADS))
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(starts([2, 5]), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True, q_data_type=fp8,
                 o_data_type=torch.float16)
    result = wrapper.run(q, codes, q_scales, k_scales, v_scales, return_lse=True)
    pages.cache = codes.double() * torch.stack([k_scales, v_scales])[None, :, None, :, None]
    check_prefill(result, q.double() * q_scales[:, None], [2, 5], pages.request, plan={"causal": True})
    with pytest.raises(ValueError, match="by position and by name"):
        wrapper.run(q, codes, q_scales, k_scales, v_scales, k_scale=2.0)
    with pytest.raises(NotImplementedError, match="by position"):
        wrapper.run(q, codes, q_scales)


@pytest.mark.parametrize("mode", ["ROPE_LLAMA", "ALIBI"])
def test_position_encodings(device, mode):
    pages = Pages([5, 30], PAGE, KV_HEADS, DIM, torch.float16, device)
    q, qo_lens = randn(7, HEADS, DIM, device=device), [2, 5]
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(starts(qo_lens), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True, pos_encoding_mode=mode,
                 rope_theta=500.0)
    out = wrapper.run(q, pages.cache)
    for b, rows in enumerate((slice(0, 2), slice(2, 7))):
        k, v = pages.request(b)
        q_of = q[rows]
        if mode == "ROPE_LLAMA":
            places = torch.arange(len(k), dtype=torch.int32, device=device)
            q_of, _ = flashinfer.apply_rope_pos_ids(q_of, q_of, places[-len(q_of):], rope_theta=500.0)
            k, _ = flashinfer.apply_rope_pos_ids(k, k, places, rope_theta=500.0)
            expected = attention(q_of, k, v, True)[0]
        else:  # 8 heads: slopes 2^-1 .. 2^-8
            i, j = torch.arange(len(q_of), device=device)[:, None] + len(k) - len(q_of), torch.arange(len(k), device=device)[None]
            slopes = 2.0 ** -torch.arange(1, HEADS + 1, dtype=torch.float64, device=device)
            expected = attention(q_of, k, v, True, bias=slopes[:, None, None] * (j - i))[0]
        close(out[rows], expected)


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


def test_items_behind_one_prefix(device):
    """Two items of 3 and 2 tokens behind a prefix of 4: of the items, a token sees its own alone."""
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    pages, prefix = Pages([11], PAGE, KV_HEADS, DIM, torch.float16, device), 4
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(starts([11]), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True, token_pos_in_items_len=7,
                 prefix_len_ptr=torch.tensor([prefix]).to(torch.uint32),
                 token_pos_in_items_ptr=places.reshape(-1).to(torch.uint16), max_item_len_ptr=torch.tensor([3]).to(torch.uint16))
    q = randn(11, HEADS, DIM, device=device)
    i, j = torch.arange(11)[:, None], torch.arange(11)[None]
    place = torch.cat([torch.zeros(prefix, dtype=torch.int64), places[0]])[:, None]
    seen = (j <= i) & ((i < prefix) | (j < prefix) | (j > i - place))
    k, v = pages.request(0)
    close(wrapper.run(q, pages.cache), attention(q, k, v, mask=seen.to(device))[0])


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
def test_two_wrappers_on_two_streams():
    streams = [torch.cuda.Stream() for _ in range(2)]
    wrappers = [flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace("cuda")) for _ in range(2)]
    caches = [Pages([500 + 100 * i] * 4, PAGE, KV_HEADS, DIM, torch.float16, "cuda",
                    generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    queries = [randn(4, HEADS, DIM, device="cuda", seed=i) for i in (0, 1)]
    for wrapper, pages, q in zip(wrappers, caches, queries):
        wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
        wrapper.run(q, pages.cache)
    torch.cuda.synchronize()
    results = [[], []]
    for _ in range(20):
        for i in (0, 1):
            with torch.cuda.stream(streams[i]):
                results[i].append(wrappers[i].run(queries[i], caches[i].cache, return_lse=True))
    torch.cuda.synchronize()
    for i in (0, 1):
        check_decode(results[i][0], queries[i], caches[i])
        assert all(torch.equal(out, results[i][0][0]) for out, _ in results[i])


@on_gpu
def test_plan_from_the_host_does_not_synchronise():
    pages = Pages([5, 9, 1], PAGE, KV_HEADS, DIM, torch.float16, "cuda")
    tables, qo_indptr, q = pages.tables(), starts([1, 1, 1]), randn(3, HEADS, DIM, device="cuda")
    wrappers = (decode("cuda", pages), flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace("cuda")))
    wrappers[1].plan(qo_indptr, *tables, HEADS, KV_HEADS, DIM, PAGE)
    wrappers[1].run(q, pages.cache)
    torch.cuda.synchronize()
    event = torch.cuda.Event()
    torch.cuda._sleep(400_000_000)
    event.record()
    wrappers[0].plan(*tables, HEADS, KV_HEADS, DIM, PAGE)
    wrappers[0].run(q, pages.cache)
    wrappers[1].plan(qo_indptr, *tables, HEADS, KV_HEADS, DIM, PAGE)
    wrappers[1].run(q, pages.cache)
    assert not event.query(), "plan() or run() waited for the device"
    torch.cuda.synchronize()


def prefill(device, pages, qo_lens, wrapper=None, on_host=True, dtype=torch.float16, seed=1, masks=None, packed=False, **plan):
    wrapper = wrapper or flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), pages.layout)
    qo_indptr = starts(qo_lens).to("cpu" if on_host else device)
    if masks is not None:
        flat = torch.cat([m.reshape(-1) for m in masks])
        if packed:
            plan["packed_custom_mask"] = torch.cat([pack(m) for m in masks]).to(device)
        else:
            plan["custom_mask"] = flat.to(device)
    wrapper.plan(qo_indptr, *pages.tables("cpu" if on_host else device), HEADS, KV_HEADS, DIM, PAGE, q_data_type=dtype, **plan)
    q = randn(sum(qo_lens), HEADS, DIM, device=device, dtype=dtype, seed=seed)
    check_prefill(wrapper.run(q, pages.cache, return_lse=True), q, qo_lens, pages.request, dtype, masks, plan)
    return wrapper


def check_prefill(result, q, qo_lens, request, dtype=torch.float16, masks=None, plan=None, sinks=None):
    out, lse = result
    plan, indptr = plan or {}, starts(qo_lens).tolist()
    for b, (begin, end) in enumerate(zip(indptr, indptr[1:])):
        k, v = request(b)
        expected, expected_lse = attention(q[begin:end], k, v, plan.get("causal", False),
                                           None if masks is None else masks[b].to(q.device), plan.get("sm_scale"),
                                           plan.get("window_left", -1), plan.get("logits_soft_cap") or 0, sinks)
        close(out[begin:end], expected, dtype)
        torch.testing.assert_close(lse[begin:end].double(), expected_lse, atol=1e-3, rtol=1e-3)


def pack(mask):
    bits = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).reshape(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def random_masks(qo_lens, kv_lens):
    generator = torch.Generator().manual_seed(7)
    masks = [torch.rand(q, k, generator=generator) < 0.6 for q, k in zip(qo_lens, kv_lens)]
    for mask in masks:
        mask[:, 0] = True
    return masks


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("on_host", [True, False])
def test_paged_prefill(device, layout, causal, on_host):
    pages = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.bfloat16, device, layout)
    prefill(device, pages, [2, 17, 1], on_host=on_host, dtype=torch.bfloat16, causal=causal)


def test_paged_prefill_options_and_plans_again(device):
    pages = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device)
    wrapper = prefill(device, pages, [2, 17, 1], causal=True, window_left=7, logits_soft_cap=9.0, sm_scale=0.4)
    assert (wrapper._causal, wrapper._window_left, wrapper._logits_soft_cap, wrapper._sm_scale) == (True, 7, 9.0, 0.4)
    prefill(device, Pages([40], PAGE, KV_HEADS, DIM, torch.float16, device), [40], wrapper=wrapper, causal=True)
    prefill(device, pages, [1, 1, 1], wrapper=wrapper)
    q = randn(3, HEADS, DIM, device=device)
    out, lse = wrapper.forward_return_lse(q, pages.cache, causal=True, sm_scale=0.2)
    check_prefill((out, lse), q, [1, 1, 1], pages.request, plan={"causal": True, "sm_scale": 0.2})
    _, transposed = wrapper.run(q, pages.cache, return_lse=True, lse_base="ln", lse_layout="HN")
    torch.testing.assert_close(transposed.t(), lse * math.log(2))
    with pytest.raises(ValueError, match="4 tokens"):
        wrapper.run(randn(4, HEADS, DIM, device=device), pages.cache)


@pytest.mark.parametrize("packed", [False, True])
def test_paged_prefill_with_a_mask(device, packed):
    qo_lens, kv_lens = [3, 5, 2], [7, 13, 9]
    pages = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.float16, device)
    prefill(device, pages, qo_lens, masks=random_masks(qo_lens, kv_lens), packed=packed)


def test_paged_prefill_with_fixed_buffers(device):
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (4, 4, 40, 3)]
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), "NHD", True, *buffers)
    prefill(device, Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device), [2, 17, 1], wrapper=wrapper, causal=True)
    prefill(device, Pages([9, 9, 9], PAGE, KV_HEADS, DIM, torch.float16, device), [3, 1, 2], wrapper=wrapper, causal=True)
    assert wrapper._qo_indptr_buf is buffers[0]
    with pytest.raises(ValueError, match="at most 20"):
        prefill(device, Pages([30, 9, 9], PAGE, KV_HEADS, DIM, torch.float16, device), [30, 1, 2], wrapper=wrapper)
    with pytest.raises(ValueError, match="custom_mask_buf"):
        wrapper.plan(starts([1, 1, 1]), *Pages([2, 2, 2], PAGE, KV_HEADS, DIM, torch.float16, device).tables(), HEADS, KV_HEADS,
                     DIM, PAGE, custom_mask=torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize("causal", [False, True])
def test_ragged_prefill(device, causal):
    qo_lens, kv_lens = [2, 17, 1], [5, 30, 1]
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device))
    for seed in (1, 2):
        k, v = (randn(sum(kv_lens), KV_HEADS, DIM, device=device, seed=seed + i) for i in (10, 20))
        q = randn(sum(qo_lens), HEADS, DIM, device=device, seed=seed)
        wrapper.plan(starts(qo_lens), starts(kv_lens), HEADS, KV_HEADS, DIM, causal=causal)
        indptr = starts(kv_lens).tolist()
        check_prefill(wrapper.run(q, k, v, return_lse=True), q, qo_lens,
                      lambda b: (k[indptr[b]:indptr[b + 1]], v[indptr[b]:indptr[b + 1]]), plan={"causal": causal})
        qo_lens, kv_lens = [4], [9]


def test_single(device):
    q, k, v = randn(HEADS, DIM, device=device), randn(33, KV_HEADS, DIM, device=device, seed=2), randn(33, KV_HEADS, DIM,
                                                                                                       device=device, seed=3)
    out, lse = flashinfer.single_decode_with_kv_cache(q, k, v, return_lse=True)
    expected, expected_lse = attention(q[None], k, v)
    close(out[None], expected)
    torch.testing.assert_close(lse[None].double(), expected_lse, atol=1e-3, rtol=1e-3)
    q = randn(9, HEADS, DIM, device=device)
    close(flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True), attention(q, k, v, True)[0])
    out, lse = flashinfer.single_prefill_with_kv_cache_return_lse(q, k.transpose(0, 1), v.transpose(0, 1), kv_layout="HND",
                                                                  sm_scale=0.3)
    expected, expected_lse = attention(q, k, v, sm_scale=0.3)
    close(out, expected)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-3, rtol=1e-3)


def test_single_with_a_mask(device):
    q, k, v = (randn(n, h, DIM, device=device, seed=n + h) for n, h in ((9, HEADS), (33, KV_HEADS), (33, KV_HEADS)))
    mask = random_masks([9], [33])[0].to(device)
    close(flashinfer.single_prefill_with_kv_cache(q, k, v, custom_mask=mask), attention(q, k, v, mask=mask)[0])


def test_merges(device):
    q, k, v = randn(5, HEADS, DIM, device=device), randn(30, KV_HEADS, DIM, device=device, seed=2), randn(30, KV_HEADS, DIM,
                                                                                                          device=device, seed=3)
    states = [flashinfer.single_prefill_with_kv_cache_return_lse(q, k[a:b], v[a:b]) for a, b in ((0, 7), (7, 20), (20, 30))]
    whole, whole_lse = attention(q, k, v)
    merged = flashinfer.merge_states(torch.stack([s[0] for s in states], 1), torch.stack([s[1] for s in states], 1))
    close(merged[0], whole)
    torch.testing.assert_close(merged[1].double(), whole_lse, atol=1e-3, rtol=1e-3)
    v_ab, s_ab = flashinfer.merge_state(*states[0], *states[1])
    kept = v_ab.clone()
    flashinfer.merge_state_in_place(v_ab, s_ab, *states[2], mask=torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool, device=device))
    close(v_ab[[0, 1, 3, 4]], whole[[0, 1, 3, 4]])
    assert torch.equal(v_ab[2], kept[2])


def test_cascade(device):
    shared, own, batch = 12, [5, 9, 1], 3
    pages = Pages([shared] + own, PAGE, KV_HEADS, DIM, torch.float16, device)
    counts = starts([shared // PAGE]), pages.indptr[1:] - pages.indptr[1]
    indices = pages.indices[:shared // PAGE], pages.indices[shared // PAGE:]
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace(device))
    for _ in range(2):
        wrapper.plan([starts([batch]), starts([1] * batch)], counts, indices,
                     [torch.tensor([PAGE], dtype=torch.int32), pages.last_page_len[1:]], HEADS, KV_HEADS, DIM, PAGE, causal=True)
        q = randn(batch, HEADS, DIM, device=device)
        out = wrapper.run(q, pages.cache)
        for b in range(batch):
            k, v = (torch.cat(both) for both in zip(pages.request(0), pages.request(b + 1)))
            close(out[b:b + 1], attention(q[b:b + 1], k, v)[0])
    with pytest.raises(NotImplementedError, match="window_left"):
        wrapper.plan([starts([batch]), starts([1] * batch)], counts, indices, [pages.last_page_len[:1], pages.last_page_len[1:]],
                     HEADS, KV_HEADS, DIM, PAGE, window_left=3)


def test_shared_prefix(device):
    own = [5, 9, 1]
    pages = Pages(own, PAGE, KV_HEADS, DIM, torch.float16, device)
    k, v = randn(11, KV_HEADS, DIM, device=device, seed=2), randn(11, KV_HEADS, DIM, device=device, seed=3)
    q = randn(3, HEADS, DIM, device=device)
    wrapper = flashinfer.cascade.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(workspace(device))
    wrapper.begin_forward(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    prefill_wrapper = flashinfer.cascade.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(workspace(device))
    prefill_wrapper.begin_forward(starts([1, 1, 1]), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
    outs = wrapper.forward(q, k, v, pages.cache), prefill_wrapper.forward(q, k, v, pages.cache, causal=True)
    for b in range(3):
        both = [torch.cat(parts) for parts in zip((k, v), pages.request(b))]
        for out in outs:
            close(out[b:b + 1], attention(q[b:b + 1], *both)[0])


def test_batch_attention(device):
    qo_lens, kv_lens = [1, 17, 1, 4], [5, 30, 1, 4]
    pages = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.bfloat16, device)
    wrapper = flashinfer.BatchAttention("NHD", device)
    for cap in (None, 7.0):
        wrapper.plan(starts(qo_lens), *pages.tables()[:2], torch.tensor(kv_lens, dtype=torch.int32), HEADS, KV_HEADS, DIM, DIM,
                     PAGE, causal=True, logits_soft_cap=cap)
        q = randn(sum(qo_lens), HEADS, DIM, device=device, dtype=torch.bfloat16)
        check_prefill(wrapper.run(q, pages.cache), q, qo_lens, pages.request, torch.bfloat16,
                      plan={"causal": True, "logits_soft_cap": cap})
    with pytest.raises(ValueError, match="logits_soft_cap"):
        wrapper.run(q, pages.cache, logits_soft_cap=3.0)


def test_sink_wrapper(device):
    pages, qo_lens = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device), [2, 17, 1]
    wrapper = flashinfer.BatchAttentionWithAttentionSinkWrapper(workspace(device), q_data_type=torch.float16, window_left=6,
                                                                head_dim_qk=DIM)
    wrapper.plan(starts(qo_lens), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True)
    q, sinks = randn(20, HEADS, DIM, device=device), randn(HEADS, device=device, dtype=torch.float32, seed=5)
    for sm_scale in (0.3, 0.2):
        check_prefill(wrapper.run(q, pages.cache, sinks, sm_scale, return_lse=True), q, qo_lens, pages.request,
                      plan={"causal": True, "sm_scale": sm_scale, "window_left": 6}, sinks=sinks)


def block_sparse(device):
    rows, columns, R, C = 3, 5, 4, 8
    blocks = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    indptr, indices = starts(blocks.sum(1).tolist()), blocks.nonzero()[:, 1].int()
    q, k, v = (randn(n, h, DIM, device=device, seed=n) for n, h in ((rows * R, HEADS), (columns * C, KV_HEADS),
                                                                    (columns * C, KV_HEADS)))
    dense = blocks.repeat_interleave(R, 0).repeat_interleave(C, 1)
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    sizes = (rows * R, columns * C, R, C, HEADS, KV_HEADS, DIM)
    return wrapper, indptr, indices, sizes, (q, k, v), dense, blocks


def test_block_sparse(device):
    wrapper, indptr, indices, sizes, (q, k, v), dense, _ = block_sparse(device)
    wrapper.plan(indptr, indices, *sizes)
    close(wrapper.run(q, k, v), attention(q, k, v, mask=dense.to(device))[0])
    with pytest.raises(NotImplementedError, match="causal"):
        wrapper.plan(indptr, indices, *sizes, causal=True)
    with pytest.raises(ValueError, match="multiples"):
        wrapper.plan(indptr, indices, sizes[0], sizes[1] + 1, *sizes[2:])
    with pytest.raises(ValueError, match="columns of blocks"):
        wrapper.plan(indptr, indices + 1, *sizes)


def test_block_sparse_with_a_mask(device):
    wrapper, indptr, indices, sizes, (q, k, v), dense, blocks = block_sparse(device)
    R, C = sizes[2:4]
    inner = torch.rand(len(indices), R, C, generator=torch.Generator().manual_seed(3)) < 0.7
    inner[:, :, 0] = True
    for n, (i, j) in enumerate(blocks.nonzero().tolist()):
        dense[i * R:(i + 1) * R, j * C:(j + 1) * C] = inner[n]
    wrapper.plan(indptr, indices, *sizes, mask=inner.to(device))
    close(wrapper.run(q, k, v), attention(q, k, v, mask=dense.to(device))[0])


def test_variable_block_sparse(device):
    generator = torch.Generator().manual_seed(5)
    seen = torch.rand(KV_HEADS, 3, 4, generator=generator) < 0.6
    seen[:, :, 0] = True
    row_sizes, column_sizes = torch.tensor([[3, 5, 2], [4, 4, 2]]), torch.tensor([[6, 1, 8, 5], [5, 5, 5, 5]])
    q, k, v = (randn(h, n, DIM, device=device, seed=n + h) for h, n in ((HEADS, 10), (KV_HEADS, 20), (KV_HEADS, 20)))
    wrapper = flashinfer.VariableBlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(seen, row_sizes, column_sizes, HEADS, KV_HEADS, DIM)
    out, lse = wrapper.run(q, k, v, return_lse=True)
    group = HEADS // KV_HEADS
    for head in range(KV_HEADS):
        mask = seen[head].repeat_interleave(row_sizes[head], 0).repeat_interleave(column_sizes[head], 1).to(device)
        heads = slice(head * group, (head + 1) * group)
        expected, expected_lse = attention(q[heads].transpose(0, 1), k[head:head + 1].transpose(0, 1),
                                           v[head:head + 1].transpose(0, 1), mask=mask)
        close(out[heads].transpose(0, 1), expected)
        torch.testing.assert_close(lse[heads].t().double(), expected_lse, atol=1e-3, rtol=1e-3)


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


def wrappers(device):
    buffer = workspace(device)
    return [flashinfer.BatchDecodeWithPagedKVCacheWrapper(buffer), flashinfer.BatchPrefillWithPagedKVCacheWrapper(buffer),
            flashinfer.BatchPrefillWithRaggedKVCacheWrapper(buffer), flashinfer.MultiLevelCascadeAttentionWrapper(2, buffer),
            flashinfer.BatchAttention("NHD", device), flashinfer.BlockSparseAttentionWrapper(buffer),
            flashinfer.VariableBlockSparseAttentionWrapper(buffer)]


def test_no_copies_of_wrappers(device):
    for wrapper in wrappers(device):
        wrapper.vllm_first_call = True
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                way(wrapper)


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
    assert sum(wrapper.workspace_size(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)) >= 0
