/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF reader on small files built here: what a good file yields, one broken rule at a time with its sentence,
 * every truncation, every byte changed; conversions of 16-bit and quantised numbers; and the model in the
 * environment variable FLASHINFER_TEST_MODEL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

#include "examples/generate/gguf.h"
#include "gguf_bytes.h"

/* A small file: what is written where a good file has something else. */
struct recipe {
    const char *magic;
    uint32_t version;
    uint64_t extra_metadata, extra_tensors;       /* stated but absent */
    uint32_t value_type, element_type;            /* of 'test.value' and of the array 'test.ints' */
    uint64_t ints;                                /* elements that the array states */
    uint64_t name_length;                         /* of general.name; its text has 4 bytes */
    uint32_t alignment_type;
    uint64_t alignment;
    uint32_t rank, tensor_type;                   /* of the last tensor */
    uint64_t dims[5];
    uint64_t offset;
};

static const struct recipe good = {
    .magic = "GGUF", .version = 3, .value_type = UINT8, .element_type = INT32, .ints = 3, .name_length = 4,
    .alignment_type = UINT32, .alignment = 64, .rank = 2, .tensor_type = GGUF_Q8_0, .dims = {32, 2}, .offset = 192,
};

static void put_metadata(struct bytes *bytes, const struct recipe *recipe)
{
    put_key(bytes, "general.name", STRING);
    put_u64(bytes, recipe->name_length);
    put(bytes, "tiny", 4);
    put_key(bytes, "general.alignment", recipe->alignment_type);
    if (recipe->alignment_type == UINT32) {
        put_u32(bytes, (uint32_t)recipe->alignment);
    } else {
        put_u64(bytes, recipe->alignment);
    }
    put_key(bytes, "test.value", recipe->value_type);
    put(bytes, "\xc8", 1);
    put_key(bytes, "test.minus", INT8);
    put(bytes, "\xfe", 1);
    put_key(bytes, "test.big", UINT64);
    put_u64(bytes, UINT64_C(1) << 40);
    put_key(bytes, "test.third", FLOAT32);
    put(bytes, &(float){0.25f}, 4);
    put_key(bytes, "test.double", FLOAT64);
    put(bytes, &(double){1.5}, 8);
    put_key(bytes, "test.yes", BOOL);
    put(bytes, "\x01", 1);
    put_key(bytes, "test.ints", ARRAY);
    put_u32(bytes, recipe->element_type);
    put_u64(bytes, recipe->ints);
    put(bytes, (int32_t[]){7, -8, 9}, 12);
    put_key(bytes, "test.floats", ARRAY);
    put_u32(bytes, FLOAT32);
    put_u64(bytes, 2);
    put(bytes, (float[]){0.5f, -2.0f}, 8);
    put_key(bytes, "test.strings", ARRAY);
    put_u32(bytes, STRING);
    put_u64(bytes, 3);
    put_string(bytes, "one");
    put_string(bytes, "");
    put_string(bytes, "three");
}

static void put_tensor(struct bytes *bytes, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                       uint64_t offset)
{
    put_string(bytes, name);
    put_u32(bytes, rank);
    put(bytes, dims, (rank < 5 ? rank : 5) * sizeof *dims);
    put_u32(bytes, type);
    put_u64(bytes, offset);
}

