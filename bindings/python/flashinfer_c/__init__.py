# SPDX-License-Identifier: Apache-2.0
"""Kernels for LLM serving, compiled when they are first needed: the public names of FlashInfer over libflashinfer.

    import flashinfer_c as flashinfer

install() registers the package as `flashinfer`, for code that imports it by that name. Functions take tensors of torch, NumPy,
CuPy and JAX, on GPUs and CPUs; what is allocated is of the caller's framework. flashinfer_c.ops has every op as the library
declares it.
"""

import importlib
import pkgutil
import sys

from . import _core
from ._arguments import NEED_TORCH

__version__ = _core.version
upstream_version = "0.7.2"  # whose names, signatures and conventions these are

# Modules whose names upstream does not have at its root, too.
_APART = {"concat_ops", "gdn_kernels", "jit", "kda_decode", "ops", "utils"}


def _import_modules():
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_") or (module.name in NEED_TORCH and _core.torch is None):
            continue
        loaded = importlib.import_module(f".{module.name}", __name__)
        if module.name not in _APART:
            globals().update((name, getattr(loaded, name)) for name in getattr(loaded, "__all__", ()))


_import_modules()

if _core.torch is None:
    def __getattr__(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r} without torch, which cannot be imported")


def install():
    """Registers this package and its modules as `flashinfer`, and upstream_version as the version of the distribution
    `flashinfer-python`, so that code which imports that name or asks for that version gets them. A distribution of that name that
    is installed keeps its version. Raises ImportError if another `flashinfer` is imported already."""
    other = sys.modules.get("flashinfer")
    if other is not None and other is not sys.modules[__name__]:
        raise ImportError(f"flashinfer is imported already, from {getattr(other, '__file__', 'elsewhere')}")
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(__name__ + "."):
            sys.modules["flashinfer" + name[len(__name__):]] = module
    from ._distribution import announce

    announce("flashinfer-python", upstream_version)
