# SPDX-License-Identifier: Apache-2.0
"""The names of quantization.fp8_quantization, where upstream has them too."""

from .quantization.fp8_quantization import *
from .quantization.fp8_quantization import __all__
