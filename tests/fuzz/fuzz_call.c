/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the ops: a problem that the harness makes from an op's declaration, with anything in it changed. None may crash the
 * checker or a row's fit; one that is refused must say why and touch nothing; one that is accepted must be legal for the oracle.
 * If all it names lies in memory that the problem has, it runs, and may write its outputs only. On a GPU that is not there it
 * runs as far as its launches, which must be such as that GPU takes. */
#include <string.h>

#include "backend/bulk_copy.h"
#include "core/arch.h"
#include "jit/internal.h"
#include "op/plan.h"
#include "tests/fuzz/corrupt.h"
#include "tests/fuzz/oracle.h"

enum { PROBLEMS = 6, MOST_SEEDS = 400, MOST_BYTES = 1 << 14, MOST_BYTES_OF_LARGE = 1 << 18, MOST_CHANGES = 8, MAX_OPS = 128 };

static struct placement *placements[MAX_OPS][PROBLEMS];
static int num_ops;
static const struct device *cpu;

static size_t memory_of(const struct problem *problem)
{
    size_t bytes = 0;
    for (int i = 0; i < problem->num_memories; i++)
        bytes += problem->memory[i].bytes;
    return bytes;
}

/* Compiles and loads every kernel that serves the right call, and gives it the workspace that any of them needs. */
static void prepare(struct placement *p)
{
    struct call call;
    size_t workspace = 0;
    FUZZ_CHECK(!placement_check(p, &call), "%s", flashinfer_last_error());
    for (const struct op_kernel *row = p->problem->op->kernels; row->name; row++) {
        struct way way;
        const struct jit_module *module;
        if (call_fit(&call, row, &way))
            continue;
        for (int i = 0; i < way.num_specs; i++)
            FUZZ_CHECK(!jit_load(&way.spec[i], cpu, &module), "%s", flashinfer_last_error());
        workspace = way.workspace > workspace ? way.workspace : workspace;
    }
    FUZZ_CHECK(!placement_workspace(p, workspace), "%s", flashinfer_last_error());
}

/* To fill what is large would take most of the time. */
static bool is_small(struct problem_request request, size_t most_bytes)
{
    struct problem *problem;
    request.without_values = true;
    if (problem_create(&request, &problem))
        return false;
    bool small = problem_bytes(problem) <= (double)most_bytes;
    problem_destroy(problem);
    return small;
}

static bool does_something(const struct placement *p)
{
    struct call call;
    return !placement_check(p, &call) && !call.empty;
}

static void destroy(struct placement *p)
{
    struct problem *problem = (struct problem *)(uintptr_t)p->problem;
    placement_destroy(p);
    problem_destroy(problem);
}

/* Returns how many of the op's problems there are then. */
static int make_problems(int op, int made, size_t most_bytes, bool active)
{
    for (uint64_t seed = 0; seed < MOST_SEEDS && made < PROBLEMS; seed++) {
        struct problem_request request = {.op = op_registry[op], .seed = seed};
        struct problem *problem;
        if (!is_small(request, most_bytes) || problem_create(&request, &problem))
            continue;
        /* A plan's op may have no row for what its declaration allows. */
        if (memory_of(problem) > most_bytes || placement_create(problem, cpu, &placements[op][made])) {
            problem_destroy(problem);
            continue;
        }
        if (active && !does_something(placements[op][made])) {
            destroy(placements[op][made]);
            placements[op][made] = NULL;
            continue;
        }
        prepare(placements[op][made++]);
    }
    return made;
}

/* Ops whose smallest calls write much have some larger ones. */
static void make_all_problems(int op)
{
    int made = make_problems(op, 0, MOST_BYTES, false), active = 0;
    for (int i = 0; i < made; i++)
        active += does_something(placements[op][i]);
    for (int i = PROBLEMS / 2; active == 0 && i < made; i++) {
        destroy(placements[op][i]);
        placements[op][i] = NULL;
    }
    if (active == 0)
        make_problems(op, PROBLEMS / 2, MOST_BYTES_OF_LARGE, true);
    FUZZ_CHECK(placements[op][0], "%s has no small problem", op_registry[op]->name);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("FLASHINFER_VALIDATE_INPUTS", "1", 1);
    FUZZ_CHECK(!device_get((DLDevice){kDLCPU, 0}, &cpu), "%s", flashinfer_last_error());
    for (; op_registry[num_ops]; num_ops++) {
        FUZZ_CHECK(num_ops < MAX_OPS, "there are more than %d ops", MAX_OPS);
        make_all_problems(num_ops);
    }
    return 0;
}

