# SPDX-License-Identifier: Apache-2.0
"""Options of attention that other tests leave out reach the op that they are meant for: each against attention in float64."""

import math

import pytest
import torch

import flashinfer_c as flashinfer
from attention_reference import (DIM, HEADS, KV_HEADS, PAGE, Pages, attention, check_decode, check_prefill, close, pack, randn,
                                 random_masks, starts, workspace)

QO_LENS, KV_LENS = [2, 17, 1], [5, 30, 9]
SHAPE = HEADS, KV_HEADS, DIM


def ragged_inputs(device):
    q = randn(sum(QO_LENS), HEADS, DIM, device=device)
    return q, *(randn(sum(KV_LENS), KV_HEADS, DIM, device=device, seed=seed) for seed in (2, 3))


def of_request(k, v, indptr=None, v_indptr=None):
    indptr = starts(KV_LENS) if indptr is None else indptr
    v_indptr = indptr if v_indptr is None else v_indptr
    return lambda b: (k[indptr[b]:indptr[b] + KV_LENS[b]], v[v_indptr[b]:v_indptr[b] + KV_LENS[b]])


def ragged(device, **plan):
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device))
    wrapper.plan(starts(QO_LENS), starts(KV_LENS), *SHAPE, **plan)
    return wrapper


@pytest.mark.parametrize("heads", [False, True])
def test_ragged_scales(device, heads):
    q, k, v = ragged_inputs(device)
    q_scale, k_scale, v_scale = (0.5 + torch.rand(n, device=device) if heads else torch.tensor([0.5 + n], device=device)
                                 for n in (HEADS, KV_HEADS, KV_HEADS))
    given = (q_scale, k_scale, v_scale) if heads else [float(s) for s in (q_scale, k_scale, v_scale)]
    wrapper = ragged(device, sm_scale=0.05)
    result = wrapper.run(q, k, v, **dict(zip(("q_scale", "k_scale", "v_scale"), given)), o_scale=4.0, return_lse=True)
    scaled = [x.double() * s.double()[:, None] for x, s in ((q, q_scale), (k, k_scale), (v, v_scale / 4))]
    check_prefill(result, scaled[0], QO_LENS, of_request(*scaled[1:]), plan={"sm_scale": 0.05})


def test_ragged_queries_of_8_bits_give_bfloat16(device):
    fp8 = torch.float8_e4m3fn
    q, k, v = (x.to(fp8) for x in ragged_inputs(device))
    wrapper = ragged(device, causal=True, q_data_type=fp8)
    out = torch.empty(q.shape, dtype=torch.bfloat16, device=device)
    for given in (None, out):
        result = wrapper.run(q, k, v, out=given, return_lse=True)
        assert result[0].dtype == torch.bfloat16
        check_prefill(result, q, QO_LENS, of_request(k, v), torch.bfloat16, plan={"causal": True})
    wrapper.plan(starts(QO_LENS), starts(KV_LENS), *SHAPE, causal=True, q_data_type=fp8, o_data_type=fp8)
    assert wrapper.run(q, k, v).dtype == fp8


def test_ragged_values_and_outputs_elsewhere(device):
    q, k, v = ragged_inputs(device)
    order = [2, 0, 1]  # requests in v and out
    at = {b: sum(KV_LENS[a] for a in order[:i]) for i, b in enumerate(order)}, \
        {b: sum(QO_LENS[a] for a in order[:i]) for i, b in enumerate(order)}
    v_indptr, o_indptr = (torch.tensor([place[b] for b in range(3)] + [total], dtype=torch.int32)
                          for place, total in zip(at, (sum(KV_LENS), sum(QO_LENS))))
    wrapper = ragged(device, causal=True, v_indptr=v_indptr.to(device), o_indptr=o_indptr.to(device))
    out, lse = wrapper.run(q, k, v, return_lse=True)
    rows = torch.cat([torch.arange(n) + at[1][b] for b, n in enumerate(QO_LENS)]).to(device)
    check_prefill((out[rows], lse[rows]), q, QO_LENS, of_request(k, v, v_indptr=v_indptr), plan={"causal": True})


