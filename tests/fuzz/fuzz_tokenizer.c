/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer of the example on any vocabulary and any text. The input is a byte of options, then, each ended by a line
 * break, tokens (the first byte of each tells its type) up to an empty line, merges up to an empty line, a chat template, and
 * the text. Ids must lie in the vocabulary; with a token for every byte, the pieces must be the text again. */
#include <string.h>

#include "examples/generate/tokenizer.h"
#include "tests/fuzz/fuzz.h"

enum { UINT32_TYPE = 4, INT32_TYPE = 5, STRING_TYPE = 8, ARRAY_TYPE = 9, MAX_LINES = 400, MAX_BYTES = 1 << 16 };
enum { PARSE_SPECIAL = 1, WITH_TYPES = 2, WITH_BYTES = 4, WITH_EOS = 8 };

struct lines {
    struct gguf_string line[MAX_LINES];
    int count;
};

static struct {
    _Alignas(8) unsigned char data[MAX_BYTES];
    size_t size;
} file;

static void put(const void *data, size_t size)
{
    FUZZ_CHECK(size <= sizeof file.data - file.size, "the file is too large");
    memcpy(file.data + file.size, data, size);
    file.size += size;
}

static void put_u32(uint32_t value)
{
    put(&value, sizeof value);
}

static void put_string(struct gguf_string string)
{
    put(&(uint64_t){string.length}, sizeof(uint64_t));
    put(string.data, string.length);
}

static void put_text(const char *text)
{
    put_string((struct gguf_string){text, strlen(text)});
}

static void put_strings(const char *key, const struct lines *lines)
{
    put_text(key);
    put_u32(ARRAY_TYPE);
    put_u32(STRING_TYPE);
    put(&(uint64_t){(uint64_t)lines->count}, sizeof(uint64_t));
    for (int i = 0; i < lines->count; i++)
        put_string(lines->line[i]);
}

static void put_entry(const char *key, struct gguf_string value)
{
    put_text(key);
    put_u32(STRING_TYPE);
    put_string(value);
}

/* The characters that stand for the 256 bytes, as GGUF writes them: two bytes of UTF-8 each. */
static void add_byte_tokens(struct lines *tokens)
{
    static char text[256][2];
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        unsigned character = printable ? byte : next++;
        bool ascii = character < 0x80;
        text[byte][0] = (char)(ascii ? character : 0xc0 | character >> 6);
        text[byte][1] = (char)(0x80 | (character & 0x3f));
        tokens->line[tokens->count++] = (struct gguf_string){text[byte], ascii ? 1 : 2};
    }
}

static void take_lines(struct fuzz_input *in, struct lines *out, int32_t *types)
{
    while (in->at < in->end && out->count < MAX_LINES) {
        size_t length;
        const char *text = fuzz_until(in, '\n', &length);
        if (length == 0)
            return;
        if (types)
            types[out->count] = text[0] & 7;
        out->line[out->count++] = (struct gguf_string){text + (types != NULL), length - (types != NULL)};
    }
}

static void write_file(const struct lines *tokens, const struct lines *merges, const int32_t *types, struct gguf_string template,
                       int options)
{
    uint64_t entries = 5 + (options & WITH_TYPES ? 1 : 0) + (options & WITH_EOS ? 1 : 0);
    file.size = 0;
    put("GGUF", 4);
    put_u32(3);
    put(&(uint64_t){0}, sizeof(uint64_t));
    put(&entries, sizeof entries);
    put_entry("tokenizer.ggml.model", (struct gguf_string){"gpt2", 4});
    put_entry("tokenizer.ggml.pre", (struct gguf_string){"smollm", 6});
    put_entry("tokenizer.chat_template", template);
    put_strings("tokenizer.ggml.tokens", tokens);
    put_strings("tokenizer.ggml.merges", merges);
    if (options & WITH_TYPES) {
        put_text("tokenizer.ggml.token_type");
        put_u32(ARRAY_TYPE);
        put_u32(INT32_TYPE);
        put(&(uint64_t){(uint64_t)tokens->count}, sizeof(uint64_t));
        put(types, (size_t)tokens->count * sizeof *types);
    }
    if (options & WITH_EOS) {
        put_text("tokenizer.ggml.eos_token_id");
        put_u32(UINT32_TYPE);
        put_u32((uint32_t)tokens->count - 1);
    }
}

