# SPDX-License-Identifier: Apache-2.0
"""Every op of the library under its own name, as it is declared: ops.rmsnorm(input=x, weight=w).

All arguments are given by name; outputs that are absent are allocated. help(ops.rmsnorm) tells them."""

import functools
import inspect
import textwrap

from . import _core
from ._headers import described, op_text


def __dir__():
    return list(_core.op_names)


@functools.cache
def __getattr__(name):
    declared = _core.op(name)

    def function(**arguments):
        return _core.call(name, **arguments)

    function.__name__ = function.__qualname__ = name
    lines = [f"    {a.name}: {described(name, a)}" for a in declared.arguments]
    more = textwrap.fill(op_text(name), 120)
    function.__doc__ = "\n".join([declared.summary + ".", "", *([more, ""] if more else []), "Arguments:", *lines, "",
                                  "flags, workspace, kernel, threads and device: see flashinfer_c._core.call."])
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [p for p in inspect.signature(_core.call).parameters.values() if p.kind == keyword]
    required = [a.is_tensor and a.kind != "out" and not a.optional for a in declared.arguments]
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(a.name, keyword, default=inspect.Parameter.empty if needed else None)
         for a, needed in zip(declared.arguments, required)] + options)
    return function
