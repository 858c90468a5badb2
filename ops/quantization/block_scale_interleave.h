/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of block_scale_interleave, for ops that write linear scales first and those in tiles from them. */
#ifndef BLOCK_SCALE_INTERLEAVE_H
#define BLOCK_SCALE_INTERLEAVE_H

#include "op/op.h"
#include "ops/quantization/block_scale_interleave_args.h"

/* Whether so many bytes a row can become tiles where they lie, each row with the padding that tiles have. */
bool block_scale_interleave_in_place(const struct call *call, int64_t blocks);
/* Appends the spec for elements of so many bytes. NULL, or why the kernel cannot serve. */
const char *block_scale_interleave_fit(struct way *way, const struct block_scale_interleave_args *a, int bytes, bool in_place);
/* Launches it, as way->spec[i]. follows: after another launch of the call. */
flashinfer_status block_scale_interleave_launch(const struct call *call, const struct way *way, int i,
                                                struct block_scale_interleave_args *a, bool follows);

#endif
