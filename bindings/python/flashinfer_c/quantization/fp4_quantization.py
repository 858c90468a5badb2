# SPDX-License-Identifier: Apache-2.0
"""Blocks of 4-bit numbers (e2m1) with a scale each: NVFP4 and MXFP4."""

import enum
import math

from .. import _core
from .._api import api, is_torch, scale_near, split_kv, unserved, viewed
from .._core import call, empty


class SfLayout(enum.IntEnum):
    """Where the scale of a block lies."""

    layout_128x4 = 0
    layout_8x4 = 1
    layout_linear = 2


def _layout(is_sf_swizzled_layout, is_sf_8x4_layout):
    return 2 if not is_sf_swizzled_layout else 1 if is_sf_8x4_layout else 0


def _as_layout(layout):
    return SfLayout(layout).value


_BOTH = {
    "sfLayout": "SfLayout: where the scale of a block lies",
    "is_sf_swizzled_layout": "True: scales lie in tiles of 128 rows by 4 blocks; False: row by row",
    "is_sf_8x4_layout": "True: tiles of 8 rows by 4 blocks",
    "do_shuffle": "must be False",
    "per_token_activation": "must be False",
    "expanded_idx_to_permuted_idx": "must be None",
    "out_scale": "must be None",
    "nvfp4_4over6": "must be None",
}


def _plain(nvfp4_4over6=None, do_shuffle=False, per_token_activation=False, expanded_idx_to_permuted_idx=None, out_scale=None):
    for name, given in locals().items():
        if given is not None and given is not False:
            unserved(f"{name} of NVFP4 quantization")


@api("fp4_quantize", notes=_BOTH)
def fp4_quantize(input, global_scale=None, sf_vec_size=16, sf_use_ue8m0=False, is_sf_swizzled_layout=True, is_sf_8x4_layout=False,
                 is_global_scale_inversed=False, enable_pdl=None, backend="cuda", nvfp4_4over6=None):
    """Returns (codes, scales), both uint8: two codes a byte, the scales as a matrix of their padded rows. A column-major input
    gives column-major results."""
    _plain(nvfp4_4over6)
    transposed = is_torch(input) and input.dim() >= 2 and input.stride(-2) == 1 and input.stride(-1) != 1
    if transposed:
        input = input.transpose(-2, -1).contiguous()
    codes, scales = call(
        "fp4_quantize", flags=enable_pdl is not False, out="uint8", out_scale="uint8", input=input,
        global_scale=scale_near(global_scale, input), sf_vec_size=sf_vec_size, sf_use_ue8m0=sf_use_ue8m0,
        sf_layout=_layout(is_sf_swizzled_layout, is_sf_8x4_layout), is_global_scale_inversed=is_global_scale_inversed)
    scales = scales.reshape(-1, scales.shape[-1])
    return (codes.transpose(-2, -1), scales.transpose(-2, -1)) if transposed else (codes, scales)


@api("nvfp4_quantize", notes=_BOTH, sfLayout="sf_layout")
def nvfp4_quantize(a, a_global_sf, sfLayout=SfLayout.layout_128x4, do_shuffle=False, sf_vec_size=16, enable_pdl=None,
                   backend="cuda", per_token_activation=False, expanded_idx_to_permuted_idx=None, out_scale=None,
                   nvfp4_4over6=None):
    """Returns (codes, scales), both uint8: two codes a byte, the scales as a matrix of their padded rows."""
    _plain(nvfp4_4over6, do_shuffle, per_token_activation, expanded_idx_to_permuted_idx, out_scale)
    codes, scales = call(
        "nvfp4_quantize", flags=enable_pdl is not False, out="uint8", out_scale="uint8", a=a,
        a_global_sf=scale_near(a_global_sf, a), sf_layout=_as_layout(sfLayout), sf_vec_size=sf_vec_size)
    return codes, scales.reshape(-1, scales.shape[-1])


@api("mxfp4_quantize", notes=_BOTH, sfLayout="sf_layout")
def mxfp4_quantize(a, backend="cuda", enable_pdl=None, sfLayout=SfLayout.layout_128x4):
    """Returns (codes, scales), both uint8: two codes a byte, the scales as a matrix of their padded rows."""
    codes, scales = call("mxfp4_quantize", flags=enable_pdl is not False, out="uint8", out_scale="uint8", a=a,
                         sf_layout=_as_layout(sfLayout))
    return codes, scales.reshape(-1, scales.shape[-1])


