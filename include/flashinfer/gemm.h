/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products. Products and sums are in float32, with one rounding at the end. */
#ifndef FLASHINFER_GEMM_H
#define FLASHINFER_GEMM_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = a @ b + bias. b is usually the transposed view of a weight that is stored as [n, k], so its columns
 * are contiguous; any other strides are legal. With k = 0 the outputs are the bias, or zero. NaN and infinity
 * follow from the arithmetic; sums beyond float32's range give infinity or NaN. Subnormal bf16 may count as
 * zero on a CPU. With FLASHINFER_PDL, b and bias are taken to be weights: no kernel that may still be running
 * writes them. Under FLASHINFER_BATCH_INVARIANT a row of out does not depend on m or on the other rows.
 * Workspace: none is needed; the kernel mm_cublaslt makes use of up to 32 MiB if they are there. */
struct flashinfer_mm {
    size_t size;
    DLTensor *out;        /* [m, n] f16, bf16 or f32; rows may be strided */
    const DLTensor *a;    /* [m, k] f16 or bf16; rows may be strided */
    const DLTensor *b;    /* [k, n], dtype of a; any strides */
    const DLTensor *bias; /* [n], dtype of a; NULL: none */
};
FLASHINFER_DECLARE_OP(mm);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_GEMM_H */
