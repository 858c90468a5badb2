/* SPDX-License-Identifier: Apache-2.0 */
/* Repeats a block of rows in device memory, calls a kernel on it and gathers the sampled rows. */
#include "harness/huge_block.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A block has at most so many elements, and rows as these primes allow. */
#define MAX_ELEMENTS 6e7
static const int64_t primes[] = {HUGE_BLOCK_ROWS, 251, 61, 17, 5};

enum { POISON = 0xc5 };

/* Another number of rows, to see what depends on it. */
static int64_t more_rows(const struct huge_block *b)
{
    return 2 * b->rows + 1;
}

struct run {
    struct huge_block *block;
    struct problem *problem; /* without values */
    struct placement *placement;
    unsigned char *got[OP_MAX_ARGS]; /* dense: the sampled rows, or the whole tensor */
};

void huge_block_destroy(struct huge_block *b)
{
    if (!b)
        return;
    expected_destroy(b->expected);
    placement_destroy(b->placement);
    problem_destroy(b->problem);
    free(b);
}

static flashinfer_status make_problem(const struct huge_block *b, int64_t rows, bool without_values, struct problem **out)
{
    char instead[PROBLEM_MAX_TEXT];
    if (snprintf(instead, sizeof instead, "%s %s=%" PRId64, b->instead ? b->instead : "", b->dimension, rows) >=
        (int)sizeof instead)
        return fail(FLASHINFER_INVALID, "%s: too many values", b->op->name);
    const struct problem_request request = {
        .op = b->op, .values = b->values, .instead = instead, .without_values = without_values, .row_major = true};
    return problem_create(&request, out);
}

/* Whether the expression names the dimension. */
static bool names(const char *expression, const char *dimension)
{
    size_t length = strlen(dimension);
    for (const char *at = expression; at && (at = strstr(at, dimension)); at++) {
        bool begins = at == expression || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
        if (begins && !(isalnum((unsigned char)at[length]) || at[length] == '_'))
            return true;
    }
    return false;
}

/* The argument holds numbers of rows. */
static bool indexes(const struct huge_block *b, int i)
{
    const struct op_fill *fill = &b->op->args[i].fill;
    return (fill->kind == FILL_BELOW || fill->kind == FILL_PERMUTED) && fill->of && !strcmp(fill->of, b->dimension);
}

/* How a tensor of the block differs from that of a larger problem. Returns the elements of all tensors of the block. */
static double find_rows(struct huge_block *b, const struct problem *small, const struct problem *large, int64_t *widest)
{
    double elements = 0;
    for (int i = 0; i < small->program->num_args; i++) {
        const struct problem_tensor *t = &small->tensor[i], *other = &large->tensor[i];
        b->repeated[i] = t->present && t->ndim && t->shape[0] == b->rows && other->shape[0] == more_rows(b);
        if (b->repeated[i] && t->elements / b->rows > *widest)
            *widest = t->elements / b->rows;
        b->by_number = b->by_number || indexes(b, i);
        elements += t->present ? (double)t->elements : 0;
    }
    return elements;
}

static flashinfer_status check_tensor(struct huge_block *b, const struct problem *small, const struct problem *large, int i)
{
    const struct op_arg *arg = &b->op->args[i];
    const struct problem_tensor *t = &small->tensor[i], *other = &large->tensor[i];
    bool same = t->present == other->present && t->ndim == other->ndim;
    for (int axis = b->repeated[i]; same && axis < t->ndim; axis++)
        same = t->shape[axis] == other->shape[axis];
    if (!same)
        return fail(FLASHINFER_UNSUPPORTED, "%s depends on %s other than by its first axis", arg->name, b->dimension);
    if (b->repeated[i] && t->elements && t->stride[0] * t->shape[0] != t->elements)
        return fail(FLASHINFER_UNSUPPORTED, "rows of %s do not lie one after the other", arg->name);
    if (!indexes(b, i) && names(arg->fill.of, b->dimension))
        return fail(FLASHINFER_UNSUPPORTED, "the values of %s depend on %s", arg->name, b->dimension);
    if (arg->kind == OP_OUT && !b->repeated[i] && !b->by_number)
        return fail(FLASHINFER_UNSUPPORTED, "%s is written, but has no axis %s", arg->name, b->dimension);
    return FLASHINFER_OK;
}

static flashinfer_status compare_problems(struct huge_block *b, const struct problem *small, const struct problem *large,
                                          int64_t *widest, double *elements)
{
    *elements = find_rows(b, small, large, widest);
    for (int i = 0; *widest && i < small->program->num_args; i++)
        if (small->tensor[i].present || large->tensor[i].present)
            TRY(check_tensor(b, small, large, i));
    return FLASHINFER_OK;
}

