/* SPDX-License-Identifier: Apache-2.0 */
/* Each CUDA row of each kernel table serves some named shape on some architecture: where there is no GPU, nothing else sees that
 * a fast row has come to refuse all calls. And of rows of which each is the faster one somewhere, on an H200, the right one is
 * chosen. */
#include "harness/fits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/device.h"

#undef fail
#include <cmocka.h>

/* What serves only calls that no named shape makes. */
static const char *const unnamed[][2] = {
    {"rmsnorm_quant", "norm_short_sm80"},
    {"fused_add_rmsnorm_quant", "norm_short_sm80"},
    {"layernorm_quant", "norm_short_sm80"},
    {"single_prefill_with_kv_cache", "batch_decode_stream_sm90"},
    {"single_prefill_with_kv_cache", "batch_decode_stream_sm80"},
    {"chunk_gated_delta_rule", "gated_delta_recurrent_sm80"},
    {"gated_delta_rule_decode", "gated_delta_recurrent_sm80"},
};

static bool is_unnamed(const struct op *op, const struct op_kernel *row)
{
    for (size_t i = 0; i < sizeof unnamed / sizeof *unnamed; i++)
        if (!strcmp(op->name, unnamed[i][0]) && !strcmp(row->name, unnamed[i][1]))
            return true;
    return false;
}

struct chosen {
    const struct op *op;
    uint64_t rows; /* bit i: row i of its table */
};

static void note(void *context, const struct fit_row *row)
{
    struct chosen *chosen = context;
    if (row->chosen)
        chosen->rows |= UINT64_C(1) << (row->row - chosen->op->kernels);
}

static void test_rows(void **state)
{
    (void)state;
    static const int archs[] = {80, 90, 100, 120};
    int wrong = 0;
    for (const struct op *const *op = op_registry; *op; op++) {
        struct chosen chosen = {.op = *op};
        for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
            struct device device;
            assert_int_equal(device_imagine(archs[i], &device), FLASHINFER_OK);
            for (const struct op_shape *shape = (*op)->shapes; shape && shape->name; shape++)
                if (fits_explain(*op, shape->values, NULL, &device, NULL, note, &chosen) == FLASHINFER_INVALID) {
                    print_error("%s\n", flashinfer_last_error());
                    wrong++;
                }
        }
        for (const struct op_kernel *row = (*op)->kernels; row && row->name; row++) {
            bool is_chosen = chosen.rows >> (row - (*op)->kernels) & 1;
            if (row->target == OP_CUDA && is_chosen == is_unnamed(*op, row)) {
                print_error("%s: %s is chosen for %s named shape\n", (*op)->name, row->name, is_chosen ? "a" : "no");
                wrong++;
            }
        }
    }
    assert_int_equal(wrong, 0);
}

#define RAGGED(batch, tokens, heads)                                                                                       \
    "q_data_type=bf16 causal=1 head_dim_qk=128 num_kv_heads=8 num_qo_heads=" #heads " batch=" #batch " typical_batch=" #batch \
    " max_batch_size=" #batch " total_q=" #tokens " max_total_qo=" #tokens " total_kv=" #tokens                              \
    " page_size=1 -v_indptr -o_indptr"

/* The faster one where both were timed. */
static const char *const choices[][3] = {
    {"mm", "m=1 n=960 k=576 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=1 n=576 k=1536 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=8 n=6144 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=16 n=4096 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=16 n=4096 k=14336 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=4 n=49152 k=576 dtype=bf16 -bias", "mm_sm80"},
    {"mm", "m=1 n=14336 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=1 n=28672 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=16 n=28672 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"mm", "m=16 n=128256 k=4096 dtype=bf16 -bias", "mm_small_m_sm80"},
    {"batch_prefill_ragged", RAGGED(16, 160, 32), "batch_prefill_sm80"},
    {"batch_prefill_ragged", RAGGED(64, 640, 32), "batch_prefill_sm80"},
    {"batch_prefill_ragged", RAGGED(4, 256, 32), "batch_prefill_sm90"},
    {"batch_prefill_ragged", RAGGED(64, 2560, 32), "batch_prefill_sm90"},
    {"batch_prefill_ragged", RAGGED(16, 2048, 32), "batch_prefill_sm90"},
};

static void keep_chosen(void *context, const struct fit_row *row)
{
    if (row->chosen)
        *(const char **)context = row->row->name;
}

static void test_choices(void **state)
{
    (void)state;
    struct device device;
    assert_int_equal(device_imagine(90, &device), FLASHINFER_OK);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *chosen = "";
        print_message("%s %s\n", choices[i][0], choices[i][1]);
        assert_int_equal(fits_explain(op_find(choices[i][0]), choices[i][1], NULL, &device, NULL, keep_chosen, &chosen),
                         FLASHINFER_OK);
        assert_string_equal(chosen, choices[i][2]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
