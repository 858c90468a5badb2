# SPDX-License-Identifier: Apache-2.0
"""Concatenation for multi-head latent attention."""

from ._api import api
from ._core import launcher

_concat_mla_k = launcher("concat_mla_k")


@api("concat_mla_k")
def concat_mla_k(k, k_nope, k_rope, *, backend="default"):
    """Returns None: k is written."""
    _concat_mla_k(k, k_nope, k_rope, True)
