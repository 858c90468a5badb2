# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule's kernels by the names that engines load them with."""

from .gdn_decode_bf16_state import gated_delta_rule, gated_delta_rule_mtp  # noqa: F401