static const struct op *op_of(const struct corrupt *c)
{
    return c->right->problem->op;
}

static void check_refusal(const struct op *op, flashinfer_status status)
{
    const char *why = flashinfer_last_error();
    size_t length = strlen(op->name);
    bool expected = status == FLASHINFER_INVALID || status == FLASHINFER_UNSUPPORTED || status == FLASHINFER_WORKSPACE ||
                    status == FLASHINFER_FOREIGN_PLAN || status == FLASHINFER_NO_DRIVER;
    FUZZ_CHECK(expected, "%s: %s", flashinfer_status_name(status), why);
    FUZZ_CHECK(!strncmp(why, op->name, length) && why[length] == ':' && why[length + 1] == ' ' && why[length + 2], "%s", why);
}

/* A plan that was read is the one that was written, in all that is used of it. */
static bool plan_is_intact(const struct corrupt *c)
{
    int arg = c->right->problem->program->plan_arg;
    if (arg < 0 || op_of(c)->args[arg].is_output)
        return true;
    const struct plan_blob *right = (const struct plan_blob *)&c->made, *given = (const struct plan_blob *)c->plan;
    return !memcmp(right, given, offsetof(struct plan_blob, op)) && /* the name is for sentences */
           right->checksum == given->checksum &&
           !memcmp(right->symbol, given->symbol, right->num_symbols * sizeof *right->symbol) &&
           !memcmp(right->constants, given->constants, right->constants_bytes);
}

/* Whether all tensors lie in memory of the problem. `args` is what the checker saw: a struct may say that it ends earlier. */
static bool lies_inside(const struct corrupt *c, const void *args)
{
    const struct problem *problem = c->right->problem;
    for (int i = 0; i < problem->program->num_args; i++) {
        const DLTensor *t = op_tensor(args, &op_of(c)->args[i]);
        uintptr_t low = 0, high = 0;
        if (t)
            oracle_extent(t, &low, &high);
        bool inside = low == high;
        for (int m = 0; m < problem->num_memories && !inside; m++) {
            uintptr_t base = (uintptr_t)c->right->base[m];
            inside = low >= base && high <= base + problem->memory[m].bytes;
        }
        if (!inside)
            return false;
    }
    return true;
}

static bool is_loaded(const struct call *call, const struct way *way)
{
    for (int i = 0; i < way->num_specs; i++)
        if (!jit_find(&way->spec[i], call->device))
            return false;
    return true;
}

struct written {
    const struct placement *p;
    size_t bytes;                    /* of an element */
    unsigned char *now[OP_MAX_ARGS]; /* by memory: what may stand there */
};

static void allow(void *context, uintptr_t address)
{
    struct written *written = context;
    for (int i = 0; i < written->p->problem->num_memories; i++) {
        uintptr_t at = address - (uintptr_t)written->p->base[i];
        if (at < written->p->problem->memory[i].bytes)
            memcpy(written->now[i] + at, (const void *)address, written->bytes);
    }
}

/* Compares all memory with what the problem put there, but for the elements of outputs if it ran; puts it back. */
static void check_memory(const struct corrupt *c, const void *args, bool ran)
{
    const struct problem *problem = c->right->problem;
    struct written written = {.p = c->right};
    if (problem->without_values)
        return;
    for (int i = 0; i < problem->num_memories; i++) {
        written.now[i] = malloc(problem->memory[i].bytes);
        FUZZ_CHECK(written.now[i], "out of memory");
        memcpy(written.now[i], problem->memory[i].image, problem->memory[i].bytes);
    }
    for (int i = 0; ran && i < problem->program->num_args; i++) {
        const struct op_arg *arg = &op_of(c)->args[i];
        const DLTensor *t = op_tensor(args, arg);
        written.bytes = t ? t->dtype.bits * t->dtype.lanes / 8u : 0;
        if (t && (arg->kind == OP_OUT || arg->kind == OP_INOUT))
            oracle_elements(t, INT32_MAX, allow, &written);
    }
    for (int i = 0; i < problem->num_memories; i++) {
        bool intact = !memcmp(written.now[i], c->right->base[i], problem->memory[i].bytes);
        FUZZ_CHECK(intact, "%s wrote memory %d", op_of(c)->name, i);
        memcpy(c->right->base[i], problem->memory[i].image, problem->memory[i].bytes);
        free(written.now[i]);
    }
}

