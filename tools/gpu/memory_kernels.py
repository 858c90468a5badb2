#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the kernels that memory bounds, beside copies of as many bytes: bench/results/h200/memory_kernels.csv.

Usage: tools/gpu/memory_kernels.py [--flashinfer build/flashinfer] [--csv FILE] [--dry]
       --dry prints the commands

Large problems are timed cold, each followed by a copy that reads and writes as many bytes and is timed the same way; share is the
copy's time over ours. Small ones are timed warm: the latency of a node. All with programmatic dependent launch.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys

COLUMNS = ["op", "problem", "kernel", "MB", "us", "copy us", "share"]
NORMS = "rmsnorm fused_add_rmsnorm rmsnorm_quant layernorm"
E2M1 = "is_sf_swizzled_layout=SWIZZLED"
TILES = "--shape llama_8b_prefill"  # the first named shape leaves an output out
BOTH = TILES + " output_both_sf_layouts=1"
LARGE = [  # ops, their problem, the kernel that is chosen for it
    (NORMS + " layernorm_quant fused_rmsnorm_silu fused_rmsnorm_silu_nvfp4", "rows=8192 hidden=4096 dtype=bf16", "norm_sm80"),
    ("rmsnorm_fp4quant", "rows=8192 hidden=4096 dtype=bf16 " + E2M1, "norm_sm80"),
    ("rmsnorm_fp4quant", "rows=8192 hidden=4096 dtype=bf16", "norm_sm80"),
    ("rmsnorm_fp4quant", "rows=8192 hidden=8192 dtype=bf16 " + E2M1, "norm_sm80"),
    ("rmsnorm_fp4quant", "rows=8192 hidden=8192 dtype=bf16", "norm_sm80"),
    ("add_rmsnorm_fp4quant", BOTH, "norm_sm80"),
    ("add_rmsnorm_fp4quant", BOTH + " -- -y_out", "norm_sm80"),
    ("add_rmsnorm_fp4quant", BOTH + " hidden=8192", "norm_sm80"),
    ("add_rmsnorm_fp4quant", BOTH + " hidden=8192 -- -y_out", "norm_sm80"),
    ("add_rmsnorm_fp4quant", TILES, "norm_sm80"),
    ("add_rmsnorm_fp4quant", TILES + " hidden=8192", "norm_sm80"),
    (NORMS, "rows=8192 hidden=5120 dtype=bf16", "norm_sm80"),
    (NORMS, "rows=8192 hidden=8192 dtype=bf16", "norm_sm80"),
    ("rmsnorm layernorm", "rows=262144 hidden=128 dtype=bf16", "norm_short_sm80"),
    ("rmsnorm_fp4quant", "rows=65536 hidden=320 dtype=bf16 " + E2M1, "norm_short_sm80"),
    ("fused_rmsnorm_silu_nvfp4", "rows=65536 hidden=320 dtype=bf16", "norm_short_sm80"),
    ("silu_and_mul", "rows=4096 intermediate=14336 dtype=bf16", None),
    ("silu_and_mul", "rows=16384 intermediate=4096 dtype=bf16", None),
    ("silu_and_mul", "rows=4096 intermediate=28672 dtype=bf16", None),
    ("apply_rope_pos_ids_inplace", "--shape llama_8b_prefill_16k", None),
    ("apply_rope_pos_ids_inplace", "--shape llama_8b_prefill", None),
    ("apply_rope_with_cos_sin_cache", "--shape llama_8b_prefill", None),
    ("rope_quantize_fp8", "nnz=4096 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 q_nope_dim=64 k_nope_dim=64 max_positions=8192 "
     "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64", None),
    ("rope_quantize_fp8", "--shape llama_8b_prefill", None),
    ("mla_rope_quantize_fp8", "--shape deepseek_v3_prefill", None),
    ("rope_quantize_fp8_append_paged_kv_cache", "--shape llama_8b_prefill", None),
    ("rope_quantize_fp8_append_paged_mla_kv_cache", "--shape deepseek_v3_tp8_prefill", None),
    ("append_paged_kv_cache", "--shape llama_8b_prefill_16k", None),
    ("fused_qk_rmsnorm_rope", "--shape wan_14b", None),
    ("nvfp4_kv_dequantize_paged", "--shape llama_70b_long", None),
    ("nvfp4_quantize", "rows=16384 columns=2880 dtype=bf16", None),
    ("nvfp4_quantize", "rows=16384 columns=2880 dtype=bf16 sf_layout=SCALES_LINEAR", None),
    ("silu_and_mul_nvfp4_quantize", "rows=4096 columns=7168 dtype=bf16", None),
    ("silu_and_mul_nvfp4_quantize", "rows=16384 columns=2880 dtype=bf16", None),
    ("mxfp8_quantize", "--shape gpt_oss_prefill", None),
    ("packbits", "--shape large", None),
]
DECODE = [
    ("rmsnorm fused_add_rmsnorm layernorm", f"rows={rows} hidden={hidden} dtype=bf16", "norm_sm80")
    for rows, hidden in ((1, 576), (1, 4096), (128, 576), (128, 4096), (64, 8192), (128, 8192))
] + [
    ("rmsnorm_fp4quant", "rows=128 hidden=4096 dtype=bf16 " + E2M1, "norm_sm80"),
    ("fused_rmsnorm_silu_nvfp4", "rows=128 hidden=4096 dtype=bf16", "norm_sm80"),
    ("add_rmsnorm_fp4quant", BOTH + " rows=128", "norm_sm80"),
    ("rope_quantize_fp8_append_paged_kv_cache", "--shape smollm2_135m", None),
    ("rope_quantize_fp8_append_paged_kv_cache", "--shape llama_8b_decode", None),
    ("rope_quantize_fp8_append_paged_mla_kv_cache", "--shape deepseek_v3_token", None),
    ("rope_quantize_fp8_append_paged_mla_kv_cache", "--shape deepseek_v3_decode", None),
]


def measure(command, warm):
    """The rows of a run, one for each op: the kernel that the library prefers comes first."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{shlex.join(command)}\n{done.stdout}{done.stderr}", file=sys.stderr)
    seen = set()
    for line in done.stdout.splitlines():
        r = json.loads(line)
        if r["op"] in seen or r["us"] is None:
            continue
        seen.add(r["op"])
        row = {"op": r["op"], "problem": r["problem"], "kernel": r["kernel"], "MB": round(r["bytes"] / 1e6, 1)}
        row["us"] = round(r["us"], 3)
        if not warm:
            copy = r["bytes"] / r["copy_GB/s"] * 1e-3
            row |= {"copy us": round(copy, 3), "share": round(copy / r["us"], 3)}
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flashinfer", default="build/flashinfer")
    parser.add_argument("--csv", type=argparse.FileType("w"), default=sys.stdout)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if not options.dry:
        options.csv.write("# tools/gpu/memory_kernels.py: flashinfer bench --pdl, with --warm where no copy stands beside\n")
        writer = csv.DictWriter(options.csv, COLUMNS, lineterminator="\n")
        writer.writeheader()
    for cases, warm in ((LARGE, False), (DECODE, True)):
        for ops, problem, kernel in cases:
            command = [options.flashinfer, "bench", "--device", "cuda", "--no-refcheck", "--pdl", "--json"]
            command += ["--warm"] * warm + (["--kernel", kernel] if kernel else []) + ops.split() + problem.split()
            if options.dry:
                print(shlex.join(command))
                continue
            for row in measure(command, warm):
                writer.writerow(row)
                options.csv.flush()


if __name__ == "__main__":
    main()
