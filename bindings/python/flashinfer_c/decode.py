# SPDX-License-Identifier: Apache-2.0
"""Attention of new tokens over what is cached: one request at a time, or a batch over pages."""
import functools

import torch

from . import _core
from ._api import api
from ._attention import (Wrapper, check_end, check_layout, dtype_of, end_of, flags_of, head_scales, host_or_none, make_plan,
                         pos_encoding, public, runner, scales, softmax_scale, split_size, unpack_cache, unpack_scales)
from ._block_tables import NOTES, attend, refuse
from .page import get_seq_lens  # noqa: F401  engines take it from here
from .utils import MaskMode, PosEncodingMode, TensorLayout, _get_range_buf  # noqa: F401


ARGUMENTS = ("out", "lse", "plan", "q", "k_cache", "v_cache", "kv_indptr", "kv_indices", "kv_last_page_len", "q_scale", "k_scale",
             "v_scale", "window_left", "sinks", "k_cache_sf", "v_cache_sf", "skip_softmax_threshold_scale_factor")
_batch_decode = runner("batch_decode", *ARGUMENTS)
_batch_prefill = runner("batch_prefill", *ARGUMENTS, "qo_indptr")


@api("single_decode_with_kv_cache")
def single_decode_with_kv_cache(q, k, v, kv_layout="NHD", pos_encoding_mode="NONE", use_tensor_cores=False, q_scale=None,
                                k_scale=None, v_scale=None, window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None,
                                rope_theta=None, return_lse=False):
    """Returns out [num_qo_heads, head_dim], with return_lse (out, lse [num_qo_heads])."""
    check_layout(kv_layout)
    q_scale, k_scale, v_scale = scales(q_scale, k_scale, v_scale, k.dtype, q.device)
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:1], dtype=torch.float32, device=q.device) if return_lse else None
    _core.call("single_decode_with_kv_cache", flags=_core.PDL, out=out, lse=lse, q=q, k=k, v=v, kv_layout=kv_layout,
               pos_encoding_mode=pos_encoding(pos_encoding_mode), q_scale=q_scale, k_scale=k_scale, v_scale=v_scale,
               window_left=window_left,
               logits_soft_cap=logits_soft_cap or None, sm_scale=softmax_scale(sm_scale), rope_scale=rope_scale,
               rope_theta=rope_theta)
    return (out, lse) if return_lse else out


