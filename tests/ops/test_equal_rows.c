/* SPDX-License-Identifier: Apache-2.0 */
/* Under FLASHINFER_BATCH_INVARIANT a row or sequence has the same bits alone and in any batch: here, in batches of its equals, of
 * sizes for which kernels go about it in other ways. On the CPU, and on a GPU if there is one. Attention over pages is in
 * test_invariance.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/placement.h"
#include "tests/ops/attention_batch.h"

#include <cmocka.h> /* last: it makes fail() a macro */

static const struct batch {
    const char *op, *values, *alone, *among; /* among: what stands in place of `alone` where there are `copies` */
    int64_t copies;
    bool first_only; /* what is drawn for a row depends on its number */
} batches[] = {
#define NORM(op, hidden, dtype)                                                   \
    {op, "hidden=" #hidden " dtype=" dtype, "rows=7", "rows=280", .copies = 40},  \
    {op, "hidden=" #hidden " dtype=" dtype, "rows=7", "rows=4200", .copies = 600}
    NORM("rmsnorm", 320, "f32"),
    NORM("rmsnorm", 1024, "bf16"),
    NORM("rmsnorm", 2880, "f32"),
    NORM("rmsnorm", 8192, "f32"),
    NORM("layernorm", 480, "f32"),
    NORM("layernorm", 5120, "f32"),
    NORM("fused_add_rmsnorm", 576, "bf16"),
    NORM("fused_add_rmsnorm", 2880, "bf16 residual:dtype=f32"),
    NORM("fused_rmsnorm_silu_nvfp4", 4096, "bf16"),
    NORM("rmsnorm_fp4quant", 2880, "bf16"),
    NORM("rmsnorm_fp4quant", 8192, "bf16 is_sf_swizzled_layout=SWIZZLED"),
    NORM("add_rmsnorm_fp4quant", 8192, "bf16 is_sf_swizzled_layout=SWIZZLED"),
    {"rmsnorm", "hidden=2056 dtype=f32", "rows=1", "rows=4096", .copies = 4096}, /* a CPU streams every second row */
    {"layernorm", "hidden=2056 dtype=f32", "rows=1", "rows=4096", .copies = 4096},
    {"silu_and_mul_nvfp4_quantize", "columns=7168 dtype=bf16", "rows=1", "rows=2048", .copies = 2048},
    {"nvfp4_quantize", "columns=4096 dtype=bf16", "rows=1", "rows=4096", .copies = 4096},
    {"mm", "n=512 k=4096 dtype=bf16", "m=1", "m=7", .copies = 7},
    {"mm", "n=512 k=4096 dtype=bf16", "m=1", "m=300", .copies = 300},
    {"softmax", "vocab=32000 logits:dtype=bf16", "batch=1", "batch=200", .copies = 200},
    {"top_k_top_p_sampling_from_probs", "vocab=32000", "batch=1", "batch=200", .copies = 200, .first_only = true},
    {"merge_states", "num_states=8 num_heads=8 head_dim=128 dtype=bf16", "tokens=1", "tokens=3000", .copies = 3000},
#define STATES(n) "batch=" #n " num_states=" #n
#define BATCH(n) STATES(n) " num_sequences=" #n
#define HEADS "num_q_heads=8 num_k_heads=8 num_v_heads=16 head_dim=128 dtype=bf16 "
#define GATED(op, values, n) {op, HEADS values, STATES(1), STATES(n), .copies = n}
    GATED("gated_delta_rule_mtp", "tokens=4 initial_state:dtype=bf16 -ssm_state_indices", 40),
    GATED("gated_delta_rule_mtp", "tokens=2 initial_state:dtype=f32 -ssm_state_indices", 40),
    GATED("gated_delta_rule_decode_pretranspose", "tokens=1 state:dtype=bf16", 80),
    GATED("gated_delta_rule_decode_pretranspose", "tokens=4 state:dtype=f32", 40),
#define KDA                                                                                                        \
    "num_q_heads=16 num_v_heads=16 head_dim=128 dtype=bf16 num_sources=64 num_slots=64 cache_tokens=1 -cu_seqlens" \
    " -initial_state_source -initial_state_indices -correction_cache -kg_cache -state_checkpoints"                 \
    " -checkpoint_cu_starts -checkpoint_state_indices checkpoint_every_n_tokens=0"
    {"recurrent_kda", KDA " tokens=2 columns=1 initial_state:dtype=f32", BATCH(1), BATCH(40), .copies = 40},
    {"recurrent_kda", KDA " tokens=4 columns=4 initial_state:dtype=f32", "batch=1 num_sequences=1 num_states=4",
     "batch=40 num_sequences=40 num_states=160", .copies = 40},
#define CHUNK(num_v_heads, alone, among, n)                                            \
    {"chunk_gated_delta_rule", "num_q_heads=2 num_k_heads=2 num_v_heads=" #num_v_heads \
     " head_dim=128 checkpoint_every_n_tokens=0 dtype=bf16 output_state:dtype=f32", alone, among, .copies = n}
    CHUNK(4, "num_sequences=1 num_states=1 tokens=8192", "num_sequences=2 num_states=2 tokens=16384", 2),
    CHUNK(32, "num_sequences=1 num_states=1 tokens=4100", "num_sequences=6 num_states=6 tokens=24600", 6),
    CHUNK(4, "num_sequences=1 num_states=1 tokens=5", "num_sequences=40 num_states=40 tokens=200", 40),
#define MAMBA "num_heads=16 num_groups=2 head_dim=64 state_dim=128 dtype=bf16 state:dtype=bf16 -cu_seqlens -rand_seed"
    {"selective_state_update", MAMBA " tokens=1 num_buffers=80 -state_batch_indices -dst_state_batch_indices"
     " -intermediate_states_buffer -intermediate_state_indices -num_accepted_tokens", BATCH(1), BATCH(80), .copies = 80},
    {"checkpointing_ssu", MAMBA " tokens=4 ring_len=16", BATCH(1), BATCH(80), .copies = 80},
    {"checkpointing_ssu", MAMBA " tokens=4 ring_len=16", BATCH(1), BATCH(600), .copies = 600},
    {0},
};

static void write(struct problem *problem, int arg)
{
    problem_scatter(&problem->tensor[arg], problem->memory[problem->tensor[arg].memory].image, problem->tensor[arg].values);
}

/* Each copy has states of its own: lists of them name all there are, in order. */
static void list_states(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        struct problem_tensor *t = &problem->tensor[i];
        if (!t->present || problem->op->args[i].fill.kind != FILL_PERMUTED)
            continue;
        for (int64_t k = 0; k < t->elements; k++)
            problem_set(t, k, (double)k);
        write(problem, i);
    }
}

/* Writes `one`'s values `copies` times to `many` where a tensor has room for these, as they are where it is of the same size. */
static void tile(const struct problem *one, struct problem *many, int64_t copies)
{
    for (int i = 0; i < one->program->num_args; i++) {
        const struct problem_tensor *from = &one->tensor[i], *to = &many->tensor[i];
        size_t bytes = (size_t)(from->elements * dtype_bytes(from->dtype));
        int64_t times = to->elements == from->elements ? 1 : copies;
        if (!from->present || !from->values || !bytes || to->elements != times * from->elements)
            continue;
        for (int64_t n = 0; n < times; n++)
            memcpy(to->values + (size_t)n * bytes, from->values, bytes);
        write(many, i);
    }
}

static struct placement *run(struct problem *problem, const struct device *device)
{
    struct placement *p;
    size_t workspace;
    MUST(placement_create(problem, device, &p));
    p->exec.flags = FLASHINFER_BATCH_INVARIANT;
    MUST(flashinfer_workspace_size(problem->op->name, p->args, &p->exec, &workspace));
    MUST(placement_workspace(p, workspace));
    MUST(op_call(problem->op, p->args, &p->exec));
    MUST(device_wait(device));
    return p;
}

static unsigned char *fetch(const struct placement *p, int arg)
{
    const struct problem_tensor *t = &p->problem->tensor[arg];
    unsigned char *image = malloc(p->problem->memory[t->memory].bytes), *dense = malloc((size_t)(t->elements * 8 + 1));
    MUST(placement_fetch(p, t->memory, image));
    problem_gather(t, image, dense);
    free(image);
    return dense;
}

/* How many copies differ from the row alone. */
static int64_t count_others(const struct placement *one, const struct placement *many, const struct batch *b)
{
    int64_t others = 0;
    for (int i = 0; i < one->problem->program->num_args; i++) {
        const struct problem_tensor *t = &one->problem->tensor[i];
        if (!t->present || !t->written || many->problem->tensor[i].elements != b->copies * t->elements)
            continue;
        unsigned char *row = fetch(one, i), *rows = fetch(many, i);
        size_t bytes = (size_t)(t->elements * dtype_bytes(t->dtype));
        for (int64_t n = 0; n < (b->first_only ? 1 : b->copies); n++)
            others += memcmp(row, rows + (size_t)n * bytes, bytes) != 0;
        free(row);
        free(rows);
    }
    return others;
}

static bool has_kernel(const struct op *op, const struct device *device)
{
    for (const struct op_kernel *row = op->kernels; row->name; row++)
        if ((row->target == OP_CUDA) == device_is_cuda(device))
            return true;
    return false;
}

static int64_t compare(const struct batch *b, const struct device *device)
{
    const struct op *op = op_find(b->op);
    struct problem *one, *many;
    assert_non_null(op);
    if (!has_kernel(op, device))
        return 0;
    MUST(problem_create(&(struct problem_request){.op = op, .values = b->values, .instead = b->alone}, &one));
    MUST(problem_create(&(struct problem_request){.op = op, .values = b->values, .instead = b->among}, &many));
    tile(one, many, b->copies);
    list_states(one);
    list_states(many);
    struct placement *of_one = run(one, device), *of_many = run(many, device);
    int64_t others = count_others(of_one, of_many, b);
    if (others)
        print_error("%s %s: %lld of %lld outputs in a batch differ from those alone\n", b->op, many->text, (long long)others,
                    (long long)b->copies);
    placement_destroy(of_one);
    placement_destroy(of_many);
    problem_destroy(one);
    problem_destroy(many);
    return others;
}

static void compare_all(const struct device *device)
{
    int64_t others = 0;
    for (const struct batch *b = batches; b->op; b++)
        others += compare(b, device);
    assert_int_equal(others, 0);
}

static void test_cpu(void **state)
{
    (void)state;
    compare_all(attention_batch_device(kDLCPU));
}

static void test_gpu(void **state)
{
    (void)state;
    const struct device *device = attention_batch_device(kDLCUDA);
    if (!device)
        skip();
    compare_all(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
