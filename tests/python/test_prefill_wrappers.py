# SPDX-License-Identifier: Apache-2.0
"""The life cycle of the prefill, cascade, block-sparse and mixed wrappers, and functions of one request, against attention in
float64.
"""

import math

import pytest
import torch

import flashinfer_c as flashinfer
from attention_reference import (DIM, HEADS, KV_HEADS, PAGE, Pages, attention, check_decode, check_prefill, close, prefill, randn,
                                 random_masks, starts, workspace)


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
    if device == "cpu":
        with pytest.raises(ValueError, match="mask has .* elements, and the requests have"):
            prefill(device, pages, qo_lens, masks=random_masks(qo_lens[:2], kv_lens[:2]), packed=packed)


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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("qo_lens, kv_lens, bytes", [([8], [8], 8), ([3], [7], 3), ([8, 4], [8, 4], 10), ([3, 4], [7, 8], 7)])
def test_masks_that_fill_their_buffer(device, qo_lens, kv_lens, bytes, packed):
    pages, masks = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.float16, device), random_masks(qo_lens, kv_lens)
    batch = len(qo_lens)
    for room in (bytes, bytes - 1):
        buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (batch + 1, batch + 1, 8, batch)]
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            workspace(device), "NHD", True, *buffers, torch.zeros(room, dtype=torch.uint8, device=device),
            torch.zeros(batch + 1, dtype=torch.int32, device=device))
        if room == bytes:
            prefill(device, pages, qo_lens, wrapper=wrapper, masks=masks, packed=packed)
        else:
            with pytest.raises(ValueError, match=f"mask takes {bytes} bytes and custom_mask_buf has {room}"):
                prefill(device, pages, qo_lens, wrapper=wrapper, masks=masks, packed=packed)


def test_rows_of_no_request_are_zero_with_fixed_buffers(device, monkeypatch):
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (4, 4, 40, 3)]
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), "NHD", True, *buffers)
    pages = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device)
    for qo_lens in ([2, 17, 1], [2, 9, 1]):
        prefill(device, pages, qo_lens, wrapper=wrapper, causal=True)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(7))
    q = randn(20, HEADS, DIM, device=device)
    result = wrapper.run(q, pages.cache, return_lse=True)
    check_prefill(result, q, qo_lens, pages.request, plan={"causal": True})
    assert not result[0][12:].any()


@pytest.mark.parametrize("o_data_type", [None, torch.float16])
def test_plans_that_engines_make_themselves(device, o_data_type):
    """As SGLang plans a verification step: buffers and attributes set from outside, dtypes as names or None, the plan by
    _cached_module.
    """
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (3, 3, 80, 2)]
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), "NHD", True, *buffers, backend="fa2")
    prefill(device, Pages([30, 12], 1, KV_HEADS, DIM, torch.float16, device), [4, 4], wrapper=wrapper, page_size=1, causal=True)
    pages = Pages([25, 40], 1, KV_HEADS, DIM, torch.float16, device)
    for buffer, table in zip((wrapper._qo_indptr_buf, wrapper._paged_kv_indptr_buf, wrapper._paged_kv_indices_buf,
                              wrapper._paged_kv_last_page_len_buf), (starts([4, 4]), *pages.tables())):
        buffer[:len(table)].copy_(table)
    wrapper._batch_size, wrapper._max_q_len, wrapper._block_tables = 2, 4, None
    wrapper._cached_q_data_type = wrapper._cached_kv_data_type = "float16"
    wrapper._cached_o_data_type = o_data_type
    wrapper._plan_info = wrapper._cached_module.plan(
        wrapper._float_workspace_buffer, wrapper._int_workspace_buffer, wrapper._pin_memory_int_workspace_buffer, starts([4, 4]),
        pages.indptr, torch.tensor(pages.lengths, dtype=torch.int32), wrapper._max_total_num_rows, 2, HEADS, KV_HEADS, 1, True,
        DIM, DIM, True, -1, -1, False, 0, 0)
    q = randn(8, HEADS, DIM, device=device)
    out = wrapper.forward(q, pages.cache.unbind(1), causal=True, sm_scale=0.2, logits_soft_cap=0.0)
    check_prefill((out, wrapper.run(q, pages.cache, return_lse=True)[1]), q, [4, 4], pages.request,
                  plan={"causal": True, "sm_scale": 0.2})


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
    for dtype in torch.bool, torch.uint8, torch.float32:
        close(flashinfer.single_prefill_with_kv_cache(q, k, v, custom_mask=mask.to(dtype)), attention(q, k, v, mask=mask)[0])


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
    with pytest.raises(ValueError, match="page_size is 0, must be at least 1"):
        wrapper.plan([starts([batch]), starts([1] * batch)], counts, indices, [pages.last_page_len[:1], pages.last_page_len[1:]],
                     HEADS, KV_HEADS, DIM, 0)
    with pytest.raises(NotImplementedError, match="window_left"):
        wrapper.plan([starts([batch]), starts([1] * batch)], counts, indices, [pages.last_page_len[:1], pages.last_page_len[1:]],
                     HEADS, KV_HEADS, DIM, PAGE, window_left=3)


