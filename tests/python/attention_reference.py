# SPDX-License-Identifier: Apache-2.0
"""Attention as its definition says, in float64, and paged caches to compare on."""
import math

import torch


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
