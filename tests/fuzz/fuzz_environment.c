/* SPDX-License-Identifier: Apache-2.0 */
/* Values of environment variables: a row of the table and any text. One that is accepted has the form that its row declares, read
 * here a second time; one that is not leaves the environment as it was, and a sentence of printable characters that names the
 * variable and what is accepted. */
#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "core/arch.h"
#include "core/environment.h"
#include "tests/fuzz/fuzz.h"

static bool is_boolean(const char *text)
{
    char padded[12] = " ";
    if (!*text || strlen(text) > 5 || strchr(text, ' '))
        return false;
    for (size_t i = 0; text[i]; i++)
        padded[i + 1] = (char)tolower((unsigned char)text[i]);
    strcat(padded, " ");
    return strstr(" 0 1 false true no yes off on ", padded);
}

static bool is_count(const char *text, int value)
{
    __int128 number = 0;
    for (const char *c = text; *c; c++) {
        if (!isdigit((unsigned char)*c) || number > INT_MAX)
            return false;
        number = 10 * number + (*c - '0');
    }
    return *text && number >= 1 && number <= INT_MAX && value == number;
}

/* Each word is one of the architectures, and there is no other: "90", "9.0", "sm_90", each with or without a letter. */
static bool are_archs(const char *text, const int32_t *archs)
{
    bool named[ENVIRONMENT_MAX_ARCHS] = {false};
    int words = 0;
    for (text += strspn(text, ",; "); *text; text += strspn(text, ",; "), words++) {
        size_t length = strcspn(text, ",; ");
        int found = -1;
        for (int i = 0; i < ENVIRONMENT_MAX_ARCHS && archs[i]; i++)
            for (int form = 0; form < 12; form++) {
                char word[32];
                snprintf(word, sizeof word, form & 1 ? "%s%d.%d%s" : "%s%d%d%s", form & 2 ? "sm_" : "", archs[i] / 10,
                         archs[i] % 10,
                         form >> 2 == 0   ? ""
                         : form >> 2 == 1 ? "a"
                                          : "f");
                if (strlen(word) == length && !memcmp(word, text, length))
                    found = i;
            }
        if (found < 0)
            return false;
        named[found] = true;
        text += length;
    }
    for (int i = 0; archs[i]; i++)
        FUZZ_CHECK(i < ENVIRONMENT_MAX_ARCHS && arch_find(archs[i]) && named[i], "%d", archs[i]);
    return words > 0;
}

static void check_accepted(const char *name, const char *text, const struct environment *env)
{
    struct stat status;
    if (!strcmp(name, "FLASHINFER_NUM_THREADS"))
        FUZZ_CHECK(is_count(text, env->num_threads), "%s gave %d", text, env->num_threads);
    else if (!strcmp(name, "FLASHINFER_DISABLE_JIT") || !strcmp(name, "FLASHINFER_VALIDATE_INPUTS"))
        FUZZ_CHECK(is_boolean(text), "%s", text);
    else if (!strcmp(name, "FLASHINFER_CUDA_ARCH_LIST"))
        FUZZ_CHECK(are_archs(text, env->archs), "%s gave %d first", text, env->archs[0]);
    else if (!strcmp(name, "TMPDIR"))
        FUZZ_CHECK(*text == '/' && !stat(text, &status) && S_ISDIR(status.st_mode), "%s", text);
    else if (!strcmp(name, "FLASHINFER_RECORD"))
        FUZZ_CHECK(strlen(text) <= 3000 && (!*text || text[strlen(text) - 1] != '/'), "%s", text);
    else if (strstr(name, "FLASHINFER_CACHE_DIR") || strstr(name, "FLASHINFER_WORKSPACE_BASE"))
        FUZZ_CHECK(strlen(text) <= 3000, "%zu bytes", strlen(text));
}

static void check_sentence(const char *name, const char *sentence)
{
    size_t length = strlen(name);
    FUZZ_CHECK(!strncmp(sentence, name, length) && strstr(sentence, " is \"") == sentence + length, "%s", sentence);
    FUZZ_CHECK(strstr(sentence, "\", must be ") || strstr(sentence, "\", names "), "%s", sentence);
    for (const char *c = sentence; *c; c++)
        FUZZ_CHECK(isprint((unsigned char)*c), "%s", sentence);
    FUZZ_CHECK(strstr(sentence, "; it is taken as unset"), "%s", sentence);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct environment_entry entry;
    struct environment env, before;
    char sentence[ENVIRONMENT_SENTENCE] = "", *text;
    int rows = 0;
    while (environment_entry(rows, &entry))
        rows++;
    int row = fuzz_below(&in, rows);
    environment_entry(row, &entry);
    text = calloc((size_t)(in.end - in.at) + 1, 1);
    FUZZ_CHECK(text, "out of memory");
    memcpy(text, in.at, (size_t)(in.end - in.at));
    memset(&env, 0x5a, sizeof env);
    env.disable_jit = env.validate_inputs = false;
    before = env;
    if (environment_accept(row, text, &env, sentence)) {
        check_accepted(entry.name, text, &env);
    } else {
        FUZZ_CHECK(!memcmp(&env, &before, sizeof env), "%s changed it", text);
        check_sentence(entry.name, sentence);
    }
    free(text);
    return 0;
}
