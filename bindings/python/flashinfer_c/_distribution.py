# SPDX-License-Identifier: Apache-2.0
"""A distribution that importlib.metadata finds in this process: engines compare its version with the least that they take."""

import functools
import importlib.metadata
import pathlib
import sys


class _Distribution(importlib.metadata.Distribution):
    def __init__(self, name, version):
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename):
        return self._text if filename == "METADATA" else None

    def locate_file(self, path):
        return pathlib.Path(__file__).parent / path


class _Finder(importlib.metadata.DistributionFinder):
    def __init__(self, name, version):
        self._name, self._found = name, _Distribution(name, version)

    def find_distributions(self, context=importlib.metadata.DistributionFinder.Context()):
        return [self._found] if context.name is None or context.name.lower().replace("_", "-") == self._name else []

    def find_spec(self, name, path=None, target=None):
        return None


@functools.cache
def announce(name, version):
    """Behind the finders that are there: a distribution of that name that is installed keeps its version."""
    sys.meta_path.append(_Finder(name, version))
