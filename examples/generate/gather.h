/* SPDX-License-Identifier: Apache-2.0 */
/* out[i] = table[ids[i]]: the embedding lookup, and the pick of rows whose logits are wanted. A kernel of the example's own,
 * compiled and cached by the library like its own kernels. */
#ifndef GENERATE_GATHER_H
#define GENERATE_GATHER_H

#include "flashinfer/flashinfer.h"

flashinfer_status gather_create(flashinfer_kernel **kernel);

/* out [rows, width], table [any, width], both of one 2-byte dtype; ids [rows] i32, each a row of the table. zeroed, [rows, width]
 * f32, becomes zero in passing; NULL: none. */
flashinfer_status gather_rows(const flashinfer_kernel *kernel, const DLTensor *out, const DLTensor *zeroed, const DLTensor *table,
                              const DLTensor *ids, const flashinfer_exec *exec);

#endif
