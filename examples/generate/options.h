/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of generate. */
#ifndef GENERATE_OPTIONS_H
#define GENERATE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum { MAX_PROMPTS = 256 };

struct options {
    const char *model;             /* GGUF file */
    const char *prompt[MAX_PROMPTS];
    int num_prompts;
    int requests;                  /* how many requests are served: the prompts, over and over */
    int batch;                     /* requests running at a time */
    int max_tokens;                /* generated per request */
    double temperature, top_p;
    int64_t seed;
    int threads;                   /* 0: the library's default */
    const char *device;            /* "cpu", "cuda", or "" for cuda where there is one */
    const char *dtype;             /* "f16" or "bf16" */
    bool raw;                      /* prompts as they are, without the chat template */
    bool ignore_end;               /* generate max_tokens whatever the model says */
    bool quiet;                    /* figures only */
    const char *prompt_ids;        /* file of token ids, a prompt a line, teacher-forced */
    const char *logits_out;        /* where their logits go */
};

/* Fills options from the command line. -1: go on; otherwise exit with that code (0 after --help). */
int options_parse(struct options *options, int argc, char **argv);

#endif
