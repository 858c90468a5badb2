/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells letters, numbers and white space among Unicode code points; tools/make_unicode_ranges.py made the
 * table.
 */
#ifndef UNICODE_RANGES_H
#define UNICODE_RANGES_H

#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER,
    UNICODE_LETTER,                      /* general category L */
    UNICODE_NUMBER,                      /* general category N */
    UNICODE_SPACE,                       /* property White_Space */
};

enum unicode_class unicode_class_of(uint32_t code_point);

#endif
