/* SPDX-License-Identifier: Apache-2.0 */
/* The architectures of CUDA devices that kernels are compiled for. */
#ifndef CORE_ARCH_H
#define CORE_ARCH_H

#include <stdint.h>

/* An architecture and one typical product of it. */
struct arch {
    int32_t number;  /* 10 * major + minor: 90 for Hopper */
    const char *isa; /* "sm_90a": the name NVRTC is given, with the suffix that unlocks the architecture's own instructions */
    const char *product;
    int32_t sms, smem_block, smem_sm, l2_mib; /* as in struct device */
};

/* Of all of them, ascending, 0-terminated: 80, 86, 89, 90, ... */
extern const int32_t arch_numbers[];

/* NULL if it is not in arch_numbers. */
const struct arch *arch_find(int32_t number);

/* "90,80", "8.0 9.0a", "sm_90a": writes each number once, at most `most` and a 0 after them. NULL, or what is wrong with the
 * text. */
const char *arch_parse_list(const char *text, int32_t *numbers, int most);

#endif
