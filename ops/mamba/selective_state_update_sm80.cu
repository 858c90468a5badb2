/* SPDX-License-Identifier: Apache-2.0 */
/* selective_state_update: the state's bytes are what costs, and next the instructions. Eight lanes share a row of the state, the
 * numbers of an element of head_dim; a block has ROWS rows of a head. What does not depend on the number is worked out by one
 * thread for a row and token, and stands in shared memory.
 *
 *   T          f16, bf16, f32
 *   STATE      dtype of states
 *   STATE_DIM  a multiple of 16, at most 256
 *   UNIFORM    1: A is the same for all of a row
 *   RANDOM     rounds of Philox, for states, of 16 bits, that are rounded at random; 0: to nearest
 *   PIECE      elements that lie together: 8, 4 or 2
 *   ACCESS     elements of an access: PIECE, or 1 where addresses are odd
 *   ROWS       16, 32 or 64; with MANY, at most 32
 *   MANY       1: any number of tokens. 0: one of each sequence, and no states on the way
 * Grid: head_dim / ROWS, num_heads, num_sequences; 128 threads. */
#include "mamba_state.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#include "prefetch.cuh"
#include "reduce.cuh"
#include "selective_state_update_args.h"

enum { THREADS = 128, ROW_LANES = 8, STEP = THREADS / ROW_LANES, OWN_ROWS = ROWS / STEP, OWN = STATE_DIM / ROW_LANES };
enum { PIECES = OWN / PIECE, TOKENS = THREADS / ROWS };

/* Of a row and token. decay is delta itself where A differs within the row. */
struct row_values {
    float decay, input, skip, gate;
};

DEVICE int row_of(int i)
{
    return blockIdx.x * ROWS + STEP * i + threadIdx.x / ROW_LANES;
}
DEVICE int number_of(int piece)
{
    return (piece * ROW_LANES + threadIdx.x % ROW_LANES) * PIECE;
}

DEVICE uint32_t fetch_token(const struct token_rows &rows, int64_t token, int row)
{
    return rows.data ? fetch(rows.data, blockIdx.z * rows.sequence + token * rows.token + blockIdx.y * rows.head + row * rows.dim,
                             rows.wide)
                     : 0;
}

DEVICE uint32_t fetch_weight(const struct head_weights &w, int row)
{
    return w.data ? fetch(w.data, blockIdx.y * w.head + row * w.dim, w.wide) : 0;
}

struct fetched_row {
    uint32_t x, dt, z, bias, skip, slope;
};

/* For a thread's row of TOKENS tokens, as far as there are any. */
DEVICE struct fetched_row fetch_row(const struct selective_state_update_args &a, int64_t token, int64_t end)
{
    int row = min(blockIdx.x * ROWS + threadIdx.x % ROWS, (int)a.head_dim - 1);
    token = min(token + threadIdx.x / ROWS, end - 1);
    struct fetched_row f = {fetch_token(a.x, token, row),     fetch_token(a.dt, token, row), fetch_token(a.z, token, row),
                            fetch_weight(a.dt_bias, row), fetch_weight(a.D, row),        UNIFORM ? fetch_weight(a.A, row) : 0};
    return f;
}

DEVICE struct row_values finish_row(const struct fetched_row &f, const struct selective_state_update_args &a)
{
    float x = meant(f.x, a.x.wide), delta = meant(f.dt, a.dt.wide) + meant(f.bias, a.dt_bias.wide), z = meant(f.z, a.z.wide);
    delta = a.softplus && delta <= 20.0f ? log1pf(expf(delta)) : delta;
    struct row_values v = {UNIFORM ? expf(meant(f.slope, a.A.wide) * delta) : delta, x * delta, meant(f.skip, a.D.wide) * x,
                           a.z.data ? z / (1.0f + expf(-z)) : 1.0f};
    return v;
}

/* A token's row of B or C. */
DEVICE void load_group(vec<T, PIECE> (&to)[PIECES], const struct token_rows &rows, int64_t token, int group)
{
    const T *from = (const T *)rows.data + blockIdx.z * rows.sequence + token * rows.token + group * rows.head;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        to[i] = load_vec_by<PIECE, ACCESS>(from + number_of(i));
}

/* The thread's first row of a state. */
DEVICE STATE *place(const struct state_rows &states, int64_t row, int64_t step)
{
    return (STATE *)states.data + row * states.row + step * states.step + blockIdx.y * states.head + row_of(0) * states.dim;
}

