# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache whose page table is a rectangle, block_tables, and whose scales are two numbers: upstream's trtllm
functions.

Each call compacts the rectangle into a page table on the device, a dozen small kernels that a CUDA graph captures; the wrappers
do it once a step. Plans are kept, since they are pure functions of shapes and dtypes.
"""
import functools

import torch

from ._attention import dtype_of, flags_of, indptr_of, make_plan, number, runner, unpack_cache, unpack_scales
from .utils import FP4Tensor

ARGUMENTS = ("out", "lse", "plan", "q", "k_cache", "v_cache", "kv_indptr", "kv_indices", "kv_last_page_len", "k_scale", "v_scale",
             "window_left", "sinks", "k_cache_sf", "v_cache_sf", "skip_softmax_threshold_scale_factor")
_batch_decode = runner("batch_decode", *ARGUMENTS)
_batch_prefill = runner("batch_prefill", *ARGUMENTS, "qo_indptr")

_NOTHING = "of no effect"
# What upstream's functions say of their arguments here.
NOTES = {
    "query": "[tokens, num_qo_heads, head_dim]: of each request its newest tokens, causal among themselves",
    "kv_cache": "a pair, NHD: [pages, page_size, num_kv_heads, head_dim]; HND: heads before slots; or one tensor with both, or "
                "one for both, on a second axis",
    "workspace_buffer": "bytes on the device, 16-byte aligned; its contents do not matter",
    "block_tables": "[batch, pages of the longest request], int32: ids of pages; those beyond a request's length do not matter",
    "seq_lens": "[batch], int32 or uint32: tokens of each request in the cache",
    "bmm1_scale": "a number or a float32 tensor of one element, which the products of queries and keys are multiplied with",
    "bmm2_scale": "likewise, of out",
    "window_left": "tokens to the left of its own that a query sees; -1: all",
    "out_dtype": "None: that of query",
    "q_len_per_req": "query tokens of each request, if no indptr of them is given",
    "sinks": "[num_qo_heads], float32, natural logits that join the sum of the weights; or a list of that one tensor",
    "kv_cache_sf": "a pair of e4m3 scales of a cache of e2m1 pairs, as kv_cache with head_dim / 16",
    "cum_seq_lens_q": "[batch + 1], int32: where each request's query tokens begin, and end",
    "q_cu_seq_lens": "the same as cum_seq_lens_q of trtllm_batch_decode_with_kv_cache",
    "lse": "[tokens, num_qo_heads], float32, written if given",
    "o_scale": _NOTHING + ": bmm2_scale holds it",
    "batch_size": "the rows of block_tables",
    **{name: _NOTHING for name in ("max_seq_len", "max_q_len", "max_kv_len", "cum_seq_lens_kv", "o_sf_vec_size", "cp_rank",
                                   "request_order", "request_order_plan", "multi_ctas_kv_counter_buffer",
                                   "bf16q_fp8kv_transform_mode")},
    **{name: "must be left out" for name in ("mask", "bmm1_scale_log2", "causal_seqlens_kv_global", "o_sf_scale",
                                             "use_fp16_softmax", "uses_spcompress")},
    "cp_world": "must be 1", "uses_shared_paged_kv_idx": "must be True", "enable_block_sparse_attention": "must be False",
}


def refuse(**given):
    """NotImplementedError for what is neither None nor False of these."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise NotImplementedError(f"{name} is not served")


@functools.lru_cache(maxsize=1024)
def plan_bytes(name, device, **arguments):
    plan = make_plan(name, device, **arguments)
    return plan, torch.frombuffer(plan._bytes, dtype=torch.uint8)


def page_table(block_tables, seq_lens, page_size):
    """(kv_indptr, kv_indices, kv_last_page_len) of block_tables [batch, width] and seq_lens [batch]; of a GPU nothing is read."""
    batch, width = block_tables.shape
    lengths = seq_lens.reshape(-1).to(torch.int32)
    pages = (lengths + (page_size - 1)) // page_size
    if not pages.is_cuda and (pages > width).any():
        raise ValueError(f"block_tables has {width} columns, and a request of {int(lengths.max())} tokens needs "
                         f"{int(pages.max())}")
    indptr = indptr_of(pages)
    column = torch.arange(width, device=block_tables.device)
    # Unused entries all go to one place behind the last.
    place = torch.where(column < pages[:, None], indptr[:-1, None] + column, batch * width)
    indices = torch.zeros(batch * width + 1, dtype=torch.int32, device=block_tables.device)
    indices.scatter_(0, place.reshape(-1), block_tables.reshape(-1).to(torch.int32))
    return indptr, indices, lengths - (pages - 1) * page_size


def attend(query, kv_cache, workspace, block_tables, seq_lens, bmm1_scale, bmm2_scale, window_left, out, out_dtype, sinks,
           kv_layout, enable_pdl, skip_softmax, kv_cache_sf, lse, return_lse, qo_indptr, causal=True):
    """out, or (out, lse). qo_indptr None: one query token a request."""
    if isinstance(out, FP4Tensor) or out_dtype == "nvfp4":
        raise NotImplementedError("out is nvfp4, which attention does not write")
    if torch.is_tensor(kv_cache) and kv_cache.shape[1] == 1:
        kv_cache = kv_cache[:, 0], kv_cache[:, 0]
    k_cache, v_cache = unpack_cache(kv_cache, kv_layout)
    k_sf, v_sf = unpack_scales(kv_cache_sf, kv_layout)
    page_size = k_cache.shape[1 if kv_layout == "NHD" else 2]
    if out is not None and out_dtype is not None and out.dtype != dtype_of(out_dtype):
        raise ValueError(f"out is {out.dtype}, must be {dtype_of(out_dtype)} as out_dtype")
    if out is None:
        out = torch.empty(query.shape, dtype=query.dtype if out_dtype is None else dtype_of(out_dtype), device=query.device)
    if return_lse and lse is None:
        lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    shape = dict(max_batch_size=max(len(block_tables), 1), kv_layout=kv_layout, num_qo_heads=query.shape[1],
                 num_kv_heads=k_cache.shape[2 if kv_layout == "NHD" else 1], page_size=page_size, window_left=window_left,
                 sm_scale=1.0, q_data_type=query.dtype, kv_data_type=k_cache.dtype, o_data_type=out.dtype)
    if qo_indptr is None:
        _, plan = plan_bytes("batch_decode_plan", query.device, head_dim=query.shape[2], **shape)
    else:
        _, plan = plan_bytes("batch_prefill_plan", query.device, head_dim_qk=query.shape[2], max_total_qo=max(len(query), 1),
                             causal=int(causal), **shape)
    flat = workspace.reshape(-1).view(torch.uint8)
    values = (out, lse, plan, query, k_cache, v_cache, *page_table(block_tables, seq_lens, page_size),
              number(bmm1_scale, query.device), number(bmm2_scale, query.device), None,
              sinks[0] if isinstance(sinks, (list, tuple)) else sinks, k_sf, v_sf, skip_softmax)
    flags, workspace = flags_of(enable_pdl), flat[-flat.data_ptr() % 256:]
    if qo_indptr is None:
        _batch_decode(flags, workspace, *values)
    else:
        _batch_prefill(flags, workspace, *values, qo_indptr)
    return (out, lse) if return_lse else out