@public("batch_decode_plan", "batch_decode", "batch_prefill_plan", "batch_prefill")
class BatchDecodeWithPagedKVCacheWrapper(Wrapper):
    """Attention of a batch of requests over a paged cache, q_len_per_req new tokens each: plan() once a step, run() once a layer.

    plan() waits for nothing, wherever its tensors lie: lengths and page tables are read on the device by each run. With
    use_cuda_graph the batch size is fixed and plan() copies page tables into the buffers given here, so that a captured run()
    replays with them.
    """

    def __init__(self, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, use_tensor_cores=False,
                 paged_kv_indptr_buffer=None, paged_kv_indices_buffer=None, paged_kv_last_page_len_buffer=None, backend="auto",
                 jit_args=None):
        """float_workspace_buffer: any dtype, 16-byte aligned, on the device of the tensors; workspace_size() says how many bytes
        it needs
        paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer: int32 [batch + 1], [at least the pages in
            use], [batch]
        jit_args: a flashinfer_c.Variant of batch_decode or batch_prefill, whose further arguments run() takes by position behind
            paged_kv_cache
        use_tensor_cores: kernels use them where they help, whatever it says
        """
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph, backend, jit_args)
        self._use_tensor_cores = use_tensor_cores
        self._paged_kv_indptr_buf = paged_kv_indptr_buffer
        self._paged_kv_indices_buf = paged_kv_indices_buffer
        self._paged_kv_last_page_len_buf = paged_kv_last_page_len_buffer
        self._qo_indptr_buf = self._qo_indptr_of = None
        self._q_len_per_req = None
        if use_cuda_graph:
            if not torch.is_tensor(paged_kv_last_page_len_buffer):
                raise ValueError("paged_kv_last_page_len_buffer must be a tensor in CUDA-graph mode")
            self._fix_batch("paged_kv_last_page_len_buffer", len(paged_kv_last_page_len_buffer),
                            paged_kv_indptr_buffer=(paged_kv_indptr_buffer, 1),
                            paged_kv_indices_buffer=(paged_kv_indices_buffer, None))

    @property
    def use_tensor_cores(self):
        """What was said at construction."""
        return self._use_tensor_cores

    def workspace_size(self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
                       pos_encoding_mode="NONE", window_left=-1, logits_soft_cap=None, q_data_type="float16", kv_data_type=None,
                       o_data_type=None, data_type=None, sm_scale=None, rope_scale=None, rope_theta=None, block_tables=None,
                       seq_lens=None, fixed_split_size=None, disable_split_kv=False, q_len_per_req=1):
        """Bytes of (float, int) workspace that run() needs at most after a plan() with these arguments, which changes nothing
        here.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _use_cuda_graph=False, _plan_info=None)
        other.plan(indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
                   window_left, logits_soft_cap, q_data_type, kv_data_type, o_data_type, data_type, sm_scale, rope_scale,
                   rope_theta, True, block_tables, seq_lens, fixed_split_size, disable_split_kv, q_len_per_req)
        return other._plan_info.plan.workspace_size, 16

    def plan(self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode="NONE",
             window_left=-1, logits_soft_cap=None, q_data_type="float16", kv_data_type=None, o_data_type=None, data_type=None,
             sm_scale=None, rope_scale=None, rope_theta=None, non_blocking=True, block_tables=None, seq_lens=None,
             fixed_split_size=None, disable_split_kv=False, q_len_per_req=1, *, window_right=0, is_causal=None):
        """Takes the page tables of a step and chooses kernels.

        indptr, indices, last_page_len: int32 [batch + 1], [pages], [batch], on the host or on the device: request b has the pages
            indices[indptr[b]] .. indices[indptr[b + 1] - 1], the last of which holds last_page_len[b] tokens
        non_blocking: what lies in pinned memory may be read until the stream gets there, but for indices in CUDA-graph mode
        sm_scale: None: 1 / sqrt(head_dim)
        window_left: tokens to the left of its own that a query sees; -1: all
        logits_soft_cap: None or 0: off
        kv_data_type, o_data_type: None: q_data_type
        fixed_split_size: None or -1: keys are divided as suits the batch; a number of pages: a request's bits do not depend on
            its batch, for which its keys are not divided at all
        disable_split_kv: keys are never divided, so that a request's bits do not depend on its batch
        q_len_per_req: new tokens of each request, causal among themselves
        block_tables, seq_lens: of no effect, they say what the page table says
        """
        if window_right:
            raise NotImplementedError(f"window_right is {window_right}; queries see nothing to their right")
        if is_causal is not None and is_causal != (q_len_per_req > 1):
            raise NotImplementedError(f"is_causal is {is_causal}; the tokens of a request are causal among themselves")
        self._plan(True, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
                   window_left, logits_soft_cap, q_data_type, kv_data_type, o_data_type, data_type, sm_scale, rope_scale,
                   rope_theta, non_blocking, fixed_split_size, disable_split_kv, q_len_per_req, None)
        self._block_tables, self._seq_lens_kv = block_tables, seq_lens

    begin_forward = plan

    def _plan(self, copy, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
              window_left, logits_soft_cap, q_data_type, kv_data_type, o_data_type, data_type, sm_scale, rope_scale, rope_theta,
              non_blocking, fixed_split_size, disable_split_kv, q_len_per_req, indptr_host):
        batch_size = len(last_page_len)
        if len(indptr) != batch_size + 1:
            raise ValueError(f"indptr has {len(indptr)} entries and last_page_len {batch_size}; it needs one more")
        if q_len_per_req < 1:
            raise ValueError(f"q_len_per_req is {q_len_per_req}; it is at least 1")
        self._check_batch(batch_size, indices)
        if self._use_cuda_graph and self._q_len_per_req not in (None, q_len_per_req):
            raise ValueError(f"q_len_per_req is {q_len_per_req}; in CUDA-graph mode it is fixed at {self._q_len_per_req}")
        q_data_type = dtype_of(data_type or "float16") if q_data_type is None else dtype_of(q_data_type)
        self._set_options(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        self._cached_q_data_type = q_data_type
        self._cached_kv_data_type = dtype_of(kv_data_type or data_type or q_data_type)
        self._cached_o_data_type = dtype_of(o_data_type or q_data_type)
        self._batch_size = batch_size
        self._num_qo_heads, self._num_kv_heads, self._page_size = num_qo_heads, num_kv_heads, page_size
        self._head_dim = head_dim
        self._q_len_per_req = q_len_per_req
        self._split = {"fixed_split_size": split_size(fixed_split_size), "disable_split_kv": int(disable_split_kv)}
        self._indptr_host = host_or_none(indptr_host if indptr_host is not None else indptr)
        if copy:
            check_end("indptr", end_of(self._indptr_host), len(indices), "page indices")
        if copy or not self._use_cuda_graph:
            self._set_buffer("_paged_kv_indptr_buf", indptr, non_blocking)
            self._set_buffer("_paged_kv_indices_buf", indices, non_blocking)
            self._set_buffer("_paged_kv_last_page_len_buf", last_page_len, non_blocking)
        if self._is_prefill() and self._qo_indptr_of != (batch_size, q_len_per_req):
            self._qo_indptr_of = batch_size, q_len_per_req
            self._qo_indptr_buf = torch.arange(0, (batch_size + 1) * q_len_per_req, q_len_per_req, dtype=torch.int32,
                                               device=self.device)
        self._keep_plan()

    def _resize(self, rows_or_batch, batch_size=None, has_rows=False):
        self._batch_size = batch_size if has_rows else rows_or_batch

    def _is_prefill(self):
        """Several tokens a request are a causal prefill; a variant may be of either op."""
        return self._q_len_per_req > 1 or self._variant is not None and "qo_indptr" in self._variant.declaration.by_name

    def _make_plan(self):
        shared = dict(max_batch_size=max(self._batch_size, 1), kv_layout=self._kv_layout, num_qo_heads=self._num_qo_heads,
                      num_kv_heads=self._num_kv_heads, page_size=self._page_size, q_data_type=dtype_of(self._cached_q_data_type),
                      kv_data_type=dtype_of(self._cached_kv_data_type),
                      o_data_type=dtype_of(self._cached_o_data_type or self._cached_q_data_type), kv_indptr=self._indptr_host,
                      **self._split, **self._option_arguments())
        if not self._is_prefill():
            return make_plan("batch_decode_plan", self.device, head_dim=self._head_dim, **shared)
        return make_plan("batch_prefill_plan", self.device, head_dim_qk=self._head_dim, causal=1,
                         max_total_qo=max(self._batch_size, 1) * self._q_len_per_req, **shared)

    def run(self, q, paged_kv_cache, *args, q_scale=None, k_scale=None, v_scale=None, out=None, lse=None, return_lse=False,
            enable_pdl=None, window_left=None, sinks=None, q_len_per_req=None, skip_softmax_threshold_scale_factor=None,
            kv_cache_sf=None):
        """Attention of the new tokens of each request.

        q: [batch * q_len_per_req, num_qo_heads, head_dim]
        paged_kv_cache: one tensor, NHD: [pages, 2, page_size, num_kv_heads, head_dim], HND: heads before slots; or (k, v) without
            the 2
        q_scale, k_scale, v_scale: floats, or float32 tensors of one element or of one for each head; None: 1
        sinks: [num_qo_heads] float32, natural logits that join the sum of the weights
        out, lse: written if given: [batch * q_len_per_req, num_qo_heads, head_dim], [batch * q_len_per_req, num_qo_heads] float32
        Returns out, with return_lse (out, lse), lse to base 2.
        """
        if self._sink_variant and len(args) == 2:
            sinks, self._sm_scale = args
        elif args and self._variant is None:
            q_scale, k_scale, v_scale = head_scales(args, q_scale, k_scale, v_scale)
        plan = self._planned()
        k_cache, v_cache = unpack_cache(paged_kv_cache, self._kv_layout)
        if out is None:
            out = torch.empty(q.shape, dtype=dtype_of(self._cached_o_data_type or q.dtype), device=q.device)
        if return_lse and lse is None:
            lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        k_sf, v_sf = unpack_scales(kv_cache_sf, self._kv_layout)
        values = (out, lse, plan, q, k_cache, v_cache, self._paged_kv_indptr_buf, self._paged_kv_indices_buf,
                  self._paged_kv_last_page_len_buf, *scales(q_scale, k_scale, v_scale, self._cached_kv_data_type, q.device),
                  window_left, sinks, k_sf, v_sf, skip_softmax_threshold_scale_factor)
        flags = flags_of(enable_pdl)
        if self._is_prefill():
            self._run_op("batch_prefill", _batch_prefill, (*ARGUMENTS, "qo_indptr"), flags, (*values, self._qo_indptr_buf), args)
        else:
            self._run_op("batch_decode", _batch_decode, ARGUMENTS, flags, values, args)
        return (out, lse) if return_lse else out

    def forward(self, q, paged_kv_cache, pos_encoding_mode="NONE", q_scale=None, k_scale=None, v_scale=None, window_left=-1,
                logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """run() with options that replace those of plan()."""
        self._set_options(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        return self.run(q, paged_kv_cache, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward_return_lse(self, q, paged_kv_cache, pos_encoding_mode="NONE", q_scale=None, k_scale=None, v_scale=None,
                           window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """forward() that returns (out, lse)."""
        self._set_options(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        return self.run(q, paged_kv_cache, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale, return_lse=True)


@public("batch_decode_plan", "batch_decode", "batch_prefill_plan", "batch_prefill")
class CUDAGraphBatchDecodeWithPagedKVCacheWrapper(BatchDecodeWithPagedKVCacheWrapper):
    """BatchDecodeWithPagedKVCacheWrapper in CUDA-graph mode, with the buffers first."""

    def __init__(self, workspace_buffer, indptr_buffer, indices_buffer, last_page_len_buffer, kv_layout="NHD",
                 use_tensor_cores=False):
        """The arguments of BatchDecodeWithPagedKVCacheWrapper."""
        super().__init__(workspace_buffer, kv_layout, True, use_tensor_cores, indptr_buffer, indices_buffer, last_page_len_buffer)


@api("batch_decode_plan", notes={
    "self": "a decode wrapper",
    **dict.fromkeys(("indptr", "indices", "last_page_len", "data_type", "non_blocking"), "as plan() takes it"),
    "global_override_indptr_cpu": "indptr on the host, which helps to choose a kernel",
})
def fast_decode_plan(self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
                     pos_encoding_mode="NONE", window_left=-1, logits_soft_cap=None, q_data_type=None, kv_data_type=None,
                     data_type=None, sm_scale=None, rope_scale=None, rope_theta=None, non_blocking=True, fixed_split_size=None,
                     disable_split_kv=False, q_len_per_req=1, global_override_indptr_cpu=None):
    """plan() of a decode wrapper whose buffers in CUDA-graph mode the caller has filled already: they are not copied to. Dtypes
    that are left out are those of its plan().
    """
    if not isinstance(self, BatchDecodeWithPagedKVCacheWrapper):
        raise TypeError(f"fast_decode_plan: self is of type {type(self).__name__}, must be a decode wrapper")
    o_data_type = None
    if self._plan_info is not None:
        if q_data_type is None and kv_data_type is None and data_type is None:
            q_data_type, kv_data_type = self._cached_q_data_type, self._cached_kv_data_type
        if dtype_of(q_data_type or data_type or "float16") == dtype_of(self._cached_q_data_type):
            o_data_type = self._cached_o_data_type
    self._plan(False, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
               window_left, logits_soft_cap, q_data_type, kv_data_type, o_data_type, data_type, sm_scale, rope_scale, rope_theta,
               non_blocking, fixed_split_size, disable_split_kv, q_len_per_req, global_override_indptr_cpu)


@api("batch_decode", "batch_prefill", "batch_decode_plan", "batch_prefill_plan", notes=NOTES)
def trtllm_batch_decode_with_kv_cache(query, kv_cache, workspace_buffer, block_tables, seq_lens, max_seq_len, bmm1_scale=1.0,
                                      bmm2_scale=1.0, window_left=-1, out=None, out_dtype=None, o_sf_scale=None,
                                      o_sf_vec_size=None, sinks: "Tensor | list[Tensor] | None" = None, kv_layout="HND",
                                      enable_pdl=None, backend="auto",
                                      q_len_per_req=1, o_scale=1.0, mask=None, max_q_len=None, cum_seq_lens_q=None,
                                      skip_softmax_threshold_scale_factor=None, kv_cache_sf=None, uses_shared_paged_kv_idx=True,
                                      lse=None, return_lse=False, bmm1_scale_log2=None, multi_ctas_kv_counter_buffer=None,
                                      enable_block_sparse_attention=False, cp_world=1, cp_rank=0, causal_seqlens_kv_global=None,
                                      bf16q_fp8kv_transform_mode=None, request_order=None, request_order_plan=None):
    """Attention of the newest tokens of each request over pages that a rectangle lists. Returns out, with return_lse (out, lse).

    Each call makes a page table of the rectangle, a dozen small kernels; a wrapper does it once a step.
    """
    refuse(mask=mask, bmm1_scale_log2=bmm1_scale_log2, enable_block_sparse_attention=enable_block_sparse_attention,
           cp_world=cp_world != 1, causal_seqlens_kv_global=causal_seqlens_kv_global, o_sf_scale=o_sf_scale,
           separate_page_tables=not uses_shared_paged_kv_idx)
    qo_indptr = cum_seq_lens_q
    if qo_indptr is None and q_len_per_req > 1:
        qo_indptr = torch.arange(0, len(query) + 1, q_len_per_req, dtype=torch.int32, device=query.device)
    return attend(query, kv_cache, workspace_buffer, block_tables, seq_lens, bmm1_scale, bmm2_scale, window_left, out, out_dtype,
                  sinks, kv_layout, enable_pdl, skip_softmax_threshold_scale_factor, kv_cache_sf, lse, return_lse, qo_indptr)


@api("batch_decode", "batch_prefill", "batch_decode_plan", "batch_prefill_plan", notes=NOTES)
def xqa_batch_decode_with_kv_cache(query, kv_cache, workspace_buffer, block_tables, seq_lens, max_seq_len, bmm1_scale=1.0,
                                   bmm2_scale=1.0, window_left=-1, out=None, sinks: "Tensor | list[Tensor] | None" = None,
                                   kv_layout="NHD", enable_pdl=None,
                                   q_len_per_req=1, o_scale=1.0, mask=None, kv_cache_sf=None, q_cu_seq_lens=None):
    """trtllm_batch_decode_with_kv_cache with fewer options. Returns out."""
    return trtllm_batch_decode_with_kv_cache(query, kv_cache, workspace_buffer, block_tables, seq_lens, max_seq_len, bmm1_scale,
                                             bmm2_scale, window_left, out, sinks=sinks, kv_layout=kv_layout,
                                             enable_pdl=enable_pdl, q_len_per_req=q_len_per_req, mask=mask,
                                             kv_cache_sf=kv_cache_sf, cum_seq_lens_q=q_cu_seq_lens)
