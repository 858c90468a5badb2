/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share: an input that is taken apart from its start and gives zeros when it has ended, and a check
 * that ends the process, which is how libFuzzer learns of a defect. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct fuzz_input {
    const uint8_t *at, *end;
};

static inline uint64_t fuzz_bytes(struct fuzz_input *in, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << 8 * i;
    return value;
}

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    return (uint8_t)fuzz_bytes(in, 1);
}

/* In [0, n), n at most 256. */
static inline int fuzz_below(struct fuzz_input *in, int n)
{
    return n > 0 ? fuzz_byte(in) % n : 0;
}

/* Everything up to the separator, which is dropped, or to the end. */
static inline const char *fuzz_until(struct fuzz_input *in, uint8_t separator, size_t *length)
{
    const uint8_t *start = in->at;
    while (in->at < in->end && *in->at != separator)
        in->at++;
    *length = (size_t)(in->at - start);
    in->at += in->at < in->end;
    return (const char *)start;
}

#define FUZZ_CHECK(condition, ...)                                          \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                   \
            fputc('\n', stderr);                                            \
            abort();                                                        \
        }                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
