#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attention on a CPU against PyTorch's scaled_dot_product_attention and llama.cpp's ggml_flash_attn_ext: same inputs, same
number of threads, in turn in the same run.

Usage: make python && python3 -m venv venv && venv/bin/pip install numpy==2.4.6 apache-tvm-ffi==0.1.15.post2
       venv/bin/pip install --no-deps -r tests/python/requirements.txt && tools/torch_for_cpus.sh venv
       CMAKE_ARGS=-DGGML_NATIVE=ON venv/bin/pip install llama-cpp-python==0.3.36
       PYTHONPATH=build/python venv/bin/python bench/compare_attention_cpu.py [--threads 2] [--rounds 15] [--only REGEX]
                                                                              [--csv FILE]

Decode is over pages of 16 tokens in random order, prefill over ragged keys and values; the others have the same tensors
without pages. llama.cpp takes queries in float32; "torch f32" has the same values, widened before the clock starts. Tensors
of decode are taken in turn, together larger than three times a last-level cache of 32 MB. In a round every side is called for
3 ms, or once, in an order drawn anew, when the threads of the side before have stopped watching for more work (OpenMP's watch
for some 10 ms on the same processors), short ones after a call that wakes its own. Times are medians of the rounds; ratio
is the time of a round's fastest other side over ours, the median of the rounds: above 1 ours is faster. The ratio of fastest
rounds, of each side for itself, shows what other programs on the machine did. difference is |ours - side| / |side|. With
--threads 1 the clock is the thread's own, which other programs do not move.
"""

import argparse
import csv
import ctypes
import math
import os
import random
import re
import statistics
import sys
import time
import types

import flashinfer_c
import llama_cpp
import numpy
import torch

SAMPLE_SECONDS, REST_SECONDS, MOST_RESTS = 0.003, 0.01, 100
PAGE, CACHE_BYTES, GGML_TYPES = 16, 3 * 32 << 20, {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
SHAPES = [  # name, requests, query tokens, keys, query heads, KV heads, head_dim, causal
    ("prefill Llama 8B, 512", 1, 512, 512, 32, 8, 128, True),
    ("prefill Llama 8B, 2048", 1, 2048, 2048, 32, 8, 128, True),
    ("prefill Llama 8B, full, 512", 1, 512, 512, 32, 8, 128, False),
    ("prefill Llama 8B, 256 after 3840", 1, 256, 4096, 32, 8, 128, True),
    ("prefill SmolLM2, 4 x 512", 4, 512, 512, 9, 3, 64, True),
    ("prefill 16 heads, head_dim 64, 1024", 1, 1024, 1024, 16, 16, 64, True),
    ("prefill Gemma, head_dim 256, 512", 1, 512, 512, 8, 1, 256, True),
    ("decode Llama 8B, 1 x 1024", 1, 1, 1024, 32, 8, 128, False),
    ("decode Llama 8B, 1 x 16384", 1, 1, 16384, 32, 8, 128, False),
    ("decode Llama 8B, 16 x 2048", 16, 1, 2048, 32, 8, 128, False),
    ("decode SmolLM2, 1 x 512", 1, 1, 512, 9, 3, 64, False),
    ("decode SmolLM2, 8 x 4096", 8, 1, 4096, 9, 3, 64, False),
    ("decode 16 heads, head_dim 64, 4 x 4096", 4, 1, 4096, 16, 16, 64, False),
    ("decode Gemma, head_dim 256, 4 x 4096", 4, 1, 4096, 8, 1, 256, False),
]


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class GraphPlan(ctypes.Structure):
    _fields_ = [("work_size", ctypes.c_size_t), ("work_data", ctypes.c_void_p), ("n_threads", ctypes.c_int),
                ("threadpool", ctypes.c_void_p), ("abort_callback", ctypes.c_void_p), ("abort_callback_data", ctypes.c_void_p),
                ("use_ref", ctypes.c_bool)]


def load_ggml():
    """The functions of the libraries inside llama_cpp that are called here."""
    folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")
    base, cpu = (ctypes.CDLL(os.path.join(folder, f"libggml-{part}.so")) for part in ("base", "cpu"))
    ggml, pointer, number = types.SimpleNamespace(), ctypes.c_void_p, ctypes.c_float
    for library, name, result, arguments in (
            (base, "ggml_init", pointer, [InitParams]), (base, "ggml_free", None, [pointer]),
            (base, "ggml_new_tensor_4d", pointer, [pointer, ctypes.c_int] + [ctypes.c_int64] * 4),
            (base, "ggml_get_data", pointer, [pointer]), (base, "ggml_permute", pointer, [pointer] * 2 + [ctypes.c_int] * 4),
            (base, "ggml_flash_attn_ext", pointer, [pointer] * 5 + [number] * 3),
            (base, "ggml_new_graph", pointer, [pointer]), (base, "ggml_build_forward_expand", None, [pointer] * 2),
            (cpu, "ggml_graph_plan", GraphPlan, [pointer, ctypes.c_int, pointer]),
            (cpu, "ggml_graph_compute", ctypes.c_int, [pointer, ctypes.POINTER(GraphPlan)])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(ggml, name, function)
    return ggml


class Llama:
    """ggml_flash_attn_ext over keys and values as llama.cpp's cache has them: heads inside tokens."""

    def __init__(self, ggml, q, k, v, causal, threads):
        self.ggml = ggml
        bytes_ = sum(x.numel() * x.element_size() for x in (q, q, q, q, k, v)) + q.shape[1] * k.shape[1] * 2
        self.context = ggml.ggml_init(InitParams(bytes_ + (1 << 20), None, False))
        q, k, v = (self.tensor(x) for x in (q.float(), k, v))
        mask = None
        if causal:
            tokens, keys = self.shape[0][1], self.shape[1][1]
            mask = torch.full((1, 1, tokens, keys), float("-inf"), dtype=torch.float16).triu(keys - tokens + 1)
            mask = self.tensor(mask, permute=False)
        out = ggml.ggml_flash_attn_ext(self.context, q, k, v, mask, self.shape[0][3] ** -0.5, 0.0, 0.0)
        self.out, self.graph = out, ggml.ggml_new_graph(self.context)
        ggml.ggml_build_forward_expand(self.graph, out)
        self.plan = ggml.ggml_graph_plan(self.graph, threads, None)
        self.work = torch.empty(self.plan.work_size, dtype=torch.uint8)
        self.plan.work_data = self.work.data_ptr()

    shape = ()

    def tensor(self, x, permute=True):
        x = x.contiguous()
        self.shape += (tuple(x.shape),)
        t = self.ggml.ggml_new_tensor_4d(self.context, GGML_TYPES[x.dtype], *reversed(x.shape))
        ctypes.memmove(self.ggml.ggml_get_data(t), x.data_ptr(), x.numel() * x.element_size())
        return self.ggml.ggml_permute(self.context, t, 0, 2, 1, 3) if permute else t

    def run(self):
        self.ggml.ggml_graph_compute(self.graph, self.plan)

    def result(self):
        """[requests, tokens, heads, head_dim]"""
        size = int(numpy.prod(self.shape[0]))
        data = (ctypes.c_float * size).from_address(self.ggml.ggml_get_data(self.out))
        return torch.frombuffer(data, dtype=torch.float32).reshape(self.shape[0])

    def free(self):
        self.ggml.ggml_free(self.context)


