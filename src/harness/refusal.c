/* SPDX-License-Identifier: Apache-2.0 */
/* One call that must be refused: made, judged, and put back. */
#include <stdio.h>
#include <string.h>

#include "harness/refuse.h"
#include "harness/trial.h"

void refusal_put_back(struct refusals *r)
{
    const struct placement *p = r->placement;
    r->exec = p->exec;
    memcpy(r->args, p->args, p->problem->op->args_bytes);
    memcpy(r->tensor, p->tensor, sizeof r->tensor);
    for (int i = 0; i < p->problem->program->num_args; i++)
        if (p->problem->tensor[i].present)
            op_set_tensor(r->args, &p->problem->op->args[i], &r->tensor[i]);
}

DLTensor *refusal_begin(struct refusals *r, int arg)
{
    refusal_put_back(r);
    DLTensor *t = &r->tensor[arg];
    for (int axis = 0; axis < t->ndim; axis++) {
        r->shape[axis] = t->shape[axis];
        r->stride[axis] = tensor_stride(t, axis);
    }
    t->shape = r->shape;
    t->strides = r->stride;
    return t;
}

void refusal_complain(struct refusals *r, const char *what, const char *problem)
{
    char sentence[TRIAL_SENTENCE];
    snprintf(sentence, sizeof sentence, "a call with %.480s %.520s", what, problem);
    r->failed(r->context, sentence);
}

void refusal_expect(struct refusals *r, flashinfer_status expected, const char *what,
                    const char *const *names)
{
    char problem[TRIAL_SENTENCE / 2];
    flashinfer_status status = op_call(r->placement->problem->op, r->args, &r->exec);
    const char *sentence = flashinfer_last_error();
    bool named = false;
    r->tried++;
    for (; names && *names; names++)
        named = named || strstr(sentence, *names);
    if (status == FLASHINFER_OK)
        snprintf(problem, sizeof problem, "was not refused");
    else if (status != expected)
        snprintf(problem, sizeof problem, "was refused as %s, not %s: %s", flashinfer_status_name(status),
                 flashinfer_status_name(expected), sentence);
    else
        snprintf(problem, sizeof problem, "was refused by a sentence that does not name it: %s", sentence);
    if (status != expected || !named)
        refusal_complain(r, what, problem);
    refusal_put_back(r);
}
