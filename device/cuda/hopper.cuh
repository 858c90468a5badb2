/* SPDX-License-Identifier: Apache-2.0 */
/* What sm_90a brings: barriers in shared memory that count bytes, bulk tensor copies (TMA), registers that move between
 * warpgroups, and the fences between the two ways into memory. Shared memory is addressed by 32-bit addresses. */
#ifndef HOPPER_CUH
#define HOPPER_CUH

#include "tensor_map.h"
#include "types.cuh"

/* A barrier completes a phase when `count` arrivals and all expected bytes have come. */
DEVICE void mbarrier_init(uint32_t barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}

/* After the last mbarrier_init, by the thread that called it; a __syncthreads follows. */
DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void mbarrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* Waits for the end of the phase of that parity; of a fresh barrier, the phase before the first one has parity 1. */
DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n.reg .pred done;\n"
                 "AGAIN_%=: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni DONE_%=;\nbra.uni AGAIN_%=;\nDONE_%=:\n}" ::"r"(barrier), "r"(parity)
                 : "memory");
}

/* This thread arrives once all its cp_async_16 are done; the arrival is one of `count`. */
DEVICE void cp_async_arrive(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* Barriers 1 to 15 of a block; `threads` is a multiple of 32. */
DEVICE void named_barrier_sync(uint32_t id, uint32_t threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEVICE void tensor_map_prefetch(const struct tensor_map *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* Starts to copy the box at that place of a tensor of four axes, innermost first, to shared memory; its bytes, those beyond the
 * tensor's end included, which become 0, count at the barrier. */
DEVICE void tensor_load_4d(uint32_t shared, const struct tensor_map *map, uint32_t barrier, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2,%3,%4,%5}], [%6];"
                 ::"r"(shared), "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(barrier)
                 : "memory");
}

/* Makes what this thread wrote to shared memory visible to wgmma and bulk copies; a barrier follows. */
DEVICE void shared_async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Of a whole warpgroup: lets go of registers, or takes them once they are there. A multiple of 8. */
template <int registers> DEVICE void registers_release()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers> DEVICE void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers)); }

#endif
