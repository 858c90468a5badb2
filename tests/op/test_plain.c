/* SPDX-License-Identifier: Apache-2.0 */
/* What check_plain.c accepts at once, check_tensor accepts, too, and learns the same from it; and where it does not, the sentence
 * is the same as without it: random calls with something changed in one tensor, a value or the plan are checked both ways. A call
 * that is told its device goes without check_plain.c. What recall.c finds among them, call_check finds, too. */
#include <stdlib.h>

#include "flashinfer/norm.h"
#include "harness/placement.h"
#include "op/recall.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

enum { PROBLEMS = 25, CHANGES = 120 };

/* A call, and one of its tensors with shape and strides of its own. */
struct changed {
    const struct placement *placement;
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
    DLTensor tensor;
    int64_t shape[TENSOR_MAX_DIMS + 1], stride[TENSOR_MAX_DIMS + 1];
    bool elsewhere; /* its address changed */
    flashinfer_plan plan;
    flashinfer_exec exec;
    char what[200];
};

struct counts {
    int tried, accepted, recalled, recalled_elsewhere; /* the last: with a tensor that lies elsewhere */
};

static const struct device *cpu(void)
{
    const struct device *device;
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &device), FLASHINFER_OK);
    return device;
}

/* A tensor of the call that lies where the call runs, -1 if there is none. */
static int draw_tensor(const struct problem *problem, struct random *random)
{
    for (int tries = 0; tries < 100; tries++) {
        int i = (int)random_below(random, (uint64_t)problem->program->num_args);
        if (op_is_tensor(&problem->op->args[i]) && problem->tensor[i].present)
            return i;
    }
    return -1;
}

/* Around the ends of the range. */
static int64_t plus(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static void change_layout(struct changed *c, struct random *random)
{
    static const int64_t sizes[] = {0,         1,        2, 3, 64, -1, INT64_C(1) << 27, INT64_C(1) << 28, INT64_C(1) << 40,
                                    INT64_MAX, INT64_MIN};
    DLTensor *t = &c->tensor;
    int axis = (int)random_below(random, (uint64_t)t->ndim);
    int64_t any = sizes[random_below(random, sizeof sizes / sizeof *sizes)];
    switch (random_below(random, 7)) {
    case 0:
        c->shape[axis] = any;
        break;
    case 1:
        c->shape[axis] = plus(c->shape[axis], random_between(random, -1, 1));
        break;
    case 2:
        c->stride[axis] = any;
        break;
    case 3:
        c->stride[axis] = plus(c->stride[axis], random_between(random, -1, 1));
        break;
    case 4:
        c->stride[axis] = plus(c->stride[axis], c->stride[axis]);
        break;
    case 5:
        t->strides = NULL;
        break;
    default:
        t->ndim += (int32_t)random_between(random, -1, 1);
        c->shape[TENSOR_MAX_DIMS] = c->stride[TENSOR_MAX_DIMS] = 1;
    }
}

static void change_memory(struct changed *c, struct random *random)
{
    const struct problem *problem = c->placement->problem;
    DLTensor *t = &c->tensor;
    int other = draw_tensor(problem, random);
    switch (random_below(random, 6)) {
    case 0:
        t->dtype = dtype_dlpack((enum dtype)random_below(random, DTYPE_COUNT));
        break;
    case 1:
        t->dtype.lanes++;
        break;
    case 2:
        t->data = NULL;
        break;
    case 3:
        t->byte_offset += random_below(random, 2) ? random_below(random, 5) : random_bits(random);
        break;
    case 4:
        t->data = (char *)tensor_data(&c->placement->tensor[other]) + random_between(random, -4, 4) * 4;
        t->byte_offset = 0;
        break;
    default:
        *t = c->placement->tensor[other];
    }
}

/* Now and then a value, the plan or exec. */
static void change_rest(struct changed *c, struct random *random)
{
    const struct op *op = c->placement->problem->op;
    c->exec = (flashinfer_exec){.size = sizeof c->exec, .threads = (int32_t)random_below(random, 2)};
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++) {
        if (random_below(random, 40))
            continue;
        if (arg->kind == OP_INT || arg->kind == OP_ENUM)
            op_set_int(c->args, arg, random_between(random, -2, 20));
        else if (arg->kind == OP_NUMBER)
            op_set_number(c->args, arg, (double)random_between(random, -4, 8) / 2);
        else if (arg->kind == OP_PLAN && !arg->is_output) {
            c->plan = **(const flashinfer_plan *const *)op_field_const(c->args, arg);
            c->plan.word[random_below(random, sizeof c->plan.word / sizeof *c->plan.word)] ^= random_below(random, 2);
            *(const flashinfer_plan **)op_field(c->args, arg) = &c->plan;
        }
    }
    if (!random_below(random, 40))
        c->exec.device = (DLDevice){random_below(random, 2) ? kDLCPU : kDLCUDA, 0};
    if (!random_below(random, 40))
        c->exec.flags = (uint32_t)random_below(random, 6);
    if (!random_below(random, 40))
        c->exec.stream = &c->plan;
}

