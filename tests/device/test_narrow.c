/* SPDX-License-Identifier: Apache-2.0 */
/* The narrow formats of device/ on CPUs and, where there is one, on the GPU: every code widened, and every f16 and bf16 value,
 * every midpoint of two codes and its neighbours narrowed, against the definition: the nearest value, of two equally near ones
 * the one with the even code. Block scales against their definitions in double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "block_scale.h"
#include "flashinfer/jit.h"
#include "harness/device_memory.h"
#include "harness/random.h"
#include "jit/jit.h"
#include "tests/op/calls.h"

enum { GROUP = 16, THREADS = 128, EDGES = 4096, N = 2 * 65536 + EDGES, MAX_TENSORS = 4 };

/* Sixteen elements for each thread or step. */
#define LOOPS                                                                                                                   \
    "void run(const struct args *a, int part, int parts)\n"                                                                     \
    "{\n"                                                                                                                       \
    "    for (int64_t i = part_begin(a->in.shape[0] / 16, part, parts); i < part_begin(a->in.shape[0] / 16, part + 1, parts); " \
    "i++)\n"                                                                                                                    \
    "        group(a, i * 16);\n"                                                                                               \
    "}\n"
#define THREAD                                                                  \
    "extern \"C\" __global__ void run(const __grid_constant__ struct args a)\n" \
    "{\n"                                                                       \
    "    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;\n"         \
    "    if (i < a.in.shape[0] / 16)\n"                                         \
    "        group(&a, i * 16);\n"                                              \
    "}\n"
#define ARGUMENTS "#include \"arguments.h\"\nstruct args { struct tensor scalar, vector, in; };\n"
#define SCALE_ARGUMENTS "#include \"arguments.h\"\nstruct args { struct tensor code, multiplier, in, global; };\n"

struct texts {
    const char *cpu, *cuda;
};

#define NARROW(T)                                                                                     \
    {                                                                                                 \
        "#include \"vec.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n"       \
        "{\n"                                                                                         \
        "    const float *in = (const float *)a->in.data + i;\n"                                      \
        "    for (int k = 0; k < 16; k++)\n"                                                          \
        "        ((" T " *)a->scalar.data)[i + k] = from_float(" T ", in[k]);\n"                      \
        "    vec_store((" T " *)a->vector.data + i, vec_load(in));\n"                                 \
        "}\n" LOOPS,                                                                                  \
            "#include \"vec.cuh\"\n" ARGUMENTS "DEVICE void group(const struct args *a, int64_t i)\n" \
            "{\n"                                                                                     \
            "    float x[16];\n"                                                                      \
            "    for (int k = 0; k < 16; k++) {\n"                                                    \
            "        x[k] = ((const float *)a->in.data)[i + k];\n"                                    \
            "        from_float((" T " *)a->scalar.data + i + k, x[k]);\n"                            \
            "    }\n"                                                                                 \
            "    store((" T " *)a->vector.data + i, x);\n"                                            \
            "}\n" THREAD                                                                              \
    }

#define WIDEN(T)                                                                                         \
    {                                                                                                    \
        "#include \"vec.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n"          \
        "{\n"                                                                                            \
        "    const " T " *in = (const " T " *)a->in.data + i;\n"                                         \
        "    for (int k = 0; k < 16; k++)\n"                                                             \
        "        ((float *)a->scalar.data)[i + k] = to_float(in[k]);\n"                                  \
        "    vec_store((float *)a->vector.data + i, vec_load(in));\n"                                    \
        "}\n" LOOPS,                                                                                     \
            "#include \"vec.cuh\"\n" ARGUMENTS "DEVICE void group(const struct args *a, int64_t i)\n"    \
            "{\n"                                                                                        \
            "    float x[16];\n"                                                                         \
            "    load(x, (const " T " *)a->in.data + i);\n"                                              \
            "    for (int k = 0; k < 16; k++) {\n"                                                       \
            "        ((float *)a->scalar.data)[i + k] = to_float(((const " T " *)a->in.data)[i + k]);\n" \
            "        ((float *)a->vector.data)[i + k] = x[k];\n"                                         \
            "    }\n"                                                                                    \
            "}\n" THREAD                                                                                 \
    }

