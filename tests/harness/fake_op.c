/* SPDX-License-Identifier: Apache-2.0 */
/* The op `fake` and its kernels, good and bad. */
#include "fake_op.h"

#include <math.h>

#include "core/status.h"

#define OP fake
DIMS(rows, n, pieces);

static const struct op_arg args[] = {
    OUT(out, LIKE(input), "... n", MAY_ALIAS(input)),
    INOUT(total, F32, "... n"),
    IN(input, F16 | F32, "... n", .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_INFINITY | SPECIAL_NAN)),
    IN(bias, F32, "n", .flags = OPTIONAL),
    NUMBER(factor, .value = 1, .min = 0.25, .max = 4),
    INT(pieces, .value = 1, .min = 1, .max = 8),
    ENUM(layout, "PLAIN FANCY"),
    {0},
};

static const char *const rules[] = {"n > 0", "n % pieces == 0", NULL};

static const char *fit(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return NULL;
}

static const char *fit_with_workspace(const struct call *call, struct way *way)
{
    (void)call;
    way->workspace = 256;
    return NULL;
}

static const char *fit_nothing(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return "it serves nothing";
}

/* Address of element i in row-major order, whatever the strides. */
static void *element(const DLTensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int axis = t->ndim - 1; axis >= 0; axis--) {
        offset += i % t->shape[axis] * tensor_stride(t, axis);
        i /= t->shape[axis];
    }
    return (char *)tensor_data(t) + offset * dtype_bytes(tensor_dtype(t));
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    enum dtype dtype = tensor_dtype(a->input);
    (void)way;
    for (int64_t i = 0; i < d->rows * d->n; i++) {
        double x = dtype_load(dtype, element(a->input, i));
        float *total = element(a->total, i);
        *total += (float)x;
        dtype_store(dtype, element(a->out, i),
                    x * a->factor + (a->bias ? *(float *)element(a->bias, i % d->n) : -0.0)); /* which changes no zero */
    }
    return FLASHINFER_OK;
}

static flashinfer_status run_wrong_element(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    enum dtype dtype = tensor_dtype(a->out);
    int64_t last = d->rows * d->n - 1;
    double value = dtype_load(dtype, element(a->out, last));
    dtype_store(dtype, element(a->out, last), value == 0 ? 0.125 : value * 1.02);
    return status;
}

/* Right but for the sign of zeros. */
static flashinfer_status run_zero_sign(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    enum dtype dtype = tensor_dtype(a->out);
    for (int64_t i = 0; i < d->rows * d->n; i++)
        if (dtype_load(dtype, element(a->out, i)) == 0)
            dtype_store(dtype, element(a->out, i), 0.0);
    return status;
}

static flashinfer_status run_outside(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    dtype_store(tensor_dtype(a->out),
                (char *)element(a->out, d->rows * d->n - 1) + dtype_bytes(tensor_dtype(a->out)), 0);
    return status;
}

/* Takes the rows for dense. */
static flashinfer_status run_between(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    bool gap =
        a->total->ndim > 1 && a->total->shape[a->total->ndim - 2] > 1 && tensor_stride(a->total, -2) > d->n;
    if (gap)
        *(float *)((char *)element(a->total, 0) + d->n * 4) = 0;
    return status;
}

static flashinfer_status run_unwritten(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    int64_t middle = d->rows * d->n / 2;
    unsigned char kept[8];
    int bytes = dtype_bytes(tensor_dtype(a->out));
    for (int i = 0; i < bytes; i++)
        kept[i] = ((unsigned char *)element(a->out, middle))[i];
    flashinfer_status status = run(call, way);
    for (int i = 0; i < bytes; i++)
        ((unsigned char *)element(a->out, middle))[i] = kept[i];
    return status;
}

static flashinfer_status run_input_changed(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    flashinfer_status status = run(call, way);
    if (a->bias)
        *(float *)element(a->bias, 0) = 0;
    return status;
}

/* The last bit depends on how often it was called. */
static flashinfer_status run_random(const struct call *call, const struct way *way)
{
    static int calls;
    const struct flashinfer_fake *a = call_args(call);
    flashinfer_status status = run(call, way);
    float *total = element(a->total, 0);
    *total = calls++ % 2 ? nextafterf(*total, 0) : *total;
    return status;
}

static flashinfer_status run_workspace_overrun(const struct call *call, const struct way *way)
{
    ((unsigned char *)call->exec.workspace)[256] = 0;
    return run(call, way);
}

static flashinfer_status run_failing(const struct call *call, const struct way *way)
{
    (void)call;
    (void)way;
    return fail(FLASHINFER_INTERNAL, "fake: it fails on purpose");
}

