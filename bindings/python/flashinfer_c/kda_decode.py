# SPDX-License-Identifier: Apache-2.0
"""recurrent_kda as upstream's module for decoding has it, with fewer arguments than kda.recurrent_kda."""

from . import kda
from ._api import api


@api("recurrent_kda", notes={
    "output_final_state": "True: the state is returned too",
    "use_qk_l2norm_in_kernel": "True: q and k are divided by their lengths",
    "num_spec_tokens": "S: rows of ssm_state_indices have S + 1 columns; without both and without cu_seqlens, q has S + 1 tokens",
    "initial_state_indices": "rows of initial_state_source; with disable_state_update, of initial_state if there is no source",
    **dict.fromkeys(("correction_cache", "kg_cache"), "only with disable_state_update, where the slot is that of the state read"),
})
def recurrent_kda(q, k, v, g, beta, A_log=None, dt_bias=None, scale=None, initial_state=None, output_final_state=False,
                  use_qk_l2norm_in_kernel=True, use_gate_in_kernel=False, lower_bound=None, cu_seqlens=None,
                  ssm_state_indices=None, num_spec_tokens=None, num_accepted_tokens=None, output=None, initial_state_source=None,
                  initial_state_indices=None, beta_is_logit=False, *, disable_state_update=False, correction_cache=None,
                  kg_cache=None, backend=None):
    """Returns (output, state), as kda.recurrent_kda does."""
    return kda.recurrent_kda(
        q, k, v, g, beta, A_log, dt_bias, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel, use_gate_in_kernel,
        lower_bound, cu_seqlens, ssm_state_indices, num_spec_tokens, num_accepted_tokens, output, initial_state_source,
        initial_state_indices, beta_is_logit, disable_state_update=disable_state_update, correction_cache=correction_cache,
        kg_cache=kg_cache)