def test_cascade_with_fixed_buffers(device):
    shared, own, batch = 8, [5, 9], 2
    pages = Pages([shared] + own, PAGE, KV_HEADS, DIM, torch.float16, device)
    tables = ([starts([batch]), starts([1] * batch)], [starts([shared // PAGE]), pages.indptr[1:] - pages.indptr[1]],
              [pages.indices[:shared // PAGE], pages.indices[shared // PAGE:]],
              [torch.tensor([PAGE], dtype=torch.int32), pages.last_page_len[1:]])
    buffers = [[torch.zeros(len(t) + extra, dtype=torch.int32, device=device) for t in level] for level,
               extra in zip(tables, (0, 0, 9, 0))]
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace(device), "NHD", True, *buffers)
    wrapper.plan(*tables, HEADS, KV_HEADS, DIM, PAGE)
    q = randn(batch, HEADS, DIM, device=device)
    out = wrapper.run(q, pages.cache)
    assert wrapper.is_cuda_graph_enabled and torch.equal(buffers[1][1].cpu(), tables[1][1])
    for b in range(batch):
        k, v = (torch.cat(both) for both in zip(pages.request(0), pages.request(b + 1)))
        close(out[b:b + 1], attention(q[b:b + 1], k, v)[0])
    with pytest.raises(ValueError, match="paged_kv_indptr_arr has 1 tensors, and there are 2 levels"):
        wrapper.plan(tables[0], tables[1][:1], *tables[2:], HEADS, KV_HEADS, DIM, PAGE)
    with pytest.raises(ValueError, match="four lists of 2"):
        flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace(device), "NHD", True, *buffers[:3])


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


def test_batch_attention_plans_into_the_same_tables(device):
    """What a captured run() holds, its plan and where its tables lie, serves the tables of a later plan()."""
    wrapper, kept = flashinfer.BatchAttention("NHD", device), None
    tables = "_qo_indptr_buf", "_paged_kv_indptr_buf", "_paged_kv_indices_buf", "_paged_kv_last_page_len_buf"
    for qo_lens, kv_lens in (([1, 17, 1, 4], [5, 30, 1, 4]), ([4, 1, 17, 1], [9, 3, 300, 2])):
        pages = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.bfloat16, device)
        wrapper.plan(starts(qo_lens), *pages.tables()[:2], torch.tensor(kv_lens, dtype=torch.int32), HEADS, KV_HEADS, DIM, DIM,
                     PAGE, causal=True)
        inner = wrapper._wrapper
        held = inner._plan_info, [getattr(inner, name).data_ptr() for name in tables]
        kept = kept or held
        assert held[1] == kept[1]
        inner._plan_info = kept[0]
        q = randn(sum(qo_lens), HEADS, DIM, device=device, dtype=torch.bfloat16)
        check_prefill(wrapper.run(q, pages.cache), q, qo_lens, pages.request, torch.bfloat16, plan={"causal": True})
    room = flashinfer.attention._KeptTables.ROOM
    for name, length, moves in ((tables[2], room, False), (tables[2], room + 1, True), (tables[2], 2 * room, False)):
        before = inner._rooms[name]
        inner._set_buffer(name, torch.arange(length), True)
        assert (inner._rooms[name] is not before) == moves and any(before is one for one in inner._outgrown) == moves
        assert torch.equal(getattr(inner, name).cpu(), torch.arange(length, dtype=torch.int32))


def test_prefill_and_decode_in_one(device):
    pages, layout = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device, "HND"), "HND"
    q_p, q_d = randn(9, HEADS, DIM, device=device), randn(3, HEADS, DIM, device=device, seed=2)
    k_p, v_p = (randn(33, KV_HEADS, DIM, device=device, seed=n) for n in (3, 4))
    wrapper = flashinfer.PODWithPagedKVCacheWrapper(workspace(device), layout)
    wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE, sm_scale=0.3)
    mask = random_masks([9], [33])[0].to(device)
    out_p, (out_d, lse) = wrapper.run(q_p, k_p, v_p, q_d, pages.cache, causal_p=True, return_lse_d=True)
    close(out_p, attention(q_p, k_p, v_p, True)[0])
    check_decode((out_d, lse), q_d, pages, plan={"sm_scale": 0.3})
    out_p, again = wrapper.run(q_p, k_p, v_p, q_d, pages.cache, custom_mask_p=mask, sm_scale_p=0.2, sm_scale_d=0.3)
    close(out_p, attention(q_p, k_p, v_p, mask=mask, sm_scale=0.2)[0])
    assert torch.equal(again, out_d) and not wrapper.is_cuda_graph_enabled
    with pytest.raises(ValueError, match="sm_scale_d is 0.5"):
        wrapper.run(q_p, k_p, v_p, q_d, pages.cache, sm_scale_d=0.5)
    with pytest.raises(NotImplementedError, match="custom_mask_d"):
        wrapper.run(q_p, k_p, v_p, q_d, pages.cache, custom_mask_d=mask)


