# SPDX-License-Identifier: Apache-2.0
"""Attention as its definition says, in float64, paged caches to compare on, and wrappers planned, run and compared."""
import math

import torch

import flashinfer_c as flashinfer

HEADS, KV_HEADS, DIM, PAGE = 8, 2, 64, 4
# What one rounding to the dtype of the output and weights rounded before they multiply values allow.
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def attention(q, k, v, causal=False, mask=None, sm_scale=None, window_left=-1, soft_cap=0.0, sinks=None, bias=None):
    """(out, lse to base 2) of one request: q [qo_len, heads, dim], k and v [kv_len, kv_heads, dim]."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.double().repeat_interleave(group, 1) for t in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q.double(), k) * (sm_scale or 1 / math.sqrt(q.shape[-1]))
    if bias is not None:
        logits = logits + bias
    if soft_cap:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    qo_len, kv_len = q.shape[0], k.shape[0]
    i, j = torch.arange(qo_len, device=q.device)[:, None], torch.arange(kv_len, device=q.device)[None]
    seen = torch.ones(qo_len, kv_len, dtype=torch.bool, device=q.device) if mask is None else mask.bool()
    if causal and mask is None:
        seen = seen & (j + qo_len <= kv_len + i)
    if window_left >= 0:
        seen = seen & (j + qo_len + window_left >= kv_len + i)
    logits = logits.masked_fill(~seen, -math.inf)
    total = logits.logsumexp(-1)
    if sinks is not None:
        total = torch.logaddexp(total, sinks.double()[:, None])
    weights = torch.exp(logits - total[..., None]).nan_to_num(0.0)
    return torch.einsum("hqk,khd->qhd", weights, v), total.t() / math.log(2)


class Pages:
    """A paged cache of requests with these lengths, its page table on the host, and each request's keys and values."""

    def __init__(self, lengths, page_size, heads, dim, dtype, device, layout="NHD", generator=None):
        generator = generator or torch.Generator().manual_seed(len(lengths) + page_size)
        lengths = torch.tensor(lengths)
        counts = (lengths + page_size - 1) // page_size
        self.indptr = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        self.indptr[1:] = counts.cumsum(0)
        used = int(self.indptr[-1])
        self.indices = torch.randperm(used + 3, generator=generator)[:used].int()
        self.last_page_len = torch.where(counts > 0, (lengths - 1) % page_size + 1, torch.zeros_like(lengths)).int()
        shape = (used + 3, 2, page_size, heads, dim) if layout == "NHD" else (used + 3, 2, heads, page_size, dim)
        self.cache = torch.randn(shape, generator=generator).to(dtype).to(device)
        self.lengths, self.layout = lengths.tolist(), layout

    def request(self, b):
        """(k, v), each [length, heads, dim]."""
        pages = self.indices[self.indptr[b]:self.indptr[b + 1]].long().to(self.cache.device)
        kv = self.cache[pages].unbind(1)
        return [(t if self.layout == "NHD" else t.transpose(1, 2)).flatten(0, 1)[:self.lengths[b]] for t in kv]

    def tables(self, device="cpu"):
        return [t.to(device) for t in (self.indptr, self.indices, self.last_page_len)]


def starts(lengths):
    """[n + 1] int32: where each of so many begins."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    indptr[1:] = torch.tensor(lengths).cumsum(0)
    return indptr


def workspace(device, bytes=16 << 20):
    return torch.empty(bytes, dtype=torch.uint8, device=device)


def randn(*shape, device="cpu", dtype=torch.float16, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def close(actual, expected, dtype=torch.float16):
    torch.testing.assert_close(actual.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def decode(device, pages, q_len=1, wrapper=None, on_host=True, dtype=torch.float16, seed=1, plan=None, **run):
    """Plans, runs and compares a decode wrapper; returns it."""
    wrapper = wrapper or flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), pages.layout)
    tables = pages.tables("cpu" if on_host else device)
    wrapper.plan(*tables, HEADS, KV_HEADS, DIM, PAGE, q_data_type=dtype, q_len_per_req=q_len, **(plan or {}))
    q = randn(len(pages.lengths) * q_len, HEADS, DIM, device=device, dtype=dtype, seed=seed)
    check_decode(wrapper.run(q, pages.cache, return_lse=True, **run), q, pages, q_len, dtype, plan or {}, run)
    return wrapper


def check_decode(result, q, pages, q_len=1, dtype=torch.float16, plan=None, run=None):
    out, lse = result
    plan, run = plan or {}, run or {}
    for b in range(len(pages.lengths)):
        rows = slice(b * q_len, (b + 1) * q_len)
        k, v = pages.request(b)
        expected, expected_lse = attention(q[rows], k, v, causal=True, sm_scale=plan.get("sm_scale"),
                                           window_left=plan.get("window_left", -1), soft_cap=plan.get("logits_soft_cap") or 0,
                                           sinks=run.get("sinks"))
        close(out[rows], expected, dtype)
        torch.testing.assert_close(lse[rows].double(), expected_lse, atol=1e-3, rtol=1e-3)


def prefill(device, pages, qo_lens, wrapper=None, on_host=True, dtype=torch.float16, seed=1, masks=None, packed=False,
            page_size=PAGE, **plan):
    wrapper = wrapper or flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), pages.layout)
    qo_indptr = starts(qo_lens).to("cpu" if on_host else device)
    if masks is not None:
        flat = torch.cat([m.reshape(-1) for m in masks])
        if packed:
            plan["packed_custom_mask"] = torch.cat([pack(m) for m in masks]).to(device)
        else:
            plan["custom_mask"] = flat.to(device)
    wrapper.plan(qo_indptr, *pages.tables("cpu" if on_host else device), HEADS, KV_HEADS, DIM, page_size, q_data_type=dtype,
                 **plan)
    q = randn(sum(qo_lens), HEADS, DIM, device=device, dtype=dtype, seed=seed)
    check_prefill(wrapper.run(q, pages.cache, return_lse=True), q, qo_lens, pages.request, dtype, masks, plan)
    return wrapper


def check_prefill(result, q, qo_lens, request, dtype=torch.float16, masks=None, plan=None, sinks=None):
    out, lse = result
    plan, indptr = plan or {}, starts(qo_lens).tolist()
    for b, (begin, end) in enumerate(zip(indptr, indptr[1:])):
        k, v = request(b)
        expected, expected_lse = attention(q[begin:end], k, v, plan.get("causal", False),
                                           None if masks is None else masks[b].to(q.device), plan.get("sm_scale"),
                                           plan.get("window_left", -1), plan.get("logits_soft_cap") or 0, sinks)
        close(out[begin:end], expected, dtype)
        torch.testing.assert_close(lse[begin:end].double(), expected_lse, atol=1e-3, rtol=1e-3)


def pack(mask):
    bits = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).reshape(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def random_masks(qo_lens, kv_lens):
    generator = torch.Generator().manual_seed(7)
    masks = [torch.rand(q, k, generator=generator) < 0.6 for q, k in zip(qo_lens, kv_lens)]
    for mask in masks:
        mask[:, 0] = True
    return masks
