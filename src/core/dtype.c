/* SPDX-License-Identifier: Apache-2.0 */
/* The table of element types, and their conversions from and to double. One routine rounds to any small float
 * format. */
#include "core/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const names[DTYPE_COUNT] = {
    [DTYPE_NONE] = "none",
#define NAME(name, SET, code, bits, lanes) [DTYPE_##SET] = #name,
    DTYPES(NAME)
#undef NAME
};

const DLDataType dtype_types[DTYPE_COUNT] = {
#define TYPE(name, SET, code, bits, lanes) [DTYPE_##SET] = {code, bits, lanes},
    DTYPES(TYPE)
#undef TYPE
};

#define PACKED(code, bits, lanes) ((uint32_t)(code) << 24 | (uint32_t)(bits) << 16 | (uint32_t)(lanes))

enum dtype dtype_of(DLDataType type)
{
    switch (PACKED(type.code, type.bits, type.lanes)) {
#define CASE(name, SET, code, bits, lanes) \
    case PACKED(code, bits, lanes): return DTYPE_##SET;
        DTYPES(CASE)
#undef CASE
    default: return DTYPE_NONE;
    }
}

static enum dtype known(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype < DTYPE_COUNT ? dtype : DTYPE_NONE;
}

const char *dtype_name(enum dtype dtype) { return names[known(dtype)]; }

enum dtype dtype_by_name(const char *name)
{
    for (int i = DTYPE_NONE + 1; i < DTYPE_COUNT; i++)
        if (!strcmp(name, names[i]))
            return (enum dtype)i;
    return DTYPE_NONE;
}

const char *dtype_set_names(uint32_t set, const char *separator, char text[DTYPE_SET_NAMES])
{
    size_t length = 0;
    text[0] = 0;
    for (int i = DTYPE_NONE + 1; i < DTYPE_COUNT; i++)
        if (set >> i & 1)
            length += (size_t)snprintf(text + length, DTYPE_SET_NAMES - length, "%s%s", length ? separator : "", names[i]);
    return text;
}

bool dtype_is_float(enum dtype dtype)
{
    const unsigned floats = F16 | BF16 | F32 | F64 | E4M3 | E5M2 | E8M0 | E2M1X2;
    return floats >> known(dtype) & 1;
}

/* A float format of at most 16 bits with a sign. Codes above `largest` are infinity, if there is one, and
 * NaN. */
struct format {
    int mantissa_bits, bias;
    uint16_t largest, infinity, nan, sign; /* infinity 0: none, so that large values saturate */
};

static const struct format f16_format = {10, 15, 0x7bff, 0x7c00, 0x7e00, 0x8000};
static const struct format bf16_format = {7, 127, 0x7f7f, 0x7f80, 0x7fc0, 0x8000};
static const struct format e4m3_format = {3, 7, 0x7e, 0, 0x7f, 0x80};
static const struct format e5m2_format = {2, 15, 0x7b, 0x7c, 0x7e, 0x80};

static double decode(const struct format *format, unsigned code)
{
    double sign = code & format->sign ? -1.0 : 1.0;
    unsigned magnitude = code & (format->sign - 1u);
    if (magnitude > format->largest)
        return format->infinity && magnitude == format->infinity ? sign * INFINITY : copysign(NAN, sign);
    int exponent = (int)(magnitude >> format->mantissa_bits);
    unsigned mantissa = magnitude & ((1u << format->mantissa_bits) - 1);
    if (exponent > 0)
        mantissa |= 1u << format->mantissa_bits;
    else
        exponent = 1;
    return ldexp(sign * mantissa, exponent - format->bias - format->mantissa_bits);
}

static unsigned encode(const struct format *format, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned sign = bits >> 63 ? format->sign : 0u;
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    uint64_t mantissa = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    unsigned overflow = format->infinity ? format->infinity : format->largest;
    if (exponent == 1024)
        return sign | (mantissa << 12 ? format->nan : overflow);

    int smallest = 1 - format->bias;
    int base = exponent < smallest ? smallest : exponent;
    int shift = 52 - format->mantissa_bits + (base - exponent);
    if (shift > 54)
        return sign;
    uint64_t kept = mantissa >> shift, half = UINT64_C(1) << (shift - 1);
    uint64_t rest = mantissa & (2 * half - 1);
    if (rest > half || (rest == half && (kept & 1)))
        kept++;
    /* A mantissa that overflows, or a subnormal that becomes normal, carries into the exponent by itself. */
    uint64_t code = kept + ((uint64_t)(base - smallest) << format->mantissa_bits);
    return sign | (code > format->largest ? overflow : (unsigned)code);
}

