#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times prefill attention against FlashAttention-4, cuDNN and upstream FlashInfer on the same GPU and the same tensors.

Usage: tools/gpu/compare_prefill.py [--ours build/libflashinfer.so]... [--runs 3] [--rounds 5] [--only REGEX] [--peers REGEX]
                                    [--csv FILE] [--prepare I/N] [SET...]
       sets: dense paged page1 varlen chunked wide generic; default: all. A second --ours is measured like a peer
       generic is batch_prefill_sm80 beside upstream's kernel for the same GPUs, fa2
       --only: rows whose name matches; --peers: peers that match
       --prepare calls every peer once for the I-th of each N rows and times nothing: peers compile slowly, N processes at a time
       fill their caches (FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED=1 keeps FlashAttention-4's)

All sides of a row read the same tensors, several copies in turn, together larger than three times the L2. A side is a CUDA graph
of calls of about 5 ms; a round replays the graph of each side once, in an order drawn anew, because a kernel runs at the clock
that the one before it leaves. A run is the median of its rounds, a figure the median of the runs. ratio is the peer's time over
ours: above 1 ours is faster. difference is |ours - peer| / |peer| of the results. TFLOP/s count products that are seen: causal
ones half. Upstream and ours launch with programmatic dependent launch.
"""

import argparse
import csv
import ctypes
import gc
import importlib
import math
import os
import random
import re
import statistics
import sys

from compare_upstream import Upstream, say
from library import Library

GRAPH_SECONDS, CACHES, MAX_COPIES = 5e-3, 3, 8
COLUMNS = ["set", "shape", "peer", "ours us", "peer us", "ratio", "TFLOP/s", "peer TFLOP/s", "difference", "error"]
NHD, HND = 0, 1
GENERIC = b"batch_prefill_sm80"


class Ours:
    def __init__(self, path, up):
        self.up, self.library = up, Library(up.torch, path)

    def plan(self, row, copy, ragged):
        plan = ctypes.create_string_buffer(1024)  # a flashinfer_plan
        self.library.bind("batch_prefill_plan", plan=plan, max_total_qo=row.total_q, max_batch_size=row.batch,
                          kv_layout=NHD if ragged else row.layout, kv_indptr=copy.kv_host if ragged else copy.page_host,
                          num_qo_heads=row.qo_heads, num_kv_heads=row.kv_heads, head_dim_qk=row.dim, head_dim_vo=row.dim_vo,
                          page_size=1 if ragged else row.page_size, causal=int(row.causal), q_data_type=self.up.bf16,
                          kv_data_type=self.up.bf16)()
        return plan

    def make(self, row, copy, ragged=False):
        out = self.up.torch.empty(row.total_q, row.qo_heads, row.dim_vo, dtype=self.up.bf16, device="cuda")
        ragged = ragged or not row.page_size
        shared = {"plan": self.plan(row, copy, ragged), "out": out, "q": copy.q, "qo_indptr": copy.qo_indptr}
        if ragged:
            run = self.library.bind("batch_prefill_ragged", **shared, k=copy.k, v=copy.v, kv_indptr=copy.kv_indptr)
        else:
            run = self.library.bind(
                "batch_prefill", GENERIC if row.kind == "generic" else None, **shared, k_cache=copy.k_cache, v_cache=copy.v_cache,
                kv_indptr=copy.page_indptr, kv_indices=copy.pages, kv_last_page_len=copy.last)

        def both():
            run()
            return out
        return both


class Row:
    """A line of the table: lengths of requests, heads, mask, and where keys and values lie (page_size 0: ragged alone)."""

    def __init__(self, kind, name, lengths, heads, causal, page_size=0, layout=NHD, dim_vo=0):
        self.kind, self.lengths, self.causal, self.page_size, self.layout = kind, lengths, causal, page_size, layout
        self.qo_heads, self.kv_heads, self.dim = heads
        self.dim_vo = dim_vo or self.dim
        self.batch, self.total_q = len(lengths), sum(q for q, _ in lengths)
        self.total_kv = sum(kv for _, kv in lengths)
        self.same = len(set(lengths)) == 1 and lengths[0][0] == lengths[0][1]
        where = f" page {page_size} {'HND' if layout == HND else 'NHD'}" if page_size else ""
        dims = f"{self.dim}" if self.dim == self.dim_vo else f"{self.dim}/{self.dim_vo}"
        self.name = f"{name} {self.qo_heads}/{self.kv_heads}x{dims} {'causal' if causal else 'full'}{where}"
        self.operations = 2 * self.qo_heads * (self.dim + self.dim_vo) * sum(
            q * kv - (q * q / 2 if causal else 0) for q, kv in lengths)
        self.bytes = 2 * (self.total_q * self.qo_heads + self.total_kv * self.kv_heads) * (self.dim + self.dim_vo)


class Copy:
    """Tensors of a row."""

    def __init__(self, up, row):
        torch = up.torch
        self.q = up.normal(row.total_q, row.qo_heads, row.dim)
        self.k, self.v = up.normal(row.total_kv, row.kv_heads, row.dim), up.normal(row.total_kv, row.kv_heads, row.dim_vo)
        sums = [[sum(x[i] for x in row.lengths[:b]) for b in range(row.batch + 1)] for i in range(2)]
        self.qo_host, self.kv_host = (torch.tensor(s, dtype=torch.int32) for s in sums)
        self.qo_indptr, self.kv_indptr = self.qo_host.cuda(), self.kv_host.cuda()
        if not row.page_size:
            return
        size, counts = row.page_size, [-(-kv // row.page_size) for _, kv in row.lengths]
        self.page_host = torch.tensor([0] + counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)
        # The same order in every copy: upstream's wrapper holds the page table that it planned with.
        self.pages_host = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).int()
        self.last_host = torch.tensor([(kv - 1) % size + 1 for _, kv in row.lengths], dtype=torch.int32)
        self.page_indptr, self.pages, self.last = (x.cuda() for x in (self.page_host, self.pages_host, self.last_host))
        place = torch.cat([torch.arange(kv) + int(first) * size for first, (_, kv) in zip(self.page_host, row.lengths)])
        slot = (self.pages_host[place // size].long() * size + place % size).cuda()
        self.k_cache, self.v_cache = (self.paged(torch, row, x, slot, sum(counts)) for x in (self.k, self.v))

    @staticmethod
    def paged(torch, row, x, slot, pages):
        cache = torch.zeros(pages * row.page_size, *x.shape[1:], dtype=x.dtype, device="cuda")
        cache[slot] = x
        cache = cache.view(pages, row.page_size, *x.shape[1:])
        return cache.transpose(1, 2).contiguous() if row.layout == HND else cache


class Peers:
    def __init__(self, up, arguments):
        self.up, self.wrappers = up, {}
        self.ours = {path: Ours(path, up) for path in arguments.ours}

    def of(self, row):
        """Names and functions of (row, copy) that return functions of nothing; the first is ours."""
        first, *others = self.ours.items()
        sides = {"ours": first[1].make} | {path: library.make for path, library in others}
        if row.kind == "generic":
            return sides | {"upstream fa2": lambda row, copy: self.upstream(row, copy, "fa2")}
        if row.page_size and row.kind in ("paged", "page1"):
            sides["ours, ragged"] = lambda row, copy: first[1].make(row, copy, ragged=True)
        if row.kind != "paged" and row.kind != "page1":
            sides["FlashAttention-4"] = self.flash_attention
        if row.same and row.kind == "dense":
            sides["cuDNN"] = self.cudnn
        if row.dim == row.dim_vo or not row.page_size:
            sides["upstream fa3"] = lambda row, copy: self.upstream(row, copy, "fa3")
        if row.kind == "chunked":
            sides["upstream fa2"] = lambda row, copy: self.upstream(row, copy, "fa2")
        return sides

    def flash_attention(self, row, copy):
        cute = importlib.import_module("flash_attn.cute")
        if row.same:
            q, k, v = (x.view(row.batch, -1, *x.shape[1:]) for x in (copy.q, copy.k, copy.v))
            return lambda: cute.flash_attn_func(q, k, v, causal=row.causal)
        longest = [max(x[i] for x in row.lengths) for i in range(2)]
        return lambda: cute.flash_attn_varlen_func(
            copy.q, copy.k, copy.v, cu_seqlens_q=copy.qo_indptr, cu_seqlens_k=copy.kv_indptr, max_seqlen_q=longest[0],
            max_seqlen_k=longest[1], causal=row.causal)

    def cudnn(self, row, copy):
        functional, attention = self.up.torch.nn.functional, importlib.import_module("torch.nn.attention")
        q, k, v = (x.view(row.batch, -1, *x.shape[1:]).transpose(1, 2) for x in (copy.q, copy.k, copy.v))

        def run():
            with attention.sdpa_kernel([attention.SDPBackend.CUDNN_ATTENTION]):
                return functional.scaled_dot_product_attention(
                    q, k, v, is_causal=row.causal, enable_gqa=row.qo_heads != row.kv_heads)
        return run

    def upstream(self, row, copy, backend):
        up, layout = self.up, "HND" if row.layout == HND else "NHD"
        options = {"causal": row.causal, "q_data_type": up.bf16, "kv_data_type": up.bf16}
        out = up.torch.empty(row.total_q, row.qo_heads, row.dim_vo, dtype=up.bf16, device="cuda")
        if (row, backend) not in self.wrappers:
            self.wrappers = {key: value for key, value in self.wrappers.items() if key[0] is row}
            if row.page_size:
                wrapper = up.flashinfer.BatchPrefillWithPagedKVCacheWrapper(up.workspace(), layout, backend=backend)
                wrapper.plan(copy.qo_host, copy.page_host, copy.pages_host, copy.last_host, row.qo_heads, row.kv_heads, row.dim,
                             row.page_size, **options)
            else:
                wrapper = up.flashinfer.BatchPrefillWithRaggedKVCacheWrapper(up.workspace(), "NHD", backend=backend)
                wrapper.plan(copy.qo_host, copy.kv_host, row.qo_heads, row.kv_heads, row.dim, head_dim_vo=row.dim_vo, **options)
            self.wrappers[row, backend] = wrapper
        wrapper = self.wrappers[row, backend]
        if row.page_size:
            return up.call(wrapper.run, copy.q, (copy.k_cache, copy.v_cache), out=out)
        return up.call(wrapper.run, copy.q, copy.k, copy.v, out=out)


HEADS = {64: [(32, 32, 64), (32, 8, 64)], 128: [(16, 16, 128), (32, 8, 128)], 256: [(8, 8, 256), (16, 4, 256)]}
BATCHES = [(8, 2048), (2, 8192), (1, 16384)]


def dense_rows():
    """30: MHA of 2k, 8k and 16k tokens, 4:1 GQA of 2k and 8k."""
    for dim in (128, 64, 256):
        for heads, batches in zip(HEADS[dim], (BATCHES, BATCHES[:2])):
            for batch, length in batches:
                for causal in (True, False):
                    yield Row("dense", f"{batch}x{length}", [(length, length)] * batch, heads, causal)


PAGED = [((16, 16, 128), 8, 2048), ((16, 16, 128), 2, 8192), ((32, 8, 128), 2, 8192), ((32, 32, 64), 2, 8192),
         ((8, 8, 256), 2, 8192)]


def paged_rows():
    for heads, batch, length in PAGED:
        for causal in (True, False):
            for size in (16, 64):
                for layout in (NHD, HND):
                    yield Row("paged", f"{batch}x{length}", [(length, length)] * batch, heads, causal, size, layout)


def page1_rows():
    for heads, batch, length in PAGED:
        for causal in (True, False):
            yield Row("page1", f"{batch}x{length}", [(length, length)] * batch, heads, causal, 1)


def varlen_rows():
    """64 requests, lengths spread evenly over the logarithms of 32 to 16384, in a fixed shuffled order."""
    lengths = [round(32 * 512 ** (((i * 37) % 64) / 63)) for i in range(64)]
    for heads in HEADS[128]:
        for size in (0, 16):
            yield Row("varlen", "64 x 32..16384", [(n, n) for n in lengths], heads, True, size)


def chunked_rows():
    """512 tokens each that end a KV of 4k to 32k: one request, and eight."""
    batches = [[(512, kv)] for kv in (4096, 8192, 16384, 32768)]
    batches.append([(512, round(4096 * 8 ** (((i * 3) % 8) / 7))) for i in range(8)])
    for lengths in batches:
        for size in (0, 16):
            name = f"512 over {lengths[0][1]}" if len(lengths) == 1 else "8 x 512 over 4096..32768"
            yield Row("chunked", name, lengths, (32, 8, 128), True, size)


def wide_rows():
    """Keys of 192 and values of 128 elements."""
    for batch, length in ((8, 2048), (2, 8192)):
        for causal in (True, False):
            yield Row("wide", f"{batch}x{length}", [(length, length)] * batch, (16, 16, 192), causal, dim_vo=128)


def generic_rows():
    for heads in ((16, 16, 128), (32, 8, 128), (32, 32, 64), (8, 8, 256)):
        for batch, length in BATCHES[:2]:
            for causal in (True, False):
                yield Row("generic", f"{batch}x{length}", [(length, length)] * batch, heads, causal, 16)
    for kv in (4096, 32768):
        yield Row("generic", f"512 over {kv}", [(512, kv)], (32, 8, 128), True, 16)


SETS = {"dense": dense_rows, "paged": paged_rows, "page1": page1_rows, "varlen": varlen_rows, "chunked": chunked_rows,
        "wide": wide_rows,
        "generic": generic_rows}


def capture(up, calls, nodes):
    stream = up.torch.cuda.Stream()
    stream.wait_stream(up.torch.cuda.current_stream())
    with up.torch.cuda.stream(stream):
        for call in calls:
            call()
    up.torch.cuda.synchronize()
    graph = up.torch.cuda.CUDAGraph()
    with up.torch.cuda.graph(graph, stream=stream):
        kept = [calls[i % len(calls)]() for i in range(nodes)]
    return graph, kept


def measure(up, graphs, arguments):
    """Milliseconds of each side's graph."""
    order, found, replays = list(graphs), {name: [] for name in graphs}, []
    for _ in range(arguments.runs * arguments.rounds):
        random.shuffle(order)
        for name in order:
            events = [up.torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            graphs[name][0].replay()
            events[1].record()
            replays.append((name, *events))
    up.torch.cuda.synchronize()
    for name, begin, end in replays:
        found[name].append(begin.elapsed_time(end))
    n = arguments.rounds
    return {name: statistics.median(statistics.median(t[i:i + n]) for i in range(0, len(t), n)) for name, t in found.items()}


def compare(up, peers, row, arguments):
    """Lines of the table: one for each peer of the row."""
    count = max(1, min(MAX_COPIES, math.ceil(CACHES * up.l2 / row.bytes)))
    nodes = count * max(1, round(GRAPH_SECONDS * 500e12 / row.operations / count))
    copies, results, graphs, errors = [Copy(up, row) for _ in range(count)], {}, {}, {}
    for name, make in peers.of(row).items():
        if name != "ours" and not re.search(arguments.peers, name):
            continue
        try:
            calls = [make(row, copy) for copy in copies]
            results[name] = calls[0]()
            results[name] = (results[name][0] if isinstance(results[name], tuple) else results[name]).float()
            if name == "cuDNN":
                results[name] = results[name].transpose(1, 2)
            results[name] = results[name].reshape(row.total_q, row.qo_heads, row.dim_vo)
            graphs[name] = None if arguments.prepare else (*capture(up, calls, nodes), calls)
        except Exception as error:  # whatever a peer raises, the others' figures stand
            errors[name] = " ".join(f"{type(error).__name__}: {error}".split())[-300:]
    if arguments.prepare:
        return [{"set": row.kind, "shape": row.name, "peer": name, "error": errors.get(name, "")} for name in [*graphs, *errors]]
    us = {name: ms * 1e3 / nodes for name, ms in measure(up, graphs, arguments).items()}
    lines = []
    for name in [n for n in [*graphs, *errors] if n != "ours" or len(graphs) + len(errors) == 1 or n in errors]:
        line = {"set": row.kind, "shape": row.name, "peer": name, "error": errors.get(name, "")}
        if "ours" in us:
            line |= {"ours us": us["ours"], "TFLOP/s": row.operations / us["ours"] * 1e-6}
        if name in us and name != "ours":
            line |= {"peer us": us[name], "peer TFLOP/s": row.operations / us[name] * 1e-6}
        if name in us and "ours" in us and name != "ours":
            line["ratio"] = us[name] / us["ours"]
            line["difference"] = ((results["ours"] - results[name]).norm() / results[name].norm()).item()
        lines.append(line)
    return lines


def summarise(lines):
    """Geometric mean and least ratio of each set and peer."""
    ratios = {}
    for line in lines:
        if "ratio" in line:
            ratios.setdefault((line["set"], line["peer"]), []).append((line["ratio"], line["shape"]))
    for (kind, peer), found in ratios.items():
        mean = math.exp(statistics.mean(math.log(r) for r, _ in found))
        say(f"{kind}, {peer}: geometric mean {mean:.3f} of {len(found)}, least {min(found)[0]:.3f} ({min(found)[1]})")


def main():
    parser = argparse.ArgumentParser(description="ours against FlashAttention-4, cuDNN and upstream FlashInfer on this GPU")
    parser.add_argument("set", nargs="*", help="of " + " ".join(SETS) + "; default: all")
    parser.add_argument("--ours", action="append", help="libraries; default: build/libflashinfer.so")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", default="")
    parser.add_argument("--prepare")
    parser.add_argument("--csv", help="default: standard output")
    arguments = parser.parse_args()
    arguments.ours = arguments.ours or ["build/libflashinfer.so"]
    unknown = [s for s in arguments.set if s not in SETS]
    if unknown or arguments.runs < 1 or arguments.rounds < 1:
        parser.error(f"there is no set {unknown[0]}" if unknown else "--runs, --rounds: at least 1")
    rows = [row for s in arguments.set or SETS for row in SETS[s]() if re.search(arguments.only, row.name)]
    if arguments.prepare:
        part, parts = map(int, arguments.prepare.split("/"))
        rows = rows[part::parts]
    random.seed(0)
    up = Upstream(True)
    peers, lines = Peers(up, arguments), []
    with open(arguments.csv or os.dup(1), "w", encoding="utf-8") as file, up.torch.no_grad():
        print("# python3 " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]), file=file)
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            for line in compare(up, peers, row, arguments):
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})
                file.flush()
                say(" ".join([f"{row.kind} {row.name} ({line['peer']}):"] + [
                    f"{k} {line[k]:.4g}" for k in ("ours us", "peer us", "ratio", "TFLOP/s", "difference") if k in line] +
                    [line["error"]]))
                lines.append(line)
            gc.collect()
            up.torch.cuda.empty_cache()
    summarise(lines)
    return 1 if any(line["error"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
