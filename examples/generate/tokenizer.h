/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back: byte-level BPE as GPT-2 defined it, with the vocabulary and merges of a GGUF
 * file and its pre-tokenizer "smollm": each digit is a word of its own, the text between digits is split by
 * GPT-2's pattern. Ids equal llama.cpp's, also on text that is not UTF-8, where each offending byte counts
 * as U+FFFD.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "gguf.h"

struct tokenizer;

/* NULL on failure, with one sentence in `error`. The result does not refer to `file`. */
struct tokenizer *tokenizer_create(const struct gguf *file, char *error, size_t error_size);
void tokenizer_destroy(struct tokenizer *tokenizer);

/*
 * Allocates `*ids`, which the caller frees. With `parse_special` the text of a control token (<|im_start|>)
 * becomes that token. Nothing is put before or after the text. False if memory runs out or the text exceeds
 * 64 MiB.
 */
bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, bool parse_special,
                      int32_t **ids, size_t *count);

/* The bytes of a token, possibly a part of a character; none for an id outside the vocabulary. */
struct gguf_string tokenizer_piece(const struct tokenizer *tokenizer, int32_t id);

int32_t tokenizer_vocabulary_size(const struct tokenizer *tokenizer);
/* -1 if the file names none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
/* Whether a reply ends with this token: the file's eos or eot token, <|im_end|> or <|endoftext|>. */
bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id);

/*
 * A conversation of one user message, ready for the assistant's reply, in the ChatML form of
 * SmolLM2-Instruct; to be encoded with `parse_special`. A NULL `system` means the one that the file's chat
 * template states, if any. The caller frees the result; NULL if memory runs out.
 */
char *tokenizer_chat_prompt(const struct tokenizer *tokenizer, const char *system, const char *user);

#endif
