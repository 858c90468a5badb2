/* SPDX-License-Identifier: Apache-2.0 */
/* A problem: arguments for one call of an op, made from its declaration alone: dimensions, dtypes, which
 * optional arguments there are, what every tensor holds and how it lies in memory. It lies on the host;
 * placement.h puts it where a call can run.
 *
 *     problem.c           a problem as a whole; its description in one line
 *     problem_choose.c    dimensions, dtypes, numbers: given, drawn from ranges, or defaults
 *     problem_solve.c     draws that keep (or break) the op's rules
 *     problem_fill.c      what tensors hold
 *     problem_layout.c    how tensors lie in memory
 *
 * An op's make() sees a filled problem before it is laid out; the functions for it stand last. */
#ifndef HARNESS_PROBLEM_H
#define HARNESS_PROBLEM_H

#include "harness/random.h"
#include "op/program.h"

enum { PROBLEM_GUARD = 512, PROBLEM_GUARD_BYTE = 0xff, PROBLEM_MAX_TEXT = 640 };

/* A tensor argument, or a number that stands in a tensor. */
struct problem_tensor {
    bool present; /* passed; else the argument is NULL, or a plain number */
    bool written; /* OUT or INOUT */
    bool host;    /* lies on the CPU wherever the call runs */
    bool single;  /* a number: one element, whatever its declared shape */
    enum dtype dtype;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS], elements;
    unsigned char *values; /* dense: what it holds before a call. OUT: NULL */
    int alias;             /* OUT: the argument whose very tensor it is, -1 */
    int memory;            /* into problem->memory */
    int64_t offset;        /* of the first element in that memory, in bytes */
    int64_t stride[TENSOR_MAX_DIMS];
    bool use_byte_offset, omit_strides; /* ways to say the same in a DLTensor */
};

/* One allocation: guard band, tensors with gaps between their elements, guard band. */
struct problem_memory {
    bool host;
    size_t bytes;
    unsigned char *image; /* what it holds before a call */
};

struct problem {
    const struct op *op;
    const struct program *program;
    struct problem *plan; /* of op->plan; NULL */
    uint64_t seed;
    bool plain, without_values, row_major;
    struct random random;
    double oddity;              /* how likely each thing is drawn other than its default */
    int64_t dim[OP_MAX_DIMS];   /* by symbol */
    uint64_t fixed;             /* symbols that were given */
    double number[OP_MAX_ARGS]; /* NUMBER */
    uint64_t given;             /* arguments that are not left at their default */
    struct problem_tensor tensor[OP_MAX_ARGS];
    int num_leading;
    int64_t leading[TENSOR_MAX_DIMS];
    int num_memories;
    struct problem_memory memory[OP_MAX_ARGS];
    char text[PROBLEM_MAX_TEXT]; /* "rows=4 hidden=64 dtype=bf16", for people */
};

struct problem_request {
    const struct op *op;
    const char *values; /* "rows=4 hidden=64 dtype=bf16 -bias", as in op->shapes; NULL: nothing is given */
    const char *instead; /* the same, in place of some of `values`; or NULL */
    uint64_t seed; /* what is not given is drawn; 0: defaults, equal lengths, dense and aligned tensors */
    bool plain; /* with a seed: only lengths, places and contents are drawn; arguments are as without one */
    bool without_values;     /* tensors hold nothing and have no memory: to check, explain or compile only */
    bool row_major;          /* also what is usually column-major, or repeats along axes */
    bool complete;           /* every optional tensor is there */
    int broken_rule;         /* 1 + i: rule i is broken and all others hold; implies complete */
    const struct op *runner; /* the op that runs this plan, whose names may stand in both; NULL */
};

/* INVALID if a value names nothing or cannot be; UNSUPPORTED if no draw keeps all rules (or breaks that one
 * only). */
flashinfer_status problem_create(const struct problem_request *request, struct problem **out);
void problem_destroy(struct problem *problem);

/* The n-th seed of problems whose tensors begin, and whose rows step, at multiples of 16 elements. */
uint64_t problem_aligned_seed(int n);

/* Bytes of all tensors, without gaps. */
double problem_bytes(const struct problem *problem);

/* The dtypes that an argument may have, as a set, those of the others being what they are. */
uint32_t problem_legal_dtypes(const struct problem *problem, int arg);

/* What an argument is whose dtype the declaration leaves open; DTYPE_NONE: it is absent, or not such a one. */
enum dtype problem_open_dtype(const struct problem *problem, int arg);

/* The dtypes that the declaration leaves open, "bf16" or "bf16 i64": what coverage is counted by. */
void problem_dtypes(const struct problem *problem, char *buffer, size_t size);

/* Writes `byte` into every element of the outputs, in the images. Outputs that are their own input keep that.
 */
flashinfer_status problem_poison(struct problem *problem, unsigned char byte);

/* Copies between a dense array and the elements of a tensor in an image of its memory. */
void problem_scatter(const struct problem_tensor *tensor, unsigned char *image, const unsigned char *dense);
void problem_gather(const struct problem_tensor *tensor, const unsigned char *image, unsigned char *dense);

/* The steps of problem_create. */
flashinfer_status problem_choose(struct problem *problem, const struct problem_request *request);
flashinfer_status problem_solve(struct problem *problem, int broken_rule);
bool problem_shapes(struct problem *problem); /* false if a shape is impossible */
flashinfer_status problem_fill(struct problem *problem);
flashinfer_status problem_lay_out(struct problem *problem);

/* For make(). Names are those of the op, else of its plan. -1 and NULL if there is none. */
int64_t problem_dim(const struct problem *problem, const char *name);
struct problem_tensor *problem_tensor(struct problem *problem, const char *name);
double problem_get(const struct problem_tensor *tensor, int64_t index);
void problem_set(struct problem_tensor *tensor, int64_t index, double value);
uint64_t problem_random(struct problem *problem, uint64_t below);

/* 0 = x[0] <= x[1] <= ... <= x[n] = total: equal shares without a seed; else of any size, some of them empty. */
flashinfer_status problem_fill_indptr(struct problem *problem, struct problem_tensor *t, int64_t total);

/* For ops that write new tokens into a paged cache: fills batch_indices and positions from kv_indices and kv_indptr, and the
 * dimensions nnz, batch, pages and page_size. Tokens go to the requests in equal runs, each run to the last slots of its
 * request. A token whose slot is taken or missing, and in random problems one of eight, has no request. */
void problem_give_slots(struct problem *problem);

#endif
