/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8: code points to bytes and back, and a stream that lets only whole characters through. */
#ifndef UTF8_H
#define UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xfffdu         /* stands for a byte that is not UTF-8 */

/*
 * Decodes the character at the start of `bytes` and returns its length, 1 to 4. Returns 0 if the bytes end
 * inside a character, -1 if the first byte starts none. Longer forms than needed and surrogates are let
 * through.
 */
int utf8_decode(const char *bytes, size_t length, uint32_t *code_point);
/* Writes 1 to 4 bytes and returns how many. */
size_t utf8_encode(uint32_t code_point, char *out);

/* Holds back the beginning of a character until the rest of it arrives. Starts all zero. */
struct utf8_stream {
    char held[4];
    size_t count;
};

/* Writes at most 3 * (length + 3) bytes, whole characters only, and returns how many. */
size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t length, char *out);
/* The end of the text: writes at most 9 bytes in place of what is still held and returns how many. */
size_t utf8_stream_finish(struct utf8_stream *stream, char *out);

#endif
