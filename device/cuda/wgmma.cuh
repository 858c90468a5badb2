/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor cores of sm_90a, which a warpgroup drives together: d += a * b for 64 rows, 16 steps of k and N columns, operands in
 * shared memory (b always, a maybe) as rows of 128 bytes whose 16-byte chunk c lies at place c ^ (row % 8).
 *
 * Fragments: thread t of a warpgroup, g = t % 32 / 4, q = t % 4, holds of d, in d[i], row 16 * (t / 32) + g + 8 * (i / 2 % 2),
 * column 8 * (i / 4) + 2 * q + i % 2; and as a the registers of mma.cuh's m16n8k16. */
#ifndef WGMMA_CUH
#define WGMMA_CUH

#include "types.cuh"

/* Before the first wgmma, and after registers of operands were written. */
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* Until at most `pending` groups are under way. */
template <int pending> DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }

/* Keeps the compiler from moving uses of d across: before wgmma_fence, and after wgmma_wait. */
template <int N> DEVICE void wgmma_pin(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* Divides work on one product while another goes on: what stands before is done before a wait for the other, what needs x or y
 * after this. ptxas would have it all behind the wait, but moves nothing across a branch that may be taken for all it knows.
 * never: false, as no compiler can tell. */
DEVICE void wgmma_divide(bool never, float &x, float &y)
{
    if (never)
        asm volatile("nanosleep.u32 1;\nmov.f32 %0, 0f00000000;\nmov.f32 %1, 0f00000000;" : "+f"(x), "+f"(y));
}

/* Describes an operand at a 1024-byte aligned address. Its rows are k-contiguous: `stride` is between groups of 8 rows, `leading`
 * is not looked at. Or its columns are contiguous (_columns below): `stride` is between 8 steps of k, `leading` between 64
 * columns. Moving on along k adds bytes / 16 to it. */
DEVICE uint64_t wgmma_describe(uint32_t address, uint32_t leading, uint32_t stride)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((leading & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride & 0x3ffff) >> 4) << 32 | (uint64_t)1 << 62;
}

/* Rows of 32 bytes instead, one step of k, whose 16-byte chunk c lies at place c ^ (row / 4 % 2), at a 256-byte aligned
 * address. */
DEVICE uint64_t wgmma_describe_narrow(uint32_t address, uint32_t stride)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)((stride & 0x3ffff) >> 4) << 32 |
           (uint64_t)3 << 62;
}

#define WGMMA_10(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define WGMMA_TEXT_32 WGMMA_10() WGMMA_10(1) WGMMA_10(2) "%30,%31"
#define WGMMA_TEXT_40 WGMMA_10() WGMMA_10(1) WGMMA_10(2) "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39"
#define WGMMA_TEXT_48 WGMMA_10() WGMMA_10(1) WGMMA_10(2) WGMMA_10(3) "%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_TEXT_60 WGMMA_10() WGMMA_10(1) WGMMA_10(2) WGMMA_10(3) WGMMA_10(4) WGMMA_10(5)
#define WGMMA_TEXT_64 WGMMA_TEXT_60 "%60,%61,%62,%63"
#define WGMMA_TEXT_128                                                                                                      \
    WGMMA_TEXT_60 WGMMA_10(6) WGMMA_10(7) WGMMA_10(8) WGMMA_10(9) WGMMA_10(10) WGMMA_10(11) "%120,%121,%122,%123,%124,%125,%" \
                                                                                            "126,%127"
#define WGMMA_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_16(i) WGMMA_4(i), WGMMA_4(i + 4), WGMMA_4(i + 8), WGMMA_4(i + 12)
#define WGMMA_D_32 WGMMA_16(0), WGMMA_16(16)
#define WGMMA_D_40 WGMMA_D_32, WGMMA_4(32), WGMMA_4(36)
#define WGMMA_D_48 WGMMA_D_32, WGMMA_16(32)
#define WGMMA_D_64 WGMMA_D_32, WGMMA_16(32), WGMMA_16(48)
#define WGMMA_D_128 WGMMA_D_64, WGMMA_16(64), WGMMA_16(80), WGMMA_16(96), WGMMA_16(112)

