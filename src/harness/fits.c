/* SPDX-License-Identifier: Apache-2.0 */
/* Asks every row of a kernel table whether it serves a call. */
#include "harness/fits.h"

#include <string.h>

static flashinfer_status explain(const struct problem *problem, const struct device *device,
                                 void (*found)(void *context, const struct fit_row *row), void *context)
{
    struct placement *placement;
    struct call call;
    bool chosen = false;
    TRY(placement_create(problem, device, &placement));
    flashinfer_status status = placement_check(placement, &call);
    for (const struct op_kernel *row = problem->op->kernels; !status && row && row->name; row++) {
        struct way way = {.num_specs = 0};
        const char *why = call_fit(&call, row, &way);
        const struct fit_row answer = {.row = row, .why_not = why, .way = &way, .chosen = !why && !chosen};
        chosen = chosen || !why;
        found(context, &answer);
    }
    placement_destroy(placement);
    if (!status && !chosen)
        return fail(FLASHINFER_UNSUPPORTED, "%s: no kernel serves %s on %s", problem->op->name, problem->text,
                    device->name);
    return status;
}

flashinfer_status fits_explain(const struct op *op, const char *values, const char *instead, const struct device *device,
                               char text[PROBLEM_MAX_TEXT],
                               void (*found)(void *context, const struct fit_row *row), void *context)
{
    if (!values && op->shapes)
        values = op->shapes->values;
    const struct problem_request request = {.op = op, .values = values, .instead = instead, .without_values = true};
    struct problem *problem;
    TRY(problem_create(&request, &problem));
    if (text)
        memcpy(text, problem->text, sizeof problem->text);
    flashinfer_status status = explain(problem, device, found, context);
    problem_destroy(problem);
    return status;
}
