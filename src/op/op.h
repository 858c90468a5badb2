/* SPDX-License-Identifier: Apache-2.0 */
/* The declaration of an op: one table over its argument struct, walked by whatever needs the arguments (checker, CLI, tests,
 * benchmarks, bindings). See docs/adding-an-op.md for a complete op, and
 * ops/activation/silu_and_mul.c for the smallest real one.
 *
 * A declaration file defines OP, then DIMS, then the table:
 *
 *     #define OP rmsnorm
 *     DIMS(rows, hidden);
 *     static const struct op_arg args[] = {
 *         OUT(out, LIKE(input), "... hidden", MAY_ALIAS(input)),
 *         IN(input, F16 | BF16, "... hidden", .fill = NORMAL),
 *         IN(weight, LIKE(input), "hidden", .fill = NORMAL),
 *         NUMBER(eps, .value = 1e-6, .min = 0),
 *         {0},
 *     };
 *
 * Shapes are dimensions separated by spaces. A dimension is a name, which is bound where it first stands (inputs before outputs)
 * and compared afterwards, or an expression: integers, names, + - * // %, comparisons, `and`, `or`, parentheses, min(a, b),
 * max(a, b), ceil(a/b). Python reads the same text. 2*hidden and batch+1 tell hidden and batch as well as the name alone does;
 * k//2 tells k = 2 * size where nothing else tells k (packed pairs). A rule about a dimension that only absent arguments have
 * holds. `...` stands for any number of leading axes; `rows` is their product (1 if none), and all arguments with `...` have the
 * same leading axes. An input's dimension that stands in no other argument must be in DIMS, a rule, a fill or a range: else it is
 * taken for misspelt. "NHD: pages page_size | HND: ..." chooses by the ENUM argument named in `.by`.
 * Names are dimensions or INT, ENUM and FLAG arguments; a run op also sees the dimensions and integers of its plan, and one
 * that both name has the plan's value. */
#ifndef OP_OP_H
#define OP_OP_H

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/integer.h"
#include "core/tensor.h"
#include "jit/jit.h"

enum {
    OP_MAX_ARGS = 48,
    OP_MAX_DIMS = 64,        /* two more than an op may have named dimensions and integers, its plan's included */
    OP_MAX_ARGS_BYTES = 640, /* of an op's struct */
    OP_MAX_VIEW_BYTES = 512
};

enum op_kind {
    OP_END = 0,
    OP_IN,     /* const DLTensor * that is read */
    OP_OUT,    /* DLTensor * that is written, every element */
    OP_INOUT,  /* DLTensor * that is read and written, or written in part */
    OP_NUMBER, /* double (zero: default) or flashinfer_number (absent: default) */
    OP_INT,    /* int32_t or int64_t (zero: default), or flashinfer_number */
    OP_ENUM,   /* int32_t, an index into `names` */
    OP_DTYPE,  /* DLDataType (zero: default) */
    OP_TEXT,   /* const char * */
    OP_PLAN,   /* flashinfer_plan *: written by the op that `is_output` marks, else const and made by op->plan */
    OP_COMM    /* flashinfer_comm *: a group of ranks */
};

enum op_flag {
    OPTIONAL = 1, /* may be NULL */
    HOST = 2,     /* lives on the CPU wherever the call runs; does not decide the device. A number: never a tensor */
    DENSE = 4,    /* all axes contiguous; otherwise only the last one must be, in steps of one element */
    STRIDED = 8,  /* even the last axis may have any stride */
    COLUMN_MAJOR = 16, /* with STRIDED: usually the last axis but one is contiguous, and so it is in benchmarks */
    UP_TO_ZERO = 32,   /* NUMBER, INT: max 0 is the upper limit, not none */
    RARELY = 64        /* INT with a range: random problems leave it at its default as often as one without */
};

