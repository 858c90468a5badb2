# SPDX-License-Identifier: Apache-2.0
"""Kimi Delta Attention: the delta rule with a decay of each key."""

from ._api import api, as_int32, unserved
from ._core import call, empty, empty_like


@api("recurrent_kda", notes={
    "output_final_state": "True: the state is returned too",
    "use_qk_l2norm_in_kernel": "True: q and k are divided by their lengths",
    "num_spec_tokens": "of no effect with ssm_state_indices, without which it must be None",
    "checkpoint_every_n_tokens": "must be 0",
    **dict.fromkeys(("seq_order", "prefill_workspace", "checkpoint_cu_starts"), "of no effect"),
    **dict.fromkeys(("cu_seqlens", "state_checkpoints", "checkpoint_state_indices", "correction_cache", "kg_cache"),
                    "must be None"),
})
def recurrent_kda(q, k, v, g, beta, A_log=None, dt_bias=None, scale=None, initial_state=None, output_final_state=False,
                  use_qk_l2norm_in_kernel=True, use_gate_in_kernel=False, lower_bound=None, cu_seqlens=None,
                  ssm_state_indices=None, num_spec_tokens=None, num_accepted_tokens=None, output=None, initial_state_source=None,
                  initial_state_indices=None, beta_is_logit=False, seq_order=None, prefill_workspace=None, state_checkpoints=None,
                  checkpoint_cu_starts=None, checkpoint_every_n_tokens=0, checkpoint_state_indices=None, *,
                  disable_state_update=False, correction_cache=None, kg_cache=None, backend="auto"):
    """Returns (output, state): output is allocated if it is None; state is initial_state, updated in place (zeros first, float32, if
    it is None), or None without output_final_state."""
    for name, given in (("cu_seqlens", cu_seqlens), ("state_checkpoints", state_checkpoints), ("correction_cache", correction_cache),
                        ("checkpoint_state_indices", checkpoint_state_indices), ("kg_cache", kg_cache),
                        ("num_spec_tokens without ssm_state_indices", num_spec_tokens if ssm_state_indices is None else None)):
        if given is not None:
            unserved(f"{name} of recurrent_kda")
    if checkpoint_every_n_tokens:
        unserved("checkpoint_every_n_tokens of recurrent_kda")
    if initial_state is None and output_final_state:
        initial_state = empty((q.shape[0], v.shape[2], v.shape[3], q.shape[3]), "float32", q)
        initial_state[...] = 0
    if output is None:
        output = empty_like(v)
    rows = as_int32(ssm_state_indices)
    call("recurrent_kda", flags=1, output=output, initial_state=initial_state, q=q, k=k, v=v, g=g, beta=beta, A_log=A_log,
         dt_bias=None if dt_bias is None else dt_bias.reshape(-1, q.shape[3]), scale=scale,
         skip_qk_l2norm=not use_qk_l2norm_in_kernel, use_gate_in_kernel=use_gate_in_kernel, lower_bound=lower_bound,
         ssm_state_indices=rows[:, None] if rows is not None and len(rows.shape) == 1 else rows,
         num_accepted_tokens=as_int32(num_accepted_tokens), initial_state_source=initial_state_source,
         initial_state_indices=as_int32(initial_state_indices), beta_is_logit=beta_is_logit,
         disable_state_update=disable_state_update)
    return output, initial_state if output_final_state else None
