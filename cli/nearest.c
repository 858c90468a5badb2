/* SPDX-License-Identifier: Apache-2.0 */
/* Distances between words. */
#include "cli/nearest.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/environment.h"
#include "op/op.h"

/* A word that many letters away is misspelt, not another one: up to three, and of a short word up to half. */
static bool is_near(const char *word, int distance)
{
    return distance < 4 && 2 * distance <= (int)strlen(word) + 1;
}

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
    enum { MOST = 8 };
    int least = INT_MAX, count = 0;
    buffer[0] = 0;
    for (const struct op *const *op = op_registry; *op; op++) {
        int d = distance(word, (*op)->name);
        least = d < least ? d : least;
    }
    for (const struct op *const *op = op_registry; *op; op++)
        if (strstr((*op)->name, word) || (distance(word, (*op)->name) == least && is_near(word, least))) {
            snprintf(buffer + strlen(buffer), size - strlen(buffer), "%s%s", buffer[0] ? ", " : "; near it: ", (*op)->name);
            count++;
        }
    if (!count || count > MOST)
        snprintf(buffer, size, "; `flashinfer list` names all");
    return buffer;
}

void nearest_take(const char *word, const char *prefix, const char *candidate, int *least, char *buffer, size_t size)
{
    int d = distance(word, candidate);
    if (d >= *least || !is_near(word, d))
        return;
    *least = d;
    snprintf(buffer, size, "; near it: %s%s", prefix, candidate);
}

bool is_unread_variable(const char *setting, char name[VARIABLE_NAME], char *near, size_t size)
{
    static const char prefix[] = "FLASHINFER_";
    const size_t skipped = sizeof prefix - 1, length = strcspn(setting, "=");
    struct environment_entry known;
    int least = INT_MAX;
    near[0] = 0;
    if (strncmp(setting, prefix, skipped) || length >= VARIABLE_NAME)
        return false;
    snprintf(name, VARIABLE_NAME, "%.*s", (int)length, setting);
    for (int i = 0; environment_entry(i, &known); i++)
        if (!strncmp(known.name, prefix, skipped))
            nearest_take(name + skipped, prefix, known.name + skipped, &least, near, size);
    return least > 0;
}