/* How tests and benchmarks fill an input. `of` names the argument or dimension that bounds it. */
enum op_fill_kind {
    FILL_NORMAL = 0, /* standard normal; integers: 0 */
    FILL_UNIFORM,    /* in [lo, hi) */
    FILL_PROBS,      /* non-negative, each row of the last axis sums to 1 */
    FILL_BELOW,      /* integers in [0, of) */
    FILL_INDPTR,     /* 0 = x[0] <= x[1] <= ... <= x[n] = of */
    FILL_PERMUTED,   /* distinct integers in [0, of), in random order: page ids */
    FILL_LENGTHS,    /* integers in [lo, of] */
    FILL_MASK        /* random bits */
};
/* What random problems strew among the values of a floating-point fill; all that the op defines should be named. */
enum op_special {
    SPECIAL_ZERO = 1, /* both signs */
    SPECIAL_SUBNORMAL = 2,
    SPECIAL_HUGE = 4, /* the largest finite numbers */
    SPECIAL_INFINITY = 8,
    SPECIAL_NAN = 16
};
struct op_fill {
    uint8_t kind, special;
    const char *of;
    double lo, hi;
};
#define NORMAL {FILL_NORMAL, 0, 0, 0, 0}
#define NORMAL_WITH(special) {FILL_NORMAL, special, 0, 0, 0}
#define NORMAL_WITH_ALL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)
#define UNIFORM(lo, hi) {FILL_UNIFORM, 0, 0, lo, hi}
#define PROBS {FILL_PROBS, 0, 0, 0, 0}
#define BELOW(dim) {FILL_BELOW, 0, dim, 0, 0}
#define INDPTR(dim) {FILL_INDPTR, 0, dim, 0, 0}
#define PERMUTED(dim) {FILL_PERMUTED, 0, dim, 0, 0}
#define LENGTHS(lo, dim) {FILL_LENGTHS, 0, dim, lo, 0}
#define MASK {FILL_MASK, 0, 0, 0, 0}

struct op_arg {
    const char *name;
    uint8_t kind;      /* enum op_kind */
    uint8_t flags;     /* enum op_flag */
    uint8_t is_output; /* OP_PLAN that this op writes */
    uint8_t repeats;   /* IN that is STRIDED: so many of its last axes usually have stride 0, and so they do in benchmarks */
    uint16_t offset, bytes; /* of the field in the op's struct */
    struct {
        uint32_t set;     /* dtypes allowed, beside that of `like` if both are given */
        const char *like; /* the argument whose dtype this one has; for OP_DTYPE: its default */
    } dtype;
    const char *shape;       /* NUMBER, INT: a tensor that stands for the number may have this shape instead of one element */
    const char *by;          /* ENUM argument that chooses among the alternatives of `shape` */
    const char *may_alias;   /* an OUT or INOUT may be the very same tensor as this input; "a b" names several */
    const char *names;       /* ENUM: "NONE ROPE_LLAMA ALIBI" */
    double value;            /* NUMBER, INT, ENUM: default; DTYPE: default, an enum dtype */
    const char *value_of;    /* INT: the INT argument before it whose value is the default */
    double min, max;         /* NUMBER, INT: inclusive range; max 0: no upper limit (op_max). Below 0 only where min says so */
    const char *required_if; /* expression over dims: a NULL OPTIONAL argument is refused where it holds */
    struct op_fill fill;
};

/* The upper limit; INFINITY if there is none. */
static inline double op_max(const struct op_arg *arg)
{
    return arg->max != 0 || arg->flags & UP_TO_ZERO ? arg->max : INFINITY;
}

#define OP_CAT_(a, b) a##b
#define OP_CAT(a, b) OP_CAT_(a, b)
#define OP_TEXT_(a) #a
#define OP_STRING(a) OP_TEXT_(a)
#define OP_STRUCT struct OP_CAT(flashinfer_, OP)
#define OP_FIELD(field) OP_STRING(field), .offset = offsetof(OP_STRUCT, field), .bytes = sizeof(((OP_STRUCT *)0)->field)

#define OP_FIRST(first, ...) first
#define OP_REST(first, ...) __VA_ARGS__

