/* SPDX-License-Identifier: Apache-2.0 */
/* Tries one kernel on one problem. */
#include "harness/trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last is an earlier call once more, whose launches are known (op/replay.h). */
enum { RUNS = 3, RUNS_CUDA = 2 };

static const unsigned char poison[RUNS] = {0xc5, 0x3a, 0x5c};

/* A tensor that a byte of a memory belongs to or is nearest to. */
static int nearest(const struct problem *problem, int memory, int64_t byte)
{
    int best = -1;
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (t->present && t->memory == memory && (best < 0 || t->offset <= byte))
            best = i;
    }
    return best;
}

static void describe_change(const struct problem *problem, int memory, int64_t byte, const unsigned char *now,
                            char *sentence)
{
    int arg = nearest(problem, memory, byte);
    const struct problem_tensor *t = &problem->tensor[arg];
    const struct problem_memory *m = &problem->memory[memory];
    const char *where = byte < t->offset                                     ? "before it"
                        : byte >= (int64_t)m->bytes - PROBLEM_GUARD          ? "behind it"
                        : m->image[byte] == PROBLEM_GUARD_BYTE && t->written ? "between its elements"
                                                                             : "in it";
    snprintf(sentence, TRIAL_SENTENCE,
             "memory that may not be written was: near %s, %s, at byte %lld from its first element (%02x "
             "became %02x)",
             problem->op->args[arg].name, where, (long long)(byte - t->offset), m->image[byte], now[byte]);
}

static flashinfer_status check_memory(const struct placement *p, int memory, bool written, char *sentence)
{
    const struct problem *problem = p->problem;
    const struct problem_memory *m = &problem->memory[memory];
    unsigned char *now = malloc(m->bytes), *dense = malloc(m->bytes);
    flashinfer_status status = now && dense ? placement_fetch(p, memory, now)
                                            : fail(FLASHINFER_MEMORY, "no memory for %zu bytes", m->bytes);
    for (int i = 0; !status && written && i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (!t->present || !t->written || t->memory != memory)
            continue;
        problem_gather(t, m->image, dense);
        problem_scatter(t, now, dense);
    }
    if (!status && memcmp(now, m->image, m->bytes)) {
        int64_t byte = 0;
        while (now[byte] == m->image[byte])
            byte++;
        describe_change(problem, memory, byte, now, sentence);
    }
    free(now);
    free(dense);
    return status;
}

flashinfer_status trial_untouched(const struct placement *p, bool written, char sentence[TRIAL_SENTENCE])
{
    sentence[0] = 0;
    for (int i = 0; i < p->problem->num_memories && !sentence[0]; i++)
        TRY(check_memory(p, i, written, sentence));
    return FLASHINFER_OK;
}

static flashinfer_status gather_outputs(const struct placement *p, unsigned char *outputs[OP_MAX_ARGS])
{
    const struct problem *problem = p->problem;
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (!t->present || !t->written)
            continue;
        size_t bytes = problem->memory[t->memory].bytes;
        unsigned char *now = malloc(bytes);
        outputs[i] = malloc((size_t)(t->elements * dtype_bytes(t->dtype)) + 1);
        flashinfer_status status = now && outputs[i]
                                       ? placement_fetch(p, t->memory, now)
                                       : fail(FLASHINFER_MEMORY, "no memory for %zu bytes", bytes);
        if (!status)
            problem_gather(t, now, outputs[i]);
        free(now);
        TRY(status);
    }
    return FLASHINFER_OK;
}

