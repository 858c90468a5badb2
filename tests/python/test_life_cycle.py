# SPDX-License-Identifier: Apache-2.0
"""What every wrapper has to do besides attention, which the other tests compare with its definition: plan again, run in a CUDA
graph and on a stream beside another wrapper's with the bits of a plain run, and refuse copies and runs before a plan.
"""

import copy
import functools
import inspect
import pickle

import pytest
import torch

import flashinfer_c as fi
from attention_reference import DIM, HEADS, KV_HEADS, PAGE, Pages, randn, starts, workspace

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SHAPE = HEADS, KV_HEADS, DIM, PAGE
QO_LENS = [2, 17, 1]
LIVES = {}


def life(name):
    """A function of (class, device, seed) that makes a wrapper and returns it, plan(step) and run(step): of two steps, whose
    lengths and tables differ."""

    def decorate(function):
        LIVES[name] = functools.partial(function, getattr(fi, name, None) or getattr(fi.cascade, name))
        return function

    return decorate


def steps(device, seed, *lengths, dtype=torch.float16):
    """A cache and its page table for each step."""
    return [Pages(each, PAGE, KV_HEADS, DIM, dtype, device, generator=torch.Generator().manual_seed(seed)) for each in lengths]


def tensors(device, seed, *shapes, dtype=torch.float16):
    return [randn(*shape, device=device, seed=10 * seed + n, dtype=dtype) for n, shape in enumerate(shapes)]


@life("BatchDecodeWithPagedKVCacheWrapper")
def decode(cls, device, seed):
    wrapper, pages = cls(workspace(device)), steps(device, seed, [5, 9, 30], [17, 1, 2])
    q, = tensors(device, seed, (3, HEADS, DIM))
    return wrapper, lambda i: wrapper.plan(*pages[i].tables(), *SHAPE), lambda i: wrapper.run(q, pages[i].cache, return_lse=True)


@life("CUDAGraphBatchDecodeWithPagedKVCacheWrapper")
def decode_of_graphs(cls, device, seed):
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (4, 40, 3)]
    return decode(lambda buffer: cls(buffer, *buffers), device, seed)


@life("BatchPrefillWithPagedKVCacheWrapper")
def paged(cls, device, seed, *further):
    wrapper, pages = cls(workspace(device)), steps(device, seed, [5, 30, 1], [9, 18, 40])
    q, = tensors(device, seed, (sum(QO_LENS), HEADS, DIM))
    return (wrapper, lambda i: wrapper.plan(starts(QO_LENS), *pages[i].tables(), *SHAPE, causal=True),
            lambda i: wrapper.run(q, pages[i].cache, *further, return_lse=True))


@life("BatchAttentionWithAttentionSinkWrapper")
def with_sinks(cls, device, seed):
    sinks, = tensors(device, seed + 1, (HEADS, ), dtype=torch.float32)
    return paged(lambda buffer: cls(buffer, q_data_type=torch.float16, head_dim_qk=DIM), device, seed, sinks, 0.3)


@life("BatchPrefillWithRaggedKVCacheWrapper")
def ragged(cls, device, seed):
    wrapper, lengths = cls(workspace(device)), ([5, 30, 5], [12, 20, 8])
    q, k, v = tensors(device, seed, (sum(QO_LENS), HEADS, DIM), (40, KV_HEADS, DIM), (40, KV_HEADS, DIM))
    return (wrapper, lambda i: wrapper.plan(starts(QO_LENS), starts(lengths[i]), *SHAPE[:3], causal=True),
            lambda i: wrapper.run(q, k, v, return_lse=True))


@life("BatchAttention")
def batch_attention(cls, device, seed):
    wrapper = cls("NHD", device)
    pages = steps(device, seed, [5, 30, 1], [9, 18, 40], dtype=torch.bfloat16)
    q, = tensors(device, seed, (sum(QO_LENS), HEADS, DIM), dtype=torch.bfloat16)

    def plan(i):
        lengths = torch.tensor(pages[i].lengths, dtype=torch.int32)
        wrapper.plan(starts(QO_LENS), *pages[i].tables()[:2], lengths, HEADS, KV_HEADS, DIM, DIM, PAGE)

    return wrapper, plan, lambda i: wrapper.run(q, pages[i].cache)


@life("MultiLevelCascadeAttentionWrapper")
def cascade(cls, device, seed):
    wrapper, pages = cls(2, workspace(device)), steps(device, seed, [12, 5, 9, 1], [8, 17, 1, 2])
    q, = tensors(device, seed, (3, HEADS, DIM))

    def plan(i):
        indptr, indices, last_page_len = pages[i].tables()
        wrapper.plan([starts([3]), starts([1] * 3)], [indptr[:2], indptr[1:] - indptr[1]],
                     [indices[:indptr[1]], indices[indptr[1]:]], [last_page_len[:1], last_page_len[1:]], *SHAPE)

    return wrapper, plan, lambda i: (wrapper.run(q, pages[i].cache), )


@life("BatchDecodeWithSharedPrefixPagedKVCacheWrapper")
def shared_decode(cls, device, seed, *qo_indptr):
    wrapper, pages = cls(workspace(device)), steps(device, seed, [5, 9, 30], [17, 1, 2])
    q, k, v = tensors(device, seed, (3, HEADS, DIM), (11, KV_HEADS, DIM), (11, KV_HEADS, DIM))
    return (wrapper, lambda i: wrapper.begin_forward(*qo_indptr, *pages[i].tables(), *SHAPE),
            lambda i: (wrapper.forward(q, k, v, pages[i].cache), ))


