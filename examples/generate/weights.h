/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of a LLaMA-type model, read from a GGUF file, converted to one dtype, and put where the model runs. */
#ifndef GENERATE_WEIGHTS_H
#define GENERATE_WEIGHTS_H

#include "gguf.h"
#include "machine.h"

enum { MAX_LAYERS = 256 };

struct shape {
    int32_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary;
    double eps, rope_theta;
};

struct layer {
    void *attention_norm;    /* [hidden] */
    void *qkv;               /* [(heads + 2 * kv_heads) * head_dim, hidden] */
    void *attention_out;     /* [hidden, heads * head_dim] */
    void *feed_forward_norm; /* [hidden] */
    void *gate_up;           /* [2 * intermediate, hidden]: gate, then up */
    void *down;              /* [hidden, intermediate] */
};

struct weights {
    struct shape shape;
    struct layer layer[MAX_LAYERS];
    void *embedding;   /* [vocabulary, hidden] */
    void *output_norm; /* [hidden] */
    void *output;      /* [vocabulary, hidden]; the embedding if the file has none of its own */
};

/* False with one sentence if the file is no LLaMA-type model, lacks a tensor, or has one of the wrong shape. */
bool weights_load(struct weights *weights, const struct gguf *file, struct machine *machine, bool bf16, char *error,
                  size_t error_size);

#endif
