/* SPDX-License-Identifier: Apache-2.0 */
/* Children, folders and the small kernel, as the tests of just-in-time compilation have them. */
#include "tests/jit/support.c"
