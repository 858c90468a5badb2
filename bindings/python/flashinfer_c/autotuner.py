# SPDX-License-Identifier: Apache-2.0
"""Upstream's tuning, which engines wrap around their warm-up. There is nothing to tune here: each call takes the first kernel
that fits, which `flashinfer explain` prints, so that what runs never depends on what was measured before."""

import contextlib

__all__ = ["autotune"]


@contextlib.contextmanager
def autotune(tune_mode=True, cache=None, tuning_buckets=None, round_up=None, skip_ops=None, cuda_graph_profile_replays=None):
    """A context in which calls run as they do outside of it; no argument has an effect, and no file is read or written.

    tune_mode, tuning_buckets, round_up, skip_ops, cuda_graph_profile_replays: what upstream is to measure, and how
    cache: the file of upstream's measurements
    """
    yield


class AutoTuner:
    """The place of upstream's measurements: always empty."""

    _instance = None

    @classmethod
    def get(cls):
        """The one of this process."""
        cls._instance = cls._instance or cls()
        return cls._instance

    def clear_cache(self):
        """Forgets the measurements, of which there are none."""

    def load_configs(self, path):
        """Reads no measurements from path. Returns False: none were taken over."""
        return False

    def save_configs(self, path):
        """Writes no file: there are no measurements."""