/* *widest: elements in a row of the tensor that has most; 0: none has rows. */
static flashinfer_status classify(struct huge_block *b, int64_t *widest, double *elements)
{
    struct problem *small, *large;
    *widest = 0;
    TRY(make_problem(b, b->rows, true, &small));
    flashinfer_status status = make_problem(b, more_rows(b), true, &large);
    if (!status) {
        status = compare_problems(b, small, large, widest, elements);
        problem_destroy(large);
    }
    problem_destroy(small);
    return status;
}

static flashinfer_status fill(struct huge_block *b, double min_elements, bool *found)
{
    int64_t widest = 0;
    double elements = MAX_ELEMENTS + 1;
    for (size_t i = 0; i < sizeof primes / sizeof *primes && elements > MAX_ELEMENTS; i++) {
        b->rows = primes[i];
        TRY(classify(b, &widest, &elements));
    }
    *found = widest > 0;
    if (!widest)
        return FLASHINFER_OK;
    if (elements > MAX_ELEMENTS)
        return fail(FLASHINFER_UNSUPPORTED, "%g elements of tensors without axis %s, or in five rows, are too many", elements,
                    b->dimension);
    b->wanted_rows = (int64_t)(min_elements / (double)widest) + 1;
    if (b->wanted_rows < more_rows(b))
        b->wanted_rows = more_rows(b);
    TRY(make_problem(b, b->rows, false, &b->problem));
    TRY(placement_create(b->problem, b->device, &b->placement));
    TRY(placement_check(b->placement, &b->call));
    TRY(problem_poison(b->problem, POISON));
    return expected_create(b->problem, &b->call, &b->expected);
}

flashinfer_status huge_block_create(const struct op *op, const struct device *device, const char *values,
                                    const char *instead, const char *dimension, double min_elements, struct huge_block **out)
{
    bool found = false;
    struct huge_block *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b)
        return fail(FLASHINFER_MEMORY, "%s: no memory for a problem", op->name);
    b->op = op;
    b->device = device;
    b->values = values;
    b->instead = instead;
    b->dimension = dimension;
    flashinfer_status status = fill(b, min_elements, &found);
    if (!status && found)
        *out = b;
    else
        huge_block_destroy(b);
    return status;
}

/* A row of each kind, anywhere; the last one always. */
static void draw_sample(struct huge_block *b, int64_t rows)
{
    struct random random = {(uint64_t)rows};
    for (int64_t i = 0; i < b->rows; i++)
        b->sample[i] = i + b->rows * random_between(&random, 0, (rows - 1 - i) / b->rows);
    b->sample[(rows - 1) % b->rows] = rows - 1;
}

static size_t bytes_of(const struct problem_tensor *t)
{
    return (size_t)t->elements * (size_t)dtype_bytes(t->dtype);
}

/* The block's memory as a call finds it: numbers of rows are those of the sample. */
static unsigned char *make_image(const struct huge_block *b, int i)
{
    const struct problem_tensor *t = &b->problem->tensor[i];
    const struct problem_memory *m = &b->problem->memory[t->memory];
    unsigned char *image = malloc(m->bytes), *values = image ? image + t->offset : NULL;
    if (image)
        memcpy(image, m->image, m->bytes);
    for (int64_t k = 0; image && indexes(b, i) && k < t->elements; k++) {
        double row = dtype_load(t->dtype, values + k * dtype_bytes(t->dtype));
        if (row >= 0 && row < b->rows)
            dtype_store(t->dtype, values + k * dtype_bytes(t->dtype), (double)b->sample[(int)row]);
    }
    return image;
}

/* Guard, block after block, guard. */
static flashinfer_status upload(const struct device *device, unsigned char *to, const unsigned char *image, size_t block,
                                size_t all)
{
    TRY(device_upload(device, to, image, PROBLEM_GUARD + block));
    TRY(device_repeat(device, to + PROBLEM_GUARD, block, all));
    return device_upload(device, to + PROBLEM_GUARD + all, image + PROBLEM_GUARD + block, PROBLEM_GUARD);
}

static flashinfer_status place_tensor(struct run *r, int i)
{
    const struct huge_block *b = r->block;
    const struct problem_tensor *t = &r->problem->tensor[i];
    const struct device *device = t->host ? NULL : b->device;
    void **base = &r->placement->base[t->memory];
    unsigned char *image = make_image(b, i);
    flashinfer_status status = image ? device_alloc(device, r->problem->memory[t->memory].bytes, base)
                                     : fail(FLASHINFER_MEMORY, "no memory for %s", b->op->args[i].name);
    if (!status)
        status = upload(device, *base, image, bytes_of(&b->problem->tensor[i]), bytes_of(t));
    if (!status)
        r->placement->tensor[i].data = (unsigned char *)*base + t->offset;
    free(image);
    return status;
}

