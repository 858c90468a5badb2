# SPDX-License-Identifier: Apache-2.0
"""python -m flashinfer_c: the flashinfer command."""

import os
import signal
import sys

from ._core import COMMAND

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and so would the command: `list | head` ends in silence
    os.execv(COMMAND, ["flashinfer", *sys.argv[1:]])
