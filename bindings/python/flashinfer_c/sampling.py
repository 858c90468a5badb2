# SPDX-License-Identifier: Apache-2.0
"""Sampling of tokens from probabilities and logits.

A seed and an offset decide what is drawn. Where they are not given, both come from the framework's generator: of a CUDA device
its seed and offset, which advances; of the CPU a number that it draws."""

from . import _core
from ._api import api, as_float32, as_int32, is_torch
from ._core import empty, launcher

_softmax = launcher("softmax")
_sampling_from_probs = launcher("sampling_from_probs")
_top_k_top_p = launcher("top_k_top_p_sampling_from_probs")

_ORDERS = {"top_k_first": 0, "joint": 1}


def get_seed_and_offset(increment, generator=None, device=None):
    """The seed and the offset for the next `increment` random numbers of a torch generator (None: the device's own, of device
    None the current GPU's)."""
    torch = _core.torch
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is of type {type(generator).__name__}, must be a torch.Generator")
    device = device or (torch.device("cuda") if generator is None else generator.device)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = generator or torch.cuda.default_generators[index]
        offset = generator.get_offset()
        generator.set_offset(offset + (increment + 3) // 4 * 4)
        return generator.initial_seed(), offset
    return int(torch.randint(0, 2**62, (1,), generator=generator)), 0


def _seed(probs, generator, seed, offset):
    if seed is not None and offset is not None:
        return seed, offset
    if is_torch(probs):
        drawn = get_seed_and_offset(probs.shape[0] * 32, generator, probs.device)
    else:
        import numpy

        if generator is not None and not isinstance(generator, numpy.random.Generator):
            raise TypeError(f"generator is of type {type(generator).__name__}, must be a numpy.random.Generator")
        drawn = int((generator or numpy.random.default_rng()).integers(2**62)), 0
    return drawn[0] if seed is None else seed, drawn[1] if offset is None else offset


def _refuse_nan(values, name):
    if (values != values).any():
        raise ValueError(f"{name} contain NaN")


def _samples(probs, indices):
    count = probs.shape[0] if indices is None else indices.shape[0]
    return empty((count,), "int32" if indices is None else indices.dtype, probs), empty((count,), "bool", probs)


def _scalar_or_float32(value):
    return as_float32(value) if _core.is_array(value) and len(value.shape) else value


def _scalar_or_int32(value):
    return as_int32(value) if _core.is_array(value) and len(value.shape) else value


def _sample(probs, top_k, top_p, indices, order, deterministic, generator, check_nan, seed, offset, return_valid):
    probs = as_float32(probs)
    if check_nan:
        _refuse_nan(probs, "probs")
    samples, valid = _samples(probs, indices)
    seed, offset = _seed(probs, generator, seed, offset)
    _top_k_top_p(samples, valid, probs, _scalar_or_int32(top_k), _scalar_or_float32(top_p), indices, order, int(deterministic),
                 None, seed, offset, True)
    return (samples, valid) if return_valid else samples


_NOTES = {
    "check_nan": "True: wait for the device, and raise ValueError if there are NaN",
    "return_valid": "True: also return which rows had a candidate, bool",
    "top_k": "how many of the most likely tokens may be drawn, an int or a tensor [batch] of int32",
    "top_p": "the mass of the most likely tokens that may be drawn, a float or a tensor [batch] of float32",
    "filter_apply_order": "'top_k_first': top_p is of what top_k left; 'joint': both are of all tokens",
    "logits": "[batch, vocab] float16, bfloat16 or float32",
}


@api("softmax")
def softmax(logits, temperature=None, enable_pdl=None):
    """Returns new probabilities, float32: of logits divided by temperature."""
    out = empty(tuple(logits.shape), "float32", logits)
    _softmax(out, logits, _scalar_or_float32(temperature), enable_pdl is not False)
    return out


@api("sampling_from_probs", notes=_NOTES)
def sampling_from_probs(probs, indices=None, deterministic=True, generator=None, check_nan=False, seed=None, offset=None,
                        return_valid=False):
    """Returns the samples [batch], int32 or of the dtype of indices."""
    probs = as_float32(probs)
    if check_nan:
        _refuse_nan(probs, "probs")
    samples, valid = _samples(probs, indices)
    seed, offset = _seed(probs, generator, seed, offset)
    _sampling_from_probs(samples, valid, probs, indices, int(deterministic), None, seed, offset, True)
    return (samples, valid) if return_valid else samples


@api("softmax", "sampling_from_probs", notes=_NOTES)
def sampling_from_logits(logits, indices=None, deterministic=True, generator=None, check_nan=False, seed=None, offset=None):
    """Returns the samples [batch], int32 or of the dtype of indices, of the probabilities softmax(logits)."""
    if check_nan:
        _refuse_nan(logits, "logits")
    return sampling_from_probs(softmax(logits), indices, deterministic, generator, False, seed, offset)


@api("top_k_top_p_sampling_from_probs", notes=_NOTES)
def top_p_sampling_from_probs(probs, top_p, indices=None, deterministic=True, generator=None, check_nan=False, seed=None,
                              offset=None, return_valid=False):
    """Returns the samples [batch], int32 or of the dtype of indices."""
    return _sample(probs, None, top_p, indices, 1, deterministic, generator, check_nan, seed, offset, return_valid)


@api("top_k_top_p_sampling_from_probs", notes=_NOTES)
def top_k_sampling_from_probs(probs, top_k, indices=None, deterministic=True, generator=None, check_nan=False, seed=None,
                              offset=None, return_valid=False):
    """Returns the samples [batch], int32 or of the dtype of indices."""
    return _sample(probs, top_k, None, indices, 1, deterministic, generator, check_nan, seed, offset, return_valid)


def _order(filter_apply_order):
    if filter_apply_order not in _ORDERS:
        raise ValueError(f"filter_apply_order is {filter_apply_order!r}, must be 'top_k_first' or 'joint'")
    return _ORDERS[filter_apply_order]


@api("top_k_top_p_sampling_from_probs", notes=_NOTES)
def top_k_top_p_sampling_from_probs(probs, top_k, top_p, indices=None, filter_apply_order="top_k_first", deterministic=True,
                                    generator=None, check_nan=False, seed=None, offset=None, return_valid=False):
    """Returns the samples [batch], int32 or of the dtype of indices."""
    return _sample(probs, top_k, top_p, indices, _order(filter_apply_order), deterministic, generator, check_nan, seed, offset,
                   return_valid)


@api("softmax", "top_k_top_p_sampling_from_probs", notes=_NOTES)
def top_k_top_p_sampling_from_logits(logits, top_k, top_p, indices=None, filter_apply_order="top_k_first", deterministic=True,
                                     generator=None, check_nan=False, seed=None, offset=None):
    """Returns the samples [batch], int32 or of the dtype of indices, of the probabilities softmax(logits)."""
    if check_nan:
        _refuse_nan(logits, "logits")
    return _sample(softmax(logits), top_k, top_p, indices, _order(filter_apply_order), deterministic, generator, False, seed,
                   offset, False)