static flashinfer_status gather_tensor(struct run *r, int i)
{
    const struct huge_block *b = r->block;
    const struct problem_tensor *t = &r->problem->tensor[i];
    const struct device *device = t->host ? NULL : b->device;
    const unsigned char *from = r->placement->tensor[i].data;
    size_t block = bytes_of(&b->problem->tensor[i]), row = block / (size_t)b->rows;
    r->got[i] = malloc(block + 1);
    if (!r->got[i])
        return fail(FLASHINFER_MEMORY, "no memory for %s", b->op->args[i].name);
    if (!b->repeated[i])
        return device_download(device, r->got[i], from, block);
    for (size_t k = 0; k < (size_t)b->rows; k++)
        TRY(device_download(device, r->got[i] + k * row, from + (size_t)b->sample[k] * row, row));
    return FLASHINFER_OK;
}

/* That inputs and the memory around all tensors are as they were. */
static flashinfer_status check_unchanged(struct run *r, int i, char *sentence)
{
    const struct huge_block *b = r->block;
    const struct problem_tensor *t = &r->problem->tensor[i];
    const struct device *device = t->host ? NULL : b->device;
    const char *name = b->op->args[i].name;
    const unsigned char *base = r->placement->base[t->memory];
    unsigned char guard[2 * PROBLEM_GUARD];
    TRY(device_download(device, guard, base, PROBLEM_GUARD));
    TRY(device_download(device, guard + PROBLEM_GUARD, base + PROBLEM_GUARD + bytes_of(t), PROBLEM_GUARD));
    for (int k = 0; k < 2 * PROBLEM_GUARD && !sentence[0]; k++)
        if (guard[k] != PROBLEM_GUARD_BYTE)
            snprintf(sentence, TRIAL_SENTENCE, "memory %s %s was written", k < PROBLEM_GUARD ? "before" : "behind", name);
    if (t->written || sentence[0])
        return FLASHINFER_OK;
    unsigned char *image = make_image(b, i);
    if (!image)
        return fail(FLASHINFER_MEMORY, "no memory for %s", name);
    if (memcmp(image + PROBLEM_GUARD, r->got[i], bytes_of(&b->problem->tensor[i])))
        snprintf(sentence, TRIAL_SENTENCE, "%s, which is only read, was written", name);
    free(image);
    return FLASHINFER_OK;
}

static flashinfer_status compare(struct run *r, char *sentence)
{
    struct huge_block *b = r->block;
    for (int i = 0; i < r->problem->program->num_args; i++)
        if (r->problem->tensor[i].present) {
            TRY(gather_tensor(r, i));
            TRY(check_unchanged(r, i, sentence));
        }
    if (!sentence[0] && !b->expected)
        return fail(FLASHINFER_UNSUPPORTED, "%s has neither reference nor verify", b->op->name);
    if (!sentence[0])
        expected_judge(b->expected, b->problem, r->got, sentence, TRIAL_SENTENCE);
    return FLASHINFER_OK;
}

static flashinfer_status call(struct run *r, const struct op_kernel *row, bool *fits, char *sentence)
{
    struct placement *p = r->placement;
    struct call call;
    struct way way;
    p->exec.kernel = row->name;
    TRY(call_check(&call, r->block->op, p->args, &p->exec, false, NULL));
    const char *why = call_fit(&call, row, &way);
    *fits = !why;
    if (why) {
        snprintf(sentence, TRIAL_SENTENCE, "%s", why);
        return FLASHINFER_OK;
    }
    TRY(placement_workspace(p, way.workspace));
    if (op_call(r->block->op, p->args, &p->exec)) {
        snprintf(sentence, TRIAL_SENTENCE, "the call failed: %s", flashinfer_last_error());
        return FLASHINFER_OK;
    }
    TRY(device_wait(p->device));
    return compare(r, sentence);
}

static flashinfer_status run(struct run *r, const struct op_kernel *row, bool *fits, char *sentence)
{
    struct huge_block *b = r->block;
    TRY(placement_create(r->problem, b->device, &r->placement));
    b->elements = 0;
    for (int i = 0; i < r->problem->program->num_args; i++)
        if (r->problem->tensor[i].present) {
            double elements = (double)r->problem->tensor[i].elements;
            b->elements = elements > b->elements ? elements : b->elements;
            TRY(place_tensor(r, i));
        }
    return call(r, row, fits, sentence);
}

flashinfer_status huge_block_run(struct huge_block *b, int64_t rows, const struct op_kernel *row, bool *fits,
                                 char sentence[TRIAL_SENTENCE])
{
    struct run r = {.block = b};
    sentence[0] = 0;
    *fits = false;
    TRY(make_problem(b, rows, true, &r.problem));
    snprintf(b->text, sizeof b->text, "%s", r.problem->text);
    draw_sample(b, rows);
    flashinfer_status status = run(&r, row, fits, sentence);
    for (int i = 0; i < OP_MAX_ARGS; i++)
        free(r.got[i]);
    placement_destroy(r.placement);
    problem_destroy(r.problem);
    return status;
}
