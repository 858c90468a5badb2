/* SPDX-License-Identifier: Apache-2.0 */
/* What a part of attention on a CPU works on.
 *
 *   T        f16, bf16: what is multiplied
 *   HEAD_DIM, HEAD_DIM_VO multiples of 16, up to 256 or 512
 *   Q, KV   dtypes of queries, of keys and values
 *   O        T, or f32: out is what attention_modes.out says
 *   CONVERTS 1: Q or KV is not T, or elements change on their way; 0: they are multiplied as they are
 *   MASK     ATTENTION_MASK_: what hides logits beside the rows' ranges
 *   POS      ATTENTION_POS_ */
#ifndef ATTENTION_STATE_CPU_H
#define ATTENTION_STATE_CPU_H

#include <stdbool.h>

#include "attention_args.h"
#include "tiles.h"

#define HOOK INLINE
#include "attention_hooks.h"

/* The launch argument. */
struct prefill {
    struct attention_args a;
#if HAS_HOOKS
    struct variant v;
#endif
};

#if HAS_HOOKS
#define VARIANT_OF(a) (((const struct prefill *)(a))->v)
#else
#define VARIANT_OF(a) ((struct variant){0})
#endif

enum {
    UNIT = DOT_UNIT(T),
    IN_TILES = DOT_TILES(T),
    ROWS = ATTENTION_CPU_ROWS,
    LAZY = 8, /* weights are at most 2^LAZY */
    TILE = 4 * LANES,
    LINE = 64 / sizeof(T), /* elements of a cache line */
    KEY_UNITS = (HEAD_DIM / UNIT + LANES - 1) / LANES * LANES, /* of a row of queries or keys, with zeros at its end */
    COLUMNS = (HEAD_DIM_VO + TILE - 1) / TILE * TILE,          /* of values, the last of no meaning */
    TOKEN_UNITS = TILE / UNIT,                                 /* of a row of weights */
    CHANGES_LOGITS = MASK != ATTENTION_MASK_NONE || POS == ATTENTION_POS_ALIBI || CONVERTS || HAS_HOOKS,
#ifdef __AVX512F__
    ROWS_AT_ONCE = 6 /* 24 sums, 4 factors and one more in 32 registers */
#else
    ROWS_AT_ONCE = 1
#endif
};

/* Up to ROWS rows of one request: the packed rows from `row` on of some KV heads. */
struct task {
    int request, kv_head, kv_heads; /* the first KV head, and how many */
    int64_t first_q;                /* the request's first query token */
    int64_t qo_len, kv_len;
    int64_t row, rows;              /* rows of each KV head: the first one and their number */
};

struct state {
    uint32_t q[ROWS][KEY_UNITS], keys[KEY_UNITS][TILE], values[TOKEN_UNITS][COLUMNS], weights[ROWS][TOKEN_UNITS];
    float logits[ROWS][TILE], o[ROWS][COLUMNS];
    float top[ROWS];                          /* at most LAZY below the row's largest logit in base 2 */
    float sum[ROWS][LANES];                   /* of exp2(logit - top) */
    int64_t begin[ROWS], end[ROWS];           /* tokens that the row sees */
    const KV *key[2 * TILE], *value[2 * TILE]; /* of the tile's tokens and the next tile's, first KV head */
    float factor, cap;                        /* logit = cap * tanh(factor * q . k), or factor * q . k if cap is 0 */
#if CONVERTS
    T converted[TILE][HEAD_DIM > HEAD_DIM_VO ? HEAD_DIM : HEAD_DIM_VO]; /* keys, then values, of the tile */
#endif
#if POS == 1 /* RoPE */
    double turns[HEAD_DIM / 2]; /* of a pair from one token to the next */
#endif
};

/* What hooks are told. */
static inline struct at place_of(const struct attention_args *a, const struct task *t, int64_t token, int64_t key, int64_t head,
                                 int element)
{
    return (struct at){t->request,   (int)t->qo_len,          (int)t->kv_len, (int)token,
                       (int)key,     (int)head,               (int)(head / a->group), element, (int)(t->first_q + token)};
}

/* Where a request's query tokens start; its place in kv_indices, or if ragged its first slot. */
static inline int64_t first_query(const struct attention_args *a, int request)
{
    return a->qo_indptr ? a->qo_indptr[request] : (int64_t)request * a->qo_len;
}

static inline int64_t first_page(const struct attention_args *a, int request)
{
    return a->kv_indptr ? a->kv_indptr[request] : (int64_t)request * a->kv_len;
}

static inline int64_t kv_length(const struct attention_args *a, int request)
{
    int64_t pages = first_page(a, request + 1) - first_page(a, request);
    if (!a->kv_last_page_len)
        return pages;
    return pages > 0 ? (pages - 1) * a->page_size + a->kv_last_page_len[request] : 0;
}

/* The query token, counted from the request's first, and the head of a row of the state. */
static inline int64_t token_of(const struct attention_args *a, const struct task *t, int r)
{
    return (t->row + r % t->rows) / a->group;
}

static inline int64_t head_of(const struct attention_args *a, const struct task *t, int r)
{
    return (t->kv_head + r / t->rows) * a->group + (t->row + r % t->rows) % a->group;
}

#endif
