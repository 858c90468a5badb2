/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids in three steps: control tokens are cut out of the text, the rest is split into words,
 * and in each word the neighbouring pair with the lowest rank is merged until no pair of the vocabulary is
 * left. A heap of candidate pairs keeps the last step at n log n for a word of n bytes.
 */
#include "tokenizer_internal.h"
#include "unicode_ranges.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 64 << 20 };

struct symbol {
    int32_t id;                          /* NO_TOKEN if merged into its left neighbour, or no token at all */
    int32_t previous, next;              /* -1 at the ends of the word */
};

struct candidate {
    int32_t rank, merged;
    int32_t left, right;                 /* symbols */
    int32_t left_id, right_id;           /* what they were; if they are no longer, the candidate is stale */
};

struct encoder {
    const struct tokenizer *tokenizer;
    int32_t *ids;
    size_t count, capacity;
    struct symbol *symbols;
    struct candidate *heap;
    size_t heap_count;
    size_t word_capacity;                /* room in `symbols`; `heap` has three times as much */
};

static bool add_id(struct encoder *encoder, int32_t id)
{
    if (encoder->count == encoder->capacity) {
        size_t capacity = 2 * encoder->capacity + 64;
        int32_t *ids = realloc(encoder->ids, capacity * sizeof *ids);
        if (!ids) {
            return false;
        }
        encoder->ids = ids;
        encoder->capacity = capacity;
    }
    encoder->ids[encoder->count++] = id;
    return true;
}

static const struct merge *find_merge(const struct tokenizer *tokenizer, int32_t left, int32_t right)
{
    size_t slot = tokenizer_merge_slot(tokenizer, left, right);
    for (;; slot = (slot + 1) & tokenizer->merge_mask) {
        const struct merge *merge = &tokenizer->merges[slot];
        if (merge->left == left && merge->right == right) {
            return merge;
        }
        if (merge->left == NO_TOKEN) {
            return NULL;
        }
    }
}

static bool comes_before(const struct candidate *a, const struct candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push_candidate(struct encoder *encoder, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return;
    }
    int32_t left_id = encoder->symbols[left].id, right_id = encoder->symbols[right].id;
    const struct merge *merge = NULL;
    if (left_id != NO_TOKEN && right_id != NO_TOKEN) {
        merge = find_merge(encoder->tokenizer, left_id, right_id);
    }
    if (!merge) {
        return;
    }
    struct candidate candidate = {merge->rank, merge->merged, left, right, left_id, right_id};
    struct candidate *heap = encoder->heap;
    size_t at = encoder->heap_count++;
    for (; at > 0 && comes_before(&candidate, &heap[(at - 1) / 2]); at = (at - 1) / 2) {
        heap[at] = heap[(at - 1) / 2];
    }
    heap[at] = candidate;
}

