/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices the options ask for. */
#include "cli/options.h"

static flashinfer_status add_archs(const int32_t *archs, struct devices *out, int *count)
{
    for (int i = 0; archs[i]; i++) {
        TRY(device_imagine(archs[i], &out->imagined[i]));
        out->device[(*count)++] = &out->imagined[i];
    }
    return FLASHINFER_OK;
}

flashinfer_status devices_wanted(const struct options *options, struct devices *out)
{
    int count = 0;
    bool imagined = options->archs[0], cpu = options->cpu || (!options->device_given && !imagined);
    if (cpu)
        TRY(device_get((DLDevice){kDLCPU, 0}, &out->device[count++]));
    if (imagined) {
        TRY(add_archs(options->archs, out, &count));
    } else if (options->cuda || !options->device_given || options->require_cuda) {
        flashinfer_status status = device_get((DLDevice){kDLCUDA, 0}, &out->device[count]);
        if (status && (options->require_cuda || (options->cuda && !options->cpu)))
            return status;
        count += !status && (options->cuda || !options->device_given);
    }
    out->device[count] = NULL;
    return FLASHINFER_OK;
}
