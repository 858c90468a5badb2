# SPDX-License-Identifier: Apache-2.0
"""Prefill and decode of one step through one object, by upstream's names: two calls, one behind the other on the stream, which
compute what upstream's one kernel does.
"""
from ._attention import Single, public
from .decode import BatchDecodeWithPagedKVCacheWrapper
from .page import get_seq_lens  # noqa: F401
from .prefill import BatchPrefillWithPagedKVCacheWrapper, single_prefill_with_kv_cache
from .utils import MaskMode, PosEncodingMode, TensorLayout, _get_range_buf  # noqa: F401


@public("batch_decode_plan", "batch_decode", "single_prefill_with_kv_cache")
class PODWithPagedKVCacheWrapper(Single):
    """Prefill of one request, whose keys and values lie in two tensors, and decode of a batch over a paged cache."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, paged_kv_indptr_buffer=None,
                 paged_kv_indices_buffer=None, paged_kv_last_page_len_buffer=None, jit_args=None):
        """The arguments of BatchDecodeWithPagedKVCacheWrapper."""
        if jit_args is not None:
            raise NotImplementedError("jit_args: variants go to the decode and the prefill wrapper")
        self._decode = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout, use_cuda_graph, True,
                                                          paged_kv_indptr_buffer, paged_kv_indices_buffer,
                                                          paged_kv_last_page_len_buffer)

    @property
    def is_cuda_graph_enabled(self):
        """Whether the batch size is fixed and page tables are copied into the buffers given at construction."""
        return self._decode.is_cuda_graph_enabled

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffer):
        """As of the decode wrapper."""
        self._decode.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def plan(self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode="NONE",
             window_left=-1, q_data_type="float16", kv_data_type=None, data_type=None, sm_scale=None, rope_scale=None,
             rope_theta=None, non_blocking=True):
        """Plans the decode part, as BatchDecodeWithPagedKVCacheWrapper.plan; the prefill part needs no plan."""
        self._decode.plan(indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
                          window_left, q_data_type=q_data_type, kv_data_type=kv_data_type, data_type=data_type, sm_scale=sm_scale,
                          rope_scale=rope_scale, rope_theta=rope_theta, non_blocking=non_blocking)

    begin_forward = plan

    def run(self, q_p, k_p, v_p, q_d, paged_kv_cache_d, custom_mask_p=None, packed_custom_mask_p=None, causal_p=False,
            kv_layout_p="NHD", pos_encoding_mode_p="NONE", sm_scale_p=None, window_left_p=-1, rope_scale_p=None,
            rope_theta_p=None, return_lse_p=False, custom_mask_d=None, packed_custom_mask_d=None, causal_d=False,
            kv_layout_d="NHD",
            pos_encoding_mode_d="NONE", sm_scale_d=None, window_left_d=-1, rope_scale_d=None, rope_theta_d=None, q_scale=None,
            k_scale=None, v_scale=None, return_lse_d=False, use_fp16_qk_reduction=False, enable_pdl=None, *args):
        """Both parts. Returns (out_p, out_d); with return_lse_p or return_lse_d that part is (out, lse), lse to base 2.

        q_p, k_p, v_p and what ends in _p: as of single_prefill_with_kv_cache
        q_d, paged_kv_cache_d, q_scale, k_scale, v_scale: as of BatchDecodeWithPagedKVCacheWrapper.run; scales are of this part
        kv_layout_d, pos_encoding_mode_d, sm_scale_d, window_left_d, rope_scale_d, rope_theta_d: those of the wrapper and of
            plan(), or left out
        """
        if args or custom_mask_d is not None or packed_custom_mask_d is not None:
            raise NotImplementedError("custom_mask_d and further arguments: a decoded token sees all keys before it")
        decode = self._decode
        for name, given, left_out, planned in (
            ("kv_layout_d", kv_layout_d, "NHD", decode._kv_layout),
            ("pos_encoding_mode_d", pos_encoding_mode_d, "NONE", decode._pos_encoding_mode),
            ("sm_scale_d", sm_scale_d, None, decode._sm_scale), ("window_left_d", window_left_d, -1, decode._window_left),
            ("rope_scale_d", rope_scale_d, None, decode._rope_scale), ("rope_theta_d", rope_theta_d, None, decode._rope_theta)):
            if given not in (left_out, planned):
                raise ValueError(f"{name} is {given!r}; plan() or the constructor was told {planned!r}")
        out_p = single_prefill_with_kv_cache(
            q_p, k_p, v_p, custom_mask=custom_mask_p, packed_custom_mask=packed_custom_mask_p, causal=causal_p,
            kv_layout=kv_layout_p, pos_encoding_mode=pos_encoding_mode_p, use_fp16_qk_reduction=use_fp16_qk_reduction,
            sm_scale=sm_scale_p, window_left=window_left_p, rope_scale=rope_scale_p, rope_theta=rope_theta_p,
            return_lse=return_lse_p)
        return out_p, decode.run(q_d, paged_kv_cache_d, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale,
                                 return_lse=return_lse_d, enable_pdl=enable_pdl)

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""


@public("batch_decode_plan", "batch_decode", "batch_prefill_plan", "batch_prefill")
class BatchPODWithPagedKVCacheWrapper(Single):
    """Prefill of one batch and decode of another, both over paged caches."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD"):
        """float_workspace_buffer: any dtype, 16-byte aligned; the parts use it one after the other."""
        self._prefill = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._decode = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout, use_tensor_cores=True)

    @property
    def is_cuda_graph_enabled(self):
        """False: the page tables of each plan() are new tensors."""
        return False

    def plan(self, qo_indptr_p, kv_indptr_p, kv_indices_p, last_page_len_p, qo_indptr_d, kv_indptr_d, kv_indices_d,
             last_page_len_d, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode="NONE", window_left=-1,
             q_data_type="float16", kv_data_type=None, data_type=None, sm_scale=None, rope_scale=None, rope_theta=None,
             non_blocking=True):
        """Takes the page tables of both batches, as of the paged prefill wrapper and the decode wrapper.

        qo_indptr_d: of no effect: each decoded request has one token
        """
        shape, kv_data_type = (num_qo_heads, num_kv_heads, head_dim, page_size), kv_data_type or data_type
        shared = dict(pos_encoding_mode=pos_encoding_mode, window_left=window_left, q_data_type=q_data_type,
                      kv_data_type=kv_data_type, sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta,
                      non_blocking=non_blocking)
        self._tables, self._options = (qo_indptr_p, kv_indptr_p, kv_indices_p, last_page_len_p, *shape), shared
        self._prefill.plan(*self._tables, **shared)
        self._decode.plan(kv_indptr_d, kv_indices_d, last_page_len_d, *shape, **shared)

    begin_forward = plan

    def run(self, q_p, paged_kv_cache_p, q_d, paged_kv_cache_d, custom_mask_p=None, packed_custom_mask_p=None, causal_p=False,
            q_scale=None, k_scale=None, v_scale=None, return_lse=False, use_fp16_qk_reduction=False, enable_pdl=None):
        """Both parts. Returns (out_p, out_d); with return_lse ((out_p, out_d), (lse_p, lse_d)), lse to base 2.

        custom_mask_p, packed_custom_mask_p, causal_p, use_fp16_qk_reduction: as of BatchPrefillWithPagedKVCacheWrapper.plan
        q_scale, k_scale, v_scale: of the decoded part, as of BatchDecodeWithPagedKVCacheWrapper.run
        """
        prefill = self._prefill
        prefill._refuse_unplanned()
        if custom_mask_p is not None or packed_custom_mask_p is not None or prefill._custom_mask:
            prefill.plan(*self._tables, custom_mask=custom_mask_p, packed_custom_mask=packed_custom_mask_p, causal=causal_p,
                         use_fp16_qk_reduction=use_fp16_qk_reduction, **self._options)
        else:
            prefill._causal = causal_p
            prefill._shape["use_fp16_qk_reduction"] = int(use_fp16_qk_reduction)
        parts = (prefill.run(q_p, paged_kv_cache_p, return_lse=return_lse, enable_pdl=enable_pdl),
                 self._decode.run(q_d, paged_kv_cache_d, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale,
                                  return_lse=return_lse, enable_pdl=enable_pdl))
        return tuple(zip(*parts)) if return_lse else parts

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""
