# SPDX-License-Identifier: Apache-2.0
"""An op and its arguments as the library declares them (flashinfer_describe), and the names of dtypes."""

import ast
import functools
import math
import re

# The library's name, and that of torch, NumPy and JAX.
DTYPES = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2",
    "e8m0": "float8_e8m0fnu", "e2m1x2": "float4_e2m1fn_x2", "u8": "uint8", "i8": "int8", "u32": "uint32", "i32": "int32",
    "u64": "uint64", "i64": "int64", "boolean": "bool",
}
_SHORT = {long: short for short, long in DTYPES.items()}
_SHORT["half"] = "f16"


def dtype_name(dtype):
    """'float16' of torch.float16, numpy.float16, 'float16' and 'f16'."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    name = name.removeprefix("torch.")
    name = DTYPES.get(_SHORT.get(name, name), name)
    if name not in _SHORT:
        raise ValueError(f"{dtype!r} is no dtype that this library knows")
    return name


def short_dtype(dtype):
    """'f16' of torch.float16, numpy.float16, 'float16' and 'f16': what DTYPE arguments take. None stays None."""
    return None if dtype is None else _SHORT[dtype_name(dtype)]


def _split(shape):
    """The dimensions of one alternative: separated by spaces that no parentheses enclose."""
    words, depth = [""], 0
    for letter in shape:
        depth += (letter == "(") - (letter == ")")
        if letter == " " and not depth:
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]


class _Dimension:
    """An expression over dimensions: Python's grammar, with a / b inside ceil() meant exactly."""

    __slots__ = ("text", "code", "solve")

    def __init__(self, text):
        self.text = text
        tree = ast.parse(text, mode="eval").body
        self.code = compile(ast.Expression(tree), text, "eval")
        # How a known size tells the one name in it: name, 2*name, name+1, name//2.
        self.solve = None
        match tree:
            case ast.Name(id=name):
                self.solve = name, lambda size: size
            case ast.BinOp(left=ast.Constant(value=factor), op=ast.Mult(), right=ast.Name(id=name)):
                self.solve = name, lambda size: size // factor
            case ast.BinOp(left=ast.Name(id=name), op=ast.Add(), right=ast.Constant(value=more)):
                self.solve = name, lambda size: size - more
            case ast.BinOp(left=ast.Name(id=name), op=ast.FloorDiv(), right=ast.Constant(value=divisor)):
                self.solve = name, lambda size: size * divisor

    def size(self, names):
        return int(eval(self.code, {"__builtins__": {}, "ceil": math.ceil, "min": min, "max": max}, names))


class Argument:
    """One argument as the library declares it."""

    def __init__(self, fields, index):
        self.index = index
        self.name = fields["name"]
        self.kind = fields["kind"]
        self.optional = fields["optional"]
        self.host = fields.get("host", False)
        self.shape = fields.get("shape")
        self.by = fields.get("by")
        self.dtypes = [DTYPES[name] for name in fields.get("dtypes", ())]
        self.dtype_of = fields.get("dtype_of")
        self.names = fields.get("names", "").split()
        self.default = fields.get("default", math.inf if self.kind == "number" else None)
        self.default_of = fields.get("default_of")
        self.min, self.max = fields.get("min", -math.inf), fields.get("max")
        self.may_be_tensor = fields.get("may_be_tensor", False)
        self.may_alias = fields.get("may_alias")
        self.required_if = fields.get("required_if")
        self.is_tensor = self.kind in ("in", "out", "inout")
        self.is_flag = self.kind == "int" and (self.min, self.max) == (0, 1)
        self.is_written = self.kind in ("out", "inout") or fields.get("written", False)

    @functools.cached_property
    def alternatives(self):
        """The dimensions of each alternative of the shape; the first may be '...'."""
        shape = self.shape if self.by else f": {self.shape}"
        return [["..." if d == "..." else _Dimension(d) for d in _split(text.partition(":")[2])] for text in shape.split("|")]

    def dimensions(self, values):
        """Those that hold with these arguments."""
        return self.alternatives[values[self.by] if self.by else 0]

    def may_have_rank(self, rank):
        """Whether arrays with so many axes can be of one of the alternatives."""
        return any(rank >= len(d) - 1 if d[:1] == ["..."] else rank == len(d) for d in self.alternatives)

    def describe_shape(self):
        """'[..., hidden]'"""
        shapes = [re.sub(r"\s+", " ", text).strip() for text in self.shape.split("|")]
        return "; ".join(_bracketed(text, bool(self.by)) for text in shapes)

    def describe(self):
        """One line for people: '[..., hidden] float16, bfloat16 or float32'."""
        words = []
        if self.is_tensor:
            words.append(self.describe_shape())
            if self.dtype_of:
                words.append(f"dtype of {self.dtype_of}" + (f", or {_or(self.dtypes)}" if self.dtypes else ""))
            else:
                words.append(_or(self.dtypes))
        elif self.kind == "enum":
            words.append(f"one of {', '.join(self.names)} (default {self.names[int(self.default)]})")
        elif self.kind == "dtype":
            default = f"that of {self.dtype_of}" if self.dtype_of else self.default and DTYPES[self.default]
            words.append(_or(self.dtypes) + (f" (default {default})" if default else ""))
        elif self.is_flag:
            words.append(f"a flag, default {bool(self.default)}")
        elif self.kind in ("number", "int"):
            words.append("an int" if self.kind == "int" else "a number")
            if self.may_be_tensor:
                words[-1] += " or a tensor" if self.shape else " or a tensor of one element"
            if self.min > -math.inf:
                words.append(f"at least {self.min:g}")
            if self.max is not None:
                words.append(f"at most {self.max:g}")
            if self.default_of or self.default:
                words.append(f"default {self.default_of or format(self.default, 'g')}")
        else:
            words.append({"plan": "a plan", "text": "a string", "comm": "a group of ranks"}[self.kind])
        if self.optional:
            words.append("optional")
        if self.kind == "inout":
            words.append("written")
        if self.may_alias:
            words.append(f"may be {self.may_alias} itself")
        return ", ".join(words)


def _or(words):
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def _bracketed(text, named):
    label, _, dims = text.partition(":") if named else ("", "", text)
    dims = "[" + ", ".join(_split(dims)) + "]"
    return f"{label.strip()}: {dims}" if label else dims


class Op:
    """One op as the library declares it."""

    function = None  # takes its arguments in order

    def __init__(self, fields):
        self.name, self.family, self.summary = fields["name"], fields["family"], fields["summary"]
        self.arguments = [Argument(a, i) for i, a in enumerate(fields["arguments"])]
        self.by_name = {a.name: a for a in self.arguments}
        self.rules, self.kernels = fields["rules"], fields["kernels"]
        self.plan = fields.get("plan")
