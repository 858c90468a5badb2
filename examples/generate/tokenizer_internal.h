/* SPDX-License-Identifier: Apache-2.0 */
/* What loading a vocabulary (tokenizer.c) and encoding text (tokenizer_encode.c) share. */
#ifndef TOKENIZER_INTERNAL_H
#define TOKENIZER_INTERNAL_H

#include "tokenizer.h"

#define NO_TOKEN (-1)

/* Token types by their number in the file. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
};

struct merge {
    int32_t left, right;                 /* left is NO_TOKEN in an empty slot */
    int32_t merged;
    int32_t rank;
};

struct special_token {
    int32_t id;
    bool user_defined;                   /* found in text even without parse_special */
};

struct tokenizer {
    struct gguf_string *pieces;          /* bytes of each token, in `piece_bytes` */
    char *piece_bytes;
    int32_t vocabulary_size;
    int32_t byte_token[256];             /* NO_TOKEN for a byte that the vocabulary lacks */
    struct merge *merges;                /* hash table with linear probing */
    size_t merge_mask;                   /* number of slots, a power of two, less one */
    struct special_token *special;       /* longest first */
    size_t special_count;
    int32_t bos, eos, eot, im_end, endoftext;
    char *default_system;                /* NULL if the chat template states none */
};

static inline size_t tokenizer_merge_slot(const struct tokenizer *tokenizer, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & tokenizer->merge_mask;
}

#endif
