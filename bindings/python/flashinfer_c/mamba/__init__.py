# SPDX-License-Identifier: Apache-2.0
"""Mamba-2's states while tokens are generated."""

from . import checkpointing_ssu as _checkpointing_ssu, selective_state_update as _selective_state_update
from .checkpointing_ssu import *
from .checkpointing_ssu import allocate_checkpointing_ssu_scratch
from .selective_state_update import *

__all__ = [*_checkpointing_ssu.__all__, *_selective_state_update.__all__, "allocate_checkpointing_ssu_scratch"]
