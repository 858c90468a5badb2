# SPDX-License-Identifier: Apache-2.0
"""Attention that sees blocks of keys: a row of blocks is a request, a column of blocks a page."""
import torch

from ._api import api
from ._attention import Single, dtype_of, indptr_of, public
from .prefill import BatchPrefillWithPagedKVCacheWrapper
from .utils import MaskMode, PosEncodingMode, TensorLayout  # noqa: F401


@api(notes={"mask": "[blocks, R, C]", "indptr": "[rows of blocks + 1], where each row's blocks start"})
def convert_bsr_mask_layout(mask, indptr):
    """The mask of a block-sparse matrix as the wrappers take it: [R, columns of its blocks] for each row of blocks, flattened."""
    starts = indptr.tolist()
    return torch.cat([mask[begin:end].transpose(0, 1).reshape(-1) for begin, end in zip(starts, starts[1:])]) if len(starts) > 1 \
        else mask.reshape(-1)


class BlockSparse(Single):
    """What the block-sparse wrappers share: a paged wrapper underneath."""

    def __init__(self, float_workspace_buffer, backend):
        self._wrapper = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, "NHD", backend=backend)
        self._backend = backend
        self.device = float_workspace_buffer.device

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffer):
        """Takes other workspace."""
        self._wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""

    def _set_options(self, pos_encoding_mode, use_fp16_qk_reduction, logits_soft_cap, sm_scale, rope_scale, rope_theta):
        self._wrapper._forward(False, use_fp16_qk_reduction, pos_encoding_mode, -1, logits_soft_cap, sm_scale, rope_scale,
                               rope_theta)


def refuse_compacted(causal, pos_encoding_mode):
    """Both would count places among the blocks that a row sees, not among all keys."""
    if causal:
        raise NotImplementedError("causal: it would compare places among the blocks that a row sees; give the mask of the "
                                  "blocks instead")
    if pos_encoding_mode != "NONE":
        raise NotImplementedError("pos_encoding_mode: positions would be places among the blocks that a row sees; encode q and "
                                  "k before")


