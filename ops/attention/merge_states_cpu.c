/* SPDX-License-Identifier: Apache-2.0 */
/* Merges states as merge_states_sm80.cu does, on a CPU: 16 heads of a token at a time, COLUMNS elements of each. A part takes a
 * range of these.
 *
 *   T  f16, bf16, f32 */
#include <stdbool.h>

#include "merge_states_args.h"
#include "vec.h"

enum { COLUMNS = 128 };

/* Of up to 16 heads, a lane each. */
static vec load_s(const struct merge_states_args *a, int64_t token, int head, int64_t state, int heads)
{
    const struct merge_states_input *in = state ? &a->rest : &a->first;
    return vec_load_n_f32(in->s + token * in->s_token + head + (state ? state - 1 : 0) * a->s_state, heads);
}

static void add_state(const struct merge_states_args *a, int64_t token, int head, int64_t state, int heads, int column,
                      int columns, vec s, vec weight, float sum[LANES][COLUMNS])
{
    const struct merge_states_input *in = state ? &a->rest : &a->first;
    const T *v = (const T *)in->v + token * in->v_token + head * in->v_head + (state ? state - 1 : 0) * a->v_state + column;
    for (int h = 0; h < heads; h++, v += in->v_head) {
        if (s[h] == -INFINITY) /* whatever its v holds */
            continue;
        int i = 0;
        for (; i + LANES <= columns; i += LANES)
            vec_store_f32(sum[h] + i, vec_load_f32(sum[h] + i) + weight[h] * vec_load(v + i));
        if (i < columns)
            vec_store_f32(sum[h] + i, vec_load_f32(sum[h] + i) + weight[h] * vec_load_n(v + i, columns - i));
    }
}

static void merge_heads(const struct merge_states_args *a, int64_t token, int head, int heads)
{
    vec top = vec_set(-INFINITY), total = {0};
    for (int64_t state = 0; state < a->states; state++)
        top = vec_max2(load_s(a, token, head, state, heads), top);
    vec base = vec_select(top == -INFINITY, (vec){0}, top);
    for (int64_t state = 0; state < a->states; state++)
        total += vec_exp2(load_s(a, token, head, state, heads) - base);
    vec factor = vec_select(total == 0.0f, (vec){0}, 1.0f / total);
    for (int column = 0; column < a->head_dim; column += COLUMNS) {
        float sum[LANES][COLUMNS] = {{0}};
        int columns = a->head_dim - column < COLUMNS ? a->head_dim - column : COLUMNS;
        for (int64_t state = 0; state < a->states; state++) {
            vec s = load_s(a, token, head, state, heads);
            add_state(a, token, head, state, heads, column, columns, s, vec_exp2(s - base), sum);
        }
        T *out = (T *)a->v_merged + token * a->v_merged_token + head * a->v_merged_head + column;
        for (int h = 0; h < heads; h++, out += a->v_merged_head)
            for (int i = 0; i < columns; i += LANES)
                vec_store_n(out + i, vec_load_f32(sum[h] + i) * factor[h], columns - i);
    }
    float *lse = a->s_merged + token * a->s_merged_token + head;
    for (int h = 0; h < heads; h++)
        lse[h] = total[h] == 0 ? -INFINITY : top[h] + log2f(total[h]);
}

void merge_states_cpu(const struct merge_states_args *a, int part, int parts)
{
    int64_t groups = (a->heads + LANES - 1) / LANES;
    for (int64_t i = part_begin(a->tokens * groups, part, parts); i < part_begin(a->tokens * groups, part + 1, parts); i++) {
        int64_t token = i / groups;
        int head = (int)(i % groups) * LANES;
        if (!a->mask || a->mask[token])
            merge_heads(a, token, head, a->heads - head < LANES ? a->heads - head : LANES);
    }
}
