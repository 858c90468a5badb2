# SPDX-License-Identifier: Apache-2.0
"""The names of quantization.fp4_quantization, where upstream has them too."""

from .quantization.fp4_quantization import *
from .quantization.fp4_quantization import __all__
