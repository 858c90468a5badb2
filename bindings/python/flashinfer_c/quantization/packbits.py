# SPDX-License-Identifier: Apache-2.0
"""Bits packed into bytes."""

from .._api import api, as_bool, as_int32
from .._core import call, dtype_name, empty, launcher

_packbits = launcher("packbits")


@api("packbits")
def packbits(x, bitorder="big"):
    """Returns a new tensor [ceil(size / 8)] uint8: what is not 0 is a 1. bitorder: 'big' or 'little', as NumPy's."""
    y = empty((-(-x.shape[0] // 8),), "uint8", x)
    if bitorder not in ("big", "little"):
        raise ValueError(f"bitorder is {bitorder!r}, must be 'big' or 'little'")
    _packbits(y, x if dtype_name(x.dtype) == "uint8" else as_bool(x), int(bitorder == "little"), True)
    return y


@api("segment_packbits")
def segment_packbits(x, indptr, bitorder="big"):
    """Returns (y, new_indptr): each segment of x starts on a byte of y. Waits for the device, to know how long y is."""
    lengths = indptr[1:] - indptr[:-1]
    y = empty((int(((lengths + 7) // 8).sum()),), "uint8", x)
    return call("segment_packbits", flags=1, y=y, x=x, indptr=as_int32(indptr), bitorder=bitorder)
