# SPDX-License-Identifier: Apache-2.0
"""What public functions share: documentation from the declarations, conversions of arguments."""

import inspect
import sys
import textwrap

from . import _core
from ._arguments import annotate, guarded
from ._headers import described, op_text


PUBLIC = {}  # "norm.rmsnorm": the ops that it runs

_NOTES = {
    "enable_pdl": "programmatic dependent launch; None and True: where the device can",
    "return_lse": "also return lse, the base-2 logarithm of the sums of the weights, float32",
    "backend": "of no effect: kernels are chosen by what fits, see `flashinfer explain`",
    "generator": "the source of seed and offset, None: the framework's",
    "paged_kv_cache": "one tensor [pages, 2, page_size, num_kv_heads, head_dim] (NHD) or "
                      "[pages, 2, num_kv_heads, page_size, head_dim] (HND), or a pair of the keys and the values; "
                      "without page_size: pages of one token",
    "kv_cache_sf": "the scales of a cache of e2m1 pairs, as paged_kv_cache with head_dim / 16",
    "o_dtype": "that of the output, None: that of q",
    "rotary_dim": "how many dimensions of a head are rotated, None: all",
}


def api(*ops, notes=None, **renamed):
    """Makes a function public: its docstring tells each argument as the ops that it runs declare it.

    renamed: the parameters that the declaration calls otherwise. notes: what to say of others."""

    def decorate(function):
        module = sys.modules[function.__module__]
        module.__dict__.setdefault("__all__", []).append(function.__name__)
        PUBLIC[f"{function.__module__.partition('.')[2]}.{function.__name__}"] = ops
        declared = [_core.op(name) for name in ops]
        lines = []
        annotate(function, declared, renamed)
        for name, parameter in inspect.signature(function).parameters.items():
            note = (notes or {}).get(name) or _NOTES.get(name, "")
            for op in declared:
                argument = op.by_name.get(renamed.get(name, name))
                if argument:
                    note = (notes or {}).get(name) or described(op.name, argument, "0" if parameter.default == 0 else "None")
                    break
            lines.append(f"    {name}: {note}".rstrip(": "))
        own = inspect.cleandoc(function.__doc__) if function.__doc__ else ""
        main = declared[0] if len(declared) == 1 or ops[:1] == (function.__name__,) else None
        more = textwrap.fill(op_text(main.name), 120) if main else ""
        rules = main.rules if main else ()
        function.__doc__ = "\n".join(filter(None, [
            main.summary + "." if main else None, "\n" + own if own else None, "\n" + more if more else None,
            "\nArguments:\n" + "\n".join(lines), "\nRequired: " + "; ".join(dict.fromkeys(rules)) + "." if rules else None]))
        return guarded(function)

    return decorate


# ------------------------------------------------------------------------------------------------------------- conversions


def unserved(what):
    """For modes of upstream that the library does not have."""
    raise NotImplementedError(f"{what} is not served by flashinfer_c")


def is_torch(x):
    return _core.torch is not None and isinstance(x, _core.torch.Tensor)


def as_dtype(x, name):
    """x itself if it has the dtype, else a converted copy. None stays None."""
    if is_torch(x):
        wanted = getattr(_core.torch, name)
        return x if x.dtype == wanted else x.to(wanted)
    return x if x is None or _core.dtype_name(x.dtype) == name else x.astype(name)


def as_int32(x):
    return as_dtype(x, "int32")


def as_dense_int32(x):
    """As as_int32; a part of a wider table of torch is copied."""
    x = as_int32(x)
    return x.contiguous() if is_torch(x) else x


def every_row(sequences, tokens, like):
    """0, 1, ... as [sequences, tokens]."""
    rows = _core.empty((sequences * tokens,), "int32", like)
    rows[...] = 1
    return as_int32(rows.cumsum(0) - 1).reshape(sequences, tokens)


def as_float32(x):
    return as_dtype(x, "float32")


@_core.complains
def scale_near(scale, like):
    """A scale of input `like`: an array as float32 where that lies, what else it is as it is."""
    if isinstance(scale, (int, float)) or not _core.is_array(scale):  # torch's tracer asks its own numbers for no attribute
        return scale
    if is_torch(scale) and is_torch(like) and scale.device != like.device:
        scale = scale.to(like.device)
    return as_float32(scale)


def as_bool(x):
    """x itself if it holds truth values, else a converted copy. None stays None."""
    return x if x is None or _core.dtype_name(x.dtype) == "bool" else x != 0


def viewed(x, dtype, name):
    """The bytes of x, whose elements are single ones, as another such dtype. NumPy has none of 4 and 8 bits: there they stay as
    they are."""
    if x.dtype.itemsize != 1:
        raise ValueError(f"{name} is {x.dtype}, must have elements of one byte")
    return x.view(getattr(_core.torch, dtype)) if is_torch(x) else x


def split_kv(cache, kv_layout):
    """The keys and the values of a cache: a pair, or one tensor with both on its second axis. A missing page axis means pages of
    one token."""
    if isinstance(cache, (tuple, list)):
        k, v = cache
    elif len(cache.shape) < 2 or cache.shape[1] != 2:
        raise ValueError(f"a cache has shape {list(cache.shape)}, must be [pages, 2, ...]: keys and values")
    else:
        k, v = cache[:, 0], cache[:, 1]
    if len(k.shape) == 3:
        k, v = (k[:, :, None], v[:, :, None]) if kv_layout == "HND" else (k[:, None], v[:, None])
    return k, v
