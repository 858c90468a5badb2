# SPDX-License-Identifier: Apache-2.0
"""What test_functions.py and states.py share: the cases, one for each public function, and their inputs."""

import torch

import flashinfer_c as fi


def normal(device, *shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device=device).to(dtype)


def ints(device, *values):
    return torch.tensor(values, dtype=torch.int32, device=device)


def close(found, expected, tolerance=2e-2):
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


def rms(x, weight, eps=1e-6, bias=0.0):
    x = x.float()
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * (weight.float() + bias)


CASES = {}


def case(*names):
    def decorate(function):
        for name in names:
            CASES[name] = lambda device, name=name: function(device, getattr(fi, name.rpartition(".")[2], None), name)
        return function

    return decorate
