/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor rows as float32, and float32 to and from the two 16-bit formats. */
#include "gguf.h"

#include <string.h>

enum { BLOCK = 32 };                     /* elements that share a scale in the quantised types */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f32_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
    if (magnitude < 0x400) {
        return float_of(sign | bits_of((float)magnitude * 0x1p-24f));
    }
    uint32_t rebias = magnitude < 0x7c00 ? (127 - 15) << 23 : (255 - 31) << 23;
    return float_of(sign | ((magnitude << 13) + rebias));
}

static uint16_t f16_from_f32(float value)
{
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00;
    } else if (magnitude >= bits_of(65520.0f)) {
        half = 0x7c00;
    } else if (magnitude < bits_of(0x1p-14f)) {
        /* One unit in the last place of 0.5 is the smallest half, so that the addition rounds. */
        half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    } else {
        half = (magnitude + 0xfff + (magnitude >> 13 & 1) - ((127 - 15) << 23)) >> 13;
    }
    return (uint16_t)(sign | half);
}

static uint16_t bf16_from_f32(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void gguf_f16_from_f32(uint16_t *out, const float *in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = f16_from_f32(in[i]);
    }
}

void gguf_bf16_from_f32(uint16_t *out, const float *in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = bf16_from_f32(in[i]);
    }
}

void gguf_f32_from_f16(float *out, const uint16_t *in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = f32_from_f16(in[i]);
    }
}

void gguf_f32_from_bf16(float *out, const uint16_t *in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = float_of((uint32_t)in[i] << 16);
    }
}

static float f16_at(const unsigned char *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return f32_from_f16(half);
}

static void dequantize_q8_0(float *out, const unsigned char *bytes, uint64_t count)
{
    for (uint64_t block = 0; block < count / BLOCK; block++, out += BLOCK, bytes += 2 + BLOCK) {
        float scale = f16_at(bytes);
        for (int i = 0; i < BLOCK; i++) {
            out[i] = (float)(int8_t)bytes[2 + i] * scale;
        }
    }
}

/* A byte holds element i in its low half and element i + 16 in its high half. */
static void dequantize_q4_1(float *out, const unsigned char *bytes, uint64_t count)
{
    for (uint64_t block = 0; block < count / BLOCK; block++, out += BLOCK, bytes += 4 + BLOCK / 2) {
        float scale = f16_at(bytes), minimum = f16_at(bytes + 2);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)(bytes[4 + i] & 15) * scale + minimum;
            out[i + BLOCK / 2] = (float)(bytes[4 + i] >> 4) * scale + minimum;
        }
    }
}

void gguf_dequantize_row(const struct gguf_tensor *tensor, uint64_t row, float *out)
{
    uint64_t count = tensor->dims[0];
    const unsigned char *bytes = (const unsigned char *)tensor->data + row * (tensor->size / tensor->rows);
    switch (tensor->type) {
    case GGUF_F32:
        memcpy(out, bytes, count * sizeof *out);
        break;
    case GGUF_F16:
        gguf_f32_from_f16(out, (const uint16_t *)(const void *)bytes, count);
        break;
    case GGUF_BF16:
        gguf_f32_from_bf16(out, (const uint16_t *)(const void *)bytes, count);
        break;
    case GGUF_Q8_0:
        dequantize_q8_0(out, bytes, count);
        break;
    case GGUF_Q4_1:
        dequantize_q4_1(out, bytes, count);
        break;
    }
}
