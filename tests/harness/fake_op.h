/* SPDX-License-Identifier: Apache-2.0 */
/* An op whose kernels are plain functions, some of them with a planted defect, to see that the harness finds
 * it. */
#ifndef TESTS_HARNESS_FAKE_OP_H
#define TESTS_HARNESS_FAKE_OP_H

#include "harness/reference.h"

/* out = input * factor (plus bias, if given), total += input. */
struct flashinfer_fake {
    size_t size;
    DLTensor *out;         /* [..., n], dtype of input; may be input itself */
    DLTensor *total;       /* [..., n] f32, read and written */
    const DLTensor *input; /* [..., n] f16 or f32 */
    const DLTensor *bias;  /* [n] f32; NULL: none */
    double factor;         /* 0: 1 */
    int32_t pieces;        /* 1 to 8, divides n; 0: 1 */
    int32_t layout;        /* 0 or 1, without a meaning */
};

extern const struct op op_fake;

/* Each a kernel table of one row. */
extern const struct op_kernel fake_good[], fake_wrong_element[], fake_zero_sign[], fake_outside[], fake_between[],
    fake_unwritten[], fake_input_changed[], fake_random[], fake_workspace_overrun[], fake_failing[],
    fake_unreached[], fake_uncompiled[], fake_choosy[], fake_seldom[], fake_wrapping[], fake_row_number[];

#endif
