/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads GGUF model files, versions 2 and 3: metadata, tensors, and tensor rows as float32.
 * The whole file is checked when it is opened: every count, length, type, dimension and offset. A file that
 * was opened can be read without further checks, as long as nobody shortens it. Strings and tensor data point
 * into the mapping and live until gguf_close. Tensors of type F32, F16, BF16, Q8_0 and Q4_1 are served; a
 * file with any other is refused.
 */
#ifndef GGUF_H
#define GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGUF_MAX_RANK 4

struct gguf;

struct gguf_string {
    const char *data;                    /* not terminated by a zero byte */
    size_t length;                       /* in bytes */
};

enum gguf_type {
    GGUF_F32 = 0,
    GGUF_F16 = 1,
    GGUF_Q4_1 = 3,                       /* 32 weights of 4 bits with an f16 scale and an f16 minimum */
    GGUF_Q8_0 = 8,                       /* 32 weights of 8 bits with an f16 scale */
    GGUF_BF16 = 30,
};

struct gguf_tensor {
    struct gguf_string name;
    enum gguf_type type;
    uint32_t rank;                       /* 1 to GGUF_MAX_RANK */
    uint64_t dims[GGUF_MAX_RANK];        /* dims[0] is contiguous, the row length; unused ones are 1 */
    uint64_t rows;                       /* product of all dims but the first */
    const void *data;                    /* aligned to 8 bytes at least */
    uint64_t size;                       /* in bytes */
};

/* NULL on failure, with one sentence in `error` that names the file, what is wrong and where. */
struct gguf *gguf_open(const char *path, char *error, size_t error_size);
/*
 * The same on bytes in memory, aligned to 8, which must outlive the result; `name` stands for the file in
 * error sentences.
 */
struct gguf *gguf_open_memory(const void *bytes, size_t size, const char *name, char *error,
                              size_t error_size);
void gguf_close(struct gguf *file);
const char *gguf_name(const struct gguf *file);

/*
 * Metadata. False if the key is absent, of another kind, or out of range for the result; `*value` is then
 * untouched. An integer of the file may have any width.
 */
bool gguf_get_u32(const struct gguf *file, const char *key, uint32_t *value);
bool gguf_get_i32(const struct gguf *file, const char *key, int32_t *value);
bool gguf_get_u64(const struct gguf *file, const char *key, uint64_t *value);
bool gguf_get_f32(const struct gguf *file, const char *key, float *value);
bool gguf_get_bool(const struct gguf *file, const char *key, bool *value);
bool gguf_get_string(const struct gguf *file, const char *key, struct gguf_string *value);
/* Arrays are copied; the caller frees `*values`. False also if memory runs out. */
bool gguf_copy_strings(const struct gguf *file, const char *key, struct gguf_string **values, size_t *count);
bool gguf_copy_i32(const struct gguf *file, const char *key, int32_t **values, size_t *count);
bool gguf_copy_f32(const struct gguf *file, const char *key, float **values, size_t *count);

/* NULL if there is no tensor of this name. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *file, const char *name);
const char *gguf_type_name(enum gguf_type type);

/* Writes dims[0] numbers; `row` is below tensor->rows. */
void gguf_dequantize_row(const struct gguf_tensor *tensor, uint64_t row, float *out);

/* Rounding is to nearest, ties to even; a number too large for the format becomes infinite; NaN stays NaN. */
void gguf_f16_from_f32(uint16_t *out, const float *in, size_t count);
void gguf_bf16_from_f32(uint16_t *out, const float *in, size_t count);
void gguf_f32_from_f16(float *out, const uint16_t *in, size_t count);
void gguf_f32_from_bf16(float *out, const uint16_t *in, size_t count);

#endif
