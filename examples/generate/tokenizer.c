/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the vocabulary, the merges and the chat template of a GGUF file, and answers questions about tokens.
 * GGUF writes the bytes of a token as printable characters: a printable Latin-1 byte as itself, the other 68
 * bytes as the characters from U+0100 on, in order.
 */
#include "tokenizer_internal.h"
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTE_CHARACTERS = 0x144 };        /* the characters that stand for bytes lie below this one */

struct loader {
    const struct gguf *file;
    struct tokenizer *tokenizer;
    struct gguf_string *texts;           /* tokens as the file writes them */
    struct gguf_string *merges;
    int32_t *types;                      /* NULL if the file has none */
    int32_t *slots;                      /* hash table from text to id, linear probing, NO_TOKEN if empty */
    size_t slot_mask;
    size_t text_count, merge_count, type_count;
    char *error;
    size_t error_size;
};

static bool refuse(const struct loader *loader, const char *problem)
{
    snprintf(loader->error, loader->error_size, "%s: %s", gguf_name(loader->file), problem);
    return false;
}

static bool refuse_memory(const struct loader *loader)
{
    return refuse(loader, "out of memory for the tokenizer");
}

static bool equal(struct gguf_string string, const char *text)
{
    return string.length == strlen(text) && memcmp(string.data, text, string.length) == 0;
}

static uint64_t hash_bytes(uint64_t hash, struct gguf_string string)
{
    for (size_t i = 0; i < string.length; i++) {
        hash = (hash ^ (unsigned char)string.data[i]) * 0x100000001b3u;
    }
    return hash;
}

/* The slot of the token whose text is `head` followed by `tail`, or the empty slot where it belongs. */
static int32_t *find_slot(const struct loader *loader, struct gguf_string head, struct gguf_string tail)
{
    uint64_t hash = hash_bytes(hash_bytes(0xcbf29ce484222325u, head), tail);
    size_t slot = (size_t)(hash ^ hash >> 32) & loader->slot_mask;
    for (; loader->slots[slot] != NO_TOKEN; slot = (slot + 1) & loader->slot_mask) {
        struct gguf_string text = loader->texts[loader->slots[slot]];
        if (text.length == head.length + tail.length && memcmp(text.data, head.data, head.length) == 0 &&
            memcmp(text.data + head.length, tail.data, tail.length) == 0) {
            break;
        }
    }
    return &loader->slots[slot];
}

static int32_t find_text(const struct loader *loader, const char *text)
{
    return *find_slot(loader, (struct gguf_string){text, strlen(text)}, (struct gguf_string){text, 0});
}

/* At least twice `count`, so that a hash table of this size is at most half full. */
static size_t table_size(size_t count)
{
    size_t size = 2;
    while (size < 2 * count) {
        size *= 2;
    }
    return size;
}

static bool load_texts(struct loader *loader)
{
    const struct gguf *file = loader->file;
    struct gguf_string model, pre;
    if (!gguf_get_string(file, "tokenizer.ggml.model", &model) || !equal(model, "gpt2") ||
        !gguf_get_string(file, "tokenizer.ggml.pre", &pre) || !equal(pre, "smollm")) {
        return refuse(loader, "only the tokenizer 'gpt2' with the pre-tokenizer 'smollm' is served, and this "
                      "file has another or none (tokenizer.ggml.model, tokenizer.ggml.pre)");
    }
    if (!gguf_copy_strings(file, "tokenizer.ggml.tokens", &loader->texts, &loader->text_count) ||
        !gguf_copy_strings(file, "tokenizer.ggml.merges", &loader->merges, &loader->merge_count)) {
        return refuse(loader, "its metadata lacks 'tokenizer.ggml.tokens' or 'tokenizer.ggml.merges', which "
                      "must be arrays of strings");
    }
    size_t limit = INT32_MAX / 4;
    if (loader->text_count == 0 || loader->text_count > limit || loader->merge_count > limit) {
        return refuse(loader, "its vocabulary is empty or has more entries than 32-bit ids can count");
    }
    bool typed = gguf_copy_i32(file, "tokenizer.ggml.token_type", &loader->types, &loader->type_count);
    if (typed && loader->type_count != loader->text_count) {
        return refuse(loader, "'tokenizer.ggml.token_type' and 'tokenizer.ggml.tokens' differ in length");
    }
    size_t slots = table_size(loader->text_count);
    loader->slot_mask = slots - 1;
    loader->slots = malloc(slots * sizeof *loader->slots);
    if (!loader->slots) {
        return refuse_memory(loader);
    }
    for (size_t i = 0; i < slots; i++) {
        loader->slots[i] = NO_TOKEN;
    }
    for (size_t i = 0; i < loader->text_count; i++) {
        struct gguf_string nothing = {loader->texts[i].data, 0};
        *find_slot(loader, loader->texts[i], nothing) = (int32_t)i;
    }
    return true;
}

