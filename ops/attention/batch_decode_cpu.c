/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode on a CPU. A part is one request and some of its KV heads, whose keys and values lie side by side in a page: the
 * parts of a request, parts / batch, share them out. If those are more than its KV heads, a part is ROWS of the query heads
 * that read one. Where these tasks are few, key_parts parts divide the keys of each.
 *
 *   T, HEAD_DIM as in attention_cpu.h */
#ifdef __AVX512F__ /* whose shuffles and registers it takes */
#define FEW_ROWS 4
#else
#define FEW_ROWS 0
#endif
#include "attention_cpu.h"
#include "attention_decode_cpu_args.h"

/* A row's, of some of its keys. */
struct partial {
    float o[HEAD_DIM_VO], top, sum, rest[14]; /* ATTENTION_DECODE_CPU_PARTIAL */
};

static void keep_rows(struct partial *to, const struct task *t, const struct state *s)
{
    for (int r = 0; r < t->rows * t->kv_heads; r++) {
        memcpy(to[r].o, s->o[r], sizeof to[r].o);
        to[r].top = s->top[r];
        to[r].sum = vec_sum(vec_load_f32(s->sum[r]));
    }
}

/* In their order, whoever came last. */
static void merge_rows(struct state *s, const struct task *t, const struct partial *from, int step, int count)
{
    for (int r = 0; r < t->rows * t->kv_heads; r++) {
        vec o[HEAD_DIM_VO / LANES] = {{0}};
        float top = -INFINITY, sum = 0;
        for (int i = 0; i < count; i++)
            top = from[i * step + r].top > top ? from[i * step + r].top : top;
        float base = top == -INFINITY ? 0 : top; /* as in weigh_row; what is NaN stays so */
        for (int i = 0; i < count; i++) {
            const struct partial *p = &from[i * step + r];
            float shrink = exp2f(p->top - base);
            sum += p->sum * shrink;
            for (int k = 0; k < HEAD_DIM_VO / LANES; k++)
                o[k] += vec_load_f32(p->o + k * LANES) * shrink;
        }
        s->top[r] = top;
        vec_store_f32(s->sum[r], vec_first(vec_set(sum), 1));
        memcpy(s->o[r], o, sizeof o);
    }
}

/* The tiles of tokens that a request sees. */
struct tiles {
    int64_t begin, count;
};

static struct tiles tiles_of(const struct attention_args *a, const struct task *t)
{
    int64_t own = t->kv_len - 1, begin = a->window_left >= 0 && own > a->window_left ? (own - a->window_left) / TILE : 0;
    return (struct tiles){begin, (t->kv_len + TILE - 1) / TILE - begin};
}

/* The piece-th of the parts that divide the keys of a task, the number-th of all; each has a tile at least, so that there may be
 * fewer. The last one to be done puts them together. */
static void attend_keys(const struct attention_decode_cpu_args *d, const struct task *t, struct tiles tiles, int number,
                        int piece)
{
    const struct attention_args *a = &d->a;
    _Alignas(64) struct state s;
    int pieces = tiles.count < d->key_parts ? (int)tiles.count : d->key_parts, rows = (int)(t->rows * t->kv_heads);
    int64_t rows_before = ((int64_t)t->request * a->num_kv_heads + t->kv_head) * a->group;
    struct partial *partial = (struct partial *)((char *)d->scratch + ATTENTION_DECODE_CPU_COUNTERS) + rows_before * d->key_parts;
    if (piece >= pieces)
        return;
    begin_task(a, t, &s);
    attend_tiles(a, t, &s, tiles.begin + part_begin(tiles.count, piece, pieces),
                 tiles.begin + part_begin(tiles.count, piece + 1, pieces));
    keep_rows(partial + piece * rows, t, &s);
    if (__atomic_add_fetch((int32_t *)d->scratch + number, 1, __ATOMIC_ACQ_REL) < pieces)
        return;
    merge_rows(&s, t, partial, rows, pieces);
    write_rows(a, t, &s);
}

/* KV heads of a task, the piece-th share of at most so many. */
static void attend_heads(const struct attention_args *a, const struct task *whole, int piece, int pieces)
{
    struct task t = *whole;
    pieces = pieces < t.kv_heads ? pieces : t.kv_heads;
    if (piece >= pieces)
        return;
    t.kv_head += (int)part_begin(whole->kv_heads, piece, pieces);
    t.kv_heads = (int)(part_begin(whole->kv_heads, piece + 1, pieces) - part_begin(whole->kv_heads, piece, pieces));
    attend(a, &t);
}

void batch_decode_cpu(const struct attention_decode_cpu_args *d, int part, int parts)
{
    const struct attention_args *a = &d->a;
    int key_parts = HAS_HOOKS ? 1 : d->key_parts, tasks = parts / key_parts, number = part / key_parts;
    int per_request = tasks / a->batch, piece = number % per_request;
    struct task t = {.request = number / per_request, .kv_heads = 1, .first_q = number / per_request, .qo_len = 1};
    t.kv_len = kv_length(a, t.request);
    if (per_request > a->num_kv_heads) {
        int pieces = per_request / a->num_kv_heads;
        t.kv_head = piece / pieces;
        t.row = piece % pieces * ROWS;
        t.rows = a->group - t.row < ROWS ? a->group - t.row : ROWS;
    } else {
        t.kv_head = (int)part_begin(a->num_kv_heads, piece, per_request);
        t.kv_heads = (int)part_begin(a->num_kv_heads, piece + 1, per_request) - t.kv_head;
        t.rows = a->group;
    }
    struct tiles tiles = tiles_of(a, &t);
    if (key_parts > 1 && tiles.count > 1 && tiles.count >= t.kv_heads)
        attend_keys(d, &t, tiles, number, part % key_parts);
    else
        attend_heads(a, &t, part % key_parts, key_parts);
}
