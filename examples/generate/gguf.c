/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens and checks a GGUF file. Looking things up in it is in gguf_lookup.c, conversions in gguf_convert.c.
 * File layout: magic "GGUF", version, number of tensors, number of metadata entries; the entries (key, type,
 * value); the tensor descriptions (name, rank, dims, type, offset); padding; the tensor data. All integers
 * are little-endian.
 */
#include "gguf_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is used in place, so the machine must be little-endian as the file is"
#endif

/* The smallest entries that a file can hold: an empty name and one value, or one dimension. */
enum { MIN_METADATA_BYTES = 8 + 4 + 1, MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8 };

enum { MAX_ALIGNMENT = 1 << 20 };

/* Formats of tensor data by their number in the file. Only those with a size are served. */
struct tensor_format {
    const char *name;
    uint32_t block_elements, block_bytes;
};

static const struct tensor_format tensor_formats[] = {
    [GGUF_F32] = {"F32", 1, 4},
    [GGUF_F16] = {"F16", 1, 2},
    [2] = {"Q4_0", 0, 0},
    [GGUF_Q4_1] = {"Q4_1", 32, 20},
    [6] = {"Q5_0", 0, 0},
    [7] = {"Q5_1", 0, 0},
    [GGUF_Q8_0] = {"Q8_0", 32, 34},
    [10] = {"Q2_K", 0, 0},
    [11] = {"Q3_K", 0, 0},
    [12] = {"Q4_K", 0, 0},
    [13] = {"Q5_K", 0, 0},
    [14] = {"Q6_K", 0, 0},
    [20] = {"IQ4_NL", 0, 0},
    [23] = {"IQ4_XS", 0, 0},
    [GGUF_BF16] = {"BF16", 1, 2},
};

struct reader {
    struct gguf *file;
    size_t position;
    char section[160];                   /* what is being read, for error sentences */
    char *error;
    size_t error_size;
};

static void write_error(char *error, size_t error_size, const char *name, const char *format, va_list args)
{
    int length = snprintf(error, error_size, "%s: ", name);
    if (length > 0 && (size_t)length < error_size) {
        vsnprintf(error + length, error_size - (size_t)length, format, args);
    }
}

__attribute__((format(printf, 2, 3))) static bool refuse(struct reader *reader, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_error(reader->error, reader->error_size, reader->file->name, format, args);
    va_end(args);
    return false;
}

/* A string of the file made fit for an error sentence. */
struct printable {
    char text[64];
};

