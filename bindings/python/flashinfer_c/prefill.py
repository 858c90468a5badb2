# SPDX-License-Identifier: Apache-2.0
"""Attention of any number of query tokens a request: one request, a batch over a paged cache, a batch over ragged keys and
values.
"""
import functools

import torch

from . import _core
from ._api import api, as_bool
from ._attention import (Wrapper, check_end, check_layout, check_lse, dtype_of, end_of, finish_lse, flags_of, head_scales,
                         host_or_none, make_plan, on_host, pack_mask, packed_mask_indptr, pos_encoding, public, runner, scales,
                         softmax_scale, split_size, unpack_cache, unpack_scales)
from ._block_tables import NOTES, attend, refuse
from .page import get_seq_lens  # noqa: F401  engines take it from here
from .utils import MaskMode, PosEncodingMode, TensorLayout  # noqa: F401


MASKS = ("packed_custom_mask", "mask_indptr", "prefix_len", "token_pos_in_items", "max_item_len")
PAGED = ("out", "lse", "plan", "q", "k_cache", "v_cache", "qo_indptr", "kv_indptr", "kv_indices", "kv_last_page_len", *MASKS,
         "q_scale", "k_scale", "v_scale", "window_left", "sinks", "k_cache_sf", "v_cache_sf",
         "skip_softmax_threshold_scale_factor", "return_lse_base_on_e")
RAGGED = ("out", "lse", "plan", "q", "k", "v", "qo_indptr", "kv_indptr", "v_indptr", "o_indptr", *MASKS, "q_scale", "k_scale",
          "v_scale", "o_scale", "sinks", "k_sf", "v_sf", "return_lse_base_on_e")
_batch_prefill = runner("batch_prefill", *PAGED)
_batch_prefill_ragged = runner("batch_prefill_ragged", *RAGGED)


@api("single_prefill_with_kv_cache")
def single_prefill_with_kv_cache(q, k, v, scale_q=None, scale_k=None, scale_v=None, o_dtype=None, custom_mask=None,
                                 packed_custom_mask=None, causal=False, kv_layout="NHD", pos_encoding_mode="NONE",
                                 use_fp16_qk_reduction=False, sm_scale=None, window_left=-1, logits_soft_cap=None,
                                 rope_scale=None, rope_theta=None, backend="auto", return_lse=False, kv_cache_sf=None,
                                 k_scale=None, v_scale=None):
    """Attention of the last qo_len tokens of one request. Returns out, with return_lse (out, lse). o_dtype: None: that of q."""
    check_layout(kv_layout)
    head_dim_vo = v.shape[-1] if kv_cache_sf is None else 2 * v.shape[-1]
    out = torch.empty((*q.shape[:-1], head_dim_vo), dtype=q.dtype if o_dtype is None else dtype_of(o_dtype), device=q.device)
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) if return_lse else None
    k_sf, v_sf = kv_cache_sf if kv_cache_sf is not None else (None, None)
    _, k_number, v_number = scales(None, k_scale, v_scale, k.dtype, q.device)
    k_scale, v_scale = k_number if scale_k is None else k_scale, v_number if scale_v is None else v_scale
    _core.call("single_prefill_with_kv_cache", flags=_core.PDL, out=out, lse=lse, q=q, k=k, v=v, scale_q=scale_q, scale_k=scale_k,
               scale_v=scale_v, custom_mask=as_bool(custom_mask) if packed_custom_mask is None else None,
               packed_custom_mask=packed_custom_mask, causal=int(causal), kv_layout=kv_layout,
               pos_encoding_mode=pos_encoding(pos_encoding_mode), use_fp16_qk_reduction=int(use_fp16_qk_reduction),
               sm_scale=softmax_scale(sm_scale), window_left=window_left, logits_soft_cap=logits_soft_cap or None,
               rope_scale=rope_scale, rope_theta=rope_theta, k_sf=k_sf, v_sf=v_sf, k_scale=k_scale, v_scale=v_scale)
    return (out, lse) if return_lse else out


single_prefill_with_kv_cache_return_lse = functools.partial(single_prefill_with_kv_cache, return_lse=True)
__all__.append("single_prefill_with_kv_cache_return_lse")  # noqa: F821  made by api()


