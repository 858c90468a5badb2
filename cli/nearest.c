/* SPDX-License-Identifier: Apache-2.0 */
/* Distances between words. */
#include "cli/nearest.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { FARTHEST = 4 }; /* as far as this is not near */

/* How many letters must be added, removed or replaced to get from one name to the other. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int n = (int)strlen(b), row[LONGEST + 1];
    if (n > LONGEST)
        return LONGEST;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]), least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[n];
}

const char *nearest_op(const char *word, char *buffer, size_t size)
{
    int least = INT_MAX;
    buffer[0] = 0;
    for (const struct op *const *op = op_registry; *op; op++) {
        int d = distance(word, (*op)->name);
        least = d < least ? d : least;
    }
    for (const struct op *const *op = op_registry; *op; op++)
        if (strstr((*op)->name, word) || distance(word, (*op)->name) == least)
            snprintf(buffer + strlen(buffer), size - strlen(buffer), "%s%s", buffer[0] ? ", " : "", (*op)->name);
    return buffer;
}

/* " near it: PREFIXcandidate", unless an earlier one is nearer, or the word has little in common with it. */
static void take_nearer(const char *word, const char *prefix, const char *candidate, int *least, char *buffer, size_t size)
{
    int d = distance(word, candidate);
    if (d >= *least)
        return;
    *least = d;
    snprintf(buffer, size, "; near it: %s%s", prefix, candidate);
}

const char *nearest_option(const struct command *command, const char *word, char *buffer, size_t size)
{
    int least = FARTHEST;
    buffer[0] = 0;
    for (int id = OPTION_END + 1; id <= OPTION_MAN; id++)
        if (option_taken(command, (enum option_id)id))
            take_nearer(word, "--", option_form((enum option_id)id)->name, &least, buffer, size);
    return buffer;
}

const char *nearest_command(const char *word, char *buffer, size_t size)
{
    int least = FARTHEST;
    buffer[0] = 0;
    for (int i = 0; commands[i]; i++)
        take_nearer(word, "", commands[i]->name, &least, buffer, size);
    return buffer;
}