/* IN(field, dtypes, shape, ...); likewise OUT and INOUT */
#define IN(field, types, ...) {OP_FIELD(field), .kind = OP_IN, .dtype.set = types, .shape = __VA_ARGS__}
#define OUT(field, types, ...) {OP_FIELD(field), .kind = OP_OUT, .dtype.set = types, .shape = __VA_ARGS__}
#define INOUT(field, types, ...) {OP_FIELD(field), .kind = OP_INOUT, .dtype.set = types, .shape = __VA_ARGS__}
/* NUMBER(field, ...); likewise INT, FLAG and TEXT */
#define NUMBER(...) {OP_FIELD(OP_FIRST(__VA_ARGS__, 0)), OP_REST(__VA_ARGS__, .kind = OP_NUMBER)}
#define INT(...) {OP_FIELD(OP_FIRST(__VA_ARGS__, 0)), OP_REST(__VA_ARGS__, .kind = OP_INT)}
#define FLAG(...) {OP_FIELD(OP_FIRST(__VA_ARGS__, 0)), .kind = OP_INT, OP_REST(__VA_ARGS__, .max = 1)}
#define TEXT(...) {OP_FIELD(OP_FIRST(__VA_ARGS__, 0)), OP_REST(__VA_ARGS__, .kind = OP_TEXT)}
/* ENUM(field, "NAME NAME", ...) and DTYPE(field, dtypes, ...) */
#define ENUM(field, ...) {OP_FIELD(field), .kind = OP_ENUM, .names = __VA_ARGS__}
#define DTYPE(field, ...) {OP_FIELD(field), .kind = OP_DTYPE, .dtype.set = __VA_ARGS__}
#define PLAN_OUT(field) {OP_FIELD(field), .kind = OP_PLAN, .is_output = 1}
#define PLAN_IN(field) {OP_FIELD(field), .kind = OP_PLAN}
#define COMM(field) {OP_FIELD(field), .kind = OP_COMM}

/* In place of dtypes: that of another argument, or that or one of these */
#define LIKE(arg) 0, .dtype.like = #arg
#define LIKE_OR(arg, types) types, .dtype.like = #arg
#define MAY_ALIAS(arg) .may_alias = #arg

/* The dimensions that host code of this op reads, in order, as a struct over call->dim. */
#define DIMS(...)                     \
    struct dims {                     \
        int64_t __VA_ARGS__;          \
    };                                \
    static const char dims_names[] = #__VA_ARGS__

struct call;
struct program;
struct replay;
struct way;
struct problem;
struct reference;

/* A row of an op's kernel table. Rows stand in order of preference; the first that fits is taken. */
struct op_kernel {
    const char *name;
    enum op_target { OP_CPU, OP_CUDA, OP_ANYWHERE } target; /* OP_ANYWHERE: host code that touches no device (plan) */
    uint16_t arch_min, arch_max;                            /* CUDA: 80 and 0 mean sm_80 and later */
    /* Says whether this row serves the call, and fills the way: NULL, or why not. Pure; reads no tensor data. */
    const char *(*fit)(const struct call *call, struct way *way);
    /* Enqueues (CUDA) or does (CPU) it; if fit named specs, by call_launch alone, and the same whenever the call is. */
    flashinfer_status (*run)(const struct call *call, const struct way *way);
};

enum op_hook { HOOK_QUERY = 1, HOOK_KEY = 2, HOOK_LOGITS = 4, HOOK_MASK = 8, HOOK_OUTPUT = 16, HOOK_NO_SOFTMAX = 32 };

/* How a row does a call: filled by fit, used by run. */
struct way {
    struct jit_spec spec[4];
    int num_specs;
    /* The hooks of a variant that the first spec's kernel can take in, bits of enum op_hook. For a variant call_launch appends
     * the values of its arguments, struct variant, to the launch argument. */
    uint32_t hooks;
    size_t workspace;  /* bytes; 256-byte aligned pieces */
    int64_t value[16]; /* whatever fit tells run */
    _Alignas(16) unsigned char args[1024]; /* room for the launch argument, if fit has to work it out */
};

/* The launch argument in a way, as its type. */
#define WAY_ARGS(way, type) ((type *)(void *)((way)->args + 0 * sizeof(char[sizeof(type) <= sizeof(way)->args ? 1 : -1])))

/* Appends a zeroed spec for that kernel and returns its constants, to be filled in the order of kernel->constants. */
int32_t *way_spec(struct way *way, const struct jit_kernel *kernel);

struct op_range { /* a dimension or integer in random problems */
    const char *name;
    int64_t lo, hi;
    int64_t multiple; /* of this; 0: 1 */
};

