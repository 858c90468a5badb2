/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels that go token by token take beside q, k and v: gates; and what they bring into the L2 cache. HEAD_DIM, T and
 * GATES: see gated_delta_recurrent_sm80.cu. GATES_APPROX: 1 where states are rounded to 16 bits: exponentials in the hardware's
 * precision. */
#ifndef GATED_DELTA_TOKEN_CUH
#define GATED_DELTA_TOKEN_CUH

#include "math.cuh"
#include "prefetch.cuh"
#include "vec.cuh"
#include "gated_delta_args.h"

#define PER_KEY (GATES >= GATES_PER_KEY)

template <class A, class B> struct differ { enum { value = 1 }; };
template <class A> struct differ<A, A> { enum { value = 0 }; };

#ifndef GATES_APPROX
#define GATES_APPROX 0
#endif

DEVICE float exponential(float x)
{
    return GATES_APPROX ? exp2_approx(LOG2E * x) : expf(x);
}

/* Approximately: within 2^-21 of itself, or absolutely. */
DEVICE float softplus(float x)
{
    if (!GATES_APPROX)
        return x > 20.0f ? x : log1pf(expf(x));
    float e = exponential(-fabsf(x));
    return fmaxf(x, 0.0f) + (e < 0x1p-10f ? e - 0.5f * e * e : 1.0f / LOG2E * log2_approx(1.0f + e));
}

DEVICE float sigmoid(float x)
{
    float e = exponential(-x);
    return GATES_APPROX ? reciprocal_approx(1.0f + e) : 1.0f / (1.0f + e);
}

/* The head of q, k or v that a head of the state goes with; `heads` of them share one. Heads are at most 65,535, so that the
 * error of a reciprocal does not matter, and a division is many instructions. */
DEVICE int head_of(int head, int heads)
{
    return (int)(((float)head + 0.5f) * reciprocal_approx((float)heads));
}

#if PER_KEY
/* As given, of N keys from `key` on. */
template <int N> struct key_gates {
    vec<T, N> alpha;
    T beta;
};

template <int N>
DEVICE void ask_gates(struct key_gates<N> &given, const struct gated_delta_args &a, int64_t token, int head, int key)
{
    const T *gates = (const T *)a.alpha + blockIdx.z * a.alpha_sequence + token * a.alpha_token + head * a.alpha_head;
    given.beta = ((const T *)a.beta)[blockIdx.z * a.beta_sequence + token * a.beta_token + head];
    given.alpha = load_vec<N>(gates + key);
}

template <int N>
DEVICE void work_out_gates(float (&alpha)[N], float &beta, const struct key_gates<N> &given, const struct gated_delta_args &a,
                           int head, int key)
{
    widen(alpha, given.alpha);
#if GATES == GATES_PER_KEY_FROM_LOGITS
    int own = head / a.q_group;
    float slope = exponential(a.A_log[own]);
#endif
#pragma unroll
    for (int i = 0; i < N; i++) {
        float gate = alpha[i];
#if GATES == GATES_PER_KEY_FROM_LOGITS
        gate += a.dt_bias ? ((const float *)a.dt_bias)[own * HEAD_DIM + key + i] : 0.0f;
        gate = a.lower_bound < 0.0f ? a.lower_bound * sigmoid(slope * gate) : -slope * softplus(gate);
#endif
        alpha[i] = exponential(gate);
    }
    beta = to_float(given.beta);
    beta = a.beta_is_logit ? sigmoid(beta) : beta;
}

/* alpha: of key threadIdx.x % HEAD_DIM. */
DEVICE void load_gates(float &alpha, float &beta, const struct gated_delta_args &a, int64_t token, int head)
{
    int key = threadIdx.x % HEAD_DIM;
    struct key_gates<1> given;
    float one[1];
    ask_gates(given, a, token, head, key);
    work_out_gates(one, beta, given, a, head, key);
    alpha = one[0];
}
#elif GATES == GATES_FROM_LOGITS
DEVICE void load_gates(float &alpha, float &beta, const struct gated_delta_args &a, int64_t token, int head)
{
    float bias = a.dt_bias_wide ? ((const float *)a.dt_bias)[head] : to_float(((const T *)a.dt_bias)[head]);
    float gate = to_float(((const T *)a.alpha)[blockIdx.z * a.alpha_sequence + token * a.alpha_token + head]) + bias;
    alpha = exponential(-exponential(a.A_log[head]) * softplus(gate));
    beta = sigmoid(to_float(((const T *)a.beta)[blockIdx.z * a.beta_sequence + token * a.beta_token + head]));
}
#else
DEVICE void load_gates(float &alpha, float &beta, const struct gated_delta_args &a, int64_t token, int head)
{
    alpha = a.alpha ? ((const float *)a.alpha)[blockIdx.z * a.alpha_sequence + token * a.alpha_token + head] : 1.0f;
    beta = a.beta ? ((const float *)a.beta)[blockIdx.z * a.beta_sequence + token * a.beta_token + head] : 1.0f;
}
#endif

/* Part blockIdx.x, of `values` values, of the state that is `ahead` states behind the block's own, into the L2 cache; by one
 * thread. */
template <class State> DEVICE void prefetch_state(const struct gated_delta_args &a, int ahead, int values, uint32_t thread = 0)
{
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x != thread || a.initial.line != HEAD_DIM)
        return;
    uint32_t sequence = blockIdx.z + (blockIdx.y + ahead) / gridDim.y, head = (blockIdx.y + ahead) % gridDim.y;
    int64_t row = sequence < gridDim.z ? initial_row(&a, sequence) : -1;
    if (row >= 0)
        bulk_prefetch((const State *)a.initial.data + row * a.initial.row + head * a.initial.head +
                          blockIdx.x * values * HEAD_DIM,
                      values * HEAD_DIM * sizeof(State));
#endif
}

#endif
