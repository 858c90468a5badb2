#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What CPU rows make of the bandwidth of a copy, on inputs that no cache holds: `flashinfer bench` of each call below, in turn
with copies.

Usage: bench/large_on_cpu.py [--flashinfer build/flashinfer] [--before TREE] [--rounds 3] [--only REGEX] [--csv FILE]

With --before, the kernels of another source tree run in turn with those of the program. Figures are medians of the rounds;
"of copy" divides by the copy of the same round. FLASHINFER_NUM_THREADS=1 shows what one thread makes of it, by its own clock.
"""

import argparse
import csv
import json
import os
import re
import shlex
import statistics
import subprocess
import sys

CALLS = [
    "rmsnorm rows=16384 hidden=4096 dtype=bf16",
    "rmsnorm rows=16384 hidden=4096 dtype=f16",
    "rmsnorm rows=1048576 hidden=128 dtype=bf16",
    "rmsnorm rows=16384 hidden=4096 dtype=f32",
    "gemma_rmsnorm rows=16384 hidden=4096 dtype=bf16",
    "fused_add_rmsnorm rows=16384 hidden=4096 dtype=bf16",
    "fused_add_rmsnorm rows=16384 hidden=4096 dtype=bf16 residual:dtype=f32",
    "gemma_fused_add_rmsnorm rows=16384 hidden=4096 dtype=bf16",
    "rmsnorm_quant rows=16384 hidden=4096 dtype=bf16",
    "fused_add_rmsnorm_quant rows=16384 hidden=4096 dtype=bf16",
    "layernorm rows=16384 hidden=4096 dtype=bf16",
    "layernorm_quant rows=16384 hidden=4096 dtype=bf16",
    "fused_rmsnorm_silu rows=16384 hidden=4096 dtype=bf16",
    "fused_rmsnorm_silu_nvfp4 rows=16384 hidden=4096 dtype=bf16",
    "fused_qk_rmsnorm_rope --shape wan_14b rows=7200 pph=90",
    "rmsnorm_fp4quant --shape llama_8b_prefill rows=32768",
    "add_rmsnorm_fp4quant --shape llama_8b_prefill rows=16384",
    "silu_and_mul rows=4096 intermediate=14336 dtype=bf16",
    "silu_and_mul rows=4096 intermediate=14336 dtype=f16",
    "silu_and_mul rows=4096 intermediate=14336 input:dtype=bf16 out:dtype=e4m3",
    "gelu_and_mul rows=4096 intermediate=14336 dtype=bf16",
    "gelu_tanh_and_mul rows=4096 intermediate=14336 dtype=bf16",
    "apply_rope --shape llama_8b_prefill nnz=16384",
    "apply_rope_inplace --shape llama_8b_prefill nnz=16384",
    "apply_rope_pos_ids --shape llama_8b_prefill nnz=16384",
    "apply_rope_pos_ids --shape llama_8b_prefill nnz=16384 interleave=1",
    "apply_rope_pos_ids_inplace --shape llama_8b_prefill nnz=16384",
    "apply_llama31_rope --shape llama_8b_prefill nnz=16384",
    "apply_llama31_rope_inplace --shape llama_8b_prefill nnz=16384",
    "apply_llama31_rope_pos_ids --shape llama_8b_prefill nnz=16384",
    "apply_llama31_rope_pos_ids_inplace --shape llama_8b_prefill nnz=16384",
    "apply_rope_with_cos_sin_cache --shape llama_8b_prefill nnz=16384",
    "apply_rope_with_cos_sin_cache_inplace --shape llama_8b_prefill nnz=16384",
    "rope_quantize_fp8 nnz=16384 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 q_nope_dim=64 k_nope_dim=64 max_positions=8192 "
    "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64",
    "mla_rope_quantize_fp8 --shape deepseek_v3_prefill nnz=1536",
    "rope_quantize_fp8_append_paged_kv_cache --shape llama_8b_prefill nnz=16384 pages=1100 num_indices=1100",
    "rope_quantize_fp8_append_paged_mla_kv_cache --shape deepseek_v3_tp8_prefill nnz=12288 pages=300 num_indices=300",
    "append_paged_kv_cache --shape llama_8b_prefill_16k nnz=32768 pages=2200 num_indices=2200",
    "append_paged_mla_kv_cache --shape deepseek_v3_prefill nnz=131072 pages=2200 num_indices=2200",
    "concat_mla_k --shape deepseek_v3_prefill",
    "nvfp4_quantize_append_paged_kv_cache --shape llama_8b_prefill nnz=65536 pages=4200 num_indices=4200",
    "nvfp4_quantize_append_paged_kv_cache_with_slot_mapping --shape llama_8b_prefill nnz=65536 pages=4200",
    "get_batch_indices_positions --shape llama_8b_prefill nnz=33554432",
    "get_seq_lens --shape many batch=30000000",
    "packbits --shape large",
    "segment_packbits --shape large",
    "fp4_quantize --shape deepseek_v3_prefill rows=16384",
    "fp4_quantize --shape gpt_oss_prefill rows=40000",
    "fp4_quantize --shape wide rows=8000",
    "nvfp4_quantize --shape deepseek_v3_prefill rows=16384",
    "mxfp4_quantize --shape deepseek_v3_prefill rows=16384",
    "nvfp4_batched_quantize --shape large rows=1024",
    "scaled_fp4_grouped_quantize --shape large rows=1024",
    "nvfp4_kv_quantize --shape llama_8b_prefill rows=1048576",
    "silu_and_mul_nvfp4_quantize --shape deepseek_v3_prefill rows=8192",
    "silu_and_mul_scaled_nvfp4_experts_quantize --shape large rows=512",
    "mxfp8_quantize --shape deepseek_v3_prefill rows=12288",
    "per_token_group_quant_8bit --shape deepseek_v3_prefill rows=12288",
    "per_token_group_quant_8bit --shape qwen3_i8 rows=24576",
    "e2m1_and_ufp8sf_scale_to_float --shape deepseek_v3 rows=10000",
    "mxfp4_dequantize --shape deepseek_v3 rows=16384",
    "mxfp8_dequantize --shape deepseek_v3 rows=12288",
    "nvfp4_kv_dequantize --shape llama_8b rows=1048576",
    "nvfp4_kv_dequantize_paged --shape llama_70b_long",
    "block_scale_interleave --shape llama_70b_weight rows=9",
    "block_scale_interleave --shape bf16 m=16384 k=4096",
]


def run(program, tree, call):
    """GB/s and share of a copy."""
    command = [program, "bench", "--device", "cpu", "--no-refcheck", "--json"] + shlex.split(call)
    environment = dict(os.environ, FLASHINFER_SOURCE_DIR=tree) if tree else None
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    row = json.loads(text.splitlines()[0])
    return row["GB/s"], row["of copy"]


def main():
    parser = argparse.ArgumentParser(description="CPU rows on large inputs beside a copy")
    parser.add_argument("--flashinfer", default="build/flashinfer")
    parser.add_argument("--before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--csv")
    arguments = parser.parse_args()
    trees = ([arguments.before] if arguments.before else []) + [None]
    header = ["call"] + (["before GB/s", "before of copy"] if arguments.before else []) + ["GB/s", "of copy"]
    file = open(arguments.csv, "w", encoding="ascii", newline="") if arguments.csv else None
    if file:
        file.write("# " + " ".join(sys.argv) + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
    for call in CALLS:
        if not re.search(arguments.only, call):
            continue
        rounds = [[figure for tree in trees for figure in run(arguments.flashinfer, tree, call)] for _ in range(arguments.rounds)]
        medians = [statistics.median(column) for column in zip(*rounds)]
        row = [call] + [f"{x:.1f}" if i % 2 == 0 else f"{x:.2f}" for i, x in enumerate(medians)]
        print("  ".join(row[1:] + [call]), flush=True)
        if file:
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
