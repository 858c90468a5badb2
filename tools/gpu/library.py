# SPDX-License-Identifier: Apache-2.0
"""Calls of a libflashinfer.so on torch's tensors, by ctypes. The Python package is bound to one library; here several builds can
be loaded and timed in turn."""

import ctypes
import json
import os
import struct

CPU, CUDA, PDL = 1, 2, 1
DTYPES = {"float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16), "int32": (0, 32), "int64": (0, 64)}  # DLPack's code, bits
FORMATS = {("int", 4): "i", ("enum", 4): "i", ("int", 8): "q", ("number", 8): "d"}  # by what flashinfer_describe says of a field


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class Exec(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                ("workspace_size", ctypes.c_size_t), ("kernel", ctypes.c_char_p), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("threads", ctypes.c_int32), ("flags", ctypes.c_uint32)]


def code_and_bits(dtype):
    return DTYPES[str(dtype).removeprefix("torch.")]


def view_of(x):
    shape, strides = (ctypes.c_int64 * x.ndim)(*x.shape), (ctypes.c_int64 * x.ndim)(*x.stride())
    device = CUDA if x.is_cuda else CPU
    return DLTensor(x.data_ptr(), device, x.device.index or 0, x.ndim, *code_and_bits(x.dtype), 1, shape, strides, 0)


class Library:
    def __init__(self, torch, path):
        self.torch, self.library = torch, ctypes.CDLL(os.path.abspath(path))
        self.library.flashinfer_last_error.restype = ctypes.c_char_p
        self.workspace = torch.empty(0, dtype=torch.uint8, device="cuda")

    def check(self, status):
        if status:
            raise RuntimeError(self.library.flashinfer_last_error().decode())

    def declaration(self, op):
        needed = ctypes.c_size_t()
        self.check(self.library.flashinfer_describe(op.encode(), None, ctypes.c_size_t(0), ctypes.byref(needed)))
        text = ctypes.create_string_buffer(needed.value)
        self.check(self.library.flashinfer_describe(op.encode(), text, needed, ctypes.byref(needed)))
        return json.loads(text.value)

    def arguments(self, op, values):
        """The op's struct with these values, and the views of its tensors, which must live as long."""
        declared, views = self.declaration(op), []
        fields = {argument["name"]: argument for argument in declared["arguments"]}
        args = ctypes.create_string_buffer(declared["size"])
        struct.pack_into("N", args, 0, declared["size"])
        for name, value in values.items():
            field = fields[name]
            if isinstance(value, self.torch.Tensor):
                views.append(view_of(value))
                value = views[-1]
            if isinstance(value, (DLTensor, ctypes.Array)):
                struct.pack_into("P", args, field["offset"], ctypes.addressof(value))
            elif isinstance(value, self.torch.dtype):
                struct.pack_into("BBH", args, field["offset"], *code_and_bits(value), 1)
            else:
                struct.pack_into(FORMATS[field["kind"], field["bytes"]], args, field["offset"], value)
        return args, views

    def bind(self, op, kernel=None, **values):
        """A function that calls the op on torch's current stream, by that kernel if one is given. All calls of a library have one
        workspace."""
        args, views = self.arguments(op, values)
        how, size = Exec(ctypes.sizeof(Exec), kernel=kernel, device_type=CUDA, flags=PDL), ctypes.c_size_t()
        self.check(self.library.flashinfer_workspace_size(op.encode(), args, ctypes.byref(how), ctypes.byref(size)))
        if size.value > self.workspace.numel():
            self.workspace = self.torch.empty(size.value, dtype=self.torch.uint8, device="cuda")
        how.workspace, how.workspace_size = self.workspace.data_ptr(), self.workspace.numel()
        function = getattr(self.library, "flashinfer_" + op)

        def call():
            how.stream = self.torch.cuda.current_stream().cuda_stream
            self.check(function(args, ctypes.byref(how)))
        call.keep = (values, views, self.workspace)
        return call
