/* SPDX-License-Identifier: Apache-2.0 */
/* Attention with rules of one's own, on the CPU, each compared with plain loops: weights that are sigmoids and not a softmax,
 * ALiBi with slopes of the caller, and the logits as they are, written to a tensor. docs/variants.md explains it; with tensors
 * on a GPU the same texts run there. Build against an installed library: cc variant.c -lflashinfer -lm */
#include <flashinfer/flashinfer.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 5, HEADS = 2, HEAD_DIM = 64, ELEMENTS = TOKENS * HEADS * HEAD_DIM };

static const char sigmoid[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                              "{\n"
                              "    return 1.0f / (1.0f + expf(-(s + v.bias)));\n"
                              "}\n";

static const char alibi[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                            "{\n"
                            "    return s - v.slopes[a.qo_head] * (float)(a.kv_len - a.qo_len + a.q - a.kv);\n"
                            "}\n";

static const char dump[] = "HOOK float logits(struct variant v, float s, struct at a)\n"
                           "{\n"
                           "    v.dump[a.qo_head * v.dump_stride[0] + a.row * v.dump_stride[1] + a.kv] = s;\n"
                           "    return s;\n"
                           "}\n";

/* The struct of the op, and behind it a field for each further argument. */
struct sigmoid {
    struct flashinfer_single_prefill_with_kv_cache base;
    double bias;
};
struct alibi {
    struct flashinfer_single_prefill_with_kv_cache base;
    const DLTensor *slopes;
};
struct dump {
    struct flashinfer_single_prefill_with_kv_cache base;
    DLTensor *dump;
};

static void must(flashinfer_status status)
{
    if (status == FLASHINFER_OK)
        return;
    fprintf(stderr, "%s\n", flashinfer_last_error());
    exit(1);
}

static void run(const char *name, const char *hooks, uint32_t flags, const struct flashinfer_variant_argument *argument,
                const void *args)
{
    const struct flashinfer_variant_source source = {.size = sizeof source,
                                                     .name = name,
                                                     .base = "single_prefill_with_kv_cache",
                                                     .hooks = hooks,
                                                     .arguments = argument,
                                                     .num_arguments = 1,
                                                     .flags = flags};
    flashinfer_variant *variant;
    must(flashinfer_variant_create(&source, &variant));
    must(flashinfer_variant_call(variant, args, NULL));
    flashinfer_variant_destroy(variant);
}

static float to_float(uint16_t bf16)
{
    const uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint16_t q[ELEMENTS], k[ELEMENTS], v[ELEMENTS], out[ELEMENTS]; /* bf16, [TOKENS, HEADS, HEAD_DIM] */
static float slopes[HEADS] = {0.5f, 0.25f}, logits[HEADS][TOKENS][TOKENS];
static const float bias = -1;

/* What one head of one token should be: of which = 's'igmoid, 'a'libi or 'd'ump. */
static void expect(char which, int token, int head, float *expected)
{
    float weight[TOKENS], sum = 0;
    for (int t = 0; t <= token; t++) {
        float dot = 0;
        for (int i = 0; i < HEAD_DIM; i++)
            dot += to_float(q[(token * HEADS + head) * HEAD_DIM + i]) * to_float(k[(t * HEADS + head) * HEAD_DIM + i]);
        float s = dot / sqrtf(HEAD_DIM);
        if (which == 'd' && fabsf(s - logits[head][token][t]) > 1e-4f)
            expected[0] = NAN;
        weight[t] = which == 's' ? 1 / (1 + expf(-(s + bias))) : expf(which == 'a' ? s - slopes[head] * (float)(token - t) : s);
        sum += weight[t];
    }
    for (int i = 0; i < HEAD_DIM; i++)
        for (int t = 0; t <= token; t++)
            expected[i] += weight[t] * to_float(v[(t * HEADS + head) * HEAD_DIM + i]) / (which == 's' ? 1 : sum);
}

static void compare(const char *name)
{
    float worst = 0;
    for (int token = 0; token < TOKENS; token++)
        for (int head = 0; head < HEADS; head++) {
            float expected[HEAD_DIM] = {0};
            expect(*name, token, head, expected);
            for (int i = 0; i < HEAD_DIM; i++) {
                float off = fabsf(expected[i] - to_float(out[(token * HEADS + head) * HEAD_DIM + i]));
                worst = off <= worst ? worst : off; /* a NaN stays */
            }
        }
    printf("%-14s differs from plain loops by at most %.4f\n", name, (double)worst);
    if (!(worst < 0.02f))
        exit(1);
}

int main(void)
{
    const DLDataType bf16 = {kDLBfloat, 16, 1}, f32 = {kDLFloat, 32, 1};
    const DLDevice cpu = {kDLCPU, 0};
    int64_t shape[] = {TOKENS, HEADS, HEAD_DIM}, heads[] = {HEADS}, pairs[] = {HEADS, TOKENS, TOKENS};
    for (int i = 0; i < ELEMENTS; i++) { /* -1 to 1 in steps of 1/8, which bf16 holds */
        const float x[] = {(float)(i * 7 % 17) / 8 - 1, (float)(i * 5 % 17) / 8 - 1, (float)(i * 3 % 17) / 8 - 1};
        uint16_t *const to[] = {&q[i], &k[i], &v[i]};
        for (int t = 0; t < 3; t++)
            memcpy(to[t], (const char *)&x[t] + 2, 2); /* the upper half of a little-endian float */
    }
    DLTensor tensor[4];
    for (int i = 0; i < 4; i++)
        tensor[i] = (DLTensor){
            .data = (uint16_t *const[]){out, q, k, v}[i], .device = cpu, .ndim = 3, .dtype = bf16, .shape = shape};
    DLTensor slopes_tensor = {.data = slopes, .device = cpu, .ndim = 1, .dtype = f32, .shape = heads};
    DLTensor dump_tensor = {.data = logits, .device = cpu, .ndim = 3, .dtype = f32, .shape = pairs};
    struct flashinfer_single_prefill_with_kv_cache base = {
        .out = &tensor[0], .q = &tensor[1], .k = &tensor[2], .v = &tensor[3], .causal = 1};

    base.size = sizeof(struct sigmoid);
    run("flash_sigmoid", sigmoid, FLASHINFER_VARIANT_NO_SOFTMAX,
        &(struct flashinfer_variant_argument){.size = sizeof(struct flashinfer_variant_argument),
                                              .name = "bias",
                                              .kind = FLASHINFER_VARIANT_FLOAT},
        &(struct sigmoid){base, bias});
    compare("sigmoid");

    base.size = sizeof(struct alibi);
    run("alibi", alibi, 0,
        &(struct flashinfer_variant_argument){.size = sizeof(struct flashinfer_variant_argument),
                                              .name = "slopes",
                                              .shape = "num_qo_heads"},
        &(struct alibi){base, &slopes_tensor});
    compare("alibi");

    base.size = sizeof(struct dump);
    run("logits_dump", dump, 0,
        &(struct flashinfer_variant_argument){.size = sizeof(struct flashinfer_variant_argument),
                                              .name = "dump",
                                              .kind = FLASHINFER_VARIANT_OUTPUT,
                                              .shape = "num_qo_heads qo_len kv_len"},
        &(struct dump){base, &dump_tensor});
    compare("dump");
    return 0;
}
