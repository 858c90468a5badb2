# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule over whole sequences."""

from ._api import api, as_int32
from ._core import call, empty


@api("chunk_gated_delta_rule", notes={
    "cu_seqlens": "[num_sequences+1], int32 or int64, from 0; must be given",
    "output_final_state": "True: also return output_state",
    "use_cp": "of no effect: whether a sequence is divided follows from its length",
    "max_seqlen": "of no effect",
    "_cp_chunk_len": "of no effect",
})
def chunk_gated_delta_rule(q, k, v, g=None, beta=None, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None,
                           use_qk_l2norm_in_kernel=False, output=None, output_state=None, state_checkpoints=None,
                           checkpoint_cu_starts=None, checkpoint_every_n_tokens=0, use_cp="auto", state_indices=None,
                           _cp_chunk_len=None, backend="auto", max_seqlen=None):
    """Returns output, or with output_final_state (output, output_state), allocated if they are None, the state as float32. An
    output_state that is given is written without output_final_state too. g is the decay itself, not its logarithm."""
    if cu_seqlens is None:
        raise ValueError("cu_seqlens must be given")
    if not checkpoint_every_n_tokens and (state_checkpoints is not None or checkpoint_cu_starts is not None):
        raise ValueError("state_checkpoints and checkpoint_cu_starts need checkpoint_every_n_tokens")
    heads, head_dim = max(q.shape[1], v.shape[1]), q.shape[2]
    # The op writes checkpoints where it writes last states.
    if output_state is None and (output_final_state or checkpoint_every_n_tokens > 0):
        if state_indices is not None:
            raise ValueError("output_state must be given with state_indices")
        dtype = "float32" if output_final_state or state_checkpoints is None else state_checkpoints.dtype
        output_state = empty((max(cu_seqlens.shape[0] - 1, 0), heads, v.shape[2], head_dim), dtype, q)
    if output is None:
        output = empty((q.shape[0], heads, v.shape[2]), q.dtype, q)
    call("chunk_gated_delta_rule", flags=1, output=output, output_state=output_state, state_checkpoints=state_checkpoints, q=q,
         k=k, v=v, g=g, beta=beta, scale=scale, initial_state=initial_state, cu_seqlens=cu_seqlens,
         use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, checkpoint_cu_starts=checkpoint_cu_starts,
         checkpoint_every_n_tokens=checkpoint_every_n_tokens, state_indices=as_int32(state_indices))
    return (output, output_state) if output_final_state else output
