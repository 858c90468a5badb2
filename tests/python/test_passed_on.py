# SPDX-License-Identifier: Apache-2.0
"""Every option of every public function reaches its op: with another value the result is another, the option is refused, or its
documentation says that it is of no effect.
"""

import inspect

import pytest
import test_functions  # noqa: F401  its cases
import torch

from cases import CASES
from flashinfer_c import SfLayout
from test_arguments import find, first_call

SEEDED = {"seed": 5, "offset": 8}
# Other values of options that have no obvious one.
OTHERS = {
    "rotary_dim": 32, "rope_theta": 77.0, "low_freq_factor": 0.1, "high_freq_factor": 40.0, "old_context_len": 100,
    "base": 77.0, "factor": 4.0, "high": 20.0, "eps": 9.0, "lower_bound": -5.0, "sfLayout": SfLayout.layout_linear,
    "sf_swizzle_layout": SfLayout.layout_linear, "sf_vec_size": 32, "block_size": 32, "group_size": 64, "alignment": 128,
    "scale_format": "ue8m0", "bitorder": "little", "quantize_dtype": "float8_e5m2", "dst_dtype": "int8",
    "out_dtype": torch.float32, "output_dtype": torch.float16, "filter_apply_order": "joint", "temperature": 0.25, "top_k": 1,
    "top_p": 0.1, "seed": 6, "offset": 64, "page_size": 8, "pad_slot_id": 0, "philox_rounds": 3,
    "checkpoint_every_n_tokens": 64,
}
# What they need beside them: a value, or what becomes of the one given.
BESIDE = {
    "is_sf_8x4_layout": {"is_sf_swizzled_layout": True}, "is_sf_swizzled_layout": {"output_both_sf_layouts": False},
    "low": {"factor": 4.0, "high": 20.0}, "high": {"factor": 4.0}, "output_quant_scale": {"output_fp8": True},
    "v_quant_scale": {"output_fp8": True}, "scale_tma_aligned": {"column_major_scales": True},
    "filter_apply_order": {"top_k": 2, "top_p": 0.6}, "lower_bound": {"use_gate_in_kernel": True, "A_log": torch.zeros(2)},
    "philox_rounds": {"rand_seed": torch.tensor([7]), "state": torch.Tensor.half, "disable_state_update": False,
                      "prev_num_accepted_tokens": lambda tokens: tokens + 4, "dt_cache": lambda ring: ring.nan_to_num(0.3)},
}
# Which kernel runs, where random numbers come from, what is looked at before.
NOT_SEEN = {"enable_pdl", "pdl", "use_pdl", "backend", "deterministic", "generator", "check_nan"}


def copied(value):
    if torch.is_tensor(value):
        return value if 0 in value.stride() else value.clone()  # weights that repeat are read only
    return type(value)(map(copied, value)) if isinstance(value, (tuple, list)) else value


def tensors_in(value):
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors_in(one)


def outcome(function, arguments):
    """What a call returns and leaves in its arguments: dtypes, shapes, strides and bytes."""
    arguments = {name: copied(value) for name, value in arguments.items()}
    result = function(**arguments)
    return [(t.dtype, tuple(t.shape), t.stride(), t.contiguous().view(torch.uint8).numpy().tobytes() if t.numel() else b"")
            for t in tensors_in([result, list(arguments.values())])]


def another(name, default, given):
    if name in OTHERS and OTHERS[name] != given:
        return OTHERS[name]
    value = default if given is None else given
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return 2 * value + type(value)(1)
    return None


@pytest.mark.parametrize("name", sorted(CASES))
def test_options_are_passed_on(name, monkeypatch):
    torch.manual_seed(1)
    function, arguments = find(name), first_call(name, monkeypatch)
    monkeypatch.undo()
    parameters, lines, silent = inspect.signature(function).parameters, function.__doc__.splitlines(), []
    arguments |= {key: value for key, value in SEEDED.items() if key in parameters}
    for option, parameter in parameters.items():
        value = None if parameter.default is parameter.empty else another(option, parameter.default, arguments.get(option))
        said = next((line for line in lines if line.strip().startswith(f"{option}: ")), "")
        if value is None or option in NOT_SEEN or "of no effect" in said:
            continue
        beside = {key: it for key, it in BESIDE.get(option, {}).items() if key in parameters}
        beside = {key: it(arguments[key]) if callable(it) else it for key, it in beside.items()}
        given = outcome(function, arguments | beside)
        try:
            if outcome(function, arguments | beside | {option: value}) == given:
                silent.append(f"{option}={value!r}")
        except (ValueError, NotImplementedError):
            pass  # refused
    assert not silent, f"{name}: {', '.join(silent)}"
