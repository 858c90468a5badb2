/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 decoding, encoding and streaming. */
#include "utf8.h"

#include <string.h>

int utf8_decode(const char *bytes, size_t length, uint32_t *code_point)
{
    unsigned char lead = length ? (unsigned char)bytes[0] : 0;
    size_t needed = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if ((lead >= 0x80 && lead < 0xc0) || lead >= 0xf8) {
        return -1;
    }
    uint32_t value = needed == 1 ? lead : lead & (0x7fu >> needed);
    for (size_t i = 1; i < needed && i < length; i++) {
        if (((unsigned char)bytes[i] & 0xc0) != 0x80) {
            return -1;
        }
        value = value << 6 | ((unsigned char)bytes[i] & 0x3f);
    }
    if (length < needed) {
        return 0;
    }
    *code_point = value;
    return value <= 0x10ffff ? (int)needed : -1;
}

size_t utf8_encode(uint32_t code_point, char *out)
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    out[0] = (char)((0xf00u >> length & 0xf0) | code_point);
    return length;
}

static void drop_held(struct utf8_stream *stream, size_t length)
{
    stream->count -= length;
    memmove(stream->held, stream->held + length, stream->count);
}

size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t length, char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        stream->held[stream->count++] = bytes[i];
        while (stream->count > 0) {
            uint32_t code_point;
            int decoded = utf8_decode(stream->held, stream->count, &code_point);
            if (decoded == 0) {
                break;
            }
            if (decoded > 0) {
                memcpy(out + written, stream->held, (size_t)decoded);
                written += (size_t)decoded;
                drop_held(stream, (size_t)decoded);
            } else {
                written += utf8_encode(UTF8_REPLACEMENT, out + written);
                drop_held(stream, 1);
            }
        }
    }
    return written;
}

size_t utf8_stream_finish(struct utf8_stream *stream, char *out)
{
    size_t written = 0;
    for (; stream->count > 0; stream->count--) {
        written += utf8_encode(UTF8_REPLACEMENT, out + written);
    }
    return written;
}
