/* SPDX-License-Identifier: Apache-2.0 */
/* Merges up to STATES states, see merge_states.cuh. Constants beside those there:
 *   STATES    2, 4, 8
 *   THREADS   of a block
 *   REHEARSES 1: see pdl.cuh
 * Grid: a block for each THREADS / LANES rows. */
#include "merge_states.cuh"

/* Of 256 threads, of a multiprocessor, as far as registers go. */
enum { BLOCKS = REHEARSES || STATES == 8 ? 4 : STATES == 4 ? 5 : __CUDA_ARCH__ >= 1000 ? 6 : 8 };

/* A state's elements of a row, and its s. */
struct state {
    const T *v;
    const float *s;
};

DEVICE struct state see_state(const struct merge_states_input &in, int64_t token, int64_t head)
{
    return {(const T *)in.v + (token * in.v_token + head * in.v_head), in.s + (token * in.s_token + head)};
}

/* Of a row, from its first state, `next`, and those behind it. */
DEVICE struct merged merge(const struct merge_states_args &a, struct state next, struct state rest, int states)
{
    struct merged m = {-INFINITY, 0.0f};
    vec<T, VEC> v[STATES];
    float s[STATES];
#pragma unroll
    for (int i = 0; i < STATES; i++) {
        s[i] = -INFINITY;
        v[i] = {};
        if (i < states) {
            s[i] = *next.s;
            v[i] = load_vec<VEC>(next.v);
        }
        next = rest;
        rest = {rest.v + a.v_state, rest.s + a.s_state};
    }
    m.top = largest_of(m.top, s);
    float base = m.top == -INFINITY ? 0.0f : m.top;
#pragma unroll
    for (int i = 0; i < STATES; i++) {
        float weight = exp2_approx(s[i] - base);
        vec<T, VEC> known = v[i];
        if (s[i] == -INFINITY) /* whatever its v holds */
            known = {};
        add_state(m, weight, known);
    }
    return m;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS * 256 / THREADS)
merge_states_sm80(const __grid_constant__ struct merge_states_args a)
{
    uint32_t row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, token = row / a.heads, head = row - token * a.heads;
    struct state first = see_state(a.first, token, head), rest = see_state(a.rest, token, head);
    pdl_launch();
#pragma unroll 1
    for (bool real = !REHEARSES;; real = true) {
        if (real)
            pdl_wait();
        bool writes = real && token < a.tokens && !(a.mask && !a.mask[token]);
        struct merged m;
        if (writes || !real) {
            T *to = see_merged(a, token, head);
#pragma unroll 1
            for (int column = threadIdx.x % LANES * VEC; column < a.head_dim; column += LANES * VEC) {
                m = merge(a, {first.v + column, first.s}, {rest.v + column, rest.s}, real ? a.states : 0);
                scale(m, m.sum == 0.0f ? 0.0f : reciprocal_approx(m.sum));
                if (writes)
                    store(to + column, m.v);
            }
        }
        if (!real)
            continue;
        __syncwarp(); /* s_merged may be an input, of the row's other lanes too */
        if (writes && threadIdx.x % LANES == 0)
            write_s(a, token, head, m);
        return;
    }
}
