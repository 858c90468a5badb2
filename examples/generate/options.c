/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of generate: text of --help, defaults, and what is accepted. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const default_prompts[] = {
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about a lighthouse keeper who has never seen the sea in daylight.",
    ("I have three apples, give one to Anna and two to Ben, and then buy a bag of five apples at the market. "
    "On the way home I eat one of them. How many apples do I have now? Explain step by step."),
    "List three facts about the planet Saturn.",
    "Translate into German: Good morning, my friend.",
};

static const char help[] =
    "usage: generate --model FILE.gguf [OPTION ...]\n"
    "\n"
    "Serves a LLaMA-type language model: all requests run as one continuous batch over a paged KV cache, text is\n"
    "printed as it comes. Every kernel is compiled when it is first needed, and cached.\n"
    "\n"
    "  --model FILE        GGUF file: architecture llama, tensors F32, F16, BF16, Q8_0 or Q4_1\n"
    "  --prompt TEXT       a request; may be given up to 256 times (default: six of its own)\n"
    "  --requests N        serve N requests, taking the prompts over and over (default: one each)\n"
    "  --batch N           requests running at a time; the others wait (default 4)\n"
    "  --max-tokens N      tokens generated per request (default 96)\n"
    "  --temperature X     0 picks the likeliest token (default 0)\n"
    "  --top-p X           sample among the likeliest tokens that hold this share, in (0, 1] (default 0.9)\n"
    "  --seed N            the same seed gives the same text (default 0)\n"
    "  --device cpu|cuda   default: cuda where there is a GPU and its driver\n"
    "  --dtype f16|bf16    of weights, activations and KV cache (default bf16)\n"
    "  --threads N         CPU threads (default: all that this process may use)\n"
    "  --raw               prompts as they are, without the chat template\n"
    "  --ignore-end        generate all --max-tokens tokens, whatever the model says\n"
    "  --quiet             no text, only the figures at the end\n"
    "  --prompt-ids FILE   token ids, one prompt a line; no text is generated, and ...\n"
    "  --logits-out FILE   ... the logits of the last 32 positions of each are written here: two 32-bit counts (rows,\n"
    "                      vocabulary), then float32, little endian\n"
    "  --help              this text\n"
    "\n"
    "Exit status: 0, or 2 if an argument or the model file cannot be used, or 1 if the run failed.\n";

enum option_code { MODEL = 256, PROMPT, REQUESTS, BATCH, MAX_TOKENS, TEMPERATURE, TOP_P, SEED, DEVICE, DTYPE, THREADS, RAW,
                   IGNORE_END, QUIET, PROMPT_IDS, LOGITS_OUT, HELP };

static const struct option names[] = {
    {"model", required_argument, NULL, MODEL},
    {"prompt", required_argument, NULL, PROMPT},
    {"requests", required_argument, NULL, REQUESTS},
    {"batch", required_argument, NULL, BATCH},
    {"max-tokens", required_argument, NULL, MAX_TOKENS},
    {"temperature", required_argument, NULL, TEMPERATURE},
    {"top-p", required_argument, NULL, TOP_P},
    {"seed", required_argument, NULL, SEED},
    {"device", required_argument, NULL, DEVICE},
    {"dtype", required_argument, NULL, DTYPE},
    {"threads", required_argument, NULL, THREADS},
    {"raw", no_argument, NULL, RAW},
    {"ignore-end", no_argument, NULL, IGNORE_END},
    {"quiet", no_argument, NULL, QUIET},
    {"prompt-ids", required_argument, NULL, PROMPT_IDS},
    {"logits-out", required_argument, NULL, LOGITS_OUT},
    {"help", no_argument, NULL, HELP},
    {0},
};

static bool parse_int(const char *name, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(optarg, &end, 10);
    if (errno || end == optarg || *end || value < lo || value > hi) {
        fprintf(stderr, "generate: --%s is '%s', must be an integer from %lld to %lld\n", name, optarg, (long long)lo,
                (long long)hi);
        return false;
    }
    *out = value;
    return true;
}

static bool parse_number(const char *name, double lo, double hi, double *out)
{
    char *end;
    double value = strtod(optarg, &end);
    if (end == optarg || *end || !(value >= lo && value <= hi)) {
        fprintf(stderr, "generate: --%s is '%s', must be a number from %g to %g\n", name, optarg, lo, hi);
        return false;
    }
    *out = value;
    return true;
}

static bool parse_choice(const char *name, const char *a, const char *b, const char **out)
{
    if (strcmp(optarg, a) && strcmp(optarg, b)) {
        fprintf(stderr, "generate: --%s is '%s', must be %s or %s\n", name, optarg, a, b);
        return false;
    }
    *out = optarg;
    return true;
}

static bool parse_one(struct options *o, int option)
{
    int64_t n = 0;
    bool ok = true;
    switch (option) {
    case MODEL: o->model = optarg; break;
    case PROMPT:
        if (o->num_prompts == MAX_PROMPTS) {
            fprintf(stderr, "generate: more than %d prompts\n", MAX_PROMPTS);
            return false;
        }
        o->prompt[o->num_prompts++] = optarg;
        break;
    case REQUESTS: ok = parse_int("requests", 1, 100000, &n); o->requests = (int)n; break;
    case BATCH: ok = parse_int("batch", 1, 1024, &n); o->batch = (int)n; break;
    case MAX_TOKENS: ok = parse_int("max-tokens", 1, 1000000, &n); o->max_tokens = (int)n; break;
    case TEMPERATURE: ok = parse_number("temperature", 0, 100, &o->temperature); break;
    case TOP_P: ok = parse_number("top-p", 1e-6, 1, &o->top_p); break;
    case SEED: ok = parse_int("seed", 0, INT64_MAX, &o->seed); break;
    case DEVICE: ok = parse_choice("device", "cpu", "cuda", &o->device); break;
    case DTYPE: ok = parse_choice("dtype", "f16", "bf16", &o->dtype); break;
    case THREADS: ok = parse_int("threads", 1, 4096, &n); o->threads = (int)n; break;
    case RAW: o->raw = true; break;
    case IGNORE_END: o->ignore_end = true; break;
    case QUIET: o->quiet = true; break;
    case PROMPT_IDS: o->prompt_ids = optarg; break;
    case LOGITS_OUT: o->logits_out = optarg; break;
    default: return false; /* getopt_long has said why */
    }
    return ok;
}

int options_parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.batch = 4, .max_tokens = 96, .top_p = 0.9, .device = "", .dtype = "bf16"};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == HELP) {
            fputs(help, stdout);
            return 0;
        }
        if (!parse_one(o, option)) {
            fputs("generate: see generate --help\n", stderr);
            return 2;
        }
    }
    const char *wrong = optind < argc                         ? "arguments without a name are not taken"
                        : !o->model                           ? "--model is missing"
                        : !o->prompt_ids != !o->logits_out    ? "--prompt-ids and --logits-out go together"
                        : o->prompt_ids && o->num_prompts > 0 ? "--prompt-ids and --prompt exclude each other"
                                                              : NULL;
    if (wrong) {
        fprintf(stderr, "generate: %s; see generate --help\n", wrong);
        return 2;
    }
    if (o->num_prompts == 0) {
        o->num_prompts = (int)(sizeof default_prompts / sizeof *default_prompts);
        memcpy(o->prompt, default_prompts, sizeof default_prompts);
    }
    if (o->requests == 0)
        o->requests = o->num_prompts;
    return -1;
}
