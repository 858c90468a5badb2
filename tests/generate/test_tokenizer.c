/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer of the model in the environment variable FLASHINFER_TEST_MODEL: ids equal to those of llama.cpp
 * that make_corpus_ids.py wrote, text that is not UTF-8, pieces, control tokens, the chat prompt, long words; and
 * small vocabularies built here that are refused. Runs from the root of the repository.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "examples/generate/tokenizer.h"
#include "examples/generate/utf8.h"
#include "gguf_bytes.h"

static struct tokenizer *tokenizer;

static int load_model(void **state)
{
    (void)state;
    const char *path = getenv("FLASHINFER_TEST_MODEL");
    char error[400] = "";
    struct gguf *file = path ? gguf_open(path, error, sizeof error) : NULL;
    tokenizer = file ? tokenizer_create(file, error, sizeof error) : NULL;
    gguf_close(file);
    if (path && !tokenizer) {
        print_error("%s\n", error);
    }
    return path && !tokenizer ? -1 : 0;
}

static int drop_model(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    return 0;
}

static void need_model(void)
{
    if (!tokenizer) {
        skip();
    }
}

/* The escapes of corpus.txt, in place: \n \r \t \\ \uXXXX \UXXXXXXXX. Returns the new length. */
static size_t unescape(char *line)
{
    char *out = line;
    for (const char *in = line; *in;) {
        if (*in != '\\') {
            *out++ = *in++;
            continue;
        }
        size_t digits = in[1] == 'u' ? 4 : in[1] == 'U' ? 8 : 0;
        char number[9] = "";
        memcpy(number, in + 2, digits);
        if (digits > 0) {
            out += utf8_encode((uint32_t)strtoul(number, NULL, 16), out);
        } else {
            *out++ = (char)(in[1] == 'n' ? '\n' : in[1] == 'r' ? '\r' : in[1] == 't' ? '\t' : in[1]);
        }
        in += 2 + digits;
    }
    return (size_t)(out - line);
}

static void check_ids(const char *text, size_t length, bool parse_special, const char *expected, const char *what)
{
    int32_t *ids;
    size_t count;
    assert_true(tokenizer_encode(tokenizer, text, length, parse_special, &ids, &count));
    char *end = (char *)(uintptr_t)expected;
    for (size_t i = 0; i < count; i++) {
        const char *number = end;
        long id = strtol(number, &end, 10);
        if (end == number || id != ids[i]) {
            fail_msg("%s: token %zu is %d, expected %ld of %s", what, i, ids[i], id, expected);
        }
    }
    if (*end && *end != '\n') {
        fail_msg("%s: %zu tokens, expected %s", what, count, expected);
    }
    free(ids);
}

/* The pieces of the ids of a text must be the text. */
static void check_pieces(const char *text, size_t length, const char *what)
{
    int32_t *ids;
    size_t count, at = 0;
    assert_true(tokenizer_encode(tokenizer, text, length, true, &ids, &count));
    for (size_t i = 0; i < count; i++) {
        struct gguf_string piece = tokenizer_piece(tokenizer, ids[i]);
        if (at + piece.length > length || memcmp(text + at, piece.data, piece.length) != 0) {
            fail_msg("%s: piece %zu differs from the text", what, i);
        }
        at += piece.length;
    }
    assert_int_equal(at, length);
    free(ids);
}

static void check_file(const char *text_path, const char *ids_path, int lines)
{
    need_model();
    FILE *texts = fopen(text_path, "r"), *ids = fopen(ids_path, "r");
    assert_true(texts && ids);
    char *text = NULL, *expected = NULL, what[80];
    size_t text_size = 0, expected_size = 0;
    int number = 0;
    for (ssize_t length; (length = getline(&text, &text_size, texts)) > 0;) {
        assert_true(getline(&expected, &expected_size, ids) > 0);
        text[length - 1] = 0;
        snprintf(what, sizeof what, "%s:%d", text_path, ++number);
        size_t size = unescape(text);
        check_ids(text, size, true, expected, what);
        check_pieces(text, size, what);
    }
    assert_int_equal(number, lines);
    assert_true(getline(&expected, &expected_size, ids) < 0);
    free(text);
    free(expected);
    fclose(texts);
    fclose(ids);
}

