#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The inner loop of a serving engine in torch: requests of one attention layer, whose keys and values lie in pages that are
handed out as they grow. One prefill of all prompts, then one token a request and step. On a GPU the decode step is a CUDA graph.

    PYTHONPATH=build/python python3 examples/python/decode_loop.py
"""
import torch

import flashinfer_c as flashinfer

HEADS, KV_HEADS, DIM, PAGE, VOCABULARY = 8, 2, 64, 16, 1000
HIDDEN = HEADS * DIM


class Layer:
    """Random weights of a token embedding, one attention layer and an output."""

    def __init__(self, device, dtype):
        def matrix(rows, columns):
            return (torch.randn(rows, columns) / columns**0.5).to(device, dtype)

        self.embedding, self.head = matrix(VOCABULARY, HIDDEN), matrix(VOCABULARY, HIDDEN)
        self.qkv, self.out = matrix((HEADS + 2 * KV_HEADS) * DIM, HIDDEN), matrix(HIDDEN, HIDDEN)
        self.norm = torch.ones(HIDDEN, device=device, dtype=dtype)

    def __call__(self, tokens, positions, batch_indices, tables, cache, attend):
        """Logits of tokens, whose keys and values are appended to the cache first; attend is the run of a planned wrapper."""
        indptr, indices, last_page_len = tables
        hidden = torch.nn.functional.embedding(tokens, self.embedding)
        qkv = torch.nn.functional.linear(flashinfer.rmsnorm(hidden, self.norm), self.qkv)
        q, k, v = qkv.view(len(tokens), -1, DIM).split([HEADS, KV_HEADS, KV_HEADS], 1)
        flashinfer.apply_rope_pos_ids_inplace(q, k, positions)
        flashinfer.append_paged_kv_cache(k, v, batch_indices, positions, cache, indices, indptr, last_page_len)
        hidden = hidden + torch.nn.functional.linear(attend(q, cache).flatten(1), self.out)
        return torch.nn.functional.linear(flashinfer.rmsnorm(hidden, self.norm), self.head).float()


class Pages:
    """Hands out pages; tables() is the page table of requests of these lengths, on the host."""

    def __init__(self, requests, count):
        self.free, self.owned = list(range(count)), [[] for _ in range(requests)]

    def tables(self, lengths):
        for owned, length in zip(self.owned, lengths):
            while len(owned) * PAGE < length:
                owned.append(self.free.pop())
        indptr = torch.tensor([0] + [len(owned) for owned in self.owned], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        indices = torch.tensor([page for owned in self.owned for page in owned], dtype=torch.int32)
        return indptr, indices, torch.tensor([(n - 1) % PAGE + 1 for n in lengths], dtype=torch.int32)


def generate(layer, prompts, steps, device, dtype):
    """The most probable continuation of every prompt, [requests, steps]."""
    batch, lengths = len(prompts), [len(p) for p in prompts]
    most = sum((n + steps + PAGE - 1) // PAGE for n in lengths)
    pages = Pages(batch, most)
    cache = torch.zeros(most, 2, PAGE, KV_HEADS, DIM, device=device, dtype=dtype)
    workspace = torch.empty(64 << 20, dtype=torch.uint8, device=device)

    tables = pages.tables(lengths)
    qo_indptr = torch.tensor([0] + lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace)
    prefill.plan(qo_indptr, *tables, HEADS, KV_HEADS, DIM, PAGE, causal=True, q_data_type=dtype)
    on_device = [t.to(device) for t in tables]
    lengths_on_device = torch.tensor(lengths, dtype=torch.int32, device=device)
    batch_indices, positions = flashinfer.get_batch_indices_positions(qo_indptr.to(device), lengths_on_device, sum(lengths))
    logits = layer(torch.cat(prompts).to(device), positions, batch_indices, on_device, cache, prefill.run)
    tokens = logits[qo_indptr[1:].long() - 1].argmax(-1)

    # Addresses that a CUDA graph may keep: the wrapper's buffers, the tokens and their positions.
    buffers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (batch + 1, most, batch)]
    decode = flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(workspace, *buffers)
    positions, requests = lengths_on_device.clone(), torch.arange(batch, dtype=torch.int32, device=device)

    def step():
        tokens.copy_(layer(tokens, positions, requests, buffers, cache, decode.run).argmax(-1))

    drawn, graph = [tokens.clone()], None
    for i in range(1, steps):
        decode.plan(*pages.tables([n + i for n in lengths]), HEADS, KV_HEADS, DIM, PAGE, q_data_type=dtype)
        if graph is not None:
            graph.replay()
        else:
            step()
            if device == "cuda":
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step()
        drawn.append(tokens.clone())
        positions += 1
    return torch.stack(drawn, 1)


def one_by_one(layer, prompt, steps, device, dtype):
    """The same for one prompt, without a cache: all tokens anew in every step."""
    text = prompt.to(device)
    for _ in range(steps):
        hidden = torch.nn.functional.embedding(text, layer.embedding)
        qkv = torch.nn.functional.linear(flashinfer.rmsnorm(hidden, layer.norm), layer.qkv)
        q, k, v = qkv.view(len(text), -1, DIM).split([HEADS, KV_HEADS, KV_HEADS], 1)
        q, k = flashinfer.apply_rope_pos_ids(q, k, torch.arange(len(text), dtype=torch.int32, device=device))
        q, k, v = (t.transpose(0, 1).float() for t in (q, k, v))
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 0) for t in (k, v))
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1).to(dtype)
        hidden = hidden + torch.nn.functional.linear(seen, layer.out)
        logits = torch.nn.functional.linear(flashinfer.rmsnorm(hidden, layer.norm), layer.head).float()
        text = torch.cat([text, logits[-1:].argmax(-1)])
    return text[len(prompt):]


def main():
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype, steps = torch.float16, 12
    layer = Layer(device, dtype)
    prompts = [torch.randint(VOCABULARY, (n,)) for n in (5, 37, 16)]
    drawn = generate(layer, prompts, steps, device, dtype)
    for prompt, tokens in zip(prompts, drawn):
        expected = one_by_one(layer, prompt, steps, device, dtype)
        print(f"{len(prompt)} tokens, then {tokens.tolist()}")
        assert tokens.tolist() == expected.tolist(), f"without a cache the tokens are {expected.tolist()}"


main()
