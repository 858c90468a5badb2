/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the GGUF reader share: an opened file and its metadata entries. */
#ifndef GGUF_INTERNAL_H
#define GGUF_INTERNAL_H

#include "gguf.h"

/* Types of metadata values by their number in the file. */
enum value_type {
    UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64,
    VALUE_TYPES
};

struct metadata {
    struct gguf_string key;
    enum value_type type;
    enum value_type element_type;        /* of an array; else `type` */
    uint64_t count;                      /* of elements; 1 unless it is an array */
    const unsigned char *value;          /* first element */
};

struct gguf {
    char *name;
    const unsigned char *bytes;
    size_t size;
    bool mapped;
    struct metadata *metadata;
    size_t metadata_count;
    struct gguf_tensor *tensors;
    size_t tensor_count;
};

/* In bytes; 0 for the types whose values differ in size. */
extern const size_t gguf_value_size[VALUE_TYPES];

const struct metadata *gguf_find_metadata(const struct gguf *file, const char *key);

#endif
