# SPDX-License-Identifier: Apache-2.0
"""The library, arrays, and how ops are called.

    call("rmsnorm", out=None, input=x, weight=w)       any op by the names of its arguments; absent outputs are allocated
    launcher("rmsnorm")(out, x, w, 1e-6, True)         the shortest way: positional, outputs given, then flags
"""

import ctypes
import functools
import importlib.abc
import importlib.machinery
import json
import math
import numbers
import os
import sys
import types

import tvm_ffi

from ._declaration import Op, dtype_name, short_dtype  # noqa: F401  others take them from here

try:
    import torch
except ImportError:
    torch = None

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.join(FOLDER, "lib", "libflashinfer.so")
COMMAND = os.path.join(FOLDER, "bin", "flashinfer")

PDL = 1
BATCH_INVARIANT = 2
CUDA = 2  # DLPack's kDLCUDA

tvm_ffi.register_error("NotImplementedError", NotImplementedError)

module = tvm_ffi.load_module(LIBRARY)
library = ctypes.CDLL(LIBRARY)
library.flashinfer_version.restype = ctypes.c_char_p
library.flashinfer_last_error.restype = ctypes.c_char_p
library.flashinfer_op_name.restype = ctypes.c_char_p
library.flashinfer_op_name.argtypes = [ctypes.c_size_t]
library.flashinfer_describe.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
library.flashinfer_plan_workspace_size.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]


def last_error():
    """The sentence of this thread's last failed call."""
    return library.flashinfer_last_error().decode()


version = library.flashinfer_version().decode()

# ------------------------------------------------------------------------------------------------------------------ arrays


def is_array(value):
    """Whether a value is an array of any framework."""
    return hasattr(value, "__dlpack__")


def _numpy():
    import numpy

    return numpy


def not_an_array(value):
    """The TypeError of a function of the package that was given a value which should be an array."""
    text, frame = "an argument", sys._getframe(1)
    while frame is not None and (frame.f_globals.get("__package__") or "").partition(".")[0] == __package__:
        names = [name for name, local in frame.f_locals.items() if local is value]
        if names:
            text = f"{frame.f_code.co_name}: {names[0]}"
        frame = frame.f_back
    return TypeError(f"{text} is of type {type(value).__name__}, must be an array")


def empty(shape, dtype, like):
    """An uninitialised array of like's framework and device."""
    if torch is not None and isinstance(like, torch.Tensor):
        if dtype is like.dtype:
            return like.new_empty(shape)
        return like.new_empty(shape, dtype=dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype_name(dtype)))
    framework = type(like).__module__.partition(".")[0]
    if framework == "cupy":
        return sys.modules["cupy"].empty(shape, dtype=dtype_name(dtype))
    if framework in ("jax", "jaxlib"):
        jax = sys.modules["jax"]
        # A fresh buffer that nobody else has seen yet, which the op fills in place.
        return jax.device_put(jax.numpy.empty(shape, dtype=dtype_name(dtype)), like.device).block_until_ready()
    name = dtype_name(dtype)
    return _numpy().empty(shape, dtype=name)


complaining = set()  # functions that name the argument that they cannot take themselves: launchers, and a few


def complains(function):
    complaining.add(function)
    return function


@complains
def empty_like(like):
    """An uninitialised array of like's framework, device, dtype and shape."""
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.empty_like(like)
    if not is_array(like):
        raise not_an_array(like)
    return empty(like.shape, like.dtype, like)


# ------------------------------------------------------------------------------------------------------------ declarations


def described(describe):
    """The declaration that a C function writes, of its last three arguments (text, size, needed), as a dictionary."""
    needed = ctypes.c_size_t()
    if describe(None, 0, ctypes.byref(needed)):
        raise ValueError(last_error())
    text = ctypes.create_string_buffer(needed.value)
    describe(text, needed, ctypes.byref(needed))
    return json.loads(text.value)


def _names():
    names = []
    while (name := library.flashinfer_op_name(len(names))) is not None:
        names.append(name.decode())
    return names


op_names = _names()


def _wait(number):
    """Until a CUDA device has done what stands on its default stream."""
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number):
        raise RuntimeError(f"device {number} cannot be waited for")
    driver.cuCtxPushCurrent_v2(context)
    failed = driver.cuStreamSynchronize(None)
    driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    driver.cuDevicePrimaryCtxRelease_v2(number)
    if failed:
        raise RuntimeError(f"a kernel failed on device {number}: error {failed} of the CUDA driver")