/* Codes come one to a byte in `scalar`, packed in the first half of `vector`. */
static const struct texts narrow_e2m1 = {
    "#include \"fp4.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n{\n"
    "    vec x = vec_load((const float *)a->in.data + i);\n"
    "    struct pair twice = {{x, x}};\n    uint8_t codes[16];\n"
    "    vec_store_bytes((uint8_t *)a->scalar.data + i, vec_e2m1_high(x, 0) >> 28);\n"
    "    vec_store_bytes(codes, pair_e2m1_bytes(twice, HALVES, 0));\n"
    "    memcpy((uint8_t *)a->vector.data + i / 2, codes + i / 16 % 2 * 8, 8);\n"
    "}\n" LOOPS,
    "#include \"fp4.cuh\"\n" ARGUMENTS "DEVICE void group(const struct args *a, int64_t i)\n{\n"
    "    float x[8];\n"
    "    for (int half = 0; half < 2; half++) {\n"
    "        for (int k = 0; k < 8; k++) {\n"
    "            x[k] = ((const float *)a->in.data)[i + 8 * half + k];\n"
    "            float one[8] = {x[k]};\n"
    "            ((uint8_t *)a->scalar.data)[i + 8 * half + k] = (uint8_t)e2m1_pack(one, E2M1_PART);\n"
    "        }\n"
    "        ((uint32_t *)a->vector.data)[i / 8 + half] = e2m1_pack(x, E2M1_PART);\n"
    "    }\n"
    "}\n" THREAD};
/* Each byte of `in` holds a code in its low half for `scalar`, and half as many hold two for `vector`. */
static const struct texts widen_e2m1 = {"#include \"fp4.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n{\n"
                                        "    const uint8_t *in = a->in.data;\n"
                                        "    vec_store((float *)a->scalar.data + i, vec_e2m1_values(vec_load_bytes(in + i)));\n"
                                        "    vec_store((float *)a->vector.data + i, vec_load_e2m1(in + i / 2));\n"
                                        "}\n" LOOPS,
                                        "#include \"fp4.cuh\"\n" ARGUMENTS "DEVICE void group(const struct args *a, int64_t i)\n"
                                        "{\n"
                                        "    const uint8_t *in = (const uint8_t *)a->in.data;\n"
                                        "    for (int64_t k = i; k < i + 16; k++) {\n"
                                        "        ((float *)a->scalar.data)[k] = e2m1_value(in[k]);\n"
                                        "        ((float *)a->vector.data)[k] = e2m1_value(in[k / 2] >> k % 2 * 4);\n"
                                        "    }\n"
                                        "}\n" THREAD};

/* Both orders of pairs; groups of two steps that stay below the limit are narrowed as tame. */
#define PAIRS(T, limit)                                                                          \
    {                                                                                            \
        "#include \"fp4.h\"\n" ARGUMENTS "#define pair_narrow_e2m1x2(to, x, order, tame) "        \
        "vec_store_bytes(to, pair_e2m1_bytes(x, order, tame))\n"                                 \
        "static void group(const struct args *a, int64_t i)\n{\n"                                \
        "    const float *in = (const float *)a->in.data + i;\n"                                 \
        "    " T " *to[2] = {(" T " *)a->scalar.data, (" T " *)a->vector.data};\n"               \
        "    int tame = 1;\n"                                                                    \
        "    for (int k = 0; k < PAIR && i % PAIR == 0; k++)\n"                                  \
        "        tame &= fabsf(in[k]) <= " limit ";\n"                                           \
        "    for (int order = HALVES; order <= EVEN_ODD && i % PAIR == 0; order++)\n"            \
        "        if (tame)\n"                                                                    \
        "            pair_narrow_" T "(to[order] + i / ELEMENTS(" T "), pair_load(in, order), order, 1);\n"  \
        "        else\n"                                                                         \
        "            pair_narrow_" T "(to[order] + i / ELEMENTS(" T "), pair_load(in, order), order, 0);\n"  \
        "}\n" LOOPS,                                                                             \
            NULL                                                                                 \
    }

