#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Llama-architecture model of transformers, random weights of Llama-3-8B's shape, run through this package: are the logits
those of eager torch, and how long is a decode step beside upstream FlashInfer?

    python3 bench/llama_decode.py [--check] [--time] [--peer flashinfer] [--draw] [--layers 32] [--context 1024]
                                  [--batch 1 16 128] [--steps 20] [--csv FILE]

Norms, rotary embedding, the append to the paged cache, attention, activation and sampling go through the package; the matrix
products are torch's, the same for everybody. --check takes prompts through a prefill and decode steps and compares the logits of
every token with those of the same weights in float32: the error must not be larger than 1.2 times that of transformers' own eager
bfloat16. --time measures a whole decode step (plan, forward of all layers, argmax, wait), once called eagerly and once as a CUDA
graph; "gemm us" is the same with nothing but the matrix products, so that the difference is what the package is answerable for.
With --draw each step is measured once more with a token drawn from the 50 most probable and of those from 0.9 of the mass, by the
package whose step it is, instead of argmax. A context has a request's tokens on pages in random order; medians of --steps steps.
"""
import argparse
import csv
import gc
import importlib
import itertools
import statistics
import sys
import time

import torch

PAGE = 16
TOP_K, TOP_P = 50, 0.9
LLAMA_3_8B = dict(vocab_size=128256,
                  hidden_size=4096,
                  intermediate_size=14336,
                  num_attention_heads=32,
                  num_key_value_heads=8,
                  max_position_embeddings=8192,
                  rms_norm_eps=1e-5,
                  tie_word_embeddings=False)
SMALL = dict(vocab_size=1000,
             hidden_size=256,
             intermediate_size=512,
             num_attention_heads=4,
             num_key_value_heads=2,
             max_position_embeddings=8192,
             rms_norm_eps=1e-5,
             tie_word_embeddings=False)


def make_model(layers, shape, device):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(num_hidden_layers=layers, attn_implementation="eager", **shape)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


class Weights:
    """The weights of a model, projections of one input side by side, and its rotary angles."""
    def __init__(self, model):
        c = model.config
        self.heads, self.kv_heads, self.eps = c.num_attention_heads, c.num_key_value_heads, c.rms_norm_eps
        self.dim = c.hidden_size // self.heads
        self.layers = []
        for layer in model.model.layers:
            a, m = layer.self_attn, layer.mlp
            self.layers.append(
                (layer.input_layernorm.weight.data, torch.cat([a.q_proj.weight.data, a.k_proj.weight.data,
                                                               a.v_proj.weight.data]), a.o_proj.weight.data,
                 layer.post_attention_layernorm.weight.data, torch.cat([m.gate_proj.weight.data,
                                                                        m.up_proj.weight.data]), m.down_proj.weight.data))
        self.embedding, self.head = model.model.embed_tokens.weight.data, model.lm_head.weight.data
        self.norm = model.model.norm.weight.data
        angles = torch.arange(c.max_position_embeddings,
                              device=self.head.device).float()[:, None] * model.model.rotary_emb.inv_freq.float()
        self.cos_sin = torch.cat([angles.cos(), angles.sin()], -1)


def forward(fi, w, ids, positions, batch_indices, tables, caches, run):
    """Logits of the new tokens, whose keys and values are appended; run(q, cache) is the attention of a planned wrapper."""
    tokens, q_size, kv_size = len(ids), w.heads * w.dim, w.kv_heads * w.dim
    indptr, indices, last_page_len = tables
    residual = torch.nn.functional.embedding(ids, w.embedding)
    x = None
    for (norm, qkv_weight, o_weight, post_norm, gate_up, down), cache in zip(w.layers, caches):
        if x is None:
            x = fi.rmsnorm(residual, norm, w.eps)
        else:
            fi.fused_add_rmsnorm(x, residual, norm, w.eps)
        qkv = torch.nn.functional.linear(x, qkv_weight)
        q, k, v = qkv.split([q_size, kv_size, kv_size], -1)
        fi.apply_rope_with_cos_sin_cache_inplace(positions, q, k, w.dim, w.cos_sin)
        fi.append_paged_kv_cache(k.view(tokens, w.kv_heads, w.dim), v.view(tokens, w.kv_heads, w.dim), batch_indices, positions,
                                 cache, indices, indptr, last_page_len)
        x = torch.nn.functional.linear(run(q.view(tokens, w.heads, w.dim), cache).view(tokens, q_size), o_weight)
        fi.fused_add_rmsnorm(x, residual, post_norm, w.eps)
        x = torch.nn.functional.linear(fi.silu_and_mul(torch.nn.functional.linear(x, gate_up)), down)
    fi.fused_add_rmsnorm(x, residual, w.norm, w.eps)
    return torch.nn.functional.linear(x, w.head)


def products(w, ids):
    """The matrix products of forward(), and nothing else of it but the lookup of embeddings."""
    x = torch.nn.functional.embedding(ids, w.embedding)
    for _, qkv_weight, o_weight, _, gate_up, down in w.layers:
        qkv = torch.nn.functional.linear(x, qkv_weight)
        x = torch.nn.functional.linear(qkv[:, :w.heads * w.dim], o_weight)
        x = torch.nn.functional.linear(torch.nn.functional.linear(x, gate_up)[:, :down.shape[1]], down)
    return torch.nn.functional.linear(x, w.head)


def page_tables(lengths, generator, total):
    """indptr, indices, last_page_len on the host: each request has pages for its whole future, of which the table lists those in
    use.
    """
    counts = [(n + PAGE - 1) // PAGE for n in lengths]
    each = total // len(lengths)
    order = torch.randperm(total, generator=generator).int()
    indptr = torch.tensor([0] + counts).cumsum(0).int()
    indices = torch.cat([order[b * each:b * each + n] for b, n in enumerate(counts)])
    return indptr, indices, torch.tensor([(n - 1) % PAGE + 1 for n in lengths], dtype=torch.int32)


def new_caches(w, layers, pages, device):
    return [torch.zeros(pages, 2, PAGE, w.kv_heads, w.dim, dtype=torch.bfloat16, device=device) for _ in range(layers)]


def check(fi, model, w, device):
    """The logits of prompts and of tokens that follow, against those of eager transformers in float32."""
    lengths, steps = [37, 100, 64], 4
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.config.vocab_size
    texts = [torch.randint(vocabulary, (n + steps, ), generator=generator).to(device) for n in lengths]
    with torch.no_grad():
        own = [model(t[None]).logits[0].float() for t in texts]
        exact_model = model.float()
        exact = [exact_model(t[None]).logits[0] for t in texts]
        model.bfloat16()
        pages = 3 * 16
        caches = new_caches(w, len(w.layers), pages, device)
        table = [t.to(device) for t in page_tables(lengths, torch.Generator().manual_seed(2), pages)]
        qo_indptr = torch.tensor([0] + lengths).cumsum(0).int()
        workspace = torch.empty(256 << 20, dtype=torch.uint8, device=device)
        prefill = fi.BatchPrefillWithPagedKVCacheWrapper(workspace)
        prefill.plan(qo_indptr, *table, w.heads, w.kv_heads, w.dim, PAGE, causal=True, q_data_type=torch.bfloat16)
        seq_lens = fi.get_seq_lens(table[0], table[2], PAGE)
        batch, positions = fi.get_batch_indices_positions(qo_indptr.to(device), seq_lens, sum(lengths))
        logits = forward(fi, w, torch.cat([t[:n] for t, n in zip(texts, lengths)]), positions, batch, table, caches, prefill.run)
        ours = [[part] for part in logits.float().split(lengths)]
        decode = fi.BatchDecodeWithPagedKVCacheWrapper(workspace, use_tensor_cores=True)
        for step in range(steps):
            now = [n + step + 1 for n in lengths]
            host = page_tables(now, torch.Generator().manual_seed(2), pages)
            table = [t.to(device) for t in host]
            decode.plan(*host, w.heads, w.kv_heads, w.dim, PAGE, q_data_type=torch.bfloat16)
            ids = torch.stack([t[n + step] for t, n in zip(texts, lengths)])
            positions = torch.tensor(now, dtype=torch.int32, device=device) - 1
            logits = forward(fi, w, ids, positions, torch.arange(3, dtype=torch.int32, device=device), table, caches, decode.run)
            for part, row in zip(ours, logits.float()):
                part.append(row[None])
    exact, own, ours = torch.cat(exact), torch.cat(own), torch.cat([torch.cat(part) for part in ours])
    spread = exact.std().item()
    errors = {
        name: ((t - exact).square().mean().sqrt().item() / spread, (t - exact).abs().max().item() / spread)
        for name, t in (("transformers, eager bfloat16", own), ("this package", ours))
    }
    for name, (rms, worst) in errors.items():
        print(f"logits of {name}: error {rms:.5f} rms, {worst:.4f} at most, in standard deviations of the float32 logits",
              flush=True)
    tokens = sample(fi, ours, vocabulary)
    print(f"{len(ours)} tokens; {len(tokens.unique())} different ones drawn, all among the 50 most probable of their rows",
          flush=True)
    for name, t in (("ours", ours), ("eager", own)):
        print(f"same argmax as float32: {name} {(t.argmax(-1) == exact.argmax(-1)).float().mean():.3f}", flush=True)
    (eager, _), (mine, _) = errors.values()
    if not mine <= 1.2 * eager:
        sys.exit(f"the logits are off: {mine:.5f} against {eager:.5f}")


def sample(fi, logits, vocabulary):
    """Draws a token of each row and sees that it is one of the 50 most probable."""
    logits = logits[:, :vocabulary].contiguous()
    tokens = fi.sampling.top_k_top_p_sampling_from_probs(fi.sampling.softmax(logits), TOP_K, TOP_P)
    allowed = logits.topk(TOP_K).values[:, -1]
    if not (logits.gather(1, tokens.long()[:, None])[:, 0] >= allowed).all():
        sys.exit("a token was sampled that is not among the 50 most probable")
    return tokens


def attempt_graph(step):
    """step captured in a CUDA graph, after calls that compile and allocate."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return graph, out


