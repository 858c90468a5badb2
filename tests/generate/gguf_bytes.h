/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the pieces of a small GGUF file into memory, for tests. */
#ifndef GGUF_BYTES_H
#define GGUF_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Types of metadata values by their number in the file. */
enum {
    UINT8 = 0, INT8 = 1, UINT32 = 4, INT32 = 5, FLOAT32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, UINT64 = 10,
    FLOAT64 = 12
};

struct bytes {
    unsigned char data[4096];
    size_t size;
};

static inline void put(struct bytes *bytes, const void *data, size_t size)
{
    assert_true(bytes->size + size <= sizeof bytes->data);
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static inline void put_u32(struct bytes *bytes, uint32_t value)
{
    put(bytes, &value, sizeof value);
}

static inline void put_u64(struct bytes *bytes, uint64_t value)
{
    put(bytes, &value, sizeof value);
}

static inline void put_string(struct bytes *bytes, const char *text)
{
    put_u64(bytes, strlen(text));
    put(bytes, text, strlen(text));
}

static inline void put_key(struct bytes *bytes, const char *key, uint32_t type)
{
    put_string(bytes, key);
    put_u32(bytes, type);
}

#endif