@life("BatchPrefillWithSharedPrefixPagedKVCacheWrapper")
def shared_prefill(cls, device, seed):
    return shared_decode(cls, device, seed, starts([1, 1, 1]))


@life("PODWithPagedKVCacheWrapper")
def pod(cls, device, seed):
    wrapper, pages = cls(workspace(device)), steps(device, seed, [5, 9, 30], [17, 1, 2])
    q_p, k_p, v_p, q_d = tensors(device, seed, (9, HEADS, DIM), (33, KV_HEADS, DIM), (33, KV_HEADS, DIM), (3, HEADS, DIM))
    return (wrapper, lambda i: wrapper.plan(*pages[i].tables(), *SHAPE),
            lambda i: wrapper.run(q_p, k_p, v_p, q_d, pages[i].cache, causal_p=True))


@life("BatchPODWithPagedKVCacheWrapper")
def batch_pod(cls, device, seed):
    wrapper, prefills = cls(workspace(device)), steps(device, seed, [5, 30, 1], [9, 18, 40])
    decodes = steps(device, seed + 1, [5, 9, 30], [17, 1, 2])
    q_p, q_d = tensors(device, seed, (sum(QO_LENS), HEADS, DIM), (3, HEADS, DIM))
    return (wrapper,
            lambda i: wrapper.plan(starts(QO_LENS), *prefills[i].tables(), starts([1] * 3), *decodes[i].tables(), *SHAPE),
            lambda i: wrapper.run(q_p, prefills[i].cache, q_d, decodes[i].cache, causal_p=True))


@life("BlockSparseAttentionWrapper")
def block_sparse(cls, device, seed):
    wrapper, rows, columns = cls(workspace(device)), 4, 8
    matrices = [torch.rand(3, 5, generator=torch.Generator().manual_seed(n)) < 0.6 for n in (1, 2)]
    q, k, v = tensors(device, seed, (3 * rows, HEADS, DIM), (5 * columns, KV_HEADS, DIM), (5 * columns, KV_HEADS, DIM))
    return (wrapper, lambda i: wrapper.plan(starts(matrices[i].sum(1).tolist()), matrices[i].nonzero()[:, 1].int(), 3 * rows,
                                            5 * columns, rows, columns, *SHAPE[:3]),
            lambda i: wrapper.run(q, k, v, return_lse=True))


@life("VariableBlockSparseAttentionWrapper")
def variable_block_sparse(cls, device, seed):
    wrapper = cls(workspace(device))
    matrices = [torch.rand(KV_HEADS, 3, 4, generator=torch.Generator().manual_seed(n)) < 0.6 for n in (1, 2)]
    sizes = torch.tensor([[3, 5, 2], [4, 4, 2]]), torch.tensor([[6, 1, 8, 5], [5, 5, 5, 5]])
    q, k, v = tensors(device, seed, (HEADS, 10, DIM), (KV_HEADS, 20, DIM), (KV_HEADS, 20, DIM))
    return (wrapper, lambda i: wrapper.plan(matrices[i], *sizes, *SHAPE[:3]), lambda i: wrapper.run(q, k, v, return_lse=True))


def same(found, expected):
    return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected))


def alone(name, device, seed, step):
    """What a wrapper that was never used before gives."""
    _, plan, run = LIVES[name](device, seed)
    plan(step)
    return run(step)


def test_every_wrapper_is_here():
    wrappers = {name for module in (fi, fi.cascade) for name, value in vars(module).items()
                if inspect.isclass(value) and not name.startswith("_") and hasattr(value, "end_forward")}
    assert wrappers | {"BatchAttention"} == set(LIVES)


@pytest.mark.parametrize("name", LIVES)
def test_plans_again(device, name):
    _, plan, run = LIVES[name](device, 1)
    expected = [alone(name, device, 1, step) for step in (0, 1)]
    for step in (0, 1, 1, 0):
        plan(step)
        for _ in range(2):
            assert same(run(step), expected[step])


@pytest.mark.parametrize("name", LIVES)
def test_runs_before_a_plan_are_refused(device, name):
    with pytest.raises(RuntimeError, match=r"call (plan|begin_forward)\(\) before (run|forward)\(\)"):
        LIVES[name](device, 1)[2](0)


@pytest.mark.parametrize("name", LIVES)
def test_copies_are_refused(device, name):
    wrapper = LIVES[name](device, 1)[0]
    wrapper.of_an_engine = True
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            way(wrapper)


@on_gpu
@pytest.mark.parametrize("name", LIVES)
def test_in_a_graph(name):
    _, plan, run = LIVES[name]("cuda", 1)
    for step in (0, 1):
        plan(step)
        expected = [t.clone() for t in run(step)]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run(step)
        for _ in range(2):
            for t in found:
                t.zero_()
            graph.replay()
            assert same(found, expected)


@on_gpu
@pytest.mark.parametrize("name", LIVES)
def test_two_on_two_streams(name):
    lives, streams, found = [LIVES[name]("cuda", seed) for seed in (1, 2)], [torch.cuda.Stream() for _ in range(2)], [[], []]
    expected = [alone(name, "cuda", seed, 0) for seed in (1, 2)]
    for _, plan, run in lives:
        plan(0)
        run(0)
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, (_, _, run), results in zip(streams, lives, found):
            with torch.cuda.stream(stream):
                results.append(run(0))
    torch.cuda.synchronize()
    for results, bits in zip(found, expected):
        assert all(same(result, bits) for result in results)