static void change(struct changed *c, struct random *random)
{
    const struct problem *problem = c->placement->problem;
    int arg = draw_tensor(problem, random);
    memcpy(c->args, c->placement->args, problem->op->args_bytes);
    change_rest(c, random);
    c->elsewhere = false;
    if (arg < 0)
        return;
    c->tensor = c->placement->tensor[arg];
    for (int i = 0; i < c->tensor.ndim; i++) {
        c->shape[i] = c->tensor.shape[i];
        c->stride[i] = tensor_stride(&c->tensor, i);
    }
    c->tensor.shape = c->shape;
    if (c->tensor.strides)
        c->tensor.strides = c->stride;
    for (uint64_t left = random_below(random, 3); left > 0; left--) {
        if (random_below(random, 2) && c->tensor.ndim > 0 && c->tensor.ndim <= TENSOR_MAX_DIMS && c->tensor.shape == c->shape)
            change_layout(c, random);
        else
            change_memory(c, random);
    }
    const DLTensor *before = &c->placement->tensor[arg];
    c->elsewhere = tensor_data(&c->tensor) != tensor_data(before);
    op_set_tensor(c->args, &problem->op->args[arg], random_below(random, 30) ? &c->tensor : NULL);
    snprintf(c->what, sizeof c->what, "%s: %.120s", problem->op->args[arg].name, problem->text);
}

static void expect_same(const struct changed *c, const struct call *call, const struct call *other, const char *how)
{
    assert_int_equal(call->empty, other->empty);
    assert_int_equal(call->bound, other->bound);
    for (int i = 0; i < call->program->num_symbols; i++)
        if (call->dim[i] != other->dim[i])
            fail_msg("%s (%s): %s is %lld, %s %lld", call->op->name, c->what, call->program->symbol[i].name,
                     (long long)call->dim[i], how, (long long)other->dim[i]);
}

/* `call`: as call_check, which returned `status`, left it. */
static void compare_recalled(const struct changed *c, const struct call *call, flashinfer_status status, struct counts *counts)
{
    const struct op *op = c->placement->problem->op;
    static struct recall recall;
    static struct call recalled;
    const bool found = recall_find(&recall, &recalled, op, c->args, &c->exec);
    if (found && status)
        fail_msg("%s (%s): recalled, but: %s", op->name, c->what, flashinfer_last_error());
    if (status || call->empty)
        return;
    if (!found) {
        recall_keep(&recall, call, c->args, &c->exec);
        return;
    }
    counts->recalled++;
    counts->recalled_elsewhere += c->elsewhere;
    expect_same(c, call, &recalled, "recalled");
    assert_ptr_equal(recalled.device, call->device);
    assert_ptr_equal(recalled.plan, call->plan);
    assert_memory_equal(recalled.args, call->args, op->args_bytes);
    assert_memory_equal(&recalled.exec, &call->exec, sizeof call->exec);
}

