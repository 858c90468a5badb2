/* SPDX-License-Identifier: Apache-2.0 */
/* The paged key/value cache. A cache is pages of page_size slots; a page table (kv_indptr, kv_indices) says which pages hold the
 * tokens of a request, in order:
 *
 *     page of position p of request b = kv_indices[kv_indptr[b] + p / page_size], slot p % page_size
 *
 * Keys and values are two tensors; they may be views of one, such as K and V of [pages, 2, page_size, num_kv_heads, head_dim]. */
#ifndef FLASHINFER_PAGE_H
#define FLASHINFER_PAGE_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Copies each token's key and value into its slot. The page table must already cover the new tokens. Two tokens must not have
 * the same slot. Slots that no token has stay as they are. */
struct flashinfer_append_paged_kv_cache {
    size_t size;
    DLTensor *k_cache;                /* NHD: [pages, page_size, num_kv_heads, head_dim]; HND: heads before slots; f16, bf16, f32,
                                         e4m3, e5m2, u8 or i8 */
    DLTensor *v_cache;                /* as k_cache; strides may differ */
    const DLTensor *append_key;       /* [nnz, num_kv_heads, head_dim], dtype of the cache */
    const DLTensor *append_value;     /* [nnz, num_kv_heads, head_dim], dtype of the cache */
    const DLTensor *batch_indices;    /* [nnz] i32: each token's request, below batch; below 0: the token is skipped */
    const DLTensor *positions;        /* [nnz] i32: its place in the request, >= 0 */
    const DLTensor *kv_indices;       /* [any] i32: ids of pages */
    const DLTensor *kv_indptr;        /* [batch + 1] i32, into kv_indices */
    const DLTensor *kv_last_page_len; /* optional: [batch] i32; not read, since positions say it all */
    int32_t kv_layout;                /* FLASHINFER_NHD, FLASHINFER_HND */
};
FLASHINFER_DECLARE_OP(append_paged_kv_cache);

/* The same for multi-head latent attention: one latent vector a token, and one rotated part of its keys. */
struct flashinfer_append_paged_mla_kv_cache {
    size_t size;
    DLTensor *ckv_cache;              /* [pages, page_size, ckv_dim] f16, bf16, f32, e4m3, e5m2, u8 or i8 */
    DLTensor *kpe_cache;              /* [pages, page_size, kpe_dim], dtype of ckv_cache, as all but the indices */
    const DLTensor *append_ckv;       /* [nnz, ckv_dim] */
    const DLTensor *append_kpe;       /* [nnz, kpe_dim] */
    const DLTensor *batch_indices;    /* [nnz] i32: each token's request, below batch; below 0: the token is skipped */
    const DLTensor *positions;        /* [nnz] i32: its place in the request, >= 0 */
    const DLTensor *kv_indices;       /* [any] i32: ids of pages */
    const DLTensor *kv_indptr;        /* [batch + 1] i32, into kv_indices */
    const DLTensor *kv_last_page_len; /* optional: [batch] i32; not read, since positions say it all */
};
FLASHINFER_DECLARE_OP(append_paged_mla_kv_cache);

/* append_paged_kv_cache that quantizes as nvfp4_kv_quantize does (flashinfer/quantization.h): blocks of 16 elements of a head as
 * e2m1 with an e4m3 scale each, and a scale of the whole tensor, which values are divided by. The same bits on CPUs and GPUs. */
struct flashinfer_nvfp4_quantize_append_paged_kv_cache {
    size_t size;
    DLTensor *k_cache;                /* NHD: [pages, page_size, num_kv_heads, head_dim / 2], HND: heads first; e2m1x2 or u8 */
    DLTensor *v_cache;                /* as k_cache; strides may differ */
    DLTensor *k_cache_sf;             /* scales: [..., head_dim / 16] e4m3 or u8, other axes as in k_cache */
    DLTensor *v_cache_sf;             /* as k_cache_sf */
    const DLTensor *append_key;       /* [nnz, num_kv_heads, head_dim] f16 or bf16; head_dim is a multiple of 16 */
    const DLTensor *append_value;     /* [nnz, num_kv_heads, head_dim], dtype of append_key */
    const DLTensor *batch_indices;    /* [nnz] i32: each token's request, below batch; below 0: the token is skipped */
    const DLTensor *positions;        /* [nnz] i32: its place in the request, >= 0 */
    const DLTensor *kv_indices;       /* [any] i32: ids of pages */
    const DLTensor *kv_indptr;        /* [batch + 1] i32, into kv_indices */
    const DLTensor *kv_last_page_len; /* optional: [batch] i32; not read, since positions say it all */
    flashinfer_number k_scale;        /* >= 1e-10, or f32 [1]; absent: 1 */
    flashinfer_number v_scale;        /* >= 1e-10, or f32 [1]; absent: 1 */
    int32_t kv_layout;                /* FLASHINFER_NHD, FLASHINFER_HND */
};
FLASHINFER_DECLARE_OP(nvfp4_quantize_append_paged_kv_cache);