/* e8m0 has neither sign nor zero: 2^(code - 127), 255 is NaN. What lies below its least value becomes
 * that. */
static uint8_t encode_e8m0(double value)
{
    if (isnan(value))
        return 255;
    if (value <= 0x1p-127)
        return 0;
    if (value >= 0x1p127)
        return 254;
    int exponent;
    double fraction = frexp(value, &exponent); /* in [0.5, 1); the tie, 0.75, goes to the even mantissa: up */
    return (uint8_t)(exponent - 1 + 127 + (fraction >= 0.75));
}

/* Nearest integer, ties to even, in whatever rounding mode the program runs. */
static double round_even(double value)
{
    double low = floor(value), rest = value - low;
    return low + (rest > 0.5 || (rest == 0.5 && fmod(low, 2.0) != 0.0));
}

double dtype_load(enum dtype dtype, const void *element)
{
#define LOAD(type)                         \
    do {                                   \
        type x_;                           \
        memcpy(&x_, element, sizeof x_);   \
        return (double)x_;                 \
    } while (0)
    uint16_t half;
    uint8_t byte;
    memcpy(&byte, element, sizeof byte);
    switch (dtype) {
    case DTYPE_F16: memcpy(&half, element, sizeof half); return decode(&f16_format, half);
    case DTYPE_BF16: memcpy(&half, element, sizeof half); return decode(&bf16_format, half);
    case DTYPE_F32: LOAD(float);
    case DTYPE_F64: LOAD(double);
    case DTYPE_E4M3: return decode(&e4m3_format, byte);
    case DTYPE_E5M2: return decode(&e5m2_format, byte);
    case DTYPE_E8M0: return byte == 255 ? NAN : ldexp(1.0, byte - 127);
    case DTYPE_I8: LOAD(int8_t);
    case DTYPE_U32: LOAD(uint32_t);
    case DTYPE_I32: LOAD(int32_t);
    case DTYPE_U64: LOAD(uint64_t);
    case DTYPE_I64: LOAD(int64_t);
    default: return byte;
    }
#undef LOAD
}

void dtype_store(enum dtype dtype, void *element, double value)
{
    /* `beyond` is the power of two just past `high`, exact in a double where `high` itself may not be. */
#define STORE_INTEGER(type, low, high, beyond)                                                    \
    do {                                                                                          \
        double x_ = isnan(value) ? 0.0 : round_even(value);                                       \
        type y_ = x_ >= (beyond) ? (high) : x_ <= (double)(low) ? (low) : (type)x_;               \
        memcpy(element, &y_, sizeof y_);                                                          \
    } while (0)
    uint16_t half;
    uint8_t byte;
    float single;
    switch (dtype) {
    case DTYPE_F16: half = (uint16_t)encode(&f16_format, value); memcpy(element, &half, sizeof half); break;
    case DTYPE_BF16: half = (uint16_t)encode(&bf16_format, value); memcpy(element, &half, sizeof half); break;
    case DTYPE_F32: single = (float)value; memcpy(element, &single, sizeof single); break;
    case DTYPE_F64: memcpy(element, &value, sizeof value); break;
    case DTYPE_E4M3: byte = (uint8_t)encode(&e4m3_format, value); memcpy(element, &byte, sizeof byte); break;
    case DTYPE_E5M2: byte = (uint8_t)encode(&e5m2_format, value); memcpy(element, &byte, sizeof byte); break;
    case DTYPE_E8M0: byte = encode_e8m0(value); memcpy(element, &byte, sizeof byte); break;
    case DTYPE_BOOL: byte = value != 0.0; memcpy(element, &byte, sizeof byte); break;
    case DTYPE_I8: STORE_INTEGER(int8_t, INT8_MIN, INT8_MAX, 0x1p7); break;
    case DTYPE_U32: STORE_INTEGER(uint32_t, 0, UINT32_MAX, 0x1p32); break;
    case DTYPE_I32: STORE_INTEGER(int32_t, INT32_MIN, INT32_MAX, 0x1p31); break;
    case DTYPE_U64: STORE_INTEGER(uint64_t, 0, UINT64_MAX, 0x1p64); break;
    case DTYPE_I64: STORE_INTEGER(int64_t, INT64_MIN, INT64_MAX, 0x1p63); break;
    default: STORE_INTEGER(uint8_t, 0, UINT8_MAX, 0x1p8); break;
    }
#undef STORE_INTEGER
}
