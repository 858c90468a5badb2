/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations as JSON. */
#ifndef OP_DESCRIBE_H
#define OP_DESCRIBE_H

#include "core/text.h"
#include "op/op.h"

/* Appends one object on one line: name, family, summary, arguments, rules, kernels; for a run op its plan op. */
void op_describe(struct text *text, const struct op *op);

#endif
