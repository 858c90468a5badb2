/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode, and batch_prefill of few query tokens, by bulk copies. Constants: decode_stream.cuh; rows of keys and values are
 * multiples of 128 bytes. */
#include "decode_stream.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    batch_decode_stream_sm90(const __grid_constant__ struct attention_stream_sm90_args p)
{
    struct source source = {&p.k, &p.v};
    decode_stream(p.a, source);
}
