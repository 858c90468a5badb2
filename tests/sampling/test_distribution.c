/* SPDX-License-Identifier: Apache-2.0 */
/* What samplers draw, on the CPU: frequencies of 1e5 draws against the exact distribution, streams and seeds,
 * ties, filters, greedy decoding, rows from which nothing can be drawn; and Philox against its published
 * vectors. */
#include <math.h>
#include <stdlib.h>

#include "flashinfer/sampling.h"
#include "tests/op/calls.h"

#include "philox.h"

enum { VOCAB = 10, BATCH = 1000, ROUNDS = 100, DRAWS = BATCH * ROUNDS };

#define EXPECT_OK(call) \
    if (call)           \
    fail_msg("%s", flashinfer_last_error())

/* The largest chi-square that fewer than one in 1e6 correct samplers exceed, by degrees of freedom. */
static const double chi_square_limit[] = {0, 23.9, 27.6, 30.7, 33.4, 35.9, 38.3, 40.5, 42.7, 44.8};

static void test_philox_vectors(void **state)
{
    (void)state;
    /* From the known-answer tests of Random123, by the authors of Philox. */
    struct philox zeros = philox_rounds(0, 0, 0, 10), ones = philox_rounds(UINT64_MAX, UINT64_MAX, UINT64_MAX, 10);
    struct philox pi = philox_rounds(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu, 10);
    assert_memory_equal(&zeros, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), 16);
    assert_memory_equal(&ones, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), 16);
    assert_memory_equal(&pi, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), 16);
}

/* Draws DRAWS tokens from one row with these filters and compares their frequencies with `expected`. */
static void expect_frequencies(const float probs[VOCAB], flashinfer_number top_k, flashinfer_number top_p,
                               int32_t order, const double expected[VOCAB])
{
    static int32_t sampled[BATCH], indices[BATCH];
    int64_t count[VOCAB] = {0};
    for (int64_t round = 0; round < ROUNDS; round++) {
        EXPECT_OK(FLASHINFER(
            top_k_top_p_sampling_from_probs, NULL, .samples = &TENSOR(sampled, DTYPE_I32, BATCH),
            .probs = &TENSOR((void *)(uintptr_t)probs, DTYPE_F32, 1, VOCAB), .top_k = top_k, .top_p = top_p,
            .indices = &TENSOR(indices, DTYPE_I32, BATCH), .filter_apply_order = order,
            .seed = FLASHINFER_INT(42), .offset = FLASHINFER_INT(round)));
        for (int i = 0; i < BATCH; i++) {
            assert_in_range(sampled[i], 0, VOCAB - 1);
            count[sampled[i]]++;
        }
    }
    double sum = 0, chi_square = 0;
    int kinds = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += expected[i];
    for (int i = 0; i < VOCAB; i++) {
        double mean = expected[i] / sum * DRAWS;
        if (mean == 0)
            assert_int_equal(count[i], 0);
        else
            chi_square += pow((double)count[i] - mean, 2) / mean;
        kinds += mean > 0;
    }
    if (chi_square > chi_square_limit[kinds - 1])
        fail_msg("chi-square is %g over %d tokens, must be at most %g", chi_square, kinds,
                 chi_square_limit[kinds - 1]);
}

#define ABSENT ((flashinfer_number){0})
#define INTEGER(x) ((flashinfer_number)FLASHINFER_INT(x))
#define REAL(x) ((flashinfer_number)FLASHINFER_FLOAT(x))

static const float mixed[VOCAB] = {0.05f, 0, 0.3f, 0.01f, 0.2f, 0.15f, NAN, 0.2f, 0.02f, 0.07f};

static void test_frequencies(void **state)
{
    (void)state;
    const double all[VOCAB] = {0.05, 0, 0.3, 0.01, 0.2, 0.15, 0, 0.2, 0.02, 0.07};
    expect_frequencies(mixed, ABSENT, ABSENT, 0, all);
    expect_frequencies(mixed, INTEGER(VOCAB), REAL(1), FLASHINFER_JOINT, all);
    float unnormalised[VOCAB], subnormal[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        unnormalised[i] = mixed[i] * 1e30f;
        subnormal[i] = mixed[i] * 1e-38f;
    }
    expect_frequencies(unnormalised, ABSENT, ABSENT, 0, all);
    expect_frequencies(subnormal, ABSENT, ABSENT, 0, all);
}