/* The same for tokens whose slots are given: slot s is slot s % page_size of page s / page_size. Tokens whose slot the cache
 * lacks are skipped. */
struct flashinfer_nvfp4_quantize_append_paged_kv_cache_with_slot_mapping {
    size_t size;
    DLTensor *k_cache;            /* NHD: [pages, page_size, num_kv_heads, head_dim / 2], HND: heads first; e2m1x2 or u8 */
    DLTensor *v_cache;            /* as k_cache; strides may differ */
    DLTensor *k_cache_sf;         /* scales: [..., head_dim / 16] e4m3 or u8, other axes as in k_cache */
    DLTensor *v_cache_sf;         /* as k_cache_sf */
    const DLTensor *append_key;   /* [nnz, num_kv_heads, head_dim] f16 or bf16; head_dim is a multiple of 16 */
    const DLTensor *append_value; /* [nnz, num_kv_heads, head_dim], dtype of append_key */
    const DLTensor *slot_mapping; /* [nnz] i32 or i64; below 0, or no slot of the cache: the token is skipped */
    flashinfer_number k_scale;    /* >= 1e-10, or f32 [1]; absent: 1 */
    flashinfer_number v_scale;    /* >= 1e-10, or f32 [1]; absent: 1 */
    int32_t kv_layout;            /* FLASHINFER_NHD, FLASHINFER_HND */
};
FLASHINFER_DECLARE_OP(nvfp4_quantize_append_paged_kv_cache_with_slot_mapping);

/* For the new tokens of a batch, which are the last ones of each request: token t of request b, append_indptr[b] <= t <
 * append_indptr[b + 1], has batch index b and position t - append_indptr[b + 1] + seq_lens[b]. Entries that no request has get
 * batch index -1, which append_paged_kv_cache skips, and position 0. */
struct flashinfer_get_batch_indices_positions {
    size_t size;
    DLTensor *batch_indices;       /* [nnz] i32 */
    DLTensor *positions;           /* [nnz] i32 */
    const DLTensor *append_indptr; /* [batch + 1] i32, ascending: where each request's new tokens begin, and end */
    const DLTensor *seq_lens;      /* [batch] i32: length of each request, new tokens included */
    int64_t nnz;                   /* length of the outputs; may exceed the number of tokens, so that a graph can be replayed */
};
FLASHINFER_DECLARE_OP(get_batch_indices_positions);

/* Lengths of requests: (pages - 1) * page_size + kv_last_page_len, and 0 for a request without pages (upstream: its
 * kv_last_page_len). */
struct flashinfer_get_seq_lens {
    size_t size;
    DLTensor *seq_lens;               /* [batch] i32 */
    const DLTensor *kv_indptr;        /* [batch + 1] i32 */
    const DLTensor *kv_last_page_len; /* [batch] i32: tokens in each request's last page, 1 to page_size */
    int32_t page_size;                /* >= 1 */
};
FLASHINFER_DECLARE_OP(get_seq_lens);

/* Keys of multi-head latent attention for a prefill, no cache: k[:, h] = k_nope[:, h] and k_rope[:, 0] side by side. */
struct flashinfer_concat_mla_k {
    size_t size;
    DLTensor *k;            /* [nnz, num_heads, nope_dim + rope_dim], dtype of k_nope */
    const DLTensor *k_nope; /* [nnz, num_heads, nope_dim] f16, bf16, f32, e4m3, e5m2, u8 or i8; may be a view */
    const DLTensor *k_rope; /* [nnz, 1, rope_dim], dtype of k_nope */
};
FLASHINFER_DECLARE_OP(concat_mla_k);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_PAGE_H */
