/* SPDX-License-Identifier: Apache-2.0 */
/* Programmatic dependent launch. A kernel calls pdl_wait before it first touches anything that an earlier kernel wrote or reads.
 * (What it looked up before that, as a guess, it reads again, past the L1 cache, and compares.) Every kernel calls it, so that
 * its end means the end of all before it. pdl_launch lets the next kernel start its prologue once all blocks have called it, or
 * ended. Since that kernel waits in turn, the right place for it is the very beginning. Both do nothing before sm_90, or without
 * the launch attribute.
 *
 * A kernel's instructions are in no cache of a multiprocessor when it begins, and with few rows it waits for them longer than for
 * data. So a kernel may rehearse: go through its code once before pdl_wait, while the kernel before still runs, with zeros for
 * what it may not read yet and without its stores. */
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

/* The multiprocessors of the device, or a few more: some numbers may be missing. */
DEVICE uint32_t multiprocessors()
{
    uint32_t count;
    asm("mov.u32 %0, %%nsmid;" : "=r"(count));
    return count;
}

/* Uses a value, so that it is read: for the caches' sake. */
DEVICE void touch(int x)
{
    asm volatile("{\n.reg .pred seldom;\nsetp.eq.s32 seldom, %0, 0x6d1c8fb3;\n@seldom pmevent 0;\n}" ::"r"(x));
}

#endif