static void test_filters(void **state)
{
    (void)state;
    /* The second largest has a tie, so both stay. */
    expect_frequencies(mixed, INTEGER(2), ABSENT, 0, (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0, 0, 0.2, 0, 0});
    expect_frequencies(mixed, INTEGER(1), ABSENT, 0, (double[VOCAB]){0, 0, 1});
    expect_frequencies(mixed, ABSENT, REAL(0), 0, (double[VOCAB]){0, 0, 1});
    /* 0.3 + 0.2 + 0.2 + 0.15 = 0.85 */
    expect_frequencies(mixed, ABSENT, REAL(0.84), 0, (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0.15, 0, 0.2});
    expect_frequencies(mixed, ABSENT, REAL(0.86), 0,
                       (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0.15, 0, 0.2, 0, 0.07});
    /* Of the 0.7 that top-k leaves, 0.4 is less than the largest, 0.45 more; of all, the largest is 0.3. */
    expect_frequencies(mixed, INTEGER(3), REAL(0.4), FLASHINFER_TOP_K_FIRST, (double[VOCAB]){0, 0, 1});
    expect_frequencies(mixed, INTEGER(3), REAL(0.4), FLASHINFER_JOINT,
                       (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0, 0, 0.2});
    expect_frequencies(mixed, INTEGER(3), REAL(0.45), FLASHINFER_TOP_K_FIRST,
                       (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0, 0, 0.2});
    expect_frequencies(mixed, INTEGER(3), REAL(0.9), FLASHINFER_JOINT,
                       (double[VOCAB]){0, 0, 0.3, 0, 0.2, 0, 0, 0.2});
}

static void draw(int32_t *samples, int batch, const float *probs, int vocab, flashinfer_number seed,
                 flashinfer_number offset, int32_t threads)
{
    flashinfer_exec exec = {.size = sizeof exec, .threads = threads};
    EXPECT_OK(FLASHINFER(sampling_from_probs, &exec, .samples = &TENSOR(samples, DTYPE_I32, batch),
                         .probs = &TENSOR((void *)(uintptr_t)probs, DTYPE_F32, batch, vocab), .seed = seed,
                         .offset = offset));
}

enum { MANY = 64, WIDE = 1000 };

static float *flat_rows(void)
{
    float *probs = malloc(sizeof *probs * MANY * WIDE);
    assert_non_null(probs);
    for (int i = 0; i < MANY * WIDE; i++)
        probs[i] = 1.0f / WIDE;
    return probs;
}

static void test_same_call_same_tokens(void **state)
{
    (void)state;
    float *probs = flat_rows();
    int32_t first[MANY], again[MANY], other[MANY];
    draw(first, MANY, probs, WIDE, INTEGER(1), INTEGER(5), 1);
    draw(again, MANY, probs, WIDE, INTEGER(1), INTEGER(5), 2);
    assert_memory_equal(first, again, sizeof first);
    draw(other, MANY, probs, WIDE, INTEGER(1), INTEGER(6), 1);
    assert_memory_not_equal(first, other, sizeof first);
    draw(other, MANY, probs, WIDE, INTEGER(2), INTEGER(5), 1);
    assert_memory_not_equal(first, other, sizeof first);
    /* A row's draw does not depend on how many rows there are. */
    draw(other, MANY / 2, probs, WIDE, INTEGER(1), INTEGER(5), 1);
    assert_memory_equal(first, other, sizeof first / 2);
    free(probs);
}

