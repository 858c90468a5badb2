#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times examples/generate against llama.cpp on a CPU: same weights, same number of threads, in turn in the same run.

Usage: python3 -m venv venv && CMAKE_ARGS=-DGGML_NATIVE=ON venv/bin/pip install llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.6
       venv/bin/python tools/convert_gguf_bf16.py SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct.BF16.gguf
       venv/bin/python bench/compare_llama_cpp.py SmolLM2-135M-Instruct.BF16.gguf [--threads 2] [--rounds 5] [--csv FILE]

Prefill is a prompt of about 450 tokens, decode 128 tokens after a short one, both at batch 1. Prints the median of the rounds
and the ratio, round by round.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time

import llama_cpp

LONG = "The lighthouse stood on the cliff, and every evening the keeper climbed its stairs to light the lamp. " * 21
SHORT = "Explain step by step how a lighthouse works."
DECODED = 128


def ours(command, model, threads, prompt, tokens):
    """Prefill and decode tokens/s of one run of generate."""
    text = subprocess.run([command, "--model", model, "--device", "cpu", "--dtype", "bf16", "--threads", str(threads), "--raw",
                           "--prompt", prompt, "--max-tokens", str(tokens), "--temperature", "0", "--ignore-end", "--quiet"],
                          check=True, capture_output=True, text=True).stdout
    return [float(re.search(rf"^{name} +([0-9.]+) tokens/s", text, re.M).group(1)) for name in ("prefill", "decode")]


def theirs(llama, prompt, tokens):
    """The same of llama.cpp: evaluates the prompt, then tokens one by one, each the likeliest."""
    ids = llama.tokenize(prompt.encode(), add_bos=False, special=False)
    llama.reset()
    begun = time.perf_counter()
    llama.eval(ids)
    prefilled = time.perf_counter()
    for _ in range(tokens - 1):
        llama.eval([llama.sample(temp=0.0)])
    ended = time.perf_counter()
    return [len(ids) / (prefilled - begun), (tokens - 1) / (ended - prefilled) if tokens > 1 else 0.0]


def main():
    parser = argparse.ArgumentParser(description="examples/generate against llama.cpp on this CPU")
    parser.add_argument("model", help="GGUF file with BF16 weights")
    parser.add_argument("--generate", default="build/generate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv")
    arguments = parser.parse_args()

    llama = llama_cpp.Llama(arguments.model, n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=arguments.threads,
                            n_threads_batch=arguments.threads, verbose=False)
    rows = []
    for round_ in range(arguments.rounds + 1):
        row = [ours(arguments.generate, arguments.model, arguments.threads, LONG, 2)[0], theirs(llama, LONG, 1)[0],
               ours(arguments.generate, arguments.model, arguments.threads, SHORT, DECODED)[1], theirs(llama, SHORT, DECODED)[1]]
        if round_ > 0:  # the first warms up
            rows.append(row)
    lines = ["figure,threads,flashinfer-c tokens/s,llama.cpp tokens/s,ratio (median of rounds)"]
    for name, a, b in (("prefill", 0, 1), ("decode", 2, 3)):
        lines.append(f"{name},{arguments.threads},{statistics.median(r[a] for r in rows):.1f},"
                     f"{statistics.median(r[b] for r in rows):.1f},{statistics.median(r[a] / r[b] for r in rows):.3f}")
    print("\n".join(lines))
    if arguments.csv:
        with open(arguments.csv, "w", encoding="ascii") as file:
            file.write("# " + " ".join(sys.argv) + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
