/* SPDX-License-Identifier: Apache-2.0 */
/* The brand of this CPU, and what code compiled for "this machine" depends on. */
#ifndef CORE_CPU_FEATURES_H
#define CORE_CPU_FEATURES_H

#include <stdbool.h>
#include <stddef.h>

void cpu_describe(char *brand, size_t brand_size, char *isa, size_t isa_size);

/* Whether a source asks, by its compiler's macro (__AVX512BF16__), for an extension beyond its level that this CPU has. */
bool cpu_extends(const char *source);

#endif