static struct printable printable(struct gguf_string string)
{
    struct printable result;
    size_t length = string.length < sizeof result.text ? string.length : sizeof result.text - 1;
    for (size_t i = 0; i < length; i++) {
        char c = string.data[i];
        result.text[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    result.text[length] = 0;
    return result;
}

static size_t bytes_left(const struct reader *reader)
{
    return reader->file->size - reader->position;
}

/* The next `size` bytes; NULL if the file ends before. */
static const unsigned char *take(struct reader *reader, uint64_t size)
{
    const unsigned char *bytes = reader->file->bytes + reader->position;
    if (size > bytes_left(reader)) {
        refuse(reader, "the file is cut short: it ends at byte %zu, inside %s, which needs %" PRIu64
               " bytes from byte %zu on", reader->file->size, reader->section, size, reader->position);
        return NULL;
    }
    reader->position += (size_t)size;
    return bytes;
}

static bool take_u32(struct reader *reader, uint32_t *value)
{
    const unsigned char *bytes = take(reader, sizeof *value);
    if (bytes) {
        memcpy(value, bytes, sizeof *value);
    }
    return bytes != NULL;
}

static bool take_u64(struct reader *reader, uint64_t *value)
{
    const unsigned char *bytes = take(reader, sizeof *value);
    if (bytes) {
        memcpy(value, bytes, sizeof *value);
    }
    return bytes != NULL;
}

static bool take_string(struct reader *reader, struct gguf_string *string)
{
    uint64_t length = 0;
    if (!take_u64(reader, &length)) {
        return false;
    }
    string->data = (const char *)take(reader, length);
    string->length = (size_t)length;
    return string->data != NULL;
}

static bool take_array(struct reader *reader, struct metadata *entry)
{
    uint32_t type;
    if (!take_u32(reader, &type) || !take_u64(reader, &entry->count)) {
        return false;
    }
    if (type >= VALUE_TYPES || type == ARRAY) {
        return refuse(reader, "%s is an array of elements of type %" PRIu32 ", and only arrays of numbers, "
                      "booleans and strings are known", reader->section, type);
    }
    entry->element_type = (enum value_type)type;
    size_t smallest = type == STRING ? sizeof(uint64_t) : gguf_value_size[type];
    if (entry->count > bytes_left(reader) / smallest) {
        return refuse(reader, "%s states %" PRIu64 " elements, more than the %zu bytes left in the file can "
                      "hold", reader->section, entry->count, bytes_left(reader));
    }
    entry->value = reader->file->bytes + reader->position;
    if (type == STRING) {
        struct gguf_string string;
        for (uint64_t i = 0; i < entry->count; i++) {
            if (!take_string(reader, &string)) {
                return false;
            }
        }
        return true;
    }
    return take(reader, entry->count * gguf_value_size[type]) != NULL;
}

static bool take_metadata(struct reader *reader, struct metadata *entry, uint64_t index)
{
    snprintf(reader->section, sizeof reader->section, "metadata entry %" PRIu64, index);
    uint32_t type;
    if (!take_string(reader, &entry->key) || !take_u32(reader, &type)) {
        return false;
    }
    snprintf(reader->section, sizeof reader->section, "metadata entry %" PRIu64 " ('%s')", index,
             printable(entry->key).text);
    if (type >= VALUE_TYPES) {
        return refuse(reader, "%s has the unknown type %" PRIu32, reader->section, type);
    }
    entry->type = entry->element_type = (enum value_type)type;
    entry->count = 1;
    entry->value = reader->file->bytes + reader->position;
    if (type == ARRAY) {
        return take_array(reader, entry);
    }
    if (type == STRING) {
        struct gguf_string string;
        return take_string(reader, &string);
    }
    return take(reader, gguf_value_size[type]) != NULL;
}

static bool measure_tensor(struct reader *reader, struct gguf_tensor *tensor, uint32_t type)
{
    struct printable name = printable(tensor->name);
    static const struct tensor_format unknown = {"unknown", 0, 0};
    bool listed = type < sizeof tensor_formats / sizeof *tensor_formats && tensor_formats[type].name;
    const struct tensor_format *format = listed ? &tensor_formats[type] : &unknown;
    if (!format->block_bytes) {
        return refuse(reader, "tensor '%s' has type %" PRIu32 " (%s), which is not served; F32, F16, BF16, "
                      "Q8_0 and Q4_1 are", name.text, type, format->name);
    }
    tensor->type = (enum gguf_type)type;
    tensor->rows = 1;
    bool overflow = false;
    for (uint32_t axis = 1; axis < tensor->rank; axis++) {
        overflow |= __builtin_mul_overflow(tensor->rows, tensor->dims[axis], &tensor->rows);
    }
    if (tensor->dims[0] % format->block_elements) {
        return refuse(reader, "tensor '%s' has rows of %" PRIu64 " elements, and type %s stores blocks of "
                      "%" PRIu32, name.text, tensor->dims[0], format->name, format->block_elements);
    }
    uint64_t row_blocks = tensor->dims[0] / format->block_elements;
    overflow |= __builtin_mul_overflow(row_blocks, format->block_bytes, &tensor->size);
    overflow |= __builtin_mul_overflow(tensor->size, tensor->rows, &tensor->size);
    if (overflow) {
        return refuse(reader, "tensor '%s' has more bytes than 64 bits can count", name.text);
    }
    return true;
}

static bool take_tensor(struct reader *reader, struct gguf_tensor *tensor, uint64_t *offset, uint64_t index)
{
    snprintf(reader->section, sizeof reader->section, "the description of tensor %" PRIu64, index);
    if (!take_string(reader, &tensor->name) || !take_u32(reader, &tensor->rank)) {
        return false;
    }
    struct printable name = printable(tensor->name);
    snprintf(reader->section, sizeof reader->section, "the description of tensor %" PRIu64 " ('%s')", index,
             name.text);
    if (tensor->rank < 1 || tensor->rank > GGUF_MAX_RANK) {
        return refuse(reader, "tensor '%s' has %" PRIu32 " dimensions, and 1 to %d are known", name.text,
                      tensor->rank, GGUF_MAX_RANK);
    }
    for (uint32_t axis = 0; axis < GGUF_MAX_RANK; axis++) {
        tensor->dims[axis] = 1;
        if (axis < tensor->rank && !take_u64(reader, &tensor->dims[axis])) {
            return false;
        }
        if (tensor->dims[axis] == 0) {
            return refuse(reader, "dimension %" PRIu32 " of tensor '%s' is 0", axis, name.text);
        }
    }
    uint32_t type;
    return take_u32(reader, &type) && take_u64(reader, offset) && measure_tensor(reader, tensor, type);
}

static bool place_tensor(struct reader *reader, struct gguf_tensor *tensor, uint64_t offset,
                         uint64_t alignment)
{
    struct printable name = printable(tensor->name);
    if (offset % alignment) {
        return refuse(reader, "tensor '%s' starts at byte %" PRIu64 " of the tensor data, which is not a "
                      "multiple of the alignment, %" PRIu64, name.text, offset, alignment);
    }
    if (offset > bytes_left(reader) || tensor->size > bytes_left(reader) - offset) {
        return refuse(reader, "the file is cut short: tensor '%s' takes %" PRIu64 " bytes from byte %" PRIu64
                      " of the tensor data on, and the file holds %zu bytes of it", name.text, tensor->size,
                      offset, bytes_left(reader));
    }
    tensor->data = reader->file->bytes + reader->position + offset;
    return true;
}

static bool read_header(struct reader *reader, uint64_t *tensor_count, uint64_t *metadata_count)
{
    uint32_t version = 0;
    snprintf(reader->section, sizeof reader->section, "the header");
    const unsigned char *magic = take(reader, 4);
    if (!magic) {
        return false;
    }
    if (memcmp(magic, "GGUF", 4)) {
        return refuse(reader, "this is not a GGUF file: it starts with the bytes %02x %02x %02x %02x, not "
                      "with 'GGUF'", magic[0], magic[1], magic[2], magic[3]);
    }
    if (!take_u32(reader, &version)) {
        return false;
    }
    if (version != 2 && version != 3) {
        bool big_endian = version == (uint32_t)2 << 24 || version == (uint32_t)3 << 24;
        return refuse(reader, "its GGUF version is %" PRIu32 "%s, and versions 2 and 3 are served", version,
                      big_endian ? " (a big-endian file)" : "");
    }
    if (!take_u64(reader, tensor_count) || !take_u64(reader, metadata_count)) {
        return false;
    }
    size_t left = bytes_left(reader);
    if (*metadata_count > left / MIN_METADATA_BYTES || *tensor_count > left / MIN_TENSOR_BYTES) {
        return refuse(reader, "its header states %" PRIu64 " metadata entries and %" PRIu64 " tensors, more "
                      "than the %zu bytes that follow can hold", *metadata_count, *tensor_count, left);
    }
    return true;
}

static bool read_tensors(struct reader *reader, uint64_t *offsets, uint64_t count)
{
    struct gguf *file = reader->file;
    for (uint64_t i = 0; i < count; i++) {
        if (!take_tensor(reader, &file->tensors[i], &offsets[i], i)) {
            return false;
        }
        file->tensor_count++;
    }
    uint64_t alignment = 32;
    const char *key = "general.alignment";
    if (gguf_find_metadata(file, key) && !gguf_get_u64(file, key, &alignment)) {
        return refuse(reader, "metadata entry '%s' is not a positive integer", key);
    }
    if (alignment < 8 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1))) {
        return refuse(reader, "metadata entry '%s' is %" PRIu64 ", and it must be a power of two from 8 to "
                      "%d", key, alignment, MAX_ALIGNMENT);
    }
    size_t padding = (size_t)(-(uint64_t)reader->position & (alignment - 1));
    reader->position += padding < bytes_left(reader) ? padding : bytes_left(reader);
    for (uint64_t i = 0; i < count; i++) {
        if (!place_tensor(reader, &file->tensors[i], offsets[i], alignment)) {
            return false;
        }
    }
    return true;
}

