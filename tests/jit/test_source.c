/* SPDX-License-Identifier: Apache-2.0 */
/* Embedded sources, and how a kernel's text and all it includes become one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "jit/internal.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

static const struct jit_kernel kernel = {"probe", JIT_CPU, {NULL}};

static flashinfer_status flatten(const char *source, struct text *out)
{
    struct jit_text text = {source, true};
    struct jit_spec spec = {.kernel = &kernel, .user = &text};
    *out = (struct text){0};
    return jit_flatten(&spec, out);
}

static int occurrences(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static void test_embedded(void **state)
{
    (void)state;
    size_t size;
    const char *text = jit_source("arguments.h", &size);
    assert_non_null(text);
    assert_int_equal(strlen(text), size);
    assert_non_null(strstr(text, "struct tensor {"));
    assert_non_null(jit_source("integers.h", &size));
    assert_null(jit_source("no_such.h", &size));
    assert_int_equal(size, 0);
}

static void test_include_once(void **state)
{
    (void)state;
    struct text out;
    assert_int_equal(flatten("first\n#include \"arguments.h\"\n#include \"integers.h\"\n"
                             "  #  include \"arguments.h\"\n#pragma once\nlast",
                             &out),
                     FLASHINFER_OK);
    assert_int_equal(occurrences(out.data, "struct tensor {"), 1);
    assert_int_equal(occurrences(out.data, "#ifndef INTEGERS_H"), 1);
    assert_int_equal(occurrences(out.data, "#include \""), 0);
    assert_int_equal(occurrences(out.data, "pragma"), 0);
    assert_int_equal(strncmp(out.data, "#line 1 \"probe.c\"\nfirst\n#line 1 \"src/jit/arguments.h\"\n", 52), 0);
    assert_non_null(strstr(out.data, "#line 5 \"probe.c\"\n\nlast\n"));
    text_free(&out);
}

/* A text that stands in a program's own file says so, and goes on saying so after what it includes. */
static void test_line_directive(void **state)
{
    (void)state;
    struct text out;
    assert_int_equal(flatten("#line 70 \"mine.c\"\n#include \"arguments.h\"\nlast\n", &out), FLASHINFER_OK);
    assert_non_null(strstr(out.data, "#line 70 \"mine.c\"\n#line 1 \"src/jit/arguments.h\"\n"));
    assert_non_null(strstr(out.data, "#line 71 \"mine.c\"\nlast\n"));
    text_free(&out);
    assert_int_equal(flatten("#line 70 \"mine.c\"\n\n#include \"no_such.h\"\n", &out), FLASHINFER_COMPILE);
    assert_non_null(strstr(flashinfer_last_error(), "line 71 of mine.c includes"));
    text_free(&out);
}

/* What stands inside an #if may not be seen, so it is there again where it is needed, behind a macro. */
static void test_include_in_if(void **state)
{
    (void)state;
    struct text out;
    assert_int_equal(flatten("#ifndef VEC\n#define VEC 4\n#endif\n#if VEC > 4\n#include \"integers.h\"\n#endif\n"
                             "#include \"integers.h\"\n#include \"integers.h\"\n",
                             &out),
                     FLASHINFER_OK);
    assert_int_equal(occurrences(out.data, "#ifndef INTEGERS_H"), 2);
    assert_int_equal(occurrences(out.data, "#ifndef FLATTENED_0"), 2);
    text_free(&out);
}

static void test_missing(void **state)
{
    (void)state;
    struct text out;
    assert_int_equal(flatten("\n\n#include \"mine.h\"\n", &out), FLASHINFER_COMPILE);
    assert_string_equal(flashinfer_last_error(),
                        "kernel probe: line 3 of probe.c includes \"mine.h\", which is not a source of this library");
    text_free(&out);
    struct jit_spec spec = {.kernel = &kernel};
    assert_int_equal(jit_flatten(&spec, &out), FLASHINFER_INTERNAL);
    assert_non_null(strstr(flashinfer_last_error(), "probe.c is not in this library"));
}

static void test_kept(void **state)
{
    (void)state;
    char name[] = "probe";
    struct jit_kernel same = {name, JIT_CPU, {NULL}}, other = {name, JIT_CPU, {"N", NULL}};
    const struct jit_kernel *a = jit_keep_kernel(&kernel);
    assert_non_null(a);
    assert_ptr_equal(a, jit_keep_kernel(&same));
    assert_ptr_not_equal(a, jit_keep_kernel(&other));
    assert_ptr_equal(jit_keep_text("x", true), jit_keep_text("x", true));
    assert_ptr_not_equal(jit_keep_text("x", true), jit_keep_text("x", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedded),       cmocka_unit_test(test_include_once), cmocka_unit_test(test_include_in_if),
        cmocka_unit_test(test_line_directive), cmocka_unit_test(test_missing),      cmocka_unit_test(test_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
