/* SPDX-License-Identifier: Apache-2.0 */
/* Teacher forcing, for the comparison with an independent model: prompts run one after the other, each from the first page on.
 * The part before the last 32 positions is a prefill step, the 32 are decode steps, so both paths are compared. */
#include "teacher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The ids of the next line, at most `most`. Returns how many, -1 at the end of the file, -2 if the line is wrong. */
static int read_line(FILE *file, int32_t *ids, int most, int32_t vocabulary)
{
    char *line = NULL;
    size_t size = 0;
    int count = 0;
    if (getline(&line, &size, file) < 0) {
        free(line);
        return -1;
    }
    char *at = line;
    for (char *end; count >= 0; at = end) {
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at)
            break;
        count = count == most || errno || id < 0 || id >= vocabulary ? -2 : count + 1;
        if (count > 0)
            ids[count - 1] = (int32_t)id;
    }
    if (count >= 0 && (at[strspn(at, " \t\r\n")] != '\0' || count < TEACHER_POSITIONS))
        count = -2;
    free(line);
    return count;
}

static void fill_step(struct step *step, const int32_t *ids, int begin, int end)
{
    int pages = pages_of(end);
    step->num_requests = 1;
    step->num_tokens = end - begin;
    memcpy(step->ids, ids + begin, sizeof *ids * (size_t)(end - begin));
    step->qo_indptr[0] = 0;
    step->qo_indptr[1] = end - begin;
    step->kv_len[0] = end;
    step->kv_indptr[0] = 0;
    step->kv_indptr[1] = pages;
    step->kv_last_page_len[0] = end - (pages - 1) * PAGE_SIZE;
    for (int i = 0; i < pages; i++)
        step->kv_indices[i] = i;
    step->last[0] = end - begin - 1;
    step->seed[0] = step->offset[0] = 0;
}

/* The rows of one prompt. `logits` has room for one. */
static bool run_prompt(struct model *model, const int32_t *ids, int count, float *logits, FILE *out, char *error,
                       size_t error_size)
{
    size_t vocabulary = (size_t)model_vocabulary(model);
    for (int end = count - TEACHER_POSITIONS + 1; end <= count; end++) {
        fill_step(model_input(model), ids, end == count - TEACHER_POSITIONS + 1 ? 0 : end - 1, end);
        if (!model_logits(model, logits, error, error_size))
            return false;
        if (fwrite(logits, sizeof *logits, vocabulary, out) != vocabulary) {
            snprintf(error, error_size, "the logits cannot be written: %s", strerror(errno));
            return false;
        }
    }
    return true;
}

static int run_file(struct model *model, const char *name, FILE *in, FILE *out, struct limits limits)
{
    uint32_t header[2] = {0, (uint32_t)model_vocabulary(model)};
    int32_t *ids = malloc(sizeof *ids * (size_t)limits.tokens);
    float *logits = malloc(sizeof *logits * header[1]);
    char error[1024] = "no memory for the logits";
    bool ok = ids && logits && fwrite(header, sizeof header, 1, out) == 1;
    int status = ok ? 0 : 1;
    for (int line = 1; ok; line++) {
        int count = read_line(in, ids, limits.tokens, model_vocabulary(model));
        if (count == -1)
            break;
        if (count < 0) {
            snprintf(error, sizeof error, "%s: line %d must be %d to %d token ids below %u", name, line, TEACHER_POSITIONS,
                     limits.tokens, header[1]);
            ok = false;
            status = 2;
        } else if (!run_prompt(model, ids, count, logits, out, error, sizeof error)) {
            ok = false;
            status = 1;
        }
        header[0] += TEACHER_POSITIONS;
    }
    if (ok && (fseek(out, 0, SEEK_SET) || fwrite(header, sizeof header, 1, out) != 1)) {
        snprintf(error, sizeof error, "the logits cannot be written: %s", strerror(errno));
        status = 1;
    }
    if (status)
        fprintf(stderr, "generate: %s\n", error);
    free(ids);
    free(logits);
    return status;
}

int teacher_run(struct model *model, const struct options *options, struct limits limits)
{
    FILE *in = fopen(options->prompt_ids, "r");
    FILE *out = in ? fopen(options->logits_out, "wb") : NULL;
    int status = 2;
    if (!in || !out)
        fprintf(stderr, "generate: %s cannot be opened: %s\n", in ? options->logits_out : options->prompt_ids, strerror(errno));
    else
        status = run_file(model, options->prompt_ids, in, out, limits);
    if (in)
        fclose(in);
    if (out && fclose(out) && status == 0) {
        fprintf(stderr, "generate: %s: %s\n", options->logits_out, strerror(errno));
        status = 1;
    }
    return status;
}