static bool read_file(struct reader *reader)
{
    struct gguf *file = reader->file;
    uint64_t tensor_count = 0, metadata_count = 0;
    if (!read_header(reader, &tensor_count, &metadata_count)) {
        return false;
    }
    file->metadata = calloc((size_t)metadata_count + 1, sizeof *file->metadata);
    file->tensors = calloc((size_t)tensor_count + 1, sizeof *file->tensors);
    uint64_t *offsets = calloc((size_t)tensor_count + 1, sizeof *offsets);
    bool ok = file->metadata && file->tensors && offsets;
    if (!ok) {
        refuse(reader, "out of memory for %" PRIu64 " metadata entries and %" PRIu64 " tensors",
               metadata_count, tensor_count);
    }
    for (uint64_t i = 0; ok && i < metadata_count; i++) {
        ok = take_metadata(reader, &file->metadata[i], i);
        file->metadata_count += ok;
    }
    ok = ok && read_tensors(reader, offsets, tensor_count);
    free(offsets);
    return ok;
}

static struct gguf *open_bytes(const void *bytes, size_t size, bool mapped, const char *name, char *error,
                               size_t error_size)
{
    struct gguf *file = calloc(1, sizeof *file);
    char *name_copy = strdup(name);
    if (!file || !name_copy) {
        snprintf(error, error_size, "%s: out of memory", name);
        free(file);
        free(name_copy);
        if (mapped) {
            munmap((void *)(uintptr_t)bytes, size);
        }
        return NULL;
    }
    *file = (struct gguf){.name = name_copy, .bytes = bytes, .size = size, .mapped = mapped};
    struct reader reader = {.file = file, .error = error, .error_size = error_size};
    if (!read_file(&reader)) {
        gguf_close(file);
        return NULL;
    }
    return file;
}

