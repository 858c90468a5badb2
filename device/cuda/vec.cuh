/* SPDX-License-Identifier: Apache-2.0 */
/* N consecutive elements, loaded and stored as one access of up to 16 bytes, or two or four of 16: as they are in memory (vec)
 * or widened to float. The address is a multiple of the access; N is a power of two. */
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
struct four_words { uint4 quarter[4]; };
template <> struct word<64> { typedef four_words type; };

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

template <class Word> DEVICE Word load_constant_word(const Word *from) { return __ldg(from); }
DEVICE two_words load_constant_word(const two_words *from) { return {__ldg(from->half), __ldg(from->half + 1)}; }
DEVICE four_words load_constant_word(const four_words *from)
{
    const uint4 *words = from->quarter;
    return {__ldg(words), __ldg(words + 1), __ldg(words + 2), __ldg(words + 3)};
}

/* Of memory that nothing writes while the kernel runs: the load may pass stores, barriers and waits. */
template <int N, class Element> DEVICE vec<Element, N> load_constant(const Element *from)
{
    return {load_constant_word((const typename word<sizeof(Element) * N>::type *)from)};
}

/* The same in accesses of at most BY elements, where the address is no multiple of all N. */
template <class Element, int N, int BY> union vec_accesses {
    vec<Element, N> all;
    vec<Element, BY> at[N / BY];
};

template <int N, int BY, bool CONSTANT = false, class Element> DEVICE vec<Element, N> load_vec_by(const Element *from)
{
    vec_accesses<Element, N, BY> v;
#pragma unroll
    for (int i = 0; i < N / BY; i++)
        v.at[i] = CONSTANT ? load_constant<BY>(from + i * BY) : load_vec<BY>(from + i * BY);
    return v.all;
}

/* Two neighbours of 16 bits as they are in memory; aligned: at a multiple of 4 bytes. */
template <bool aligned, class Half> DEVICE uint32_t load_pair(const Half *from)
{
    return aligned ? *(const uint32_t *)from : from[0].bits | (uint32_t)from[1].bits << 16;
}

template <int BY, int N, class Element> DEVICE void store_vec_by(Element *to, vec<Element, N> all)
{
    vec_accesses<Element, N, BY> v;
    v.all = all;
#pragma unroll
    for (int i = 0; i < N / BY; i++)
        store_vec(to + i * BY, v.at[i]);
}

/* The same to global memory, in accesses that the compiler cannot take apart, as it does in some places. */
template <class Word> DEVICE void store_global_word(void *to, Word word) { *(Word *)to = word; }
DEVICE void store_global_word(void *to, uint4 word)
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(word.x), "r"(word.y),
                 "r"(word.z), "r"(word.w)
                 : "memory");
}

template <int BY, int N, class Element> DEVICE void store_global_by(Element *to, vec<Element, N> all)
{
    vec_accesses<Element, N, BY> v;
    v.all = all;
#pragma unroll
    for (int i = 0; i < N / BY; i++)
        store_global_word(to + i * BY, v.at[i].bits);
}

template <int N, class Element> DEVICE void widen(float (&x)[N], vec<Element, N> v)
{
    vec_elements<Element, N> e;
    e.all = v;
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = to_float(e.at[i]);
}

/* Narrow elements are converted in pairs. */
template <int N, class Narrow> DEVICE void widen_pairs(float (&x)[N], vec<Narrow, N> v)
{
    vec_elements<typename word<2 * sizeof(Narrow)>::type, N / 2> pairs;
    pairs.all.bits = v.bits;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        float2 two = unpack2(Narrow(), pairs.at[i]);
        x[2 * i] = two.x;
        x[2 * i + 1] = two.y;
    }
}

template <int N> DEVICE void widen(float (&x)[N], vec<f16, N> v) { widen_pairs(x, v); }
template <int N> DEVICE void widen(float (&x)[N], vec<bf16, N> v) { widen_pairs(x, v); }
template <int N> DEVICE void widen(float (&x)[N], vec<e4m3, N> v) { widen_pairs(x, v); }
template <int N> DEVICE void widen(float (&x)[N], vec<e5m2, N> v) { widen_pairs(x, v); }
DEVICE void widen(float (&x)[1], vec<f16, 1> v) { x[0] = to_float(f16{v.bits}); }
DEVICE void widen(float (&x)[1], vec<bf16, 1> v) { x[0] = to_float(bf16{v.bits}); }
DEVICE void widen(float (&x)[1], vec<e4m3, 1> v) { x[0] = to_float(e4m3{v.bits}); }
DEVICE void widen(float (&x)[1], vec<e5m2, 1> v) { x[0] = to_float(e5m2{v.bits}); }

template <int N, class Element> DEVICE void load(float (&x)[N], const Element *from) { widen(x, load_vec<N>(from)); }

