#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times ops against upstream FlashInfer, torch.compile and torch's copy_ on the same GPU, in turn in the same run.

Usage: tools/gpu/compare_upstream.py [--flashinfer build/flashinfer] [--package] [--rounds 3] [--kernel NAME] [--only REGEX]
                                     [--no-pdl] [--csv FILE] [--dry] [FAMILY...]
       families: copy norm compiled activation rope page decode prefill fa2 merge cascade pod; default: all
       --package: norm, compiled, activation, rope, page and merge call our Python package on the peer's very tensors, in place of
       `flashinfer bench`, which fills its own on the host
       fa2 is batch_prefill_sm80 beside upstream's kernel of that name; cascade and pod need our Python package on PYTHONPATH,
       too; pod is timed by loops of calls, as upstream's cannot be captured
       --only: rows whose op and shape match
       --dry prints our commands and needs neither a GPU nor Python packages

Both sides are timed as `flashinfer bench` does it: nodes of a CUDA graph between two events, over copies of the tensors that are
together larger than three times the L2, 15 launches, median. Both launch with programmatic dependent launch where they can;
--no-pdl: neither does. A round times each side once; the median of the rounds counts. ratio is upstream's time over ours: above 1
ours is faster. GB/s and TFLOP/s are ours; "of copy" is GB/s over the better of torch's copy_ and cuMemcpyDtoD of 1 GiB; with
--package, "copy us" is what copy_ takes for as many bytes, read and written, and "of its copy" that over ours.
"""

import argparse
import csv
import gc
import importlib
import inspect
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # its workers take longer to start than what is compiled here

CACHES, MAX_COPIES, MAX_BYTES, MIN_NODES, LAUNCHES = 3, 200, 6e9, 24, 15  # those of src/harness/bench_time.c
MIN_CALLS = 8  # of a loop in place of a graph
COLUMNS = ["op", "shape", "peer", "ours us", "upstream us", "ratio", "GB/s", "of copy", "copy us", "of its copy", "TFLOP/s",
           "upstream GB/s", "upstream TFLOP/s", "kernel", "error"]
SAID = ("ours us", "upstream us", "ratio", "of copy", "of its copy")
# Of gpt-oss (2880), Llama 8B (4096, 14336), Qwen3 32B (5120, 25600), DeepSeek-V3 (7168, 18432), Llama 70B (8192, 28672)
NORM_SHAPES = [(1, 4096), (128, 8192), (2048, 4096), (8192, 8192), (16384, 4096), (64, 2880), (64, 5120), (64, 7168),
               (8192, 2880), (8192, 5120), (4096, 7168)]
GATED_SHAPES = [(1, 14336), (4096, 14336), (16384, 4096), (128, 14336), (128, 28672), (4096, 28672), (4096, 2880), (4096, 25600),
                (4096, 18432)]
ROPE_SHAPES = [(1, 32, 8, 128), (4096, 32, 8, 128), (16384, 32, 8, 128), (128, 32, 8, 128), (4096, 64, 8, 128), (4096, 64, 8, 64),
               (4096, 64, 4, 128)]
HEADS = [(16, 16, 128), (32, 8, 128), (32, 32, 64), (8, 8, 256)]
DECODE = [(1, 1024, 32, 8, 128, 16), (1, 131072, 32, 8, 128, 16), (8, 4096, 32, 8, 128, 16), (32, 4096, 32, 8, 128, 1),
          (32, 4096, 32, 8, 128, 16), (32, 4096, 32, 8, 128, 64), (32, 4096, 64, 8, 128, 16), (128, 1024, 32, 8, 128, 16),
          (32, 4096, 32, 32, 128, 16), (32, 4096, 32, 8, 64, 16), (32, 4096, 16, 8, 256, 16)]
MERGED = [(1, 8, 32, 128), (128, 8, 32, 128), (4096, 8, 32, 128), (4096, 2, 32, 128), (16384, 4, 16, 64)]
CASCADES = [(256, 32768, 128, 32, 8, 128), (256, 32768, 1024, 32, 8, 128), (16, 8192, 256, 32, 8, 128)]
PODS = [(2048, 2048, 32, 4096), (8192, 8192, 32, 4096), (8192, 8192, 128, 8192), (2048, 2048, 128, 4096), (512, 8192, 64, 4096),
        (512, 4096, 32, 2048)]


class Case:
    """One line of the table: our command, and `make`, which returns a function that calls the peer once on tensors of its own.

    kernel: the one of ours. own: what `make` is, for what is ours: calls of the Python package in place of a command. size: bytes
    of the tensors; moved: those read and written, if they are not as many. eager: a loop of calls in place of a graph.
    """

    def __init__(self, op, shape, peer, ours, make, size, kernel=None, own=None, moved=None, eager=False):
        self.op, self.shape, self.peer, self.ours, self.make, self.size = op, shape, peer, ours, make, size
        self.kernel, self.own, self.moved, self.eager = kernel, own, moved or size, eager


class Call:
    """A call of the peer and, where the package has a function of that name, ours on the same tensors."""

    def __init__(self, peer, ours):
        self.peer, self.ours = peer, ours

    def __call__(self):
        return self.peer()


class Loop:
    """Calls in the place of a graph."""

    def __init__(self, calls, nodes):
        self.calls, self.nodes = calls, nodes

    def replay(self):
        for i in range(self.nodes):
            self.calls[i % len(self.calls)]()


class Upstream:
    """What calls of the peers need: torch, flashinfer and tensors. Made only where they are called."""

    def __init__(self, pdl, package=False):
        self.torch = importlib.import_module("torch")
        self.flashinfer = importlib.import_module("flashinfer")
        self.bf16, self.pdl = self.torch.bfloat16, pdl
        self.torch.manual_seed(0)
        self.l2 = self.torch.cuda.get_device_properties(0).L2_cache_size
        self.package = importlib.import_module("flashinfer_c") if package else None
        self.wrappers, self.copies = {}, {}

    def bind(self, function, arguments, named):
        """The function with its arguments bound, and enable_pdl if it knows that."""
        if "enable_pdl" in inspect.signature(function).parameters:
            named = named | {"enable_pdl": self.pdl}
        return lambda: function(*arguments, **named)

    def call(self, function, *arguments, peer=None, **named):
        """A call of the peer's function, or of `peer`, and of ours of that name."""
        ours = getattr(self.package, function.__name__, None)
        return Call(peer or self.bind(function, arguments, named), ours and self.bind(ours, arguments, named))

    def normal(self, *shape):
        return self.torch.randn(*shape, device="cuda", dtype=self.bf16)

    def integers(self, values):
        return self.torch.tensor(values, device="cuda", dtype=self.torch.int32)

    def workspace(self):
        return self.torch.empty(512 << 20, dtype=self.torch.uint8, device="cuda")

    def time(self, graph, nodes):
        """Seconds of a node."""
        samples = []
        for i in range(-2, LAUNCHES):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            if i >= 0:
                samples.append(begin.elapsed_time(end) * 1e-3 / nodes)
        return statistics.median(samples)

    def capture(self, case, make):
        """A graph that calls what `make` returns on copies of its tensors in turn, and its number of nodes."""
        count = max(1, int(min(CACHES * self.l2 / case.size + 1, MAX_COPIES, MAX_BYTES / case.size)))
        calls = [make(self) for _ in range(count)]
        nodes = -(-(MIN_CALLS if case.eager else MIN_NODES) // count) * count
        stream = self.torch.cuda.Stream()
        stream.wait_stream(self.torch.cuda.current_stream())
        begun = time.perf_counter()
        with self.torch.cuda.stream(stream):
            for call in calls[:3]:
                call()
        self.torch.cuda.synchronize()
        if time.perf_counter() - begun > 1:
            say(f"  {case.peer}: first call took {time.perf_counter() - begun:.1f} s")
        if case.eager:
            return Loop(calls, nodes), nodes, calls
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph, stream=stream):
            for i in range(nodes):
                calls[i % count]()
        self.torch.cuda.synchronize()
        return graph, nodes, calls  # the graph reads the tensors that the calls hold

    def copy_time(self, size):
        """Seconds of torch's copy_ that reads and writes so many bytes."""
        def make(up):
            x = up.normal(size // 4)
            out = up.torch.empty_like(x)
            return lambda: out.copy_(x)
        if size not in self.copies:
            captured = self.capture(Case("copy", f"{size} bytes", "torch copy_", None, make, size), make)
            self.copies[size] = self.time(*captured[:2])
        return self.copies[size]

    def paged(self, batch, length, heads, dim, page_size):
        """A cache of both K and V, and on the host its indptr, page numbers in random order and last page lengths."""
        pages = -(-length // page_size)
        cache = self.normal(batch * pages, 2, page_size, heads, dim)
        indptr = self.torch.arange(0, batch * pages + 1, pages, dtype=self.torch.int32)
        last = self.torch.full((batch,), (length - 1) % page_size + 1, dtype=self.torch.int32)
        return cache, indptr, self.torch.randperm(batch * pages).int(), last

    def planned(self, key, make_wrapper, **plan):
        """The wrapper of that shape, planned once: its copies differ in their tensors only."""
        if key not in self.wrappers:
            self.wrappers.clear()
            self.wrappers[key] = make_wrapper()
            self.wrappers[key].plan(**plan)
        return self.wrappers[key]


def say(text):
    print(text, file=sys.stderr, flush=True)


def copy_cases():
    def make(rows, hidden):
        def one(up):
            x = up.normal(rows, hidden)
            out = up.torch.empty_like(x)
            return lambda: out.copy_(x)
        return one
    for rows, hidden in NORM_SHAPES:
        yield Case("copy", f"{rows}x{hidden}", "torch copy_", None, make(rows, hidden), 4 * rows * hidden)


def norm_cases():
    def rmsnorm(hidden, *leading):
        def one(up):
            x, weight = up.normal(*leading, hidden), up.normal(hidden)
            return up.call(up.flashinfer.rmsnorm, x, weight, out=up.torch.empty_like(x))
        return one

    def fused(rows, hidden):
        def one(up):
            x, residual, weight = up.normal(rows, hidden), up.normal(rows, hidden), up.normal(hidden)
            return up.call(up.flashinfer.fused_add_rmsnorm, x, residual, weight)
        return one

    def layernorm(rows, hidden):
        def one(up):
            gamma, beta = (up.normal(hidden).float() for _ in range(2))
            return up.call(up.flashinfer.layernorm, up.normal(rows, hidden), gamma, beta)
        return one

    def quantized(op, weights, rows, hidden):
        def one(up):
            out = up.torch.empty(rows, hidden, device="cuda", dtype=up.torch.float8_e4m3fn)
            weight = [up.normal(hidden).float() if weights > 1 else up.normal(hidden) for _ in range(weights)]
            scale = up.torch.full((1,), 0.5, device="cuda")  # a number is copied to the device, which no graph can capture
            return up.call(getattr(up.flashinfer, op), out, up.normal(rows, hidden), *weight, scale)
        return one

    for rows, hidden in NORM_SHAPES:
        ours, size, shape = [f"rows={rows}", f"hidden={hidden}", "dtype=bf16"], rows * hidden, f"{rows}x{hidden}"
        yield Case("rmsnorm", shape, "flashinfer", ["rmsnorm", *ours], rmsnorm(hidden, rows), 4 * size)
        yield Case("fused_add_rmsnorm", shape, "flashinfer", ["fused_add_rmsnorm", *ours, "residual:dtype=bf16"],
                   fused(rows, hidden), 4 * size, moved=8 * size)
    for rows, hidden in [(1, 4096), (128, 8192), (8192, 4096), (8192, 8192)]:
        ours, size, shape = [f"rows={rows}", f"hidden={hidden}", "dtype=bf16"], rows * hidden, f"{rows}x{hidden}"
        yield Case("layernorm", shape, "flashinfer", ["layernorm", *ours], layernorm(rows, hidden), 4 * size)
        for op, weights in ("layernorm_quant", 2), ("rmsnorm_quant", 1):
            yield Case(op, shape, "flashinfer", [op, *ours], quantized(op, weights, rows, hidden), 3 * size)
    yield Case("rmsnorm", "8192x32x128", "flashinfer", ["rmsnorm", f"rows={8192 * 32}", "hidden=128", "dtype=bf16"],
               rmsnorm(128, 8192, 32), 4 * 8192 * 32 * 128)


def compiled_cases():
    def compiled(rows, hidden):
        def one(up):
            key = ("rms_norm", rows, hidden)
            if key not in up.wrappers:
                up.wrappers.clear()
                up.torch.compiler.reset()  # beyond eight shapes of a function it would run what is not compiled
                functional = up.torch.nn.functional
                up.wrappers[key] = up.torch.compile(lambda x, weight: functional.rms_norm(x, (hidden,), weight), dynamic=False)
            x, weight, compiled = up.normal(rows, hidden), up.normal(hidden), up.wrappers[key]
            return up.call(up.flashinfer.rmsnorm, x, weight, out=up.torch.empty_like(x), peer=lambda: compiled(x, weight))
        return one

    for rows, hidden in NORM_SHAPES:
        yield Case("rmsnorm", f"{rows}x{hidden}", "torch.compile", ["rmsnorm", f"rows={rows}", f"hidden={hidden}", "dtype=bf16"],
                   compiled(rows, hidden), 4 * rows * hidden)


def activation_cases():
    def make(rows, hidden):
        def one(up):
            x = up.normal(rows, 2 * hidden)
            return up.call(up.flashinfer.silu_and_mul, x, out=up.torch.empty(rows, hidden, device="cuda", dtype=up.bf16))
        return one
    for rows, hidden in GATED_SHAPES:
        yield Case("silu_and_mul", f"{rows}x{hidden}", "flashinfer",
                   ["silu_and_mul", f"rows={rows}", f"intermediate={hidden}", "dtype=bf16"], make(rows, hidden),
                   6 * rows * hidden)


def rope_cases():
    def make(tokens, qo_heads, kv_heads, dim):
        def one(up):
            q, k = up.normal(tokens, qo_heads, dim), up.normal(tokens, kv_heads, dim)
            return up.call(up.flashinfer.apply_rope_pos_ids_inplace, q, k, up.integers(range(tokens)))
        return one
    for tokens, qo_heads, kv_heads, dim in ROPE_SHAPES:
        yield Case("apply_rope_pos_ids_inplace", f"{tokens} tokens {qo_heads}/{kv_heads}x{dim}", "flashinfer",
                   ["apply_rope_pos_ids_inplace", f"nnz={tokens}", f"num_qo_heads={qo_heads}", f"num_kv_heads={kv_heads}",
                    f"head_dim={dim}", "rope_theta=10000", "dtype=bf16", "pos_ids:dtype=i32"],
                   make(tokens, qo_heads, kv_heads, dim), 2 * tokens * (qo_heads + kv_heads) * dim,
                   moved=4 * tokens * (qo_heads + kv_heads) * dim)


def page_cases():
    def make(tokens, page_size):
        def one(up):
            pages = -(-tokens // page_size)
            k, v = up.normal(tokens, 8, 128), up.normal(tokens, 8, 128)
            cache = up.torch.zeros(pages, 2, page_size, 8, 128, device="cuda", dtype=up.bf16)
            numbers = up.torch.randperm(pages, device="cuda").int()
            last = up.integers([(tokens - 1) % page_size + 1])
            return up.call(up.flashinfer.append_paged_kv_cache, k, v, up.integers([0] * tokens), up.integers(range(tokens)),
                           cache, numbers, up.integers([0, pages]), last)
        return one
    for tokens in (128, 16384):
        pages = tokens // 16
        yield Case("append_paged_kv_cache", f"{tokens} tokens 8x128 page 16", "flashinfer",
                   ["append_paged_kv_cache", f"pages={pages}", "page_size=16", "num_kv_heads=8", "head_dim=128", f"nnz={tokens}",
                    f"num_indices={pages}", "batch=1", "dtype=bf16"], make(tokens, 16), 8 * tokens * 8 * 128)


def attention_values(batch, length, qo_heads, kv_heads, page_size):
    pages = batch * (-(-length // page_size))
    return [f"batch={batch}", f"max_batch_size={batch}", f"num_qo_heads={qo_heads}", f"num_kv_heads={kv_heads}",
            f"page_size={page_size}", f"num_pages={pages}", f"num_indices={pages}", "q_data_type=bf16"]


def decode_cases():
    def make(tensor_cores, kv_type, batch, length, qo_heads, kv_heads, dim, page_size):
        def one(up):
            cache, indptr, numbers, last = up.paged(batch, length, kv_heads, dim, page_size)
            cache = cache.to(getattr(up.torch, kv_type))
            wrapper = up.planned(
                ("decode", tensor_cores, kv_type, batch, length, qo_heads, kv_heads, dim, page_size),
                lambda: up.flashinfer.BatchDecodeWithPagedKVCacheWrapper(up.workspace(), "NHD", use_tensor_cores=tensor_cores),
                indptr=indptr, indices=numbers, last_page_len=last, num_qo_heads=qo_heads, num_kv_heads=kv_heads, head_dim=dim,
                page_size=page_size, q_data_type=up.bf16, kv_data_type=getattr(up.torch, kv_type))
            q = up.normal(batch, qo_heads, dim)
            return up.call(wrapper.run, q, cache, out=up.torch.empty_like(q))
        return one

    def case(tensor_cores, kv_type, ours_type, *shape):
        batch, length, qo_heads, kv_heads, dim, page_size = shape
        text = f"batch {batch} kv {length} {qo_heads}/{kv_heads}x{dim} page {page_size} {ours_type}"
        ours = ["batch_decode", *attention_values(batch, length, qo_heads, kv_heads, page_size), f"head_dim={dim}",
                f"kv_data_type={ours_type}", *(["k_scale=1", "v_scale=1"] if ours_type == "e4m3" else [])]
        size = 2 * batch * length * kv_heads * dim * (2 if ours_type == "bf16" else 1) + 4 * batch * qo_heads * dim
        return Case("batch_decode", text, f"flashinfer, {'tensor' if tensor_cores else 'CUDA'} cores", ours,
                    make(tensor_cores, kv_type, *shape), size)

    for tensor_cores in (False, True):
        for shape in DECODE:
            yield case(tensor_cores, "bfloat16", "bf16", *shape)
    yield case(True, "float8_e4m3fn", "e4m3", 32, 4096, 32, 8, 128, 16)


def prefill_cases(backend="fa3", lengths=((8, 2048), (2, 8192), (1, 16384)), kernel=None):
    def make(batch, length, qo_heads, kv_heads, dim, causal):
        def one(up):
            cache, indptr, numbers, last = up.paged(batch, length, kv_heads, dim, 16)
            wrapper = up.planned(
                ("prefill", batch, length, qo_heads, kv_heads, dim, causal),
                lambda: up.flashinfer.BatchPrefillWithPagedKVCacheWrapper(up.workspace(), "NHD", backend=backend),
                qo_indptr=up.torch.arange(0, batch * length + 1, length, dtype=up.torch.int32), paged_kv_indptr=indptr,
                paged_kv_indices=numbers, paged_kv_last_page_len=last, num_qo_heads=qo_heads, num_kv_heads=kv_heads,
                head_dim_qk=dim, page_size=16, causal=causal, q_data_type=up.bf16, kv_data_type=up.bf16)
            q = up.normal(batch * length, qo_heads, dim)
            return up.call(wrapper.run, q, cache, out=up.torch.empty_like(q))
        return one

    for qo_heads, kv_heads, dim in HEADS:
        for batch, length in lengths:
            for causal in (True, False):
                tokens = batch * length
                ours = ["batch_prefill", *attention_values(batch, length, qo_heads, kv_heads, 16), f"total_q={tokens}",
                        f"max_total_qo={tokens}", f"head_dim_qk={dim}", f"causal={int(causal)}"]
                yield Case("batch_prefill", f"{batch}x{length} {qo_heads}/{kv_heads}x{dim} {'causal' if causal else 'full'}",
                           f"flashinfer, {backend} paged", ours, make(batch, length, qo_heads, kv_heads, dim, causal),
                           4 * tokens * (qo_heads + kv_heads) * dim, kernel)


def fa2_cases():
    yield from prefill_cases("fa2", ((8, 2048), (2, 8192)), "batch_prefill_sm80")

    def make(batch, length, qo_heads, kv_heads, dim, causal):
        def one(up):
            indptr = up.torch.arange(0, batch * length + 1, length, dtype=up.torch.int32)
            wrapper = up.planned(
                ("ragged", batch, length, qo_heads, kv_heads, dim, causal),
                lambda: up.flashinfer.BatchPrefillWithRaggedKVCacheWrapper(up.workspace(), "NHD", backend="fa2"),
                qo_indptr=indptr, kv_indptr=indptr, num_qo_heads=qo_heads, num_kv_heads=kv_heads, head_dim_qk=dim, causal=causal,
                q_data_type=up.bf16, kv_data_type=up.bf16)
            q, k, v = (up.normal(batch * length, heads, dim) for heads in (qo_heads, kv_heads, kv_heads))
            return up.call(wrapper.run, q, k, v, out=up.torch.empty_like(q))
        return one

    for qo_heads, kv_heads, dim in HEADS:
        for causal in (True, False):
            ours = ["batch_prefill_ragged", "batch=8", "max_batch_size=8", f"num_qo_heads={qo_heads}", f"num_kv_heads={kv_heads}",
                    "total_q=16384", "max_total_qo=16384", "total_kv=16384", f"head_dim_qk={dim}", "q_data_type=bf16",
                    f"causal={int(causal)}"]
            yield Case("batch_prefill_ragged", f"8x2048 {qo_heads}/{kv_heads}x{dim} {'causal' if causal else 'full'}",
                       "flashinfer, fa2 ragged", ours, make(8, 2048, qo_heads, kv_heads, dim, causal),
                       4 * 16384 * (qo_heads + kv_heads) * dim, "batch_prefill_sm80")


def merge_cases():
    def make(tokens, states, heads, dim):
        def one(up):
            v = up.normal(tokens, states, heads, dim)
            s = up.torch.randn(tokens, states, heads, device="cuda")
            return up.call(up.flashinfer.merge_states, v, s)
        return one
    for tokens, states, heads, dim in MERGED:
        yield Case("merge_states", f"{tokens} tokens {states} states {heads}x{dim}", "flashinfer",
                   ["merge_states", f"tokens={tokens}", f"num_states={states}", f"num_heads={heads}", f"head_dim={dim}",
                    "v:dtype=bf16"],
                   make(tokens, states, heads, dim), tokens * heads * (states + 1) * (2 * dim + 4))


def cascade_cases():
    """Decode of requests that share a prefix, as both packages' MultiLevelCascadeAttentionWrapper does it."""
    def make(package, batch, prefix, own, qo_heads, kv_heads, dim):
        def one(up):
            pages, own_pages = prefix // 16, own // 16
            cache = up.normal(pages + batch * own_pages, 2, 16, kv_heads, dim)
            numbers = up.torch.randperm(cache.shape[0], device="cuda").int()
            up.wrappers.clear()
            wrapper = importlib.import_module(f"{package}.cascade").MultiLevelCascadeAttentionWrapper(2, up.workspace(), "NHD")
            wrapper.plan([up.integers([0, batch]), up.integers(range(batch + 1))],
                         [up.integers([0, pages]), up.integers(range(0, batch * own_pages + 1, own_pages))],
                         [numbers[:pages], numbers[pages:]], [up.integers([16]), up.integers([16] * batch)],
                         qo_heads, kv_heads, dim, 16, q_data_type=up.bf16)
            q = up.normal(batch, qo_heads, dim)
            return lambda: wrapper.run(q, cache)
        return one
    for shape in CASCADES:
        batch, prefix, own, qo_heads, kv_heads, dim = shape
        yield Case("cascade", f"batch {batch} shared {prefix} own {own} {qo_heads}/{kv_heads}x{dim} page 16", "flashinfer", None,
                   make("flashinfer", *shape), 4 * (prefix + batch * own) * kv_heads * dim + 4 * batch * qo_heads * dim,
                   own=make("flashinfer_c", *shape))


def pod_cases():
    """Prefill of the last tokens of a request beside decode of a batch, by both packages' wrappers."""
    def make(package, batched, tokens, keys, batch, length):
        def one(up):
            heads, kv_heads, dim = 32, 8, 128
            cache, indptr, numbers, last = up.paged(batch, length, kv_heads, dim, 16)
            filled, *table = up.paged(1, keys, kv_heads, dim, 16)
            q_p, q_d = up.normal(tokens, heads, dim), up.normal(batch, heads, dim)
            cls = getattr(importlib.import_module(f"{package}.pod"), f"{'Batch' * batched}PODWithPagedKVCacheWrapper")
            wrapper, decoded = cls(up.workspace(), "NHD"), [t.cuda() for t in (indptr, numbers, last)]
            if batched:
                decoded = [up.integers([0, tokens]), *(t.cuda() for t in table), up.integers(range(batch + 1)), *decoded]
            wrapper.plan(*decoded, heads, kv_heads, dim, 16, q_data_type=up.bf16, kv_data_type=up.bf16)
            prefilled = (filled,) if batched else (up.normal(keys, kv_heads, dim), up.normal(keys, kv_heads, dim))
            return up.bind(wrapper.run, (q_p, *prefilled, q_d, cache), {"causal_p": True})
        return one
    for batched in (False, True):
        for shape in PODS:
            tokens, keys, batch, length = shape
            yield Case("batch_pod" if batched else "pod", f"{tokens} over {keys}, {batch} x {length} 32/8x128 page 16",
                       "flashinfer", None, make("flashinfer", batched, *shape), 4096 * (keys + batch * length),
                       own=make("flashinfer_c", batched, *shape), eager=True)


FAMILIES = {"copy": copy_cases, "norm": norm_cases, "compiled": compiled_cases, "activation": activation_cases,
            "rope": rope_cases, "page": page_cases, "decode": decode_cases, "prefill": prefill_cases, "fa2": fa2_cases,
            "merge": merge_cases, "cascade": cascade_cases, "pod": pod_cases}


def wanted(arguments, family):
    return (case for case in FAMILIES[family]() if re.search(arguments.only, f"{case.op} {case.shape}"))


def our_command(arguments, case, kernel=None):
    options = ([] if arguments.no_pdl else ["--pdl"]) + (["--kernel", kernel] if kernel else [])
    return [arguments.flashinfer, "bench", "--json", "--device", "cuda", "--require", "cuda", "--no-refcheck", *options,
            *case.ours]


def ours(arguments, case, kernel):
    """What our command says of that kernel, or, if it is None, of the one that a call takes: the first that serves the shape."""
    done = subprocess.run(our_command(arguments, case, kernel), capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows or not rows[0]["us"]:
        raise RuntimeError(rows[0]["wrong"] if rows else done.stderr.strip() or "no kernel serves it")
    return rows[0]


def captures(arguments, up, case):
    """Graphs of the peer's calls and, unless they are a command's, of ours, and what failed."""
    captured, errors = None, []

    def attempt(side, make):
        try:
            return up.capture(case, make)
        except Exception as error:  # whatever a side raises, the other and the next case may work
            errors.append(f"{side}: {type(error).__name__}: {error}")
            return None

    captured = attempt("upstream", case.make)
    own = case.own
    if case.ours and callable(getattr(up.package, case.op, None)):
        calls = iter(captured[2]) if captured else iter(lambda: case.make(up), None)
        own = lambda _: next(calls).ours
    return captured, own and attempt("ours", own), errors


def compare(arguments, up, case, copy_rate):
    """The row of the table. One side may fail: the other's figure stands, and what failed is named."""
    row = {"op": case.op, "shape": case.shape, "peer": case.peer}
    times, results = [], []
    captured, own, errors = captures(arguments, up, case)
    for _ in range(arguments.rounds):
        if captured:
            times.append(up.time(*captured[:2]) * 1e6)
        if own:
            results.append({"us": up.time(*own[:2]) * 1e6, "bytes": case.moved, "operations": 0, "copy_GB/s": None,
                            "kernel": "Python"})
        elif case.ours and not any(e.startswith("ours") for e in errors):
            try:
                results.append(ours(arguments, case, results[0]["kernel"] if results else case.kernel or arguments.kernel))
            except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
                errors.append(f"ours: {error}")
    theirs = statistics.median(times) if times else None
    size, operations = (results[0]["bytes"], results[0]["operations"]) if results else (case.moved, 0)
    if theirs:
        row |= {"upstream us": theirs, "upstream GB/s": size / theirs * 1e-3, "upstream TFLOP/s": operations / theirs * 1e-6}
    if results:
        mine = statistics.median(r["us"] for r in results)
        best = max(copy_rate, max(r["copy_GB/s"] or 0 for r in results))
        row |= {"ours us": mine, "GB/s": size / mine * 1e-3, "of copy": size / mine * 1e-3 / best, "kernel": results[0]["kernel"],
                "TFLOP/s": operations / mine * 1e-6}
        if theirs:
            row["ratio"] = theirs / mine
        if arguments.package:
            row["copy us"] = up.copy_time(case.moved) * 1e6
            row["of its copy"] = row["copy us"] / mine
    row["error"] = "; ".join(" ".join(e.split())[-300:] for e in errors)
    return row


def copy_rate_of(up):
    """GB/s, read and written, of torch's copy_ of 1 GiB."""
    x = up.torch.empty(1 << 30, dtype=up.torch.int8, device="cuda")
    case = Case("copy", "1 GiB", "torch copy_", None, lambda up: lambda: out.copy_(x), 1 << 31)
    out = up.torch.empty_like(x)
    captured = up.capture(case, case.make)
    return (1 << 31) / up.time(*captured[:2]) * 1e-9


def run(arguments, writer, file):
    failed = 0
    up = Upstream(not arguments.no_pdl, arguments.package)
    copy_rate = copy_rate_of(up)
    say(f"torch copy_ of 1 GiB: {copy_rate:.0f} GB/s")
    for family in arguments.family:
        begun = time.perf_counter()
        for case in wanted(arguments, family):
            try:
                row = compare(arguments, up, case, copy_rate)
            except Exception as error:  # the GPU may have failed; what is measured so far is in the file
                row = {"op": case.op, "shape": case.shape, "peer": case.peer, "error": f"{type(error).__name__}: {error}"}
            failed += bool(row["error"])
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
            file.flush()
            say(" ".join([f"{case.op} {case.shape} ({case.peer}):"] +
                         [f"{k} {row[k]:.4g}" for k in SAID if k in row] + [row["error"]]))
            gc.collect()
            up.torch.cuda.empty_cache()
        say(f"{family}: {time.perf_counter() - begun:.0f} s")
    return failed


def main():
    parser = argparse.ArgumentParser(description="ours against upstream FlashInfer and torch on this GPU")
    parser.add_argument("family", nargs="*", help="of " + " ".join(FAMILIES) + "; default: all")
    parser.add_argument("--flashinfer", default="build/flashinfer")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernel", help="of ours; default: the one that a call takes")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose op and shape match")
    parser.add_argument("--no-pdl", action="store_true")
    parser.add_argument("--csv", help="default: standard output")
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    arguments.family = arguments.family or list(FAMILIES)
    unknown = [f for f in arguments.family if f not in FAMILIES]
    if unknown or arguments.rounds < 1:
        parser.error(f"there is no family {unknown[0]}" if unknown else "--rounds: at least 1")
    if arguments.dry:
        for family in arguments.family:
            for case in wanted(arguments, family):
                print(shlex.join(our_command(arguments, case)) if case.ours else f"# {case.op} {case.shape} ({case.peer})")
        return 0
    with open(arguments.csv or os.dup(1), "w", encoding="utf-8") as file:
        print("# " + shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]), file=file)
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        failed = run(arguments, writer, file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