def ours(q, k, v, causal):
    requests, tokens, heads, head_dim = q.shape
    keys, kv_heads = k.shape[1:3]
    workspace = torch.empty(1 << 20, dtype=torch.uint8)
    starts = torch.arange(requests + 1, dtype=torch.int32)
    if tokens > 1:
        wrapper = flashinfer_c.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD")
        wrapper.plan(starts * tokens, starts * keys, heads, kv_heads, head_dim, causal=causal, q_data_type=q.dtype)
        flat = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
        return lambda: wrapper.run(*flat)
    pages = keys // PAGE
    order = torch.randperm(requests * pages)
    cache = [torch.empty(requests * pages, PAGE, kv_heads, head_dim, dtype=q.dtype) for _ in range(2)]
    for paged, x in zip(cache, (k, v)):
        paged[order] = x.reshape(paged.shape)
    wrapper = flashinfer_c.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
    wrapper.plan(starts * pages, order.int(), torch.full((requests,), PAGE, dtype=torch.int32), heads, kv_heads, head_dim, PAGE,
                 q_data_type=q.dtype, kv_data_type=k.dtype)
    queries = q[:, 0]
    cache, out = tuple(cache), torch.empty_like(queries)
    return lambda: wrapper.run(queries, cache, out=out)


def theirs(q, k, v, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    tokens, keys = q.shape[2], k.shape[2]
    mask = torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens) if causal and tokens != keys else None
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True,
                                                                    is_causal=causal and mask is None)