/* Elements divided by powers of two whose quarters are normal, below 7: 1 where words and floats have different bytes. */
#define QUOTIENTS(T, mantissa, exponents)                                                                        \
    {                                                                                                            \
        "#include \"fp4.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n{\n"               \
        "    for (int e = 1; e < " exponents " && i % PAIR == 0; e++) {\n"                                       \
        "        " T " x[PAIR], quarter = {(uint16_t)(e << " mantissa ")};\n"                                    \
        "        struct pair y;\n"                                                                               \
        "        memcpy(x, (const " T " *)a->in.data + i, sizeof x);\n"                                          \
        "        for (int k = 0; k < PAIR; k++) {\n"                                                             \
        "            float quotient = to_float(x[k]) * 0.25f / to_float(quarter);\n"                             \
        "            if (!(fabsf(quotient) < 7))\n"                                                              \
        "                x[k].bits = (uint16_t)(quotient = 0);\n"                                                \
        "            y.v[k / LANES][k % LANES] = quotient;\n        }\n"                                        \
        "        vecu bytes = pair_e2m1_bytes(y, HALVES, 0), by_words = bytes;\n"                                \
        "#if defined __AVX512DQ__ && defined __AVX512BW__\n"                                                     \
        "        memcpy(&by_words, x, sizeof x);\n"                                                              \
        "        by_words = words_e2m1((words)by_words, (words){0} + quarter.bits, " mantissa ");\n"             \
        "        by_words = (by_words | by_words >> 12) & 255;\n#endif\n        for (int k = 0; k < LANES; k++)\n"\
        "            ((uint8_t *)a->scalar.data)[i + k] |= bytes[k] != by_words[k];\n    }\n}\n" LOOPS,          \
            NULL                                                                                                 \
    }

/* bf16 of floats, sixteen at a time and in pairs. */
static const struct texts pairs_bf16 = {
    "#include \"pair.h\"\n" ARGUMENTS "static void group(const struct args *a, int64_t i)\n{\n"
    "    const float *in = (const float *)a->in.data + i;\n"
    "    bf16 *scalar = (bf16 *)a->scalar.data + i, *vector = (bf16 *)a->vector.data + i;\n"
    "    vec_store(scalar, vec_load(in));\n"
    "    if (i % PAIR == 0)\n"
    "        pair_store(vector, pair_load(in, EVEN_ODD), EVEN_ODD);\n"
    "}\n" LOOPS,
    NULL};

#define SCALE(of)                                                                  \
    {                                                                              \
        "#include \"vec.h\"\n#include \"block_scale.h\"\n" SCALE_ARGUMENTS         \
        "static void group(const struct args *a, int64_t i)\n"                     \
        "{\n"                                                                      \
        "    for (int64_t k = i; k < i + 16; k++) {\n"                             \
        "        struct block_scale s = " of ";\n"                                 \
        "        ((uint8_t *)a->code.data)[k] = (uint8_t)s.code;\n"                \
        "        ((float *)a->multiplier.data)[k] = s.multiplier;\n"               \
        "    }\n"                                                                  \
        "}\n" LOOPS,                                                               \
            "#include \"types.cuh\"\n#include \"block_scale.h\"\n" SCALE_ARGUMENTS \
            "DEVICE void group(const struct args *a, int64_t i)\n"                 \
            "{\n"                                                                  \
            "    for (int64_t k = i; k < i + 16; k++) {\n"                         \
            "        struct block_scale s = " of ";\n"                             \
            "        ((uint8_t *)a->code.data)[k] = (uint8_t)s.code;\n"            \
            "        ((float *)a->multiplier.data)[k] = s.multiplier;\n"           \
            "    }\n"                                                              \
            "}\n" THREAD                                                           \
    }
