/* SPDX-License-Identifier: Apache-2.0 */
/* What a tensor is, as words: device, ndim and dtype, sizes, and strides if it has them; not where it lies. */
#ifndef OP_WORDS_H
#define OP_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/tensor.h"

enum { MAX_TENSOR_WORDS = 2 + 2 * TENSOR_MAX_DIMS };

static inline uint64_t load_word(const void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Two words at a time. */
typedef uint64_t word_pair __attribute__((vector_size(2 * sizeof(uint64_t))));

static inline word_pair load_pair(const void *at)
{
    word_pair x;
    memcpy(&x, at, sizeof x);
    return x;
}

/* A hash of words, one after another. */
static inline uint64_t hash_word(uint64_t hash, uint64_t word) { return (hash << 9 | hash >> 55) ^ word; }

static inline bool is_describable(const DLTensor *t) { return (uint32_t)t->ndim - 1 < TENSOR_MAX_DIMS && t->shape; }

static inline uintptr_t tensor_low(const DLTensor *t) { return (uintptr_t)tensor_data(t); }

/* Writes the words of a tensor that is describable, and returns past the last. */
static inline uint64_t *describe_tensor(uint64_t *word, const DLTensor *t)
{
    const size_t bytes = (size_t)t->ndim * sizeof *word;
    _Static_assert(offsetof(DLTensor, shape) - offsetof(DLTensor, device) == 2 * sizeof *word, "device, ndim and dtype");
    memcpy(word, &t->device, 2 * sizeof *word);
    memcpy(word += 2, t->shape, bytes);
    word += t->ndim;
    if (!t->strides)
        return word;
    memcpy(word, t->strides, bytes);
    return word + t->ndim;
}

/* What two tensors differ in so far; 0: in nothing. */
struct difference {
    uint64_t word;
    word_pair pair;
};

static inline bool is_different(const struct difference *d) { return d->word | d->pair[0] | d->pair[1]; }

/* Two words may be looked at twice. */
static inline void compare_words(const int64_t *a, const uint64_t *b, int n, struct difference *d)
{
    if (n == 1) {
        d->word |= (uint64_t)*a ^ *b;
        return;
    }
    d->pair |= (load_pair(a) ^ load_pair(b)) | (load_pair(a + n - 2) ^ load_pair(b + n - 2));
    if (n > 4)
        d->pair |= (load_pair(a + 2) ^ load_pair(b + 2)) | (load_pair(a + n - 4) ^ load_pair(b + n - 4));
}

/* False, at once, if a tensor cannot have these words; else steps over them. strided: whether they tell strides, as the tensor
 * has some or not. */
static inline bool compare_tensor(const DLTensor *t, bool strided, const uint64_t **word, struct difference *d)
{
    const uint64_t *at = *word;
    if (load_word(&t->ndim) != at[1] || !t->shape)
        return false;
    const int n = t->ndim;
    d->word |= load_word(&t->device) ^ at[0];
    compare_words(t->shape, at += 2, n, d);
    at += n;
    if (strided) {
        compare_words(t->strides, at, n, d);
        at += n;
    }
    *word = at;
    return true;
}

#endif
