/* SPDX-License-Identifier: Apache-2.0 */
#include "core/power.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SLOT_BITS = 3 };

double remembered_pow(double base, double exponent)
{
    static _Thread_local struct {
        double base, exponent, result; /* base 0: empty */
    } slots[1 << SLOT_BITS];
    uint64_t bits[2];
    memcpy(&bits[0], &base, sizeof base);
    memcpy(&bits[1], &exponent, sizeof exponent);
    unsigned slot = (unsigned)((bits[0] ^ bits[1]) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SLOT_BITS));
    if (slots[slot].base != base || slots[slot].exponent != exponent) {
        slots[slot].result = pow(base, exponent);
        slots[slot].base = base;
        slots[slot].exponent = exponent;
    }
    return slots[slot].result;
}
