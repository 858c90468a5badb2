/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of what check tried. */
#include "harness/coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_coverage *coverage_of(struct coverage *c, const char *row, DLDeviceType device,
                                   const char *dtypes)
{
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->entry[i].row, row) && c->entry[i].device == device &&
            !strcmp(c->entry[i].dtypes, dtypes))
            return &c->entry[i];
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 16;
        struct check_coverage *entry = realloc(c->entry, (size_t)room * sizeof *entry);
        if (!entry)
            return NULL;
        c->entry = entry;
        c->room = room;
    }
    struct check_coverage *added = &c->entry[c->count++];
    *added = (struct check_coverage){.op = c->op->name, .row = row, .device = device};
    snprintf(added->dtypes, sizeof added->dtypes, "%s", dtypes);
    return added;
}

void coverage_skip(struct check_coverage *entry, const char *why)
{
    for (int i = 0; i < CHECK_MAX_REASONS; i++) {
        if (entry->skipped[i].count && strncmp(entry->skipped[i].text, why, CHECK_REASON - 1))
            continue;
        if (!entry->skipped[i].count)
            snprintf(entry->skipped[i].text, CHECK_REASON, "%s", why);
        entry->skipped[i].count++;
        return;
    }
}

bool coverage_is_new(struct coverage *c, const struct op_kernel *row, const struct problem *problem, bool runs)
{
    const ptrdiff_t number = row - c->op->kernels;
    bool is_new = false;
    for (int of_plan = 0; number < COVERAGE_ROWS && problem; problem = problem->plan, of_plan++)
        for (int i = 0; i < problem->program->num_args; i++) {
            uint32_t *ran = &c->dtypes[number][of_plan][i];
            const uint32_t dtype = UINT32_C(1) << problem_open_dtype(problem, i) & ~UINT32_C(1);
            is_new = is_new || dtype & ~*ran;
            *ran |= runs ? dtype : 0;
        }
    return is_new;
}

bool coverage_reached(const struct coverage *c, const char *row, DLDeviceType device)
{
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->entry[i].row, row) && c->entry[i].device == device &&
            (c->entry[i].ran || c->entry[i].failed))
            return true;
    return false;
}
