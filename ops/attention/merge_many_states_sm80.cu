/* SPDX-License-Identifier: Apache-2.0 */
/* Merges any number of states, STATES at a time. Constants: merge_states.cuh. Grid: a block for each THREADS / LANES rows. */
enum { STATES = 8 };
#include "merge_states.cuh"

enum { THREADS = 256, BLOCKS = 4 /* of a multiprocessor, as far as registers go */ };

DEVICE void add_states(struct merged &m, const float (&s)[STATES], const vec<T, VEC> (&v)[STATES])
{
    float top = largest_of(m.top, s), base = top == -INFINITY ? 0.0f : top, shrink = exp2_approx(m.top - base);
    m.top = top;
    m.sum *= shrink;
    scale(m, shrink);
#pragma unroll
    for (int i = 0; i < STATES; i++)
        if (s[i] != -INFINITY) /* else whatever its v holds */
            add_state(m, exp2_approx(s[i] - base), v[i]);
}

/* The elements of a row from `column` on, and its s. */
DEVICE struct merged merge(const struct merge_states_args &a, int64_t token, int64_t head, int column)
{
    const T *first_v = (const T *)a.first.v + token * a.first.v_token + head * a.first.v_head + column;
    const T *rest_v = (const T *)a.rest.v + token * a.rest.v_token + head * a.rest.v_head + column;
    const float *first_s = a.first.s + token * a.first.s_token + head, *rest_s = a.rest.s + token * a.rest.s_token + head;
    struct merged m = {-INFINITY, 0.0f};
#pragma unroll 1
    for (int state = 0; state < a.states; state += STATES) {
        vec<T, VEC> v[STATES];
        float s[STATES];
#pragma unroll
        for (int i = 0; i < STATES; i++) {
            s[i] = -INFINITY;
            if (state + i < a.states) {
                bool is_first = i == 0 && state == 0;
                v[i] = load_vec<VEC>(is_first ? first_v : rest_v + (state + i - 1) * a.v_state);
                s[i] = *(is_first ? first_s : rest_s + (state + i - 1) * a.s_state);
            }
        }
        add_states(m, s, v);
    }
    return m;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
merge_many_states_sm80(const __grid_constant__ struct merge_states_args a)
{
    uint32_t row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, token = row / a.heads, head = row - token * a.heads;
    pdl_launch();
    pdl_wait();
    bool writes = token < a.tokens && !(a.mask && !a.mask[token]);
    struct merged m;
    if (writes) {
        T *to = see_merged(a, token, head);
#pragma unroll 1
        for (int column = threadIdx.x % LANES * VEC; column < a.head_dim; column += LANES * VEC) {
            m = merge(a, token, head, column);
            scale(m, m.sum == 0.0f ? 0.0f : 1.0f / m.sum);
            store(to + column, m.v);
        }
    }
    __syncwarp(); /* s_merged may be an input, of the row's other lanes too */
    if (writes && threadIdx.x % LANES == 0)
        write_s(a, token, head, m);
}