struct op_shape { /* a named problem, for check, bench and the test that compiles every kernel */
    const char *name;
    const char *values; /* "rows=4096 hidden=4096 dtype=bf16": dims, INT, ENUM and DTYPE arguments, `ARG:dtype=`, `-ARG` for an
                           absent optional argument */
};

struct op {
    const char *name;
    const char *family;  /* "norm" */
    const char *summary; /* one line */
    size_t args_bytes;
    const struct op_arg *args; /* outputs first, then upstream's order; ended by {0} */
    const char *dims;          /* from DIMS */
    const char *const *rules;  /* expressions that must hold; NULL-terminated; may be NULL */
    const struct op_kernel *kernels;
    /* For ops that share kernels: sees an op's struct (of a call, or of a reference's tensors) as the one struct, of at most
     * OP_MAX_VIEW_BYTES, that the shared fit and run find at call_view. */
    void (*view)(const void *from, void *to);
    const struct op *plan; /* the op that makes this op's OP_PLAN argument */
    uint32_t hooks;                   /* that some of its kernels take in; 0: it has no variants */
    const struct op_variant *variant; /* NULL, or the hooks of this one, see variant.h */
    /* Only under FLASHINFER_VALIDATE_INPUTS, after all other checks and before the kernel, never while a stream captures:
     * reads what lies in tensors on the call's device (indptr, page ids), waits for it, and refuses what the kernel must not
     * see. */
    flashinfer_status (*validate)(const struct call *call);
    _Atomic(const struct program *) *compiled; /* the declaration, once op_program compiled it */

    /* Why this machine cannot run a row at all, whatever the call: a library that is not installed. NULL, or returns NULL: it
     * can. */
    const char *(*missing)(const struct op_kernel *row);

    /* for check and bench */
    const struct op_range *ranges; /* ended by {0} */
    const struct op_shape *shapes; /* ended by {0} */
    /* Computes every output from the inputs in float64, written independently of the kernels. See harness/reference.h. */
    void (*reference)(const struct reference *);
    /* Instead of comparing with the reference's outputs, judges what a kernel wrote: NULL, or what is wrong. */
    const char *(*verify)(const struct reference *);
    /* Only where fills cannot correlate arguments: adjusts a filled problem. */
    void (*make)(struct problem *);
    /* Bytes and floating-point operations that this call must move and do, for bench; NULL: all tensors once, no operations. */
    void (*cost)(const struct call *, double *bytes, double *operations);
};

/* DEFINE_OP(family, summary, ...): defines the op from OP, DIMS and the table `args`; further fields follow. */
#define DEFINE_OP(family_, ...)                                                                  \
    static _Atomic(const struct program *) compiled_program;                                     \
    extern const struct op OP_CAT(op_, OP);                                                      \
    const struct op OP_CAT(op_, OP) = {.name = OP_STRING(OP), .args_bytes = sizeof(OP_STRUCT),   \
                                       .args = args, .dims = dims_names,                         \
                                       .compiled = &compiled_program, .family = family_,         \
                                       .summary = __VA_ARGS__}

/* A call on its way: what check found out. Arguments are a copy with every default in place. */
struct call {
    const struct op *op;
    const struct program *program;     /* the op's declaration, compiled */
    const void *args;                  /* the op's struct */
    flashinfer_exec exec;
    const struct device *device;
    const void *plan;                  /* constants that the plan op wrote with call_write_plan; NULL if the op has no plan */
    int64_t dim[OP_MAX_DIMS];          /* in the order of op->dims, then as they appear in the declaration */
    uint64_t bound;                    /* bit i: dim[i] is known; a dimension that only absent arguments have is 0 */
    bool empty;                        /* no output has an element */
    struct replay *replay;             /* where its launches are noted, or NULL */
    _Alignas(16) unsigned char storage[OP_MAX_ARGS_BYTES];
    _Alignas(16) unsigned char view[OP_MAX_VIEW_BYTES]; /* by op->view */
};

static inline const void *call_args(const struct call *call) { return call->args; }
static inline const void *call_view(const struct call *call)
{
    return call->view;
}
static inline const void *call_dims(const struct call *call) { return call->dim; }

