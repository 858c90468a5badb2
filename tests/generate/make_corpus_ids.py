#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the token ids that llama.cpp gives to corpus.txt and to the prompts of reference_logits.py.

Usage: pip install llama-cpp-python==0.3.36
       python3 tests/generate/make_corpus_ids.py MODEL.gguf

Reads corpus.txt and prompts.txt beside this script and writes corpus.ids and prompts.ids: one line of ids per
line of text. In a line, \\n, \\r, \\t, \\\\, \\uXXXX and \\UXXXXXXXX stand for the character that they
stand for in C.
"""

import pathlib
import re
import sys

from llama_cpp import Llama

HERE = pathlib.Path(__file__).parent
NAMED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescape(line):
    def character(match):
        return NAMED.get(match[1]) or chr(int(match[1][1:], 16))

    return re.sub(r"\\([nrt\\]|u[0-9a-f]{4}|U[0-9a-f]{8})", character, line)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_corpus_ids.py MODEL.gguf")
    model = Llama(sys.argv[1], vocab_only=True, verbose=False)
    for name in ("corpus", "prompts"):
        lines = (HERE / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        with open(HERE / f"{name}.ids", "w", encoding="ascii") as out:
            for line in lines:
                ids = model.tokenize(unescape(line).encode(), add_bos=False, special=True)
                print(*ids, file=out)


main()
