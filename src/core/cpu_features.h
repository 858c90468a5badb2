/* SPDX-License-Identifier: Apache-2.0 */
/* The brand of this CPU, and what code compiled for "this machine" depends on. */
#ifndef CORE_CPU_FEATURES_H
#define CORE_CPU_FEATURES_H

#include <stddef.h>

void cpu_describe(char *brand, size_t brand_size, char *isa, size_t isa_size);

#endif
