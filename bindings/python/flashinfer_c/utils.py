# SPDX-License-Identifier: Apache-2.0
"""What users of upstream take from its utils: enums, exceptions, questions about devices, arithmetic of sizes."""

import enum

import torch


class PosEncodingMode(enum.Enum):
    """Position encoding inside attention."""

    NONE = 0
    ROPE_LLAMA = 1
    ALIBI = 2


class MaskMode(enum.Enum):
    """What hides keys from queries."""

    NON_CAUSAL = 0
    CAUSAL = 1
    CUSTOM = 2
    MULTIITEMSCORING = 3


class TensorLayout(enum.Enum):
    """Whether tokens or heads come first."""

    NHD = 0
    HND = 1


class GPUArchitectureError(Exception):
    """The device is of an architecture that an operation does not serve."""


class LibraryError(Exception):
    """A library that an operation needs is missing."""


class BackendSupportedError(Exception):
    """A backend does not serve an operation."""


class FP4Tensor:
    """Two e2m1 values a byte, and their e4m3 scales."""

    def __init__(self, data, scale, scale_start_index=0, original_shape=None):
        """data: uint8 [..., ceil(columns / 2)]; scale: float8_e4m3fn; scale_start_index: the token whose scales come first
        original_shape: the shape in values; None: that of data with twice the columns
        """
        if data.dtype != torch.uint8:
            raise ValueError(f"data is {data.dtype}, must be uint8")
        if scale.dtype != torch.float8_e4m3fn:
            raise ValueError(f"scale is {scale.dtype}, must be float8_e4m3fn")
        self.data, self.scale, self.scale_start_index = data, scale, scale_start_index
        self.original_shape = original_shape or (*data.shape[:-1], 2 * data.shape[-1])
        self.dtype = "nvfp4"


def canonicalize_torch_dtype(dtype):
    """The torch dtype of a dtype or of its name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if not isinstance(dtype, str):
        raise TypeError(f"a dtype is a torch.dtype or its name, not {dtype!r}")
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no dtype {dtype!r}")
    return found


def get_compute_capability(device):
    """(major, minor) of a CUDA device."""
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"{device} has no compute capability; it is no CUDA device")
    return torch.cuda.get_device_capability(device)


def get_device_sm_count(device):
    """The number of a CUDA device's multiprocessors."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def device_support_pdl(device):
    """Whether programmatic dependent launch has an effect on the device."""
    device = torch.device(device)
    return device.type == "cuda" and get_compute_capability(device)[0] >= 9


def get_trtllm_gen_multi_ctas_kv_counter_bytes(batch_size, num_qo_heads, sm_count):
    """The bytes of the buffer that engines zero for trtllm_batch_decode_with_kv_cache: 0, kernels need none."""
    return 0


def determine_gemm_backend(device):
    """"sm90" on Hopper, "sm80" elsewhere."""
    return "sm90" if is_sm90a_supported(device) else "sm80"


def _is(device, major, minor=None):
    return get_compute_capability(device) == (major, minor) if minor is not None else get_compute_capability(device)[0] == major


def is_sm90a_supported(device):
    """Whether the device is a Hopper."""
    return _is(device, 9)


def is_sm100a_supported(device):
    """Whether the device is a Blackwell of data centres."""
    return _is(device, 10)


def is_sm100f_supported(device):
    """Whether the device is a Blackwell of data centres, of any minor version."""
    return _is(device, 10)


def is_sm110a_supported(device):
    """Whether the device has compute capability 11.x."""
    return _is(device, 11)


def is_sm12x_supported(device):
    """Whether the device has compute capability 12.x."""
    return _is(device, 12)


def is_sm120a_supported(device):
    """Whether the device has compute capability 12.0."""
    return _is(device, 12, 0)


def is_sm121a_supported(device):
    """Whether the device has compute capability 12.1."""
    return _is(device, 12, 1)


def ceil_div(x, y):
    """x / y, rounded up."""
    return (x + y - 1) // y


def round_up(x, y):
    """The least multiple of y that is at least x."""
    return ceil_div(x, y) * y


def next_positive_power_of_2(x):
    """The least power of two that is at least x; 1 below that."""
    return 1 << max(x - 1, 0).bit_length()


def last_positive_power_of_2(x):
    """The greatest power of two that is at most x, which is at least 1."""
    return 1 << (x.bit_length() - 1)


def version_at_least(version, base_version):
    """Whether a version "1.2.3" is at least another."""

    def numbers(text):
        return [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]

    return numbers(version) >= numbers(base_version)


_cache_buf = {}


def _ceil_pow2(x):
    return 1 << (x - 1).bit_length()


def _get_range_buf(seq_len, device):
    """0, 1 .. seq_len - 1 as int32, kept for later calls under the key that engines replace with pinned copies."""
    size = _ceil_pow2(seq_len)
    key = f"range_{size}", str(device)
    if key not in _cache_buf:
        _cache_buf[key] = torch.arange(size, dtype=torch.int32, device=device)
    return _cache_buf[key][:seq_len]
