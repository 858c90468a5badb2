/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of the gated delta rule for one token, and for a few, share. Both products of a state, with k and with q, come
 * before the update; of 16 bits they are the tensor cores', which take states as they are in memory: so instructions cost less
 * than bytes. With S the state before,
 *
 *     gain = beta (v - alpha S k);   output = alpha S q + gain (k . q);   S' = alpha S + gain k
 *
 * where the product of k and q, and their norms, come from one more tile. Gates are in the hardware's precision where states are
 * rounded to 16 bits. T, STATE, HEAD_DIM and GATES: see the kernels. */
#ifndef GATED_DELTA_DECODE_CUH
#define GATED_DELTA_DECODE_CUH

#include "mma.cuh"
#include "pdl.cuh"
#include "vec.cuh"
#define GATES_APPROX (sizeof(STATE) == 2)
#include "gated_delta_token.cuh"

#ifndef VALUES
#define VALUES 64 /* of a block */
#endif
enum { D = HEAD_DIM };

/* Two blocks of a state at the same time. A cluster of one is no slower than none, and with values last faster. */
#if __CUDA_ARCH__ >= 900
#define TOGETHER __cluster_dims__(HEAD_DIM > VALUES ? 2 : 1, 1, 1)
#else
#define TOGETHER
#endif

enum { MIXED = differ<T, STATE>::value }; /* k and q have to be rounded to what the tensor cores take with a state */

template <class Element, int N = 8> union piece {
    vec<Element, N> all;
    uint32_t pair[N * sizeof(Element) / 4];
};

/* A power of two that brings the number of these bits, the largest of some, to 2^13: so f16 has all of them, and small ones keep
 * their bits. */
DEVICE float power_for(uint32_t largest)
{
    return __uint_as_float((267 - max(largest >> 23, 14u)) << 23);
}

DEVICE float inverse_of_power(float x)
{
    return __uint_as_float((254 << 23) - __float_as_uint(x));
}

DEVICE int warp()
{
    return threadIdx.x / 32;
}
DEVICE int group()
{
    return threadIdx.x % 32 / 4;
}
DEVICE int lane4()
{
    return threadIdx.x % 4;
}

DEVICE const T *row_of(const struct head_rows &rows, int head)
{
    return (const T *)rows.data + blockIdx.z * (rows.sequence + rows.token) + head * rows.head;
}

#endif
