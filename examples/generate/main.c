/* SPDX-License-Identifier: Apache-2.0 */
/* generate: a language model on this library's kernels, served as one continuous batch. See generate --help. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"
#include "serve.h"
#include "teacher.h"

enum { STEP_TOKENS = 512, TEACHER_TOKENS = 1024 };

struct program {
    struct options options;
    struct machine machine;
    struct gguf *file;
    struct tokenizer *tokenizer;
    struct request *requests;
    struct limits limits;
    struct model *model;
    double load_seconds;
    char error[4096];
};

static int complain(const struct program *p, int status)
{
    fprintf(stderr, "generate: %s\n", p->error);
    return status;
}

/* Tokens of request i's prompt; false if memory runs out or the prompt has none. */
static bool encode_prompt(struct program *p, int i)
{
    const char *text = p->options.prompt[i % p->options.num_prompts];
    char *chat = p->options.raw ? NULL : tokenizer_chat_prompt(p->tokenizer, NULL, text);
    const char *whole = chat ? chat : text;
    int32_t *ids = NULL;
    size_t count = 0;
    bool ok = tokenizer_encode(p->tokenizer, whole, strlen(whole), !p->options.raw, &ids, &count) && count > 0;
    free(chat);
    if (!ok || count > INT32_MAX / 2) {
        free(ids);
        snprintf(p->error, sizeof p->error, "prompt %d is %s", i + 1, ok ? "too long" : "empty");
        return false;
    }
    struct request *r = &p->requests[i];
    r->num_prompt = r->num_tokens = (int)count;
    r->max_tokens = (int)count + p->options.max_tokens;
    r->tokens = realloc(ids, sizeof *ids * (size_t)r->max_tokens);
    r->pages = malloc(sizeof *r->pages * (size_t)pages_of(r->max_tokens));
    if (!r->tokens || !r->pages) {
        snprintf(p->error, sizeof p->error, "no memory for %d tokens", r->max_tokens);
        return false;
    }
    return true;
}

/* Tokenises the prompts, and derives how large a step and the cache must be. */
static bool prepare_requests(struct program *p)
{
    const struct options *o = &p->options;
    int longest = 0;
    p->requests = calloc((size_t)o->requests, sizeof *p->requests);
    if (!p->requests) {
        snprintf(p->error, sizeof p->error, "no memory for %d requests", o->requests);
        return false;
    }
    for (int i = 0; i < o->requests; i++) {
        if (!encode_prompt(p, i))
            return false;
        if (p->requests[i].max_tokens > longest)
            longest = p->requests[i].max_tokens;
    }
    int batch = o->batch < o->requests ? o->batch : o->requests;
    p->limits = (struct limits){.requests = batch,
                                .tokens = batch > STEP_TOKENS / 2 ? 2 * batch : STEP_TOKENS,
                                .request_tokens = longest,
                                .pages = batch * pages_of(longest)};
    return true;
}

static bool load(struct program *p)
{
    double begun = now_seconds();
    struct model_options options = {.limits = p->limits,
                                    .bf16 = strcmp(p->options.dtype, "bf16") == 0,
                                    .threads = p->options.threads,
                                    .temperature = p->options.temperature,
                                    .top_p = p->options.top_p};
    p->model = model_create(p->file, &p->machine, &options, p->error, sizeof p->error);
    p->load_seconds = now_seconds() - begun;
    return p->model != NULL;
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void print_figures(const struct program *p, const struct batch *batch, const struct figures *f)
{
    double *first = malloc(sizeof *first * (size_t)batch->num_requests);
    int64_t shared = 0;
    for (int i = 0; i < batch->num_requests; i++) {
        shared += (int64_t)batch->waiting[i].num_shared * PAGE_SIZE;
        if (first)
            first[i] = batch->waiting[i].first_token_at;
    }
    struct flashinfer_jit_statistics jit = {.size = sizeof jit};
    flashinfer_jit_statistics(&jit);
    printf("\n%s, %s, %d requests, at most %d at a time, %d steps in %.2f s (weights loaded in %.2f s)\n", p->machine.name,
           p->options.dtype, batch->num_requests, batch->most_running, f->steps, f->seconds, p->load_seconds);
    printf("prefill              %8.1f tokens/s  (%lld tokens%s; %lld more were shared with a running request)\n",
           f->prefill_seconds > 0 ? (double)f->prefill_tokens / f->prefill_seconds : 0.0, (long long)f->prefill_tokens,
           jit.compiled ? ", compiling included" : "", (long long)shared);
    printf("decode               %8.1f tokens/s  (%lld tokens in steps without a prompt)\n",
           f->decode_seconds > 0 ? (double)f->decode_tokens / f->decode_seconds : 0.0, (long long)f->decode_tokens);
    if (first) {
        qsort(first, (size_t)batch->num_requests, sizeof *first, by_value);
        printf("time to first token  %8.1f ms median, %.1f ms at most\n", 1e3 * first[batch->num_requests / 2],
               1e3 * first[batch->num_requests - 1]);
    }
    printf("KV cache             %8d of %d pages used at most, %d tokens a page\n", batch->pool.most_used, batch->pool.num_pages,
           PAGE_SIZE);
    printf("kernels              %8llu compiled in %.2f s, %llu from the disk cache in %.1f ms, %llu from a pack\n",
           (unsigned long long)jit.compiled, jit.compile_seconds, (unsigned long long)jit.loaded, 1e3 * jit.load_seconds,
           (unsigned long long)jit.packed);
    free(first);
}

static int run_server(struct program *p)
{
    struct batch batch;
    struct figures figures;
    if (!prepare_requests(p))
        return complain(p, 2);
    if (p->limits.request_tokens > model_context_length(p->file)) {
        snprintf(p->error, sizeof p->error, "a prompt and its reply have up to %d tokens, the model was trained on %d",
                 p->limits.request_tokens, model_context_length(p->file));
        return complain(p, 2);
    }
    if (!load(p))
        return complain(p, 2);
    if (!batch_create(&batch, p->requests, p->options.requests, p->limits)) {
        snprintf(p->error, sizeof p->error, "no memory for a table of %d pages", p->limits.pages);
        return complain(p, 1);
    }
    int status = 0;
    if (serve(p->model, &batch, p->tokenizer, &p->options, &figures, p->error, sizeof p->error))
        print_figures(p, &batch, &figures);
    else
        status = complain(p, 1);
    batch_destroy(&batch);
    return status;
}

static int run_teacher(struct program *p)
{
    p->limits = (struct limits){
        .requests = 1, .tokens = TEACHER_TOKENS, .request_tokens = TEACHER_TOKENS, .pages = TEACHER_TOKENS / PAGE_SIZE};
    return load(p) ? teacher_run(p->model, &p->options, p->limits) : complain(p, 2);
}

int main(int argc, char **argv)
{
    static struct program p;
    int status = options_parse(&p.options, argc, argv);
    if (status >= 0)
        return status;
    if (!machine_open(&p.machine, p.options.device, p.error, sizeof p.error) ||
        !(p.file = gguf_open(p.options.model, p.error, sizeof p.error)) ||
        !(p.tokenizer = tokenizer_create(p.file, p.error, sizeof p.error)))
        return complain(&p, 2);
    status = p.options.prompt_ids ? run_teacher(&p) : run_server(&p);
    for (int i = 0; p.requests && i < p.options.requests; i++) {
        free(p.requests[i].tokens);
        free(p.requests[i].pages);
    }
    free(p.requests);
    model_destroy(p.model);
    tokenizer_destroy(p.tokenizer);
    gguf_close(p.file);
    return status;
}
