/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of named cells, printed as JSON (one object a line, at once) or as a table with aligned columns (at
 * the end). */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct table;

/* NULL if there is no memory, which all functions below accept. */
struct table *table_open(bool json);

/* Cells of the current row, in the same order in every row. */
void table_text(struct table *table, const char *name, const char *value);
void table_integer(struct table *table, const char *name, int64_t value);

/* `digits` after the point in a table; negative values are shown as "-" and are null in JSON. */
void table_number(struct table *table, const char *name, double value, int digits);

/* The next cells are in JSON only, until the row ends. */
void table_json_only(struct table *table);
void table_end_row(struct table *table);

/* Prints the rows that the open table holds back, and keeps other threads from adding and printing any: for a thread that then
 * ends the process. */
void table_print_last(void);

/* Frees it, having printed what it held back, and returns how many rows were ended; -1 for NULL. */
int table_close(struct table *table);

#endif
