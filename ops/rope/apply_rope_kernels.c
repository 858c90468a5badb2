/* SPDX-License-Identifier: Apache-2.0 */
/* What the apply_rope ops share. Kernels: apply_rope_sm80.cu, apply_rope_cpu.c. */
#include "ops/rope/apply_rope_kernels.h"

#include <float.h>
#include <math.h>

#include "ops/rope/apply_rope_args.h"

enum {
    MAX_THREADS = 512,
    MAX_PIECES = 64,               /* of a block, along a head */
    MAX_GRID_YZ = 65535,
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
};
enum { WAY_PIECES, WAY_HEADS, WAY_HEAD_BLOCKS, WAY_PIECE_BLOCKS, WAY_SMEM };

static const double two_pi = 6.283185307179586476925;

static const struct jit_kernel sm80 = {"apply_rope_sm80", JIT_CUDA, {"T:dtype", "POS:dtype", "VEC", "INTERLEAVE"}};
static const struct jit_kernel cpu = {"apply_rope_cpu", JIT_CPU, {"T:dtype", "POS:dtype", "INTERLEAVE"}};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int32_t num_pairs(const struct rope_view *p)
{
    return (int32_t)((p->rotary_dim ? p->rotary_dim : tensor_shape(p->q, -1)) / 2);
}

static void fill_strides(int64_t stride[2], const DLTensor *t)
{
    stride[0] = tensor_stride(t, 0);
    stride[1] = tensor_stride(t, 1);
}

static struct apply_rope_args fill_args(const struct rope_view *p)
{
    int32_t head_dim = (int32_t)tensor_shape(p->q, -1), pairs = num_pairs(p);
    struct apply_rope_args a = {
        .q_rope = tensor_data(p->q_rope),
        .k_rope = tensor_data(p->k_rope),
        .q = tensor_data(p->q),
        .k = tensor_data(p->k),
        .pos_ids = tensor_data(p->pos_ids),
        .nnz = tensor_shape(p->pos_ids, 0),
        .num_qo_heads = (int32_t)tensor_shape(p->q, 1),
        .num_kv_heads = (int32_t)tensor_shape(p->k, 1),
        .head_dim = head_dim,
        .num_pairs = pairs,
        .num_rest = p->q_rope == p->q && p->k_rope == p->k ? 0 : head_dim - 2 * pairs,
        .first_turns = 1 / (two_pi * p->rope_scale),
        .ratio = pow(p->rope_theta, -1.0 / pairs),
    };
    fill_strides(a.q_rope_stride, p->q_rope);
    fill_strides(a.k_rope_stride, p->k_rope);
    fill_strides(a.q_stride, p->q);
    fill_strides(a.k_stride, p->k);
    return a;
}

