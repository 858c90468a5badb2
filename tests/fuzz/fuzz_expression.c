/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions over dimensions: any text, and values for the names a to h. The library's compiler and evaluator must agree with a
 * reader that shares no code with them, and what the compiler says of an expression's form must be true of its value. */
#include <string.h>

#include "op/expression.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/grammar.h"

enum { NAMES = 8 };

static bool is_name(const char *name, int length)
{
    return length == 1 && name[0] >= 'a' && name[0] < 'a' + NAMES;
}

static int resolve(void *context, const char *name, int length)
{
    (void)context;
    return is_name(name, length) ? name[0] - 'a' : -1;
}

static bool lookup(void *values, const char *name, int length, int64_t *value)
{
    bool known = is_name(name, length);
    if (known)
        *value = ((const int64_t *)values)[name[0] - 'a'];
    return known;
}

/* Small numbers, numbers near the ends of the range, any. */
static int64_t take_value(struct fuzz_input *in)
{
    int how = fuzz_byte(in);
    if (how < 192)
        return how - 64;
    if (how < 224)
        return (int64_t)((uint64_t)INT64_MAX + (uint64_t)how - 208);
    return (int64_t)fuzz_bytes(in, 8);
}

static void check_form(const struct expression *e, const int64_t *symbols, int64_t value)
{
    if (e->symbol >= 0)
        FUZZ_CHECK(symbols[e->symbol] == value, "said to be symbol %d", e->symbol);
    if (e->linear >= 0)
        FUZZ_CHECK((__int128)e->scale * symbols[e->linear] + e->offset == value, "said to be linear");
    if (e->is_constant)
        FUZZ_CHECK(e->offset == value, "said to be %lld", (long long)e->offset);
    if (e->quotient >= 0) {
        __int128 rest = symbols[e->quotient] - (__int128)value * e->divisor;
        FUZZ_CHECK(e->divisor > 0 && rest >= 0 && rest < e->divisor, "said to be a quotient");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    int64_t symbols[64] = {0}, value = 0, expected = 0;
    struct expression_step steps[EXPRESSION_MAX_STEPS];
    struct expression e;
    for (int i = 0; i < NAMES; i++)
        symbols[i] = take_value(&in);
    int length = (int)(in.end - in.at);
    char *text = malloc((size_t)length + !length);
    FUZZ_CHECK(text, "out of memory");
    memcpy(text, in.at, (size_t)length);

    const char *error = expression_compile(&e, text, length, resolve, NULL, steps, EXPRESSION_MAX_STEPS);
    enum grammar_outcome outcome = grammar_evaluate(text, length, lookup, symbols, &expected);
    bool limit = error && (strstr(error, "too deep") || strstr(error, "too long"));
    if (!limit && outcome != GRAMMAR_TOO_DEEP)
        FUZZ_CHECK(!error == (outcome != GRAMMAR_WRONG), "%.*s: %s", length, text, error ? error : "compiles");
    if (!error) {
        bool exists = expression_evaluate(&e, symbols, &value);
        FUZZ_CHECK(exists == (outcome == GRAMMAR_VALUE), "%.*s: %d", length, text, exists);
        FUZZ_CHECK(!exists || value == expected, "%.*s: %lld, not %lld", length, text, (long long)value, (long long)expected);
        if (exists)
            check_form(&e, symbols, value);
    }
    free(text);
    return 0;
}
