# SPDX-License-Identifier: Apache-2.0
"""Whether kernels can be compiled for the current GPU."""

import logging

from .. import _core

logger = logging.getLogger("flashinfer.jit")  # says nothing: errors are raised, and nothing else is said


def check_cuda_arch():
    """Raises RuntimeError with the reason if kernels cannot be compiled and run on the current GPU: runs the smallest one."""
    torch = _core.torch
    if torch is None or not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device that torch can use")
    x = torch.ones(1, 8, device="cuda")
    _core.call("rmsnorm", input=x, weight=x[0])