/* Each character in its shortest form, no surrogates. */
static bool is_utf8(struct gguf_string s)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < s.length;) {
        unsigned char first = (unsigned char)s.data[at];
        unsigned length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
        uint32_t character = length == 1 ? first : first & (0x7fu >> length);
        if (length == 0 || length > s.length - at)
            return false;
        for (unsigned i = 1; i < length; i++) {
            if (((unsigned char)s.data[at + i] & 0xc0) != 0x80)
                return false;
            character = character << 6 | ((unsigned char)s.data[at + i] & 0x3f);
        }
        if (character < least[length] || character > 0x10ffff || (character >= 0xd800 && character < 0xe000))
            return false;
        at += length;
    }
    return true;
}

static void encode(const struct tokenizer *tokenizer, struct gguf_string text, bool parse_special, bool comes_back)
{
    int32_t *ids;
    size_t count, at = 0;
    FUZZ_CHECK(tokenizer_encode(tokenizer, text.data, text.length, parse_special, &ids, &count), "out of memory");
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < tokenizer_vocabulary_size(tokenizer), "id %d", ids[i]);
        struct gguf_string piece = tokenizer_piece(tokenizer, ids[i]);
        bool same = piece.length <= text.length - at && !memcmp(piece.data, text.data + at, piece.length);
        FUZZ_CHECK(!comes_back || same, "piece %zu, id %d, is not the text at byte %zu", i, ids[i], at);
        at += comes_back ? piece.length : 0;
    }
    FUZZ_CHECK(!comes_back || at == text.length, "%zu of %zu bytes", at, text.length);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lines tokens, merges;
    static int32_t types[MAX_LINES];
    struct fuzz_input in = {data, data + size};
    char error[300] = "";
    int options = fuzz_byte(&in);
    tokens.count = merges.count = 0;
    memset(types, 0, sizeof types);
    if (size > MAX_BYTES / 8)
        return -1;
    if (options & WITH_BYTES)
        add_byte_tokens(&tokens);
    take_lines(&in, &tokens, types);
    take_lines(&in, &merges, NULL);
    struct gguf_string template, text = {(const char *)in.at, 0};
    template.data = fuzz_until(&in, '\n', &template.length);
    text = (struct gguf_string){(const char *)in.at, (size_t)(in.end - in.at)};

    write_file(&tokens, &merges, types, template, options);
    struct gguf *gguf = gguf_open_memory(file.data, file.size, "model.gguf", error, sizeof error);
    FUZZ_CHECK(gguf, "%s", error);
    struct tokenizer *tokenizer = tokenizer_create(gguf, error, sizeof error);
    gguf_close(gguf);
    FUZZ_CHECK(tokenizer || !strncmp(error, "model.gguf: ", 12), "%s", error);
    if (!tokenizer)
        return 0;
    bool comes_back = options & WITH_BYTES && !(options & WITH_TYPES) && is_utf8(text);
    for (int i = 0; i < tokens.count; i++)
        comes_back = comes_back && is_utf8(tokens.line[i]);
    encode(tokenizer, text, options & PARSE_SPECIAL, comes_back);
    char *user = strndup(text.data, text.length), *prompt = tokenizer_chat_prompt(tokenizer, NULL, user);
    FUZZ_CHECK(user && prompt && strstr(prompt, user), "the prompt lacks the user's message");
    free(prompt);
    free(user);
    tokenizer_destroy(tokenizer);
    return 0;
}