static void compare(const struct changed *c, struct counts *counts)
{
    const struct op *op = c->placement->problem->op;
    static struct call plain, slow;
    char sentence[2000];
    flashinfer_status first = call_check(&plain, op, c->args, &c->exec, false, NULL);
    compare_recalled(c, &plain, first, counts);
    if (c->exec.device.device_type == kDLCUDA) { /* who is told the device does not look at this one */
        assert_int_not_equal(first, FLASHINFER_OK);
        return;
    }
    snprintf(sentence, sizeof sentence, "%s", first ? flashinfer_last_error() : "");
    flashinfer_status second = call_check(&slow, op, c->args, &c->exec, false, cpu());
    if (first != second || (first && strcmp(sentence, flashinfer_last_error())))
        fail_msg("%s (%s): \"%s\", and without check_plain.c \"%s\"", op->name, c->what, sentence,
                 second ? flashinfer_last_error() : "");
    if (first)
        return;
    counts->accepted++;
    expect_same(c, &plain, &slow, "without check_plain.c");
}

static void compare_op(const struct op *op)
{
    struct random random = {1};
    struct counts counts = {0};
    for (uint64_t seed = 1; seed <= PROBLEMS; seed++) {
        const struct problem_request request = {.op = op, .seed = seed};
        struct problem *problem;
        struct changed changed = {0};
        struct placement *placement;
        if (problem_create(&request, &problem))
            fail_msg("%s", flashinfer_last_error());
        if (placement_create(problem, cpu(), &placement) == FLASHINFER_OK) {
            changed.placement = placement;
            for (int i = 0; i < CHANGES; i++, counts.tried++) {
                change(&changed, &random);
                compare(&changed, &counts);
            }
            placement_destroy(placement);
        }
        problem_destroy(problem);
    }
    assert_in_range(counts.accepted, counts.tried / 20, counts.tried - counts.tried / 10);
    assert_in_range(counts.recalled, counts.tried / 100, counts.accepted - 1);
    assert_true(counts.recalled_elsewhere > 0);
}

static void test_ops(void **state)
{
    (void)state;
    for (const struct op *const *op = op_registry; *op; op++)
        if (!strstr((*op)->name, "_plan")) /* with few tensors, all on the host */
            compare_op(*op);
}

static void test_harder_declarations(void **state)
{
    (void)state;
    const struct op *ops[] = {&op_norm_fp4_sample, &op_grouped_gemm_nt_masked, &op_paged_prefill, &op_top_k, &op_sample};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        compare_op(ops[i]);
}

/* In place is recalled wherever that is on the device, and is not taken for a tensor that overlaps another. */
static void test_in_place(void **state)
{
    (void)state;
    static _Alignas(16) uint16_t memory[400];
    static struct recall recall;
    static struct call call;
    DLTensor x = TENSOR(memory, DTYPE_F16, 2, 50), out = x, weight = TENSOR(memory + 200, DTYPE_F16, 50);
    const struct flashinfer_rmsnorm a = {.size = sizeof a, .out = &out, .input = &x, .weight = &weight};
    const struct op *op = op_find("rmsnorm");
    assert_false(recall_find(&recall, &call, op, &a, NULL));
    assert_int_equal(call_check(&call, op, &a, NULL, false, NULL), FLASHINFER_OK);
    recall_keep(&recall, &call, &a, NULL);
    assert_true(recall_find(&recall, &call, op, &a, NULL));
    DLTensor *tensors[] = {&out, &x, &weight};
    for (int i = 0; i < 3; i++) {
        tensors[i]->device.device_id++;
        assert_false(recall_find(&recall, &call, op, &a, NULL));
        tensors[i]->device.device_id--;
    }
    x.data = out.data = memory + 10;
    assert_true(recall_find(&recall, &call, op, &a, NULL));
    out.data = memory + 300;
    assert_true(recall_find(&recall, &call, op, &a, NULL));
    out.data = memory + 20;
    assert_false(recall_find(&recall, &call, op, &a, NULL));
    x.data = out.data = memory + 160;
    assert_false(recall_find(&recall, &call, op, &a, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_harder_declarations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
