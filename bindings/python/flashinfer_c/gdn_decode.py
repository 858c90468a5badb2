# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule, token by token."""

from ._api import api, as_int32, every_row, unserved
from ._core import call, empty

_NORM = {"use_qk_l2norm": "True: q and k are divided by their lengths"}


def _output(output, q, v):
    """Of as many heads as the states have."""
    return empty((*v.shape[:2], max(q.shape[2], v.shape[2]), v.shape[3]), q.dtype, q) if output is None else output


@api("gated_delta_rule_decode", notes=_NORM)
def gated_delta_rule_decode(q, k, v, state, A_log, a, dt_bias, b, scale=None, output=None, use_qk_l2norm=True, backend="auto"):
    """Returns (output, state); state [batch, heads, keys, values] is updated in place."""
    output = _output(output, q, v)
    call("gated_delta_rule_decode", flags=1, output=output, state=state, q=q, k=k, v=v, A_log=A_log, a=a, dt_bias=dt_bias, b=b,
         scale=scale, skip_qk_l2norm=not use_qk_l2norm)
    return output, state


@api("gated_delta_rule_decode_pretranspose", "gated_delta_rule_mtp", notes=_NORM | {
    "state": "[batch, heads, values, keys], or None where initial_state is given",
    "initial_state": "a pool [pool, heads, values, keys] in place of state, with initial_state_indices",
    "disable_state_update": "True: the states stay as they are",
})
def gated_delta_rule_decode_pretranspose(q, k, v, state: "Tensor | None", A_log, a, dt_bias, b, scale=None, output=None,
                                         use_qk_l2norm=True, initial_state=None, initial_state_indices=None,
                                         output_state_indices=None, intermediate_states_buffer=None,
                                         disable_state_update=False, backend="auto"):
    """Returns (output, state): the states [..., values, keys] are updated in place, of a pool the rows that the indices name."""
    if (initial_state is None) != (initial_state_indices is None):
        raise ValueError("initial_state and initial_state_indices must be given together")
    if output_state_indices is not None and initial_state is None:
        raise ValueError("output_state_indices can only be used with initial_state")
    state = initial_state if initial_state is not None else state
    output = _output(output, q, v)
    shared = dict(flags=1, output=output, q=q, k=k, v=v, A_log=A_log, a=a, dt_bias=dt_bias, b=b, scale=scale,
                  skip_qk_l2norm=not use_qk_l2norm, output_state_indices=as_int32(output_state_indices))
    rows = as_int32(initial_state_indices)
    if intermediate_states_buffer is None and not disable_state_update:
        call("gated_delta_rule_decode_pretranspose", state=state, initial_state_indices=rows, **shared)
    else:
        rows = every_row(q.shape[0], 1, q).reshape(-1) if rows is None else rows
        call("gated_delta_rule_mtp", initial_state=state, initial_state_indices=rows, update_state=not disable_state_update,
             intermediate_states_buffer=intermediate_states_buffer, **shared)
    return output, state


def mtp(q, k, v, state, rows, A_log, a, dt_bias, b, scale, output, intermediate_states_buffer, ssm_state_indices, update,
        use_qk_l2norm, output_state_indices):
    """Several tokens of each sequence. Returns output. update: the last state is written to its row, whatever becomes of the
    states after each token."""
    output = _output(output, q, v)
    call("gated_delta_rule_mtp", flags=1, output=output, initial_state=state,
         intermediate_states_buffer=intermediate_states_buffer, q=q, k=k, v=v, initial_state_indices=as_int32(rows), A_log=A_log,
         a=a, dt_bias=dt_bias, b=b, scale=scale, ssm_state_indices=as_int32(ssm_state_indices), update_state=update,
         skip_qk_l2norm=not use_qk_l2norm, output_state_indices=as_int32(output_state_indices))
    return output


@api("gated_delta_rule_mtp", notes=_NORM | {
    "disable_state_update": "True or None: the last state is not written",
    "cache_replayssm": "must be False",
    **dict.fromkeys(("replayssm_rawv", "replayssm_rawk", "replayssm_g", "replayssm_beta"),
                    "of no effect without cache_replayssm"),
})
def gated_delta_rule_mtp(q, k, v, initial_state, initial_state_indices, A_log, a, dt_bias, b, scale=None, output=None,
                         intermediate_states_buffer=None, ssm_state_indices=None, disable_state_update=None, use_qk_l2norm=True,
                         output_state_indices=None, cache_replayssm=False, replayssm_rawv=None, replayssm_rawk=None,
                         replayssm_g=None, replayssm_beta=None):
    """Returns (output, initial_state). The state after each token goes to intermediate_states_buffer or to the rows that
    ssm_state_indices names; the last one to its row of the pool unless disable_state_update. With ssm_state_indices the pool is
    written nowhere else."""
    if cache_replayssm:
        unserved("cache_replayssm of gated_delta_rule_mtp")
    update = disable_state_update is False and ssm_state_indices is None
    return mtp(q, k, v, initial_state, initial_state_indices, A_log, a, dt_bias, b, scale, output, intermediate_states_buffer,
               ssm_state_indices, update, use_qk_l2norm, output_state_indices), initial_state