DEVICE void load_rows(vec<STATE, PIECE> (&to)[OWN_ROWS][PIECES], const struct selective_state_update_args &a, int64_t row)
{
    const STATE *from = place(a.state, row, 0);
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++, from += STEP * a.state.dim)
        if (row_of(r) < a.head_dim)
#pragma unroll
            for (int i = 0; i < PIECES; i++)
                to[r][i] = load_vec_by<PIECE, ACCESS>(from + number_of(i));
}

DEVICE void widen_row(float (&s)[OWN], const vec<STATE, PIECE> (&raw)[PIECES])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        float piece[PIECE];
        widen(piece, raw[i]);
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            s[i * PIECE + j] = piece[j];
    }
}

/* read: where the row was read from, as store_piece has it. */
DEVICE void store_row(STATE *to, const float (&s)[OWN], const struct selective_state_update_args &a, uint64_t seed, int64_t read,
                      int own)
{
    if (row_of(own) < a.head_dim)
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            float piece[PIECE];
#pragma unroll
            for (int j = 0; j < PIECE; j++)
                piece[j] = s[i * PIECE + j];
            store_piece(to + number_of(i), piece, seed, read + number_of(i));
        }
}

/* Of the thread's first row. */
DEVICE int64_t read_from(const struct selective_state_update_args &a, int64_t row)
{
    return RANDOM ? ((row * a.num_heads + blockIdx.y) * a.head_dim + row_of(0)) * STATE_DIM : 0;
}

DEVICE void write_out(const struct selective_state_update_args &a, int64_t token, int own, float y)
{
    T *out = (T *)a.out.data + blockIdx.z * a.out.sequence + token * a.out.token + blockIdx.y * a.out.head;
    if (threadIdx.x % ROW_LANES == 0 && row_of(own) < a.head_dim)
        from_float(&out[row_of(own)], y);
}

/* One row of the state, for one token. */
DEVICE void do_row(float (&s)[OWN], const vec<T, PIECE> (&b)[PIECES], const vec<T, PIECE> (&c)[PIECES],
                   const struct row_values &v, const struct selective_state_update_args &a, int64_t token, int own)
{
    float y = 0.0f, decay = v.decay;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        float wide_b[PIECE], wide_c[PIECE];
        widen(wide_b, b[i]);
        widen(wide_c, c[i]);
#pragma unroll
        for (int j = 0; j < PIECE; j++) {
#if !UNIFORM
            int64_t row = min(row_of(own), (int)a.head_dim - 1);
            decay = expf(meant(fetch(a.A.data, blockIdx.y * a.A.head + row * a.A.dim + number_of(i) + j, a.A.wide), a.A.wide) *
                         v.decay);
#endif
            s[i * PIECE + j] = s[i * PIECE + j] * decay + wide_b[j] * v.input;
            y += s[i * PIECE + j] * wide_c[j];
        }
    }
    write_out(a, token, own, (lanes_sum(y, ROW_LANES) + v.skip) * v.gate);
}

#if MANY
DEVICE void walk_tokens(struct row_values (&values)[THREADS], const struct selective_state_update_args &a, int group)
{
    uint64_t seed = RANDOM ? rounding_key(&a.seed) : 0;
    float s[OWN_ROWS][OWN] = {};
    vec<STATE, PIECE> raw[OWN_ROWS][PIECES];
    int64_t sequence = blockIdx.z, kept = a.kept_rows ? a.kept_rows[sequence] : sequence, row = first_state(&a, sequence);
    struct token_range range = sequence_tokens(&a, sequence);
    for (int64_t token = range.begin; row < 0 && token < range.end; token++)
        for (int r = 0; r < OWN_ROWS; r++)
            write_out(a, token, r, 0.0f);
    if (row < 0 || range.begin >= range.end)
        return;
    load_rows(raw, a, row);
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++)
        if (row_of(r) < a.head_dim)
            widen_row(s[r], raw[r]);
#pragma unroll 1
    for (int64_t token = range.begin; token < range.end; token++) {
        vec<T, PIECE> b[PIECES], c[PIECES];
        int64_t n = token - range.begin, to = written_state(&a, sequence, n, range.end - range.begin, row);
        load_group(b, a.B, token, group);
        load_group(c, a.C, token, group);
        if (n % TOKENS == 0) {
            struct fetched_row fetched = fetch_row(a, token, range.end);
            __syncthreads();
            values[threadIdx.x] = finish_row(fetched, a);
            __syncthreads();
        }
        STATE *final = place(a.state, to, 0), *step = place(a.kept, kept, n);
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++, final += STEP * a.state.dim, step += STEP * a.kept.dim) {
            int64_t read = read_from(a, row) + r * STEP * STATE_DIM;
            do_row(s[r], b, c, values[n % TOKENS * ROWS + STEP * r + threadIdx.x / ROW_LANES], a, token, r);
            if (to >= 0)
                store_row(final, s[r], a, seed, read, r);
            if (a.kept.data && kept >= 0 && n < a.kept_steps)
                store_row(step, s[r], a, seed, read, r);
        }
    }
}
#else
/* The line of memory where the block's rows begin. */
DEVICE void prefetch_token(const struct token_rows &rows, int64_t sequence, int head)
{
    if (rows.data)
        prefetch_l2((const T *)rows.data + sequence * (rows.sequence + rows.token) + head * rows.head +
                    blockIdx.x * ROWS * rows.dim);
}

