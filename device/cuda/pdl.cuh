/* SPDX-License-Identifier: Apache-2.0 */
/* Programmatic dependent launch. A kernel calls pdl_wait before it first touches anything that an earlier kernel wrote or reads, and
 * pdl_launch as soon as the next kernel may start its own prologue. Both do nothing before sm_90 or without the launch attribute. */
#ifndef PDL_CUH
#define PDL_CUH

#include "types.cuh"

DEVICE void pdl_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE void pdl_launch()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif
