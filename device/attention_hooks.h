/* SPDX-License-Identifier: Apache-2.0 */
/* Where a variant's hooks come in: one text for both targets. A hook that the variant does not have changes nothing. HOOK is
 * defined before this file is taken in. */
#ifndef ATTENTION_HOOKS_H
#define ATTENTION_HOOKS_H

#include "integers.h"

/* What a hook runs for; what does not apply is 0. See flashinfer/variant.h. */
struct at {
    int request, qo_len, kv_len;
    int q, kv;            /* tokens, counted from the request's first */
    int qo_head, kv_head; /* qo_head: of key, the first that reads the KV head */
    int element;          /* of query, key and output: in the head */
    int row;              /* q's, in the tensors q and out */
};

#include "variant.h"

#ifdef HOOK_QUERY
#define hook_query(v, x, at) query(v, x, at)
#else
#define hook_query(v, x, at) (x)
#endif

#ifdef HOOK_KEY
#define hook_key(v, x, at) key(v, x, at)
#else
#define hook_key(v, x, at) (x)
#endif

#ifdef HOOK_LOGITS
enum { HAS_LOGITS = 1 };
#define hook_logits(v, x, at) logits(v, x, at)
#else
enum { HAS_LOGITS = 0 };
#define hook_logits(v, x, at) (x)
#endif

#ifdef HOOK_MASK
enum { HAS_MASK = 1 };
#define hook_mask(v, at) (mask(v, at) != 0)
#else
enum { HAS_MASK = 0 };
#define hook_mask(v, at) 1
#endif

#ifdef HOOK_OUTPUT
enum { HAS_OUTPUT = 1 };
#define hook_output(v, x, at) output(v, x, at)
#else
enum { HAS_OUTPUT = 0 };
#define hook_output(v, x, at) (x)
#endif

#if defined HOOK_QUERY || defined HOOK_KEY || defined HOOK_LOGITS || defined HOOK_MASK || defined HOOK_OUTPUT
#define HAS_HOOKS 1
#else
#define HAS_HOOKS 0
#endif

/* What hook logits returns: a logit, or without softmax a weight. */
#ifdef HOOK_NO_SOFTMAX
enum { WITHOUT_SOFTMAX = 1 };
#else
enum { WITHOUT_SOFTMAX = 0 };
#endif

#endif
