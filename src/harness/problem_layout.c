/* SPDX-License-Identifier: Apache-2.0 */
/* How the tensors of a problem lie in memory. Without a seed each is dense in an aligned allocation of its
 * own. With one, some are slices of a larger dense buffer (padded rows, strided), some share such a buffer
 * with their neighbour (K and V of one cache), and some start elsewhere: at odd addresses, or in problems of
 * every other four seeds in whole steps of 16 bytes or more, for kernels that want all tensors aligned.
 * Whatever is not an element is guard. */
#include <stdlib.h>
#include <string.h>

#include "harness/problem.h"

enum { MAX_PADDING = 9, ALIGNED_PADDING = 16 /* elements */ };

/* Strides of the slice [..., 0:shape] of a dense buffer with `extra` more elements per axis and room for
 * `copies` at axis `at`. */
static int64_t slice(struct problem_tensor *t, const int64_t *extra, int at, int64_t copies, int64_t *step)
{
    int64_t stride = 1;
    for (int axis = t->ndim - 1; axis >= 0; axis--) {
        t->stride[axis] = stride;
        stride *= t->shape[axis] + extra[axis];
        if (axis == at) {
            *step = stride;
            stride *= copies;
        }
    }
    return stride;
}

/* The last two axes. */
static void exchange(int64_t *axis, int ndim)
{
    int64_t last = axis[ndim - 1];
    axis[ndim - 1] = axis[ndim - 2];
    axis[ndim - 2] = last;
}

static void place(struct problem *problem, struct problem_tensor *t, int memory, int64_t offset)
{
    t->memory = memory;
    t->offset = PROBLEM_GUARD + offset * dtype_bytes(t->dtype);
    if (problem->seed) {
        t->use_byte_offset = random_chance(&problem->random, 0.2);
        t->omit_strides = random_chance(&problem->random, 0.5);
    }
}

static int add_memory(struct problem *problem, const struct problem_tensor *t, int64_t elements)
{
    problem->memory[problem->num_memories] = (struct problem_memory){
        .host = t->host, .bytes = (size_t)(elements * dtype_bytes(t->dtype)) + 2 * PROBLEM_GUARD};
    return problem->num_memories++;
}

static bool same_form(const struct problem_tensor *a, const struct problem_tensor *b)
{
    return b->present && b->alias < 0 && a->dtype == b->dtype && a->host == b->host && a->ndim == b->ndim &&
           !memcmp(a->shape, b->shape, sizeof a->shape[0] * (size_t)a->ndim);
}

/* The last axes repeat one value. Returns how many there are. */
static int repeat(struct problem *problem, struct problem_tensor *t, int repeats)
{
    if (problem->seed && random_chance(&problem->random, 0.5))
        return 0;
    int bytes = dtype_bytes(t->dtype);
    int64_t run = 1;
    for (int axis = t->ndim - repeats; axis < t->ndim; axis++)
        run *= t->shape[axis];
    for (int64_t i = 0; t->values && i < t->elements; i++)
        memmove(t->values + i * bytes, t->values + (i - i % run) * bytes, (size_t)bytes);
    return repeats;
}

static bool is_aligned(uint64_t seed) { return seed / 4 % 2; }

uint64_t problem_aligned_seed(int n) { return (uint64_t)(n / 4 * 8 + 4 + n % 4); }

/* Elements that a tensor, or a row, begins later by. */
static int64_t padding(struct problem *problem, int64_t least, int64_t most)
{
    int64_t elements = random_between(&problem->random, least, most);
    return is_aligned(problem->seed) ? ALIGNED_PADDING : elements;
}

/* Lays out tensor i, and its neighbour too if they share a buffer. Returns how many were laid out. */
static int lay_out_one(struct problem *problem, int i)
{
    struct problem_tensor *t = &problem->tensor[i], *next = i + 1 < problem->program->num_args ? t + 1 : NULL;
    int flags = problem->op->args[i].flags;
    bool odd = problem->seed && t->elements > 0,
         dense = (flags & DENSE) || !op_is_tensor(&problem->op->args[i]);
    int64_t extra[TENSOR_MAX_DIMS] = {0}, step = 0, shift = 0;
    int repeats = problem->row_major || !t->elements ? 0 : problem->op->args[i].repeats;
    if (repeats)
        repeats = repeat(problem, t, repeats);

    if (odd && random_chance(&problem->random, 0.25))
        shift = padding(problem, 1, 8);
    if (odd && !dense && !repeats && next && !problem->op->args[i + 1].repeats && t->ndim > 1 && same_form(t, next) &&
        !((problem->op->args[i + 1].flags & DENSE)) && random_chance(&problem->random, 0.3)) {
        int at = (int)random_below(&problem->random, (uint64_t)t->ndim);
        int64_t elements = slice(t, extra, at, 2, &step);
        memcpy(next->stride, t->stride, sizeof t->stride);
        int memory = add_memory(problem, t, elements + shift);
        place(problem, t, memory, shift);
        place(problem, next, memory, shift + step);
        return 2;
    }
    int last = flags & STRIDED ? t->ndim : t->ndim - 1;
    int64_t unit =
        odd && !dense && flags & STRIDED && t->ndim && random_chance(&problem->random, 0.3) ? 2 : 1;
    for (int axis = 1; odd && !dense && axis < t->ndim; axis++)
        if (axis <= last && random_chance(&problem->random, 0.3))
            extra[axis] = random_below(&problem->random, 2) ? padding(problem, 8, 8) : padding(problem, 1, MAX_PADDING);
    bool column_major = flags & COLUMN_MAJOR && !problem->row_major && t->ndim > 1 &&
                        !(odd && random_chance(&problem->random, 0.3));
    if (column_major)
        exchange(t->shape, t->ndim);
    int64_t whole[TENSOR_MAX_DIMS];
    memcpy(whole, t->shape, sizeof whole);
    for (int axis = t->ndim - repeats; axis < t->ndim; axis++)
        t->shape[axis] = 1;
    int64_t elements = slice(t, extra, -1, 1, &step);
    memcpy(t->shape, whole, sizeof whole);
    if (column_major) {
        exchange(t->shape, t->ndim);
        exchange(t->stride, t->ndim);
    }
    for (int axis = 0; axis < t->ndim; axis++)
        t->stride[axis] *= axis < t->ndim - repeats ? unit : 0;
    place(problem, t, add_memory(problem, t, elements * unit + shift), shift);
    return 1;
}

