/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON lines. */
#include "cli/table.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 24 };

struct row {
    char *cell[MAX_COLUMNS];
};

struct table {
    bool json, json_only;
    json_t *object; /* of the current row */
    const char *name[MAX_COLUMNS];
    bool numeric[MAX_COLUMNS];
    int num_columns, column;
    struct row *rows; /* held back for a table */
    int num_rows, room, ended;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* held while rows change */
static struct table *open_table;                            /* that holds rows back */

struct table *table_open(bool json)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->json = json;
    if (!json)
        open_table = t;
    return t;
}

static struct row *current(struct table *t)
{
    if (t->column)
        return &t->rows[t->num_rows - 1];
    if (t->num_rows == t->room) {
        int room = t->room ? 2 * t->room : 32;
        struct row *rows = realloc(t->rows, (size_t)room * sizeof *rows);
        if (!rows)
            return NULL;
        t->rows = rows;
        t->room = room;
    }
    memset(&t->rows[t->num_rows], 0, sizeof *t->rows);
    return &t->rows[t->num_rows++];
}

static void add(struct table *t, const char *name, const char *text, bool numeric, json_t *value)
{
    if (t->json) {
        if (!t->object)
            t->object = json_object();
        json_object_set_new(t->object, name, value);
        return;
    }
    json_decref(value);
    pthread_mutex_lock(&mutex);
    struct row *row = t->json_only || t->column == MAX_COLUMNS ? NULL : current(t);
    if (row) {
        t->name[t->column] = name;
        t->numeric[t->column] = numeric;
        row->cell[t->column++] = strdup(text);
        if (t->column > t->num_columns)
            t->num_columns = t->column;
    }
    pthread_mutex_unlock(&mutex);
}

void table_text(struct table *t, const char *name, const char *value)
{
    if (t)
        add(t, name, value, false, json_string(value));
}

void table_integer(struct table *t, const char *name, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    if (t)
        add(t, name, text, true, json_integer(value));
}

void table_number(struct table *t, const char *name, double value, int digits)
{
    char text[48];
    snprintf(text, sizeof text, "%.*f", digits, value);
    if (t)
        add(t, name, value < 0 ? "-" : text, true, value < 0 ? json_null() : json_real(value));
}

void table_json_only(struct table *t)
{
    if (t)
        t->json_only = true;
}

void table_end_row(struct table *t)
{
    if (!t)
        return;
    if (t->object) {
        json_dumpf(t->object, stdout, JSON_REAL_PRECISION(9));
        putchar('\n');
        fflush(stdout);
        json_decref(t->object);
        t->object = NULL;
    }
    pthread_mutex_lock(&mutex);
    t->ended++;
    t->column = 0;
    t->json_only = false;
    pthread_mutex_unlock(&mutex);
}

static void print_cell(const char *text, int width, bool right, bool last)
{
    if (right)
        printf("%*s", width, text);
    else if (last)
        printf("%s", text);
    else
        printf("%-*s", width, text);
    fputs(last ? "\n" : "  ", stdout);
}

static void print(const struct table *t)
{
    const int num_rows = t->num_rows - (t->column != 0);
    int width[MAX_COLUMNS] = {0};
    for (int c = 0; c < t->num_columns; c++)
        width[c] = (int)strlen(t->name[c]);
    for (int r = 0; r < num_rows; r++)
        for (int c = 0; c < t->num_columns; c++)
            if (t->rows[r].cell[c] && (int)strlen(t->rows[r].cell[c]) > width[c])
                width[c] = (int)strlen(t->rows[r].cell[c]);
    for (int c = 0; c < t->num_columns; c++)
        print_cell(t->name[c], width[c], t->numeric[c], c + 1 == t->num_columns);
    for (int r = 0; r < num_rows; r++)
        for (int c = 0; c < t->num_columns; c++)
            print_cell(t->rows[r].cell[c] ? t->rows[r].cell[c] : "", width[c], t->numeric[c], c + 1 == t->num_columns);
}

void table_print_last(void)
{
    pthread_mutex_lock(&mutex);
    if (open_table)
        print(open_table);
    fflush(stdout);
}

int table_close(struct table *t)
{
    if (!t)
        return -1;
    int ended = t->ended;
    pthread_mutex_lock(&mutex);
    print(t);
    if (open_table == t)
        open_table = NULL;
    pthread_mutex_unlock(&mutex);
    for (int r = 0; r < t->num_rows; r++)
        for (int c = 0; c < MAX_COLUMNS; c++)
            free(t->rows[r].cell[c]);
    free(t->rows);
    free(t);
    return ended;
}
