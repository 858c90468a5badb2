# SPDX-License-Identifier: Apache-2.0
"""States that are written now and then, with the latest tokens in a ring beside each."""

from .._api import api, as_int32, is_torch, unserved
from .._core import call, dtype_name

_UNUSED = ("cb_scaled", "cumAdt_vec", "cb_old")


def _of_heads(x, name, axis):
    """Without the axes after `axis`, along which all numbers of a head are one."""
    if x is None:
        return None
    strides = x.stride() if is_torch(x) else getattr(x, "strides", None)
    further = range(axis + 1, len(x.shape))
    if strides is None or any(strides[i] for i in further if x.shape[i] > 1):
        raise ValueError(f"{name} must be the same number for all of a head: of stride 0 from axis {axis + 1} on")
    return x[(..., *(0 for _ in further))]


@api("checkpointing_ssu", notes={
    "dt": "[batch, tokens, num_heads, head_dim], of stride 0 along head_dim, float32 or dtype of x",
    "A": "[num_heads, head_dim, state_dim], of stride 0 along the last two",
    "D": "[num_heads, head_dim], of stride 0 along head_dim, or None: 0; dt_bias likewise",
    "dt_bias": "as D",
    "state_scale": "must be None: there are no states of 8 bits",
    "rand_seed": "an int64 tensor of one element: states of 16 bits are rounded at random. None: to nearest",
    "cu_seqlens": "[sequences + 1]: the tokens of each sequence among those of x, [1, tokens, num_heads, head_dim]",
    "max_seqlen": "the most tokens of a sequence, with cu_seqlens",
    **dict.fromkeys(("d_split", "precompute_heads_per_cta", "algorithm", *_UNUSED), "of no effect"),
})
def checkpointing_ssu(state, x_cache, B_cache, dt_cache, ring_start, prev_num_accepted_tokens, x, dt, A, B, C, out, D=None,
                      z=None, dt_bias=None, dt_softplus=False, state_batch_indices=None, pad_slot_id=-1, state_scale=None,
                      rand_seed=None, philox_rounds=10, d_split=None, cu_seqlens=None, max_seqlen=None, enable_pdl=False,
                      cb_scaled=None, cumAdt_vec=None, cb_old=None, precompute_heads_per_cta=0, algorithm="auto"):
    """Returns out; the rings and, where they are full, the states are updated in place."""
    if state_scale is not None or dtype_name(state.dtype) in ("int8", "float8_e4m3fn"):
        unserved("a state of 8 bits, with state_scale, of checkpointing_ssu")
    if rand_seed is not None and philox_rounds <= 0:
        raise ValueError(f"philox_rounds must be positive where rand_seed is given, not {philox_rounds}")
    if (cu_seqlens is None) != (max_seqlen is None):
        raise ValueError("cu_seqlens and max_seqlen must be given together")
    call("checkpointing_ssu", flags=int(enable_pdl), out=out, state=state, x_cache=x_cache, B_cache=B_cache, dt_cache=dt_cache,
         ring_start=as_int32(ring_start), prev_num_accepted_tokens=as_int32(prev_num_accepted_tokens), x=x,
         dt=_of_heads(dt, "dt", 2), A=_of_heads(A, "A", 0), B=B, C=C, D=_of_heads(D, "D", 0), z=z,
         dt_bias=_of_heads(dt_bias, "dt_bias", 0), dt_softplus=dt_softplus, state_batch_indices=as_int32(state_batch_indices),
         pad_slot_id=pad_slot_id, rand_seed=rand_seed, philox_rounds=10 if rand_seed is None else philox_rounds,
         cu_seqlens=cu_seqlens, max_seqlen=max_seqlen)
    return out


def allocate_checkpointing_ssu_scratch(batch_size, num_heads, num_predicted_tokens, max_window, dtype, device):
    """Three tensors of the shapes that upstream wants for cb_scaled, cumAdt_vec and cb_old, which are of no use here."""
    from torch import empty, float32

    if batch_size <= 0 or num_heads <= 0 or not 0 < num_predicted_tokens <= 16 or not 0 < max_window <= 16:
        raise ValueError("batch_size and num_heads must be positive, num_predicted_tokens and max_window 1 to 16")
    lanes = (batch_size, num_heads, 32)
    return (empty(*lanes, 8, dtype=dtype, device=device), empty(batch_size, num_heads, 16, dtype=float32, device=device),
            empty(*lanes, -(-max_window // 8) * 4, dtype=dtype, device=device))
