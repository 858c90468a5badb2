/* SPDX-License-Identifier: Apache-2.0 */
/* Which dimension of an op can be huge, and what its kernels make of it. */
#include "harness/huge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "harness/huge_block.h"
#include "harness/reproduce.h"

enum { WHY = 1024, FEW = 3 };

struct huge {
    const struct op *op;
    const struct device *device;
    const struct huge_options *options;
    void (*report)(void *context, const struct huge_result *result);
    void *context;
    int *failures;
    const char *dimension, *shape;
    uint64_t pending; /* rows of the kernel table that this dimension has not been tried on */
    char why[WHY];    /* no problem could be made, by dimension */
};

static void report(struct huge *h, const struct op_kernel *row, enum huge_outcome outcome, const char *why,
                   const struct huge_block *block, double seconds)
{
    const struct huge_result result = {.op = h->op->name,
                                       .row = row ? row->name : NULL,
                                       .dimension = h->dimension ? h->dimension : "",
                                       .problem = block ? block->text : "",
                                       .elements = block && outcome != HUGE_NOT_SERVED ? block->elements : 0,
                                       .compared = block && outcome != HUGE_NOT_SERVED ? (int)block->rows : 0,
                                       .seconds = seconds,
                                       .outcome = outcome,
                                       .why = why};
    *h->failures += outcome == HUGE_WRONG;
    h->report(h->context, &result);
}

static bool wanted(const struct huge *h, const struct op_kernel *row)
{
    return call_row_is_for(row, h->device) && (!h->options->kernel || !strcmp(h->options->kernel, row->name));
}

static void tell_attempt(const struct huge *h, const struct op_kernel *row)
{
    char command[REPRODUCE_COMMAND];
    if (!h->options->trying)
        return;
    reproduce(&(struct reproduce){.command = "check --huge",
                                  .op = h->op,
                                  .row = row->name,
                                  .shape = h->shape,
                                  .values = h->options->values,
                                  .device = h->device},
              command);
    h->options->trying(h->context, command);
}

/* On one block, which shows plain defects; on a few, where an op whose rows depend on more than their own inputs (random numbers
 * by row) shows it; on the huge problem. *fits: the row serves that one; else `sentence` says why not. */
static flashinfer_status try_row(struct huge *h, struct huge_block *block, const struct op_kernel *row, bool *fits,
                                 char sentence[TRIAL_SENTENCE])
{
    const int64_t rows[] = {block->rows, FEW * block->rows, block->wanted_rows};
    enum { ONE_BLOCK, FEW_BLOCKS, ALL };
    double begin = clock_seconds();
    tell_attempt(h, row);
    for (int i = ONE_BLOCK; i <= ALL; i++) {
        TRY(huge_block_run(block, rows[i], row, fits, sentence));
        if (!*fits)
            return FLASHINFER_OK;
        if (sentence[0] && i == FEW_BLOCKS) {
            char why[TRIAL_SENTENCE + 64];
            snprintf(why, sizeof why, "equal rows of inputs do not give equal rows of outputs: %s", sentence);
            report(h, row, HUGE_NOT_SERVED, why, block, 0);
            return FLASHINFER_OK;
        }
        if (sentence[0] || i == ALL) {
            report(h, row, sentence[0] ? HUGE_WRONG : HUGE_RIGHT, sentence[0] ? sentence : NULL, block, clock_seconds() - begin);
            return FLASHINFER_OK;
        }
    }
    return FLASHINFER_OK;
}

/* By all rows that have not been tried on this dimension. */
static flashinfer_status try_rows(struct huge *h, struct huge_block *block, bool last_shape)
{
    for (int i = 0; h->op->kernels && h->op->kernels[i].name; i++) {
        const struct op_kernel *row = &h->op->kernels[i];
        char sentence[TRIAL_SENTENCE] = "";
        bool fits = true;
        if (!(h->pending >> i & 1))
            continue;
        flashinfer_status status = try_row(h, block, row, &fits, sentence);
        if (status == FLASHINFER_MEMORY || status == FLASHINFER_UNSUPPORTED) {
            report(h, row, HUGE_NOT_SERVED, flashinfer_last_error(), block, 0);
            fits = true;
        } else if (status) {
            return status;
        }
        if (!fits && last_shape)
            report(h, row, HUGE_NOT_SERVED, sentence, block, 0);
        if (fits || last_shape)
            h->pending &= ~(UINT64_C(1) << i);
    }
    return FLASHINFER_OK;
}

static void add_reason(struct huge *h)
{
    size_t length = strlen(h->why);
    if (!strstr(h->why, flashinfer_last_error()))
        snprintf(h->why + length, sizeof h->why - length, "%s%s", length ? "; " : "", flashinfer_last_error());
}

/* *served: a problem could be made. */
static flashinfer_status try_dimension(struct huge *h, bool *served)
{
    const struct huge_options *o = h->options;
    h->pending = 0;
    for (int i = 0; h->op->kernels && h->op->kernels[i].name && i < 64; i++)
        h->pending |= (uint64_t)wanted(h, &h->op->kernels[i]) << i;
    for (const struct op_shape *shape = h->op->shapes; shape && shape->name && h->pending; shape++) {
        struct huge_block *block;
        if (o->shape && strcmp(o->shape, shape->name))
            continue;
        h->shape = shape->name;
        flashinfer_status status =
            huge_block_create(h->op, h->device, shape->values, o->values, h->dimension, o->min_elements, &block);
        if (status == FLASHINFER_INVALID || status == FLASHINFER_UNSUPPORTED) {
            add_reason(h);
            continue;
        }
        TRY(status);
        if (!block)
            continue;
        *served = true;
        status = try_rows(h, block, o->shape || !shape[1].name);
        huge_block_destroy(block);
        TRY(status);
    }
    for (int i = 0; *served && h->pending && h->op->kernels[i].name; i++)
        if (h->pending >> i & 1)
            report(h, &h->op->kernels[i], HUGE_NOT_SERVED, h->why, NULL, 0);
    return FLASHINFER_OK;
}

flashinfer_status huge_op(const struct op *op, const struct device *device, const struct huge_options *options,
                          void (*report_to)(void *context, const struct huge_result *result), void *context, int *failures)
{
    struct huge h = {
        .op = op, .device = device, .options = options, .report = report_to, .context = context, .failures = failures};
    bool served = false;
    TRY(op_validate(op));
    TRY(device_enter(device));
    const struct program *program = op_program(op);
    for (int i = 0; i < program->num_symbols; i++) {
        bool dimension_served = false;
        if (program->symbol[i].arg >= 0 || program->symbol[i].plan_symbol >= 0)
            continue;
        h.dimension = program->symbol[i].name;
        TRY(try_dimension(&h, &dimension_served));
        served = served || dimension_served;
    }
    h.dimension = NULL;
    if (!served)
        report(&h, NULL, HUGE_NOT_SERVED, h.why[0] ? h.why : "no tensor has a dimension as its first axis", NULL, 0);
    return FLASHINFER_OK;
}