/* Two float32 numbers at 0, a Q4_1 block at 64, three BF16 numbers at 128, two Q8_0 blocks at 192. */
static struct bytes build(const struct recipe *recipe)
{
    struct bytes bytes = {.size = 0};
    put(&bytes, recipe->magic, 4);
    put_u32(&bytes, recipe->version);
    put_u64(&bytes, 4 + recipe->extra_tensors);
    put_u64(&bytes, 11 + recipe->extra_metadata);
    put_metadata(&bytes, recipe);
    put_tensor(&bytes, "plain", 1, (uint64_t[]){2}, GGUF_F32, 0);
    put_tensor(&bytes, "four", 2, (uint64_t[]){32, 1}, GGUF_Q4_1, 64);
    put_tensor(&bytes, "brain", 3, (uint64_t[]){1, 1, 3}, GGUF_BF16, 128);
    put_tensor(&bytes, "eight", recipe->rank, recipe->dims, recipe->tensor_type, recipe->offset);
    bytes.size = (bytes.size + 63) / 64 * 64;
    size_t start = bytes.size;
    put(&bytes, (float[]){1.0f, -3.5f}, 8);
    bytes.size = start + 64;
    put(&bytes, (uint16_t[]){0x3800, 0xbc00}, 4);                 /* scale 0.5, minimum -1 */
    for (unsigned i = 0; i < 16; i++) {
        put(&bytes, &(unsigned char){(unsigned char)(i | (15 - i) << 4)}, 1);
    }
    bytes.size = start + 128;
    put(&bytes, (uint16_t[]){0x3f80, 0xc000, 0x7f80}, 6);         /* 1, -2, infinity */
    bytes.size = start + 192;
    for (int block = 0; block < 2; block++) {
        put(&bytes, &(uint16_t){block ? 0x4000 : 0x3400}, 2);     /* scales 0.25 and 2 */
        for (int i = 0; i < 32; i++) {
            put(&bytes, &(signed char){(signed char)(i - 16)}, 1);
        }
    }
    return bytes;
}

/* Opens a copy of exactly this size, so that a sanitizer sees any read beyond it. The caller frees the copy. */
static struct gguf *open_copy(const unsigned char *data, size_t size, char **copy, char *error, size_t error_size)
{
    *copy = malloc(size + !size);
    assert_non_null(*copy);
    memcpy(*copy, data, size);
    error[0] = 0;
    return gguf_open_memory(*copy, size, "tiny.gguf", error, error_size);
}

static void expect_refusal(const struct recipe *recipe, const char *reason)
{
    struct bytes bytes = build(recipe);
    char *copy, error[400];
    assert_null(open_copy(bytes.data, bytes.size, &copy, error, sizeof error));
    if (strncmp(error, "tiny.gguf: ", 11) != 0 || !strstr(error, reason) || strchr(error, '\n')) {
        fail_msg("expected a sentence with \"%s\", got \"%s\"", reason, error);
    }
    free(copy);
}

#define REFUSED(reason, ...)                 \
    do {                                     \
        struct recipe recipe = good;         \
        __VA_ARGS__;                         \
        expect_refusal(&recipe, reason);     \
    } while (0)

static void test_good_file(void **state)
{
    (void)state;
    struct bytes bytes = build(&good);
    char *copy, error[400];
    struct gguf *file = open_copy(bytes.data, bytes.size, &copy, error, sizeof error);
    assert_string_equal(error, "");
    assert_non_null(file);
    uint32_t u32;
    int32_t i32;
    uint64_t u64;
    float f32;
    bool yes;
    struct gguf_string string;
    assert_true(gguf_get_u32(file, "test.value", &u32) && u32 == 200);
    assert_true(gguf_get_i32(file, "test.minus", &i32) && i32 == -2);
    assert_true(gguf_get_u64(file, "test.big", &u64) && u64 == UINT64_C(1) << 40);
    assert_true(gguf_get_f32(file, "test.third", &f32) && f32 == 0.25f);
    assert_true(gguf_get_f32(file, "test.double", &f32) && f32 == 1.5f);
    assert_true(gguf_get_bool(file, "test.yes", &yes) && yes);
    assert_true(gguf_get_string(file, "general.name", &string) && string.length == 4);
    assert_memory_equal(string.data, "tiny", 4);
    assert_false(gguf_get_u32(file, "test.minus", &u32));
    assert_false(gguf_get_u64(file, "test.minus", &u64));
    assert_false(gguf_get_u32(file, "test.big", &u32));
    assert_false(gguf_get_i32(file, "test.big", &i32));
    assert_false(gguf_get_u32(file, "test.third", &u32));
    assert_false(gguf_get_f32(file, "test.value", &f32));
    assert_false(gguf_get_string(file, "test.strings", &string));
    assert_false(gguf_get_bool(file, "test.absent", &yes));
    struct gguf_string *strings;
    int32_t *ints;
    float *floats;
    size_t count;
    assert_true(gguf_copy_strings(file, "test.strings", &strings, &count) && count == 3);
    assert_true(strings[0].length == 3 && strings[1].length == 0 && !memcmp(strings[2].data, "three", 5));
    free(strings);
    assert_true(gguf_copy_i32(file, "test.ints", &ints, &count) && count == 3 && ints[1] == -8);
    free(ints);
    assert_true(gguf_copy_f32(file, "test.floats", &floats, &count) && count == 2 && floats[1] == -2.0f);
    free(floats);
    assert_false(gguf_copy_strings(file, "test.ints", &strings, &count));
    assert_false(gguf_copy_i32(file, "test.floats", &ints, &count));
    assert_null(gguf_find_tensor(file, "absent"));
    assert_null(gguf_find_tensor(file, "plai"));
    gguf_close(file);
    free(copy);
}

