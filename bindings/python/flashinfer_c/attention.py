# SPDX-License-Identifier: Apache-2.0
"""Attention of batches that mix prefill and decode, and attention with sinks."""
import torch

from ._attention import Single, check_end, end_of, host_or_none, indptr_of, public
from .prefill import BatchPrefillWithPagedKVCacheWrapper


def used_pages(kv_indptr, kv_indices, kv_len_arr, page_size):
    """The page table of the pages that so many tokens fill, and the tokens on the last of each request: requests may own more.
    Nothing is read back."""
    if len(kv_indptr) != len(kv_len_arr) + 1:
        raise ValueError(f"kv_indptr has {len(kv_indptr)} entries and kv_len_arr {len(kv_len_arr)}; it needs one more")
    check_end("kv_indptr", end_of(host_or_none(kv_indptr)), len(kv_indices), "page indices")
    lengths = kv_len_arr.to(device=kv_indptr.device, dtype=torch.int32)
    pages = torch.minimum((lengths + (page_size - 1)) // page_size, kv_indptr[1:] - kv_indptr[:-1])
    indptr = indptr_of(pages)
    if len(pages):
        place = torch.arange(len(kv_indices), device=indptr.device)
        request = torch.searchsorted(indptr[1:], place, right=True).clamp(max=len(pages) - 1)
        place = (kv_indptr[request] + place - indptr[request]).clamp(max=len(kv_indices) - 1)
        kv_indices = kv_indices[place.to(kv_indices.device)]
    return indptr, kv_indices, lengths - (pages - 1) * page_size


class _KeptTables(BatchPrefillWithPagedKVCacheWrapper):
    """Tables stay where they are as long as they fit, so that a captured run() finds those of the last plan()."""

    ROOM = 1 << 16

    def __init__(self, *args):
        super().__init__(*args)
        self._rooms = {}
        self._outgrown = []  # memory that captured runs may still read and write

    def _set_buffer(self, name, value, non_blocking):
        super()._set_buffer(name, value, non_blocking)
        table, room = getattr(self, name), self._rooms.get(name)
        if room is None or len(table) > len(room):
            if room is not None:
                self._outgrown.append(room)
            room = self._rooms[name] = torch.empty(max(2 * len(table), self.ROOM), dtype=torch.int32, device=self.device)
        setattr(self, name, room[:len(table)].copy_(table))

    def grow_workspace(self):
        """After plan(): to what run() needs."""
        bytes = self._plan_info.plan.workspace_size
        if bytes > len(self._workspace):
            self._outgrown.append(self._workspace)
            self.reset_workspace_buffer(torch.empty(2 * bytes + 256, dtype=torch.uint8, device=self.device),
                                        self._int_workspace_buffer)


@public("batch_prefill_plan", "batch_prefill")
class BatchAttention(Single):
    """Attention of a batch of requests, any number of query tokens each, over a paged cache; the wrapper owns its workspace.

    A captured run() may be replayed with the lengths and page tables of a later plan() of as many requests, with as many query
    tokens at most, and with at most 65536 entries in kv_indices, or as many as a plan() before the capture had.
    """

    def __init__(self, kv_layout="NHD", device="cuda"):
        """device: where the tensors of plan() and run() lie."""
        self._kv_layout = kv_layout
        self.device = torch.device(device)
        self._wrapper = _KeptTables(torch.empty(256, dtype=torch.uint8, device=self.device), kv_layout)

    def plan(self, qo_indptr, kv_indptr, kv_indices, kv_len_arr, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size,
             causal=False, sm_scale=None, logits_soft_cap=None, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16,
             use_profiler=False):
        """Takes the lengths and page tables of a step; it waits for the device only if qo_indptr lies there.

        kv_len_arr: int32 [batch], tokens of each request; the rest is as of BatchPrefillWithPagedKVCacheWrapper.plan
        """
        if use_profiler:
            raise NotImplementedError("use_profiler: kernels do not record profiles; use Nsight Compute")
        self._wrapper.plan(qo_indptr, *used_pages(kv_indptr, kv_indices, kv_len_arr, page_size), num_qo_heads, num_kv_heads,
                           head_dim_qk, page_size, head_dim_vo, causal=causal, sm_scale=sm_scale, logits_soft_cap=logits_soft_cap,
                           q_data_type=q_data_type, kv_data_type=kv_data_type)
        self._wrapper.grow_workspace()

    def prewarm_paged_kv_stride_variant(self, variant="independent"):
        """Nothing to do: every kernel takes the strides of K and V at run time."""
        self._wrapper.prewarm_paged_kv_stride_variant(variant)

    def run(self, q, kv_cache, out=None, lse=None, k_scale=None, v_scale=None, logits_soft_cap=0.0, profiler_buffer=None,
            kv_cache_sf=None):
        """(out, lse), lse to base 2; tensors as of BatchPrefillWithPagedKVCacheWrapper.run.

        logits_soft_cap: that of plan(), or 0, which means that of plan()
        """
        if profiler_buffer is not None:
            raise NotImplementedError("profiler_buffer: kernels do not record profiles; use Nsight Compute")
        if logits_soft_cap and logits_soft_cap != self._wrapper._logits_soft_cap:
            raise ValueError(f"logits_soft_cap is {logits_soft_cap}; plan() was told {self._wrapper._logits_soft_cap}")
        return self._wrapper.run(q, kv_cache, k_scale=k_scale, v_scale=v_scale, out=out,
                                 lse=lse, return_lse=True, kv_cache_sf=kv_cache_sf)


@public("batch_prefill_plan", "batch_prefill")
class BatchAttentionWithAttentionSinkWrapper(BatchPrefillWithPagedKVCacheWrapper):
    """BatchPrefillWithPagedKVCacheWrapper whose run(q, paged_kv_cache, sink, sm_scale) takes sinks: a logit a head that joins
    the weights.
    """

    def __init__(self, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, qo_indptr_buf=None,
                 paged_kv_indptr_buf=None, paged_kv_indices_buf=None, paged_kv_last_page_len_buf=None, custom_mask_buf=None,
                 mask_indptr_buf=None, backend="auto", pos_encoding_mode="NONE", use_fp16_qk_reduction=False,
                 q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16, head_dim_qk=128, head_dim_vo=128, window_left=-1):
        """As its base class; dtypes, head_dims and window_left are of no effect: plan() takes its own."""
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph, qo_indptr_buf, paged_kv_indptr_buf,
                         paged_kv_indices_buf, paged_kv_last_page_len_buf, custom_mask_buf, mask_indptr_buf, backend)
        self._sink_variant = True
