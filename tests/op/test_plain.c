/* SPDX-License-Identifier: Apache-2.0 */
/* What check_plain.c accepts at once, check_tensor accepts, too, and learns the same from it; and where it does not, the sentence
 * is the same as without it: random calls with something changed in one tensor are checked both ways. A call that is told its
 * device goes without check_plain.c. */
#include <stdlib.h>

#include "harness/placement.h"
#include "tests/op/declarations.h"

#include "tests/op/calls.h"

enum { PROBLEMS = 25, CHANGES = 120 };

/* A call, and one of its tensors with shape and strides of its own. */
struct changed {
    const struct placement *placement;
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
    DLTensor tensor;
    int64_t shape[TENSOR_MAX_DIMS + 1], stride[TENSOR_MAX_DIMS + 1];
    char what[200];
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

static void change(struct changed *c, struct random *random)
{
    const struct problem *problem = c->placement->problem;
    int arg = draw_tensor(problem, random);
    memcpy(c->args, c->placement->args, problem->op->args_bytes);
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
    op_set_tensor(c->args, &problem->op->args[arg], random_below(random, 30) ? &c->tensor : NULL);
    snprintf(c->what, sizeof c->what, "%s: %.120s", problem->op->args[arg].name, problem->text);
}

static void compare(const struct changed *c, int *accepted)
{
    const struct op *op = c->placement->problem->op;
    static struct call plain, slow;
    char sentence[2000];
    flashinfer_status first = call_check(&plain, op, c->args, NULL, false, NULL);
    snprintf(sentence, sizeof sentence, "%s", first ? flashinfer_last_error() : "");
    flashinfer_status second = call_check(&slow, op, c->args, NULL, false, cpu());
    if (first != second || (first && strcmp(sentence, flashinfer_last_error())))
        fail_msg("%s (%s): \"%s\", and without check_plain.c \"%s\"", op->name, c->what, sentence,
                 second ? flashinfer_last_error() : "");
    if (first)
        return;
    ++*accepted;
    assert_int_equal(plain.empty, slow.empty);
    assert_int_equal(plain.bound, slow.bound);
    for (int i = 0; i < plain.program->num_symbols; i++)
        if (plain.dim[i] != slow.dim[i])
            fail_msg("%s (%s): %s is %lld, without check_plain.c %lld", op->name, c->what, plain.program->symbol[i].name,
                     (long long)plain.dim[i], (long long)slow.dim[i]);
}

static void compare_op(const struct op *op)
{
    struct random random = {1};
    int accepted = 0, tried = 0;
    for (uint64_t seed = 1; seed <= PROBLEMS; seed++) {
        const struct problem_request request = {.op = op, .seed = seed};
        struct problem *problem;
        struct changed changed = {0};
        struct placement *placement;
        if (problem_create(&request, &problem))
            fail_msg("%s", flashinfer_last_error());
        if (placement_create(problem, cpu(), &placement) == FLASHINFER_OK) {
            changed.placement = placement;
            for (int i = 0; i < CHANGES; i++, tried++) {
                change(&changed, &random);
                compare(&changed, &accepted);
            }
            placement_destroy(placement);
        }
        problem_destroy(problem);
    }
    assert_in_range(accepted, tried / 20, tried - tried / 10);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_harder_declarations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