/* For each character below BYTE_CHARACTERS the byte that it stands for, or -1. */
static void map_characters(int16_t byte_of[BYTE_CHARACTERS])
{
    for (int i = 0; i < BYTE_CHARACTERS; i++) {
        byte_of[i] = -1;
    }
    int next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        byte_of[printable ? byte : next] = (int16_t)byte;
        next += !printable;
    }
}

static enum token_type type_of(const struct loader *loader, size_t id)
{
    return loader->types ? (enum token_type)loader->types[id] : TOKEN_NORMAL;
}

static bool is_special(enum token_type type)
{
    return type == TOKEN_CONTROL || type == TOKEN_UNKNOWN || type == TOKEN_USER_DEFINED;
}

/* Writes the bytes that a token stands for; never more than its text has. */
static size_t decode_text(const int16_t *byte_of, struct gguf_string text, char *out)
{
    size_t written = 0;
    for (size_t at = 0; at < text.length;) {
        uint32_t character;
        int length = utf8_decode(text.data + at, text.length - at, &character);
        if (length > 0 && character < BYTE_CHARACTERS && byte_of[character] >= 0) {
            out[written++] = (char)byte_of[character];
        } else {
            length = length > 0 ? length : 1;
            memcpy(out + written, text.data + at, (size_t)length);
            written += (size_t)length;
        }
        at += (size_t)length;
    }
    return written;
}

static bool load_pieces(struct loader *loader)
{
    struct tokenizer *tokenizer = loader->tokenizer;
    size_t bytes = 0;
    for (size_t i = 0; i < loader->text_count; i++) {
        bytes += loader->texts[i].length;
    }
    tokenizer->vocabulary_size = (int32_t)loader->text_count;
    tokenizer->pieces = calloc(loader->text_count, sizeof *tokenizer->pieces);
    tokenizer->piece_bytes = malloc(bytes + 1);
    if (!tokenizer->pieces || !tokenizer->piece_bytes) {
        return refuse_memory(loader);
    }
    int16_t byte_of[BYTE_CHARACTERS];
    map_characters(byte_of);
    char *out = tokenizer->piece_bytes;
    for (size_t i = 0; i < loader->text_count; i++) {
        struct gguf_string text = loader->texts[i], *piece = &tokenizer->pieces[i];
        piece->data = out;
        if (is_special(type_of(loader, i))) {
            memcpy(out, text.data, text.length);
            piece->length = text.length;
        } else {
            piece->length = decode_text(byte_of, text, out);
        }
        out += piece->length;
    }
    for (uint32_t character = 0; character < BYTE_CHARACTERS; character++) {
        char text[4];
        struct gguf_string string = {text, utf8_encode(character, text)}, nothing = {text, 0};
        if (byte_of[character] >= 0) {
            tokenizer->byte_token[byte_of[character]] = *find_slot(loader, string, nothing);
        }
    }
    return true;
}

static bool load_merge(struct loader *loader, size_t rank)
{
    struct tokenizer *tokenizer = loader->tokenizer;
    struct gguf_string text = loader->merges[rank];
    const char *space = text.length > 1 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
    struct gguf_string left = {text.data, space ? (size_t)(space - text.data) : 0};
    struct gguf_string right = {space ? space + 1 : text.data, space ? text.length - left.length - 1 : 0};
    struct gguf_string nothing = {text.data, 0};
    struct merge merge = {*find_slot(loader, left, nothing), *find_slot(loader, right, nothing),
                          *find_slot(loader, left, right), (int32_t)rank};
    if (!space || merge.left == NO_TOKEN || merge.right == NO_TOKEN || merge.merged == NO_TOKEN) {
        char problem[120];
        snprintf(problem, sizeof problem, "entry %zu of 'tokenizer.ggml.merges' is not a pair of tokens that "
                 "form a token", rank);
        return refuse(loader, problem);
    }
    size_t slot = tokenizer_merge_slot(tokenizer, merge.left, merge.right);
    while (tokenizer->merges[slot].left != NO_TOKEN) {
        const struct merge *other = &tokenizer->merges[slot];
        if (other->left == merge.left && other->right == merge.right) {
            return true;
        }
        slot = (slot + 1) & tokenizer->merge_mask;
    }
    tokenizer->merges[slot] = merge;
    return true;
}

static bool load_merges(struct loader *loader)
{
    struct tokenizer *tokenizer = loader->tokenizer;
    size_t slots = table_size(loader->merge_count);
    tokenizer->merge_mask = slots - 1;
    tokenizer->merges = malloc(slots * sizeof *tokenizer->merges);
    if (!tokenizer->merges) {
        return refuse_memory(loader);
    }
    for (size_t i = 0; i < slots; i++) {
        tokenizer->merges[i].left = NO_TOKEN;
    }
    for (size_t rank = 0; rank < loader->merge_count; rank++) {
        if (!load_merge(loader, rank)) {
            return false;
        }
    }
    return true;
}