#define AT(tensor) "((const float *)a->" tensor ".data)[k]"

static const struct texts narrow_e4m3 = NARROW("e4m3"), narrow_e5m2 = NARROW("e5m2"), narrow_i8 = NARROW("i8");
static const struct texts widen_e4m3 = WIDEN("e4m3"), widen_e5m2 = WIDEN("e5m2"), widen_i8 = WIDEN("i8");
static const struct texts pairs_e4m3 = PAIRS("e4m3", "460.0f"), pairs_i8 = PAIRS("i8", "127.4f");
static const struct texts pairs_e2m1 = PAIRS("e2m1x2", "6.9f");
static const struct texts quotients_f16 = QUOTIENTS("f16", "10", "26"), quotients_bf16 = QUOTIENTS("bf16", "7", "250");
static const struct texts scale_e4m3 = SCALE("block_scale_e4m3(" AT("in") ", " AT("global") ")");
static const struct texts scale_e8m0 = SCALE("block_scale_e8m0(" AT("in") ", " AT("global") ")");

/* ---- running them ---- */

struct array {
    void *data;
    enum dtype dtype;
    int64_t n;
    bool written;
};

static void must(flashinfer_status status)
{
    if (status)
        fail_msg("%s", flashinfer_last_error());
}

static void launch(const struct texts *texts, const struct device *device, const struct array *arrays, int count)
{
    const struct flashinfer_kernel_source source = {.size = sizeof source, .name = "run", .cuda = texts->cuda, .cpu = texts->cpu};
    bool on_gpu = device_is_cuda(device);
    const DLTensor *tensors[MAX_TENSORS];
    DLTensor tensor[MAX_TENSORS];
    int64_t shape[MAX_TENSORS];
    flashinfer_kernel *kernel;
    uint32_t groups = (uint32_t)(arrays[2].n / GROUP);
    must(device_enter(device));
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)arrays[i].n * (size_t)dtype_bytes(arrays[i].dtype);
        shape[i] = arrays[i].n;
        tensor[i] = (DLTensor){.device = device->id, .dtype = dtype_dlpack(arrays[i].dtype), .ndim = 1, .shape = &shape[i]};
        tensors[i] = &tensor[i];
        must(device_alloc(device, bytes, &tensor[i].data));
        must(device_upload(device, tensor[i].data, arrays[i].data, bytes));
    }
    const struct flashinfer_kernel_launch call = {.size = sizeof call,
                                                  .tensors = tensors,
                                                  .num_tensors = count,
                                                  .grid = {on_gpu ? (groups + THREADS - 1) / THREADS : 3},
                                                  .block = {THREADS}};
    must(flashinfer_kernel_create(&source, &kernel));
    must(flashinfer_kernel_launch(kernel, &call, NULL));
    must(device_wait(device));
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)arrays[i].n * (size_t)dtype_bytes(arrays[i].dtype);
        if (arrays[i].written)
            must(device_download(device, arrays[i].data, tensor[i].data, bytes));
        device_free(device, tensor[i].data);
    }
    flashinfer_kernel_destroy(kernel);
}

static const struct device *device_of(void **state)
{
    const struct device *device;
    if (device_get((DLDevice){*(const DLDeviceType *)*state, 0}, &device)) {
        print_message("%s\n", flashinfer_last_error());
        skip();
    }
    return device;
}

/* ---- what they should give ---- */

struct format {
    const struct texts *narrow, *widen;
    enum dtype dtype; /* NONE: e2m1 */
    unsigned largest, sign, nan;
};

