#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Converts a GGUF model to BF16: every tensor of two or more dimensions; the others stay float32.

Usage: pip install numpy gguf
       python3 tools/convert_gguf_bf16.py MODEL.gguf MODEL.bf16.gguf

The benchmarks compare with llama.cpp on the file that this writes, so that both sides compute with the same
weights.
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType

OF_THE_WRITER = {"general.architecture", "general.file_type"}


def copy_metadata(reader, writer):
    for key, field in reader.fields.items():
        if key in OF_THE_WRITER or key.startswith("GGUF."):
            continue
        element_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=element_type)
    writer.add_file_type(LlamaFileType.MOSTLY_BF16)


def copy_tensors(reader, writer):
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
        else:
            rounded = gguf.quants.quantize(values, GGMLQuantizationType.BF16)
            writer.add_tensor(tensor.name, rounded, raw_dtype=GGMLQuantizationType.BF16)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: convert_gguf_bf16.py MODEL.gguf MODEL.bf16.gguf")
    reader = gguf.GGUFReader(sys.argv[1])
    writer = gguf.GGUFWriter(sys.argv[2], reader.fields["general.architecture"].contents())
    copy_metadata(reader, writer)
    copy_tensors(reader, writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
