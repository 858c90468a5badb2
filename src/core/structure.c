/* SPDX-License-Identifier: Apache-2.0 */
#include "core/structure.h"

#include <string.h>

flashinfer_status structure_read(void *out, size_t size, const void *in, const char *what)
{
    size_t given;
    memset(out, 0, size);
    if (!in)
        return fail(FLASHINFER_INVALID, "%s is NULL", what);
    memcpy(&given, in, sizeof given);
    if (given < sizeof given)
        return fail(FLASHINFER_INVALID, "%s: size is %zu, must be the size of the structure", what, given);
    for (size_t i = size; i < given; i++)
        if (((const char *)in)[i])
            return fail(FLASHINFER_UNSUPPORTED, "%s has a field, at byte %zu, that this library (" FLASHINFER_VERSION
                        ") does not know", what, i);
    memcpy(out, in, given < size ? given : size);
    return FLASHINFER_OK;
}
