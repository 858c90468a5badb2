# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule's decoding from a pool of states, as engines call it past flashinfer.gdn_decode."""

from .. import gdn_decode
from .._api import api, as_int32, every_row, unserved

_NOTES = {
    "softplus_beta": "must be 1",
    "softplus_threshold": "must be 20",
    "initial_state_source": "the pool: [num_states, num_heads, values, keys] bfloat16, float16 or float32",
    "use_qk_l2norm_in_kernel": "True: q and k are divided by their lengths",
}


def _check(name, softplus_beta, softplus_threshold):
    if softplus_beta != 1 or softplus_threshold != 20:
        unserved(f"softplus_beta other than 1 and softplus_threshold other than 20 of {name}")


@api("gated_delta_rule_decode_pretranspose", notes=_NOTES)
def gated_delta_rule(A_log, a, dt_bias, softplus_beta=1.0, softplus_threshold=20.0, q=None, k=None, v=None, b=None,
                     initial_state_source=None, initial_state_indices=None, output_state_indices=None, output=None,
                     use_qk_l2norm_in_kernel=True, scale=None):
    """One token of each sequence. Returns output; the states are updated in place."""
    _check("gated_delta_rule", softplus_beta, softplus_threshold)
    return gdn_decode.gated_delta_rule_decode_pretranspose(
        q, k, v, None, A_log, a, dt_bias, b, scale, output, use_qk_l2norm_in_kernel, initial_state_source,
        initial_state_indices, output_state_indices)[0]


@api("gated_delta_rule_mtp", notes=_NOTES | {
    "accepted_steps": "[batch] int32: the state after token accepted_steps[i] is written, counted from 0; None: the last. "
                      "Below 0: none",
    "disable_state_update": "True: the states stay as they are",
    "disable_output": "of no effect: output is written",
    "recovery_steps": "as accepted_steps of recovery_steps - 1 for each sequence. 0: the last",
})
def gated_delta_rule_mtp(A_log, a, dt_bias, softplus_beta=1.0, softplus_threshold=20.0, q=None, k=None, v=None, b=None,
                         initial_state_source=None, initial_state_indices=None, output_state_indices=None,
                         intermediate_states_buffer=None, accepted_steps=None, ssm_state_indices=None,
                         disable_state_update=False, use_qk_l2norm_in_kernel=True, scale=None, output=None,
                         disable_output=False, recovery_steps=0):
    """Several tokens of each sequence. Returns output, of all tokens; one state of each sequence is written to its row, and
    the states after each token to intermediate_states_buffer or to the rows that ssm_state_indices names. With these, the row
    that was read stays as it was unless output_state_indices names another one to write."""
    _check("gated_delta_rule_mtp", softplus_beta, softplus_threshold)
    written = initial_state_indices if output_state_indices is None else output_state_indices
    keep_last = not disable_state_update
    if ssm_state_indices is not None:
        if intermediate_states_buffer is not None or disable_state_update:
            raise ValueError("ssm_state_indices excludes intermediate_states_buffer and disable_state_update")
        keep_last = written is not initial_state_indices
    early = accepted_steps is not None or recovery_steps
    if early and (ssm_state_indices is not None or keep_last and intermediate_states_buffer is not None):
        unserved("accepted_steps or recovery_steps beside the states after each token of gated_delta_rule_mtp")
    if early and keep_last:
        # As one of the states after each token, of which the others go nowhere.
        last = recovery_steps - 1 if accepted_steps is None else as_int32(accepted_steps)[:, None]
        chosen = every_row(1, q.shape[1], q) == last
        ssm_state_indices = as_int32((as_int32(written)[:, None] + 1) * chosen - 1)
        keep_last = False
    return gdn_decode.mtp(q, k, v, initial_state_source, initial_state_indices, A_log, a, dt_bias, b, scale, output,
                          intermediate_states_buffer, ssm_state_indices, keep_last, use_qk_l2norm_in_kernel,
                          output_state_indices if keep_last else None)
