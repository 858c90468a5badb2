/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode, and batch_prefill of few query tokens, on any GPU. Constants: decode_stream.cuh. */
#define BOX_TOKENS 0
#include "decode_stream.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    batch_decode_stream_sm80(const __grid_constant__ struct attention_args a)
{
    struct source source;
    decode_stream(a, source);
}
