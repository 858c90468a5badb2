/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up metadata and tensors of a GGUF file that gguf_open has checked. */
#include "gguf_internal.h"

#include <stdlib.h>
#include <string.h>

const size_t gguf_value_size[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

const char *gguf_name(const struct gguf *file)
{
    return file->name;
}

static bool same(struct gguf_string string, const char *text)
{
    return string.length == strlen(text) && memcmp(string.data, text, string.length) == 0;
}

const struct metadata *gguf_find_metadata(const struct gguf *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (same(file->metadata[i].key, key)) {
            return &file->metadata[i];
        }
    }
    return NULL;
}

/* Any integer type; false for one above INT64_MAX, which nothing here has a use for. */
static bool get_integer(const struct gguf *file, const char *key, int64_t *value)
{
    const struct metadata *entry = gguf_find_metadata(file, key);
    if (!entry) {
        return false;
    }
    uint64_t bits = 0;
    switch (entry->type) {
    case UINT8: case UINT16: case UINT32: case UINT64:
        memcpy(&bits, entry->value, gguf_value_size[entry->type]);
        *value = (int64_t)bits;
        return bits <= INT64_MAX;
    case INT8: case INT16: case INT32: case INT64: {
        unsigned shift = 64 - 8 * (unsigned)gguf_value_size[entry->type];
        memcpy(&bits, entry->value, gguf_value_size[entry->type]);
        *value = (int64_t)(bits << shift) >> shift;
        return true;
    }
    default:
        return false;
    }
}

bool gguf_get_u64(const struct gguf *file, const char *key, uint64_t *value)
{
    int64_t integer;
    if (!get_integer(file, key, &integer) || integer < 0) {
        return false;
    }
    *value = (uint64_t)integer;
    return true;
}

bool gguf_get_u32(const struct gguf *file, const char *key, uint32_t *value)
{
    int64_t integer;
    if (!get_integer(file, key, &integer) || integer < 0 || integer > UINT32_MAX) {
        return false;
    }
    *value = (uint32_t)integer;
    return true;
}

bool gguf_get_i32(const struct gguf *file, const char *key, int32_t *value)
{
    int64_t integer;
    if (!get_integer(file, key, &integer) || integer < INT32_MIN || integer > INT32_MAX) {
        return false;
    }
    *value = (int32_t)integer;
    return true;
}

bool gguf_get_f32(const struct gguf *file, const char *key, float *value)
{
    const struct metadata *entry = gguf_find_metadata(file, key);
    if (entry && entry->type == FLOAT32) {
        memcpy(value, entry->value, sizeof *value);
        return true;
    }
    if (entry && entry->type == FLOAT64) {
        double wide;
        memcpy(&wide, entry->value, sizeof wide);
        *value = (float)wide;
        return true;
    }
    return false;
}

bool gguf_get_bool(const struct gguf *file, const char *key, bool *value)
{
    const struct metadata *entry = gguf_find_metadata(file, key);
    if (!entry || entry->type != BOOL) {
        return false;
    }
    *value = entry->value[0] != 0;
    return true;
}

/* The string at `bytes`, which was checked when the file was opened. */
static struct gguf_string string_at(const unsigned char *bytes)
{
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    return (struct gguf_string){(const char *)bytes + sizeof length, (size_t)length};
}

bool gguf_get_string(const struct gguf *file, const char *key, struct gguf_string *value)
{
    const struct metadata *entry = gguf_find_metadata(file, key);
    if (!entry || entry->type != STRING) {
        return false;
    }
    *value = string_at(entry->value);
    return true;
}

static const struct metadata *find_array(const struct gguf *file, const char *key,
                                         enum value_type element_type)
{
    const struct metadata *entry = gguf_find_metadata(file, key);
    return entry && entry->type == ARRAY && entry->element_type == element_type ? entry : NULL;
}

bool gguf_copy_strings(const struct gguf *file, const char *key, struct gguf_string **values, size_t *count)
{
    const struct metadata *entry = find_array(file, key, STRING);
    struct gguf_string *strings = entry ? calloc((size_t)entry->count + 1, sizeof *strings) : NULL;
    if (!strings) {
        return false;
    }
    const unsigned char *bytes = entry->value;
    for (size_t i = 0; i < entry->count; i++) {
        strings[i] = string_at(bytes);
        bytes = (const unsigned char *)strings[i].data + strings[i].length;
    }
    *values = strings;
    *count = (size_t)entry->count;
    return true;
}

static void *copy_numbers(const struct gguf *file, const char *key, enum value_type element_type,
                          size_t *count)
{
    const struct metadata *entry = find_array(file, key, element_type);
    void *copy = entry ? calloc((size_t)entry->count + 1, gguf_value_size[element_type]) : NULL;
    if (copy) {
        memcpy(copy, entry->value, (size_t)entry->count * gguf_value_size[element_type]);
        *count = (size_t)entry->count;
    }
    return copy;
}

bool gguf_copy_i32(const struct gguf *file, const char *key, int32_t **values, size_t *count)
{
    int32_t *copy = copy_numbers(file, key, INT32, count);
    if (copy) {
        *values = copy;
    }
    return copy != NULL;
}

bool gguf_copy_f32(const struct gguf *file, const char *key, float **values, size_t *count)
{
    float *copy = copy_numbers(file, key, FLOAT32, count);
    if (copy) {
        *values = copy;
    }
    return copy != NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *file, const char *name)
{
    for (size_t i = 0; i < file->tensor_count; i++) {
        if (same(file->tensors[i].name, name)) {
            return &file->tensors[i];
        }
    }
    return NULL;
}
