# SPDX-License-Identifier: Apache-2.0
"""CPU tensors, and those of a GPU where there is one."""

import numpy
import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    torch.manual_seed(1)
    numpy.random.seed(1)
    return request.param
