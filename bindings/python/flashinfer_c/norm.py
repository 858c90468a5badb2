# SPDX-License-Identifier: Apache-2.0
"""Normalisation: RMSNorm, LayerNorm and what is fused with them."""

from ._api import api, scale_near
from ._core import call, dtype_name, empty_like, is_array, launcher

_rmsnorm = launcher("rmsnorm")
_gemma_rmsnorm = launcher("gemma_rmsnorm")
_fused_add_rmsnorm = launcher("fused_add_rmsnorm")
_gemma_fused_add_rmsnorm = launcher("gemma_fused_add_rmsnorm")
_rmsnorm_quant = launcher("rmsnorm_quant")
_fused_add_rmsnorm_quant = launcher("fused_add_rmsnorm_quant")
_layernorm = launcher("layernorm")
_layernorm_quant = launcher("layernorm_quant")
_fused_rmsnorm_silu = launcher("fused_rmsnorm_silu")


@api("rmsnorm")
def rmsnorm(input, weight, eps=1e-6, out=None, enable_pdl=None):
    """Returns out, which is allocated if it is None."""
    if out is None:
        out = empty_like(input)
    _rmsnorm(out, input, weight, eps, enable_pdl is not False)
    return out


@api("gemma_rmsnorm")
def gemma_rmsnorm(input, weight, eps=1e-6, out=None, enable_pdl=None):
    """Returns out, which is allocated if it is None."""
    if out is None:
        out = empty_like(input)
    _gemma_rmsnorm(out, input, weight, eps, enable_pdl is not False)
    return out


@api("fused_add_rmsnorm")
def fused_add_rmsnorm(input, residual, weight, eps=1e-6, enable_pdl=None):
    """Returns None: input becomes the normalised sum, residual the sum."""
    _fused_add_rmsnorm(input, residual, weight, eps, enable_pdl is not False)


@api("gemma_fused_add_rmsnorm")
def gemma_fused_add_rmsnorm(input, residual, weight, eps=1e-6, enable_pdl=None):
    """Returns None: input becomes the normalised sum, residual the sum."""
    _gemma_fused_add_rmsnorm(input, residual, weight, eps, enable_pdl is not False)


@api("rmsnorm_quant")
def rmsnorm_quant(out, input, weight, scale, eps=1e-6, enable_pdl=None):
    """Returns None: out is written."""
    _rmsnorm_quant(out, input, weight, scale_near(scale, input), eps, enable_pdl is not False)


@api("fused_add_rmsnorm_quant")
def fused_add_rmsnorm_quant(out, input, residual, weight, scale, eps=1e-6, enable_pdl=None):
    """Returns None: out and residual are written."""
    _fused_add_rmsnorm_quant(out, residual, input, weight, scale_near(scale, input), eps, enable_pdl is not False)


@api("layernorm")
def layernorm(input, gemma, beta, eps=1e-6):
    """Returns a new tensor. gemma is the weight: the name is upstream's."""
    out = empty_like(input)
    _layernorm(out, input, gemma, beta, eps, True)
    return out


@api("layernorm_quant")
def layernorm_quant(out, input, gemma, beta, scale, eps=1e-6):
    """Returns None: out is written."""
    _layernorm_quant(out, input, gemma, beta, scale_near(scale, input), eps, True)


@api("fused_rmsnorm_silu", "fused_rmsnorm_silu_nvfp4")
def fused_rmsnorm_silu(input, weight, eps=1e-6, out=None, block_scale=None):
    """Returns out, of input's dtype if it is None; of pairs of e2m1, (out, block_scale)."""
    if out is None:
        out = empty_like(input)
    if dtype_name(out.dtype) in ("uint8", "float4_e2m1fn_x2"):
        return call("fused_rmsnorm_silu_nvfp4", flags=1, out=out, block_scale=_e4m3(block_scale, input), input=input,
                    weight=weight, eps=eps)
    _fused_rmsnorm_silu(out, input, weight, eps, True)
    return out


def _e4m3(given, like):
    """A given tensor, or the dtype to allocate: NumPy has no e4m3."""
    return given if given is not None else "float8_e4m3fn" if hasattr(like, "is_cuda") else "uint8"