def _unreadable(declared, values, error):
    """What to raise for an error of TVM-FFI: a ValueError for the first array of which no framework tells where its elements lie
    (torch's on "meta", sparse ones, NumPy's that are read-only), else the error itself."""
    # Outputs are the last: they may have been allocated like an input.
    for argument, value in sorted(zip(declared.arguments, values), key=lambda pair: pair[0].kind == "out"):
        if is_array(value):
            try:
                tvm_ffi.convert(value)
            except Exception as reason:  # torch's is followed by the stack of its C++
                said = str(reason).partition("\n")[0]
                return ValueError(f"{declared.name}: {argument.name} cannot be shared by DLPack: {said}")
    return error


def _run_in_order(function, args):
    for array in args:
        framework = type(array).__module__.partition(".")[0]
        if framework not in ("cupy", "jax", "jaxlib") or array.__dlpack_device__()[0] != CUDA:
            continue
        number = array.__dlpack_device__()[1]
        if framework == "cupy":
            with tvm_ffi.use_raw_stream(tvm_ffi.device("cuda", number), sys.modules["cupy"].cuda.get_current_stream().ptr):
                return function(*args)
        sys.modules["jax"].block_until_ready([value for value in args if is_array(value)])
        function(*args)
        return _wait(number)
    return function(*args)


def through_tvm_ffi(function, declared):
    """A declaration with TVM-FFI's function of the op, in order with what else a framework does on a GPU, where TVM-FFI knows
    torch's streams alone: a call on CuPy's arrays joins CuPy's current stream; JAX shows nobody its streams, so that the host
    waits before and after."""

    def run(*args):
        try:
            return _run_in_order(function, args) if "cupy" in sys.modules or "jax" in sys.modules else function(*args)
        except (BufferError, RuntimeError) as error:
            raise _unreadable(declared, args, error) from None

    declared.function = run
    return declared


def _direct(name, function):
    """TVM-FFI's function of an op, behind the library's own where torch tells it how its tensors lie (bindings/python.c)."""
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None) if torch is not None else None
    if exchange is None or "t" in sys.abiflags:  # a build without the interpreter's lock lays objects out differently
        return function
    make = ctypes.PyDLL(LIBRARY).flashinfer_python_function
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_char_p] + [ctypes.py_object] * 4
    try:
        return make(name.encode(), torch.Tensor, torch.nn.Parameter, exchange, function)
    except ValueError:  # NULL
        return function


@functools.cache
def op(name):
    """The declaration of an op."""
    if name not in op_names:
        raise AttributeError(f"no op is called {name!r}")
    fields = described(functools.partial(library.flashinfer_describe, name.encode()))
    declared = through_tvm_ffi(module.get_function(name), Op(fields))
    declared.function = _direct(name, declared.function)
    return declared


# ------------------------------------------------------------------------------------------------------------------ calls


class Plan:
    """A plan: 1024 plain bytes, written by a plan op; copying and pickling it copies them."""

    def __init__(self, content=None):
        self._bytes = (ctypes.c_uint64 * 128)()
        if content is not None:
            ctypes.memmove(self._bytes, content, 1024)
        self.pointer = ctypes.c_void_p(ctypes.addressof(self._bytes))

    def __reduce__(self):
        return Plan, (bytes(self._bytes),)

    @property
    def workspace_size(self):
        """The bytes of workspace that any run with this plan needs at most."""
        size = ctypes.c_size_t()
        if library.flashinfer_plan_workspace_size(self.pointer, ctypes.byref(size)):
            raise ValueError(last_error())
        return size.value


def _enum_index(declared, argument, value):
    if value is None:
        return int(argument.default or 0)
    index = value
    if isinstance(value, str):
        index = argument.names.index(value.upper()) if value.upper() in argument.names else -1
    if not isinstance(index, numbers.Integral):
        raise TypeError(f"{declared.name}: {argument.name} is of type {type(value).__name__}, must be a name or an int")
    if not 0 <= index < len(argument.names):
        raise ValueError(f"{declared.name}: {argument.name} is {value!r}, must be one of: {' '.join(argument.names)}")
    return int(index)


def _integer(declared, argument, value, names):
    if value is None:
        return names.get(argument.default_of, 0) if argument.default_of else int(argument.default or 0)
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"{declared.name}: {argument.name} is of type {type(value).__name__}, must be an int")
    return int(value)


