/* SPDX-License-Identifier: Apache-2.0 */
/* What sm_90a brings: barriers in shared memory that count bytes, bulk tensor copies (TMA), registers that move between
 * warpgroups, and the fences between the two ways into memory. Shared memory is addressed by 32-bit addresses. */
#ifndef HOPPER_CUH
#define HOPPER_CUH

#include "barrier.cuh"
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

/* Without a branch, which would make the compiler wait where wgmmas are under way. */
DEVICE void mbarrier_arrive_if(uint32_t barrier, bool condition)
{
    asm volatile("{\n.reg .pred arrives;\nsetp.ne.b32 arrives, %1, 0;\n"
                 "@arrives mbarrier.arrive.shared::cta.b64 _, [%0];\n}" ::"r"(barrier), "r"((int)condition)
                 : "memory");
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

/* A place in a ring of buffers with barriers: which of them, and the parity of the phase that ends when it is full. */
struct ring {
    int stage, phase;
};

template <int stages> DEVICE void advance(struct ring &r)
{
    if (++r.stage == stages) {
        r.stage = 0;
        r.phase ^= 1;
    }
}

/* This thread arrives once all its cp_async_16 are done; the arrival is one of `count`. */
DEVICE void cp_async_arrive(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* True in one lane of the warp, always the same one. */
DEVICE bool elect()
{
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
    return elected;
}

DEVICE void tensor_map_prefetch(const struct tensor_map *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* Brings a box (tensor_load_4d, tensor_load_5d) to the L2 cache; a place beyond the tensor does nothing. */
DEVICE void tensor_prefetch_4d(const struct tensor_map *map, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1,%2,%3,%4}];" ::"l"(map), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

DEVICE void tensor_prefetch_5d(const struct tensor_map *map, int x, int y, int z, int w, int v)
{
    asm volatile("cp.async.bulk.prefetch.tensor.5d.L2.global.tile [%0, {%1,%2,%3,%4,%5}];" ::"l"(map), "r"(x), "r"(y), "r"(z),
                 "r"(w), "r"(v)
                 : "memory");
}

/* Starts to copy the box at that place of a tensor of four axes, innermost first, to shared memory; its bytes, those beyond the
 * tensor's end included, which become 0, count at the barrier. */
DEVICE void tensor_load_4d(uint32_t shared, const struct tensor_map *map, uint32_t barrier, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2,%3,%4,%5}], [%6];" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(barrier)
                 : "memory");
}

/* Of a tensor of five axes. */
DEVICE void tensor_load_5d(uint32_t shared, const struct tensor_map *map, uint32_t barrier, int x, int y, int z, int w, int v)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2,%3,%4,%5,%6}], [%7];" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "r"(barrier)
                 : "memory");
}

/* The same with a policy for the L2 cache. */
DEVICE void tensor_load_5d(uint32_t shared, const struct tensor_map *map, uint32_t barrier, int x, int y, int z, int w, int v,
                           uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1, {%2,%3,%4,%5,%6}], [%7], %8;" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "r"(barrier), "l"(policy)
                 : "memory");
}

/* The same for bytes that lie one after the other; addresses and `bytes` are multiples of 16. */
DEVICE void bulk_load(uint32_t shared, const void *global, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
                 "l"(global), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* The other way; they belong to the group that this thread closes next. */
DEVICE void bulk_store(void *global, uint32_t shared, uint32_t bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared), "r"(bytes) : "memory");
}

DEVICE void tensor_store_4d(const struct tensor_map *map, uint32_t shared, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1,%2,%3,%4}], [%5];" ::"l"(map), "r"(x),
                 "r"(y), "r"(z), "r"(w), "r"(shared)
                 : "memory");
}

DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/* Until at most `pending` of this thread's groups are not written yet, or still read shared memory. */
template <int pending> DEVICE void bulk_wait() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(pending) : "memory"); }
template <int pending> DEVICE void bulk_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

/* Four 8x8 matrices of 16-bit elements, as ldmatrix_x4_trans of mma.cuh loads them. */
DEVICE void stmatrix_x4_trans(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r0), "r"(r1),
                 "r"(r2), "r"(r3)
                 : "memory");
}

/* Makes what this thread wrote to shared memory visible to wgmma and bulk copies; a barrier follows. */
DEVICE void shared_async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Bulk copies that this thread starts see what it has seen of others' writes to global memory. */
DEVICE void global_async_fence() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/* A flag in global memory, for a kernel that runs beside this one: what the thread did, and what it has seen through barriers, is
 * seen by who sees the flag. */
DEVICE void raise_flag(int32_t *flag)
{
    asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(flag) : "memory");
}
DEVICE bool is_raised(const int32_t *flag)
{
    int raised;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(raised) : "l"(flag) : "memory");
    return raised;
}

/* Of a whole warpgroup: lets go of registers, or takes them once they are there. A multiple of 8. */
template <int registers> DEVICE void registers_release()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers> DEVICE void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers)); }

#endif
