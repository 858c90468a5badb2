# SPDX-License-Identifier: Apache-2.0
"""python -m flashinfer_c: the flashinfer command."""

import os
import sys

from ._core import COMMAND

if __name__ == "__main__":
    os.execv(COMMAND, ["flashinfer", *sys.argv[1:]])