/* d = a * b, + d if `add`; the tag says what a and b hold. HALF, half of N, is the registers of d; the six numbers
 * after it are the operands that follow. */
#define WGMMA(N, HALF, i0, i1, i2, i3, i4, i5, type)                                                                           \
    DEVICE void wgmma(float(&d)[HALF], uint64_t a, uint64_t b, bool add, type)                                                 \
    {                                                                                                                          \
        asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #i2 ", 0;\n"                                                     \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" WGMMA_TEXT_##HALF "}, %" #i0       \
                     ", %" #i1 ", more, 1, 1, 0, 0;\n}"                                                                         \
                     : WGMMA_D_##HALF                                                                                          \
                     : "l"(a), "l"(b), "r"((int)add));                                                                         \
    }                                                                                                                          \
    /* d = a * b, + d if `add`; a in registers, the rows of b k-contiguous. */                                                 \
    DEVICE void wgmma_rows(float(&d)[HALF], const uint32_t *a, uint64_t b, bool add, type)                                     \
    {                                                                                                                          \
        asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #i5 ", 0;\n"                                                     \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" WGMMA_TEXT_##HALF "}, {%" #i0      \
                     ",%" #i1 ",%" #i2 ",%" #i3 "}, %" #i4 ", more, 1, 1, 0;\n}"                                               \
                     : WGMMA_D_##HALF                                                                                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));                                     \
    }                                                                                                                          \
    /* d += a * b; a in registers, the columns of b contiguous. */                                                             \
    DEVICE void wgmma_columns(float(&d)[HALF], const uint32_t *a, uint64_t b, type)                                            \
    {                                                                                                                          \
        asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #i5 ", 0;\n"                                                     \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" WGMMA_TEXT_##HALF "}, {%" #i0      \
                     ",%" #i1 ",%" #i2 ",%" #i3 "}, %" #i4 ", more, 1, 1, 1;\n}"                                               \
                     : WGMMA_D_##HALF                                                                                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));                                            \
    }
#define WGMMA_TYPES(N, HALF, i0, i1, i2, i3, i4, i5)  \
    WGMMA(N, HALF, i0, i1, i2, i3, i4, i5, f16)       \
    WGMMA(N, HALF, i0, i1, i2, i3, i4, i5, bf16)
WGMMA_TYPES(64, 32, 32, 33, 34, 35, 36, 37)
WGMMA_TYPES(80, 40, 40, 41, 42, 43, 44, 45)
WGMMA_TYPES(96, 48, 48, 49, 50, 51, 52, 53)
WGMMA_TYPES(128, 64, 64, 65, 66, 67, 68, 69)
WGMMA_TYPES(256, 128, 128, 129, 130, 131, 132, 133)

/* Four steps of k in one statement, for which the compiler needs less time than for four: where k runs along rows they lie 32
 * bytes apart, where it runs along columns `by` of what moves a description on. */
#define WGMMA_STEPS(to, from, by) \
    "add.s64 " #to "1, %" #from ", " by ";\nadd.s64 " #to "2, %" #from ", 2*" by ";\nadd.s64 " #to "3, %" #from ", 3*" by ";\n"
