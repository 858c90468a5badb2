/* SPDX-License-Identifier: Apache-2.0 */
/* The children and folders of the tests of just-in-time compilation serve here, too. */
#include "tests/jit/support.c"