def median_us(call, steps):
    samples = []
    for i in range(-3, steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if i >= 0:
            samples.append(1e6 * (time.perf_counter() - begin))
    return statistics.median(samples)


class Draw:
    """Tokens by top-k and top-p, other ones in each replay of a graph: the offset of the random numbers moves on the device."""
    def __init__(self, fi, device):
        self.sampling = fi.sampling
        self.seed, self.offset = (torch.tensor([n], device=device) for n in (7, 0))

    def __call__(self, logits):
        self.offset += 32
        return self.sampling.top_k_top_p_sampling_from_logits(logits, TOP_K, TOP_P, seed=self.seed, offset=self.offset)


class Step:
    """A decode step of one package at one batch size."""
    def __init__(self, fi, w, batch, context, caches, graph, tensor_cores, choose):
        device, pages = w.head.device, len(caches[0])
        self.host = page_tables([context] * batch, torch.Generator().manual_seed(3), pages)
        tables = [t.to(device) for t in self.host]
        buffers = [t.clone() for t in tables] if graph else [None] * 3
        options = dict(paged_kv_indptr_buffer=buffers[0],
                       paged_kv_indices_buffer=buffers[1],
                       paged_kv_last_page_len_buffer=buffers[2])
        workspace = torch.empty(512 << 20, dtype=torch.uint8, device=device)
        self.wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", graph, tensor_cores, **options)
        self.shape = (w.heads, w.kv_heads, w.dim, PAGE)
        self.device_indices = tables[1]
        ids = torch.randint(len(w.head), (batch, ), device=device)
        positions = torch.full((batch, ), context - 1, dtype=torch.int32, device=device)
        each = torch.arange(batch, dtype=torch.int32, device=device)
        self.forward = lambda: choose(forward(fi, w, ids, positions, each, tables, caches, self.wrapper.run))
        self.plan()
        self.graph = attempt_graph(self.forward)[0] if graph else None

    def plan(self):
        self.wrapper.plan(self.host[0], self.device_indices, self.host[2], *self.shape, q_data_type=torch.bfloat16)

    def __call__(self):
        self.plan()
        self.graph.replay() if self.graph else self.forward()


def measure(packages, w, batch, context, steps, draw):
    """Rows of the table for one batch size; rounds alternate between the packages."""
    caches = new_caches(w, len(w.layers), batch * ((context + PAGE - 1) // PAGE), w.head.device)
    for cache in caches:
        cache.normal_()
    ids = torch.randint(len(w.head), (batch, ), device=w.head.device)
    for graph in (False, True):
        only = attempt_graph(lambda: products(w, ids))[0].replay if graph else lambda: products(w, ids)
        choose = {name: Draw(fi, w.head.device) if draw else lambda logits: logits.argmax(-1) for name, fi in packages.items()}
        variants = [(name, tensor_cores, Step(fi, w, batch, context, caches, graph, tensor_cores, choose[name]))
                    for name, fi in packages.items() for tensor_cores in ((False, True) if name == "upstream" else (False, ))]
        times = {v[:2]: [] for v in variants}
        gemm = []
        for _ in range(3):
            gemm.append(median_us(only, steps))
            for name, tensor_cores, step in variants:
                times[name, tensor_cores].append(median_us(step, steps))
        for name in packages:
            best = min(statistics.median(t) for (n, _), t in times.items() if n == name)
            yield dict(batch=batch,
                       context=context,
                       graph=int(graph),
                       package=name,
                       draw=int(draw),
                       step_us=round(best, 1),
                       gemm_us=round(statistics.median(gemm), 1),
                       outside_us=round(best - statistics.median(gemm), 1))
        del variants, only
        gc.collect()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--peer", help="a module with upstream's names to time beside ours")
    parser.add_argument("--draw", action="store_true", help="also steps that end in a drawn token instead of argmax")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="a model of a few MB, for machines without a GPU")
    parser.add_argument("--csv")
    options = parser.parse_args()
    ours = importlib.import_module("flashinfer_c")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begin = time.time()
    model = make_model(options.layers, SMALL if options.small else LLAMA_3_8B, device)
    w = Weights(model)
    print(f"model made in {time.time() - begin:.1f} s", flush=True)
    if options.check:
        check(ours, model, w, device)
        print(f"checked after {time.time() - begin:.1f} s", flush=True)
    del model
    gc.collect()
    if not options.time:
        return
    packages = {"ours": ours}
    if options.peer:
        packages["upstream"] = importlib.import_module(options.peer)
    rows = []
    with torch.no_grad():
        for draw, batch in itertools.product((False, True) if options.draw else (False, ), options.batch):
            for row in measure(packages, w, batch, options.context, options.steps, draw):
                rows.append(row)
                print(row, f"after {time.time() - begin:.1f} s", flush=True)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


main()
