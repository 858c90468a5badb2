/* SPDX-License-Identifier: Apache-2.0 */
/* N consecutive elements, loaded and stored as one access of up to 16 bytes, or two of 16: as they are in memory (vec) or widened
 * to float. The address is a multiple of the access; N is a power of two. */
#ifndef VEC_CUH
#define VEC_CUH

#include "types.cuh"

/* What the machine loads and stores as one; a struct of elements it would take apart. */
template <int bytes> struct word;
template <> struct word<1> { typedef uint8_t type; };
template <> struct word<2> { typedef uint16_t type; };
template <> struct word<4> { typedef uint32_t type; };
template <> struct word<8> { typedef uint2 type; };
template <> struct word<16> { typedef uint4 type; };
struct two_words { uint4 half[2]; };
template <> struct word<32> { typedef two_words type; };

template <class Element, int N> struct vec { typename word<sizeof(Element) * N>::type bits; };

template <class Element, int N> union vec_elements {
    vec<Element, N> all;
    Element at[N];
};

template <int N, class Element> DEVICE vec<Element, N> load_vec(const Element *from)
{
    return *(const vec<Element, N> *)from;
}

template <int N, class Element> DEVICE void store_vec(Element *to, vec<Element, N> v) { *(vec<Element, N> *)to = v; }

template <int N, class Element> DEVICE void widen(float (&x)[N], vec<Element, N> v)
{
    vec_elements<Element, N> e;
    e.all = v;
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = to_float(e.at[i]);
}

/* Bytes are converted in pairs. */
template <int N, class Byte> DEVICE void widen_pairs(float (&x)[N], vec<Byte, N> v)
{
    vec_elements<uint16_t, N / 2> pairs;
    pairs.all.bits = v.bits;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        float2 two = unpack2(Byte(), pairs.at[i]);
        x[2 * i] = two.x;
        x[2 * i + 1] = two.y;
    }
}

template <int N> DEVICE void widen(float (&x)[N], vec<e4m3, N> v) { widen_pairs(x, v); }
template <int N> DEVICE void widen(float (&x)[N], vec<e5m2, N> v) { widen_pairs(x, v); }
DEVICE void widen(float (&x)[1], vec<e4m3, 1> v) { x[0] = to_float(e4m3{v.bits}); }
DEVICE void widen(float (&x)[1], vec<e5m2, 1> v) { x[0] = to_float(e5m2{v.bits}); }

template <int N, class Element> DEVICE void load(float (&x)[N], const Element *from) { widen(x, load_vec<N>(from)); }

template <int N, class Element> DEVICE void store(Element *to, const float (&x)[N])
{
    vec_elements<Element, N> e;
#pragma unroll
    for (int i = 0; i < N; i++)
        from_float(&e.at[i], x[i]);
    store_vec(to, e.all);
}

template <int N, class Byte> DEVICE void store_pairs(Byte *to, const float (&x)[N])
{
    vec_elements<uint16_t, N / 2> pairs;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        pairs.at[i] = (uint16_t)pack2(Byte(), x[2 * i], x[2 * i + 1]);
    vec<Byte, N> v;
    v.bits = pairs.all.bits;
    store_vec(to, v);
}

template <int N> DEVICE void store(e4m3 *to, const float (&x)[N]) { store_pairs(to, x); }
template <int N> DEVICE void store(e5m2 *to, const float (&x)[N]) { store_pairs(to, x); }
DEVICE void store(e4m3 *to, const float (&x)[1]) { from_float(to, x[0]); }
DEVICE void store(e5m2 *to, const float (&x)[1]) { from_float(to, x[0]); }

#endif