static void test_tensors(void **state)
{
    (void)state;
    struct bytes bytes = build(&good);
    char *copy, error[400];
    struct gguf *file = open_copy(bytes.data, bytes.size, &copy, error, sizeof error);
    assert_non_null(file);
    float row[32];
    const struct gguf_tensor *plain = gguf_find_tensor(file, "plain"), *brain = gguf_find_tensor(file, "brain");
    const struct gguf_tensor *four = gguf_find_tensor(file, "four"), *eight = gguf_find_tensor(file, "eight");
    assert_true(plain && brain && four && eight);
    assert_true(plain->rank == 1 && plain->dims[0] == 2 && plain->dims[1] == 1 && plain->size == 8);
    gguf_dequantize_row(plain, 0, row);
    assert_true(row[0] == 1.0f && row[1] == -3.5f);
    assert_true(brain->rows == 3 && brain->size == 6);
    gguf_dequantize_row(brain, 1, row);
    assert_true(row[0] == -2.0f);
    gguf_dequantize_row(brain, 2, row);
    assert_true(isinf(row[0]));
    assert_true(four->size == 20);
    gguf_dequantize_row(four, 0, row);
    for (int i = 0; i < 16; i++) {
        assert_true(row[i] == 0.5f * (float)i - 1.0f && row[i + 16] == 0.5f * (float)(15 - i) - 1.0f);
    }
    assert_true(eight->rows == 2 && eight->size == 68);
    for (uint64_t block = 0; block < 2; block++) {
        gguf_dequantize_row(eight, block, row);
        for (int i = 0; i < 32; i++) {
            assert_true(row[i] == (block ? 2.0f : 0.25f) * (float)(i - 16));
        }
    }
    assert_string_equal(gguf_type_name(eight->type), "Q8_0");
    gguf_close(file);
    free(copy);
}

static void test_refusals(void **state)
{
    (void)state;
    REFUSED("not a GGUF file: it starts with the bytes 67 67 6d 6c", recipe.magic = "ggml");
    REFUSED("version is 1,", recipe.version = 1);
    REFUSED("big-endian", recipe.version = 3u << 24);
    REFUSED("states 11 metadata entries and 4611686018427387908 tensors", recipe.extra_tensors = UINT64_C(1) << 62);
    REFUSED("metadata entries", recipe.extra_metadata = UINT64_MAX - 20);
    REFUSED("tensor '' has 0 dimensions", recipe.extra_metadata = 1);
    REFUSED("tensor '' has 0 dimensions", recipe.extra_tensors = 1);
    REFUSED("inside metadata entry 0 ('general.name')", recipe.name_length = UINT64_MAX - 3);
    REFUSED("('test.value') has the unknown type 13", recipe.value_type = 13);
    REFUSED("array of elements of type 9", recipe.element_type = ARRAY);
    REFUSED("array of elements of type 4294967295", recipe.element_type = UINT32_MAX);
    REFUSED("states 2305843009213693952 elements", recipe.ints = UINT64_C(1) << 61);
    REFUSED("states 18446744073709551615 elements", recipe.element_type = UINT8; recipe.ints = UINT64_MAX);
    REFUSED("inside metadata entry 8 ('test.ints')", recipe.element_type = STRING; recipe.ints = 2);
    REFUSED("power of two from 8", recipe.alignment = 48);
    REFUSED("power of two from 8", recipe.alignment = 0);
    REFUSED("power of two from 8", recipe.alignment_type = UINT64; recipe.alignment = UINT64_C(1) << 62);
    REFUSED("not a positive integer", recipe.alignment_type = FLOAT64);
    REFUSED("tensor 'eight' has 0 dimensions", recipe.rank = 0);
    REFUSED("tensor 'eight' has 5 dimensions", recipe.rank = 5);
    REFUSED("dimension 1 of tensor 'eight' is 0", recipe.dims[1] = 0);
    REFUSED("more bytes than 64 bits can count", recipe.dims[1] = UINT64_C(1) << 59);
    REFUSED("takes 1168231104512 bytes", recipe.dims[1] = UINT64_C(1) << 35);
    REFUSED("rows of 33 elements, and type Q8_0 stores blocks of 32", recipe.dims[0] = 33);
    REFUSED("tensor 'eight' has type 12 (Q4_K), which is not served", recipe.tensor_type = 12);
    REFUSED("type 4 (unknown)", recipe.tensor_type = 4);
    REFUSED("type 4294967295 (unknown)", recipe.tensor_type = UINT32_MAX);
    REFUSED("not a multiple of the alignment, 64", recipe.offset = 200);
    REFUSED("tensor 'eight' takes 68 bytes from byte 256", recipe.offset = 256);
    REFUSED("from byte 18446744073709551552", recipe.offset = UINT64_MAX - 63);
}

