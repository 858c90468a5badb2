/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of batch_decode_cpu, of which variants have the first part alone. */
#ifndef ATTENTION_DECODE_CPU_ARGS_H
#define ATTENTION_DECODE_CPU_ARGS_H

#include "attention_args.h"

struct attention_decode_cpu_args {
    struct attention_args a;
    void *scratch;     /* 64 bytes of zeros, a counter for each task; then partial results of its rows from each of key_parts */
    int32_t key_parts; /* parts that divide the keys of a task; 1: none does */
};

#define ATTENTION_DECODE_CPU_COUNTERS 64
#define ATTENTION_DECODE_CPU_PARTIAL(head_dim_vo) (4 * ((head_dim_vo) + 16)) /* bytes of a row */

#endif
