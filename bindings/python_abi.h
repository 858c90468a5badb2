/* SPDX-License-Identifier: Apache-2.0 */
/* What bindings/python.c knows of CPython's stable ABI and of DLPack's exchange functions. tests/abi/python.sh compares it with
 * the real headers. */
#ifndef PYTHON_ABI_H
#define PYTHON_ABI_H

#include "flashinfer/dlpack.h"

enum { PYTHON_FASTCALL = 0x80 }; /* METH_FASTCALL */

struct object { /* PyObject, of builds with the interpreter's lock */
    intptr_t references;
    const void *type;
};

struct method { /* PyMethodDef */
    const char *name;
    struct object *(*call)(struct object *self, struct object *const *args, intptr_t num_args);
    int flags;
    const char *doc;
};

struct managed_tensor { /* DLManagedTensorVersioned */
    uint32_t major, minor;
    void *context;
    void (*release)(struct managed_tensor *self);
    uint64_t flags;
    DLTensor tensor;
};

struct exchange { /* DLPackExchangeAPI */
    uint32_t major, minor;
    const void *earlier;
    int (*allocate)(const DLTensor *prototype, struct managed_tensor **out, void *context,
                    void (*complain)(void *context, const char *kind, const char *message));
    void (*own)(void), (*wrap)(void); /* not called */
    int (*describe)(struct object *tensor, DLTensor *out);
    int (*stream)(int32_t device_type, int32_t device_id, void **out);
};

#endif