@api("nvfp4_batched_quantize", notes=_BOTH)
def nvfp4_batched_quantize(a, a_global_sf, sf_vec_size=16, nvfp4_4over6=None):
    """Returns (codes [batch, rows, columns / 2], scales [batch, bytes]), both uint8; the scales lie in tiles of 128x4."""
    _plain(nvfp4_4over6)
    codes, scales = call("nvfp4_batched_quantize", flags=1, out="uint8", out_scale="uint8", a=a,
                         a_global_sf=scale_near(a_global_sf, a), sf_vec_size=sf_vec_size)
    return codes, scales.reshape(scales.shape[0], math.prod(scales.shape[1:]))


def _grouped(op, a, columns, mask, a_global_sf):
    """What the experts' kernels take: codes [rows, columns / 2, batch] and scales [32, 4, rows / 128, 4, columns / 64, batch]."""
    if not is_torch(a):
        unserved(f"{op} of arrays that are not torch's")
    batch, rows, _ = a.shape
    codes = empty((batch, rows, columns // 2), "uint8", a)
    tiles = -(-rows // 128), -(-(columns // 16) // 4)
    scales = empty((batch, tiles[0] * 128, tiles[1] * 4), "uint8", a)
    call(op, flags=1, out=codes, out_scale=scales, a=a, mask=mask, a_global_sf=scale_near(a_global_sf, a))
    scales = viewed(scales, "float8_e4m3fn", "scales").view(batch, *tiles, 32, 4, 4)
    return codes.permute(1, 2, 0), scales.permute(3, 4, 1, 5, 2, 0)


@api("scaled_fp4_grouped_quantize", notes=_BOTH)
def scaled_fp4_grouped_quantize(a, mask, a_global_sf, nvfp4_4over6=None):
    """Returns (codes [rows, columns / 2, batch] uint8, scales [32, 4, rows / 128, 4, columns / 64, batch] e4m3); of group b the
    first mask[b] rows are written."""
    _plain(nvfp4_4over6)
    return _grouped("scaled_fp4_grouped_quantize", a, a.shape[2], mask, a_global_sf)


@api("silu_and_mul_scaled_nvfp4_experts_quantize", notes=_BOTH)
def silu_and_mul_scaled_nvfp4_experts_quantize(a, mask, a_global_sf, nvfp4_4over6=None):
    """Returns (codes [rows, columns / 2, batch] uint8, scales [32, 4, rows / 128, 4, columns / 64, batch] e4m3); of group b the
    first mask[b] rows are written."""
    _plain(nvfp4_4over6)
    return _grouped("silu_and_mul_scaled_nvfp4_experts_quantize", a, a.shape[2] // 2, mask, a_global_sf)


@api("silu_and_mul_nvfp4_quantize", notes=_BOTH)
def silu_and_mul_nvfp4_quantize(input, global_scale, sf_vec_size=16, is_sf_swizzled_layout=True, is_sf_8x4_layout=False,
                                enable_pdl=None, nvfp4_4over6=None):
    """Returns (codes, scales), both uint8."""
    _plain(nvfp4_4over6)
    codes, scales = call(
        "silu_and_mul_nvfp4_quantize", flags=enable_pdl is not False, out="uint8", out_scale="uint8", input=input,
        global_scale=scale_near(global_scale, input), sf_layout=_layout(is_sf_swizzled_layout, is_sf_8x4_layout),
        sf_vec_size=sf_vec_size)
    return codes, scales.reshape(-1, scales.shape[-1])


@api("nvfp4_kv_quantize")
def nvfp4_kv_quantize(input, global_scale):
    """Returns (codes, scales), both uint8. global_scale is a decode scale: value = code * scale * global_scale."""
    return call("nvfp4_kv_quantize", flags=1, out="uint8", out_scale="uint8", input=input,
                global_scale=scale_near(global_scale, input))


@api("nvfp4_kv_dequantize", fp4_data="fp4", block_scales="sf", notes={"output_dtype": "float16, bfloat16 or float32"})
def nvfp4_kv_dequantize(fp4_data, block_scales, global_scale, output_dtype="bfloat16"):
    """Returns a new tensor: code * scale * global_scale."""
    return call("nvfp4_kv_dequantize", flags=1, out=_core.dtype_name(output_dtype), fp4=fp4_data, sf=block_scales,
                global_scale=scale_near(global_scale, fp4_data))


@api("nvfp4_kv_dequantize_paged")
def nvfp4_kv_dequantize_paged(paged_kv_cache, kv_cache_sf, block_tables, seq_lens, k_scale, v_scale, output_k, output_v,
                              kv_layout="NHD"):
    """Returns None: output_k and output_v are written up to each request's length."""
    k_cache, v_cache = split_kv(paged_kv_cache, kv_layout)
    k_cache_sf, v_cache_sf = split_kv(kv_cache_sf, kv_layout)
    call("nvfp4_kv_dequantize_paged", flags=1, output_k=output_k, output_v=output_v, k_cache=k_cache, v_cache=v_cache,
         k_cache_sf=k_cache_sf, v_cache_sf=v_cache_sf, block_tables=block_tables, seq_lens=seq_lens, k_scale=k_scale,
         v_scale=v_scale, kv_layout=kv_layout)


def _host_scales(sf, values_shape, blocks, layout, name):
    """Scales as a matrix of their padded rows, of values with so many blocks a row; they often come flat."""
    rows = math.prod(values_shape[:-1])
    if layout != 2:
        tile = 8 if layout else 128
        rows, blocks = -(-rows // tile) * tile, -(-blocks // 4) * 4
    sf = viewed(sf, "uint8", name)
    is_matrix = len(sf.shape) == 2 and 1 not in sf.shape
    if math.prod(sf.shape) != rows * blocks or (is_matrix and sf.shape[1] != blocks):
        raise ValueError(f"{name} has shape {list(sf.shape)}, must be [{rows}, {blocks}], or as many in one axis")
    return sf.reshape(rows, blocks)


@api("e2m1_and_ufp8sf_scale_to_float", e2m1_tensor="e2m1", ufp8_scale_tensor="sf", global_scale_tensor="global_scale",
     notes=_BOTH)
def e2m1_and_ufp8sf_scale_to_float(e2m1_tensor, ufp8_scale_tensor, global_scale_tensor=None, sf_vec_size=16, ufp8_type=1,
                                   is_sf_swizzled_layout=True, is_sf_8x4_layout=False):
    """Returns a new tensor of float32: code * scale * global_scale."""
    layout = _layout(is_sf_swizzled_layout, is_sf_8x4_layout)
    e2m1 = viewed(e2m1_tensor, "uint8", "e2m1_tensor")
    sf = _host_scales(ufp8_scale_tensor, e2m1.shape, e2m1.shape[-1] * 2 // sf_vec_size, layout, "ufp8_scale_tensor")
    return call("e2m1_and_ufp8sf_scale_to_float", flags=1, e2m1=e2m1, sf=sf,
                global_scale=scale_near(global_scale_tensor, e2m1), sf_vec_size=sf_vec_size, ufp8_type=ufp8_type,
                sf_layout=layout)


def _mxfp4_dequantize(codes, scales, layout, names):
    codes = viewed(codes, "uint8", names[0])
    return call("mxfp4_dequantize", flags=1, out="float32", a_fp4=codes,
                a_sf=_host_scales(scales, codes.shape, codes.shape[-1] // 16, layout, names[1]), sf_layout=layout)


@api("mxfp4_dequantize", notes=_BOTH, sfLayout="sf_layout")
def mxfp4_dequantize(a_fp4, a_sf, sfLayout=SfLayout.layout_128x4):
    """Returns a new tensor of float32, on the CPU, as upstream does."""
    if is_torch(a_fp4):
        a_fp4, a_sf = a_fp4.cpu(), a_sf.cpu()
    return _mxfp4_dequantize(a_fp4, a_sf, _as_layout(sfLayout), ("a_fp4", "a_sf"))


@api("mxfp4_dequantize", weight="a_fp4", scale="a_sf", notes={"group_size": "must be 32"})
def mxfp4_dequantize_host(weight, scale, group_size=32):
    """Returns a new tensor of float32. The scales lie row by row."""
    if group_size != 32:
        unserved(f"group_size {group_size} of mxfp4_dequantize_host")
    return _mxfp4_dequantize(weight, scale, 2, ("weight", "scale"))


@api("block_scale_interleave", unswizzled_sf="input")
def block_scale_interleave(unswizzled_sf, *, out=None):
    """Returns out, flat, allocated if it is None: the scales in tiles of 128 rows by 4 blocks, padded with zeros."""
    *leading, m, k = unswizzled_sf.shape
    shape = (*leading, -(-m // 128) * 128, -(-k // 4) * 4)
    if out is None:
        out = empty((math.prod(shape),), unswizzled_sf.dtype, unswizzled_sf)
    elif tuple(out.shape) != (math.prod(shape),):
        raise ValueError(f"out is {tuple(out.shape)}, must be ({math.prod(shape)},)")
    call("block_scale_interleave", flags=1, out=out.reshape(shape), input=unswizzled_sf)
    return out


nvfp4_block_scale_interleave = block_scale_interleave
__all__ += ["SfLayout", "nvfp4_block_scale_interleave"]
