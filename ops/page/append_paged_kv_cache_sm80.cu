/* SPDX-License-Identifier: Apache-2.0 */
/* append_paged_kv_cache: copies the keys and values of tokens into the slots that the page table gives them.
 *
 * A thread copies BYTES bytes of a key and of the value beside it; threadIdx.x is their place in the head, threadIdx.y the head,
 * threadIdx.z the token, and so are the axes of the grid, tokens first: (tokens, heads, places).
 *
 *   BYTES 1, 2, 4, 8, 16; divides head_bytes and all strides */
#include "pdl.cuh"
#include "vec.cuh"
#include "append_paged_kv_cache_args.h"

extern "C" __global__ void __launch_bounds__(256)
    append_paged_kv_cache_sm80(const __grid_constant__ struct append_paged_kv_cache_args a)
{
    int64_t token = (int64_t)blockIdx.x * blockDim.z + threadIdx.z;
    int64_t head = blockIdx.y * blockDim.y + threadIdx.y, at = (blockIdx.z * blockDim.x + threadIdx.x) * BYTES;
    const u8 *key = (const u8 *)a.key + token * a.key_stride[0] + head * a.key_stride[1] + at;
    const u8 *value = (const u8 *)a.value + token * a.value_stride[0] + head * a.value_stride[1] + at;
    u8 *k_cache = (u8 *)a.k_cache + head * a.k_cache_stride[2] + at;
    u8 *v_cache = (u8 *)a.v_cache + head * a.v_cache_stride[2] + at;

    pdl_launch();
    pdl_wait();
    if (token >= a.nnz || head >= a.num_heads || at >= a.head_bytes)
        return;
    int batch = a.batch_indices[token], position = a.positions[token];
    vec<u8, BYTES> k = load_vec<BYTES>(key), v = load_vec<BYTES>(value);
    if (batch < 0)
        return;
    int64_t page = a.kv_indices[a.kv_indptr[batch] + position / a.page_size], slot = position % a.page_size;
    store_vec(k_cache + page * a.k_cache_stride[0] + slot * a.k_cache_stride[1], k);
    store_vec(v_cache + page * a.v_cache_stride[0] + slot * a.v_cache_stride[1], v);
}
