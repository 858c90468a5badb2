# SPDX-License-Identifier: Apache-2.0
"""What a GPU alone shows: runs captured in CUDA graphs and replayed with other lengths, pages and masks, calls from threads."""

import concurrent.futures

import pytest
import torch

import flashinfer_c as fi
from attention_reference import (DIM, HEADS, KV_HEADS, PAGE, Pages, attention, check_decode, check_prefill, close, randn,
                                 random_masks, starts, workspace)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CUDA = "cuda"


def captured(run):
    """run() in a graph, after a run that loads what it needs, and what the captured run returned."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


def buffers(batch, pages):
    """qo_indptr, kv_indptr, kv_indices and kv_last_page_len of CUDA-graph mode."""
    return [torch.zeros(n, dtype=torch.int32, device=CUDA) for n in (batch + 1, batch + 1, pages, batch)]


def test_paged_prefill_in_a_graph():
    wrapper = fi.BatchPrefillWithPagedKVCacheWrapper(workspace(CUDA), "NHD", True, *buffers(3, 60))
    lengths = [40, 33, 18]
    pages, q = Pages(lengths, PAGE, KV_HEADS, DIM, torch.float16, CUDA), randn(20, HEADS, DIM, device=CUDA)
    wrapper.plan(starts([2, 17, 1]), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True)
    graph, (out, lse) = captured(lambda: wrapper.run(q, pages.cache, return_lse=True))
    for qo_lens, lengths in (([2, 17, 1], lengths), ([9, 1, 5], [40, 1, 18]), ([1, 1, 18], [5, 33, 18])):
        step = Pages(lengths, PAGE, KV_HEADS, DIM, torch.float16, CUDA)
        pages.cache[:len(step.cache)].copy_(step.cache)
        wrapper.plan(starts(qo_lens), *step.tables(), HEADS, KV_HEADS, DIM, PAGE, causal=True)
        q.copy_(randn(20, HEADS, DIM, device=CUDA, seed=sum(lengths)))
        graph.replay()
        rows = sum(qo_lens)
        check_prefill((out[:rows], lse[:rows]), q[:rows], qo_lens, step.request, plan={"causal": True})


def test_masks_in_a_graph():
    qo_lens, kv_lens = [3, 5, 2], [7, 13, 9]
    pages, q = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.float16, CUDA), randn(10, HEADS, DIM, device=CUDA)
    bits, indptr = torch.zeros(64, dtype=torch.uint8, device=CUDA), torch.zeros(4, dtype=torch.int32, device=CUDA)
    wrapper = fi.BatchPrefillWithPagedKVCacheWrapper(workspace(CUDA), "NHD", True, *buffers(3, 20), bits, indptr)
    masks = random_masks(qo_lens, kv_lens)
    graph = None
    for flip in (False, True):
        masks = [m ^ (flip & (torch.arange(m.shape[1]) > 0)) for m in masks]
        wrapper.plan(starts(qo_lens), *pages.tables(), HEADS, KV_HEADS, DIM, PAGE,
                     custom_mask=torch.cat([m.reshape(-1) for m in masks]).to(CUDA))
        if graph is None:
            graph, result = captured(lambda: wrapper.run(q, pages.cache, return_lse=True))
        graph.replay()
        check_prefill(result, q, qo_lens, pages.request, masks=masks)


def test_ragged_prefill_in_a_graph():
    kv_indptr, qo_indptr = (torch.zeros(3, dtype=torch.int32, device=CUDA) for _ in range(2))
    wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper(workspace(CUDA), "NHD", True, qo_indptr, kv_indptr)
    q, k, v = (randn(n, h, DIM, device=CUDA, seed=h + n) for n, h in ((20, HEADS), (40, KV_HEADS), (40, KV_HEADS)))
    graph = None
    for qo_lens, kv_lens in (([3, 17], [3, 37]), ([10, 1], [19, 21]), ([1, 1], [1, 39])):
        wrapper.plan(starts(qo_lens), starts(kv_lens), HEADS, KV_HEADS, DIM, causal=True)
        if graph is None:
            graph, (out, lse) = captured(lambda: wrapper.run(q, k, v, return_lse=True))
        graph.replay()
        rows, at = sum(qo_lens), starts(kv_lens).tolist()
        check_prefill((out[:rows], lse[:rows]), q[:rows], qo_lens, lambda b: (k[at[b]:at[b + 1]], v[at[b]:at[b + 1]]),
                      plan={"causal": True})


def test_cascade_in_a_graph():
    batch, q = 2, randn(2, HEADS, DIM, device=CUDA)
    levels = [[torch.zeros(n, dtype=torch.int32, device=CUDA) for n in both] for both in ((2, 3), (2, 3), (8, 12), (1, 2))]
    wrapper = fi.MultiLevelCascadeAttentionWrapper(2, workspace(CUDA), "NHD", True, *levels)
    graph, cache = None, torch.zeros(30, 2, PAGE, KV_HEADS, DIM, dtype=torch.float16, device=CUDA)
    for shared, own in ((8, [5, 9]), (4, [17, 1])):
        pages = Pages([shared] + own, PAGE, KV_HEADS, DIM, torch.float16, CUDA)
        cache[:len(pages.cache)].copy_(pages.cache)
        first = shared // PAGE
        wrapper.plan([starts([batch]), starts([1] * batch)], [starts([first]), pages.indptr[1:] - pages.indptr[1]],
                     [pages.indices[:first], pages.indices[first:]],
                     [torch.tensor([PAGE], dtype=torch.int32), pages.last_page_len[1:]], HEADS, KV_HEADS, DIM, PAGE)
        if graph is None:
            graph, out = captured(lambda: wrapper.run(q, cache))
        graph.replay()
        for b in range(batch):
            k, v = (torch.cat(both) for both in zip(pages.request(0), pages.request(b + 1)))
            close(out[b:b + 1], attention(q[b:b + 1], k, v)[0])


def test_batch_attention_in_a_graph():
    wrapper, graph = fi.BatchAttention("NHD", CUDA), None
    cache = torch.zeros(100, 2, PAGE, KV_HEADS, DIM, dtype=torch.bfloat16, device=CUDA)
    q = torch.zeros(23, HEADS, DIM, dtype=torch.bfloat16, device=CUDA)
    for qo_lens, kv_lens in (([1, 17, 1, 4], [5, 30, 1, 4]), ([4, 1, 17, 1], [9, 3, 300, 2])):
        pages = Pages(kv_lens, PAGE, KV_HEADS, DIM, torch.bfloat16, CUDA)
        wrapper.plan(starts(qo_lens), *pages.tables()[:2], torch.tensor(kv_lens, dtype=torch.int32), HEADS, KV_HEADS, DIM, DIM,
                     PAGE, causal=True)
        if graph is None:
            graph, result = captured(lambda: wrapper.run(q, cache))
        cache[:len(pages.cache)].copy_(pages.cache)
        q.copy_(randn(len(q), HEADS, DIM, device=CUDA, dtype=torch.bfloat16, seed=5))
        graph.replay()
        check_prefill(result, q, qo_lens, pages.request, torch.bfloat16, plan={"causal": True})


def test_prefill_and_decode_in_a_graph():
    heads, kv_heads, dim, page, length, tokens = 32, 8, 128, 16, 4096, 2048
    lengths = [length] * 15 + [17]
    shape, types = (heads, kv_heads, dim, page), {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
    decodes = Pages(lengths, page, kv_heads, dim, torch.bfloat16, CUDA)
    prefills = Pages([tokens, tokens - 5], page, kv_heads, dim, torch.bfloat16, CUDA)
    q_p = randn(2 * tokens - 5, heads, dim, device=CUDA, dtype=torch.bfloat16)
    q_d = randn(len(lengths), heads, dim, device=CUDA, dtype=torch.bfloat16, seed=2)
    k, v = prefills.request(0)
    decode, prefill, pod, batch = (cls(torch.empty(128 << 20, dtype=torch.uint8, device=CUDA)) for cls in (
        fi.BatchDecodeWithPagedKVCacheWrapper, fi.BatchPrefillWithPagedKVCacheWrapper, fi.PODWithPagedKVCacheWrapper,
        fi.BatchPODWithPagedKVCacheWrapper))
    indptr = starts([tokens, tokens - 5])
    decode.plan(*decodes.tables(), *shape, **types)
    prefill.plan(indptr, *prefills.tables(), *shape, causal=True, **types)
    pod.plan(*decodes.tables(), *shape, **types)
    batch.plan(indptr, *prefills.tables(), starts([1] * len(lengths)), *decodes.tables(), *shape, **types)

    def run():
        return (*pod.run(q_p[:tokens], k, v, q_d, decodes.cache, causal_p=True),
                *batch.run(q_p, prefills.cache, q_d, decodes.cache, causal_p=True))
    alone, of_all = fi.single_prefill_with_kv_cache(q_p[:tokens], k, v, causal=True), prefill.run(q_p, prefills.cache)
    graph, again = captured(run)
    eager = run()
    for result in again:
        result.zero_()
    graph.replay()
    for one, two in zip(eager, again, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(eager[0], alone) and torch.equal(eager[2], of_all)
    for decoded in eager[1], eager[3]:
        assert torch.equal(decoded, decode.run(q_d, decodes.cache))


@pytest.mark.parametrize("function", ["trtllm_batch_decode_with_kv_cache", "xqa_batch_decode_with_kv_cache"])
def test_rectangles_in_a_graph(function):
    """Page tables and lengths change in place between replays."""
    function, room = getattr(fi, function), workspace(CUDA)
    table, lengths = torch.zeros(3, 10, dtype=torch.int32, device=CUDA), torch.ones(3, dtype=torch.int32, device=CUDA)
    cache, q = torch.zeros(30, 2, PAGE, KV_HEADS, DIM, dtype=torch.float16, device=CUDA), randn(3, HEADS, DIM, device=CUDA)
    graph, out = captured(lambda: function(q, cache, room, table, lengths, 40, 0.3, kv_layout="NHD"))
    for lens in ([5, 30, 1], [17, 2, 40]):
        pages = Pages(lens, PAGE, KV_HEADS, DIM, torch.float16, CUDA)
        cache[:len(pages.cache)].copy_(pages.cache)
        lengths.copy_(torch.tensor(lens))
        for b in range(3):
            begin, end = pages.indptr[b:b + 2].tolist()
            table[b, :end - begin] = pages.indices[begin:end].to(CUDA)
        graph.replay()
        for b in range(3):
            close(out[b:b + 1], attention(q[b:b + 1], *pages.request(b), sm_scale=0.3)[0])


def test_sampling_in_a_graph():
    """Seeds of a captured call are tensors that change between replays: torch gives none during a capture."""
    probs = torch.full((500, 8), 0.125, device=CUDA)
    seed, offset = (torch.tensor([n], dtype=torch.int64, device=CUDA) for n in (7, 0))
    graph, samples = captured(lambda: fi.top_k_top_p_sampling_from_probs(probs, 4, 0.9, seed=seed, offset=offset))
    drawn = []
    for n in (0, 32, 0):
        offset.fill_(n)
        graph.replay()
        drawn.append(samples.clone())
    assert drawn[0].equal(drawn[2]) and not drawn[0].equal(drawn[1])
    assert drawn[0].equal(fi.top_k_top_p_sampling_from_probs(probs, 4, 0.9, seed=7, offset=0))


def test_threads_with_streams_of_their_own():
    def work(seed):
        pages, q = Pages([70, 9], PAGE, KV_HEADS, DIM, torch.float16, CUDA), randn(2, HEADS, DIM, device=CUDA, seed=seed)
        with torch.cuda.stream(torch.cuda.Stream()):
            wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(workspace(CUDA))
            for _ in range(20):
                wrapper.plan(*pages.tables(), HEADS, KV_HEADS, DIM, PAGE)
                result = wrapper.run(q, pages.cache, return_lse=True)
            torch.cuda.current_stream().synchronize()
            check_decode(result, q, pages)

    torch.cuda.synchronize()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_memory_comes_from_torch():
    """What a call allocates, workspace too, is torch's again after it."""
    x, w = torch.randn(8, 4096, device=CUDA).bfloat16(), torch.ones(4096, device=CUDA).bfloat16()
    bits, indptr = torch.ones(5000, device=CUDA, dtype=torch.bool), torch.arange(0, 5001, 50, device=CUDA, dtype=torch.int32)
    calls = (lambda: fi.rmsnorm(x, w), lambda: fi.segment_packbits(bits, indptr, "little"), lambda: fi.softmax(x.float()))
    for call in calls:
        call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for call in calls:
        for _ in range(50):
            call()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