class PrefillWrapper(Wrapper):
    """What the paged and the ragged wrapper share."""

    def _construct(self, buffers, custom_mask_buf, mask_indptr_buf, jit_kwargs, variant_owns_mask):
        """Takes the buffers of CUDA-graph mode: name -> (tensor, entries beyond the batch size, or None: any)."""
        if variant_owns_mask:
            raise NotImplementedError("variant_owns_mask: masks of variants are hooks here")
        self._use_sliding_window = bool(jit_kwargs and jit_kwargs.get("use_sliding_window"))
        for name, (buffer, _) in buffers.items():
            setattr(self, "_" + name, buffer)
        self._custom_mask_buf, self._mask_indptr_buf = custom_mask_buf, mask_indptr_buf
        self._max_total_num_rows = self._seq_lens_q = None
        if self._use_cuda_graph:
            qo_indptr_buf = buffers["qo_indptr_buf"][0]
            if not torch.is_tensor(qo_indptr_buf):
                raise ValueError("qo_indptr_buf must be a tensor in CUDA-graph mode")
            self._fix_batch("qo_indptr_buf", len(qo_indptr_buf) - 1, **buffers)

    def _plan_rows(self, qo_indptr, non_blocking):
        """The query tokens of the batch; their number is all that plan() needs on the host."""
        host = on_host(qo_indptr)
        rows = int(host[-1])
        if self._use_cuda_graph:
            if self._max_total_num_rows is None:
                self._max_total_num_rows = rows
            elif rows > self._max_total_num_rows:
                raise ValueError(f"qo_indptr ends at {rows}; in CUDA-graph mode the first plan fixed at most "
                                 f"{self._max_total_num_rows} rows")
        self._num_rows = rows
        self._qo_indptr_host = host.contiguous()
        self._set_buffer("_qo_indptr_buf", qo_indptr, non_blocking)

    def _plan_mask(self, custom_mask, packed_custom_mask, lengths):
        """lengths: mask elements of each request, on the device; called only if there is a mask."""
        self._custom_mask = custom_mask is not None or packed_custom_mask is not None
        if not self._custom_mask:
            self._custom_mask = self._use_cuda_graph and self._custom_mask_buf is not None
            return
        lengths = lengths()
        if not lengths.is_cuda:  # there, only FLASHINFER_VALIDATE_INPUTS looks
            name, given, needed = (("custom_mask", custom_mask, lengths) if packed_custom_mask is None else
                                   ("packed_custom_mask", packed_custom_mask, (lengths + 7) // 8))
            if given.numel() < needed.sum():
                raise ValueError(f"{name} has {given.numel()} elements, and the requests have {int(needed.sum())}")
        if packed_custom_mask is not None:
            bits, indptr = packed_custom_mask.to(self.device), packed_mask_indptr(lengths)
        else:
            bits, indptr = pack_mask(custom_mask.to(self.device), lengths)
        if not self._use_cuda_graph:
            self._custom_mask_buf, self._mask_indptr_buf = bits, indptr
            return
        if not torch.is_tensor(self._custom_mask_buf) or not torch.is_tensor(self._mask_indptr_buf):
            raise ValueError("custom_mask_buf and mask_indptr_buf must be given at construction for a custom mask in "
                             "CUDA-graph mode")
        if len(bits) > len(self._custom_mask_buf):  # then it is worth a wait to know what the mask takes
            bits = bits[:indptr[-1]]
        if len(bits) > len(self._custom_mask_buf):
            raise ValueError(f"the packed mask takes {len(bits)} bytes and custom_mask_buf has {len(self._custom_mask_buf)}")
        self._custom_mask_buf[:len(bits)].copy_(bits)
        self._mask_indptr_buf.copy_(indptr)

    def _plan_items(self, prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr):
        self._multi_item = token_pos_in_items_ptr is not None
        self._token_pos_in_items_len = token_pos_in_items_len or 0
        self._items = None, None, None
        if self._multi_item:
            def taken(tensor):
                return None if tensor is None else tensor.to(device=self.device, dtype=torch.int32)
            places = taken(token_pos_in_items_ptr).reshape(self._batch_size, -1)
            self._items = taken(prefix_len_ptr), places, taken(max_item_len_ptr)

    def _plan_shape(self, batch_size, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size, q_data_type, kv_data_type,
                    o_data_type, use_fp16_qk_reduction, fixed_split_size, disable_split_kv):
        q_data_type = dtype_of(q_data_type or "float16")
        self._batch_size = batch_size
        self._cached_q_data_type = q_data_type
        self._cached_kv_data_type = dtype_of(kv_data_type or q_data_type)
        self._cached_o_data_type = dtype_of(o_data_type or q_data_type)
        self._page_size = page_size
        self._head_dim_vo = head_dim_vo or head_dim_qk
        self._shape = dict(kv_layout=self._kv_layout, num_qo_heads=num_qo_heads, num_kv_heads=num_kv_heads,
                           head_dim_qk=head_dim_qk, head_dim_vo=self._head_dim_vo, page_size=page_size,
                           use_fp16_qk_reduction=int(use_fp16_qk_reduction), q_data_type=self._cached_q_data_type,
                           kv_data_type=self._cached_kv_data_type, o_data_type=self._cached_o_data_type,
                           fixed_split_size=split_size(fixed_split_size), disable_split_kv=int(disable_split_kv))

    def _resize(self, rows, batch_size=None, has_rows=True):
        self._num_rows, self._batch_size = rows, batch_size

    def _make_plan(self):
        return make_plan("batch_prefill_plan", self.device, max_total_qo=max(self._max_total_num_rows or self._num_rows, 1),
                         max_batch_size=max(self._batch_size, 1), custom_mask=int(self._custom_mask), causal=int(self._causal),
                         multi_item_scoring=int(self._multi_item), token_pos_in_items_len=self._token_pos_in_items_len,
                         qo_indptr=self._qo_indptr_host, kv_indptr=self._kv_indptr_host, **self._shape,
                         **self._option_arguments())

    def _positional(self, args, sinks, q_scale, k_scale, v_scale, device):
        """sinks and the three scales, of which args hold upstream's further tensors: (sink, sm_scale), or scales of each head."""
        self._refuse_unplanned()
        if self._sink_variant and len(args) == 2:
            sinks, self._sm_scale = args
        elif args and self._variant is None:
            q_scale, k_scale, v_scale = head_scales(args, q_scale, k_scale, v_scale)
        return sinks, scales(q_scale, k_scale, v_scale, self._cached_kv_data_type, device)

    def _outputs(self, q, out, lse, return_lse, lse_layout):
        """out and lse to write to; lse is [tokens, heads] whatever its layout is to be."""
        if not self._use_cuda_graph and len(q) != self._num_rows:
            raise ValueError(f"q has {len(q)} tokens and qo_indptr ends at {self._num_rows}")
        if out is None:
            dtype = dtype_of(self._cached_o_data_type or self._shape["o_data_type"])  # plans of engines leave None there
            # In CUDA-graph mode q may have rows of no request, which no kernel writes.
            make = torch.zeros if self._use_cuda_graph else torch.empty
            out = make((*q.shape[:-1], self._head_dim_vo), dtype=dtype, device=q.device)
        if return_lse and (lse is None or lse_layout == "HN"):
            lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        return out, lse

    def _mask_arguments(self):
        """Those of MASKS."""
        if self._custom_mask:
            return self._custom_mask_buf, self._mask_indptr_buf, *self._items
        return None, None, *self._items

    def _options(self):
        return *super()._options(), self._shape["use_fp16_qk_reduction"]

    def _forward(self, causal, use_fp16_qk_reduction, *options):
        self._refuse_unplanned()
        self._causal = causal
        self._shape["use_fp16_qk_reduction"] = int(use_fp16_qk_reduction)
        self._set_options(*options)


@public("batch_prefill_plan", "batch_prefill")
class BatchPrefillWithPagedKVCacheWrapper(PrefillWrapper):
    """Attention of a batch of requests, any number of query tokens each, over a paged cache: plan() once a step, run() once a
    layer.

    plan() waits for nothing if qo_indptr lies on the host; from the device it is copied there once. With use_cuda_graph the batch
    size is fixed and plan() copies page tables and masks into the buffers given here, so that a captured run() replays with them.
    """

    def __init__(self, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, qo_indptr_buf=None,
                 paged_kv_indptr_buf=None, paged_kv_indices_buf=None, paged_kv_last_page_len_buf=None, custom_mask_buf=None,
                 mask_indptr_buf=None, backend="auto", jit_args=None, jit_kwargs=None, variant_owns_mask=False):
        """float_workspace_buffer: any dtype, 16-byte aligned, on the device of the tensors; workspace_size() says how many bytes
        it needs
        qo_indptr_buf, paged_kv_indptr_buf, paged_kv_indices_buf, paged_kv_last_page_len_buf: int32 [batch + 1], [batch + 1], [at
            least the pages in use], [batch]
        jit_args: a flashinfer_c.Variant of batch_prefill, whose further arguments run() takes by position behind paged_kv_cache
        custom_mask_buf, mask_indptr_buf: uint8 [at least the bytes of a mask], int32 [batch + 1]; if given, every plan has a mask
        """
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph, backend, jit_args)
        self._construct({"qo_indptr_buf": (qo_indptr_buf, 1), "paged_kv_indptr_buf": (paged_kv_indptr_buf, 1),
                         "paged_kv_indices_buf": (paged_kv_indices_buf, None),
                         "paged_kv_last_page_len_buf": (paged_kv_last_page_len_buf, 0)},
                        custom_mask_buf, mask_indptr_buf, jit_kwargs, variant_owns_mask)

    def workspace_size(self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads,
                       head_dim_qk, page_size, head_dim_vo=None, custom_mask=None, packed_custom_mask=None, causal=False,
                       pos_encoding_mode="NONE", use_fp16_qk_reduction=False, sm_scale=None, window_left=-1, logits_soft_cap=None,
                       rope_scale=None, rope_theta=None, q_data_type="float16", kv_data_type=None, o_data_type=None,
                       prefix_len_ptr=None, token_pos_in_items_ptr=None, token_pos_in_items_len=0, max_item_len_ptr=None,
                       seq_lens=None, seq_lens_q=None, block_tables=None, max_token_per_sequence=None, max_sequence_kv=None,
                       fixed_split_size=None, disable_split_kv=False, uniform_q_len=None):
        """Bytes of (float, int) workspace that run() needs at most after a plan() with these arguments, which changes nothing
        here.
        """
        other = object.__new__(BatchPrefillWithPagedKVCacheWrapper)
        other.__dict__.update(self.__dict__, _use_cuda_graph=False, _plan_info=None, _max_total_num_rows=None)
        other.plan(qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim_qk,
                   page_size, head_dim_vo, custom_mask, packed_custom_mask, causal, pos_encoding_mode, use_fp16_qk_reduction,
                   sm_scale, window_left, logits_soft_cap, rope_scale, rope_theta, q_data_type, kv_data_type, o_data_type, True,
                   prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr,
                   fixed_split_size=fixed_split_size, disable_split_kv=disable_split_kv)
        return other._plan_info.plan.workspace_size, 16

    def plan(self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim_qk,
             page_size, head_dim_vo=None, custom_mask=None, packed_custom_mask=None, causal=False, pos_encoding_mode="NONE",
             use_fp16_qk_reduction=False, sm_scale=None, window_left=-1, logits_soft_cap=None, rope_scale=None, rope_theta=None,
             q_data_type="float16", kv_data_type=None, o_data_type=None, non_blocking=True, prefix_len_ptr=None,
             token_pos_in_items_ptr=None, token_pos_in_items_len=0, max_item_len_ptr=None, seq_lens=None, seq_lens_q=None,
             block_tables=None, max_token_per_sequence=None, max_sequence_kv=None, fixed_split_size=None, disable_split_kv=False,
             uniform_q_len=None):
        """Takes the query lengths and page tables of a step and chooses kernels.

        qo_indptr: int32 [batch + 1]: request b has the query tokens qo_indptr[b] .. qo_indptr[b + 1] - 1
        paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len: int32 [batch + 1], [pages], [batch], as of the decode wrapper
        non_blocking: what lies in pinned memory may be read until the stream gets there, but for page indices in CUDA-graph mode
        head_dim_vo: None: head_dim_qk
        custom_mask: bool, [qo_len, kv_len] of each request, flattened and one after the other; packed_custom_mask: the same in
            bits, the lowest first, each request on a byte of its own; causal is ignored then
        causal: token i of qo_len sees token j of kv_len if j + qo_len <= kv_len + i
        sm_scale: None: 1 / sqrt(head_dim_qk)
        window_left: tokens to the left of its own that a query sees; -1: all
        kv_data_type, o_data_type: None: q_data_type
        prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr: scoring of several items behind one
            prefix
        fixed_split_size: None or -1: keys are divided as suits the batch; a number of pages: a request's bits do not depend on
            its batch, for which its keys are not divided at all
        disable_split_kv: keys are never divided, so that a request's bits do not depend on its batch
        seq_lens, seq_lens_q, block_tables, max_token_per_sequence, max_sequence_kv, uniform_q_len: of no effect, they repeat the
            rest
        """
        batch_size = len(paged_kv_last_page_len)
        if len(qo_indptr) != batch_size + 1 or len(paged_kv_indptr) != batch_size + 1:
            raise ValueError(f"qo_indptr has {len(qo_indptr)} entries, paged_kv_indptr {len(paged_kv_indptr)} and "
                             f"paged_kv_last_page_len "
                             f"{batch_size}; the first two need one more than the last")
        self._check_batch(batch_size, paged_kv_indices)
        self._plan_rows(qo_indptr, non_blocking)
        self._kv_indptr_host = host_or_none(paged_kv_indptr)
        check_end("paged_kv_indptr", end_of(self._kv_indptr_host), len(paged_kv_indices), "page indices")
        self._plan_shape(batch_size, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size, q_data_type, kv_data_type,
                         o_data_type, use_fp16_qk_reduction, fixed_split_size, disable_split_kv)
        self._set_buffer("_paged_kv_indptr_buf", paged_kv_indptr, non_blocking)
        self._set_buffer("_paged_kv_indices_buf", paged_kv_indices, non_blocking)
        self._set_buffer("_paged_kv_last_page_len_buf", paged_kv_last_page_len, non_blocking)
        self._plan_mask(custom_mask, packed_custom_mask, self._mask_lengths)
        self._plan_items(prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr)
        self._causal = causal
        self._block_tables, self._seq_lens_kv, self._seq_lens_q = block_tables, seq_lens, seq_lens_q
        self._set_options(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        self._keep_plan()

    begin_forward = plan

    def _mask_lengths(self):
        pages = self._paged_kv_indptr_buf[1:] - self._paged_kv_indptr_buf[:-1]
        kv_len = torch.where(pages > 0, (pages - 1) * self._page_size + self._paged_kv_last_page_len_buf[:self._batch_size],
                             torch.zeros_like(pages))
        return (self._qo_indptr_buf[1:] - self._qo_indptr_buf[:-1]) * kv_len

    def run(self, q, paged_kv_cache, *args, q_scale=None, k_scale=None, v_scale=None, out=None, lse=None, return_lse=False,
            lse_base="log2", lse_layout="NH", enable_pdl=None, window_left=None, sinks=None, kv_cache_sf=None,
            skip_softmax_threshold_scale_factor=None, use_fp16_softmax=None, uses_spcompress=None):
        """Attention of the query tokens of each request.

        q: [qo_indptr[-1], num_qo_heads, head_dim_qk]
        paged_kv_cache: one tensor, NHD: [pages, 2, page_size, num_kv_heads, head_dim], HND: heads before slots; or (k, v) without
            the 2
        q_scale, k_scale, v_scale: floats, or float32 tensors of one element or of one for each head; None: 1
        sinks: [num_qo_heads] float32, natural logits that join the sum of the weights
        out, lse: written if given: [qo_indptr[-1], num_qo_heads, head_dim_vo], [qo_indptr[-1], num_qo_heads] float32
        lse_base: "log2" or "ln"; lse_layout: "NH", tokens first, or "HN"
        Returns out, with return_lse (out, lse).
        """
        check_lse(lse_base, lse_layout)
        if use_fp16_softmax or uses_spcompress:
            raise NotImplementedError("use_fp16_softmax and uses_spcompress are not served")
        sinks, three_scales = self._positional(args, sinks, q_scale, k_scale, v_scale, q.device)
        plan = self._planned()
        k_cache, v_cache = unpack_cache(paged_kv_cache, self._kv_layout)
        given = lse
        out, lse = self._outputs(q, out, lse, return_lse, lse_layout)
        k_sf, v_sf = unpack_scales(kv_cache_sf, self._kv_layout)
        values = (out, lse, plan, q, k_cache, v_cache, self._qo_indptr_buf, self._paged_kv_indptr_buf, self._paged_kv_indices_buf,
                  self._paged_kv_last_page_len_buf, *self._mask_arguments(), *three_scales, window_left, sinks, k_sf, v_sf,
                  skip_softmax_threshold_scale_factor, int(lse_base == "ln"))
        self._run_op("batch_prefill", _batch_prefill, PAGED, flags_of(enable_pdl), values, args)
        return (out, finish_lse(lse, lse_layout, given)) if return_lse else out

    def forward(self, q, paged_kv_cache, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False, k_scale=None,
                v_scale=None, window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """run() with options that replace those of plan()."""
        self._forward(causal, use_fp16_qk_reduction, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
                      rope_theta)
        return self.run(q, paged_kv_cache, k_scale=k_scale, v_scale=v_scale)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward_return_lse(self, q, paged_kv_cache, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False,
                           k_scale=None, v_scale=None, window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None,
                           rope_theta=None):
        """forward() that returns (out, lse)."""
        self._forward(causal, use_fp16_qk_reduction, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
                      rope_theta)
        return self.run(q, paged_kv_cache, k_scale=k_scale, v_scale=v_scale, return_lse=True)


@public("batch_prefill_plan", "batch_prefill_ragged")
class BatchPrefillWithRaggedKVCacheWrapper(PrefillWrapper):
    """Attention of a batch of requests over keys and values that lie one request after the other, without pages."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, qo_indptr_buf=None, kv_indptr_buf=None,
                 custom_mask_buf=None, mask_indptr_buf=None, backend="auto", jit_args=None, jit_kwargs=None,
                 variant_owns_mask=False):
        """As BatchPrefillWithPagedKVCacheWrapper; kv_indptr_buf: int32 [batch + 1]."""
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph, backend, jit_args)
        self._construct({"qo_indptr_buf": (qo_indptr_buf, 1), "kv_indptr_buf": (kv_indptr_buf, 1)}, custom_mask_buf,
                        mask_indptr_buf, jit_kwargs, variant_owns_mask)

    def plan(self, qo_indptr, kv_indptr, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo=None, custom_mask=None,
             packed_custom_mask=None, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False, window_left=-1,
             logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None, q_data_type="float16", kv_data_type=None,
             o_data_type=None, non_blocking=True, prefix_len_ptr=None, token_pos_in_items_ptr=None, token_pos_in_items_len=0,
             max_item_len_ptr=None, fixed_split_size=None, disable_split_kv=False, seq_lens=None, seq_lens_q=None,
             max_token_per_sequence=None, max_sequence_kv=None, v_indptr=None, o_indptr=None, uniform_q_len=None):
        """Takes the lengths of a step and chooses kernels; what is not listed is as of BatchPrefillWithPagedKVCacheWrapper.plan.

        kv_indptr: int32 [batch + 1]: request b has the tokens kv_indptr[b] .. kv_indptr[b + 1] - 1 of k and v
        v_indptr, o_indptr: [batch + 1], where requests start in v and in out if that differs from kv_indptr and qo_indptr
        o_data_type: None: q_data_type, but bfloat16 if that has 8 bits
        """
        batch_size = len(qo_indptr) - 1
        if len(kv_indptr) != batch_size + 1:
            raise ValueError(f"qo_indptr has {batch_size + 1} entries and kv_indptr {len(kv_indptr)}")
        self._check_batch(batch_size)
        self._plan_rows(qo_indptr, non_blocking)
        self._kv_indptr_host = host_or_none(kv_indptr)
        self._num_keys = 0 if self._use_cuda_graph else end_of(self._kv_indptr_host)  # at least
        if o_data_type is None and dtype_of(q_data_type or "float16").itemsize == 1:
            o_data_type = torch.bfloat16
        self._plan_shape(batch_size, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, 1, q_data_type, kv_data_type,
                         o_data_type, use_fp16_qk_reduction, fixed_split_size, disable_split_kv)
        self._set_buffer("_kv_indptr_buf", kv_indptr, non_blocking)
        self._plan_mask(custom_mask, packed_custom_mask, lambda: (self._qo_indptr_buf[1:] - self._qo_indptr_buf[:-1])
                        * (self._kv_indptr_buf[1:] - self._kv_indptr_buf[:-1]))
        self._plan_items(prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr)
        for name, indptr in (("_v_indptr", v_indptr), ("_o_indptr", o_indptr)):
            setattr(self, name, None if indptr is None else indptr.to(device=self.device, dtype=torch.int32))
        self._causal = causal
        self._seq_lens_kv, self._seq_lens_q = seq_lens, seq_lens_q
        self._set_options(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        self._keep_plan()

    begin_forward = plan

    def run(self, q, k, v, *args, q_scale=None, k_scale=None, v_scale=None, o_scale=None, out=None, lse=None, return_lse=False,
            lse_base="log2", lse_layout="NH", enable_pdl=None, kv_cache_sf=None):
        """Attention of the query tokens of each request.

        q: [qo_indptr[-1], num_qo_heads, head_dim_qk]
        k, v: [kv_indptr[-1], num_kv_heads, head_dim_qk], [..., head_dim_vo]
        o_scale: out is divided by it
        What is not listed is as of BatchPrefillWithPagedKVCacheWrapper.run.
        """
        check_lse(lse_base, lse_layout)
        sinks, three_scales = self._positional(args, None, q_scale, k_scale, v_scale, q.device)
        plan = self._planned()
        given = lse
        out, lse = self._outputs(q, out, lse, return_lse, lse_layout)
        check_end("kv_indptr", self._num_keys, k.shape[self._kv_layout == "HND"], "keys")
        k_sf, v_sf = kv_cache_sf if kv_cache_sf is not None else (None, None)
        values = (out, lse, plan, q, k, v, self._qo_indptr_buf, self._kv_indptr_buf, self._v_indptr, self._o_indptr,
                  *self._mask_arguments(), *three_scales, None if o_scale is None else float(o_scale), sinks, k_sf, v_sf,
                  int(lse_base == "ln"))
        self._run_op("batch_prefill_ragged", _batch_prefill_ragged, RAGGED, flags_of(enable_pdl), values, args)
        return (out, finish_lse(lse, lse_layout, given)) if return_lse else out

    def forward(self, q, k, v, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False, window_left=-1,
                logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """run() with options that replace those of plan()."""
        self._forward(causal, use_fp16_qk_reduction, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
                      rope_theta)
        return self.run(q, k, v)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward_return_lse(self, q, k, v, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False, window_left=-1,
                           logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """forward() that returns (out, lse)."""
        self._forward(causal, use_fp16_qk_reduction, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
                      rope_theta)
        return self.run(q, k, v, return_lse=True)


@api("batch_prefill", "batch_prefill_plan", notes=NOTES)
def trtllm_batch_context_with_kv_cache(query, kv_cache, workspace_buffer, block_tables, seq_lens, max_q_len, max_kv_len,
                                       bmm1_scale, bmm2_scale, batch_size, cum_seq_lens_q, cum_seq_lens_kv, window_left=-1,
                                       out=None, out_dtype=None, o_sf_scale=None, o_sf_vec_size=None, kv_layout="HND",
                                       enable_pdl=None, sinks: "Tensor | list[Tensor] | None" = None, kv_cache_sf=None,
                                       skip_softmax_threshold_scale_factor=None,
                                       uses_shared_paged_kv_idx=True, causal=True, lse=None, return_lse=False,
                                       multi_ctas_kv_counter_buffer=None, use_fp16_softmax=None, uses_spcompress=None,
                                       backend="trtllm-gen"):
    """Attention of the last tokens of each request over pages that a rectangle lists. Returns out, with return_lse (out, lse)."""
    refuse(use_fp16_softmax=use_fp16_softmax, uses_spcompress=uses_spcompress, o_sf_scale=o_sf_scale,
           separate_page_tables=not uses_shared_paged_kv_idx)
    if len(block_tables) != batch_size:
        raise ValueError(f"block_tables has {len(block_tables)} rows; batch_size is {batch_size}")
    return attend(query, kv_cache, workspace_buffer, block_tables, seq_lens, bmm1_scale, bmm2_scale, window_left, out, out_dtype,
                  sinks, kv_layout, enable_pdl, skip_softmax_threshold_scale_factor, kv_cache_sf, lse, return_lse, cum_seq_lens_q,
                  causal)