static bool aligned(const struct rope_view *p, int bytes)
{
    return tensor_is_aligned(p->q_rope, bytes) && tensor_is_aligned(p->k_rope, bytes) && tensor_is_aligned(p->q, bytes) &&
           tensor_is_aligned(p->k, bytes);
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct rope_view *p = call_view(call);
    int64_t heads = tensor_shape(p->q, 1) + tensor_shape(p->k, 1), head_dim = tensor_shape(p->q, -1), pairs = num_pairs(p);
    if (tensor_shape(p->q, 0) > INT32_MAX || heads > INT32_MAX || head_dim > INT32_MAX)
        return "there are more tokens, heads or elements than a grid has blocks for";
    int vec = 8;
    while (vec > 1 && (pairs % vec || (head_dim - 2 * pairs) % vec || !aligned(p, vec * 2)))
        vec /= 2;
    int64_t pieces = ceil_div(head_dim - pairs, vec), in_block = pieces < MAX_PIECES ? pieces : MAX_PIECES;
    /* As many heads as there are, and threads enough for the sines and cosines. */
    int64_t wanted = ceil_div(in_block * vec < 128 ? in_block * vec : 128, in_block), most = MAX_THREADS / in_block;
    way->value[WAY_HEADS] = heads > wanted ? (heads < most ? heads : most) : wanted;
    way->value[WAY_PIECES] = in_block;
    way->value[WAY_HEAD_BLOCKS] = ceil_div(heads, way->value[WAY_HEADS]);
    way->value[WAY_PIECE_BLOCKS] = ceil_div(pieces, in_block);
    way->value[WAY_SMEM] = in_block * vec * 2 * (int64_t)sizeof(float);
    if (way->value[WAY_HEAD_BLOCKS] > MAX_GRID_YZ || way->value[WAY_PIECE_BLOCKS] > MAX_GRID_YZ)
        return "there are more tokens, heads or elements than a grid has blocks for";
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = tensor_dtype(p->q);
    constant[1] = tensor_dtype(p->pos_ids);
    constant[2] = vec;
    constant[3] = p->interleave;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct rope_view *p = call_view(call);
    int32_t *constant = way_spec(way, &cpu);
    constant[0] = tensor_dtype(p->q);
    constant[1] = tensor_dtype(p->pos_ids);
    constant[2] = p->interleave;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct apply_rope_args a = fill_args(call_view(call));
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)a.nnz;
        launch.grid[1] = (uint32_t)way->value[WAY_HEAD_BLOCKS];
        launch.grid[2] = (uint32_t)way->value[WAY_PIECE_BLOCKS];
        launch.block[0] = (uint32_t)way->value[WAY_PIECES];
        launch.block[1] = (uint32_t)way->value[WAY_HEADS];
        launch.smem = (uint32_t)way->value[WAY_SMEM];
    } else {
        int64_t token = ((int64_t)a.num_qo_heads + a.num_kv_heads) * a.head_dim;
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, ceil_div(CPU_ELEMENTS_PER_PART, token));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel apply_rope_kernels[] = {
    {"apply_rope_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"apply_rope_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static void turn(double *x, double *y, double *x_bound, double *y_bound, double angle, double angle_error)
{
    double rotated_x = *x * cos(angle) - *y * sin(angle), rotated_y = *y * cos(angle) + *x * sin(angle);
    /* The angle, rounded to float32 below half a turn, is off by 1.6 units, sine and cosine by 2, products and sum by 2; a
     * product below float32's normal numbers by half its smallest one. */
    *x_bound = *y_bound = (fabs(*x) + fabs(*y)) * (6 * REFERENCE_UNIT + angle_error) + FLT_TRUE_MIN;
    *x = rotated_x;
    *y = rotated_y;
}

static void reference_heads(const struct reference *r, const struct rope_view *p, const DLTensor *out, const DLTensor *in)
{
    int64_t nnz = in->shape[0], heads = in->shape[1], head_dim = in->shape[2], pairs = num_pairs(p);
    const double *position = p->pos_ids->data, *x = in->data;
    double *y = out->data, *bound = reference_bound(r, out);
    for (int64_t i = 0; i < nnz * heads * head_dim; i++)
        y[i] = x[i];
    for (int64_t token = 0; token < nnz; token++)
        for (int64_t pair = 0; pair < pairs; pair++) {
            double angle = position[token] * pow(p->rope_theta, -(double)pair / (double)pairs) / p->rope_scale;
            /* The kernels multiply from pair to pair in float64, two roundings each; pow here is off by some, too. */
            double angle_error = fabs(angle) * (double)(2 * pairs + 64) * 0x1p-53;
            int64_t one = p->interleave ? 2 * pair : pair, other = p->interleave ? 2 * pair + 1 : pairs + pair;
            for (int64_t head = 0; head < heads; head++) {
                int64_t at = (token * heads + head) * head_dim;
                turn(&y[at + one], &y[at + other], &bound[at + one], &bound[at + other], angle, angle_error);
            }
        }
}

void apply_rope_reference(const struct reference *r)
{
    const struct rope_view *p = r->view;
    reference_heads(r, p, p->q_rope, p->q);
    reference_heads(r, p, p->k_rope, p->k);
}