static void test_truncated(void **state)
{
    (void)state;
    struct bytes bytes = build(&good);
    for (size_t size = 0; size < bytes.size; size++) {
        char *copy, error[400];
        assert_null(open_copy(bytes.data, size, &copy, error, sizeof error));
        assert_true(strstr(error, "cut short") || strstr(error, "can hold"));
        free(copy);
    }
}

/* Reads everything that the file offers. */
static void read_all(const struct gguf *file)
{
    static const char *const names[] = {"plain", "four", "brain", "eight"};
    struct gguf_string *strings;
    size_t count;
    if (gguf_copy_strings(file, "test.strings", &strings, &count)) {
        for (size_t i = 0; i < count; i++) {
            free(strndup(strings[i].data, strings[i].length));
        }
        free(strings);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct gguf_tensor *tensor = gguf_find_tensor(file, names[i]);
        for (uint64_t row = 0; tensor && row < tensor->rows; row++) {
            float *out = malloc(tensor->dims[0] * sizeof *out);
            assert_non_null(out);
            gguf_dequantize_row(tensor, row, out);
            free(out);
        }
    }
}

static void test_changed_bytes(void **state)
{
    (void)state;
    static const unsigned char changes[] = {0x01, 0x02, 0x04, 0x08, 0x20, 0x80, 0xff};
    struct bytes bytes = build(&good);
    int opened = 0, refused = 0;
    for (size_t at = 0; at < bytes.size; at++) {
        for (size_t i = 0; i < sizeof changes; i++) {
            char *copy, error[400];
            bytes.data[at] ^= changes[i];
            struct gguf *file = open_copy(bytes.data, bytes.size, &copy, error, sizeof error);
            if (file) {
                read_all(file);
                opened++;
            } else {
                assert_true(strncmp(error, "tiny.gguf: ", 11) == 0 && strlen(error) > 30);
                refused++;
            }
            gguf_close(file);
            free(copy);
            bytes.data[at] ^= changes[i];
        }
    }
    assert_true(opened > 1000 && refused > 1000);
}

static void expect_no_file(const char *path, const char *reason)
{
    char error[400] = "";
    assert_null(gguf_open(path, error, sizeof error));
    if (strncmp(error, path, strlen(path)) != 0 || !strstr(error, reason)) {
        fail_msg("expected a sentence with \"%s\", got \"%s\"", reason, error);
    }
}

