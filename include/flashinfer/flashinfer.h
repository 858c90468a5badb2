/* SPDX-License-Identifier: Apache-2.0 */
/* Everything. */
#ifndef FLASHINFER_FLASHINFER_H
#define FLASHINFER_FLASHINFER_H

#include "flashinfer/activation.h"
#include "flashinfer/attention.h"
#include "flashinfer/core.h"
#include "flashinfer/gated_delta.h"
#include "flashinfer/gemm.h"
#include "flashinfer/jit.h"
#include "flashinfer/mamba.h"
#include "flashinfer/norm.h"
#include "flashinfer/page.h"
#include "flashinfer/quantization.h"
#include "flashinfer/rope.h"
#include "flashinfer/sampling.h"
#include "flashinfer/variant.h"

#endif
