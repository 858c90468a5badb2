#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/coverage.md: which of upstream's public functions and classes the Python package has.

    PYTHONPATH=build/python build/venv/bin/python tools/upstream_coverage.py > docs/coverage.md

A name runs if the package has it (tests hold its signature against upstream's), partly if PARTLY says what it refuses.
"""
import importlib
import json
import pathlib

from flashinfer_c import _api, _core

ROOT = pathlib.Path(__file__).resolve().parent.parent
UPSTREAM = json.loads((ROOT / "tests/python/upstream_signatures.json").read_text())

OTHER_NAMES = {"flashinfer.fp4_quantization", "flashinfer.fp8_quantization"}  # of what flashinfer.quantization has
VARIANTS = "backends beside auto, fa2 and fa3; variants in C++ (ours are hooks)"
FOUR_OVER_SIX = "nvfp4_4over6"
# What raises NotImplementedError, beside what the kernels of a device say that they do not serve.
PARTLY = {
    "mamba.selective_state_update.selective_state_update": "states of int16: state_scale, intermediate_state_scales",
    "mamba.checkpointing_ssu.checkpointing_ssu": "states of 8 bits: state_scale",
    "decode.BatchDecodeWithPagedKVCacheWrapper": VARIANTS + "; window_right",
    "prefill.BatchPrefillWithPagedKVCacheWrapper": VARIANTS + "; variant_owns_mask; use_fp16_softmax; "
                                                             "uses_spcompress",
    "prefill.BatchPrefillWithRaggedKVCacheWrapper": VARIANTS + "; variant_owns_mask",
    "decode.trtllm_batch_decode_with_kv_cache": "masks among the newest tokens; nvfp4 outputs; context "
                                                "parallelism; pages of K and V apart",
    "decode.xqa_batch_decode_with_kv_cache": "masks among the newest tokens",
    "prefill.trtllm_batch_context_with_kv_cache": "nvfp4 outputs; pages of K and V apart; use_fp16_softmax; uses_spcompress",
    "cascade.MultiLevelCascadeAttentionWrapper": "window_left and pos_encoding_mode of more than one level",
    "sparse.BlockSparseAttentionWrapper": "causal; pos_encoding_mode; block_mask and what else belongs to Blackwell's kernels",
    "sparse.VariableBlockSparseAttentionWrapper": "causal; pos_encoding_mode",
    "attention.BatchAttention": "profiler buffers",
    "pod.PODWithPagedKVCacheWrapper": "masks of the decoded part, which upstream takes and ignores; variants",
    "attention.BatchAttentionWithAttentionSinkWrapper": "as BatchPrefillWithPagedKVCacheWrapper",
    "gdn_decode.gated_delta_rule_mtp": "cache_replayssm",
    "gdn_kernels.gdn_decode_bf16_state.gated_delta_rule": "softplus_beta and softplus_threshold other than 1 and 20",
    "gdn_kernels.gdn_decode_bf16_state.gated_delta_rule_mtp":
        "softplus_beta and softplus_threshold other than 1 and 20; accepted_steps and recovery_steps beside "
        "intermediate_states_buffer or ssm_state_indices",
    "quantization.fp8_quantization.per_token_group_quant_8bit": "float8_e5m2; groups other than 16, 32, 64, 128, 256, 512",
    **{"quantization.fp4_quantization." + name: FOUR_OVER_SIX for name in
       ("fp4_quantize", "nvfp4_quantize", "nvfp4_batched_quantize", "scaled_fp4_grouped_quantize", "silu_and_mul_nvfp4_quantize",
        "silu_and_mul_scaled_nvfp4_experts_quantize")},
}


def missing(thing):
    """What PARTLY says of a function or class, wherever it was found."""
    name = thing.func if hasattr(thing, "func") else thing
    return PARTLY.get(f"{name.__module__.partition('.')[2]}.{name.__name__}")


def rows(module, names):
    """(name, state, what is refused) of the names that a module defines."""
    at_root = UPSTREAM["modules"]["flashinfer"]
    try:
        ours = importlib.import_module("flashinfer_c" + module.removeprefix("flashinfer"))
    except ModuleNotFoundError:
        ours = importlib.import_module("flashinfer_c")
        names = {name: upstream if at_root.get(name) == f"{module}.{name}" else None for name, upstream in names.items()
                 if not (hasattr(ours, name) and at_root.get(name) == upstream)}  # listed at the root, where we have it
    for name, upstream in names.items():
        if upstream is None:
            yield name, "absent", ""
            continue
        if isinstance(upstream, str) and upstream.startswith("flashinfer.") and upstream.rpartition(".")[2] == name:
            continue  # listed where it is defined
        thing = getattr(ours, name, None)
        if thing is None:
            yield name, "absent", ""
        else:
            refused = missing(thing)
            yield name, "partly" if refused else "running", refused or ""


def main():
    unknown = PARTLY.keys() - _api.PUBLIC.keys()
    if unknown:
        raise SystemExit(f"PARTLY names what is not public: {sorted(unknown)}")
    modules = {module: names for module, names in UPSTREAM["modules"].items() if module not in OTHER_NAMES}
    tables = {module: list(rows(module, names)) for module, names in modules.items()}
    listed = {name for module, table in tables.items() if module != "flashinfer" for name, *_ in table}
    tables["flashinfer"] = [row for row in tables["flashinfer"] if row[0] not in listed]
    every = [row for table in tables.values() for row in table]
    count = {state: sum(row[1] == state for row in every) for state in ("running", "partly", "absent")}
    print(f"""# Coverage of upstream's Python interface

Made by `tools/upstream_coverage.py`; do not edit. Upstream is flashinfer-python {UPSTREAM["version"]}: {len(every)} public
functions and classes, of which {count["running"]} run here, {count["partly"]} run but for what their line says, and
{count["absent"]} are absent: hasattr() and find_spec() say so. All {len(_core.op_names)} ops of the library are reached by the
functions that run; `flashinfer_c.ops` has each as the library declares it.
""")
    for module, table in sorted(tables.items(), key=lambda item: (all(row[1] == "absent" for row in item[1]), item[0])):
        if not table:
            continue
        have = [row for row in table if row[1] != "absent"]
        print(f"## {module}\n")
        if have:
            print("| name | state | refused |\n| --- | --- | --- |")
            for name, state, refused in have:
                print(f"| `{name}` | {state} | {refused} |")
            print()
        absent = [f"`{name}`" for name, state, _ in table if state == "absent"]
        if absent:
            print("Absent: " + ", ".join(absent) + ".\n")


main()