static void test_files(void **state)
{
    (void)state;
    expect_no_file("/nonexistent/model.gguf", "cannot be opened: No such file");
    expect_no_file("/", "not a regular file");
    expect_no_file("/dev/null", "not a regular file");
    char path[] = "/tmp/test_gguf.XXXXXX", error[400] = "";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    expect_no_file(path, "empty");
    struct bytes bytes = build(&good);
    assert_int_equal(write(descriptor, bytes.data, bytes.size), (ssize_t)bytes.size);
    struct gguf *file = gguf_open(path, error, sizeof error);
    assert_non_null(file);
    assert_string_equal(gguf_name(file), path);
    read_all(file);
    gguf_close(file);
    assert_int_equal(ftruncate(descriptor, (off_t)bytes.size - 1), 0);
    expect_no_file(path, "cut short: tensor 'eight'");
    close(descriptor);
    unlink(path);
}

/* Between each two neighbouring numbers of the format: just below, at and just above the middle. */
static void check_rounding(void (*to_half)(uint16_t *, const float *, size_t),
                           void (*to_float)(float *, const uint16_t *, size_t), uint16_t largest)
{
    for (uint32_t low = 0; low < largest; low++) {
        uint16_t pair[2] = {(uint16_t)low, (uint16_t)(low + 1)}, rounded[5];
        float bounds[2];
        to_float(bounds, pair, 2);
        float middle = (float)(((double)bounds[0] + (double)bounds[1]) / 2);
        float in[5] = {bounds[0], nextafterf(middle, 0), middle, nextafterf(middle, INFINITY), -middle};
        uint16_t even = pair[low & 1];
        uint16_t expected[5] = {pair[0], pair[0], even, pair[1], (uint16_t)(even | 0x8000)};
        to_half(rounded, in, 5);
        if (memcmp(rounded, expected, sizeof expected) != 0) {
            fail_msg("rounding between 0x%04x and 0x%04x", pair[0], pair[1]);
        }
    }
}

static void test_conversions(void **state)
{
    (void)state;
    check_rounding(gguf_f16_from_f32, gguf_f32_from_f16, 0x7bff);
    check_rounding(gguf_bf16_from_f32, gguf_f32_from_bf16, 0x7f7f);
    float in[6] = {65519.99f, 65520.0f, -INFINITY, NAN, 3e38f, -0.0f}, back[6];
    uint16_t out[6];
    gguf_f16_from_f32(out, in, 6);
    assert_true(out[0] == 0x7bff && out[1] == 0x7c00 && out[2] == 0xfc00 && out[4] == 0x7c00 && out[5] == 0x8000);
    gguf_f32_from_f16(back, out, 6);
    assert_true(isinf(back[1]) && back[2] == -INFINITY && isnan(back[3]));
    gguf_bf16_from_f32(out, in, 6);
    assert_true(out[2] == 0xff80 && out[5] == 0x8000);
    in[0] = 3.4e38f;
    gguf_bf16_from_f32(out, in, 1);
    gguf_f32_from_bf16(back, out, 4);
    assert_true(isinf(back[0]) && isnan(back[3]));
    uint32_t quiet_bits = 0x7f800001;
    memcpy(in, &quiet_bits, sizeof quiet_bits);
    gguf_bf16_from_f32(out, in, 1);
    gguf_f32_from_bf16(back, out, 1);
    assert_true(isnan(back[0]));
}

static void test_model(void **state)
{
    (void)state;
    const char *path = getenv("FLASHINFER_TEST_MODEL");
    if (!path) {
        skip();
    }
    char error[400] = "";
    struct gguf *file = gguf_open(path, error, sizeof error);
    assert_string_equal(error, "");
    uint32_t layers;
    float base;
    assert_true(gguf_get_u32(file, "llama.block_count", &layers) && layers == 30);
    assert_true(gguf_get_f32(file, "llama.rope.freq_base", &base) && base == 100000.0f);
    const struct gguf_tensor *embedding = gguf_find_tensor(file, "token_embd.weight");
    assert_true(embedding && embedding->dims[0] == 576 && embedding->rows == 49152);
    const struct gguf_tensor *down = gguf_find_tensor(file, "blk.29.ffn_down.weight");
    assert_true(down && down->type == GGUF_Q4_1 && down->dims[0] == 1536 && down->dims[1] == 576);
    gguf_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file), cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_changed_bytes), cmocka_unit_test(test_files),
        cmocka_unit_test(test_conversions), cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
