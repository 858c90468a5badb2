/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of src/op/op.h, read a second time: evaluates while it parses, in 128 bits, by other code than the library's, so
 * that the two can be compared. */
#ifndef TESTS_FUZZ_GRAMMAR_H
#define TESTS_FUZZ_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

enum grammar_outcome {
    GRAMMAR_WRONG,    /* it does not parse, or names what is unknown */
    GRAMMAR_TOO_DEEP, /* for this reader */
    GRAMMAR_NO_VALUE, /* it overflows or divides by zero */
    GRAMMAR_VALUE
};

/* False if there is no such name. */
typedef bool (*grammar_lookup)(void *context, const char *name, int length, int64_t *value);

enum grammar_outcome grammar_evaluate(const char *text, int length, grammar_lookup lookup, void *context, int64_t *value);

/* "NHD: a b | HND: b a": the part that holds if the choosing argument has the name `label`; the whole text without labels.
 * False if there is none. */
bool grammar_alternative(const char *shape, const char *label, int label_length, const char **text, int *length);

/* The next axis of a shape, from *text on; false if there is none. */
bool grammar_axis(const char **text, int *left, const char **axis, int *length);

#endif
