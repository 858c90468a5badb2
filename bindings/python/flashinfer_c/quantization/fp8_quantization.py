# SPDX-License-Identifier: Apache-2.0
"""8-bit numbers with a scale for each block: MXFP8, and groups within a token."""

from .. import _core
from .._api import api, viewed
from .._core import call, empty
from .fp4_quantization import SfLayout, _host_scales

_LAYOUT = {"sf_swizzle_layout": "SfLayout, None: by is_sf_swizzled_layout",
           "is_sf_swizzled_layout": "True: scales lie in tiles of 128 rows by 4 blocks; False: row by row"}


def _layout(is_sf_swizzled_layout, sf_swizzle_layout):
    if sf_swizzle_layout is not None:
        return SfLayout(sf_swizzle_layout).value
    return 0 if is_sf_swizzled_layout else 2


@api("mxfp8_quantize", notes=_LAYOUT)
def mxfp8_quantize(input, is_sf_swizzled_layout=True, alignment=32, enable_pdl=None, backend="cuda", sf_swizzle_layout=None):
    """Returns (values float8_e4m3fn, scales uint8, flat). Columns are padded with zeros to a multiple of alignment."""
    values, scales = call("mxfp8_quantize", flags=enable_pdl is not False, out="float8_e4m3fn", out_scale="uint8", input=input,
                          sf_layout=_layout(is_sf_swizzled_layout, sf_swizzle_layout), alignment=alignment)
    return values, scales.reshape(-1)


@api("mxfp8_dequantize", scale_tensor="scale", notes=_LAYOUT)
def mxfp8_dequantize_host(input, scale_tensor, is_sf_swizzled_layout=True, sf_swizzle_layout=None):
    """Returns a new tensor of float32."""
    layout = _layout(is_sf_swizzled_layout, sf_swizzle_layout)
    values = viewed(input, "float8_e4m3fn", "input")
    return call("mxfp8_dequantize", flags=1, out="float32", input=values,
                scale=_host_scales(scale_tensor, values.shape, values.shape[-1] // 32, layout, "scale_tensor"), sf_layout=layout)


@api("per_token_group_quant_8bit", notes={
    "dst_dtype": "float8_e4m3fn (None) or int8",
    "column_major_scales": "True: the scales of a group of columns lie next to each other in memory, by token",
    "scale_tma_aligned": "True, with column_major_scales: columns of x_s start on 16 bytes",
})
def per_token_group_quant_8bit(x, group_size, eps=1e-10, dst_dtype=None, column_major_scales=False, scale_tma_aligned=False,
                               scale_ue8m0=False, backend="cutile"):
    """Returns (x_q of x's shape, x_s [..., columns / group_size] float32)."""
    *leading, columns = x.shape
    groups = columns // group_size
    if column_major_scales and leading:
        *outer, rows = leading
        pitch = -(-rows // 4) * 4 if scale_tma_aligned else rows
        x_s = empty((*outer, groups, pitch), "float32", x).swapaxes(-1, -2)[..., :rows, :]
    else:
        x_s = empty((*leading, groups), "float32", x)
    return call("per_token_group_quant_8bit", flags=1, x_q=_core.dtype_name(dst_dtype or "float8_e4m3fn"), x_s=x_s, x=x,
                group_size=group_size, eps=eps, scale_ue8m0=scale_ue8m0)