@pytest.mark.parametrize("packed", [False, True])
def test_ragged_masks(device, packed):
    q, k, v = ragged_inputs(device)
    masks = random_masks(QO_LENS, KV_LENS)
    flat = torch.cat([pack(m) if packed else m.reshape(-1) for m in masks]).to(device)
    wrapper = ragged(device, causal=True, **{"packed_custom_mask" if packed else "custom_mask": flat})
    check_prefill(wrapper.run(q, k, v, return_lse=True), q, QO_LENS, of_request(k, v), masks=masks)


def test_ragged_sinks_and_lse(device):
    q, k, v = ragged_inputs(device)
    sinks = randn(HEADS, device=device, dtype=torch.float32, seed=5)
    variant = ("uri", *[torch.float16] * 3, torch.int32, DIM, DIM, ["sink"], ["float"], ["sm_scale"], ["double"],
               "AttentionSink", "")
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device), jit_args=variant)
    wrapper.plan(starts(QO_LENS), starts(KV_LENS), *SHAPE, causal=True, window_left=6, logits_soft_cap=5.0)
    out, lse = wrapper.run(q, k, v, sinks, 0.3, return_lse=True)
    plan = {"causal": True, "sm_scale": 0.3, "window_left": 6, "logits_soft_cap": 5.0}
    check_prefill((out, lse), q, QO_LENS, of_request(k, v), plan=plan, sinks=sinks)
    natural = torch.empty(HEADS, sum(QO_LENS), device=device)
    result = wrapper.run(q, k, v, sinks, 0.3, lse=natural, return_lse=True, lse_base="ln", lse_layout="HN")
    assert result[1] is natural
    torch.testing.assert_close(natural.t(), lse * math.log(2))
    with pytest.raises(ValueError, match="lse_base is 'log10'"):
        wrapper.run(q, k, v, sinks, 0.3, lse_base="log10")
    with pytest.raises(ValueError, match="lse_layout is 'TN'"):
        wrapper.run(q, k, v, sinks, 0.3, lse_layout="TN")


def test_window_and_output_dtype_of_runs(device):
    pages, q = Pages(KV_LENS, PAGE, KV_HEADS, DIM, torch.float16, device), ragged_inputs(device)[0]
    paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    paged.plan(starts(QO_LENS), *pages.tables(), *SHAPE, PAGE, causal=True, window_left=20, o_data_type=torch.float32)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    decode.plan(*pages.tables(), *SHAPE, PAGE, window_left=20, o_data_type=torch.float32)
    for given, window in ((None, 20), (3, 3), (-1, -1), (0, 0)):
        result = paged.run(q, pages.cache, window_left=given, return_lse=True)
        check_prefill(result, q, QO_LENS, pages.request, plan={"causal": True, "window_left": window})
        result = decode.run(q[:3], pages.cache, window_left=given, return_lse=True)
        check_decode(result, q[:3], pages, plan={"window_left": window})
        assert result[0].dtype == torch.float32


def test_int64_tables(device):
    pages, q = Pages(KV_LENS, PAGE, KV_HEADS, DIM, torch.float16, device), ragged_inputs(device)[0]
    tables = [table.long() for table in pages.tables(device)]
    paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    paged.plan(starts(QO_LENS).long(), *tables, *SHAPE, PAGE)
    check_prefill(paged.run(q, pages.cache, return_lse=True), q, QO_LENS, pages.request)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    decode.plan(*tables, *SHAPE, PAGE)
    check_decode(decode.run(q[:3], pages.cache, return_lse=True), q[:3], pages)


def test_no_requests_and_no_tokens(device):
    pages, q = Pages(KV_LENS, PAGE, KV_HEADS, DIM, torch.float16, device), randn(3, HEADS, DIM, device=device)
    none, zero = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
    both = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device))
    for _ in range(2):
        decode.plan(zero, none, none, *SHAPE, PAGE)
        paged.plan(zero, zero, none, none, *SHAPE, PAGE)
        both.plan(zero, zero, *SHAPE)
        for out, lse in (decode.run(q[:0], pages.cache, return_lse=True), paged.run(q[:0], pages.cache, return_lse=True),
                         both.run(q[:0], *(x[:0] for x in pages.request(0)), return_lse=True)):
            assert out.shape == (0, HEADS, DIM) and lse.shape == (0, HEADS)
        paged.plan(starts([0, 0, 0]), *pages.tables(), *SHAPE, PAGE)
        assert paged.run(q[:0], pages.cache).shape == (0, HEADS, DIM)
        decode.plan(*pages.tables(), *SHAPE, PAGE)
        check_decode(decode.run(q, pages.cache, return_lse=True), q, pages)
    table = torch.zeros(0, 4, dtype=torch.int32, device=device)
    out = flashinfer.trtllm_batch_decode_with_kv_cache(q[:0], pages.cache, workspace(device), table, table[:, 0], 9,
                                                       kv_layout="NHD")
    assert out.shape == (0, HEADS, DIM)


