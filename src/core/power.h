/* SPDX-License-Identifier: Apache-2.0 */
/* pow for what a model asks for again in every call: the same base and exponent. */
#ifndef CORE_POWER_H
#define CORE_POWER_H

/* pow(base, exponent), with its bits; base is above 0. Each thread remembers its last few results. */
double remembered_pow(double base, double exponent);

#endif