static const struct format formats[] = {
    {&narrow_e4m3, &widen_e4m3, DTYPE_E4M3, 0x7e, 0x80, 0x7f},
    {&narrow_e5m2, &widen_e5m2, DTYPE_E5M2, 0x7b, 0x80, 0x7f},
    {&narrow_e2m1, &widen_e2m1, DTYPE_NONE, 0x07, 0x08, 0x07},
};

static double value_of(const struct format *format, unsigned code)
{
    static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    uint8_t byte = (uint8_t)code;
    return format->dtype ? dtype_load(format->dtype, &byte) : copysign(e2m1[code & 7], code & 8 ? -1 : 1);
}

static unsigned nearest(const struct format *format, double x)
{
    unsigned best = 0;
    double least = INFINITY;
    if (isnan(x))
        return format->nan;
    for (unsigned code = 0; code <= format->largest; code++) {
        double distance = fabs(fmin(fabs(x), 1e6) - value_of(format, code)); /* all formats end below 1e6 */
        if (distance < least || (distance == least && !(code & 1))) {
            least = distance;
            best = code;
        }
    }
    return best | (signbit(x) ? format->sign : 0);
}

/* Every f16, every bf16, midpoints of codes and their neighbours. */
static void fill(float *x, const struct format *format)
{
    int n = 0;
    for (int dtype = DTYPE_F16; dtype <= DTYPE_BF16; dtype++)
        for (unsigned code = 0; code < 65536; code++) {
            uint16_t half = (uint16_t)code;
            x[n++] = (float)dtype_load((enum dtype)dtype, &half);
        }
    for (unsigned code = 0; n < N; code++, n += 6) {
        float edge = (float)((value_of(format, code % format->largest) + value_of(format, code % format->largest + 1)) / 2);
        const float edges[6] = {edge,  nextafterf(edge, 0),  nextafterf(edge, INFINITY),
                                -edge, -nextafterf(edge, 0), -edge * 1.0001f};
        for (int i = 0; i < 6 && n + i < N; i++)
            x[n + i] = edges[i];
    }
}

static void test_narrow(void **state)
{
    const struct device *device = device_of(state);
    static float x[N];
    static uint8_t scalar[N], vector[N];
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        const struct format *format = &formats[f];
        fill(x, format);
        launch(format->narrow, device,
               (struct array[]){{scalar, DTYPE_U8, N, true}, {vector, DTYPE_U8, N, true}, {x, DTYPE_F32, N, false}}, 3);
        for (int i = 0; i < N; i++) {
            unsigned want = nearest(format, x[i]), packed = vector[i / 2] >> i % 2 * 4 & 15;
            if (scalar[i] != want || (format->dtype ? vector[i] : packed) != want)
                fail_msg("%s of %a: scalar %02x, vector %02x, must be %02x", format->dtype ? dtype_name(format->dtype) : "e2m1",
                         (double)x[i], scalar[i], format->dtype ? vector[i] : packed, want);
        }
    }
}

static void test_widen(void **state)
{
    const struct device *device = device_of(state);
    float scalar[256], vector[256];
    uint8_t codes[256];
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        const struct format *format = &formats[f];
        for (int i = 0; i < 256; i++)
            codes[i] = (uint8_t)(i * 77); /* odd: every byte, and every pair of codes */
        launch(format->widen, device,
               (struct array[]){{scalar, DTYPE_F32, 256, true}, {vector, DTYPE_F32, 256, true}, {codes, DTYPE_U8, 256, false}},
               3);
        for (int i = 0; i < 256; i++) {
            unsigned second = format->dtype ? codes[i] : codes[i / 2] >> i % 2 * 4 & 15;
            double want = value_of(format, codes[i]), want_vector = value_of(format, second);
            assert_true(isnan(want) ? isnan(scalar[i]) : scalar[i] == want && !signbit(scalar[i]) == !signbit(want));
            assert_true(isnan(want) ? isnan(vector[i])
                                    : vector[i] == want_vector && !signbit(vector[i]) == !signbit(want_vector));
        }
    }
}

