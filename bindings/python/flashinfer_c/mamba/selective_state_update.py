# SPDX-License-Identifier: Apache-2.0
"""States of which each token writes one."""

from .._api import api, as_dense_int32, as_int32, unserved
from .._core import call, empty_like


def _rows(indices, sequences):
    """The first rows, int32: engines keep room for more."""
    if indices is not None and indices.shape[0] > sequences:
        indices = indices[:sequences]
    return as_dense_int32(indices)


def _columns(indices, sequences):
    """[batch] as [batch, 1], int32."""
    indices = _rows(indices, sequences)
    return indices[:, None] if indices is not None and len(indices.shape) == 1 else indices


def _with_axis(x, ndim, axis):
    """With an axis of one, unless there are ndim axes."""
    if x is None or len(x.shape) >= ndim:
        return x
    return x[None] if axis == 0 else x[:, None]


@api("selective_state_update", notes={
    "state": "[num_states, num_heads, head_dim, state_dim], or without num_heads: 1; float32, float16 or bfloat16",
    "x": "[batch, num_heads, head_dim] or [batch, tokens, num_heads, head_dim] or [batch, head_dim], float16, bfloat16 or "
         "float32; with cu_seqlens [tokens, num_heads, head_dim]; dt, B, C, z and out likewise",
    "A": "[num_heads, head_dim, state_dim] or [head_dim, state_dim]",
    "D": "[num_heads, head_dim] or [head_dim]; dt_bias likewise",
    "rand_seed": "an int64 tensor of one element: states of 16 bits are rounded at random. None: to nearest",
    "cache_steps": "1 or more: out has an axis of tokens though x has none; else of no effect, the buffer tells it",
    "cu_seqlens": "[sequences + 1]: the tokens of each sequence among those of x",
    **dict.fromkeys(("state_scale", "intermediate_state_scales"), "must be None: there are no states of int16"),
    "algorithm": "of no effect",
})
def selective_state_update(state, x, dt, A, B, C, D, z=None, dt_bias=None, dt_softplus=False, state_batch_indices=None,
                           pad_slot_id=-1, state_scale=None, out=None, disable_state_update=False,
                           intermediate_states_buffer=None, intermediate_state_indices=None, intermediate_state_scales=None,
                           rand_seed=None, philox_rounds=10, cache_steps=0, algorithm="auto", dst_state_batch_indices=None,
                           cu_seqlens=None, num_accepted_tokens=None, backend="auto"):
    """Returns out, which is allocated if it is None; state is updated in place."""
    for name, given in (("state_scale", state_scale), ("intermediate_state_scales", intermediate_state_scales)):
        if given is not None:
            unserved(f"{name} of selective_state_update")
    if rand_seed is not None and philox_rounds <= 0:
        raise ValueError(f"philox_rounds must be positive where rand_seed is given, not {philox_rounds}")
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    tokens = {"x": x, "dt": dt, "B": B, "C": C, "z": z}
    packed = cu_seqlens is not None and len(x.shape) == 3
    if not packed:
        tokens = {name: _with_axis(value, 3, 1) for name, value in tokens.items()}
        if cache_steps >= 1:
            tokens = {name: _with_axis(value, 4, 1) for name, value in tokens.items()}
    if out is None:
        out = empty_like(tokens["x"])
    tokens = {name: _with_axis(value, 4, 0 if packed else 1) for name, value in (tokens | {"out": out}).items()}
    call("selective_state_update", flags=1, state=_with_axis(state, 4, 1), A=_with_axis(A, 3, 0), D=_with_axis(D, 2, 0),
         dt_bias=_with_axis(dt_bias, 2, 0), dt_softplus=dt_softplus, state_batch_indices=_columns(state_batch_indices, sequences),
         pad_slot_id=pad_slot_id, disable_state_update=disable_state_update,
         intermediate_states_buffer=intermediate_states_buffer, intermediate_state_indices=as_int32(intermediate_state_indices),
         rand_seed=rand_seed, philox_rounds=10 if rand_seed is None else philox_rounds,
         dst_state_batch_indices=_columns(dst_state_batch_indices, sequences), cu_seqlens=cu_seqlens,
         num_accepted_tokens=_rows(num_accepted_tokens, sequences), **tokens)
    return out
