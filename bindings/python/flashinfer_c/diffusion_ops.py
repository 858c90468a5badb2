# SPDX-License-Identifier: Apache-2.0
"""What diffusion transformers use, where upstream has it too."""

from .norm import fused_qk_rmsnorm_rope

__all__ = ["fused_qk_rmsnorm_rope"]
