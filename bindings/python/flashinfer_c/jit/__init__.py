# SPDX-License-Identifier: Apache-2.0
"""What engines ask of upstream's compilation: where its cache lies, whether it works here, its logger."""

from . import core, env  # noqa: F401
