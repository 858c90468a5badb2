#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares logits with an independent float32 forward pass over the same GGUF file, in NumPy.

Usage: pip install numpy gguf
       generate --model MODEL.gguf --dtype f16 --prompt-ids tests/generate/prompts.ids --logits-out LOGITS
       python3 tests/generate/reference_logits.py MODEL.gguf LOGITS --dtype f16

Each line of prompts.ids (make_corpus_ids.py made it from prompts.txt) is one prompt. All its tokens are
given, and the logits of its last 32 positions are compared. LOGITS holds two uint32, rows and vocabulary
size, then float32 logits [rows, vocabulary size], all little-endian; the rows are the last 32 positions of
the first prompt, then those of the second, and so on.

f16 passes if at every position the cosine is above 0.9995, and the arg max is the reference's wherever the
reference's two highest logits differ by more than 0.1, which must be so at 230 positions at least. bf16
passes if at every position the cosine is above 0.99.

Exit code: 0 passed, 1 failed, 2 unusable input.
"""

import argparse
import pathlib
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
POSITIONS = 32
MIN_COSINE = {"f16": 0.9995, "bf16": 0.99}
DECISIVE_GAP = 0.1
MIN_DECISIVE = 230


class Model:
    """A LLaMA model of a GGUF file, all weights as float32."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.weights = {}
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            self.weights[tensor.name] = values.astype(np.float32)

        def field(key):
            return reader.fields[f"llama.{key}"].contents()

        self.layers = field("block_count")
        self.heads = field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv")
        self.head_dim = field("embedding_length") // self.heads
        self.eps = np.float32(field("attention.layer_norm_rms_epsilon"))
        self.rope_base = field("rope.freq_base")

    def rms_norm(self, x, name):
        scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return x * scale * self.weights[name]

    def rope(self, x):
        """Rotates the pairs (0, 1), (2, 3), ... of x [tokens, heads, head_dim] by their position.

        GGUF files of LLaMA models hold the rows of the query and key weights in an order that makes the two
        elements of a pair neighbours. (The original checkpoint pairs element i with i + head_dim / 2.)
        """
        frequency = self.rope_base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        angle = (np.arange(len(x))[:, None] * frequency)[:, None, :]
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def attention(self, x, prefix):
        tokens = len(x)

        def project(name, heads):
            return (x @ self.weights[f"{prefix}.{name}.weight"].T).reshape(tokens, heads, self.head_dim)

        q = self.rope(project("attn_q", self.heads))
        k = self.rope(project("attn_k", self.kv_heads))
        v = project("attn_v", self.kv_heads)
        group = self.heads // self.kv_heads
        scores = np.einsum("qhd,khd->hqk", q, np.repeat(k, group, axis=1))
        scores /= np.sqrt(np.float32(self.head_dim))
        scores[:, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", weights, np.repeat(v, group, axis=1))
        return out.reshape(tokens, -1) @ self.weights[f"{prefix}.attn_output.weight"].T

    def feed_forward(self, x, prefix):
        gate = x @ self.weights[f"{prefix}.ffn_gate.weight"].T
        up = x @ self.weights[f"{prefix}.ffn_up.weight"].T
        return (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{prefix}.ffn_down.weight"].T

    def logits(self, ids, last):
        """The logits [last, vocabulary] of the last positions of ids."""
        x = self.weights["token_embd.weight"][ids]
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            x = x + self.attention(self.rms_norm(x, f"{prefix}.attn_norm.weight"), prefix)
            x = x + self.feed_forward(self.rms_norm(x, f"{prefix}.ffn_norm.weight"), prefix)
        return self.rms_norm(x[-last:], "output_norm.weight") @ self.weights["token_embd.weight"].T


def read_prompts():
    lines = (HERE / "prompts.ids").read_text(encoding="ascii").splitlines()
    return [[int(number) for number in line.split()] for line in lines]


def read_logits(path, rows, vocabulary):
    content = pathlib.Path(path).read_bytes()
    header = content[:8]
    size = 8 + 4 * rows * vocabulary
    if header != np.array([rows, vocabulary], "<u4").tobytes() or len(content) != size:
        raise ValueError(f"{path}: expected {rows} x {vocabulary} logits in {size} bytes, got {len(content)} "
                         f"bytes that start with {header.hex(' ')}")
    return np.frombuffer(content, "<f4", offset=8).reshape(rows, vocabulary)


def compare(reference, given, dtype):
    """Prints a line per prompt and the verdict; returns whether it is good."""
    dot = np.einsum("rv,rv->r", reference, given, dtype=np.float64)
    cosine = dot / np.maximum(np.linalg.norm(reference, axis=1) * np.linalg.norm(given, axis=1), 1e-30)
    top = np.partition(reference, -2, axis=1)[:, -2:]
    decisive = top[:, 1] - top[:, 0] > DECISIVE_GAP
    same = reference.argmax(axis=1) == given.argmax(axis=1)
    for start in range(0, len(reference), POSITIONS):
        rows = slice(start, start + POSITIONS)
        print(f"prompt {start // POSITIONS}: lowest cosine {cosine[rows].min():.6f}, arg max equal at "
              f"{(same & decisive)[rows].sum()} of {decisive[rows].sum()} decisive positions")
    problems = []
    if not np.isfinite(given).all():
        problems.append("some logits are not finite")
    if not (cosine > MIN_COSINE[dtype]).all():
        problems.append(f"the lowest cosine, {cosine.min():.6f}, is not above {MIN_COSINE[dtype]}")
    if dtype == "f16" and decisive.sum() < MIN_DECISIVE:
        problems.append(f"only {decisive.sum()} positions are decisive, and {MIN_DECISIVE} are needed")
    if dtype == "f16" and not same[decisive].all():
        problems.append(f"the arg max differs at {(~same[decisive]).sum()} decisive positions")
    print(f"{dtype}: {len(reference)} positions, cosine lowest {cosine.min():.6f} mean {cosine.mean():.6f}, "
          f"arg max equal at {(same & decisive).sum()} of {decisive.sum()} decisive positions: "
          + ("; ".join(problems) or "passed"))
    return not problems


def main():
    parser = argparse.ArgumentParser(description="Compares logits with a float32 forward pass in NumPy.")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("logits", help="what generate --logits-out wrote")
    parser.add_argument("--dtype", choices=sorted(MIN_COSINE), required=True, help="what generate ran with")
    arguments = parser.parse_args()
    try:
        model = Model(arguments.model)
        reference = np.concatenate([model.logits(ids, POSITIONS) for ids in read_prompts()])
        given = read_logits(arguments.logits, *reference.shape)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0 if compare(reference, given, arguments.dtype) else 1


if __name__ == "__main__":
    sys.exit(main())