def test_pages_allocated_ahead(device):
    """kv_len_arr says how many tokens count, of requests that own more pages than these fill."""
    lengths, indptr = [5, 0, 9, 13], torch.tensor([0, 3, 5, 9, 13], dtype=torch.int32)
    cache = randn(13, 2, PAGE, KV_HEADS, DIM, device=device)
    q, indices = randn(4, HEADS, DIM, device=device), torch.randperm(13, generator=torch.Generator().manual_seed(3)).int()
    wrapper = flashinfer.BatchAttention("NHD", device)
    wrapper.plan(starts([1] * 4), indptr, indices, torch.tensor(lengths, dtype=torch.int32), *SHAPE, DIM, PAGE, causal=True,
                 q_data_type=torch.float16, kv_data_type=torch.float16)
    out, lse = wrapper.run(q, cache)
    for b, length in enumerate(lengths):
        k, v = (t.flatten(0, 1)[:length] for t in cache[indices[indptr[b]:indptr[b + 1]].long().to(device)].unbind(1))
        expected = attention(q[b:b + 1], k, v)[0] if length else torch.zeros(1, HEADS, DIM, device=device).double()
        close(out[b:b + 1], expected)
        assert length or (lse[b] == -math.inf).all()
    with pytest.raises(ValueError, match="kv_indptr ends at 13, and there are 12 page indices"):
        wrapper.plan(starts([1] * 4), indptr, indices[1:], torch.tensor(lengths), *SHAPE, DIM, PAGE)


def test_options_of_one_request(device):
    q, k, v = randn(9, HEADS, DIM, device=device), *(randn(33, KV_HEADS, DIM, device=device, seed=n) for n in (2, 3))
    mask = random_masks([9], [33])[0].to(device)
    single = flashinfer.single_prefill_with_kv_cache
    close(single(q, k, v, packed_custom_mask=pack(mask.cpu()).to(device)), attention(q, k, v, mask=mask)[0])
    close(single(q, k, v, causal=True, window_left=4, logits_soft_cap=3.0), attention(q, k, v, True, None, None, 4, 3.0)[0])
    assert single(q, k, v, o_dtype=torch.float32).dtype == torch.float32
    scales = [0.5 + torch.rand(n, device=device) for n in (HEADS, KV_HEADS, KV_HEADS)]
    scaled = [x.double() * s.double()[:, None] for x, s in zip((q, k, v), scales)]
    close(single(q, k, v, *scales, sm_scale=0.05), attention(*scaled, sm_scale=0.05)[0])
    close(single(q, k, v, k_scale=0.5, v_scale=2.0), attention(q, 0.5 * k, 2 * v)[0])
    decoded = flashinfer.single_decode_with_kv_cache(q[0], k.transpose(0, 1), v.transpose(0, 1), "HND", q_scale=0.7, k_scale=0.5,
                                                     v_scale=2.0, window_left=4, logits_soft_cap=3.0, sm_scale=0.4)
    close(decoded[None], attention(0.7 * q[:1].double(), 0.5 * k, 2 * v, True, None, 0.4, 4, 3.0)[0])
    places = torch.arange(33, dtype=torch.int32, device=device)
    turned, _ = flashinfer.apply_rope_pos_ids(k, k, places, rope_scale=2.0, rope_theta=500.0)
    last, _ = flashinfer.apply_rope_pos_ids(q[:1], q[:1], places[-1:], rope_scale=2.0, rope_theta=500.0)
    decoded = flashinfer.single_decode_with_kv_cache(q[0], k, v, pos_encoding_mode="ROPE_LLAMA", rope_scale=2.0, rope_theta=500.0)
    close(decoded[None], attention(last, turned, v)[0])


