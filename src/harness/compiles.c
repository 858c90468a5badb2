/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the modules of a row, and remembers those that cannot be. */
#include "harness/compiles.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static flashinfer_status remember(struct compiles *known, const struct jit_spec *spec)
{
    if (known->count == known->room) {
        int room = known->room ? 2 * known->room : 16;
        struct jit_spec *bad = realloc(known->bad, (size_t)room * sizeof *bad);
        if (!bad)
            return fail(FLASHINFER_MEMORY, "no memory for the list of kernels");
        known->bad = bad;
        known->room = room;
    }
    memcpy(&known->bad[known->count++], spec, sizeof *spec);
    return FLASHINFER_OK;
}

static bool is_known(const struct compiles *known, const struct jit_spec *spec)
{
    for (int i = 0; i < known->count; i++)
        if (!memcmp(&known->bad[i], spec, sizeof *spec))
            return true;
    return false;
}

flashinfer_status compiles(struct compiles *known, const struct way *way, const struct device *device,
                           enum compiles_answer *answer)
{
    *answer = COMPILES;
    for (int i = 0; i < way->num_specs && *answer == COMPILES; i++) {
        const struct jit_module *module;
        if (is_known(known, &way->spec[i])) {
            *answer = COMPILES_NOT_AS_BEFORE;
            break;
        }
        flashinfer_status status = jit_load(&way->spec[i], device, &module);
        if (status == FLASHINFER_DEVICE || status == FLASHINFER_MEMORY)
            return status;
        if (status) {
            *answer = COMPILES_NOT;
            TRY(remember(known, &way->spec[i]));
        }
    }
    return FLASHINFER_OK;
}

void compiles_end(struct compiles *known)
{
    free(known->bad);
}
