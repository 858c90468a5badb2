# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, and its fusion with quantization and the cache."""

from ._api import api, as_int32
from ._core import call, empty, empty_like, launcher

_apply_rope = launcher("apply_rope")
_apply_rope_inplace = launcher("apply_rope_inplace")
_apply_rope_pos_ids = launcher("apply_rope_pos_ids")
_apply_rope_pos_ids_inplace = launcher("apply_rope_pos_ids_inplace")
_apply_llama31_rope = launcher("apply_llama31_rope")
_apply_llama31_rope_inplace = launcher("apply_llama31_rope_inplace")
_apply_llama31_rope_pos_ids = launcher("apply_llama31_rope_pos_ids")
_apply_llama31_rope_pos_ids_inplace = launcher("apply_llama31_rope_pos_ids_inplace")
_apply_rope_with_cos_sin_cache = launcher("apply_rope_with_cos_sin_cache")
_apply_rope_with_cos_sin_cache_inplace = launcher("apply_rope_with_cos_sin_cache_inplace")


@api("apply_rope")
def apply_rope(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=1e4):
    """Returns new (q_rope, k_rope)."""
    q_rope, k_rope = empty_like(q), empty_like(k)
    _apply_rope(q_rope, k_rope, q, k, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, True)
    return q_rope, k_rope


@api("apply_rope_inplace")
def apply_rope_inplace(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=1e4):
    """Returns None: q and k are rotated in place."""
    _apply_rope_inplace(q, k, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, True)


@api("apply_rope_pos_ids")
def apply_rope_pos_ids(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=1e4):
    """Returns new (q_rope, k_rope)."""
    q_rope, k_rope = empty_like(q), empty_like(k)
    _apply_rope_pos_ids(q_rope, k_rope, q, k, pos_ids, rotary_dim, interleave, rope_scale, rope_theta, True)
    return q_rope, k_rope


@api("apply_rope_pos_ids_inplace")
def apply_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=1e4):
    """Returns None: q and k are rotated in place."""
    _apply_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim, interleave, rope_scale, rope_theta, True)


@api("apply_llama31_rope")
def apply_llama31_rope(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=8, rope_theta=5e5, low_freq_factor=1,
                       high_freq_factor=4, old_context_len=8192):
    """Returns new (q_rope, k_rope)."""
    q_rope, k_rope = empty_like(q), empty_like(k)
    _apply_llama31_rope(q_rope, k_rope, q, k, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, low_freq_factor,
                        high_freq_factor, old_context_len, True)
    return q_rope, k_rope


@api("apply_llama31_rope_inplace")
def apply_llama31_rope_inplace(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=8, rope_theta=5e5,
                               low_freq_factor=1, high_freq_factor=4, old_context_len=8192):
    """Returns None: q and k are rotated in place."""
    _apply_llama31_rope_inplace(q, k, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, low_freq_factor,
                                high_freq_factor, old_context_len, True)


@api("apply_llama31_rope_pos_ids")
def apply_llama31_rope_pos_ids(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=8, rope_theta=5e5, low_freq_factor=1,
                               high_freq_factor=4, old_context_len=8192):
    """Returns new (q_rope, k_rope)."""
    q_rope, k_rope = empty_like(q), empty_like(k)
    _apply_llama31_rope_pos_ids(q_rope, k_rope, q, k, pos_ids, rotary_dim, interleave, rope_scale, rope_theta, low_freq_factor,
                                high_freq_factor, old_context_len, True)
    return q_rope, k_rope


@api("apply_llama31_rope_pos_ids_inplace")
def apply_llama31_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=8, rope_theta=5e5,
                                       low_freq_factor=1, high_freq_factor=4, old_context_len=8192):
    """Returns None: q and k are rotated in place."""
    _apply_llama31_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim, interleave, rope_scale, rope_theta, low_freq_factor,
                                        high_freq_factor, old_context_len, True)


_NEOX = {"is_neox": "True: halves of a head are rotated together; False: pairs of neighbours"}


@api("apply_rope_with_cos_sin_cache", notes=_NEOX)
def apply_rope_with_cos_sin_cache(positions, query, key, head_size, cos_sin_cache, is_neox=True):
    """Returns new (query, key). The cache holds the cosines, then the sines, of each position."""
    query_out, key_out = empty_like(query), empty_like(key)
    _apply_rope_with_cos_sin_cache(query_out, key_out, positions, query, key, head_size, cos_sin_cache, not is_neox, True)
    return query_out, key_out


@api("apply_rope_with_cos_sin_cache_inplace", notes=_NEOX)
def apply_rope_with_cos_sin_cache_inplace(positions, query, key, head_size, cos_sin_cache, is_neox=True):
    """Returns None: query and key are rotated in place."""
    _apply_rope_with_cos_sin_cache_inplace(query, key, positions, head_size, cos_sin_cache, not is_neox, True)


_QUANTIZE = _NEOX | {"quantize_dtype": "that of outputs that are allocated, None: float8_e4m3fn"}


def _quantized(part, given, quantize_dtype, rope):
    """An output as given, or a new one of a part's shape; of an absent part, with rope's heads and no elements."""
    if given is not None:
        return given
    shape = (*rope.shape[:-1], 0) if part is None else tuple(part.shape)
    return empty(shape, quantize_dtype or "float8_e4m3fn", rope)