SCALES = {"q_scale": 0.5, "k_scale": 1.5, "v_scale": 0.25}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_scales_of_what_is_decoded(device, dtype):
    pages, shape = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, dtype, device), (HEADS, KV_HEADS, DIM, PAGE)
    q_p, q_d = randn(3, HEADS, DIM, device=device), randn(3, HEADS, DIM, device=device, seed=2)
    k_p, v_p = (randn(33, KV_HEADS, DIM, device=device, seed=n).to(dtype) for n in (3, 4))
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    decode.plan(*pages.tables(), *shape, kv_data_type=dtype)
    pod, batch = (cls(workspace(device)) for cls in (flashinfer.PODWithPagedKVCacheWrapper,
                                                     flashinfer.BatchPODWithPagedKVCacheWrapper))
    pod.plan(*pages.tables(), *shape, kv_data_type=dtype)
    batch.plan(starts([1, 1, 1]), *pages.tables(), starts([1, 1, 1]), *pages.tables(), *shape, kv_data_type=dtype)
    for scales in ({}, SCALES):
        expected = decode.run(q_d, pages.cache, **scales)
        prefilled, decoded = pod.run(q_p, k_p, v_p, q_d, pages.cache, causal_p=True, **scales)
        assert torch.equal(decoded, expected)
        close(prefilled, attention(q_p, k_p.to(q_p.dtype), v_p.to(q_p.dtype), True)[0])
        assert torch.equal(batch.run(q_p, pages.cache, q_d, pages.cache, **scales)[1], expected)