def _known(declared, values):
    """The sizes and integers that the arguments tell, by name."""
    names = {}
    for argument, value in zip(declared.arguments, values):
        if argument.kind == "enum":
            names[argument.name] = _enum_index(declared, argument, value)
        elif argument.kind == "int" and not is_array(value):
            names[argument.name] = _integer(declared, argument, value, names)
    leading = ()
    order = sorted(zip(declared.arguments, values), key=lambda pair: pair[0].kind == "out")
    for argument, value in order:
        if not argument.is_tensor or not is_array(value) or (argument.by and argument.by not in names):  # a layout of the plan
            continue
        shape, dimensions = tuple(value.shape), argument.dimensions(names)
        further = 0
        if dimensions and dimensions[0] == "...":
            dimensions = dimensions[1:]
            further = max(len(shape) - len(dimensions), 0)
            leading = shape[:further]
            names["rows"] = math.prod(leading)
        if len(shape) != further + len(dimensions):
            raise ValueError(f"{declared.name}: {argument.name} has shape {list(shape)}, must be {argument.describe_shape()}")
        shape = shape[further:]
        for dimension, size in zip(dimensions, shape):
            if dimension.solve:
                name, solve = dimension.solve
                names.setdefault(name, solve(size))
    return names, leading


def _output_dtype(argument, declared, values):
    value = values[argument.index]
    if value is not None:
        return value
    if argument.dtype_of:
        source = declared.by_name.get(argument.dtype_of)
        if source is None:  # an argument of the plan
            raise TypeError(f"{declared.name}: {argument.name} must be given: nothing tells its dtype")
        given = values[source.index]
        return given.dtype if is_array(given) else _output_dtype(source, declared, values)
    return "uint8" if "uint8" in argument.dtypes and "float4_e2m1fn_x2" in argument.dtypes else argument.dtypes[0]


def allocate(declared, values):
    """Allocates what is written, required and not given; in place of an output may stand the dtype that it is to have."""
    missing = [a for a in declared.arguments
               if a.is_tensor and a.kind == "out" and not is_array(values[a.index])
               and (not a.optional or values[a.index] is not None)]
    if not missing:
        return
    read = [(a, values[a.index]) for a in declared.arguments if a.is_tensor and a.kind != "out"]
    for argument, value in read:
        if value is not None and not is_array(value):
            raise TypeError(f"{declared.name}: {argument.name} is of type {type(value).__name__}, must be an array")
    names, leading = _known(declared, values)
    like = next((v for a, v in zip(declared.arguments, values) if a.is_tensor and not a.host and is_array(v)), None)
    if like is None:
        raise TypeError(f"{declared.name}: {next((a.name for a, _ in read if not a.optional), 'an array')} must be given")
    dtypes = [_output_dtype(argument, declared, values) for argument in missing]
    for argument, dtype in zip(missing, dtypes):
        shape = []
        for dimension in argument.dimensions(names):
            try:
                shape += leading if dimension == "..." else [dimension.size(names)]
            except NameError as error:
                raise TypeError(f"{declared.name}: {argument.name} must be given: nothing tells {error.name}") from None
        try:
            values[argument.index] = empty(tuple(shape), dtype, like)
        except ValueError as error:
            raise ValueError(f"{declared.name}: {argument.name}: {error}") from None


def call(name, /, *, flags=0, workspace=None, kernel=None, threads=0, device=None, **arguments):
    """Calls an op with the arguments that its declaration names; None is absent, or its default.

    Outputs that must be there and are absent are allocated by the framework of the first array; a dtype in place of an output
    says which it is to have. Returns what was written, in the order of the declaration: one array, or a tuple.
    flags: PDL | BATCH_INVARIANT. workspace: an array of bytes on the call's device; None: allocated if needed. device: a pair of
    DLPack's device type and number, where no argument tells it (plans). Everything else is refused by the library, with a
    sentence.
    """
    return call_declared(op(name), flags=flags, workspace=workspace, kernel=kernel, threads=threads, device=device, **arguments)