@public("batch_prefill_plan", "batch_prefill")
class BlockSparseAttentionWrapper(BlockSparse):
    """Attention under a mask in blocks (BSR): the rows of block row i see the blocks that indptr and indices list for it."""

    def __init__(self, float_workspace_buffer, backend="auto"):
        """float_workspace_buffer as of BatchPrefillWithPagedKVCacheWrapper."""
        super().__init__(float_workspace_buffer, backend)

    def plan(self, indptr, indices, M, N, R, C, num_qo_heads, num_kv_heads, head_dim, mask=None, packed_mask=None, causal=False,
             pos_encoding_mode="NONE", use_fp16_qk_reduction=False, logits_soft_cap=None, sm_scale=None, rope_scale=None,
             rope_theta=None, q_data_type="float16", kv_data_type=None, o_data_type="float16", non_blocking=True, block_mask=None,
             kv_block_lens=None, q2k_indices=None, q2k_num=None, kv_splits=None, use_clc=None, q_scale=None, k_scale=None,
             v_scale=None):
        """Takes the blocks and chooses kernels.

        indptr, indices: int32 [M / R + 1], [blocks]
        M, N: rows of q, rows of k and v; multiples of R and C, the block's rows and columns
        mask: [blocks, R, C] bool, what is seen within blocks; packed_mask: the same as convert_bsr_mask_layout() orders it, in
            bits, the lowest first, each row of blocks on a byte of its own
        o_data_type: that of q if q_data_type is bfloat16, for which float16, the default, would lose range
        """
        refuse_compacted(causal, pos_encoding_mode)
        for name, value in (("block_mask", block_mask), ("kv_block_lens", kv_block_lens), ("q2k_indices", q2k_indices),
                            ("q2k_num", q2k_num), ("kv_splits", kv_splits), ("use_clc", use_clc), ("q_scale", q_scale),
                            ("k_scale", k_scale), ("v_scale", v_scale)):
            if value is not None:
                raise NotImplementedError(f"{name} is not served")
        for name, value in (("R", R), ("C", C)):
            if value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        if M % R or N % C:
            raise ValueError(f"M is {M} and N {N}; they must be multiples of R, {R}, and C, {C}")
        if mask is not None and tuple(mask.shape) != (len(indices), R, C):
            raise ValueError(f"mask has shape {list(mask.shape)}, must be [blocks, R, C], which is {[len(indices), R, C]}")
        if len(indptr) != M // R + 1:
            raise ValueError(f"indptr has {len(indptr)} entries; {M // R} rows of blocks need {M // R + 1}")
        indices_host = indices.cpu()
        if len(indices_host) and (int(indices_host.min()) < 0 or int(indices_host.max()) >= N // C):
            raise ValueError(f"indices go from {int(indices_host.min())} to {int(indices_host.max())}; there are {N // C} "
                             f"columns of blocks")
        q_data_type = dtype_of(q_data_type)
        o_data_type = dtype_of(o_data_type)
        if q_data_type == torch.bfloat16 and o_data_type == torch.float16:
            o_data_type = q_data_type
        qo_indptr = torch.arange(0, M + 1, R, dtype=torch.int32)
        last_page_len = torch.full((M // R,), C, dtype=torch.int32)
        if mask is not None and packed_mask is None:
            mask = convert_bsr_mask_layout(mask, indptr)
        self._wrapper.plan(qo_indptr, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, C,
                           custom_mask=mask if packed_mask is None else None, packed_custom_mask=packed_mask,
                           use_fp16_qk_reduction=use_fp16_qk_reduction, logits_soft_cap=logits_soft_cap, sm_scale=sm_scale,
                           rope_scale=rope_scale, rope_theta=rope_theta, q_data_type=q_data_type, kv_data_type=kv_data_type,
                           o_data_type=o_data_type, non_blocking=non_blocking)
        self.M, self.N, self.R, self.C = M, N, R, C

    begin_forward = plan

    def forward(self, q, k, v, scale_q=None, scale_k=None, scale_v=None, pos_encoding_mode="NONE", use_fp16_qk_reduction=False,
                logits_soft_cap=None, sm_scale=None, rope_scale=None, rope_theta=None):
        """run() with options that replace those of plan()."""
        refuse_compacted(False, pos_encoding_mode)
        self._set_options(pos_encoding_mode, use_fp16_qk_reduction, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        return self.run(q, k, v, scale_q, scale_k, scale_v)

    def run(self, q, k, v, scale_q=None, scale_k=None, scale_v=None, out=None, lse=None, return_lse=False, enable_pdl=None):
        """Attention of the M query rows over the blocks that they see.

        q: [M, num_qo_heads, head_dim]; k, v: [N, num_kv_heads, head_dim]
        scale_q, scale_k, scale_v: floats or float32 tensors of one element
        Returns out [M, num_qo_heads, head_dim], with return_lse (out, lse [M, num_qo_heads] float32, to base 2).
        """
        self._wrapper._refuse_unplanned()
        for name, rows in (("k", len(k)), ("v", len(v))):
            if rows != self.N:
                raise ValueError(f"{name} has {rows} rows; plan() was told {self.N}")
        pages = (self.N // self.C, self.C)
        return self._wrapper.run(q, (k.reshape(*pages, *k.shape[1:]), v.reshape(*pages, *v.shape[1:])), q_scale=scale_q,
                                 k_scale=scale_k, v_scale=scale_v, out=out, lse=lse, return_lse=return_lse, enable_pdl=enable_pdl)


@public("batch_prefill_plan", "batch_prefill")
class VariableBlockSparseAttentionWrapper(BlockSparse):
    """Attention under a mask of blocks of any sizes, another for each KV head."""

    def __init__(self, float_workspace_buffer, backend="auto"):
        """float_workspace_buffer as of BatchPrefillWithPagedKVCacheWrapper."""
        super().__init__(float_workspace_buffer, backend)

    def plan(self, block_mask_map, block_row_sz, block_col_sz, num_qo_heads, num_kv_heads, head_dim, causal=False,
             pos_encoding_mode="NONE", use_fp16_qk_reduction=False, logits_soft_cap=None, sm_scale=None, rope_scale=None,
             rope_theta=None, non_blocking=True, q_data_type="float16", kv_data_type=None):
        """Takes the blocks and chooses kernels; what lies on the device is copied to the host, where the page table is made.

        block_mask_map: [num_kv_heads, block rows, block columns] bool, which blocks are seen
        block_row_sz, block_col_sz: [num_kv_heads, block rows], [num_kv_heads, block columns]: their sizes; each head's sum is the
            same
        """
        refuse_compacted(causal, pos_encoding_mode)
        seen, rows, columns = block_mask_map.cpu().bool(), block_row_sz.cpu().long(), block_col_sz.cpu().long()
        if num_qo_heads % num_kv_heads:
            raise ValueError(f"num_qo_heads is {num_qo_heads}, must be a multiple of num_kv_heads, {num_kv_heads}")
        blocks = num_kv_heads, rows.shape[-1], columns.shape[-1]
        for name, sizes, shape in (("block_row_sz", rows, blocks[:2]), ("block_col_sz", columns, blocks[::2]),
                                   ("block_mask_map", seen, blocks)):
            if tuple(sizes.shape) != shape:
                raise ValueError(f"{name} has shape {list(sizes.shape)}, must be {list(shape)}")
        for name, sizes in (("block_row_sz", rows), ("block_col_sz", columns)):
            if (sizes.sum(1) != sizes[0].sum()).any():
                raise ValueError(f"{name} sums to {sizes.sum(1).tolist()}; each head has the same number of tokens")
        self._qo_len, self._kv_len = int(rows[0].sum()), int(columns[0].sum())
        # A request is a head's row of blocks, a page one token of one head.
        tokens = [seen[head].repeat_interleave(columns[head], 1) for head in range(num_kv_heads)]
        indices = torch.cat([t.nonzero()[:, 1] + head * self._kv_len for head, t in enumerate(tokens)])
        lengths = torch.cat([t.sum(1) for t in tokens])
        self._num_kv_heads, self._group = num_kv_heads, num_qo_heads // num_kv_heads
        self._wrapper.plan(indptr_of(rows.reshape(-1)), indptr_of(lengths), indices.int(),
                           torch.ones(len(lengths), dtype=torch.int32), self._group, 1, head_dim, 1,
                           use_fp16_qk_reduction=use_fp16_qk_reduction, logits_soft_cap=logits_soft_cap, sm_scale=sm_scale,
                           rope_scale=rope_scale, rope_theta=rope_theta, q_data_type=q_data_type, kv_data_type=kv_data_type,
                           non_blocking=non_blocking)

    begin_forward = plan

    def forward(self, q, k, v, pos_encoding_mode="NONE", use_fp16_qk_reduction=False, logits_soft_cap=None, sm_scale=None,
                rope_scale=None, rope_theta=None):
        """run() with options that replace those of plan()."""
        refuse_compacted(False, pos_encoding_mode)
        self._set_options(pos_encoding_mode, use_fp16_qk_reduction, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        return self.run(q, k, v)

    def run(self, q, k, v, out=None, lse=None, return_lse=False, enable_pdl=None):
        """Attention of every head over the blocks that it sees.

        q: [num_qo_heads, qo_len, head_dim]; k, v: [num_kv_heads, kv_len, head_dim]
        Returns out [num_qo_heads, qo_len, head_dim], with return_lse (out, lse [num_qo_heads, qo_len] float32, to base 2).
        """
        self._wrapper._refuse_unplanned()
        heads, group, head_dim = self._num_kv_heads, self._group, q.shape[-1]
        for name, array, tokens, of_each in (("q", q, self._qo_len, heads * group), ("k", k, self._kv_len, heads),
                                             ("v", v, self._kv_len, heads), ("out", out, self._qo_len, heads * group)):
            if array is not None and (array.dim() != 3 or array.shape[:2] != (of_each, tokens)):
                raise ValueError(f"{name} has shape {list(array.shape)}, must be [{of_each}, {tokens}, head_dim]")
        # [heads, group, tokens, ...] to [heads * tokens, group, ...] and back.
        stacked = q.reshape(heads, group, self._qo_len, head_dim).transpose(1, 2).reshape(heads * self._qo_len, group, head_dim)
        cache = tuple(t.reshape(heads * self._kv_len, 1, 1, t.shape[-1]) for t in (k, v))
        result, result_lse = self._wrapper.run(stacked, cache, return_lse=True, enable_pdl=enable_pdl)
        result = result.reshape(heads, self._qo_len, group, -1).transpose(1, 2).reshape(heads * group, self._qo_len, -1)
        result_lse = result_lse.reshape(heads, self._qo_len, group).transpose(1, 2).reshape(heads * group, self._qo_len)
        out = result if out is None else out.copy_(result)
        if not return_lse:
            return out
        return out, result_lse if lse is None else lse.copy_(result_lse)