def test_prefill_and_decode_of_batches_in_one(device):
    qo_lens = [2, 17, 1]
    prefills, decodes = (Pages(lens, PAGE, KV_HEADS, DIM, torch.float16, device) for lens in ([5, 30, 1], [9, 2]))
    q_p, q_d = randn(20, HEADS, DIM, device=device), randn(2, HEADS, DIM, device=device, seed=2)
    wrapper = flashinfer.BatchPODWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(starts(qo_lens), *prefills.tables(), starts([1, 1]), *decodes.tables(), HEADS, KV_HEADS, DIM, PAGE)
    masks = random_masks(qo_lens, prefills.lengths)
    flat = torch.cat([m.reshape(-1) for m in masks]).to(device)
    for causal, mask in ((True, None), (False, None), (True, flat), (True, None)):
        (out_p, out_d), (lse_p, lse_d) = wrapper.run(q_p, prefills.cache, q_d, decodes.cache, custom_mask_p=mask,
                                                     causal_p=causal, return_lse=True)
        check_prefill((out_p, lse_p), q_p, qo_lens, prefills.request, masks=None if mask is None else masks,
                      plan={"causal": causal})
        check_decode((out_d, lse_d), q_d, decodes)
    assert torch.equal(wrapper.run(q_p, prefills.cache, q_d, decodes.cache, causal_p=True)[0], out_p)


def test_sink_wrapper(device):
    pages, qo_lens = Pages([5, 30, 1], PAGE, KV_HEADS, DIM, torch.float16, device), [2, 17, 1]
    wrapper = flashinfer.BatchAttentionWithAttentionSinkWrapper(workspace(device), q_data_type=torch.float16, window_left=6,
                                                                head_dim_qk=DIM)
    q, sinks = randn(20, HEADS, DIM, device=device), randn(HEADS, device=device, dtype=torch.float32, seed=5)
    for window in ({"window_left": 6}, {}):  # that of plan() counts
        wrapper.plan(starts(qo_lens), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True, **window)
        for sm_scale in (0.3, 0.2):
            check_prefill(wrapper.run(q, pages.cache, sinks, sm_scale, return_lse=True), q, qo_lens, pages.request,
                          plan={"causal": True, "sm_scale": sm_scale, **window}, sinks=sinks)


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
    with pytest.raises(ValueError, match="v has 39 rows"):
        wrapper.run(q, k, v[1:])
    with pytest.raises(ValueError, match="R is 0, must be at least 1"):
        wrapper.plan(indptr, indices, *sizes[:2], 0, *sizes[3:])


def test_block_sparse_with_a_mask(device):
    wrapper, indptr, indices, sizes, (q, k, v), dense, blocks = block_sparse(device)
    R, C = sizes[2:4]
    inner = torch.rand(len(indices), R, C, generator=torch.Generator().manual_seed(3)) < 0.7
    inner[:, :, 0] = True
    for n, (i, j) in enumerate(blocks.nonzero().tolist()):
        dense[i * R:(i + 1) * R, j * C:(j + 1) * C] = inner[n]
    wrapper.plan(indptr, indices, *sizes, mask=inner.to(device))
    close(wrapper.run(q, k, v), attention(q, k, v, mask=dense.to(device))[0])
    with pytest.raises(ValueError, match=r"mask has shape \[5, 8, 4\], must be \[blocks, R, C\], which is \[6, 4, 8\]"):
        wrapper.plan(indptr, indices, *sizes, mask=inner[:5].transpose(1, 2))


