/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the fused_qk_rmsnorm_rope kernels. Where there are three of a thing, they are q's, k's and v's, or the axes'
 * frame, height and width. */
#ifndef FUSED_QK_RMSNORM_ROPE_ARGS_H
#define FUSED_QK_RMSNORM_ROPE_ARGS_H

#include "fetch_ahead.h"

struct fused_qk_rmsnorm_rope_args {
    void *out[3];          /* [rows, heads, HEAD_DIM] OUT */
    const void *qkv;       /* [rows, all heads * HEAD_DIM] T */
    const void *weight[2]; /* [heads * HEAD_DIM] T */
    int64_t rows, qkv_stride, out_stride[3][2]; /* between rows, and heads */
    int32_t heads[3], channels[3];
    int32_t seq_len, frame_len, width; /* tokens of a sequence, of a frame, of a line */
    int32_t is_qk_norm;
    double ratio[3]; /* of the frequency of a pair to that of the pair before */
    double ramp_low, ramp_scale, inverse_factor; /* pair i turns by the share clamp((i - low) * scale, 0, 1) at inverse_factor */
    float inverse_hidden[2], eps, attention_factor;
    float scale[3]; /* of an e4m3 output; else 1 */
    struct fetch_ahead ahead; /* whole rows of qkv */
};

#endif