/* Counts elements in 16 bits. */
static flashinfer_status run_wrapping(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    enum dtype dtype = tensor_dtype(a->out);
    for (int64_t i = 65536; i < d->rows * d->n; i++)
        dtype_store(dtype, element(a->out, i), dtype_load(dtype, element(a->out, i & 65535)));
    return status;
}

/* Rows from the 2000th on are not what their inputs make them. */
static flashinfer_status run_row_number(const struct call *call, const struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    flashinfer_status status = run(call, way);
    for (int64_t i = 0; i < d->rows * d->n; i++)
        *(float *)element(a->total, i) += (float)(i / d->n >= 2000);
    return status;
}

static const char *fit_uncompiled(const struct call *call, struct way *way)
{
    static const struct jit_kernel no_such_source = {"no_such_source", JIT_CPU, {"T:dtype"}};
    const struct flashinfer_fake *a = call_args(call);
    way_spec(way, &no_such_source)[0] = tensor_dtype(a->input);
    return NULL;
}

/* Serves all, but is best at nothing. */
static const char *fit_choosy(const struct call *call, struct way *way)
{
    (void)way;
    return call->exec.kernel ? NULL : "others are better";
}

/* Serves what no named shape has and random problems seldom. */
static const char *fit_seldom(const struct call *call, struct way *way)
{
    const struct flashinfer_fake *a = call_args(call);
    const struct dims *d = call_dims(call);
    (void)way;
    return tensor_dtype(a->input) == DTYPE_F32 && d->rows > 20 ? NULL : "it is not what I serve";
}

const struct op_kernel fake_good[] = {{"good", OP_CPU, 0, 0, fit, run}, {0}};
const struct op_kernel fake_wrong_element[] = {{"wrong_element", OP_CPU, 0, 0, fit, run_wrong_element}, {0}};
const struct op_kernel fake_zero_sign[] = {{"zero_sign", OP_CPU, 0, 0, fit, run_zero_sign}, {0}};
const struct op_kernel fake_outside[] = {{"outside", OP_CPU, 0, 0, fit, run_outside}, {0}};
const struct op_kernel fake_between[] = {{"between", OP_CPU, 0, 0, fit, run_between}, {0}};
const struct op_kernel fake_unwritten[] = {{"unwritten", OP_CPU, 0, 0, fit, run_unwritten}, {0}};
const struct op_kernel fake_input_changed[] = {{"input_changed", OP_CPU, 0, 0, fit, run_input_changed}, {0}};
const struct op_kernel fake_random[] = {{"random", OP_CPU, 0, 0, fit, run_random}, {0}};
const struct op_kernel fake_workspace_overrun[] = {
    {"overrun", OP_CPU, 0, 0, fit_with_workspace, run_workspace_overrun}, {0}};
const struct op_kernel fake_failing[] = {{"failing", OP_CPU, 0, 0, fit, run_failing}, {0}};
const struct op_kernel fake_uncompiled[] = {{"uncompiled", OP_CPU, 0, 0, fit_uncompiled, run}, {0}};
const struct op_kernel fake_choosy[] = {{"choosy", OP_CPU, 0, 0, fit_choosy, run}, {0}};
const struct op_kernel fake_seldom[] = {{"good", OP_CPU, 0, 0, fit, run}, {"seldom", OP_CPU, 0, 0, fit_seldom, run}, {0}};
const struct op_kernel fake_wrapping[] = {{"wrapping", OP_CPU, 0, 0, fit, run_wrapping}, {0}};
const struct op_kernel fake_row_number[] = {{"row_number", OP_CPU, 0, 0, fit, run_row_number}, {0}};
const struct op_kernel fake_unreached[] = {
    {"good", OP_CPU, 0, 0, fit, run}, {"unreached", OP_CPU, 0, 0, fit_nothing, run}, {0}};

static void reference(const struct reference *r)
{
    const struct flashinfer_fake *a = r->args;
    const struct dims *d = call_dims(r->call);
    double *out = a->out->data, *total = a->total->data, *bound = reference_bound(r, a->total);
    const double *input = a->input->data, *bias = a->bias ? a->bias->data : NULL;
    for (int64_t i = 0; i < d->rows * d->n; i++) {
        out[i] = input[i] * a->factor + (bias ? bias[i % d->n] : -0.0);
        total[i] += input[i];
        bound[i] = fabs(total[i]) * REFERENCE_UNIT;
    }
}

static const struct op_range ranges[] = {{"rows", 0, 40, 0}, {"n", 1, 200, 0}, {"pieces", 1, 8, 0}, {0}};

static const struct op_shape shapes[] = {
    {"small", "rows=3 n=8 pieces=4"},
    {"without_bias", "rows=5 n=7 input:dtype=f32 -bias layout=FANCY factor=2"},
    {0}};

DEFINE_OP("fake", "out = input * factor + bias", .rules = rules, .kernels = fake_good, .ranges = ranges,
          .shapes = shapes, .reference = reference);
