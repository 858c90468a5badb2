/* SPDX-License-Identifier: Apache-2.0 */
/* What FLASHINFER_VALIDATE_INPUTS looks at, in every op: problems are accepted as the harness makes them, and refused by a
 * sentence that names the argument once one entry of an index tensor is far out of its range. Nothing is compiled or run. */
#include "harness/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"

#undef fail
#include <cmocka.h>

enum { PROBLEMS = 40, FAR = 1 << 30 };

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names))
        names++;
    return *names;
}

/* Whether an entry of this argument has a range that calls keep to; of some, any integer means something. */
static bool is_index(const struct op_arg *arg)
{
    static const char *const free[] = {"num_accepted_tokens", "prefix_len", "token_pos_in_items", "ring_start",
                                       "prev_num_accepted_tokens", "block_tables", NULL};
    return arg->kind == OP_IN && arg->fill.kind >= FILL_BELOW && arg->fill.kind <= FILL_LENGTHS && !is_one_of(arg->name, free);
}

/* Ops without validate: their headers say what becomes of any integer, or it only helps to choose a kernel. */
static bool takes_any(const struct op *op)
{
    static const char *const names[] = {"apply_rope", "apply_rope_inplace", "apply_llama31_rope", "apply_llama31_rope_inplace",
                                        "batch_prefill_plan", "sampling_from_probs", "top_k_top_p_sampling_from_probs",
                                        "scaled_fp4_grouped_quantize", "silu_and_mul_scaled_nvfp4_experts_quantize", NULL};
    return !op->validate && is_one_of(op->name, names);
}

static int64_t put(const DLTensor *t, int64_t at, int64_t value)
{
    char *entry = (char *)tensor_data(t);
    for (int axis = t->ndim - 1; axis >= 0; at /= t->shape[axis--])
        entry += at % t->shape[axis] * tensor_stride(t, axis) * dtype_bytes(tensor_dtype(t));
    const bool wide = tensor_dtype(t) == DTYPE_I64;
    const int32_t narrow = (int32_t)value;
    int64_t before = wide ? *(int64_t *)(void *)entry : *(int32_t *)(void *)entry;
    memcpy(entry, wide ? (void *)&value : (void *)&narrow, wide ? sizeof value : sizeof narrow);
    return before;
}

/* The last entry of an indptr bounds the others, unless it says only where things start. */
static int64_t entry_of(const struct op_arg *arg, int64_t elements)
{
    static const char *const starts[] = {"mask_indptr", "v_indptr", "o_indptr", NULL};
    if (is_one_of(arg->name, starts))
        return 0;
    return arg->fill.kind == FILL_INDPTR ? elements - 1 : elements / 2;
}

static bool is_refused(const struct op *op, const struct placement *p, const struct call *call, int arg, char *said, size_t size)
{
    const DLTensor *t = &p->tensor[arg];
    int64_t at = entry_of(&op->args[arg], tensor_elements(t)), before = put(t, at, FAR);
    flashinfer_status status = op->validate(call);
    put(t, at, before);
    const bool named = strstr(flashinfer_last_error(), op->args[arg].name);
    if (status != FLASHINFER_INVALID || !named)
        snprintf(said, size, "[%lld] = %d: %s %s (%s)", (long long)at, FAR, flashinfer_status_name(status),
                 status ? flashinfer_last_error() : "", p->problem->text);
    return status == FLASHINFER_INVALID && named;
}

struct account {
    int tried, refused;
    char said[1200]; /* of a call that was not */
};

static void spoil_all(const struct op *op, const struct device *cpu, uint64_t seed, struct account accounts[OP_MAX_ARGS])
{
    const bool masks = seed % 2 && program_symbol(op_program(op), "custom_mask") >= 0;
    const struct problem_request request = {
        .op = op, .seed = seed, .complete = seed % 2 == 1, .values = masks ? "custom_mask=1 multi_item_scoring=0" : NULL};
    struct problem *problem;
    struct placement *p = NULL;
    static struct call call;
    if (problem_create(&request, &problem))
        return;
    flashinfer_status status = placement_create(problem, cpu, &p); /* which plans */
    if (status == FLASHINFER_OK)
        status = placement_check(p, &call);
    if (status == FLASHINFER_OK)
        status = op->validate(&call);
    if (status && status != FLASHINFER_UNSUPPORTED)
        fail_msg("%s: %s (%s)", op->name, flashinfer_last_error(), problem->text);
    for (int arg = 0; !status && arg < problem->program->num_args; arg++)
        if (is_index(&op->args[arg]) && problem->tensor[arg].present && problem->tensor[arg].elements > 0) {
            accounts[arg].tried++;
            accounts[arg].refused += is_refused(op, p, &call, arg, accounts[arg].said, sizeof accounts[arg].said);
        }
    placement_destroy(p);
    problem_destroy(problem);
}

static void test_every_op(void **state)
{
    (void)state;
    const struct device *cpu;
    int wrong = 0;
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    for (const struct op *const *op = op_registry; *op; op++) {
        static struct account accounts[OP_MAX_ARGS];
        memset(accounts, 0, sizeof accounts);
        for (uint64_t seed = 1; (*op)->validate && seed <= PROBLEMS; seed++)
            spoil_all(*op, cpu, seed, accounts);
        for (const struct op_arg *arg = (*op)->args; !takes_any(*op) && arg->kind != OP_END; arg++) {
            const struct account *a = &accounts[arg - (*op)->args];
            if (is_index(arg) && (a->tried < 3 || a->refused == 0)) {
                print_error("%s: %s: %d of %d refused; %s\n", (*op)->name, arg->name, a->refused, a->tried,
                            (*op)->validate ? a->said : "the op has no validate");
                wrong++;
            }
        }
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