static void test_i8(void **state)
{
    const struct device *device = device_of(state);
    static float x[N], scalar[256], vector[256];
    static int8_t first[N], second[N], codes[256];
    fill(x, &formats[0]);
    for (int i = 0; i < 2048; i++)
        x[i] = (float)(i - 1024) / 4;
    launch(&narrow_i8, device,
           (struct array[]){{first, DTYPE_I8, N, true}, {second, DTYPE_I8, N, true}, {x, DTYPE_F32, N, false}}, 3);
    for (int i = 0; i < N; i++) {
        int8_t want;
        dtype_store(DTYPE_I8, &want, (double)x[i]);
        if (first[i] != want || second[i] != want)
            fail_msg("i8 of %a: scalar %d, vector %d, must be %d", (double)x[i], first[i], second[i], want);
    }
    for (int i = 0; i < 256; i++)
        codes[i] = (int8_t)(i - 128);
    launch(&widen_i8, device,
           (struct array[]){{scalar, DTYPE_F32, 256, true}, {vector, DTYPE_F32, 256, true}, {codes, DTYPE_I8, 256, false}}, 3);
    for (int i = 0; i < 256; i++)
        assert_true(scalar[i] == (float)(i - 128) && vector[i] == (float)(i - 128));
}

static void test_pairs(void **state)
{
    const struct device *device = device_of(state);
    static const struct texts *const texts[] = {&pairs_e4m3, &pairs_e2m1, &pairs_i8};
    static const struct format *const of[] = {&formats[0], &formats[2], NULL};
    static float x[N];
    static uint8_t halves[N], even_odd[N];
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        fill(x, of[t] ? of[t] : &formats[0]);
        for (int i = 0; i < 2048; i++) /* groups that are tame */
            x[i] = (float)(i % 768 - 384) / (t == 1 ? 64 : 4);
        launch(texts[t], device,
               (struct array[]){{halves, DTYPE_U8, N, true}, {even_odd, DTYPE_U8, N, true}, {x, DTYPE_F32, N, false}}, 3);
        for (int i = 0; i < N; i++) {
            int8_t i8;
            dtype_store(DTYPE_I8, &i8, (double)x[i]);
            unsigned want = of[t] ? nearest(of[t], x[i]) : (uint8_t)i8, shift = t == 1 ? i % 2 * 4 : 0, mask = t == 1 ? 15 : 255;
            int at = t == 1 ? i / 2 : i;
            if ((halves[at] >> shift & mask) != want || (even_odd[at] >> shift & mask) != want)
                fail_msg("texts %zu, of %a: halves %02x, even and odd %02x, must be %02x", t, (double)x[i], halves[at],
                         even_odd[at], want);
        }
    }
}

static void test_quotients(void **state)
{
    const struct device *device = device_of(state);
    static uint16_t x[65536];
    static uint8_t differ[65536], none[65536];
    for (int i = 0; i < 65536; i++)
        x[i] = (uint16_t)i;
    for (int t = 0; t < 2; t++) {
        const struct array in = {x, t ? DTYPE_BF16 : DTYPE_F16, 65536, false};
        launch(t ? &quotients_bf16 : &quotients_f16, device,
               (struct array[]){{differ, DTYPE_U8, 65536, true}, {none, DTYPE_U8, 65536, true}, in}, 3);
        assert_memory_equal(differ, none, sizeof none);
    }
}

