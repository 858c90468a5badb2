# SPDX-License-Identifier: Apache-2.0
"""Variants of attention: an op with hooks of yours, as source text, compiled into its kernels for GPUs and CPUs.

    soft = Variant("soft_alibi", "single_prefill_with_kv_cache", '''
        HOOK float logits(struct variant v, float s, struct at a)
        {
            return s - v.slopes[a.qo_head] * (a.kv_len - a.qo_len + a.q - a.kv);
        }
    ''', slopes=("float32", "num_qo_heads"))
    out = soft(q=q, k=k, v=v, causal=True, slopes=slopes)

include/flashinfer/variant.h says what hooks there are, and what they see.
"""

import ctypes
import functools

from . import _core

__all__ = ["Variant"]

_DTYPES = {"float32": (2, 32, 1), "float16": (2, 16, 1), "bfloat16": (4, 16, 1), "int32": (0, 32, 1), "int64": (0, 64, 1),
           "uint8": (1, 8, 1), "int8": (0, 8, 1), "bool": (6, 8, 1)}
_TENSOR, _OUTPUT, _FLOAT, _INT = range(4)


class _DType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Argument(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("kind", ctypes.c_int32), ("optional", ctypes.c_int32),
                ("dtype", _DType), ("shape", ctypes.c_char_p), ("min", ctypes.c_double), ("max", ctypes.c_double)]


class _Source(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("base", ctypes.c_char_p), ("hooks", ctypes.c_char_p),
                ("arguments", ctypes.POINTER(_Argument)), ("num_arguments", ctypes.c_int32), ("flags", ctypes.c_uint32)]


_create = _core.library.flashinfer_variant_create
_create.argtypes = [ctypes.POINTER(_Source), ctypes.POINTER(ctypes.c_void_p)]
_destroy = _core.library.flashinfer_variant_destroy
_destroy.argtypes, _destroy.restype = [ctypes.c_void_p], None
_describe = _core.library.flashinfer_variant_describe
_describe.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
_entry = _core.module.get_function("flashinfer_variant_call")


def _argument(name, what):
    made = _Argument(ctypes.sizeof(_Argument), name.encode())
    if what in (float, int):
        made.kind = _FLOAT if what is float else _INT
        return made
    if not isinstance(what, (tuple, list)) or len(what) < 2 or not isinstance(what[1], str):
        raise TypeError(f"{name} is declared as {what!r}, must be float, int or (dtype, shape)")
    dtype, shape, *options = what
    if set(options) - {"optional", "output"}:
        raise ValueError(f"{name}: {options} must be 'optional' or 'output'")
    if _core.dtype_name(dtype) not in _DTYPES:
        raise ValueError(f"{name}: {dtype} must be one of {', '.join(_DTYPES)}")
    made.kind, made.optional = _OUTPUT if "output" in options else _TENSOR, "optional" in options
    made.dtype, made.shape = _DType(*_DTYPES[_core.dtype_name(dtype)]), shape.encode()
    return made


class Variant:
    """An attention op with hooks: call it as flashinfer_c.ops has the base, with the further arguments by name.

    name: a C identifier, no op's
    base: batch_prefill, batch_prefill_ragged, batch_decode, single_prefill_with_kv_cache, single_decode_with_kv_cache
    hooks: the text
    no_softmax: the weights are the results of the hook logits themselves
    arguments: float, int, or for a tensor (dtype, shape), with 'optional' or 'output' behind: ("float32", "num_qo_heads")

    A text that does not compile raises RuntimeError at the first call, with the compiler's messages. Not to be copied: make
    another.
    """

    def __init__(self, name, base, hooks, *, no_softmax=False, **arguments):
        self._handle = None
        for what, text in (("name", name), ("base", base), ("hooks", hooks)):
            if not isinstance(text, str):
                raise TypeError(f"Variant: {what} is of type {type(text).__name__}, must be a string")
        declared = (_Argument * len(arguments))(*[_argument(key, what) for key, what in arguments.items()])
        source = _Source(ctypes.sizeof(_Source), name.encode(), base.encode(), hooks.encode(), declared, len(arguments),
                         no_softmax)
        handle = ctypes.c_void_p()
        if _create(ctypes.byref(source), ctypes.byref(handle)):
            raise ValueError(_core.last_error())
        self._handle = handle
        self.declaration = _core.through_tvm_ffi(functools.partial(_entry, handle),
                                                 _core.Op(_core.described(functools.partial(_describe, handle))))
        lines = [f"    {a.name}: {a.describe()}" for a in self.declaration.arguments]
        self.__doc__ = "\n".join([f"{base} with hooks: {self.declaration.summary}", "", "Arguments:", *lines])

    def __call__(self, **arguments):
        """Returns what was written, as flashinfer_c.ops does."""
        return _core.call_declared(self.declaration, **arguments)

    def __reduce__(self):
        raise TypeError("a Variant cannot be copied or pickled: make another of the same text")

    def __del__(self):
        if self._handle:
            _destroy(self._handle)
