#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Host time per call of rmsnorm from Python, [1, 1024] bf16 (torch on a GPU where there is one): TVM-FFI's own no-op with the
same arguments, the entry by TVM-FFI's function and by the library's own, flashinfer_c.rmsnorm and torch.add. A no-op alone runs
from caches that a launch leaves to others: what one costs beside launches is what a call takes longer with one before it.
Prints CSV: call, median us, us of the fastest tenth. `flashinfer bench --overhead --pdl rmsnorm` measures the launch alone.

    PYTHONPATH=build/python python3 bench/python_overhead.py
"""

import random
import statistics
import time

import torch
import tvm_ffi

import flashinfer_c
from flashinfer_c import _core

CALLS, ROUNDS = 100, 400  # fewer calls than a stream queues before it waits


def time_calls(function):
    begin = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - begin) / CALLS * 1e6


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, w = (torch.randn(*shape, device=device, dtype=torch.bfloat16) for shape in ((1, 1024), (1024,)))
    y = torch.empty_like(x)
    entry, nothing = _core.op("rmsnorm").function, tvm_ffi.get_global_func("testing.nop")
    tvm_entry = _core.module.get_function("rmsnorm")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    calls = {name: (function, []) for name, function in (
        ("TVM-FFI no-op of the same arguments", lambda: nothing(y, x, w, 1e-6, True)),
        ("TVM-FFI no-op without arguments", lambda: nothing()),
        ("TVM-FFI's function", lambda: tvm_entry(y, x, w, 1e-6, True)),
        ("TVM-FFI no-op then TVM-FFI's function", lambda: (nothing(y, x, w, 1e-6, True), tvm_entry(y, x, w, 1e-6, True))),
        ("TVM-FFI's function without PDL", lambda: tvm_entry(y, x, w, 1e-6)),
        ("own function", lambda: entry(y, x, w, 1e-6, True)),
        ("TVM-FFI no-op then own function", lambda: (nothing(y, x, w, 1e-6, True), entry(y, x, w, 1e-6, True))),
        ("own function without PDL", lambda: entry(y, x, w, 1e-6)),
        ("flashinfer_c.rmsnorm(x w out=y)", lambda: flashinfer_c.rmsnorm(x, w, out=y)),
        ("flashinfer_c.rmsnorm(x w)", lambda: flashinfer_c.rmsnorm(x, w)),
        ("flashinfer_c.silu_and_mul(x)", lambda: flashinfer_c.silu_and_mul(x)),
        ("torch.add(x x out=y)", lambda: torch.add(x, x, out=y)),
    )}
    order = list(calls.values())
    for _ in range(ROUNDS + 1):  # the first loads what is needed and does not count
        random.shuffle(order)
        for function, times in order:
            times.append(time_calls(function))
            wait()
    print("call,median_us,fastest_tenth_us")
    for name, (_, times) in calls.items():
        print(f"{name},{statistics.median(times[1:]):.3f},{sorted(times[1:])[ROUNDS // 10]:.3f}")


main()