static void test_bf16(void **state)
{
    const struct device *device = device_of(state);
    static float x[N];
    static uint16_t single[N], pairs[N];
    struct random random = {7};
    for (int i = 0; i < N; i++) { /* all upper halves; lower halves at, just beside and far from the middle; any NaN */
        static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
        uint32_t bits = (uint32_t)(i % 65536) << 16 | (i < 65536 ? 0x8000 : low[random_bits(&random) % 6]);
        memcpy(&x[i], &bits, sizeof bits);
    }
    launch(&pairs_bf16, device,
           (struct array[]){{single, DTYPE_BF16, N, true}, {pairs, DTYPE_BF16, N, true}, {x, DTYPE_F32, N, false}}, 3);
    for (int i = 0; i < N; i++) {
        uint16_t want;
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        dtype_store(DTYPE_BF16, &want, (double)x[i]);
        if (isnan(x[i]))
            want = (uint16_t)(bits >> 16 | 0x40);
        if (single[i] != want || pairs[i] != want)
            fail_msg("bf16 of %a: one %04x, of a pair %04x, must be %04x", (double)x[i], single[i], pairs[i], want);
    }
}

/* ---- block scales ---- */

static void fill_amax(float *amax, float largest)
{
    struct random random = {11};
    int n = 0;
    for (unsigned code = 0; code < 65536; code++) {
        uint16_t half = (uint16_t)(code & 0x7fff);
        float x = (float)dtype_load(code & 0x8000 ? DTYPE_BF16 : DTYPE_F16, &half);
        amax[n++] = isnan(x) ? 1.0f : x;
    }
    while (n < N) { /* where the exponent of a scale changes, and anywhere */
        float edge = ldexpf(largest, (int)random_between(&random, -130, 120));
        amax[n] = n % 4 == 0   ? edge
                  : n % 4 == 1 ? nextafterf(edge, 0)
                  : n % 4 == 2 ? nextafterf(edge, INFINITY)
                               : (float)fabs(random_normal(&random));
        n++;
    }
}

static void test_e8m0_scales(void **state)
{
    const struct device *device = device_of(state);
    static const float largest[] = {6.0f, 448.0f, 57344.0f, 127.0f};
    static float amax[N], limit[N], multiplier[N];
    static uint8_t code[N];
    for (int f = 0; f < 4; f++) {
        fill_amax(amax, largest[f]);
        for (int i = 0; i < N; i++)
            limit[i] = largest[f];
        launch(&scale_e8m0, device,
               (struct array[]){{code, DTYPE_U8, N, true},
                                {multiplier, DTYPE_F32, N, true},
                                {amax, DTYPE_F32, N, false},
                                {limit, DTYPE_F32, N, false}},
               4);
        for (int i = 0; i < N; i++) {
            int want = 0;
            double x = isinf(amax[i]) ? 0x1p128 : (double)amax[i];
            while (x > ldexp(largest[f], want - 127))
                want++;
            if (code[i] != want || multiplier[i] != ldexp(1, 127 - want))
                fail_msg("the e8m0 scale of %a for elements to %g is %d, must be %d; multiplier %a", (double)amax[i],
                         (double)largest[f], code[i], want, (double)multiplier[i]);
            assert_true(e8m0_scale_value(code[i]) == ldexp(1, want - 127));
        }
    }
}

static void test_e4m3_scales(void **state)
{
    const struct device *device = device_of(state);
    static float amax[N], global[N], multiplier[N];
    static uint8_t code[N];
    struct random random = {12};
    fill_amax(amax, 6.0f);
    for (int i = 0; i < N; i++)
        global[i] = i % 3 ? (float)exp(4 * random_normal(&random)) : 1.0f;
    launch(&scale_e4m3, device,
           (struct array[]){{code, DTYPE_U8, N, true},
                            {multiplier, DTYPE_F32, N, true},
                            {amax, DTYPE_F32, N, false},
                            {global, DTYPE_F32, N, false}},
           4);
    for (int i = 0; i < N; i++) {
        float scale = (float)((double)global[i] * (float)((double)amax[i] / 6));
        unsigned want = nearest(&formats[0], scale);
        double value = value_of(&formats[0], want);
        float want_multiplier = want ? (float)(global[i] / value) : 0.0f;
        if (code[i] != want || multiplier[i] != want_multiplier || (double)e4m3_scale_value(want) != value)
            fail_msg("the e4m3 scale of %a times %a is %02x, must be %02x; multiplier %a", (double)amax[i], (double)global[i],
                     code[i], want, (double)multiplier[i]);
    }
}

