# SPDX-License-Identifier: Apache-2.0
"""Quantization to 4 and 8 bits, and packing of bits."""

from . import fp4_quantization, fp8_quantization, packbits as _packbits
from .fp4_quantization import *
from .fp8_quantization import *
from .packbits import *

__all__ = [*fp4_quantization.__all__, *fp8_quantization.__all__, *_packbits.__all__]