static void test_seed_of_a_row(void **state)
{
    (void)state;
    float *probs = flat_rows();
    int64_t seeds[MANY], offsets[MANY];
    int32_t together[MANY], reversed[MANY], alone;
    for (int i = 0; i < MANY; i++) {
        seeds[i] = 1000 + i / 2;
        offsets[i] = i % 2;
    }
    flashinfer_number seed = FLASHINFER_TENSOR(&TENSOR(seeds, DTYPE_I64, MANY));
    flashinfer_number offset = FLASHINFER_TENSOR(&TENSOR(offsets, DTYPE_I64, MANY));
    draw(together, MANY, probs, WIDE, seed, offset, 1);
    for (int i = 0; i < MANY; i++) {
        draw(&alone, 1, probs, WIDE, INTEGER(1000 + i / 2), INTEGER(i % 2), 1);
        assert_int_equal(alone, together[i]);
    }
    for (int i = 0; i < MANY; i++) {
        seeds[i] = 1000 + (MANY - 1 - i) / 2;
        offsets[i] = (MANY - 1 - i) % 2;
    }
    draw(reversed, MANY, probs, WIDE, seed, offset, 1);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(reversed[i], together[MANY - 1 - i]);
    free(probs);
}

/* Neighbouring seeds, offsets and rows draw independently: all pairs of four equal tokens are equally
 * frequent. */
static void test_independence(void **state)
{
    (void)state;
    enum { TOKENS = 4, PAIRS = 20000 };
    float *probs = malloc(sizeof *probs * 2 * TOKENS);
    assert_non_null(probs);
    for (int i = 0; i < 2 * TOKENS; i++)
        probs[i] = 0.25f;
    for (int kind = 0; kind < 3; kind++) {
        int64_t count[TOKENS][TOKENS] = {{0}};
        for (int64_t i = 0; i < PAIRS; i++) {
            int64_t seeds[2] = {i, kind == 0 ? i + 1 : i}, offsets[2] = {7, kind == 1 ? 8 : 7};
            int32_t pair[2];
            if (kind == 2)
                draw(pair, 2, probs, TOKENS, INTEGER(i), INTEGER(7), 1);
            else
                draw(pair, 2, probs, TOKENS,
                     (flashinfer_number)FLASHINFER_TENSOR(&TENSOR(seeds, DTYPE_I64, 2)),
                     (flashinfer_number)FLASHINFER_TENSOR(&TENSOR(offsets, DTYPE_I64, 2)), 1);
            count[pair[0]][pair[1]]++;
        }
        double chi_square = 0, mean = (double)PAIRS / (TOKENS * TOKENS);
        for (int i = 0; i < TOKENS * TOKENS; i++)
            chi_square += pow((double)count[i / TOKENS][i % TOKENS] - mean, 2) / mean;
        assert_true(chi_square < 56.5); /* 15 degrees of freedom, one in 1e6 */
    }
    free(probs);
}

static void test_greedy(void **state)
{
    (void)state;
    enum { ROWS = 5, TOKENS = 37 };
    float logits[ROWS * TOKENS], probs[ROWS * TOKENS];
    int32_t samples[ROWS];
    for (int i = 0; i < ROWS * TOKENS; i++)
        logits[i] = (float)(i % 7) / 8;
    logits[0 * TOKENS + 20] = logits[0 * TOKENS + 30] = 9;
    logits[1 * TOKENS + 36] = 9;
    logits[2 * TOKENS + 3] = NAN;
    logits[2 * TOKENS + 5] = 9;
    logits[3 * TOKENS + 11] = logits[3 * TOKENS + 12] = INFINITY;
    logits[4 * TOKENS + 0] = 9;
    const int32_t largest[ROWS] = {20, 36, 5, 11, 0};
    EXPECT_OK(FLASHINFER(softmax, NULL, .out = &TENSOR(probs, DTYPE_F32, ROWS, TOKENS),
                         .logits = &TENSOR(logits, DTYPE_F32, ROWS, TOKENS), .temperature = REAL(0)));
    for (int i = 0; i < ROWS * TOKENS; i++)
        assert_true(probs[i] == (float)(i % TOKENS == largest[i / TOKENS]));
    draw(samples, ROWS, probs, TOKENS, INTEGER(123), ABSENT, 0);
    assert_memory_equal(samples, largest, sizeof samples);
}

