/* SPDX-License-Identifier: Apache-2.0 */
/* Variants of attention: an op with hooks of yours compiled into its kernels, and with further arguments that the hooks read. One
 * text serves both compilers (C11 for CPUs, NVRTC for GPUs). docs/variants.md is the guide, examples/variant.c a program.
 *
 *     HOOK float logits(struct variant v, float s, struct at a)
 *     {
 *         return s - v.slopes[a.qo_head] * (a.kv_len - a.qo_len + a.q - a.kv);
 *     }
 *
 * A text has one or more of these hooks, each once; one that it lacks is the identity:
 *
 *     HOOK float query(struct variant v, float x, struct at a)   an element of q, as it lies in the tensor; the result is rounded
 *                                                                to the dtype that is multiplied, f16 or bf16
 *     HOOK float key(struct variant v, float x, struct at a)     likewise, of a key; for a KV head, not for each query head
 *     HOOK float logits(struct variant v, float s, struct at a)  s: natural logit, q . k with all scales, ALiBi, soft cap
 *     HOOK bool mask(struct variant v, struct at a)              false hides the token, beside what the op itself hides
 *     HOOK float output(struct variant v, float x, struct at a)  an element of out, with all scales, before it is rounded
 *
 * Functions of your own begin with ANYWHERE in place of HOOK. Both see expf, tanhf, fabsf and the like, bool, the fixed-width
 * integers, INFINITY, and to_float for elements of f16, bf16 and f32. `struct at` says where a hook runs:
 *
 *     int request, qo_head, kv_head;    request of the batch, heads (key: the first of the query heads that read the KV head)
 *     int q, kv;                        tokens of the request, from 0; what does not apply is 0
 *     int row;                          q's place in the tensors q and out
 *     int qo_len, kv_len;               tokens of the request
 *     int element;                      query, key, output: element of the head, from 0
 *
 * and `v` has each argument under its name: a number as float, an integer as int64_t, a tensor as pointer to its first element,
 * NULL if it is optional and absent, with v.NAME_shape[] and v.NAME_stride[] (in elements), int64_t, one for each axis.
 *
 * logits runs at least once for each pair of tokens that a query head sees, after causal, window and mask, and for no other
 * pair; mask runs only for tokens that exist, in any order, any number of times, as do query, key and output. A hook may write to
 * output tensors, an element for each (qo_head, row, kv), or for several if the value is the same; nothing else. It must not
 * depend on the order of calls: then the same input gives the same bits. */
#ifndef FLASHINFER_VARIANT_H
#define FLASHINFER_VARIANT_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FLASHINFER_VARIANT_MAX_ARGUMENTS = 16, FLASHINFER_VARIANT_MAX_AXES = 4 };

/* The kind of a further argument, and its field in the argument struct. */
enum {
    FLASHINFER_VARIANT_TENSOR = 0, /* const DLTensor *: read */
    FLASHINFER_VARIANT_OUTPUT = 1, /* DLTensor *: written by hooks; elements that none writes keep their value */
    FLASHINFER_VARIANT_FLOAT = 2,  /* double; v.NAME is a float */
    FLASHINFER_VARIANT_INT = 3     /* int64_t */
};

struct flashinfer_variant_argument {
    size_t size;      /* sizeof(struct flashinfer_variant_argument), the same in each element of an array */
    const char *name; /* a C identifier that no argument of the op has */
    int32_t kind;     /* FLASHINFER_VARIANT_TENSOR and so on */
    int32_t optional; /* 1: a tensor that may be NULL */
    DLDataType dtype; /* of a tensor: f32, f16, bf16, i32, i64, u8, i8, bool; zero: f32 */
    const char *shape; /* of a tensor, 1 to 4 axes: "num_qo_heads", "total_q num_qo_heads max_kv". A name that the op's
                          declaration has is that dimension; another one is free. Elements of the last axis are adjacent */
    double min, max;   /* of a number or integer, inclusive; both 0: any finite one */
};

enum {
    /* Weights are the results of `logits` themselves, rounded to f16 or bf16, not their softmax: out = sum of weight * v. Such
     * a variant has a hook logits, and its calls neither lse nor sinks. */
    FLASHINFER_VARIANT_NO_SOFTMAX = 1
};

struct flashinfer_variant_source {
    size_t size;
    const char *name;  /* a C identifier of at most 60 characters, no op's; stands in sentences and compilers' messages */
    const char *base;  /* batch_prefill, batch_prefill_ragged, batch_decode, single_prefill_with_kv_cache,
                          single_decode_with_kv_cache */
    const char *hooks; /* the text */
    const struct flashinfer_variant_argument *arguments; /* NULL: none */
    int32_t num_arguments;                               /* up to FLASHINFER_VARIANT_MAX_ARGUMENTS */
    uint32_t flags;                                      /* FLASHINFER_VARIANT_NO_SOFTMAX */
};

typedef struct flashinfer_variant flashinfer_variant;

/* Copies all it is given; compiles nothing yet. INVALID says what is wrong with a name, a hook or a shape. */
FLASHINFER_API flashinfer_status flashinfer_variant_create(const struct flashinfer_variant_source *source,
                                                           flashinfer_variant **out);

/* When no call of it is running. What was compiled stays loaded, for another variant of the same text. NULL is ignored. */
FLASHINFER_API void flashinfer_variant_destroy(flashinfer_variant *variant);

/* As flashinfer_call, flashinfer_prepare and flashinfer_workspace_size, from any number of threads at a time. args points to the
 * base's struct, whose `size` is that of the whole, followed by one field of 8 bytes for each further argument, in order:
 *
 *     struct alibi { struct flashinfer_batch_prefill base; const DLTensor *slopes; double scale; };
 *
 * Plans are those of the base's plan op. Where no kernel takes in the hooks, the call is UNSUPPORTED, and the sentence says which
 * hook which kernel lacks. A text that does not compile is COMPILE, at prepare or at the first call: the sentence holds the
 * compiler's messages, with the lines of the text under the name of the variant, and the path of the whole source. */
FLASHINFER_API flashinfer_status flashinfer_variant_call(const flashinfer_variant *variant, const void *args,
                                                         const flashinfer_exec *exec);
FLASHINFER_API flashinfer_status flashinfer_variant_prepare(const flashinfer_variant *variant, const void *args,
                                                            const flashinfer_exec *exec);
FLASHINFER_API flashinfer_status flashinfer_variant_workspace_size(const flashinfer_variant *variant, const void *args,
                                                                   const flashinfer_exec *exec, size_t *bytes);

/* As flashinfer_describe: the base's declaration with the further arguments, in the order of the variant's TVM-FFI call
 * (__tvm_ffi_flashinfer_variant_call takes the handle as a pointer, then these). */
FLASHINFER_API flashinfer_status flashinfer_variant_describe(const flashinfer_variant *variant, char *text, size_t size,
                                                             size_t *needed);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_VARIANT_H */
