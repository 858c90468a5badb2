# SPDX-License-Identifier: Apache-2.0
"""What the public C headers, which the package contains, say of an op and of its arguments: the declarations know shapes and
dtypes, the comments what they mean."""

import functools
import os
import re

from ._core import FOLDER

_STRUCT = re.compile(r"(?:/\*((?:(?!\*/).)*)\*/\n)?struct flashinfer_(\w+) \{\n(.*?)\n\};", re.DOTALL)
_FIELD = re.compile(r"([^;]*);[^\S\n]*(?:/\*(.*?)\*/)?", re.DOTALL)
_DTYPE = r"(?:bf16|[efi]\d+(?:m\d)?(?:x2)?|u\d+|bool\b|boolean|any dtype|dtype of (?:the )?\w+|\w+_data_type|pairs of e2m1)"
_NUMBER = r"-?\d[\d.]*(?:e[+-]?\d+)?"
# How a comment begins that gives a shape and dtypes, which the declaration gives, too.
_KNOWN = re.compile(rf"(?:optional(?:, host)?: )?(?:\[[^]]*\])?,? ?(?:{_DTYPE}(?:,? or |, )?)*(?:; may be \w+ itself)?[,;:. ]*")


def _plain(text):
    """A comment in one line, in terms of Python."""
    return re.sub(r"\bNULL\b", "None", re.sub(r"(?:\s*\n ?\*?)+\s*", " ", text).strip())


@functools.cache
def _structs():
    """op: (what is said of it, {argument: what is said of it})"""
    found, folder = {}, os.path.join(FOLDER, "include", "flashinfer")
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for doc, op, body in _STRUCT.findall(file.read()):
                fields = {}
                for declaration, comment in _FIELD.findall(body):
                    declared = re.sub(r"/\*.*?\*/", "", declaration, flags=re.DOTALL)
                    fields.update((field, _plain(comment)) for field in re.findall(r"(\w+)(?=\s*(?:,|$))", declared))
                found[op] = _plain(doc), fields
    return found


def op_text(op):
    """What is said of an op by itself."""
    text = _structs().get(op, ("",))[0]
    return "" if text.startswith("The same") else text


def meaning(op, argument, zero="None"):
    """What is said of an argument beside its shape, dtypes, names and range; empty if nothing is. zero: what Python says for a 0
    that stands for the default."""
    text = _structs().get(op, ("", {}))[1].get(argument.name, "")
    if argument.is_tensor:
        text = "" if argument.by else text[_KNOWN.match(text).end():]
    elif argument.kind == "enum":
        text = re.sub(r"^FLASHINFER_\w+[*]?(?:, FLASHINFER_\w+)*[;:]? ?", "", text)
    elif argument.kind == "dtype":
        text = ", ".join(re.findall(r"\w+ \([^)]*\)", text))
    elif argument.is_flag:
        text = re.sub(r"\b1: ", "True: ", re.sub(r"\b0: ", "False: ", "" if text == "0 or 1" else text))
    else:
        text = re.sub(rf"^(?:(?:>=?|at least|at most) {_NUMBER}|{_NUMBER} to {_NUMBER})[:;,]? ?|, >= {_NUMBER}(?=;|$)", "", text)
        text = text if re.search(r"\b1: ", text) else re.sub(r"\b0: ", f"{zero}: ", text)
    text = text.replace("absent: ", "None: ")
    return re.sub(r"(?:^|; )None: [\d.e+-]+$", "", text) if argument.default else text


def described(op, argument, zero="None"):
    """One line of all that is known of an argument."""
    return "; ".join(filter(None, [argument.describe(), meaning(op, argument, zero)]))