/* What a later block has of a state and of a token for itself. */
DEVICE void fetch_block_ahead(const struct selective_state_update_args &a)
{
    uint32_t at = blockIdx.z * gridDim.y + blockIdx.y, sequence = (at + a.ahead.distance) / gridDim.y;
    if (at >= a.ahead.blocks)
        return;
    int head = at + a.ahead.distance - sequence * gridDim.y;
    prefetch_token(a.x, sequence, head);
    prefetch_token(a.z, sequence, head);
    int64_t row = first_state(&a, sequence);
    if (row >= 0)
        bulk_prefetch((const STATE *)a.state.data + row * a.state.row + head * a.state.head + blockIdx.x * ROWS * STATE_DIM,
                      min(ROWS, (int)a.head_dim - (int)blockIdx.x * ROWS) * STATE_DIM * sizeof(STATE));
}

/* Few rows mean few blocks, whose time is that of what waits for what: x, dt and the others take longest. Of many blocks it is
 * the states that should be on their way. */
enum { TOKEN_FIRST = ROWS == 16 };

DEVICE void walk_tokens(struct row_values (&values)[THREADS], const struct selective_state_update_args &a, int group)
{
    uint64_t seed = RANDOM ? rounding_key(&a.seed) : 0;
    vec<STATE, PIECE> raw[OWN_ROWS][PIECES];
    vec<T, PIECE> b[PIECES], c[PIECES];
    int64_t sequence = blockIdx.z;
    struct fetched_row fetched;
    if (TOKEN_FIRST) {
        if (threadIdx.x < ROWS)
            fetched = fetch_row(a, sequence, sequence + 1);
        load_group(b, a.B, sequence, group);
        load_group(c, a.C, sequence, group);
    }
    int64_t row = first_state(&a, sequence);
    if (row < 0) {
        for (int r = 0; r < OWN_ROWS; r++)
            write_out(a, sequence, r, 0.0f);
        return;
    }
    load_rows(raw, a, row);
    if (!TOKEN_FIRST) {
        load_group(b, a.B, sequence, group);
        load_group(c, a.C, sequence, group);
    }
    if (threadIdx.x < ROWS)
        values[threadIdx.x] = finish_row(TOKEN_FIRST ? fetched : fetch_row(a, sequence, sequence + 1), a);
    else if (threadIdx.x == THREADS - 1)
        fetch_block_ahead(a);
    int64_t to = written_state(&a, sequence, 0, 1, row);
    __syncthreads();
    STATE *final = place(a.state, to, 0);
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++, final += STEP * a.state.dim) {
        float s[OWN];
        widen_row(s, raw[r]);
        do_row(s, b, c, values[STEP * r + threadIdx.x / ROW_LANES], a, sequence, r);
        if (to >= 0)
            store_row(final, s, a, seed, read_from(a, row) + r * STEP * STATE_DIM, r);
    }
}
#endif

/* Of a multiprocessor: as many as there are registers for, of which ptxas takes more from sm_100 on; but 64 KB of states at work
 * are enough. */
enum { LARGE = ROWS * STATE_DIM * sizeof(STATE) >= 16384 && !RANDOM };
enum { FEW = LARGE || STATE_DIM > 128 || MANY || sizeof(T) == 4 || __CUDA_ARCH__ >= 1000 };
enum { BLOCKS = RANDOM ? (__CUDA_ARCH__ >= 1000 ? 3 : 4) : FEW ? 4 : !UNIFORM || ROWS == 64 ? 5 : 6 };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    selective_state_update_sm80(const __grid_constant__ struct selective_state_update_args a)
{
    __shared__ struct row_values values[THREADS];
    int group = (int)((uint64_t)blockIdx.y * a.group_factor >> 32);
    pdl_wait();
    pdl_launch();
    walk_tokens(values, a, group);
}
