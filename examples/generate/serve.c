/* SPDX-License-Identifier: Apache-2.0 */
/* The serving loop: fill a step, run it, stream what was drawn. Requests share the screen: each has a colour and a number, and
 * prints a line whenever it has one. */
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "utf8.h"

enum { LINE_WIDTH = 100 };

struct stream {
    struct utf8_stream utf8; /* holds back the start of a character whose end is still to come */
    char line[4 * LINE_WIDTH];
    size_t length;
    int printed; /* tokens of the request that went through */
};

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints the first `length` bytes of the line and keeps the rest. */
static void print_line(struct stream *s, int number, size_t length)
{
    if (isatty(STDOUT_FILENO))
        printf("\033[%dm[%d]\033[0m %.*s\n", 31 + number % 6, number + 1, (int)length, s->line);
    else
        printf("[%d] %.*s\n", number + 1, (int)length, s->line);
    fflush(stdout);
    size_t skip = length < s->length && (s->line[length] == ' ' || s->line[length] == '\n');
    s->length -= length + skip;
    memmove(s->line, s->line + length + skip, s->length);
}

static void print_text(struct stream *s, int number, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        s->line[s->length++] = text[i];
        if (text[i] == '\n') {
            print_line(s, number, s->length - 1);
        } else if (s->length > LINE_WIDTH) {
            size_t end = s->length - 1;
            while (end > 0 && s->line[end] != ' ')
                end--;
            if (end > 0)
                print_line(s, number, end);
            else if (s->length == sizeof s->line)
                print_line(s, number, s->length);
        }
    }
}

static void print_piece(struct stream *s, int number, struct gguf_string piece)
{
    enum { CHUNK = 256 };
    char text[3 * (CHUNK + 3)];
    for (size_t at = 0; at < piece.length; at += CHUNK) {
        size_t length = piece.length - at < CHUNK ? piece.length - at : CHUNK;
        print_text(s, number, text, utf8_stream_push(&s->utf8, piece.data + at, length, text));
    }
}

static void print_end(struct stream *s, int number)
{
    char text[9];
    print_text(s, number, text, utf8_stream_finish(&s->utf8, text));
    if (s->length > 0)
        print_line(s, number, s->length);
}

static void stream_text(const struct batch *batch, struct stream *streams, const struct tokenizer *tokenizer)
{
    for (int i = 0; i < batch->num_running; i++) {
        struct request *r = batch->running[i];
        int number = (int)(r - batch->waiting);
        struct stream *s = &streams[number];
        for (int at = s->printed > r->num_prompt ? s->printed : r->num_prompt; at < r->num_tokens; at++)
            if (!tokenizer_is_end(tokenizer, r->tokens[at]))
                print_piece(s, number, tokenizer_piece(tokenizer, r->tokens[at]));
        s->printed = r->num_tokens;
        if (r->done)
            print_end(s, number);
    }
}

/* After a step: marks replies that ended by themselves, notes times, counts. */
static void account(struct batch *batch, const struct step *step, const struct tokenizer *tokenizer,
                    const struct options *options, double seconds, struct figures *f)
{
    f->steps++;
    f->seconds += seconds;
    bool is_decode = step->num_tokens == step->num_requests;
    for (int i = 0; i < batch->num_running; i++) {
        struct request *r = batch->running[i];
        int prompt_tokens = step->qo_indptr[i + 1] - step->qo_indptr[i];
        bool has_drawn = r->num_tokens > r->num_cached;
        if (has_drawn && r->num_tokens > r->num_prompt + 1)
            prompt_tokens = 0;
        is_decode = is_decode && prompt_tokens == 0;
        f->prefill_tokens += prompt_tokens;
        if (!has_drawn)
            continue;
        f->generated_tokens++;
        if (prompt_tokens > 0)
            r->first_token_at = f->seconds;
        if (!options->ignore_end && tokenizer_is_end(tokenizer, r->tokens[r->num_tokens - 1]))
            r->done = true;
    }
    if (is_decode) {
        f->decode_seconds += seconds;
        f->decode_tokens += step->num_requests;
    } else {
        f->prefill_seconds += seconds;
    }
}

bool serve(struct model *model, struct batch *batch, const struct tokenizer *tokenizer, const struct options *options,
           struct figures *figures, char *error, size_t error_size)
{
    *figures = (struct figures){0};
    struct step *step = model_input(model);
    struct stream *streams = calloc((size_t)batch->num_requests, sizeof *streams);
    int32_t *next = malloc(sizeof *next * (size_t)batch->limits.requests);
    bool ok = streams && next;
    if (!ok)
        snprintf(error, error_size, "no memory for %d requests", batch->num_requests);
    while (ok && batch_fill(batch, step, options->seed)) {
        double begun = now_seconds();
        ok = model_step(model, next, error, error_size);
        if (!ok)
            break;
        double ended = now_seconds();
        batch_advance(batch, step, next);
        account(batch, step, tokenizer, options, ended - begun, figures);
        if (!options->quiet)
            stream_text(batch, streams, tokenizer);
    }
    free(streams);
    free(next);
    return ok;
}