def _e2m1(given, like):
    return given if given is not None else "float4_e2m1fn_x2" if hasattr(like, "is_cuda") else "uint8"


@api("fused_qk_rmsnorm_rope", notes={"output_fp8": "float8_e4m3fn outputs, where they are allocated"})
def fused_qk_rmsnorm_rope(
    qkv, q_weight, k_weight, *, ppf, pph, ppw, num_frame_channels, num_height_channels, num_width_channels, num_heads_q,
    num_heads_k, num_heads_v, head_dim, eps=1e-6, base=10000.0, interleave=True, factor=1.0, low=0.0, high=0.0,
    attention_factor=1.0, is_qk_norm=True, output_fp8=False, output_quant_scale=1.0, v_quant_scale=1.0, q_out=None, k_out=None,
    v_out=None,
):
    """Returns (q_out, k_out, v_out)."""
    dtype = "float8_e4m3fn" if output_fp8 else qkv.dtype
    outs = {name: dtype if out is None else out for name, out in (("q_out", q_out), ("k_out", k_out), ("v_out", v_out))}
    return call(
        "fused_qk_rmsnorm_rope", flags=1, qkv=qkv, q_weight=q_weight, k_weight=k_weight, ppf=ppf, pph=pph, ppw=ppw,
        num_frame_channels=num_frame_channels, num_height_channels=num_height_channels, num_width_channels=num_width_channels,
        num_heads_q=num_heads_q, num_heads_k=num_heads_k, num_heads_v=num_heads_v, head_dim=head_dim, eps=eps, base=base,
        interleave=interleave, factor=factor, low=low, high=high, attention_factor=attention_factor, is_qk_norm=is_qk_norm,
        output_quant_scale=output_quant_scale, v_quant_scale=v_quant_scale, **outs)


def _block_scale(given, like, block_size, scale_format):
    if given is not None:
        return given
    ue8m0 = scale_format == "ue8m0" or (scale_format is None and block_size == 32)
    return "uint8" if ue8m0 else _e4m3(None, like)


@api("rmsnorm_fp4quant")
def rmsnorm_fp4quant(input, weight, y_fp4=None, block_scale=None, global_scale=None, eps=1e-6, block_size=16, scale_format=None,
                     is_sf_swizzled_layout=False, enable_pdl=None):
    """Returns (y_fp4, block_scale). y_fp4 holds two values a byte."""
    return call(
        "rmsnorm_fp4quant", flags=enable_pdl is not False, y_fp4=_e2m1(y_fp4, input),
        block_scale=_block_scale(block_scale, input, block_size, scale_format), input=input, weight=weight,
        global_scale=global_scale, eps=eps, block_size=block_size, scale_format=scale_format,
        is_sf_swizzled_layout=int(is_sf_swizzled_layout))


@api("add_rmsnorm_fp4quant")
def add_rmsnorm_fp4quant(input, residual, weight, y_fp4=None, block_scale=None, global_scale=None, eps=1e-6, block_size=16,
                         scale_format=None, is_sf_swizzled_layout=False, output_both_sf_layouts=False,
                         block_scale_unswizzled=None, enable_pdl=None, y_out=None):
    """Returns (y_fp4, block_scale); with output_both_sf_layouts, (y_fp4, block_scale, block_scale_unswizzled). residual becomes
    the sum."""
    scale = _block_scale(block_scale, input, block_size, scale_format)
    if output_both_sf_layouts and block_scale_unswizzled is None:
        block_scale_unswizzled = scale.dtype if is_array(scale) else scale
    written = call(
        "add_rmsnorm_fp4quant", flags=enable_pdl is not False, y_fp4=_e2m1(y_fp4, input), block_scale=scale,
        block_scale_unswizzled=block_scale_unswizzled if output_both_sf_layouts else None, y_out=y_out, residual=residual,
        input=input, weight=weight, global_scale=global_scale, eps=eps, block_size=block_size, scale_format=scale_format,
        is_sf_swizzled_layout=int(is_sf_swizzled_layout or output_both_sf_layouts), output_both_sf_layouts=output_both_sf_layouts)
    return written[:3] if output_both_sf_layouts else written[:2]
