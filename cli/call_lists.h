/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of calls that have a name of their own: what one module of FlashInfer's Python package is compiled for. */
#ifndef CLI_CALL_LISTS_H
#define CLI_CALL_LISTS_H

#include "op/op.h"

struct call_list;

/* NULL: there is none of that name. */
const struct call_list *call_list_find(const char *name);
const struct op *call_list_op(const struct call_list *list);

/* Values of a call, as on the command line, into the buffer; false past the last one. */
bool call_list_values(const struct call_list *list, int number, char *values, size_t size);

#endif
