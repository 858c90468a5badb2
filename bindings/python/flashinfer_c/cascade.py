# SPDX-License-Identifier: Apache-2.0
"""States, out and lse of attention over some of the keys, and their merging; attention over prefixes that requests share."""
from . import _core
from ._api import api
from ._arguments import Unplanned
from ._attention import Single, public
from .decode import BatchDecodeWithPagedKVCacheWrapper
from .prefill import BatchPrefillWithPagedKVCacheWrapper, single_prefill_with_kv_cache


@api("merge_state")
def merge_state(v_a, s_a, v_b, s_b):
    """Returns (v_merged, s_merged), the state of attention over the keys of both. A state whose s is -inf counts for nothing."""
    return _core.call("merge_state", flags=_core.PDL, v_a=v_a, s_a=s_a.float(), v_b=v_b, s_b=s_b.float())


@api("merge_state_in_place")
def merge_state_in_place(v, s, v_other, s_other, mask=None):
    """Returns None: v and s become those of both. s is float32: another dtype could not be written in place."""
    _core.call("merge_state_in_place", flags=_core.PDL, v=v, s=s, v_other=v_other, s_other=s_other.float(), mask=mask)


@api("merge_states")
def merge_states(v, s):
    """Returns (v_merged [tokens, num_heads, head_dim], s_merged [tokens, num_heads])."""
    return _core.call("merge_states", flags=_core.PDL, v=v, s=s.float())


@public("batch_prefill_plan", "batch_prefill", "merge_state_in_place")
class MultiLevelCascadeAttentionWrapper(Single):
    """Attention of requests that share prefixes: one page table a level, the states of the levels merged.

    At level i, qo_indptr_arr[i] groups the query tokens that share the pages of that level; the last level's pages are each
    request's own.
    """

    def __init__(self, num_levels, float_workspace_buffer, kv_layout="NHD", use_cuda_graph=False, qo_indptr_buf_arr=None,
                 paged_kv_indptr_buf_arr=None, paged_kv_indices_buf_arr=None, paged_kv_last_page_len_buf_arr=None):
        """The arguments of BatchPrefillWithPagedKVCacheWrapper, the buffers as lists of one a level."""
        buffers = (qo_indptr_buf_arr, paged_kv_indptr_buf_arr, paged_kv_indices_buf_arr, paged_kv_last_page_len_buf_arr)
        if use_cuda_graph and any(b is None or len(b) != num_levels for b in buffers):
            raise ValueError(f"CUDA-graph mode needs four lists of {num_levels} buffers")
        levels = zip(*buffers) if use_cuda_graph else [(None,) * 4] * num_levels
        self._num_levels, self._use_cuda_graph = num_levels, use_cuda_graph
        self._batch_prefill_wrappers = [BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout, use_cuda_graph,
                                                                            *level)
                                        for level in levels]

    @property
    def is_cuda_graph_enabled(self):
        """Whether batch sizes are fixed and page tables are copied into the buffers given at construction."""
        return self._use_cuda_graph

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffers):
        """Takes other workspace; the levels run one after the other in the same."""
        for wrapper, buffer in zip(self._batch_prefill_wrappers, int_workspace_buffers, strict=True):
            wrapper.reset_workspace_buffer(float_workspace_buffer, buffer)

    def prewarm_paged_kv_stride_variant(self, variant="independent"):
        """Nothing to do: every kernel takes the strides of K and V at run time."""
        for wrapper in self._batch_prefill_wrappers:
            wrapper.prewarm_paged_kv_stride_variant(variant)

    def plan(self, qo_indptr_arr, paged_kv_indptr_arr, paged_kv_indices_arr, paged_kv_last_page_len: "list[Tensor]", num_qo_heads,
             num_kv_heads, head_dim, page_size, causal=False, pos_encoding_mode="NONE", use_fp16_qk_reduction=False,
             sm_scale=None, window_left=-1, logits_soft_cap=None, rope_scale=None, rope_theta=None, q_data_type="float16",
             kv_data_type=None):
        """Plans every level; only the last is causal. Lists may mix tensors of host and device."""
        if window_left >= 0 and self._num_levels > 1:
            raise NotImplementedError("window_left: a window counts from the end of a request, not of a level")
        if pos_encoding_mode != "NONE" and self._num_levels > 1:
            raise NotImplementedError("pos_encoding_mode: positions count from the start of a request, not of a level")
        arrays = (qo_indptr_arr, paged_kv_indptr_arr, paged_kv_indices_arr, paged_kv_last_page_len)
        names = ("qo_indptr_arr", "paged_kv_indptr_arr", "paged_kv_indices_arr", "paged_kv_last_page_len")
        for name, array in zip(names, arrays):
            if len(array) != self._num_levels:
                raise ValueError(f"{name} has {len(array)} tensors, and there are {self._num_levels} levels")
        for level, (wrapper, *tables) in enumerate(zip(self._batch_prefill_wrappers, *arrays)):
            wrapper.plan(*tables, num_qo_heads, num_kv_heads, head_dim, page_size,
                         causal=causal and level == self._num_levels - 1, pos_encoding_mode=pos_encoding_mode,
                         use_fp16_qk_reduction=use_fp16_qk_reduction, sm_scale=sm_scale, window_left=window_left,
                         logits_soft_cap=logits_soft_cap, rope_scale=rope_scale, rope_theta=rope_theta, q_data_type=q_data_type,
                         kv_data_type=kv_data_type)

    begin_forward = plan

    def run(self, q, paged_kv_cache):
        """Attention over all levels: out [tokens, num_qo_heads, head_dim]; tensors as of
        BatchPrefillWithPagedKVCacheWrapper.run.
        """
        *shared, own = self._batch_prefill_wrappers
        out, lse = own.run(q, paged_kv_cache, return_lse=True)
        for wrapper in shared:
            merge_state_in_place(out, lse, *wrapper.run(q, paged_kv_cache, return_lse=True))
        return out

    forward = run

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""