static bool laid_out(const struct problem_tensor *t)
{
    return t->present && t->alias < 0;
}

/* Calls copy for each run of elements that lie one after the other, in row-major order. */
static void walk(const struct problem_tensor *t, unsigned char *image, unsigned char *dense, bool to_image)
{
    int bytes = dtype_bytes(t->dtype), inner = t->ndim - 1;
    int64_t run = t->ndim && t->stride[inner] == 1 ? t->shape[inner] : 1, index[TENSOR_MAX_DIMS] = {0};
    int axes = run == 1 ? t->ndim : inner;
    for (int64_t done = 0; done < t->elements; done += run, dense += run * bytes) {
        int64_t offset = t->offset;
        for (int axis = 0; axis < axes; axis++)
            offset += index[axis] * t->stride[axis] * bytes;
        if (to_image)
            memcpy(image + offset, dense, (size_t)(run * bytes));
        else
            memcpy(dense, image + offset, (size_t)(run * bytes));
        for (int axis = axes - 1; axis >= 0 && ++index[axis] == t->shape[axis]; axis--)
            index[axis] = 0;
    }
}

void problem_scatter(const struct problem_tensor *tensor, unsigned char *image, const unsigned char *dense)
{
    walk(tensor, image, (unsigned char *)(uintptr_t)dense, true);
}

void problem_gather(const struct problem_tensor *tensor, const unsigned char *image, unsigned char *dense)
{
    walk(tensor, (unsigned char *)(uintptr_t)image, dense, false);
}

flashinfer_status problem_poison(struct problem *problem, unsigned char byte)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (problem->op->args[i].kind != OP_OUT || !laid_out(t))
            continue;
        size_t bytes = (size_t)(t->elements * dtype_bytes(t->dtype));
        unsigned char *poison = malloc(bytes + 1);
        if (!poison)
            return fail(FLASHINFER_MEMORY, "%s: no memory for %s and its %lld elements", problem->op->name,
                        problem->op->args[i].name, (long long)t->elements);
        memset(poison, byte, bytes);
        problem_scatter(t, problem->memory[t->memory].image, poison);
        free(poison);
    }
    return FLASHINFER_OK;
}

static flashinfer_status make_images(struct problem *problem)
{
    for (int i = 0; i < problem->num_memories; i++) {
        struct problem_memory *m = &problem->memory[i];
        m->image = malloc(m->bytes);
        if (!m->image)
            return fail(FLASHINFER_MEMORY, "%s: no memory for %zu bytes of arguments", problem->op->name,
                        m->bytes);
        memset(m->image, PROBLEM_GUARD_BYTE, m->bytes);
    }
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (laid_out(t) && t->values)
            problem_scatter(t, problem->memory[t->memory].image, t->values);
    }
    return FLASHINFER_OK;
}

flashinfer_status problem_lay_out(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args;)
        i += laid_out(&problem->tensor[i]) ? lay_out_one(problem, i) : 1;
    for (int i = 0; i < problem->program->num_args; i++) {
        struct problem_tensor *t = &problem->tensor[i];
        if (!t->present || t->alias < 0)
            continue;
        const struct problem_tensor *source = &problem->tensor[t->alias];
        t->memory = source->memory;
        t->offset = source->offset;
        t->use_byte_offset = source->use_byte_offset;
        t->omit_strides = source->omit_strides;
        memcpy(t->stride, source->stride, sizeof t->stride);
        if (t->values)
            memcpy(t->values, source->values, (size_t)t->elements * (size_t)dtype_bytes(t->dtype));
    }
    return problem->without_values ? FLASHINFER_OK : make_images(problem);
}