static void check_workspace(const struct corrupt *c)
{
    const unsigned char *all = c->right->workspace, *given = c->exec.workspace;
    size_t bytes = c->right->exec.workspace_size + 2 * PROBLEM_GUARD;
    for (size_t i = 0; all && i < bytes; i++) {
        bool inside = given && all + i >= given && all + i < given + c->exec.workspace_size;
        FUZZ_CHECK(inside || all[i] == PROBLEM_GUARD_BYTE, "%s wrote outside of the workspace", op_of(c)->name);
    }
    if (all)
        memset(c->right->workspace, PROBLEM_GUARD_BYTE, bytes);
}

static void run(const struct corrupt *c, const void *args)
{
    flashinfer_status status = op_call(op_of(c), c->args, &c->exec);
    if (status)
        check_refusal(op_of(c), status);
    check_memory(c, args, !status);
    check_workspace(c);
}

/* In place of call_launch and tensor_map_encode, see the Makefile. */
flashinfer_status __real_call_launch(const struct call *call, const struct way *way, int i, const struct jit_launch *launch);
flashinfer_status __wrap_call_launch(const struct call *call, const struct way *way, int i, const struct jit_launch *launch);
flashinfer_status __wrap_tensor_map_encode(struct tensor_map *map, const struct tensor_map_view *view);

/* As cuLaunchKernelEx has it. A number that was cut off to 32 bits is not seen here. */
static bool is_launch(const struct device *device, const struct jit_launch *l)
{
    uint32_t cluster = 1, block = 1;
    bool divides = true;
    for (int i = 0; i < 3; i++) {
        uint32_t blocks = l->grid[i] ? l->grid[i] : 1, of_cluster = l->cluster[i] ? l->cluster[i] : 1;
        divides = divides && blocks <= (i ? 65535 : INT32_MAX) && blocks % of_cluster == 0 && of_cluster <= 8;
        cluster *= of_cluster;
        divides = divides && l->block[i] <= 1024;
        block *= l->block[i] ? l->block[i] : 1;
    }
    return divides && cluster <= (device->arch >= 90 ? 8 : 1) && block <= 1024 &&
           l->smem <= (uint32_t)device->smem_block;
}

flashinfer_status __wrap_call_launch(const struct call *call, const struct way *way, int i, const struct jit_launch *launch)
{
    unsigned sum = 0;
    if (call->device->id.device_type == kDLCPU)
        return __real_call_launch(call, way, i, launch);
    for (uint32_t at = 0; at < launch->args_size; at++)
        sum += ((const unsigned char *)launch->args)[at];
    FUZZ_CHECK(i < way->num_specs && launch->args_size <= 4096 && is_launch(call->device, launch),
               "%s: launches %s with a grid of %u %u %u in %u %u %u, %u threads, %u bytes of shared memory, of args %u (%u)",
               call->op->name, way->spec[i].kernel->name, launch->grid[0], launch->grid[1], launch->grid[2], launch->cluster[0],
               launch->cluster[1], launch->cluster[2], launch->block[0], launch->smem, launch->args_size, sum);
    return FLASHINFER_OK;
}

/* As cuTensorMapEncodeTiled has it, of the swizzle that it is always asked for. */
flashinfer_status __wrap_tensor_map_encode(struct tensor_map *map, const struct tensor_map_view *view)
{
    bool right = view->address % 16 == 0 && view->axes >= 1 && view->axes <= TENSOR_MAP_MAX_AXES;
    uint64_t bytes = view->type ? 2 : 1;
    for (int i = 0; i < view->axes; i++)
        right = right && view->size[i] >= 1 && view->size[i] <= UINT64_C(1) << 32 && view->box[i] >= 1 && view->box[i] <= 256 &&
                (i == 0 || (view->stride[i - 1] % 16 == 0 && view->stride[i - 1] < UINT64_C(1) << 40));
    FUZZ_CHECK(right && view->box[0] * bytes <= 128, "a tensor map of %d axes", view->axes);
    memset(map, 0, sizeof *map);
    return FLASHINFER_OK;
}

