# SPDX-License-Identifier: Apache-2.0
"""Folders. Sources and headers are inside the library: there are no folders of them.

    FLASHINFER_WORKSPACE_DIR, FLASHINFER_CACHE_DIR, FLASHINFER_JIT_DIR: pathlib.Path, of compiled kernels
"""

import functools
import json
import pathlib
import subprocess

from .._core import COMMAND


@functools.cache
def _cache():
    lines = subprocess.run([COMMAND, "show-config", "--json"], check=True, capture_output=True, text=True).stdout.splitlines()
    return pathlib.Path(next(row["value"] for row in map(json.loads, lines) if row["what"] == "cache"))


def __getattr__(name):
    if name in ("FLASHINFER_WORKSPACE_DIR", "FLASHINFER_CACHE_DIR", "FLASHINFER_JIT_DIR"):
        return _cache()
    raise AttributeError(f"there is no {name}")
