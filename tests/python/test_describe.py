# SPDX-License-Identifier: Apache-2.0
"""What flashinfer_describe says is enough to call the C functions from a language that cannot read headers: ctypes here."""

import ctypes
import json
import sys

import pytest
import torch

from flashinfer_c import _core


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64)]


def struct_of(library, op, **values):
    """The op's struct with these values, and what has to live as long."""
    needed = ctypes.c_size_t()
    assert library.flashinfer_describe(op.encode(), None, ctypes.c_size_t(0), ctypes.byref(needed)) == 0
    text = ctypes.create_string_buffer(needed.value)
    assert library.flashinfer_describe(op.encode(), text, needed, ctypes.byref(needed)) == 0
    declared = json.loads(text.value)
    ends, kept = [8], []
    struct = bytearray(declared["size"])
    struct[:8] = declared["size"].to_bytes(8, sys.byteorder)
    for argument in sorted(declared["arguments"], key=lambda a: a["offset"]):
        begin, size = argument["offset"], argument["bytes"]
        assert begin >= ends[-1] and begin % min(size, 8) == 0, f"{op}: {argument['name']} begins at {begin}, {ends}"
        ends.append(begin + size)
        value = values.pop(argument["name"], None)
        if isinstance(value, torch.Tensor):
            shape = (ctypes.c_int64 * value.ndim)(*value.shape)
            value_type = {torch.float16: (2, 16), torch.int32: (0, 32)}[value.dtype]
            tensor = DLTensor(value.data_ptr(), 1, 0, value.ndim, *value_type, 1, ctypes.addressof(shape), None, 0)
            kept += [value, shape, tensor]
            value = ctypes.addressof(tensor)
        if value is not None:
            struct[begin:begin + size] = value.to_bytes(size, sys.byteorder)
    assert not values and ends[-1] <= len(struct) < ends[-1] + 8
    return (ctypes.c_char * len(struct)).from_buffer(struct), kept


@pytest.mark.parametrize("name", _core.op_names)
def test_layout_is_described(name):
    library = ctypes.CDLL(_core.LIBRARY)
    struct, _ = struct_of(library, name)
    assert library.flashinfer_call(name.encode(), struct, None) != 0  # for what is absent, not for its size
    library.flashinfer_last_error.restype = ctypes.c_char_p
    assert b"args.size" not in library.flashinfer_last_error()


def test_attention_through_ctypes_alone():
    library = ctypes.CDLL(_core.LIBRARY)
    plan = (ctypes.c_uint64 * 128)()
    exec_ = (ctypes.c_uint64 * 7)(56, 0, 0, 0, 0, 1)  # of the CPU
    planned, _ = struct_of(library, "batch_decode_plan", plan=ctypes.addressof(plan), max_batch_size=2, num_qo_heads=4,
                           num_kv_heads=2, head_dim=64, page_size=4)
    assert library.flashinfer_call(b"batch_decode_plan", planned, exec_) == 0
    q, out = torch.randn(2, 4, 64).half(), torch.empty(2, 4, 64).half()
    k, v = torch.randn(2, 3, 4, 2, 64).half()
    args, kept = struct_of(library, "batch_decode", plan=ctypes.addressof(plan), out=out, q=q, k_cache=k, v_cache=v,
                           kv_indptr=torch.tensor([0, 2, 3], dtype=torch.int32),
                           kv_indices=torch.tensor([2, 0, 1], dtype=torch.int32),
                           kv_last_page_len=torch.tensor([3, 4], dtype=torch.int32))
    assert library.flashinfer_call(b"batch_decode", args, exec_) == 0
    assert kept
    for row, (keys, values) in enumerate(((k[[2, 0]], v[[2, 0]]), (k[[1]], v[[1]]))):
        keys, values = (x.reshape(-1, 2, 64)[:7].float().repeat_interleave(2, 1) for x in (keys, values))
        weights = (torch.einsum("hd,thd->ht", q[row].float(), keys) / 8).softmax(-1)
        torch.testing.assert_close(out[row].float(), torch.einsum("ht,thd->hd", weights, values), rtol=2e-3, atol=2e-3)
