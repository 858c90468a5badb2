# SPDX-License-Identifier: Apache-2.0
"""Mamba-2's states while tokens are generated."""

from ._api import api, as_int32, unserved
from ._core import call, empty_like


def _columns(indices):
    """[batch] as [batch, 1], int32."""
    indices = as_int32(indices)
    return indices[:, None] if indices is not None and len(indices.shape) == 1 else indices


@api("selective_state_update", notes={
    "x": "[batch, num_heads, head_dim] or [batch, tokens, num_heads, head_dim], float16 or bfloat16; dt, B, C, z and out likewise",
    "rand_seed": "must be None: states are rounded to nearest",
    "cache_steps": "of no effect: the buffer tells it",
    **dict.fromkeys(("state_scale", "intermediate_state_scales", "cu_seqlens"), "must be None"),
    **dict.fromkeys(("philox_rounds", "algorithm"), "of no effect"),
})
def selective_state_update(state, x, dt, A, B, C, D, z=None, dt_bias=None, dt_softplus=False, state_batch_indices=None,
                           pad_slot_id=-1, state_scale=None, out=None, disable_state_update=False,
                           intermediate_states_buffer=None, intermediate_state_indices=None, intermediate_state_scales=None,
                           rand_seed=None, philox_rounds=10, cache_steps=0, algorithm="auto", dst_state_batch_indices=None,
                           cu_seqlens=None, num_accepted_tokens=None, backend="auto"):
    """Returns out, which is allocated if it is None; state is updated in place."""
    for name, given in (("state_scale", state_scale), ("intermediate_state_scales", intermediate_state_scales),
                        ("rand_seed", rand_seed), ("cu_seqlens", cu_seqlens)):
        if given is not None:
            unserved(f"{name} of selective_state_update")
    if out is None:
        out = empty_like(x)
    tokens = {"out": out, "x": x, "dt": dt, "B": B, "C": C, "z": z}
    if len(x.shape) == 3:
        tokens = {name: None if value is None else value[:, None] for name, value in tokens.items()}
    call("selective_state_update", flags=1, state=state, A=A, D=D, dt_bias=dt_bias, dt_softplus=dt_softplus,
         state_batch_indices=_columns(state_batch_indices), pad_slot_id=pad_slot_id, disable_state_update=disable_state_update,
         intermediate_states_buffer=intermediate_states_buffer, intermediate_state_indices=as_int32(intermediate_state_indices),
         dst_state_batch_indices=_columns(dst_state_batch_indices), num_accepted_tokens=as_int32(num_accepted_tokens), **tokens)
    return out
