#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the names and signatures of the public functions and classes of a flashinfer-python wheel, as JSON.

    python3 tools/upstream_signatures.py flashinfer_python-0.7.2.whl > tests/python/upstream_signatures.json

The wheel, or a folder that it was unpacked into, is parsed, never imported. Public is what the package itself exports, and what
its top modules define or export that carries its API decorator, or that its users are known to import (ALSO). For each module
path there are names: "(a, b=1, *, c=None)" is a function, an object is a class with its public methods, and
"flashinfer.norm.rmsnorm" what has that name there.
"""
import ast
import json
import pathlib
import sys
import zipfile

DECORATOR = "flashinfer_api"
# What vLLM and SGLang import although nothing marks it as public.
ALSO = {"fast_decode_plan", "get_seq_lens", "_get_range_buf", "PosEncodingMode", "MaskMode", "TensorLayout", "top_p_renorm_prob",
        "top_k_renorm_prob", "allocate_checkpointing_ssu_scratch"}
# Modules below the top ones that engines import functions from, and which.
INNER = {"flashinfer.gdn_kernels.gdn_decode_bf16_state": ("gated_delta_rule", "gated_delta_rule_mtp")}
# Tools around the kernels, and kernels of other hardware that are no ops.
NOT_OPS = {"aot", "api_logging", "autotune_cache", "cutile", "data", "experimental", "fi_trace", "green_ctx", "jit",
           "locality_domain", "moe_ep", "parallel_attention", "prims_ts", "profiler", "tactics_blocklist_gen", "testing",
           "tllm_enums", "trace", "trace_apply", "triton", "tuning_configs"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Package:
    def __init__(self, files):
        self.files = files
        self.modules = {}

    def module(self, path):
        """The top-level names of a module: name -> definition, ("from", module, name) or ("as", expression)."""
        if path not in self.modules:
            self.modules[path] = None
            for file in (path.replace(".", "/") + ".py", path.replace(".", "/") + "/__init__.py"):
                if file in self.files:
                    is_package = file.endswith("__init__.py")
                    package = path if is_package else path.rpartition(".")[0]
                    self.modules[path] = dict(names(ast.parse(self.files[file]()).body, package, self))
        return self.modules[path]

    def constant(self, path, name):
        """The expression that the module assigns to the name."""
        file = path.replace(".", "/")
        body = ast.parse(self.files[file + ".py" if file + ".py" in self.files else file + "/__init__.py"]()).body
        return next(n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name)

    def resolve(self, path, name, depth=0):
        """(module, name, node) where the name is defined."""
        entry = (self.module(path) or {}).get(name)
        if entry is None or depth > 20:
            return None
        if isinstance(entry, tuple):
            kind, module, original = entry
            if kind == "from":
                if not module.startswith("flashinfer"):
                    return None
                return self.resolve(module, original, depth + 1)
            return self.resolve(path, original, depth + 1)
        return path, name, entry


def names(body, package, modules):
    for node in body:
        if isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            if not any(ast.unparse(d).endswith("overload") for d in node.decorator_list):
                yield node.name, node
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            if node.names[0].name == "*":
                yield from ((name, ("from", module, name)) for name in modules.module(module) or {} if not name.startswith("_"))
                continue
            for alias in node.names:
                yield alias.asname or alias.name, ("from", module, alias.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "functools.partial":
                value = value.args[0]
            if isinstance(value, ast.Name):
                yield node.targets[0].id, ("as", "", value.id)
        elif isinstance(node, (ast.With, ast.If)):
            yield from names(node.body, package, modules)
        elif isinstance(node, ast.Try):
            for part in (h.body for h in node.handlers):
                yield from names(part, package, modules)
            yield from names(node.body, package, modules)


def decorated(node):
    return any(DECORATOR in ast.unparse(d) for d in node.decorator_list)


def is_public(node):
    return decorated(node) or isinstance(node, ast.ClassDef) and any(isinstance(m, FUNCTIONS) and decorated(m) for m in node.body)


def signature(function):
    arguments = function.args
    for argument in arguments.posonlyargs + arguments.args + arguments.kwonlyargs + [arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    return "(" + ast.unparse(arguments) + ")"


def spell_out(package, path, node, method):
    """A facade (*args, **kwargs) gets the parameters of the method behind it: first those that it still takes by position."""
    order = [n.id for n in ast.walk(method) if isinstance(n, ast.Name) and n.id.endswith("LEGACY_POS_ARGS")]
    if not order or not method.args.kwarg:
        return
    behind = next(m for m in node.body if getattr(m, "name", "") == "_" + method.name + "_impl").args
    defaults = dict(zip((a.arg for a in behind.kwonlyargs), behind.kw_defaults))
    by_position = ast.literal_eval(package.constant(path, order[0]))
    method.args.args += [ast.arg(name) for name in by_position]
    method.args.defaults += [defaults.pop(name) for name in by_position]
    method.args.kwonlyargs = [ast.arg(name) for name in defaults]
    method.args.kw_defaults = list(defaults.values())
    method.args.vararg = method.args.kwarg = None


def methods(package, path, node, depth=0):
    result = {}
    for base in node.bases:
        found = package.resolve(path, ast.unparse(base))
        if found and isinstance(found[2], ast.ClassDef) and depth < 5:
            result.update(methods(package, found[0], found[2], depth + 1))
    for member in node.body:
        if isinstance(member, FUNCTIONS):
            decorators = [ast.unparse(d) for d in member.decorator_list]
            spell_out(package, path, node, member)
            if "overload" in decorators or member.name.startswith("_") and member.name != "__init__":
                continue
            result[member.name] = "property" if {"property", "functools.cached_property"} & set(decorators) else signature(member)
        elif isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            name, value = member.targets[0].id, member.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "functools.partialmethod":
                value = value.args[0]
            if isinstance(value, ast.Name) and value.id in result and not name.startswith("_"):
                result[name] = result[value.id]
    return result


def collect(package, top_modules):
    result = {}
    root = {name for name in package.module("flashinfer") if not name.startswith("_")}
    exported = set()
    for name in root:
        found = package.resolve("flashinfer", name)
        if found and isinstance(found[2], FUNCTIONS + (ast.ClassDef,)):
            exported.add(found[:2])
    for path in ["flashinfer"] + ["flashinfer." + m for m in top_modules]:
        table = {}
        for name in package.module(path) or {}:
            found = package.resolve(path, name)
            if not found or not isinstance(found[2], FUNCTIONS + (ast.ClassDef,)) or name.startswith("_") and name not in ALSO:
                continue
            module, original, node = found
            if not ((module, original) in exported or is_public(node) or name in ALSO):
                continue
            is_own = module == path or module.startswith(path + ".")
            if path != "flashinfer" and not is_own and name not in ALSO and not is_shim(package, path):
                continue
            if original != name or module != path and module in top_paths(top_modules):
                table[name] = module + "." + original
            elif isinstance(node, ast.ClassDef):
                table[name] = methods(package, module, node)
            else:
                table[name] = signature(node)
        if table:
            result[path] = dict(sorted(table.items()))
    for path, functions in INNER.items():
        result[path] = {name: signature(package.resolve(path, name)[2]) for name in functions}
    return result


def is_shim(package, path):
    """A module that only gives other names to what lies elsewhere."""
    return not any(isinstance(entry, FUNCTIONS + (ast.ClassDef,)) for entry in package.module(path).values())


def top_paths(top_modules):
    return {"flashinfer." + m for m in top_modules}


def main():
    source = pathlib.Path(sys.argv[1])
    if source.is_dir():
        files = {str(f.relative_to(source)): f.read_text for f in source.glob("flashinfer/**/*.py")}
        version = next(source.glob("flashinfer_python-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    else:
        wheel = zipfile.ZipFile(source)
        names_of_files = [n for n in wheel.namelist() if n.startswith("flashinfer/") and n.endswith(".py")]
        files = {n: (lambda n=n: wheel.read(n).decode()) for n in names_of_files}
        version = source.name.split("-")[1]
    parts = [f.split("/") for f in files]
    tops = sorted({p[1].removesuffix(".py") for p in parts if len(p) == 2 or len(p) == 3 and p[2] == "__init__.py"})
    tops = [t for t in tops if not t.startswith("_") and t not in NOT_OPS]
    modules = collect(Package(files), tops)
    json.dump({"version": version.removesuffix(".dist-info"), "modules": modules}, sys.stdout, indent=1)
    print()


main()
