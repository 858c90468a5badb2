# SPDX-License-Identifier: Apache-2.0
"""Kimi Delta Attention: the delta rule with a decay of each key."""

from . import _core
from ._api import api, as_dense_int32, as_int32, every_row, is_torch
from ._core import call, empty, empty_like


def _checkpoint_starts(cu_seqlens, q, every, completed):
    """Of the checkpoints of each sequence, and their number: those after every so many tokens, or one before them. Waits for
    cu_seqlens."""
    lengths = cu_seqlens.tolist() if cu_seqlens is not None else [i * q.shape[1] for i in range(q.shape[0] + 1)]
    counts = [0]
    for begin, end in zip(lengths, lengths[1:]):
        counts.append(counts[-1] + (end - begin if completed else end - begin + every - 1) // every)
    starts = empty((len(counts),), "int64", q)
    starts[...] = _core.torch.tensor(counts) if is_torch(q) else counts
    return starts, counts[-1]


def _rows_named(rows):
    """How many states they are rows of, one at least. Waits for them."""
    return max(int(rows.max()), 0) + 1 if rows.shape[0] else 1


@api("recurrent_kda", notes={
    "output_final_state": "True: the state is returned too",
    "use_qk_l2norm_in_kernel": "True: q and k are divided by their lengths",
    "num_spec_tokens": "S: rows of ssm_state_indices have S + 1 columns; without both and without cu_seqlens, q has S + 1 tokens",
    "initial_state_indices": "rows of initial_state_source; with disable_state_update, of initial_state if there is no source",
    **dict.fromkeys(("correction_cache", "kg_cache"), "only with disable_state_update, where the slot is that of the state read"),
    "state_checkpoints": "[any, num_v_heads, head_dim, head_dim]: allocated if it is None, not with checkpoint_state_indices",
    "checkpoint_cu_starts": "None: worked out on the host, which waits for cu_seqlens",
    **dict.fromkeys(("seq_order", "prefill_workspace"), "of no effect"),
})
def recurrent_kda(q, k, v, g, beta, A_log=None, dt_bias=None, scale=None, initial_state=None, output_final_state=False,
                  use_qk_l2norm_in_kernel=True, use_gate_in_kernel=False, lower_bound=None, cu_seqlens=None,
                  ssm_state_indices=None, num_spec_tokens=None, num_accepted_tokens=None, output=None, initial_state_source=None,
                  initial_state_indices=None, beta_is_logit=False, seq_order=None, prefill_workspace=None, state_checkpoints=None,
                  checkpoint_cu_starts=None, checkpoint_every_n_tokens=0, checkpoint_state_indices=None, *,
                  disable_state_update=False, correction_cache=None, kg_cache=None, backend="auto"):
    """Returns (output, state): output is allocated if it is None; state is initial_state, updated in place, or None without
    output_final_state. If initial_state is None it is zeros first, float32: as many as ssm_state_indices names beside cu_seqlens
    or num_spec_tokens, for which the call waits, else one for each sequence. With checkpoint_every_n_tokens, state_checkpoints
    comes third."""
    rows, sequences = as_dense_int32(ssm_state_indices), q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    if lower_bound is not None and not use_gate_in_kernel:
        raise ValueError("lower_bound needs use_gate_in_kernel")
    if num_spec_tokens is not None and rows is not None and tuple(rows.shape) != (sequences, num_spec_tokens + 1):
        raise ValueError(f"ssm_state_indices has shape {list(rows.shape)}, must be [sequences, num_spec_tokens + 1], which is "
                         f"[{sequences}, {num_spec_tokens + 1}]")
    if disable_state_update:
        if output_final_state or num_accepted_tokens is not None:
            raise ValueError("disable_state_update takes neither output_final_state nor num_accepted_tokens")
        if initial_state_source is None and initial_state_indices is not None:
            rows, initial_state_indices = as_int32(initial_state_indices), None
        elif initial_state_source is not None and initial_state_indices is None:
            rows, initial_state_indices = None, rows
    elif correction_cache is not None or kg_cache is not None:
        raise ValueError("correction_cache and kg_cache need disable_state_update=True")
    elif (initial_state_source is None) != (initial_state_indices is None):
        raise ValueError("initial_state_source and initial_state_indices must be given together")
    elif num_spec_tokens is not None and rows is None:
        if cu_seqlens is not None:
            raise ValueError("num_spec_tokens with cu_seqlens needs ssm_state_indices")
        if q.shape[1] != num_spec_tokens + 1:
            raise ValueError(f"q has {q.shape[1]} tokens, must have num_spec_tokens + 1, which is {num_spec_tokens + 1}")
        rows = every_row(sequences, q.shape[1], q)
    if initial_state is None and output_final_state:
        if cu_seqlens is None and num_spec_tokens is None:
            rows = None  # a state for each sequence; upstream does not look at the indices here
        states = sequences if rows is None else _rows_named(rows)
        initial_state = empty((states, v.shape[2], v.shape[3], q.shape[3]), "float32", q)
        initial_state[...] = 0
    if output is None:
        output = empty_like(v)
    if checkpoint_every_n_tokens and (checkpoint_cu_starts is None or state_checkpoints is None):
        starts, count = _checkpoint_starts(cu_seqlens, q, checkpoint_every_n_tokens, checkpoint_state_indices is not None)
        if checkpoint_cu_starts is None:
            checkpoint_cu_starts = starts
        if state_checkpoints is None:
            if checkpoint_state_indices is not None:
                raise ValueError("checkpoint_state_indices needs state_checkpoints, whose rows it names")
            dtype = (q if initial_state is None else initial_state).dtype
            state_checkpoints = empty((count, v.shape[2], v.shape[3], q.shape[3]), dtype, q)
    call("recurrent_kda", flags=1, output=output, initial_state=initial_state, q=q, k=k, v=v, g=g, beta=beta, A_log=A_log,
         dt_bias=None if dt_bias is None else dt_bias.reshape(-1, q.shape[3]), scale=scale,
         skip_qk_l2norm=not use_qk_l2norm_in_kernel, use_gate_in_kernel=use_gate_in_kernel, lower_bound=lower_bound,
         correction_cache=correction_cache, kg_cache=kg_cache, cu_seqlens=cu_seqlens, state_checkpoints=state_checkpoints,
         checkpoint_cu_starts=checkpoint_cu_starts, checkpoint_every_n_tokens=checkpoint_every_n_tokens,
         checkpoint_state_indices=as_int32(checkpoint_state_indices),
         ssm_state_indices=rows[:, None] if rows is not None and len(rows.shape) == 1 else rows,
         num_accepted_tokens=as_int32(num_accepted_tokens), initial_state_source=initial_state_source,
         initial_state_indices=as_int32(initial_state_indices), beta_is_logit=beta_is_logit,
         disable_state_update=disable_state_update)
    state = initial_state if output_final_state else None
    return (output, state, state_checkpoints) if checkpoint_every_n_tokens else (output, state)
