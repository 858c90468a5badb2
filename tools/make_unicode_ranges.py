#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes examples/generate/unicode_ranges.c: the code points that are letters, numbers and white space.

Usage: python3 tools/make_unicode_ranges.py > examples/generate/unicode_ranges.c

The tables are those of Unicode 15.1, because the reference ids of the tokenizer test were made with them.
They come from the package unicodedata2 (pip install unicodedata2==15.1.0), whatever the version of Python.
"""

import sys

import unicodedata2

UNICODE_VERSION = "15.1.0"

HEAD = """\
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Letters, numbers and white space of Unicode {version}.
 * Made by: python3 tools/make_unicode_ranges.py > examples/generate/unicode_ranges.c
 */
#include "unicode_ranges.h"

#include <stdbool.h>
#include <stddef.h>

struct range {{
    uint32_t first, last;
}};
"""

TAIL = """
static bool contains(const struct range *ranges, size_t count, uint32_t code_point)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code_point > ranges[middle].last) {
            low = middle + 1;
        } else if (code_point < ranges[middle].first) {
            high = middle;
        } else {
            return true;
        }
    }
    return false;
}

enum unicode_class unicode_class_of(uint32_t code_point)
{
    if (contains(letters, sizeof letters / sizeof *letters, code_point)) {
        return UNICODE_LETTER;
    }
    if (contains(numbers, sizeof numbers / sizeof *numbers, code_point)) {
        return UNICODE_NUMBER;
    }
    return contains(spaces, sizeof spaces / sizeof *spaces, code_point) ? UNICODE_SPACE : UNICODE_OTHER;
}
"""

SPACE_CONTROLS = {0x9, 0xA, 0xB, 0xC, 0xD, 0x85}  # White_Space also holds these; the rest of it is category Z


def category(code_point):
    return "Z" if code_point in SPACE_CONTROLS else unicodedata2.category(chr(code_point))[0]


def ranges(wanted):
    first = None
    for code_point in range(sys.maxunicode + 2):
        inside = code_point <= sys.maxunicode and category(code_point) == wanted
        if inside and first is None:
            first = code_point
        elif not inside and first is not None:
            yield first, code_point - 1
            first = None


def print_table(name, wanted):
    print(f"\nstatic const struct range {name}[] = {{")
    line = "   "
    for first, last in ranges(wanted):
        entry = f" {{0x{first:04x}, 0x{last:04x}}},"
        if len(line) + len(entry) > 110:
            print(line)
            line = "   "
        line += entry
    print(line + "\n};")


def main():
    if unicodedata2.unidata_version != UNICODE_VERSION:
        sys.exit(f"unicodedata2 has Unicode {unicodedata2.unidata_version}, and {UNICODE_VERSION} is needed")
    print(HEAD.format(version=UNICODE_VERSION), end="")
    print_table("letters", "L")
    print_table("numbers", "N")
    print_table("spaces", "Z")
    print(TAIL, end="")


main()
