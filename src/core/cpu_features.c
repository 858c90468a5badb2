/* SPDX-License-Identifier: Apache-2.0 */
/* The instruction set of this CPU as a text: the x86-64 level, the extensions beyond it that kernels use, and
 * a hash of everything a compiler's -march=native looks at (vendor, model, all feature bits, the registers
 * that the system saves). Homes are shared between machines: cached code must not reach one that lacks an
 * instruction. */
#include "core/cpu_features.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static uint64_t hash_words(uint64_t hash, const uint32_t *words, int count)
{
    for (int i = 0; i < count; i++)
        hash = (hash ^ words[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#ifdef __x86_64__
#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };

struct leaf {
    uint32_t number, subleaf;
    uint32_t mask[4]; /* registers that hold features; the others tell of this core or of this boot */
    uint32_t value[4];
};

enum { MODEL, STRUCTURED, STRUCTURED_1, STATE, EXTENDED, LEAVES };

/* Registers that the operating system must save (XCR0). */
enum { NONE = 0, YMM = 0x6, ZMM = 0xe6, TILES = 0x60000 };

static const struct feature {
    int level; /* x86-64 level that asks for it; 0: an extension */
    int leaf, reg, bit;
    uint32_t state;
    const char *name;
    const char *macro; /* by which a compiler says that it may use an extension */
} features[] = {
    {2, MODEL, ECX, 9, NONE, "ssse3", NULL},
    {2, MODEL, ECX, 20, NONE, "sse4_2", NULL},
    {2, MODEL, ECX, 23, NONE, "popcnt", NULL},
    {3, MODEL, ECX, 12, YMM, "fma", NULL},
    {3, MODEL, ECX, 22, NONE, "movbe", NULL},
    {3, MODEL, ECX, 28, YMM, "avx", NULL},
    {3, MODEL, ECX, 29, YMM, "f16c", NULL},
    {3, STRUCTURED, EBX, 3, NONE, "bmi1", NULL},
    {3, STRUCTURED, EBX, 5, YMM, "avx2", NULL},
    {3, STRUCTURED, EBX, 8, NONE, "bmi2", NULL},
    {3, EXTENDED, ECX, 5, NONE, "lzcnt", NULL},
    {4, STRUCTURED, EBX, 16, ZMM, "avx512f", NULL},
    {4, STRUCTURED, EBX, 17, ZMM, "avx512dq", NULL},
    {4, STRUCTURED, EBX, 28, ZMM, "avx512cd", NULL},
    {4, STRUCTURED, EBX, 30, ZMM, "avx512bw", NULL},
    {4, STRUCTURED, EBX, 31, ZMM, "avx512vl", NULL},
    {0, STRUCTURED, ECX, 1, ZMM, "avx512vbmi", "__AVX512VBMI__"},
    {0, STRUCTURED, ECX, 11, ZMM, "avx512_vnni", "__AVX512VNNI__"},
    {0, STRUCTURED_1, EAX, 5, ZMM, "avx512_bf16", "__AVX512BF16__"},
    {0, STRUCTURED, EDX, 23, ZMM, "avx512_fp16", "__AVX512FP16__"},
    {0, STRUCTURED_1, EAX, 4, YMM, "avx_vnni", "__AVXVNNI__"},
    {0, STRUCTURED, EDX, 22, TILES, "amx_bf16", "__AMX_BF16__"},
};

enum { FEATURES = sizeof features / sizeof *features };

/* Tiles only if Linux lets this process use them, which it must be asked for. */
static uint32_t saved_state(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    bool has_tiles = (low & TILES) == TILES && !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
    return has_tiles ? low : low & ~(uint32_t)TILES;
}

static bool usable(const struct feature *feature, const struct leaf *leaves, uint32_t state)
{
    return (leaves[feature->leaf].value[feature->reg] >> feature->bit & 1)
        && (state & feature->state) == feature->state;
}

static int level_of(const struct leaf *leaves, uint32_t state)
{
    int level = 4;
    for (int i = 0; i < FEATURES; i++)
        if (features[i].level > 0 && features[i].level <= level && !usable(&features[i], leaves, state))
            level = features[i].level - 1;
    return level;
}

/* Returns the registers that the system saves. */
static uint32_t read_leaves(struct leaf leaves[LEAVES])
{
    static const struct leaf wanted[LEAVES] = {
        [MODEL] = {1, 0, {~0u, 0, ~0u, ~0u}, {0}},
        [STRUCTURED] = {7, 0, {0, ~0u, ~0u, ~0u}, {0}},
        [STRUCTURED_1] = {7, 1, {~0u, ~0u, ~0u, ~0u}, {0}},
        [STATE] = {13, 1, {~0u, 0, 0, 0}, {0}},
        [EXTENDED] = {0x80000001u, 0, {0, 0, ~0u, ~0u}, {0}},
    };
    for (int i = 0; i < LEAVES; i++) {
        uint32_t *v = leaves[i].value;
        leaves[i] = wanted[i];
        __get_cpuid_count(leaves[i].number, leaves[i].subleaf, &v[EAX], &v[EBX], &v[ECX], &v[EDX]);
        for (int r = 0; r < 4; r++)
            v[r] &= leaves[i].mask[r];
    }
    return leaves[MODEL].value[ECX] >> 27 & 1 ? saved_state() : 0;
}

bool cpu_extends(const char *source)
{
    struct leaf leaves[LEAVES];
    uint32_t state = read_leaves(leaves);
    for (int i = 0; i < FEATURES; i++)
        if (features[i].macro && usable(&features[i], leaves, state) && strstr(source, features[i].macro))
            return true;
    return false;
}

void cpu_describe(char *brand, size_t brand_size, char *isa, size_t isa_size)
{
    struct leaf leaves[LEAVES];
    uint32_t vendor[4] = {0}, text[13] = {0};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    __get_cpuid(0, &vendor[0], &vendor[1], &vendor[2], &vendor[3]);
    hash = hash_words(hash, vendor + 1, 3);
    uint32_t state = read_leaves(leaves);
    for (int i = 0; i < LEAVES; i++)
        hash = hash_words(hash, leaves[i].value, 4);
    hash = hash_words(hash, &state, 1);

    for (uint32_t i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &text[4 * i], &text[4 * i + 1], &text[4 * i + 2], &text[4 * i + 3]);
    const char *name = (const char *)text;
    snprintf(brand, brand_size, "%s", name + strspn(name, " "));
    int length = snprintf(isa, isa_size, "x86-64-v%d ", level_of(leaves, state));
    for (int i = 0; i < FEATURES; i++)
        if (features[i].level == 0 && usable(&features[i], leaves, state))
            length += snprintf(isa + length, isa_size - (size_t)length, "%s ", features[i].name);
    snprintf(isa + length, isa_size - (size_t)length, "%016llx", (unsigned long long)hash);
}

#else

bool cpu_extends(const char *source)
{
    (void)source;
    return false;
}

void cpu_describe(char *brand, size_t brand_size, char *isa, size_t isa_size)
{
    struct utsname system = {0};
    uname(&system);
    const uint64_t capabilities[2] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
    uint32_t words[4];
    memcpy(words, capabilities, sizeof words);
    uint64_t hash = hash_words(UINT64_C(0xcbf29ce484222325), words, 4);
    snprintf(brand, brand_size, "%s", system.machine);
    snprintf(isa, isa_size, "%s %016llx", system.machine, (unsigned long long)hash);
}

#endif