/* Checks args and exec, resolves defaults, binds dimensions. `loosely`: data pointers may be NULL (prepare, sizes, explain).
 * `device` overrides where the tensors say they are; NULL otherwise. */
flashinfer_status call_check(struct call *call, const struct op *op, const void *args, const flashinfer_exec *exec, bool loosely,
                             const struct device *device);

/* The first row that fits, or the one that exec.kernel names. UNSUPPORTED lists the reasons of rows
 * for that kind of device; of all, if there are none. */
flashinfer_status call_pick(const struct call *call, const struct op_kernel **row, struct way *way);

/* Whether the row is for that kind of device. */
bool call_row_is_for(const struct op_kernel *row, const struct device *device);

/* NULL if that row serves the call, else why not (target, architecture, or its fit). */
const char *call_fit(const struct call *call, const struct op_kernel *row, struct way *way);

/* Workspace check and launch by that row. */
flashinfer_status call_run(const struct call *call, const struct op_kernel *row, const struct way *way);

/* The whole path of a call: check, pick, run. */
flashinfer_status op_call(const struct op *op, const void *args, const flashinfer_exec *exec);

/* How a binding was told what to call. Two calls that it was told alike have the same args and exec. */
struct call_told {
    uint64_t hash; /* 0: calls told alike may differ */
    int (*write)(const void *context, uint64_t *words, int max); /* what tells it from all of that hash; 0: too many words */
};

/* On behalf of whom a call is made: a binding. */
struct call_for {
    /* A call that needs `bytes` of workspace and was given none has it set call->exec.workspace and workspace_size. */
    flashinfer_status (*provide)(void *context, struct call *call, size_t bytes);
    struct call_told told;
    void *context;
};

/* op_call on behalf of a binding. A call that it was told of before may be found by replay_find_told (op/replay.h) instead. */
flashinfer_status op_call_for(const struct op *op, const void *args, const flashinfer_exec *exec, const struct call_for *binding);

/* What flashinfer_prepare and flashinfer_workspace_size do. */
flashinfer_status op_prepare(const struct op *op, const void *args, const flashinfer_exec *exec);
flashinfer_status op_workspace_size(const struct op *op, const void *args, const flashinfer_exec *exec, size_t *bytes);

/* Whether its launches begin before what comes before them has ended: programmatic dependent launch. */
bool call_launches_early(const struct call *call);

/* Bytes of dynamic shared memory that keep a multiprocessor from taking more than so many blocks at a time, if a launch is early;
 * else 0. Without them few blocks would crowd on the multiprocessors that the kernel before has left already. */
uint32_t call_ballast(const struct call *call, int64_t blocks);

/* Launches way->spec[i] where the call runs. */
flashinfer_status call_launch(const struct call *call, const struct way *way, int i, const struct jit_launch *launch);

/* For plan ops: writes the plan; `constants` is any struct of at most 640 bytes, found again at call->plan by the run op.
 * workspace: the most that any row of the run op needs, see flashinfer_plan_workspace_size. */
flashinfer_status call_write_plan(const struct call *call, flashinfer_plan *plan, const void *constants, size_t bytes,
                                  size_t workspace);

/* The numbers of a flashinfer_number after defaults are in place; TENSOR kinds are for the kernel to read. */
static inline double number_value(const flashinfer_number *n) {
    return n->kind == FLASHINFER_NUMBER_INT ? (double)n->value.i : n->value.f;
}

/* All ops, in the order of ops.def; NULL-terminated. */
extern const struct op *const op_registry[];
const struct op *op_find(const char *name);

/* Checks an op's declaration itself: shapes and rules parse, names exist, limits hold, kernels can be judged. INTERNAL if not. */
flashinfer_status op_validate(const struct op *op);

/* A copy of `base` under a new name with further arguments, whose fields follow the base struct in order, 8 bytes each; outputs
 * among them stand behind the base's outputs in the table. op_extend_end frees it, when nothing uses it any more, or NULL. */
flashinfer_status op_extend(const struct op *base, const char *name, const struct op_arg *extra, int num_extra, struct op **out);
void op_extend_end(struct op *op);

#endif