template <int N, class Element> DEVICE void narrow(vec<Element, N> &v, const float (&x)[N])
{
    vec_elements<Element, N> e;
#pragma unroll
    for (int i = 0; i < N; i++)
        from_float(&e.at[i], x[i]);
    v = e.all;
}

template <int N, class Narrow> DEVICE void narrow_pairs(vec<Narrow, N> &v, const float (&x)[N])
{
    typedef typename word<2 * sizeof(Narrow)>::type pair;
    vec_elements<pair, N / 2> pairs;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        pairs.at[i] = (pair)pack2(Narrow(), x[2 * i], x[2 * i + 1]);
    v.bits = pairs.all.bits;
}

template <int N> DEVICE void narrow(vec<f16, N> &v, const float (&x)[N]) { narrow_pairs(v, x); }
template <int N> DEVICE void narrow(vec<bf16, N> &v, const float (&x)[N]) { narrow_pairs(v, x); }
DEVICE void narrow(vec<f16, 1> &v, const float (&x)[1])
{
    f16 y;
    from_float(&y, x[0]);
    v.bits = y.bits;
}
DEVICE void narrow(vec<bf16, 1> &v, const float (&x)[1])
{
    bf16 y;
    from_float(&y, x[0]);
    v.bits = y.bits;
}
template <int N, class Byte> DEVICE void narrow_fours(vec<Byte, N> &v, const float (&x)[N])
{
    vec_elements<uint32_t, N / 4> fours;
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        fours.at[i] = pack4(Byte(), x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
    v.bits = fours.all.bits;
}

template <int N> DEVICE void narrow(vec<e4m3, N> &v, const float (&x)[N]) { narrow_fours(v, x); }
template <int N> DEVICE void narrow(vec<e5m2, N> &v, const float (&x)[N]) { narrow_fours(v, x); }
DEVICE void narrow(vec<e4m3, 2> &v, const float (&x)[2]) { narrow_pairs(v, x); }
DEVICE void narrow(vec<e5m2, 2> &v, const float (&x)[2]) { narrow_pairs(v, x); }
DEVICE void narrow(vec<e4m3, 1> &v, const float (&x)[1]) { v.bits = e4m3_bits(x[0]); }
DEVICE void narrow(vec<e5m2, 1> &v, const float (&x)[1]) { v.bits = e5m2_bits(x[0]); }

/* The same bits, of which the compiler no longer knows that they were widened before: so they wait in registers as they are. */
template <class Element, int N> DEVICE void forget(vec<Element, N> &v)
{
    vec_elements<uint32_t, sizeof(v) / 4> words;
    words.all.bits = v.bits;
#pragma unroll
    for (int i = 0; i < sizeof(v) / 4; i++)
        asm volatile("" : "+r"(words.at[i]));
    v.bits = words.all.bits;
}

/* The same value, of which the compiler knows nothing: so it does not work out ahead what follows from it. */
DEVICE void forget(uint32_t &x) { asm volatile("" : "+r"(x)); }
DEVICE void forget(int &x) { asm volatile("" : "+r"(x)); }
DEVICE void forget(int64_t &x) { asm volatile("" : "+l"(x)); }
DEVICE void forget(float &x) { asm volatile("" : "+f"(x)); }

/* The largest magnitude; NaN is none. */
template <class Element, int N> DEVICE float largest(vec<Element, N> v)
{
    float x[N], amax = 0.0f;
    widen(x, v);
#pragma unroll
    for (int i = 0; i < N; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    return amax;
}
template <class Half, int N> DEVICE float largest_by_pairs(vec<Half, N> v)
{
    vec_elements<uint32_t, N / 2> pairs;
    uint32_t most = 0;
    pairs.all.bits = v.bits;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        most = magnitude2(Half(), most, pairs.at[i]);
    float2 two = unpack2(Half(), most);
    return fmaxf(fabsf(two.x), fabsf(two.y));
}
template <int N> DEVICE float largest(vec<f16, N> v) { return largest_by_pairs(v); }
template <int N> DEVICE float largest(vec<bf16, N> v) { return largest_by_pairs(v); }
DEVICE float largest(vec<f16, 1> v) { return fabsf(to_float(f16{v.bits})); }
DEVICE float largest(vec<bf16, 1> v) { return fabsf(to_float(bf16{v.bits})); }

/* To a dtype and back. */
template <class Element, int N> DEVICE void round_to(float (&x)[N])
{
    vec<Element, N> v;
    narrow(v, x);
    widen(x, v);
}

template <int BY, int N, class Element> DEVICE void store_by(Element *to, const float (&x)[N])
{
    vec<Element, N> v;
    narrow(v, x);
    store_vec_by<BY>(to, v);
}

template <int N, class Element> DEVICE void store(Element *to, const float (&x)[N]) { store_by<N>(to, x); }

#endif
