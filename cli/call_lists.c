/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/call_lists.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CHOICES = 8 };

/* Calls take one of the two of each choice, in every combination, before the values. */
struct call_list {
    const char *name, *op, *values;
    const char *choices[MAX_CHOICES][2];
};

static const struct call_list lists[] = {
    /* Upstream's module for Hopper has a specialisation for each. */
    {"gdn_prefill",
     "chunk_gated_delta_rule",
     "tokens=8192 num_sequences=4 num_states=4 head_dim=128 num_q_heads=16 num_k_heads=16 output_state:dtype=f32 "
     "initial_state:dtype=f32 checkpoint_every_n_tokens=0",
     {{"dtype=f16", "dtype=bf16"},
      {"num_v_heads=16", "num_v_heads=32"},
      {"", "-g"},
      {"", "-beta"},
      {"", "-initial_state"}}},
};

const struct call_list *call_list_find(const char *name)
{
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!strcmp(lists[i].name, name))
            return &lists[i];
    return NULL;
}

const struct op *call_list_op(const struct call_list *list)
{
    return op_find(list->op);
}

bool call_list_values(const struct call_list *list, int number, char *values, size_t size)
{
    size_t used = 0;
    int choices = 0;
    while (choices < MAX_CHOICES && list->choices[choices][0])
        choices++;
    for (int i = 0; i < choices && used < size; i++)
        used += (size_t)snprintf(values + used, size - used, "%s ", list->choices[i][number >> i & 1]);
    if (used < size)
        snprintf(values + used, size - used, "%s", list->values);
    return number < 1 << choices;
}
