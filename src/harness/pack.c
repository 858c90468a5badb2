/* SPDX-License-Identifier: Apache-2.0 */
/* From the declarations of the ops to the list of a pack's kernels. */
#include "harness/pack.h"

#include <stdlib.h>

#include "harness/specs.h"

struct gathering {
    struct spec_list *list;
    const struct device *cpu;
    const struct op *op;
    flashinfer_status status;
};

static void found(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec)
{
    const struct gathering *g = context;
    if (spec->kernel->target == JIT_CPU)
        spec_list_add(g->list,
                      &(struct spec_item){.spec = *spec, .device = g->cpu, .op = g->op->name, .row = row->name, .shape = shape});
}

static void refused(void *context, const char *shape, const char *sentence)
{
    struct gathering *g = context;
    (void)shape;
    g->status = fail(FLASHINFER_INTERNAL, "%s", sentence);
}

static flashinfer_status add_named_shapes(struct spec_list *list)
{
    struct gathering g = {.list = list};
    TRY(device_get((DLDevice){kDLCPU, 0}, &g.cpu));
    for (const struct op *const *op = op_registry; *op && !g.status; op++) {
        g.op = *op;
        specs_walk(&(struct specs_walk){
            .op = *op, .device = g.cpu, .own_dtypes = true, .context = &g, .found = found, .failed = refused});
    }
    return g.status ? g.status : list->failed ? fail(FLASHINFER_MEMORY, "no memory for the list of kernels") : FLASHINFER_OK;
}

flashinfer_status pack_build(struct spec_list *list, const char *level, int threads, const char *path, int *count)
{
    TRY(add_named_shapes(list));
    *count = list->count;
    struct jit_spec *specs = calloc((size_t)list->count + 1, sizeof *specs);
    if (!specs)
        return fail(FLASHINFER_MEMORY, "no memory for the list of kernels");
    for (int i = 0; i < list->count; i++)
        specs[i] = list->items[i].spec;
    flashinfer_status status = jit_pack_build(specs, count, level, threads, path);
    free(specs);
    return status;
}
