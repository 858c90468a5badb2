# SPDX-License-Identifier: Apache-2.0
"""Gated activations."""

from ._api import api
from ._core import complains, empty, is_array, launcher, not_an_array
from .fp4_quantization import silu_and_mul_scaled_nvfp4_experts_quantize

__all__ = ["silu_and_mul_scaled_nvfp4_experts_quantize"]

_silu_and_mul = launcher("silu_and_mul")
_gelu_and_mul = launcher("gelu_and_mul")
_gelu_tanh_and_mul = launcher("gelu_tanh_and_mul")


@complains
def _output(input):
    if not is_array(input):
        raise not_an_array(input)
    shape = tuple(input.shape)
    return empty((*shape[:-1], *[width // 2 for width in shape[-1:]]), input.dtype, input)


@api("silu_and_mul")
def silu_and_mul(input, out=None, enable_pdl=None):
    """Returns out, which is allocated if it is None."""
    if out is None:
        out = _output(input)
    _silu_and_mul(out, input, None, enable_pdl is not False)
    return out


@api("gelu_and_mul")
def gelu_and_mul(input, out=None, enable_pdl=None):
    """Returns out, which is allocated if it is None."""
    if out is None:
        out = _output(input)
    _gelu_and_mul(out, input, None, enable_pdl is not False)
    return out


@api("gelu_tanh_and_mul")
def gelu_tanh_and_mul(input, out=None, enable_pdl=None):
    """Returns out, which is allocated if it is None."""
    if out is None:
        out = _output(input)
    _gelu_tanh_and_mul(out, input, None, enable_pdl is not False)
    return out
