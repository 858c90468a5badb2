/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF reader of the example: a file is any bytes. One that is opened is read in full: every entry by every getter, every
 * tensor by its first and last row. */
#include <string.h>

#include "examples/generate/gguf_internal.h"
#include "tests/fuzz/fuzz.h"

static char *terminated(struct gguf_string string)
{
    char *text = calloc(string.length + 1, 1);
    FUZZ_CHECK(text, "out of memory");
    memcpy(text, string.data, string.length);
    return text;
}

static void read_entry(const struct gguf *file, const struct metadata *entry)
{
    char *key = terminated(entry->key);
    uint32_t u32;
    int32_t i32, *i32s;
    uint64_t u64;
    float f32, *f32s;
    bool boolean;
    struct gguf_string string, *strings;
    size_t count;
    if (gguf_get_u32(file, key, &u32))
        FUZZ_CHECK(gguf_get_u64(file, key, &u64) && u64 == u32, "%s", key);
    if (gguf_get_i32(file, key, &i32) && i32 >= 0)
        FUZZ_CHECK(gguf_get_u32(file, key, &u32) && u32 == (uint32_t)i32, "%s", key);
    gguf_get_f32(file, key, &f32);
    gguf_get_bool(file, key, &boolean);
    if (gguf_get_string(file, key, &string))
        free(terminated(string));
    if (gguf_copy_strings(file, key, &strings, &count)) {
        for (size_t i = 0; i < count; i++)
            free(terminated(strings[i]));
        free(strings);
    }
    if (gguf_copy_i32(file, key, &i32s, &count))
        free(i32s);
    if (gguf_copy_f32(file, key, &f32s, &count))
        free(f32s);
    free(key);
}

static void read_tensor(const struct gguf *file, const struct gguf_tensor *tensor)
{
    char *name = terminated(tensor->name);
    float *row = malloc(tensor->dims[0] * sizeof *row);
    FUZZ_CHECK(row, "out of memory");
    FUZZ_CHECK(memchr(tensor->name.data, 0, tensor->name.length) || gguf_find_tensor(file, name), "%s", name);
    FUZZ_CHECK(gguf_type_name(tensor->type), "%s", name);
    gguf_dequantize_row(tensor, 0, row);
    gguf_dequantize_row(tensor, tensor->rows - 1, row);
    free(row);
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[300] = "";
    void *bytes = malloc(size + !size); /* of exactly this size, so that one byte too many is seen */
    FUZZ_CHECK(bytes, "out of memory");
    memcpy(bytes, data, size);
    struct gguf *file = gguf_open_memory(bytes, size, "model.gguf", error, sizeof error);
    FUZZ_CHECK(file ? !error[0] : !strncmp(error, "model.gguf: ", 12), "%s", error);
    for (size_t i = 0; file && i < file->metadata_count; i++)
        read_entry(file, &file->metadata[i]);
    for (size_t i = 0; file && i < file->tensor_count; i++)
        read_tensor(file, &file->tensors[i]);
    gguf_close(file);
    free(bytes);
    return 0;
}