@pytest.mark.parametrize("given", [(), (0, ), (1, ), (2, ), (0, 1), (1, 2)])
def test_scales_of_heads_that_are_left_out_are_1(device, given):
    fp8 = torch.float8_e4m3fn
    q = randn(9, HEADS, DIM, device=device).to(fp8)
    k, v = (randn(33, KV_HEADS, DIM, device=device, seed=n).to(fp8) for n in (2, 3))
    scales = [0.5 + torch.rand(n, device=device) if i in given else None for i, n in enumerate((HEADS, KV_HEADS, KV_HEADS))]
    scaled = [x.double() if s is None else x.double() * s.double()[:, None] for x, s in zip((q, k, v), scales)]
    out = flashinfer.single_prefill_with_kv_cache(q, k, v, *scales, o_dtype=torch.float16, sm_scale=0.05)
    close(out, attention(*scaled, sm_scale=0.05)[0])


def block_sparse(device, dtype=torch.float16):
    blocks = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    q, k, v = (randn(n, h, DIM, device=device, seed=n, dtype=dtype) for n, h in ((8, HEADS), (15, KV_HEADS), (15, KV_HEADS)))
    dense = blocks.repeat_interleave(4, 0).repeat_interleave(5, 1).to(device)
    return (starts(blocks.sum(1).tolist()), blocks.nonzero()[:, 1].int(), 8, 15, 4, 5, *SHAPE), (q, k, v), dense


def test_options_of_block_sparse(device):
    plan, (q, k, v), dense = block_sparse(device)
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    inner = torch.rand(4, 4, 5, generator=torch.Generator().manual_seed(3)) < 0.7
    inner[:, :, 0] = True
    masked = dense.clone()
    for n, (i, j) in enumerate(((0, 0), (0, 2), (1, 1), (1, 2))):
        masked[4 * i:4 * i + 4, 5 * j:5 * j + 5] = inner[n]
    rows = flashinfer.sparse.convert_bsr_mask_layout(inner, plan[0]).reshape(2, -1)
    wrapper.plan(*plan, packed_mask=torch.cat([pack(row) for row in rows]).to(device), sm_scale=0.3, logits_soft_cap=4.0)
    out, lse = torch.empty_like(q), torch.empty(8, HEADS, device=device)
    result = wrapper.run(q, k, v, 0.5, 1.5, 2.0, out=out, lse=lse, return_lse=True)
    assert result[0] is out and result[1] is lse
    expected, expected_lse = attention(0.5 * q.double(), 1.5 * k, 2 * v, mask=masked, sm_scale=0.3, soft_cap=4.0)
    close(out, expected)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-3, rtol=1e-3)
    with pytest.raises(NotImplementedError, match="pos_encoding_mode"):
        wrapper.plan(*plan, pos_encoding_mode="ALIBI")


def test_block_sparse_of_bfloat16_gives_bfloat16(device):
    plan, (q, k, v), dense = block_sparse(device, torch.bfloat16)
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(*plan, q_data_type=torch.bfloat16)
    out = wrapper.run(q, k, v)
    assert out.dtype == torch.bfloat16
    close(out, attention(q, k, v, mask=dense)[0], torch.bfloat16)


def test_outputs_of_variable_block_sparse(device):
    seen, rows, columns = torch.ones(KV_HEADS, 2, 2, dtype=torch.bool), torch.tensor([[3, 5]] * KV_HEADS), torch.tensor(
        [[4, 6]] * KV_HEADS)
    seen[:, 0, 1] = False
    q, k, v = (randn(h, n, DIM, device=device, seed=n) for h, n in ((HEADS, 8), (KV_HEADS, 10), (KV_HEADS, 10)))
    wrapper = flashinfer.VariableBlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(seen, rows, columns, *SHAPE, sm_scale=0.3)
    out, lse = torch.empty_like(q), torch.empty(HEADS, 8, device=device)
    result = wrapper.run(q, k, v, out=out, lse=lse, return_lse=True)
    assert result[0] is out and result[1] is lse
    mask = seen[0].repeat_interleave(rows[0], 0).repeat_interleave(columns[0], 1).to(device)
    expected, expected_lse = attention(*(x.transpose(0, 1) for x in (q, k, v)), mask=mask, sm_scale=0.3)
    close(out.transpose(0, 1), expected)
    torch.testing.assert_close(lse.t().double(), expected_lse, atol=1e-3, rtol=1e-3)