static int by_falling_length(const void *a, const void *b, void *context)
{
    const struct special_token *left = a, *right = b;
    const struct gguf_string *pieces = context;
    size_t left_length = pieces[left->id].length, right_length = pieces[right->id].length;
    if (left_length != right_length) {
        return left_length < right_length ? 1 : -1;
    }
    return left->id < right->id ? -1 : left->id > right->id;
}

static int32_t load_id(const struct loader *loader, const char *key)
{
    int32_t id;
    bool valid = gguf_get_i32(loader->file, key, &id) && id >= 0 && (size_t)id < loader->text_count;
    return valid ? id : NO_TOKEN;
}

static bool load_special(struct loader *loader)
{
    struct tokenizer *tokenizer = loader->tokenizer;
    tokenizer->special = calloc(loader->text_count, sizeof *tokenizer->special);
    if (!tokenizer->special) {
        return refuse_memory(loader);
    }
    for (size_t i = 0; i < loader->text_count; i++) {
        enum token_type type = type_of(loader, i);
        if (is_special(type) && tokenizer->pieces[i].length > 0) {
            struct special_token special = {(int32_t)i, type == TOKEN_USER_DEFINED};
            tokenizer->special[tokenizer->special_count++] = special;
        }
    }
    qsort_r(tokenizer->special, tokenizer->special_count, sizeof *tokenizer->special, by_falling_length,
            tokenizer->pieces);
    tokenizer->bos = load_id(loader, "tokenizer.ggml.bos_token_id");
    tokenizer->eos = load_id(loader, "tokenizer.ggml.eos_token_id");
    tokenizer->eot = load_id(loader, "tokenizer.ggml.eot_token_id");
    tokenizer->im_end = find_text(loader, "<|im_end|>");
    tokenizer->endoftext = find_text(loader, "<|endoftext|>");
    return true;
}

/* A template that has a system message of its own writes it between these, as plain text. */
static bool load_default_system(struct loader *loader)
{
    static const char begin[] = "<|im_start|>system\n", end[] = "<|im_end|>";
    struct gguf_string template;
    if (!gguf_get_string(loader->file, "tokenizer.chat_template", &template)) {
        return true;
    }
    const char *template_end = template.data + template.length;
    const char *from = memmem(template.data, template.length, begin, sizeof begin - 1);
    from = from ? from + sizeof begin - 1 : template_end;
    const char *to = memmem(from, (size_t)(template_end - from), end, sizeof end - 1);
    bool plain = to && !memchr(from, '\'', (size_t)(to - from)) && !memchr(from, '{', (size_t)(to - from));
    if (!plain) {
        return true;
    }
    loader->tokenizer->default_system = strndup(from, (size_t)(to - from));
    return loader->tokenizer->default_system || refuse_memory(loader);
}

struct tokenizer *tokenizer_create(const struct gguf *file, char *error, size_t error_size)
{
    struct loader loader = {.file = file, .error = error, .error_size = error_size};
    loader.tokenizer = calloc(1, sizeof *loader.tokenizer);
    bool ok = loader.tokenizer ? load_texts(&loader) && load_pieces(&loader) && load_merges(&loader) &&
                                     load_special(&loader) && load_default_system(&loader)
                               : refuse_memory(&loader);
    free(loader.texts);
    free(loader.merges);
    free(loader.types);
    free(loader.slots);
    if (!ok) {
        tokenizer_destroy(loader.tokenizer);
        return NULL;
    }
    return loader.tokenizer;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (!tokenizer) {
        return;
    }
    free(tokenizer->pieces);
    free(tokenizer->piece_bytes);
    free(tokenizer->merges);
    free(tokenizer->special);
    free(tokenizer->default_system);
    free(tokenizer);
}

struct gguf_string tokenizer_piece(const struct tokenizer *tokenizer, int32_t id)
{
    bool known = id >= 0 && id < tokenizer->vocabulary_size;
    return known ? tokenizer->pieces[id] : (struct gguf_string){tokenizer->piece_bytes, 0};
}

int32_t tokenizer_vocabulary_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary_size;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos;
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (id == tokenizer->eos || id == tokenizer->eot || id == tokenizer->im_end ||
                       id == tokenizer->endoftext);
}

char *tokenizer_chat_prompt(const struct tokenizer *tokenizer, const char *system, const char *user)
{
    const char *text = system ? system : tokenizer->default_system;
    char *prompt;
    const char *before = text ? "<|im_start|>system\n" : "", *after = text ? "<|im_end|>\n" : "";
    int length = asprintf(&prompt, "%s%s%s<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", before,
                          text ? text : "", after, user);
    return length < 0 ? NULL : prompt;
}
