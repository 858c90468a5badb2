# SPDX-License-Identifier: Apache-2.0
"""Kernels for LLM serving, compiled when they are first needed: the public names of FlashInfer over libflashinfer.

    import flashinfer_c as flashinfer

install() registers the package as `flashinfer`, for code that imports it by that name.
"""

from . import _core

__version__ = _core.version
upstream_version = "0.7.2"  # whose names, signatures and conventions these are
