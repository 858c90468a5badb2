# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from ._api import api
from ._core import dtype_name, empty, launcher

_mm = launcher("mm")


@api("mm", notes={"out_dtype": "that of out where it is allocated: bfloat16, float16 or float32",
                  "pdl": "programmatic dependent launch, where the device can"})
def mm_bf16(a, b, bias=None, pdl=False, out=None, out_dtype="bfloat16", backend="cudnn"):
    """Returns out, which is allocated if it is None. b is column-major, a transposed view of the weight [n, k], or row-major."""
    if dtype_name(a.dtype) != "bfloat16" or dtype_name(b.dtype) != "bfloat16":
        raise ValueError(f"a is {dtype_name(a.dtype)} and b {dtype_name(b.dtype)}, both must be bfloat16")
    if out is None:
        out = empty((a.shape[0], b.shape[1]), out_dtype, a)
    elif dtype_name(out.dtype) != dtype_name(out_dtype):
        raise ValueError(f"out is {dtype_name(out.dtype)}, must be {dtype_name(out_dtype)} as out_dtype")
    _mm(out, a, b, bias, bool(pdl))
    return out


@api("mm", input="a", weight="b", notes={"weight": "[n, k], row-major, bfloat16",
                                         "use_pdl": "programmatic dependent launch, where the device can"})
def tinygemm_bf16(input, weight, out, bias=None, use_pdl=False):
    """Returns None: out = input @ weight.T + bias. Made for few rows; every number of them is served."""
    _mm(out, input, weight.T, bias, bool(use_pdl))