def call_declared(declared, /, *, flags=0, workspace=None, kernel=None, threads=0, device=None, **arguments):
    """call() of an op that no name stands for."""
    values = [None] * len(declared.arguments)
    for key, value in arguments.items():
        argument = declared.by_name.get(key)
        if argument is None:
            raise TypeError(f"{declared.name}() got an unexpected argument {key!r}; it takes {', '.join(declared.by_name)}")
        if isinstance(value, Plan):
            value = value.pointer
        elif argument.kind == "dtype":
            value = short_dtype(value)
        values[argument.index] = value
    plan = None
    for argument in declared.arguments:
        if argument.kind == "plan" and argument.is_written and values[argument.index] is None:
            plan = Plan()
            values[argument.index] = plan.pointer
    allocate(declared, values)
    if device is not None and not isinstance(device, tvm_ffi.Device):
        if not isinstance(device, (tuple, list)) or len(device) != 2:
            raise TypeError(f"{declared.name}: device is {device!r}, must be a pair of DLPack's device type and number")
        device = tvm_ffi.device(*device)
    declared.function(*values, flags, workspace, kernel, threads, device)
    if plan is not None:
        return plan
    written = tuple(v for a, v in zip(declared.arguments, values) if a.is_written and v is not None)
    return written[0] if len(written) == 1 else written


# ----------------------------------------------------------------------------------------------------------- torch.compile

_tracing = None
if torch is not None:
    _is_compiling = torch.compiler.is_dynamo_compiling
    _torch_library = torch.library.Library("flashinfer_c", "DEF")


    def _schema(declared):
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        parts = []
        for argument in declared.arguments:
            name = f"{argument.name}_"
            if argument.is_tensor or argument.kind == "plan":
                kind = f"Tensor({next(letters)}!)?" if argument.is_written else "Tensor?"
            else:
                kind = {"number": "float?", "int": "int?", "enum": "int?", "dtype": "str?", "text": "str?",
                        "comm": "int?"}[argument.kind]
            parts.append(f"{kind} {name}")
            if argument.may_be_tensor:
                parts.append(f"Tensor? {name}tensor")
        return f"{declared.name}({', '.join(parts)}, int flags) -> ()"


    def _compiled(declared):
        """The op for graphs that torch.compile makes: what lies in its outputs is its only effect."""
        split = [a.may_be_tensor for a in declared.arguments]
        function = declared.function

        def run(*args):
            rest, values = iter(args), []
            for may_be_tensor in split:
                value = next(rest)
                tensor = next(rest) if may_be_tensor else None
                values.append(value if tensor is None else tensor)
            function(*values, next(rest))

        _torch_library.define(_schema(declared))
        _torch_library.impl(declared.name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"flashinfer_c::{declared.name}", lambda *args: None, lib=_torch_library)
        return getattr(torch.ops.flashinfer_c, declared.name).default, split

else:

    def _is_compiling():
        return False


class _WhenTracing(importlib.abc.MetaPathFinder):
    """Tells torch's tracer what stands for functions that are not Python's, once it is imported, as torch.compile does."""

    TRACER = "torch._dynamo"

    def __init__(self):
        self.waiting = []
        if self.TRACER not in sys.modules:
            sys.meta_path.insert(0, self)

    def substitute(self, function, traced):
        if self in sys.meta_path:
            self.waiting.append((function, traced))
        else:
            torch.compiler.substitute_in_graph(function, skip_signature_check=True)(traced)

    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == self.TRACER else None
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), self.tell())
        return spec

    def tell(self):
        sys.meta_path.remove(self)
        for both in self.waiting:
            self.substitute(*both)


if hasattr(getattr(torch, "compiler", None), "substitute_in_graph"):
    _tracing = _WhenTracing()


@functools.cache
def launcher(name):
    """The op as a function of positional arguments in the order of the declaration, after which may stand flags and workspace.
    Outputs are given. A graph that torch.compile makes holds it as torch.ops.flashinfer_c.<name>."""
    return complains(op(name).function if torch is None else _traceable(op(name)))


def _traceable(declared):
    function = declared.function
    compiled, split = _compiled(declared)
    names = [f"a{i}" for i in range(len(declared.arguments))]
    listed = ", ".join(names)
    text = f"""
def launch({", ".join(f"{name}=None" for name in names)}, flags=0, workspace=None):
    if is_compiling():
        trace(({listed},), flags)
    else:
        function({listed}, flags, workspace)
"""

    def trace(args, flags):
        values = []
        for value, may_be_tensor in zip(args, split):
            if may_be_tensor:
                is_tensor = isinstance(value, torch.Tensor)
                values += [None, value] if is_tensor else [value, None]
            else:
                values.append(value)
        compiled(*values, int(flags))

    scope = {"is_compiling": _is_compiling, "trace": trace, "function": function}
    exec(text, scope)
    launch = scope["launch"]
    if _tracing is None or not isinstance(function, types.BuiltinFunctionType):
        return launch
    _tracing.substitute(function, launch)
    return function