/* Not rows that call vendors' libraries. What runs anywhere reads its tensors. */
static void run_on_imagined(const struct corrupt *c, struct call *call, const struct op_kernel *row, const struct way *way)
{
    if (row->target == OP_ANYWHERE ? !lies_inside(c, call->args) : !way->num_specs)
        return;
    call->exec.workspace = (void *)((uintptr_t)1 << 40);
    call->exec.workspace_size = way->workspace;
    flashinfer_status status = call_run(call, row, way);
    if (status)
        check_refusal(op_of(c), status);
    check_memory(c, c->args, false);
}

static void call(struct corrupt *c, bool loosely, const struct device *imagined)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    const struct oracle oracle = {&call, c->args, &c->exec, loosely, imagined != NULL};
    flashinfer_status status = call_check(&call, op_of(c), c->args, &c->exec, loosely, imagined);
    if (status) {
        check_refusal(op_of(c), status);
        return;
    }
    const char *why = oracle_judge(&oracle);
    FUZZ_CHECK(!why, "%s: accepted, but %s", op_of(c)->name, why);
    FUZZ_CHECK(plan_is_intact(c), "%s: accepted a changed plan", op_of(c)->name);
    status = call_pick(&call, &row, &way);
    if (status)
        check_refusal(op_of(c), status);
    else if (!loosely && imagined)
        run_on_imagined(c, &call, row, &way);
    else if (!loosely && is_loaded(&call, &way) && lies_inside(c, call.args))
        run(c, call.args);
}

/* The op whose name's hash is nearest to the number: an op that is added takes few inputs from the others. */
static int pick_op(uint16_t wanted)
{
    int best = 0;
    uint16_t distance = UINT16_MAX;
    for (int i = 0; i < num_ops; i++) {
        uint32_t hash = 2166136261u;
        for (const char *c = op_registry[i]->name; *c; c++)
            hash = (hash ^ (unsigned char)*c) * 16777619u;
        uint16_t between = (uint16_t)((hash >> 16 ^ hash) ^ wanted);
        if (between <= distance)
            best = i, distance = between;
    }
    return best;
}

/* A named shape, without memory: those are what the rows of CUDA are for. NULL if the device does not serve it. */
static struct placement *place_shape(const struct op *op, int which, const struct device *device)
{
    int shapes = 0;
    struct placement *p;
    struct problem *problem;
    while (op->shapes[shapes].name)
        shapes++;
    const struct problem_request request = {.op = op, .values = op->shapes[which % shapes].values, .without_values = true};
    if (problem_create(&request, &problem))
        return NULL;
    if (!placement_create(problem, device, &p))
        return p;
    problem_destroy(problem);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct corrupt c;
    struct fuzz_input in = {data, data + size};
    struct device imagined;
    int op = pick_op((uint16_t)fuzz_bytes(&in, 2)), which = fuzz_below(&in, PROBLEMS), how = fuzz_byte(&in), archs = 0;
    if (!placements[op][which])
        return -1;
    while (arch_numbers[archs])
        archs++;
    bool elsewhere = how % 4 == 1;
    if (elsewhere)
        FUZZ_CHECK(!device_imagine(arch_numbers[how / 4 % archs], &imagined), "%s", flashinfer_last_error());
    struct placement *named = elsewhere && how & 64 ? place_shape(op_registry[op], fuzz_byte(&in), &imagined) : NULL;
    corrupt_begin(&c, named ? named : placements[op][which]);
    if (how & 128)
        corrupt_dimension(&c, elsewhere ? &imagined : NULL, &in);
    for (int i = 0; i < MOST_CHANGES && in.at < in.end; i++)
        corrupt_once(&c, &in);
    call(&c, how % 4 == 2, elsewhere ? &imagined : NULL);
    if (named)
        destroy(named);
    return 0;
}
