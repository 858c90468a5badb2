/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the weights: shape from the metadata, then each tensor, row by row, to 16 bits. Tensors that one product serves (q, k and
 * v; gate and up) are laid one after the other. */
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loader {
    const struct gguf *file;
    struct machine *machine;
    bool bf16;
    float *row;       /* one row as float32 */
    uint16_t *matrix; /* the matrix being converted */
    char *error;
    size_t error_size;
};

static bool read_count(struct loader *l, const char *key, int32_t least, int32_t most, int32_t *out)
{
    if (gguf_get_i32(l->file, key, out) && *out >= least && *out <= most)
        return true;
    snprintf(l->error, l->error_size, "%s: %s must be an integer from %d to %d", gguf_name(l->file), key, least, most);
    return false;
}

static bool read_shape(struct loader *l, struct shape *s)
{
    struct gguf_string architecture = {"", 0};
    gguf_get_string(l->file, "general.architecture", &architecture);
    if (architecture.length != 5 || memcmp(architecture.data, "llama", 5) != 0) {
        snprintf(l->error, l->error_size, "%s: the architecture is '%.*s', only 'llama' is served", gguf_name(l->file),
                 (int)(architecture.length < 64 ? architecture.length : 64), architecture.data);
        return false;
    }
    if (!read_count(l, "llama.block_count", 1, MAX_LAYERS, &s->layers) ||
        !read_count(l, "llama.embedding_length", 16, 1 << 16, &s->hidden) ||
        !read_count(l, "llama.attention.head_count", 1, 1024, &s->heads) ||
        !read_count(l, "llama.feed_forward_length", 16, 1 << 20, &s->intermediate))
        return false;
    s->kv_heads = s->heads;
    gguf_get_i32(l->file, "llama.attention.head_count_kv", &s->kv_heads);
    s->head_dim = s->hidden / s->heads;
    gguf_get_i32(l->file, "llama.rope.dimension_count", &s->head_dim);
    if (s->kv_heads < 1 || s->heads % s->kv_heads || (s->head_dim != 64 && s->head_dim != 128)) {
        snprintf(l->error, l->error_size, "%s: %d query heads, %d key and value heads of dimension %d are not served",
                 gguf_name(l->file), s->heads, s->kv_heads, s->head_dim);
        return false;
    }
    float eps = 1e-5f, theta = 1e4f;
    gguf_get_f32(l->file, "llama.attention.layer_norm_rms_epsilon", &eps);
    gguf_get_f32(l->file, "llama.rope.freq_base", &theta);
    s->eps = eps;
    s->rope_theta = theta;
    return true;
}

/* Converts a [rows, columns] tensor to l->matrix at row `at`. */
static bool convert(struct loader *l, const char *name, int64_t rows, int64_t columns, int64_t at)
{
    const struct gguf_tensor *tensor = gguf_find_tensor(l->file, name);
    if (!tensor || tensor->rows != (uint64_t)rows || tensor->dims[0] != (uint64_t)columns) {
        snprintf(l->error, l->error_size, "%s: the tensor %s is %s [%lld, %lld]", gguf_name(l->file), name,
                 tensor ? "not" : "missing, it should be", (long long)rows, (long long)columns);
        return false;
    }
    for (int64_t i = 0; i < rows; i++) {
        gguf_dequantize_row(tensor, (uint64_t)i, l->row);
        (l->bf16 ? gguf_bf16_from_f32 : gguf_f16_from_f32)(l->matrix + (at + i) * columns, l->row, (size_t)columns);
    }
    return true;
}

/* The matrix converted so far, [rows, columns], put where the model runs. */
static bool keep(struct loader *l, int64_t rows, int64_t columns, void **out)
{
    size_t bytes = (size_t)(rows * columns) * sizeof *l->matrix;
    *out = machine_alloc(l->machine, bytes);
    if (*out && machine_upload(l->machine, *out, l->matrix, bytes))
        return true;
    snprintf(l->error, l->error_size, "%s", machine_error());
    return false;
}

static bool load_matrix(struct loader *l, const char *name, int64_t rows, int64_t columns, void **out)
{
    return convert(l, name, rows, columns, 0) && keep(l, rows, columns, out);
}

static bool load_layer(struct loader *l, const struct shape *s, int i, struct layer *out)
{
    char name[7][64];
    static const char *const parts[] = {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_down"};
    for (int p = 0; p < 7; p++)
        snprintf(name[p], sizeof name[p], "blk.%d.%s.weight", i, parts[p]);
    char gate[64], up[64];
    snprintf(gate, sizeof gate, "blk.%d.ffn_gate.weight", i);
    snprintf(up, sizeof up, "blk.%d.ffn_up.weight", i);

    int64_t hidden = s->hidden, q = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim, f = s->intermediate;
    return load_matrix(l, name[0], 1, hidden, &out->attention_norm) && convert(l, name[1], q, hidden, 0) &&
           convert(l, name[2], kv, hidden, q) && convert(l, name[3], kv, hidden, q + kv) &&
           keep(l, q + 2 * kv, hidden, &out->qkv) && load_matrix(l, name[4], hidden, q, &out->attention_out) &&
           load_matrix(l, name[5], 1, hidden, &out->feed_forward_norm) && convert(l, gate, f, hidden, 0) &&
           convert(l, up, f, hidden, f) && keep(l, 2 * f, hidden, &out->gate_up) &&
           load_matrix(l, name[6], hidden, f, &out->down);
}

static bool load_all(struct loader *l, struct weights *w)
{
    const struct shape *s = &w->shape;
    for (int i = 0; i < s->layers; i++)
        if (!load_layer(l, s, i, &w->layer[i]))
            return false;
    if (!load_matrix(l, "token_embd.weight", s->vocabulary, s->hidden, &w->embedding) ||
        !load_matrix(l, "output_norm.weight", 1, s->hidden, &w->output_norm))
        return false;
    w->output = w->embedding;
    return !gguf_find_tensor(l->file, "output.weight") || load_matrix(l, "output.weight", s->vocabulary, s->hidden, &w->output);
}

bool weights_load(struct weights *w, const struct gguf *file, struct machine *machine, bool bf16, char *error, size_t error_size)
{
    struct loader l = {.file = file, .machine = machine, .bf16 = bf16, .error = error, .error_size = error_size};
    struct shape *s = &w->shape;
    if (!read_shape(&l, s))
        return false;
    const struct gguf_tensor *embedding = gguf_find_tensor(file, "token_embd.weight");
    if (!embedding || embedding->rows < 1 || embedding->rows > INT32_MAX) {
        snprintf(error, error_size, "%s: the tensor token_embd.weight is missing", gguf_name(file));
        return false;
    }
    s->vocabulary = (int32_t)embedding->rows;
    int64_t widest = s->intermediate > s->hidden ? s->intermediate : s->hidden;
    int64_t tallest = s->vocabulary > 2 * s->intermediate ? s->vocabulary : 2 * s->intermediate;
    int64_t q = (int64_t)(s->heads + 2 * s->kv_heads) * s->head_dim;
    widest = widest > q ? widest : q;
    tallest = tallest > q ? tallest : q;
    l.row = malloc(sizeof *l.row * (size_t)widest);
    l.matrix = malloc(sizeof *l.matrix * (size_t)widest * (size_t)tallest);
    bool ok = l.row && l.matrix;
    if (!ok)
        snprintf(error, error_size, "no memory for a matrix of %lld x %lld", (long long)tallest, (long long)widest);
    ok = ok && load_all(&l, w) && machine_finish(machine);
    free(l.row);
    free(l.matrix);
    return ok;
}