def test_cascade_of_one_level_and_of_8_bits(device):
    pages, q = Pages(KV_LENS, PAGE, KV_HEADS, DIM, torch.float16, device), ragged_inputs(device)[0]
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(1, workspace(device))
    tables = [[table] for table in (starts(QO_LENS), *pages.tables())]
    wrapper.plan(*tables, *SHAPE, PAGE, causal=True, window_left=5, logits_soft_cap=6.0, sm_scale=0.3)
    plan = {"causal": True, "window_left": 5, "logits_soft_cap": 6.0, "sm_scale": 0.3}
    out = wrapper.run(q, pages.cache)
    for b, (begin, end) in enumerate(zip(starts(QO_LENS).tolist(), starts(QO_LENS).tolist()[1:])):
        close(out[begin:end], attention(q[begin:end], *pages.request(b), True, None, 0.3, 5, 6.0)[0])
    codes = pages.cache.to(torch.float8_e4m3fn)
    wrapper.plan(*tables, *SHAPE, PAGE, **plan, kv_data_type=torch.float8_e4m3fn)
    pages.cache = codes.to(torch.float16)
    out = wrapper.run(q, codes)
    for b, (begin, end) in enumerate(zip(starts(QO_LENS).tolist(), starts(QO_LENS).tolist()[1:])):
        close(out[begin:end], attention(q[begin:end], *pages.request(b), True, None, 0.3, 5, 6.0)[0])


def test_a_state_in_place_has_float32_sums(device):
    v, s = randn(5, HEADS, DIM, device=device), torch.zeros(5, HEADS, device=device)
    with pytest.raises(ValueError, match="merge_state_in_place: s is f16, must be f32"):
        flashinfer.merge_state_in_place(v, s.half(), v.clone(), s)


def test_a_rectangle_that_is_too_narrow(device):
    if device != "cpu":
        pytest.skip("on a GPU lengths are not looked at")
    q, cache = randn(2, HEADS, DIM), randn(4, 2, PAGE, KV_HEADS, DIM)
    table, lengths = torch.zeros(2, 2, dtype=torch.int32), torch.tensor([3, 2 * PAGE + 1], dtype=torch.int32)
    with pytest.raises(ValueError, match=f"block_tables has 2 columns, and a request of {2 * PAGE + 1} tokens needs 3"):
        flashinfer.trtllm_batch_decode_with_kv_cache(q, cache, workspace(device), table, lengths, 99, kv_layout="NHD")


def test_tables_that_end_too_early(device):
    """Of an indptr that lies on the host, where it ends is looked at."""
    pages, (q, k, v) = Pages(KV_LENS, PAGE, KV_HEADS, DIM, torch.float16, device), ragged_inputs(device)
    indptr, indices, last_page_len = pages.tables()
    used, tokens = int(indptr[-1]), sum(KV_LENS)
    for wrapper, *qo_indptr in ((flashinfer.BatchDecodeWithPagedKVCacheWrapper, ),
                                (flashinfer.BatchPrefillWithPagedKVCacheWrapper, starts(QO_LENS))):
        with pytest.raises(ValueError, match=f"indptr ends at {used}, and there are {used - 1} page indices"):
            wrapper(workspace(device)).plan(*qo_indptr, indptr, indices[:-1], last_page_len, *SHAPE, PAGE)
    wrapper = ragged(device)
    with pytest.raises(ValueError, match=f"kv_indptr ends at {tokens}, and there are {tokens - 1} keys"):
        wrapper.run(q, k[1:], v[1:])
    with pytest.raises(ValueError, match=r"batch_prefill_ragged: v has shape"):
        wrapper.run(q, k, v[1:])


def test_an_output_of_another_dtype_than_said(device):
    q, cache = randn(1, HEADS, DIM, device=device), randn(4, 2, PAGE, KV_HEADS, DIM, device=device)
    table, lengths = (torch.ones(*shape, dtype=torch.int32, device=device) for shape in ((1, 2), (1, )))
    with pytest.raises(ValueError, match="out is torch.float16, must be torch.bfloat16 as out_dtype"):
        flashinfer.trtllm_batch_decode_with_kv_cache(q, cache, workspace(device), table, lengths, 9, out=torch.empty_like(q),
                                                     out_dtype="bfloat16", kv_layout="NHD")
