/* SPDX-License-Identifier: Apache-2.0 */
/* Serves requests as one continuous batch and prints their text as it comes. */
#ifndef GENERATE_SERVE_H
#define GENERATE_SERVE_H

#include "model.h"
#include "options.h"
#include "requests.h"
#include "tokenizer.h"

struct figures {
    double seconds;                         /* of all steps */
    double prefill_seconds, decode_seconds; /* of steps with prompt tokens; of steps without */
    int64_t prefill_tokens, decode_tokens;  /* prompt tokens computed; tokens drawn in steps without any */
    int64_t generated_tokens;
    int steps;
};

/* Runs every request to its end. False on failure, with one sentence. */
bool serve(struct model *model, struct batch *batch, const struct tokenizer *tokenizer, const struct options *options,
           struct figures *figures, char *error, size_t error_size);

double now_seconds(void);

#endif
