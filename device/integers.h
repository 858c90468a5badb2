/* SPDX-License-Identifier: Apache-2.0 */
/* Fixed-width integers for headers that host code, CUDA kernels and CPU kernels share. NVRTC has no <stdint.h>. */
#ifndef INTEGERS_H
#define INTEGERS_H

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

/* A function of kernels on both targets, and of host code. ROLLED stands before a loop that NVRTC is not to unroll. */
#ifdef __CUDACC_RTC__
#define ANYWHERE static __device__ __forceinline__
#define ROLLED _Pragma("unroll 1")
#else
#define ANYWHERE static inline __attribute__((unused))
#define ROLLED
#endif

/* The same, of what is seldom needed. A kernel whose instructions are in no cache has it called, out of the way of the others. */
#ifndef SELDOM
#define SELDOM ANYWHERE
#endif

#endif
