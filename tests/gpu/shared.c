/* SPDX-License-Identifier: Apache-2.0 */
/* Children with an environment of their own, and batches of requests, as the tests on the CPU have them. */
#include "tests/jit/support.c"

#include "tests/ops/attention_batch.c"
