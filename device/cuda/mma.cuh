/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor cores of sm_80 and later, and what feeds them: asynchronous copies into shared memory, ldmatrix,
 * mma.sync. Shared memory is addressed by 32-bit addresses, see shared_address.
 *
 * Fragments of m16n8k16, where g = lane / 4 and t = lane % 4 (.. means two neighbours in one register, the
 * lower column first):
 *   a[0] = A[g][2t..], a[1] = A[g + 8][2t..], a[2] = A[g][2t + 8..], a[3] = A[g + 8][2t + 8..]
 *   b[0] = B[2t..][g], b[1] = B[2t + 8..][g]
 *   d[0], d[1] = D[g][2t..], d[2], d[3] = D[g + 8][2t..] */
#ifndef MMA_CUH
#define MMA_CUH

#include "types.cuh"

DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* d += a * b, accumulated in float32. The tag, any value of that type, says what the operands hold. */
DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same of 16 columns in one statement, which compiles in less time than two: d[0] and b[0], b[1] of the first 8, d[1] and
 * b[2], b[3] of the others. */
#define MMA(T, d, b) "mma.sync.aligned.m16n8k16.row.col.f32." T "." T ".f32 {" d "}, {%8,%9,%10,%11}, {" b "}, {" d "};\n"
#define MMA_M16N16K16(T)                                                                       \
    asm volatile(MMA(T, "%0,%1,%2,%3", "%12,%13") MMA(T, "%4,%5,%6,%7", "%14,%15")             \
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),                 \
                   "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3])                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]))

DEVICE void mma_m16n16k16(float (*d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], f16) { MMA_M16N16K16("f16"); }
DEVICE void mma_m16n16k16(float (*d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], bf16) { MMA_M16N16K16("bf16"); }
#undef MMA_M16N16K16
#undef MMA

/* d += a * b for 8 steps of k, of whose operands tf32 takes the upper bits, accumulated in float32: a[0] = A[g][t],
 * a[1] = A[g + 8][t], a[2] = A[g][t + 4], a[3] = A[g + 8][t + 4]; b[0] = B[t][g], b[1] = B[t + 4][g]. */
DEVICE void mma_m16n8k8(float (&d)[4], const float (&a)[4], const float (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                   "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

/* Four 8x8 matrices of 16-bit elements. Lane 8i + j gives the 16-byte aligned address of row j of matrix i;
 * r[i] receives elements [g][2t..] of matrix i, or [2t..][g] with _trans. */
DEVICE void ldmatrix_x4(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* The other way round, with addresses as ldmatrix_x4 takes them. */
DEVICE void stmatrix_x4(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r0), "r"(r1), "r"(r2),
                 "r"(r3)
                 : "memory");
#else
    const uint32_t r[4] = {r0, r1, r2, r3};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t row = __shfl_sync(0xffffffffu, address, 8 * i + threadIdx.x % 32 / 4);
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(row + threadIdx.x % 4 * 4), "r"(r[i]) : "memory");
    }
#endif
}

/* An 8x8 matrix of 16-bit elements of which this lane holds [g][2t..]: it receives [2t..][g]. */
DEVICE uint32_t transpose_8x8(uint32_t x)
{
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/* Copies 16 bytes to shared memory, of which the first `bytes` (0 to 16) are read and the rest is zero. Both
 * addresses are multiples of 16; with 0 bytes the global one is not read, but must be a valid pointer. */
DEVICE void cp_async_16(uint32_t shared, const void *global, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}

/* All 16, with a policy for the L2 cache. */
DEVICE void cp_async_16(uint32_t shared, const void *global, uint64_t policy)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "l"(policy)
                 : "memory");
}

/* For what is read once: the first to leave the L2 cache. */
DEVICE uint64_t evict_first_policy()
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* 16 bytes to 16-byte aligned shared memory, or zeros; then nothing is read. */
DEVICE void cp_async_16_or_zero(uint32_t shared, const void *global, bool exists)
{
    asm volatile("{\n.reg .pred absent;\nsetp.eq.b32 absent, %2, 0;\n"
                 "cp.async.cg.shared.global [%0], [%1], 16, absent;\n}" ::"r"(shared), "l"(global), "r"((int)exists)
                 : "memory");
}

/* Closes a group of this thread's copies. */
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits until at most `pending` of this thread's groups, the latest ones, are under way. A barrier makes the
 * data visible to others. */
template <int pending> DEVICE void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/* Asks for the line of the L2 cache that holds that address. */
DEVICE void prefetch_l2(const void *global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

#endif
