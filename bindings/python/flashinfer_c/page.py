# SPDX-License-Identifier: Apache-2.0
"""The paged cache of keys and values."""

from ._api import api, as_int32, split_kv
from ._core import call, empty, launcher

_append_paged_kv_cache = launcher("append_paged_kv_cache")
_append_paged_mla_kv_cache = launcher("append_paged_mla_kv_cache")
_get_batch_indices_positions = launcher("get_batch_indices_positions")
_get_seq_lens = launcher("get_seq_lens")

_LAYOUTS = {"NHD": 0, "HND": 1}


def _layout(kv_layout):
    if kv_layout not in _LAYOUTS:
        raise ValueError(f"kv_layout is {kv_layout!r}, must be 'NHD' or 'HND'")
    return _LAYOUTS[kv_layout]


def _written(cache, kv_layout):
    """The keys and the values of a cache that is written."""
    k, v = split_kv(cache, kv_layout)
    as_given = isinstance(cache, (tuple, list)) and k is cache[0]
    if not as_given and type(k).__module__.partition(".")[0] in ("jax", "jaxlib"):
        raise ValueError("a cache of JAX must be a pair of arrays with pages: parts of arrays are copies there")
    return k, v


@api("append_paged_kv_cache")
def append_paged_kv_cache(append_key, append_value, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr,
                          kv_last_page_len, kv_layout="NHD"):
    """Returns None: the cache is written. Tokens whose batch index is below 0 are left out."""
    k_cache, v_cache = _written(paged_kv_cache, kv_layout)
    _append_paged_kv_cache(k_cache, v_cache, append_key, append_value, as_int32(batch_indices), as_int32(positions),
                           as_int32(kv_indices), as_int32(kv_indptr), as_int32(kv_last_page_len), _layout(kv_layout), True)


@api("append_paged_mla_kv_cache")
def append_paged_mla_kv_cache(append_ckv, append_kpe, batch_indices, positions, ckv_cache, kpe_cache, kv_indices, kv_indptr,
                              kv_last_page_len):
    """Returns None: the caches are written. Tokens whose batch index is below 0 are left out."""
    _append_paged_mla_kv_cache(ckv_cache, kpe_cache, append_ckv, append_kpe, as_int32(batch_indices), as_int32(positions),
                               as_int32(kv_indices), as_int32(kv_indptr), as_int32(kv_last_page_len), True)


@api("get_batch_indices_positions")
def get_batch_indices_positions(append_indptr, seq_lens, nnz, batch_indices=None, positions=None):
    """Returns (batch_indices, positions), allocated if they are None. Places that no token has get -1 and 0."""
    if batch_indices is None:
        batch_indices = empty((nnz,), "int32", append_indptr)
    if positions is None:
        positions = empty((nnz,), "int32", append_indptr)
    _get_batch_indices_positions(batch_indices, positions, as_int32(append_indptr), as_int32(seq_lens), nnz, True)
    return batch_indices, positions


@api("get_seq_lens")
def get_seq_lens(kv_indptr, kv_last_page_len, page_size):
    """Returns a new tensor of int32."""
    seq_lens = empty(tuple(kv_last_page_len.shape), "int32", kv_last_page_len)
    _get_seq_lens(seq_lens, as_int32(kv_indptr), as_int32(kv_last_page_len), page_size, True)
    return seq_lens


@api("nvfp4_quantize_append_paged_kv_cache")
def nvfp4_quantize_append_paged_kv_cache(append_key, append_value, batch_indices, positions, paged_kv_cache, kv_cache_sf,
                                         kv_indices, kv_indptr, kv_last_page_len, k_scale, v_scale, kv_layout="NHD"):
    """Returns None: the cache and its scales are written. k_scale and v_scale are decode scales: value = code * scale *
    k_scale."""
    k_cache, v_cache = _written(paged_kv_cache, kv_layout)
    k_cache_sf, v_cache_sf = _written(kv_cache_sf, kv_layout)
    call("nvfp4_quantize_append_paged_kv_cache", flags=1, k_cache=k_cache, v_cache=v_cache, k_cache_sf=k_cache_sf,
         v_cache_sf=v_cache_sf, append_key=append_key, append_value=append_value, batch_indices=as_int32(batch_indices),
         positions=as_int32(positions), kv_indices=as_int32(kv_indices), kv_indptr=as_int32(kv_indptr),
         kv_last_page_len=as_int32(kv_last_page_len), k_scale=k_scale, v_scale=v_scale, kv_layout=kv_layout)


@api("nvfp4_quantize_append_paged_kv_cache_with_slot_mapping")
def nvfp4_quantize_append_paged_kv_cache_with_slot_mapping(append_key, append_value, slot_mapping, paged_kv_cache, kv_cache_sf,
                                                           k_scale, v_scale, kv_layout="NHD"):
    """Returns None: the cache and its scales are written. Slots below 0 and beyond the cache are left out."""
    k_cache, v_cache = _written(paged_kv_cache, kv_layout)
    k_cache_sf, v_cache_sf = _written(kv_cache_sf, kv_layout)
    call("nvfp4_quantize_append_paged_kv_cache_with_slot_mapping", flags=1, k_cache=k_cache, v_cache=v_cache,
         k_cache_sf=k_cache_sf, v_cache_sf=v_cache_sf, append_key=append_key, append_value=append_value,
         slot_mapping=slot_mapping, k_scale=k_scale, v_scale=v_scale, kv_layout=kv_layout)