static void test_corpus(void **state)
{
    (void)state;
    check_file("tests/generate/corpus.txt", "tests/generate/corpus.ids", 85);
}

static void test_prompts(void **state)
{
    (void)state;
    check_file("tests/generate/prompts.txt", "tests/generate/prompts.ids", 8);
}

/* Expected ids: Llama.tokenize(text, add_bos=False, special=...) of llama-cpp-python 0.3.36. */
static void test_not_utf8(void **state)
{
    (void)state;
    need_model();
    static const struct {
        const char *text, *ids;
    } cases[] = {
        {"\xff", "24211"},
        {"a\xc3", "81 24211"},
        {"\xe2\x82 x", "24211 24211 1792"},
        {"\xed\xa0\x80", "184 250 218"},
        {"\xc0\x80z", "190 106"},
        {"\x80\x80", "24211 24211"},
        {"\xf0\x9f\x98", "24211 24211 24211"},
        {"ok \xf8\x88 \xe4\xb8\xad\xe4", "2231 216 24211 24211 216 28589 24211"},
        {"<|im_end|>\xc3<|im_end|>", "2 24211 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_ids(cases[i].text, strlen(cases[i].text), true, cases[i].ids, "text that is not UTF-8");
    }
    /* Beyond the last code point; llama.cpp throws. */
    check_ids("\xf4\x90\x80\x80", 4, true, "24211 24211 24211 24211", "beyond U+10FFFF");
    /* The vocabulary has no token for the bytes 0x04 and 0x1d. */
    check_ids("\x04" "a\x1d", 3, true, "81", "bytes without a token");
    check_ids("", 0, true, "", "empty text");
}

static void test_control_tokens(void **state)
{
    (void)state;
    need_model();
    check_ids("<|im_start|>user", 16, true, "1 4093", "parsed");
    check_ids("<|im_start|>user", 16, false, "44 108 306 79 3738 108 46 4093", "not parsed");
    assert_int_equal(tokenizer_vocabulary_size(tokenizer), 49152);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_true(tokenizer_is_end(tokenizer, 2));
    assert_true(tokenizer_is_end(tokenizer, 0));
    assert_false(tokenizer_is_end(tokenizer, 1));
    assert_false(tokenizer_is_end(tokenizer, -1));
    assert_int_equal(tokenizer_piece(tokenizer, -1).length, 0);
    assert_int_equal(tokenizer_piece(tokenizer, 49152).length, 0);
    struct gguf_string piece = tokenizer_piece(tokenizer, 2);
    assert_int_equal(piece.length, 10);
    assert_memory_equal(piece.data, "<|im_end|>", 10);
}

static void test_chat_prompt(void **state)
{
    (void)state;
    need_model();
    char *prompt = tokenizer_chat_prompt(tokenizer, NULL, "What is gravity?");
    assert_string_equal(prompt, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
                                "Face<|im_end|>\n<|im_start|>user\nWhat is gravity?<|im_end|>\n"
                                "<|im_start|>assistant\n");
    free(prompt);
    prompt = tokenizer_chat_prompt(tokenizer, "Be brief.", "Hi");
    assert_string_equal(prompt, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                                "<|im_start|>assistant\n");
    free(prompt);
}

static void test_long_words(void **state)
{
    (void)state;
    need_model();
    static const char *const units[] = {"x", "=", " ", "the", "\n", "\xff", "<|im_end|>", "1"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t unit = strlen(units[i]), length = 300000 / unit * unit, count;
        char *text = malloc(length);
        assert_non_null(text);
        for (size_t at = 0; at < length; at += unit) {
            memcpy(text + at, units[i], unit);
        }
        int32_t *ids;
        assert_true(tokenizer_encode(tokenizer, text, length, true, &ids, &count));
        assert_true(count >= length / 1024 && count <= length);
        free(ids);
        free(text);
    }
}

static void test_utf8_stream(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z\xff\xe2\x28\xc3";
    static const char expected[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd";
    for (size_t chunk = 1; chunk < sizeof text; chunk++) {
        struct utf8_stream stream = {.count = 0};
        char out[3 * (sizeof text + 3)], all[64];
        size_t total = 0;
        for (size_t at = 0; at < sizeof text - 1; at += chunk) {
            size_t length = sizeof text - 1 - at < chunk ? sizeof text - 1 - at : chunk;
            size_t written = utf8_stream_push(&stream, text + at, length, out);
            memcpy(all + total, out, written);
            total += written;
        }
        total += utf8_stream_finish(&stream, all + total);
        assert_int_equal(total, sizeof expected - 1);
        assert_memory_equal(all, expected, total);
    }
}

/* A file with the vocabulary a, b, ab, and the merges and types given. */
static void expect_refusal(const char *model, const char *pre, const char *merge, uint64_t types, const char *reason)
{
    static const char *const tokens[] = {"a", "b", "ab"};
    struct bytes bytes = {.size = 0};
    put(&bytes, "GGUF\3\0\0", 8);
    put_u64(&bytes, 0);
    put_u64(&bytes, 5);
    put_key(&bytes, "tokenizer.ggml.model", STRING);
    put_string(&bytes, model);
    put_key(&bytes, "tokenizer.ggml.pre", STRING);
    put_string(&bytes, pre);
    put_key(&bytes, "tokenizer.ggml.tokens", ARRAY);
    put_u32(&bytes, STRING);
    put_u64(&bytes, 3);
    for (int i = 0; i < 3; i++) {
        put_string(&bytes, tokens[i]);
    }
    put_key(&bytes, "tokenizer.ggml.merges", ARRAY);
    put_u32(&bytes, STRING);
    put_u64(&bytes, 1);
    put_string(&bytes, merge);
    put_key(&bytes, "tokenizer.ggml.token_type", ARRAY);
    put_u32(&bytes, INT32);
    put_u64(&bytes, types);
    put(&bytes, (int32_t[]){1, 1, 1}, 4 * types);
    char error[400] = "";
    struct gguf *file = gguf_open_memory(bytes.data, bytes.size, "tiny.gguf", error, sizeof error);
    assert_non_null(file);
    struct tokenizer *tiny = tokenizer_create(file, error, sizeof error);
    assert_true((tiny == NULL) == (reason != NULL));
    assert_true(!reason || (strncmp(error, "tiny.gguf: ", 11) == 0 && strstr(error, reason)));
    tokenizer_destroy(tiny);
    gguf_close(file);
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refusal("gpt2", "smollm", "a b", 3, NULL);
    expect_refusal("llama", "smollm", "a b", 3, "only the tokenizer 'gpt2'");
    expect_refusal("gpt2", "qwen2", "a b", 3, "pre-tokenizer 'smollm'");
    expect_refusal("gpt2", "smollm", "b a", 3, "entry 0 of 'tokenizer.ggml.merges'");
    expect_refusal("gpt2", "smollm", "a c", 3, "not a pair of tokens");
    expect_refusal("gpt2", "smollm", "ab", 3, "not a pair of tokens");
    expect_refusal("gpt2", "smollm", "", 3, "not a pair of tokens");
    expect_refusal("gpt2", "smollm", "a b", 2, "differ in length");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),      cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_not_utf8),    cmocka_unit_test(test_control_tokens),
        cmocka_unit_test(test_chat_prompt), cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_utf8_stream), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, load_model, drop_model);
}