@public("batch_decode_plan", "batch_decode", "single_prefill_with_kv_cache", "merge_state_in_place")
class BatchDecodeWithSharedPrefixPagedKVCacheWrapper(Single):
    """Decode of requests that share one prefix, whose keys and values are two dense tensors."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD"):
        """float_workspace_buffer as of BatchDecodeWithPagedKVCacheWrapper."""
        self._batch_decode_wrapper = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._kv_layout = kv_layout

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffer):
        """Takes other workspace."""
        self._batch_decode_wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def begin_forward(self, unique_kv_indptr, unique_kv_indices, unique_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim,
                      page_size, data_type="float16"):
        """Plans with the page table of what requests do not share."""
        self._batch_decode_wrapper.plan(unique_kv_indptr, unique_kv_indices, unique_kv_last_page_len, num_qo_heads, num_kv_heads,
                                        head_dim, page_size, q_data_type=data_type)

    def forward(self, q, k_shared, v_shared, unique_kv_cache):
        """out [batch, num_qo_heads, head_dim]; k_shared, v_shared: NHD: [shared_len, num_kv_heads, head_dim]; HND: heads before
        tokens.
        """
        out, lse = single_prefill_with_kv_cache(q, k_shared, v_shared, causal=False, kv_layout=self._kv_layout, return_lse=True)
        merge_state_in_place(out, lse, *self._batch_decode_wrapper.run(q, unique_kv_cache, return_lse=True))
        return out

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""


@public("batch_prefill_plan", "batch_prefill", "single_prefill_with_kv_cache", "merge_state_in_place")
class BatchPrefillWithSharedPrefixPagedKVCacheWrapper(Single):
    """Prefill of requests that share one prefix, whose keys and values are two dense tensors."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD"):
        """float_workspace_buffer as of BatchPrefillWithPagedKVCacheWrapper."""
        self._batch_prefill_wrapper = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._kv_layout = kv_layout
        self._plan = self._planned = None

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffer):
        """Takes other workspace."""
        self._batch_prefill_wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def begin_forward(self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads,
                      head_dim, page_size):
        """Plans with the page table of what requests do not share."""
        self._plan = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim,
                      page_size)
        self._planned = None

    def prewarm_paged_kv_stride_variant(self, variant="independent"):
        """Nothing to do: every kernel takes the strides of K and V at run time."""
        self._batch_prefill_wrapper.prewarm_paged_kv_stride_variant(variant)

    def forward(self, q, k_shared, v_shared, unique_kv_cache, causal=False, use_fp16_qk_reduction=False, sm_scale=None,
                rope_scale=None, rope_theta=None):
        """out [tokens, num_qo_heads, head_dim]; causal is among what requests do not share. Options may change from call to
        call; the first after begin_forward() plans, so that a CUDA graph is captured after one.
        """
        if self._plan is None:
            raise Unplanned(f"{type(self).__name__}: call begin_forward() before forward()")
        options = dict(use_fp16_qk_reduction=use_fp16_qk_reduction, sm_scale=sm_scale, rope_scale=rope_scale,
                       rope_theta=rope_theta)
        if self._planned != q.dtype:
            self._batch_prefill_wrapper.plan(*self._plan, q_data_type=q.dtype)
            self._planned = q.dtype
        self._batch_prefill_wrapper._forward(causal, use_fp16_qk_reduction, "NONE", -1, None, sm_scale, rope_scale, rope_theta)
        out, lse = single_prefill_with_kv_cache(q, k_shared, v_shared, causal=False, kv_layout=self._kv_layout, return_lse=True,
                                                **options)
        merge_state_in_place(out, lse, *self._batch_prefill_wrapper.run(q, unique_kv_cache, return_lse=True))
        return out

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""