#define WGMMA_TEXT(N, HALF, type) "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" WGMMA_TEXT_##HALF "}, "
#define WGMMA_A_4(i) "r"(a[i]), "r"(a[i + 1]), "r"(a[i + 2]), "r"(a[i + 3])
#define WGMMA_FOUR(N, HALF, i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, i12, i13, i14, i15, i16, i17, type)              \
    DEVICE void wgmma_4(float(&d)[HALF], uint64_t a, uint64_t b, bool add, type)                                               \
    {                                                                                                                          \
        asm volatile("{\n.reg .pred more;\n.reg .b64 a<4>, b<4>;\nsetp.ne.b32 more, %" #i2 ", 0;\n" WGMMA_STEPS(a, i0, "2")     \
                     WGMMA_STEPS(b, i1, "2") WGMMA_TEXT(N, HALF, type) "%" #i0 ", %" #i1 ", more, 1, 1, 0, 0;\n"                 \
                     WGMMA_TEXT(N, HALF, type) "a1, b1, 1, 1, 1, 0, 0;\n"                                                      \
                     WGMMA_TEXT(N, HALF, type) "a2, b2, 1, 1, 1, 0, 0;\n"                                                      \
                     WGMMA_TEXT(N, HALF, type) "a3, b3, 1, 1, 1, 0, 0;\n}"                                                     \
                     : WGMMA_D_##HALF                                                                                          \
                     : "l"(a), "l"(b), "r"((int)add));                                                                         \
    }                                                                                                                          \
    DEVICE void wgmma_rows_4(float(&d)[HALF], const uint32_t *a, uint64_t b, bool add, type)                                   \
    {                                                                                                                          \
        asm volatile("{\n.reg .pred more;\n.reg .b64 b<4>;\nsetp.ne.b32 more, %" #i17 ", 0;\n" WGMMA_STEPS(b, i16, "2")         \
                     WGMMA_TEXT(N, HALF, type) "{%" #i0 ",%" #i1 ",%" #i2 ",%" #i3 "}, %" #i16 ", more, 1, 1, 0;\n"            \
                     WGMMA_TEXT(N, HALF, type) "{%" #i4 ",%" #i5 ",%" #i6 ",%" #i7 "}, b1, 1, 1, 1, 0;\n"                      \
                     WGMMA_TEXT(N, HALF, type) "{%" #i8 ",%" #i9 ",%" #i10 ",%" #i11 "}, b2, 1, 1, 1, 0;\n"                    \
                     WGMMA_TEXT(N, HALF, type) "{%" #i12 ",%" #i13 ",%" #i14 ",%" #i15 "}, b3, 1, 1, 1, 0;\n}"                 \
                     : WGMMA_D_##HALF                                                                                          \
                     : WGMMA_A_4(0), WGMMA_A_4(4), WGMMA_A_4(8), WGMMA_A_4(12), "l"(b), "r"((int)add));                        \
    }                                                                                                                          \
    template <int by> DEVICE void wgmma_columns_4(float(&d)[HALF], const uint32_t *a, uint64_t b, type)                        \
    {                                                                                                                          \
        asm volatile("{\n.reg .b64 b<4>;\n" WGMMA_STEPS(b, i16, "%" #i17)                                                      \
                     WGMMA_TEXT(N, HALF, type) "{%" #i0 ",%" #i1 ",%" #i2 ",%" #i3 "}, %" #i16 ", 1, 1, 1, 1;\n"               \
                     WGMMA_TEXT(N, HALF, type) "{%" #i4 ",%" #i5 ",%" #i6 ",%" #i7 "}, b1, 1, 1, 1, 1;\n"                      \
                     WGMMA_TEXT(N, HALF, type) "{%" #i8 ",%" #i9 ",%" #i10 ",%" #i11 "}, b2, 1, 1, 1, 1;\n"                    \
                     WGMMA_TEXT(N, HALF, type) "{%" #i12 ",%" #i13 ",%" #i14 ",%" #i15 "}, b3, 1, 1, 1, 1;\n}"                 \
                     : WGMMA_D_##HALF                                                                                          \
                     : WGMMA_A_4(0), WGMMA_A_4(4), WGMMA_A_4(8), WGMMA_A_4(12), "l"(b), "n"(by));                              \
    }
#define WGMMA_FOUR_TYPES(N, HALF, ...)       \
    WGMMA_FOUR(N, HALF, __VA_ARGS__, f16)    \
    WGMMA_FOUR(N, HALF, __VA_ARGS__, bf16)
WGMMA_FOUR_TYPES(64, 32, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49)
WGMMA_FOUR_TYPES(80, 40, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57)
WGMMA_FOUR_TYPES(96, 48, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65)
WGMMA_FOUR_TYPES(128, 64, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81)
WGMMA_FOUR_TYPES(256, 128, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145)

#endif
