/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel without a variant: no hooks, nothing that they would read. In a variant's kernel the text that
 * src/op/variant_text.c makes takes this file's place. */
#ifndef VARIANT_H
#define VARIANT_H

struct variant {
    int unused;
};

#endif