def _quantize(op, q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox, quantize_dtype, quant_scale_q, quant_scale_kv,
              q_rope_out, k_rope_out, q_nope_out, k_nope_out, enable_pdl):
    given = next((out.dtype for out in (q_rope_out, k_rope_out, q_nope_out, k_nope_out) if out is not None), None)
    dtype = quantize_dtype or given
    outs = (_quantized(q_rope, q_rope_out, dtype, q_rope), _quantized(k_rope, k_rope_out, dtype, k_rope),
            _quantized(q_nope, q_nope_out, dtype, q_rope), _quantized(k_nope, k_nope_out, dtype, k_rope))
    call(op, flags=bool(enable_pdl), q_rope_out=outs[0], k_rope_out=outs[1], q_nope_out=outs[2], k_nope_out=outs[3],
         q_rope=q_rope, k_rope=k_rope, q_nope=q_nope, k_nope=k_nope, cos_sin_cache=cos_sin_cache, pos_ids=pos_ids,
         interleave=not is_neox, quant_scale_q=quant_scale_q, quant_scale_kv=quant_scale_kv)
    return outs


@api("rope_quantize_fp8", "mla_rope_quantize_fp8", notes=_QUANTIZE)
def rope_quantize_fp8(q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox=True, quantize_dtype=None,
                      quant_scale_q=1.0, quant_scale_kv=1.0, q_rope_out=None, k_rope_out=None, q_nope_out=None, k_nope_out=None,
                      enable_pdl=False, backend="cuda"):
    """Returns (q_rope_out, k_rope_out, q_nope_out, k_nope_out). k_rope and k_nope of two axes are those of MLA, without heads.
    The output of a nope part that is None has no elements."""
    op = "mla_rope_quantize_fp8" if len(k_rope.shape) == 2 else "rope_quantize_fp8"
    return _quantize(op, q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox, quantize_dtype, quant_scale_q,
                     quant_scale_kv, q_rope_out, k_rope_out, q_nope_out, k_nope_out, enable_pdl)


@api("mla_rope_quantize_fp8", "rope_quantize_fp8", notes=_QUANTIZE)
def mla_rope_quantize_fp8(q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox=True, quantize_dtype=None,
                          quant_scale_q=1.0, quant_scale_kv=1.0, q_rope_out=None, k_rope_out=None, q_nope_out=None,
                          k_nope_out=None, enable_pdl=False):
    """Returns (q_rope_out, k_rope_out, q_nope_out, k_nope_out). The output of a nope part that is None has no elements."""
    return rope_quantize_fp8(q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox, quantize_dtype, quant_scale_q,
                             quant_scale_kv, q_rope_out, k_rope_out, q_nope_out, k_nope_out, enable_pdl)


@api("rope_quantize_fp8_append_paged_kv_cache", "rope_quantize_fp8_append_paged_mla_kv_cache",
     notes=_QUANTIZE | {"paged_kv_cache": "(k_cache, v_cache), or for MLA (ckv_cache, kpe_cache)", "page_size": "of the cache"})
def rope_quantize_fp8_append_paged_kv_cache(
    q_rope, k_rope, q_nope, k_nope, v: "Tensor | None", cos_sin_cache, pos_ids, paged_kv_cache, kv_indices, kv_indptr,
    batch_indices, positions, is_neox=True, quantize_dtype=None, quant_scale_q=1.0, quant_scale_kv=1.0, page_size=16,
    kv_layout="NHD", q_rope_out=None, q_nope_out=None, enable_pdl=False,
):
    """Returns (q_rope_out, q_nope_out); keys and values go to the cache. v is None for MLA. Without q_nope its output has no
    elements."""
    first, second = paged_kv_cache
    mla = len(k_rope.shape) == 2
    if mla and v is not None:
        raise ValueError("v must be None with the keys of MLA, which have two axes")
    slots = first.shape[2] if kv_layout == "HND" and not mla else first.shape[1]
    if slots != page_size:
        raise ValueError(f"page_size is {page_size}, but the pages of paged_kv_cache have {slots} slots")
    dtype = quantize_dtype or first.dtype
    outs = _quantized(q_rope, q_rope_out, dtype, q_rope), _quantized(q_nope, q_nope_out, dtype, q_rope)
    if mla:
        op, caches = "rope_quantize_fp8_append_paged_mla_kv_cache", {"ckv_cache": first, "kpe_cache": second}
    else:
        op, caches = "rope_quantize_fp8_append_paged_kv_cache", {"k_cache": first, "v_cache": second, "v": v,
                                                                 "kv_layout": kv_layout}
    call(op, flags=bool(enable_pdl), q_rope_out=outs[0], q_nope_out=outs[1], q_rope=q_rope, k_rope=k_rope, q_nope=q_nope,
         k_nope=k_nope, cos_sin_cache=cos_sin_cache, pos_ids=pos_ids, kv_indices=as_int32(kv_indices),
         kv_indptr=as_int32(kv_indptr), batch_indices=as_int32(batch_indices), positions=as_int32(positions),
         interleave=not is_neox, quant_scale_q=quant_scale_q, quant_scale_kv=quant_scale_kv, **caches)
    return outs