static void test_temperature_of_a_row(void **state)
{
    (void)state;
    enum { ROWS = 4 };
    float logits[ROWS * 2] = {0, 1, 0, 1, 0, 1, 0, 1}, temperatures[ROWS] = {1, 0, NAN, 0.5f};
    float probs[ROWS * 2];
    EXPECT_OK(FLASHINFER(softmax, NULL, .out = &TENSOR(probs, DTYPE_F32, ROWS, 2),
                         .logits = &TENSOR(logits, DTYPE_F32, ROWS, 2),
                         .temperature = FLASHINFER_TENSOR(&TENSOR(temperatures, DTYPE_F32, ROWS))));
    assert_float_equal(probs[1], 0.7310586f, 1e-6f);
    assert_true(probs[2] == 0 && probs[3] == 1);
    assert_true(probs[4] == 0 && probs[5] == 0);
    assert_float_equal(probs[7], 0.8807971f, 1e-6f);
}

static void test_nothing_to_draw(void **state)
{
    (void)state;
    enum { ROWS = 4, TOKENS = 3, DRAWN = 6 };
    const float no = -INFINITY;
    float logits[ROWS * TOKENS] = {no, no, no, NAN, NAN, NAN, NAN, no, 5, 1, 2, 3}, probs[ROWS * TOKENS];
    EXPECT_OK(FLASHINFER(softmax, NULL, .out = &TENSOR(probs, DTYPE_F32, ROWS, TOKENS),
                         .logits = &TENSOR(logits, DTYPE_F32, ROWS, TOKENS)));
    for (int i = 0; i < 2 * TOKENS; i++)
        assert_true(probs[i] == 0);
    assert_true(probs[2 * TOKENS + 2] == 1);
    probs[1 * TOKENS] = NAN;
    probs[1 * TOKENS + 1] = -1;
    probs[1 * TOKENS + 2] = INFINITY;
    int64_t indices[DRAWN] = {0, 1, 2, 4, -1, 2}, samples[DRAWN];
    unsigned char valid[DRAWN];
    struct flashinfer_sampling_from_probs a = {.size = sizeof a,
                                               .samples = &TENSOR(samples, DTYPE_I64, DRAWN),
                                               .valid = &TENSOR(valid, DTYPE_BOOL, DRAWN),
                                               .probs = &TENSOR(probs, DTYPE_F32, ROWS, TOKENS),
                                               .indices = &TENSOR(indices, DTYPE_I64, DRAWN)};
    EXPECT_OK(flashinfer_sampling_from_probs(&a, NULL));
    assert_memory_equal(samples, ((int64_t[]){0, 0, 2, 0, 0, 2}), sizeof samples);
    assert_memory_equal(valid, ((unsigned char[]){0, 0, 1, 0, 0, 1}), sizeof valid);
    a.valid = NULL;
    EXPECT_OK(flashinfer_sampling_from_probs(&a, NULL));
    assert_memory_equal(samples, ((int64_t[]){-1, -1, 2, -1, -1, 2}), sizeof samples);
}

static void test_check_nan(void **state)
{
    (void)state;
    float probs[2] = {0.5f, 0.5f};
    int32_t sample = -7;
    assert_int_equal(FLASHINFER(sampling_from_probs, NULL, .samples = &TENSOR(&sample, DTYPE_I32, 1),
                                .probs = &TENSOR(probs, DTYPE_F32, 1, 2), .check_nan = 1),
                     FLASHINFER_UNSUPPORTED);
    assert_int_equal(sample, -7);
    assert_non_null(strstr(flashinfer_last_error(), "check_nan"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_vectors),  cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_filters),         cmocka_unit_test(test_same_call_same_tokens),
        cmocka_unit_test(test_seed_of_a_row),   cmocka_unit_test(test_independence),
        cmocka_unit_test(test_greedy),          cmocka_unit_test(test_temperature_of_a_row),
        cmocka_unit_test(test_nothing_to_draw), cmocka_unit_test(test_check_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