def difference(a, b):
    return ((a - b).norm() / b.norm()).item()


def rest():
    """Until no thread of this process runs."""
    for _ in range(MOST_RESTS):
        begun = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - begun < REST_SECONDS / 10:
            return
    sys.exit("threads watch for more work without an end (OMP_WAIT_POLICY, GOMP_SPINCOUNT, KMP_BLOCKTIME)")


def timed(clock, copies, calls):
    """Seconds of a call, of several in a row; one more goes before several."""
    if calls > 1:
        copies[0]()
    begun = clock()
    for i in range(1, calls + 1):
        copies[i % len(copies)]()
    return (clock() - begun) / calls


def measure(ggml, shape, dtype, arguments):
    """Median seconds of each side, both ratios, and each other side's difference."""
    _, requests, tokens, keys, heads, kv_heads, head_dim, causal = shape
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    copies = min(max(1, CACHE_BYTES // (requests * keys * kv_heads * head_dim * 4)), 64)
    copies = copies if tokens == 1 else 1
    sides, llamas = {"ours": [], "torch": [], "torch f32": [], "llama.cpp": []}, []
    for _ in range(copies):
        q = torch.randn(requests, tokens, heads, head_dim).to(dtype)
        k, v = (torch.randn(requests, keys, kv_heads, head_dim).to(dtype) for _ in range(2))
        llamas.append(Llama(ggml, q, k, v, causal, arguments.threads))
        sides["ours"].append(ours(q, k, v, causal))
        sides["torch"].append(theirs(q, k, v, causal))
        sides["torch f32"].append(theirs(q.float(), k.float(), v.float(), causal))
        sides["llama.cpp"].append(llamas[-1].run)
    result = sides["ours"][-1]().float().reshape(q.shape)
    differences = {side: difference(result, sides[side][-1]().float().transpose(1, 2)) for side in ("torch", "torch f32")}
    sides["llama.cpp"][-1]()
    differences["llama.cpp"] = difference(result, llamas[-1].result())
    times = {side: [] for side in sides}
    calls = {}
    for side, runs in sides.items():
        rest()
        calls[side] = math.ceil(SAMPLE_SECONDS / min(timed(clock, runs, 1) for _ in range(2)))
    for _ in range(arguments.rounds):
        for side in random.sample(list(sides), len(sides)):
            rest()
            times[side].append(timed(clock, sides[side], calls[side]))
    for llama in llamas:
        llama.free()
    ratio = statistics.median(min(others) / own for own, *others in zip(*times.values()))
    own, *others = (min(t) for t in times.values())
    return {side: statistics.median(t) for side, t in times.items()}, (ratio, min(others) / own), differences


def main():
    parser = argparse.ArgumentParser(description="attention against PyTorch and llama.cpp on this CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    parser.add_argument("--csv")
    arguments = parser.parse_args()
    os.environ["FLASHINFER_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ggml, compared = load_ggml(), ("torch", "torch f32", "llama.cpp")
    with open(arguments.csv or os.devnull, "w", encoding="ascii", newline="") as file:
        file.write("# " + " ".join(sys.argv) + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["shape", "dtype", "threads", "ours ms", *(f"{side} ms" for side in compared), "ratio",
                         "ratio of fastest rounds", *(f"difference to {side}" for side in compared)])
        for dtype in (torch.bfloat16, torch.float16):
            for shape in SHAPES:
                if not re.search(arguments.only, shape[0]):
                    continue
                seconds, ratios, differences = measure(ggml, shape, dtype, arguments)
                differences = [f"{differences[side]:.1e}" for side in compared]
                writer.writerow([shape[0], str(dtype)[6:], arguments.threads] + [f"{t * 1e3:.3f}" for t in seconds.values()] +
                                [f"{x:.2f}" for x in ratios] + differences)
                file.flush()
                print(", ".join(f"{side} {t * 1e3:.2f}" for side, t in seconds.items()), "ms, ratios",
                      *(f"{x:.2f}" for x in ratios), "differences", *differences, "|", shape[0], str(dtype)[6:], flush=True)


if __name__ == "__main__":
    main()