/* Every place is met once, and tiles lie as the layouts say. */
static void test_layouts(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{1, 1}, {128, 4}, {129, 5}, {300, 9}, {8, 12}, {7, 3}};
    for (int layout = SCALES_128X4; layout <= SCALES_LINEAR; layout++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            int64_t rows = block_scale_rows(layout, sizes[s][0]), blocks = block_scale_blocks(layout, sizes[s][1]);
            int64_t bytes = block_scale_bytes(layout, sizes[s][0], sizes[s][1]);
            uint8_t *met = calloc((size_t)bytes, 1);
            assert_int_equal(rows * blocks, bytes);
            for (int64_t row = 0; row < rows; row++)
                for (int64_t block = 0; block < blocks; block++) {
                    int64_t at = block_scale_offset(layout, row, block, sizes[s][1]);
                    assert_in_range(at, 0, bytes - 1);
                    assert_int_equal(met[at]++, 0);
                }
            free(met);
        }
    assert_int_equal(block_scale_offset(SCALES_LINEAR, 3, 2, 9), 29);
    assert_int_equal(block_scale_offset(SCALES_128X4, 0, 1, 9), 1);
    assert_int_equal(block_scale_offset(SCALES_128X4, 1, 0, 9), 16);
    assert_int_equal(block_scale_offset(SCALES_128X4, 32, 0, 9), 4);
    assert_int_equal(block_scale_offset(SCALES_128X4, 0, 4, 9), 512);
    assert_int_equal(block_scale_offset(SCALES_128X4, 128, 0, 9), 1536);
    assert_int_equal(block_scale_offset(SCALES_8X4, 1, 2, 9), 6);
    assert_int_equal(block_scale_offset(SCALES_8X4, 8, 4, 9), 128);
}

/* Without a GPU, at least NVRTC takes the texts, for architectures with and without the instructions. */
static void test_compiles(void **state)
{
    (void)state;
    static const int32_t archs[] = {80, 89, 90, 120};
    static const struct texts *const all[] = {&narrow_e4m3, &narrow_e5m2, &narrow_e2m1, &narrow_i8,  &widen_e4m3,
                                              &widen_e5m2,  &widen_e2m1,  &widen_i8,    &scale_e4m3, &scale_e8m0};
    static const struct jit_kernel kernel = {"run", JIT_CUDA, {NULL}};
    char text[256];
    if (strstr(jit_toolchain(JIT_CUDA, text, sizeof text), "no NVRTC"))
        skip();
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            const struct jit_text user = {all[k]->cuda, true};
            const struct jit_spec spec = {.kernel = &kernel, .user = &user};
            struct device device;
            char *log;
            double seconds;
            size_t bytes;
            must(device_imagine(archs[i], &device));
            must(jit_compile_only(&spec, &device, &log, &seconds, &bytes));
            free(log);
        }
}

static DLDeviceType cpu_type = kDLCPU, cuda_type = kDLCUDA;
#define CASES(test, on)                             \
    {                                               \
#test " " #on, test, NULL, NULL, &on##_type \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASES(test_narrow, cpu),
        CASES(test_narrow, cuda),
        CASES(test_widen, cpu),
        CASES(test_widen, cuda),
        CASES(test_i8, cpu),
        CASES(test_i8, cuda),
        CASES(test_pairs, cpu),
        CASES(test_quotients, cpu),
        CASES(test_bf16, cpu),
        CASES(test_e8m0_scales, cpu),
        CASES(test_e8m0_scales, cuda),
        CASES(test_e4m3_scales, cpu),
        CASES(test_e4m3_scales, cuda),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_compiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