static bool all_bytes(const unsigned char *bytes, int count, unsigned char value)
{
    for (int i = 0; i < count; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/* Elements that differ between the runs were left unwritten, if they still hold both poisons, or depend on
 * chance. */
static void compare_runs(const struct problem *problem, unsigned char *outputs[RUNS][OP_MAX_ARGS], int other,
                         char *sentence)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        int bytes = dtype_bytes(t->dtype);
        for (int64_t k = 0; outputs[0][i] && k < t->elements; k++) {
            const unsigned char *first = outputs[0][i] + k * bytes, *second = outputs[other][i] + k * bytes;
            if (!memcmp(first, second, (size_t)bytes))
                continue;
            bool unwritten = all_bytes(first, bytes, poison[0]) && all_bytes(second, bytes, poison[other]);
            if (unwritten)
                snprintf(sentence, TRIAL_SENTENCE, "element %lld of %s was not written", (long long)k,
                         problem->op->args[i].name);
            else
                snprintf(sentence, TRIAL_SENTENCE,
                         "element %lld of %s differs between two runs: %.9g and %.9g", (long long)k,
                         problem->op->args[i].name, dtype_load(t->dtype, first),
                         dtype_load(t->dtype, second));
            return;
        }
    }
}

static flashinfer_status run_once(struct problem *problem, struct placement *p, int run,
                                  unsigned char *outputs[OP_MAX_ARGS], char *sentence)
{
    bool intact;
    TRY(problem_poison(problem, poison[run]));
    TRY(placement_reset(p));
    if (!device_is_cuda(p->device))
        p->exec.threads = run > 0;
    flashinfer_status status = op_call(problem->op, p->args, &p->exec);
    if (!status)
        status = device_wait(p->device);
    if (status) {
        snprintf(sentence, TRIAL_SENTENCE, "the call failed: %s: %s", flashinfer_status_name(status),
                 flashinfer_last_error());
        return status == FLASHINFER_DEVICE ? status : FLASHINFER_OK;
    }
    TRY(trial_untouched(p, true, sentence));
    TRY(placement_workspace_intact(p, &intact));
    if (!intact && !sentence[0])
        snprintf(sentence, TRIAL_SENTENCE, "memory around the workspace was written");
    return sentence[0] ? FLASHINFER_OK : gather_outputs(p, outputs);
}

static flashinfer_status run(struct problem *problem, struct placement *p, size_t workspace,
                             struct expected *expected, unsigned char *outputs[RUNS][OP_MAX_ARGS],
                             char *sentence)
{
    flashinfer_plan plan;
    const int runs = device_is_cuda(p->device) ? RUNS_CUDA : RUNS;
    TRY(placement_workspace(p, workspace));
    for (int i = 0; i < runs; i++) {
        memset(&p->plan, poison[i], sizeof p->plan);
        TRY(run_once(problem, p, i, outputs[i], sentence));
        if (sentence[0])
            return FLASHINFER_OK;
        if (i == 0)
            plan = p->plan;
    }
    if (problem->program->plan_arg >= 0 && problem->op->args[problem->program->plan_arg].is_output &&
        memcmp(&plan, &p->plan, sizeof plan))
        snprintf(sentence, TRIAL_SENTENCE, "the plan differs between two runs, or was not written in full");
    for (int i = 1; i < runs && !sentence[0]; i++)
        compare_runs(problem, outputs, i, sentence);
    if (!sentence[0] && expected)
        expected_judge(expected, problem, outputs[0], sentence, TRIAL_SENTENCE);
    return FLASHINFER_OK;
}

flashinfer_status trial_run(struct problem *problem, struct placement *p, const struct op_kernel *row,
                            size_t workspace, struct expected *expected, char sentence[TRIAL_SENTENCE])
{
    unsigned char *outputs[RUNS][OP_MAX_ARGS] = {{NULL}};
    sentence[0] = 0;
    p->exec.kernel = row ? row->name : NULL;
    flashinfer_status status = run(problem, p, workspace, expected, outputs, sentence);
    p->exec.kernel = NULL;
    p->exec.threads = 0;
    for (int i = 0; i < RUNS; i++)
        for (int k = 0; k < OP_MAX_ARGS; k++)
            free(outputs[i][k]);
    return status;
}