static struct candidate pop_candidate(struct encoder *encoder)
{
    struct candidate *heap = encoder->heap, first = heap[0], last = heap[--encoder->heap_count];
    size_t at = 0;
    for (size_t child = 1; child < encoder->heap_count; child = 2 * at + 1) {
        if (child + 1 < encoder->heap_count && comes_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!comes_before(&heap[child], &last)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

static void merge_symbols(struct encoder *encoder, int32_t count)
{
    struct symbol *symbols = encoder->symbols;
    encoder->heap_count = 0;
    for (int32_t i = 1; i < count; i++) {
        push_candidate(encoder, i - 1, i);
    }
    while (encoder->heap_count > 0) {
        struct candidate best = pop_candidate(encoder);
        struct symbol *left = &symbols[best.left], *right = &symbols[best.right];
        if (left->id != best.left_id || right->id != best.right_id) {
            continue;
        }
        left->id = best.merged;
        left->next = right->next;
        right->id = NO_TOKEN;
        if (left->next >= 0) {
            symbols[left->next].previous = best.left;
        }
        push_candidate(encoder, left->previous, best.left);
        push_candidate(encoder, best.left, left->next);
    }
}

/* Room for a word of `count` symbols. A merge removes one symbol and adds at most two candidates. */
static bool reserve_word(struct encoder *encoder, size_t count)
{
    if (count <= encoder->word_capacity) {
        return true;
    }
    size_t capacity = count > 256 ? count : 256;
    struct symbol *symbols = realloc(encoder->symbols, capacity * sizeof *symbols);
    if (symbols) {
        encoder->symbols = symbols;
    }
    struct candidate *heap = realloc(encoder->heap, 3 * capacity * sizeof *heap);
    if (heap) {
        encoder->heap = heap;
    }
    if (!symbols || !heap) {
        return false;
    }
    encoder->word_capacity = capacity;
    return true;
}

static bool encode_word(struct encoder *encoder, const uint32_t *code_points, size_t length)
{
    char bytes[4];
    size_t word_bytes = 0;
    for (size_t i = 0; i < length; i++) {
        word_bytes += utf8_encode(code_points[i], bytes);
    }
    if (!reserve_word(encoder, word_bytes)) {
        return false;
    }
    int32_t count = 0;
    for (size_t i = 0; i < length; i++) {
        size_t size = utf8_encode(code_points[i], bytes);
        for (size_t j = 0; j < size; j++, count++) {
            int32_t id = encoder->tokenizer->byte_token[(unsigned char)bytes[j]];
            encoder->symbols[count] = (struct symbol){id, count - 1, count + 1};
        }
    }
    encoder->symbols[count - 1].next = -1;
    merge_symbols(encoder, count);
    for (int32_t i = 0; i < count; i++) {
        if (encoder->symbols[i].id != NO_TOKEN && !add_id(encoder, encoder->symbols[i].id)) {
            return false;
        }
    }
    return true;
}

/* Between words, a digit counts as the end of the text does, and the other way round. */
static enum unicode_class class_at(const uint32_t *text, size_t position, size_t end)
{
    return position < end ? unicode_class_of(text[position]) : UNICODE_NUMBER;
}

/* The length of 's, 't, 'm, 'd, 're, 've or 'll at `start`, else 0. */
static size_t contraction_length(const uint32_t *text, size_t start, size_t end)
{
    if (text[start] != '\'' || end - start < 2) {
        return 0;
    }
    uint32_t first = text[start + 1], second = end - start > 2 ? text[start + 2] : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return 2;
    }
    bool long_form = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                     (first == 'l' && second == 'l');
    return long_form ? 3 : 0;
}

/* Where the word that begins at `start` ends. */
static size_t word_end(const uint32_t *text, size_t start, size_t end)
{
    if (class_at(text, start, end) == UNICODE_NUMBER) {
        return start + 1;
    }
    size_t contraction = contraction_length(text, start, end);
    if (contraction > 0) {
        return start + contraction;
    }
    size_t position = start + (text[start] == ' ');
    enum unicode_class class = class_at(text, position, end);
    if (class == UNICODE_LETTER || class == UNICODE_OTHER) {
        while (class_at(text, position, end) == class) {
            position++;
        }
        return position;
    }
    position = start;
    while (class_at(text, position, end) == UNICODE_SPACE) {
        position++;
    }
    /* The last space of several stays with the word that follows it. */
    bool word_follows = class_at(text, position, end) != UNICODE_NUMBER;
    return position - (word_follows && position - start > 1);
}

/* `code_points` is room for as many as `text` has bytes. */
static bool encode_fragment(struct encoder *encoder, uint32_t *code_points, const char *text, size_t length)
{
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        int decoded = utf8_decode(text + at, length - at, &code_points[count]);
        if (decoded <= 0) {
            code_points[count] = UTF8_REPLACEMENT;
        }
        at += decoded > 0 ? (size_t)decoded : 1;
        count++;
    }
    for (size_t start = 0; start < count;) {
        size_t end = word_end(code_points, start, count);
        if (!encode_word(encoder, code_points + start, end - start)) {
            return false;
        }
        start = end;
    }
    return true;
}

enum { COVERED = -2 };                   /* a byte of a special token, but not its first */

/*
 * Writes each special token's id at its first byte in `owner`, COVERED at its other bytes, NO_TOKEN
 * elsewhere. Longer tokens go first, and each takes what those before it left.
 */
static void find_special(const struct tokenizer *tokenizer, const char *text, size_t length,
                         bool parse_special, int32_t *owner)
{
    for (size_t i = 0; i < length; i++) {
        owner[i] = NO_TOKEN;
    }
    for (size_t i = 0; i < tokenizer->special_count; i++) {
        const struct special_token *special = &tokenizer->special[i];
        if (!parse_special && !special->user_defined) {
            continue;
        }
        struct gguf_string piece = tokenizer->pieces[special->id];
        const char *at = text;
        while ((at = memmem(at, (size_t)(text + length - at), piece.data, piece.length))) {
            int32_t *found = owner + (at - text);
            size_t free_bytes = 0;
            while (free_bytes < piece.length && found[free_bytes] == NO_TOKEN) {
                free_bytes++;
            }
            if (free_bytes < piece.length) {
                at++;
                continue;
            }
            for (size_t j = 0; j < piece.length; j++) {
                found[j] = j ? COVERED : special->id;
            }
            at += piece.length;
        }
    }
}

static bool encode_text(struct encoder *encoder, const char *text, size_t length, const int32_t *owner,
                        uint32_t *code_points)
{
    for (size_t start = 0; start < length;) {
        if (owner[start] >= 0) {
            if (!add_id(encoder, owner[start])) {
                return false;
            }
            start += encoder->tokenizer->pieces[owner[start]].length;
            continue;
        }
        size_t end = start;
        while (end < length && owner[end] == NO_TOKEN) {
            end++;
        }
        if (!encode_fragment(encoder, code_points, text + start, end - start)) {
            return false;
        }
        start = end;
    }
    return true;
}

bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, bool parse_special,
                      int32_t **ids, size_t *count)
{
    if (length > MAX_TEXT_BYTES) {
        return false;
    }
    struct encoder encoder = {.tokenizer = tokenizer};
    int32_t *owner = calloc(length + 1, sizeof *owner);
    uint32_t *code_points = calloc(length + 1, sizeof *code_points);
    encoder.ids = calloc(1, sizeof *encoder.ids);
    bool ok = owner && code_points && encoder.ids;
    if (ok) {
        find_special(tokenizer, text, length, parse_special, owner);
        ok = encode_text(&encoder, text, length, owner, code_points);
    }
    free(owner);
    free(code_points);
    free(encoder.symbols);
    free(encoder.heap);
    if (!ok) {
        free(encoder.ids);
        return false;
    }
    *ids = encoder.ids;
    *count = encoder.count;
    return true;
}
