# SPDX-License-Identifier: Apache-2.0
"""Every public function and wrapper method against upstream's list: names, order, kinds and defaults of parameters, and where
they stand.
"""

import ast
import functools
import importlib
import inspect
import json
import pathlib
import re
import subprocess
import sys

import pytest
import torch

import flashinfer_c
from flashinfer_c import _api

UPSTREAM = json.loads((pathlib.Path(__file__).parent / "upstream_signatures.json").read_text())["modules"]
# What upstream has outside of its list of public functions, and users import all the same.
UNLISTED = {"sparse.convert_bsr_mask_layout"}
# Modules that hold other implementations of functions that stand elsewhere, and modules that engines look for to learn of further
# kernels than the one or two that we have of each: their presence would promise too much.
APART = ("flashinfer.cake_sampling", "flashinfer.cute_dsl", "flashinfer.dsv3_ops")


def entry(module, name):
    """Upstream's, in the module, in those around it, or at the root."""
    path = "flashinfer." + module
    while name not in UPSTREAM.get(path, {}) and path != "flashinfer":
        path = path.rpartition(".")[0]
    found = UPSTREAM[path].get(name)
    while isinstance(found, str) and found.startswith("flashinfer."):
        module, _, name = found.rpartition(".")
        found = UPSTREAM[module][name]
    return found


def default(text):
    """What a default of upstream's source means here."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return eval(text, {"torch": torch, "SfLayout": flashinfer_c.SfLayout, "_UNSET": None})  # _UNSET: not given


def theirs(text):
    """[(name, whether by keyword alone, default)] of "(a, b=1, *, c=None)"."""
    arguments = ast.parse(f"def f{text}: pass").body[0].args
    positional = arguments.posonlyargs + arguments.args
    defaults = [inspect.Parameter.empty] * (len(positional) - len(arguments.defaults))
    defaults += [default(ast.unparse(d)) for d in arguments.defaults]
    parameters = [(a.arg, False, d) for a, d in zip(positional, defaults)]
    if arguments.vararg:
        parameters.append(("*" + arguments.vararg.arg, False, inspect.Parameter.empty))
    for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults):
        parameters.append((a.arg, True, inspect.Parameter.empty if d is None else default(ast.unparse(d))))
    return parameters


def ours(function):
    if isinstance(function, (functools.partial, functools.partialmethod)):
        function = function.func
    parameters = []
    for p in inspect.signature(function).parameters.values():
        star = "*" if p.kind == inspect.Parameter.VAR_POSITIONAL else "**" if p.kind == inspect.Parameter.VAR_KEYWORD else ""
        parameters.append((star + p.name, p.kind == inspect.Parameter.KEYWORD_ONLY, p.default))
    return parameters


def compare(function, text, where):
    expected, found = theirs(text), ours(function)
    for i, (parameter, by_keyword, value) in enumerate(found[:len(expected)]):
        if isinstance(expected[i][2], torch.dtype) and value == str(expected[i][2]).removeprefix("torch."):
            found[i] = parameter, by_keyword, expected[i][2]  # a dtype may be given by name
    same = found[:len(expected)]
    further = found[len(expected):]
    assert same == expected, f"{where}: {inspect.signature(function)}, upstream has {text}"
    assert all(by_keyword for _, by_keyword, _ in further), f"{where}: {further} are not upstream's and not by keyword alone"


def public_names():
    for path in sorted(_api.PUBLIC):
        module, _, name = path.rpartition(".")
        yield pytest.param(module, name, id=path)
    yield pytest.param("prefill", "single_prefill_with_kv_cache_return_lse", id="prefill.single_prefill_with_kv_cache_return_lse")


@pytest.mark.parametrize("module, name", list(public_names()))
def test_signature(module, name):
    thing = getattr(importlib.import_module("flashinfer_c." + module), name)
    expected = entry(module, name)
    if expected is None:
        assert f"{module}.{name}" in UNLISTED, f"upstream has no {module}.{name}"
        return
    if isinstance(expected, str):
        compare(thing, expected, name)
        return
    for method, text in expected.items():
        member = inspect.getattr_static(thing, method)
        if text == "property":
            assert isinstance(member, property), f"{name}.{method} is a property of upstream"
        else:
            compare(member, text, f"{name}.{method}")


@pytest.mark.parametrize("module", sorted(UPSTREAM.keys() - {"flashinfer", *APART}))
def test_names_stand_where_upstream_has_them(module):
    """A name that upstream's root or module has stands in ours, if we have it anywhere; what we lack raises ImportError."""
    names = {path.rpartition(".")[2] for path in _api.PUBLIC}
    for name in UPSTREAM["flashinfer"]:
        assert hasattr(flashinfer_c, name) or name not in names, f"{name} is missing at the root"
    try:
        ours = importlib.import_module("flashinfer_c" + module.removeprefix("flashinfer"))
    except ModuleNotFoundError:
        served = [name for name in UPSTREAM[module] if name in names]
        assert not served, f"there is no module {module} with {served}"
        return
    for name in UPSTREAM[module]:
        assert hasattr(ours, name) or name not in names, f"{name} is missing in {module}"


def test_every_op_is_public():
    from flashinfer_c import _core

    reached = {op for ops in _api.PUBLIC.values() for op in ops}
    assert reached <= set(_core.op_names)
    missing = sorted(set(_core.op_names) - reached)
    assert not missing, f"no public function runs {missing}: docs/adding-an-op.md"


def test_coverage_table_is_up_to_date():
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    table = subprocess.run([sys.executable, root / "tools/upstream_coverage.py"], capture_output=True, text=True,
                           check=True).stdout
    assert table == (root / "docs/coverage.md").read_text(), "run tools/upstream_coverage.py > docs/coverage.md"
    every, whole, partly = re.search(r"(\d+) public\s+functions and classes, of which (\d+) run here, (\d+) run but",
                                     table).groups()
    counted = f"{every} public Python functions and classes {int(whole) + int(partly)} are here, {partly} of them in part"
    assert counted in " ".join((root / "README.md").read_text().split()), f"README.md does not say: {counted}"