def test_variable_block_sparse(device):
    generator = torch.Generator().manual_seed(5)
    seen = torch.rand(KV_HEADS, 3, 4, generator=generator) < 0.6
    seen[:, :, 0] = True
    row_sizes, column_sizes = torch.tensor([[3, 5, 2], [4, 4, 2]]), torch.tensor([[6, 1, 8, 5], [5, 5, 5, 5]])
    q, k, v = (randn(h, n, DIM, device=device, seed=n + h) for h, n in ((HEADS, 10), (KV_HEADS, 20), (KV_HEADS, 20)))
    wrapper = flashinfer.VariableBlockSparseAttentionWrapper(workspace(device))
    for wrong, sentence in (((seen[:, :2], row_sizes, column_sizes, HEADS), r"map has shape \[2, 2, 4\], must be \[2, 3, 4"),
                            ((seen, row_sizes[:1], column_sizes, HEADS), r"block_row_sz has shape \[1, 3\], must be \[2, 3\]"),
                            ((seen, row_sizes, column_sizes, 7), "num_qo_heads is 7, must be a multiple of num_kv_heads, 2")):
        with pytest.raises(ValueError, match=sentence):
            wrapper.plan(*wrong, KV_HEADS, DIM)
    wrapper.plan(seen, row_sizes, column_sizes, HEADS, KV_HEADS, DIM)
    out, lse = wrapper.run(q, k, v, return_lse=True)
    for wrong, sentence in (((q.transpose(0, 1), k, v), rf"q has .* \[10, {HEADS}, {DIM}\], must be \[{HEADS}, 10, head_dim\]"),
                            ((q, k[:, 1:], v), "k has shape"), ((q, k, v[:1]), "v has shape"),
                            ((q, k, v, torch.stack([q, q])), "out has shape")):
        with pytest.raises(ValueError, match=sentence):
            wrapper.run(*wrong)
    group = HEADS // KV_HEADS
    for head in range(KV_HEADS):
        mask = seen[head].repeat_interleave(row_sizes[head], 0).repeat_interleave(column_sizes[head], 1).to(device)
        heads = slice(head * group, (head + 1) * group)
        expected, expected_lse = attention(q[heads].transpose(0, 1), k[head:head + 1].transpose(0, 1),
                                           v[head:head + 1].transpose(0, 1), mask=mask)
        close(out[heads].transpose(0, 1), expected)
        torch.testing.assert_close(lse[heads].t().double(), expected_lse, atol=1e-3, rtol=1e-3)


def block_tables(pages, device):
    """A rectangle whose unused entries name a page that is not there."""
    width = max(b - a for a, b in zip(pages.indptr.tolist(), pages.indptr[1:].tolist())) + 1
    table = torch.full((len(pages.lengths), width), 1 << 20, dtype=torch.int32)
    for b, (begin, end) in enumerate(zip(pages.indptr.tolist(), pages.indptr[1:].tolist())):
        table[b, :end - begin] = pages.indices[begin:end]
    return table.to(device), torch.tensor(pages.lengths, dtype=torch.int32, device=device)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_pages_in_a_rectangle(device, layout):
    pages = Pages([5, 30, 1, 8], PAGE, KV_HEADS, DIM, torch.float16, device, layout)
    rectangle, room = block_tables(pages, device), workspace(device)
    options = dict(max_seq_len=30, bmm1_scale=0.3, bmm2_scale=2.0, kv_layout=layout)
    for q_len in (1, 1, 2):
        if q_len == 2:
            pages = Pages([5, 30, 2, 8], PAGE, KV_HEADS, DIM, torch.float16, device, layout)
            rectangle = block_tables(pages, device)
        q = randn(4 * q_len, HEADS, DIM, device=device)
        out, lse = flashinfer.trtllm_batch_decode_with_kv_cache(q, pages.cache, room, *rectangle, q_len_per_req=q_len,
                                                                return_lse=True, **options)
        check_prefill((out / 2, lse), q, [q_len] * 4, pages.request, plan={"causal": True, "sm_scale": 0.3})
        again = flashinfer.decode.xqa_batch_decode_with_kv_cache(q, tuple(pages.cache.unbind(1)), room, *rectangle,
                                                                 q_len_per_req=q_len,
                                                                 **{**options, "bmm1_scale": torch.tensor([0.3], device=device)})
        torch.testing.assert_close(again, out)
    qo_lens = [3, 17, 1, 8]
    q = randn(sum(qo_lens), HEADS, DIM, device=device)
    qo_indptr = starts(qo_lens).to(device)
    result = flashinfer.prefill.trtllm_batch_context_with_kv_cache(q, pages.cache, room, *rectangle, 17, 30, 0.3, 1.0, 4,
                                                                   qo_indptr, starts(pages.lengths).to(device), 6,
                                                                   kv_layout=layout, return_lse=True)
    check_prefill(result, q, qo_lens, pages.request, plan={"causal": True, "sm_scale": 0.3, "window_left": 6})
    for refused in (dict(mask=q), dict(out_dtype="nvfp4"), dict(uses_shared_paged_kv_idx=False), dict(cp_world=2)):
        with pytest.raises(NotImplementedError):
            flashinfer.trtllm_batch_decode_with_kv_cache(q[:4], pages.cache, room, *rectangle, **options, **refused)