struct gguf *gguf_open_memory(const void *bytes, size_t size, const char *name, char *error,
                              size_t error_size)
{
    return open_bytes(bytes, size, false, name, error, error_size);
}

struct gguf *gguf_open(const char *path, char *error, size_t error_size)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status)) {
        snprintf(error, error_size, "%s: cannot be opened: %s", path, strerror(errno));
        if (descriptor >= 0) {
            close(descriptor);
        }
        return NULL;
    }
    void *bytes = MAP_FAILED;
    if (!S_ISREG(status.st_mode)) {
        snprintf(error, error_size, "%s: this is not a regular file", path);
    } else if (status.st_size == 0) {
        snprintf(error, error_size, "%s: the file is empty", path);
    } else {
        bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED) {
            snprintf(error, error_size, "%s: cannot be mapped into memory: %s", path, strerror(errno));
        }
    }
    close(descriptor);
    if (bytes == MAP_FAILED) {
        return NULL;
    }
    return open_bytes(bytes, (size_t)status.st_size, true, path, error, error_size);
}

void gguf_close(struct gguf *file)
{
    if (!file) {
        return;
    }
    if (file->mapped) {
        munmap((void *)(uintptr_t)file->bytes, file->size);
    }
    free(file->tensors);
    free(file->metadata);
    free(file->name);
    free(file);
}

const char *gguf_type_name(enum gguf_type type)
{
    return tensor_formats[type].name;
}
