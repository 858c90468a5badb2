# SPDX-License-Identifier: Apache-2.0
"""What vLLM and SGLang import of `flashinfer`, and probe for, after install(), as of the autumn of 2026: in vllm's
v1/attention/backends/flashinfer.py, utils/flashinfer.py, v1/sample/ops and model_executor/warmup, and in sglang/srt."""

import importlib
import importlib.metadata
import inspect
import subprocess
import sys

import pytest
import torch

import flashinfer_c as fi
from flashinfer_c import autotuner, jit

SERVED = """
import flashinfer
import flashinfer.activation, flashinfer.mamba, flashinfer.norm, flashinfer.rope, flashinfer.sampling
from flashinfer import (BatchDecodeWithPagedKVCacheWrapper, BatchPrefillWithPagedKVCacheWrapper,
                        BatchPrefillWithRaggedKVCacheWrapper, MultiLevelCascadeAttentionWrapper, fast_decode_plan)
from flashinfer import SfLayout, fp4_quantize, mxfp8_quantize, nvfp4_batched_quantize, nvfp4_quantize
from flashinfer import nvfp4_block_scale_interleave
from flashinfer import block_scale_interleave, scaled_fp4_grouped_quantize, silu_and_mul_scaled_nvfp4_experts_quantize
from flashinfer import autotune
from flashinfer.autotuner import AutoTuner, autotune
from flashinfer.cascade import merge_state
from flashinfer.concat_ops import concat_mla_k
from flashinfer.decode import _get_range_buf, fast_decode_plan, get_seq_lens, trtllm_batch_decode_with_kv_cache
from flashinfer.decode import xqa_batch_decode_with_kv_cache
from flashinfer.fp4_quantization import block_scale_interleave
from flashinfer.gdn_decode import gated_delta_rule_decode_pretranspose, gated_delta_rule_mtp
from flashinfer.gdn_kernels.gdn_decode_bf16_state import gated_delta_rule, gated_delta_rule_mtp
from flashinfer.gdn_prefill import chunk_gated_delta_rule
from flashinfer.gemm import tinygemm_bf16
from flashinfer.jit import env as jit_env
from flashinfer.jit.core import check_cuda_arch, logger
from flashinfer.jit.env import FLASHINFER_WORKSPACE_DIR
from flashinfer.kda_decode import recurrent_kda
from flashinfer.mamba import selective_state_update
from flashinfer.mamba.checkpointing_ssu import allocate_checkpointing_ssu_scratch, checkpointing_ssu
from flashinfer.norm import fused_add_rmsnorm_quant, rmsnorm_quant
from flashinfer.prefill import trtllm_batch_context_with_kv_cache
from flashinfer.rope import apply_rope_with_cos_sin_cache_inplace, mla_rope_quantize_fp8, rope_quantize_fp8
from flashinfer.sampling import softmax, top_k_top_p_sampling_from_logits, top_k_top_p_sampling_from_probs
from flashinfer.sampling import top_k_sampling_from_probs, top_p_sampling_from_probs
from flashinfer.utils import FP4Tensor, device_support_pdl, get_compute_capability, get_trtllm_gen_multi_ctas_kv_counter_bytes
"""
# find_spec() of these is None: engines take another path then.
ABSENT_MODULES = ("comm", "cute_dsl", "fused_moe", "mla", "moe_ep", "jit.cubin_loader", "topk")


def test_imports_after_install():
    text = f"""
import importlib.util
import flashinfer_c
flashinfer_c.install()
{SERVED}
for name in {ABSENT_MODULES}:
    assert importlib.util.find_spec("flashinfer." + name) is None, name
import torch
assert not torch.cuda.is_initialized(), "the import initialised CUDA"
"""
    subprocess.run([sys.executable, "-c", text], check=True)


def test_signatures_that_engines_look_into():
    assert "q_len_per_req" in inspect.signature(fi.fast_decode_plan).parameters
    assert fi.fast_decode_plan is fi.decode.fast_decode_plan
    names = ["tune_mode", "cache", "tuning_buckets", "round_up", "skip_ops", "cuda_graph_profile_replays"]
    assert list(inspect.signature(fi.autotune).parameters) == names and fi.autotune is autotuner.autotune


def test_there_is_nothing_to_tune(tmp_path):
    x, w = torch.randn(3, 64), torch.randn(64)
    with torch.inference_mode(), fi.autotune(True, cache=str(tmp_path / "cache"), skip_ops={"mm"}):
        inside = fi.rmsnorm(x, w)
    assert inside.equal(fi.rmsnorm(x, w))
    tuner = autotuner.AutoTuner.get()
    assert tuner is autotuner.AutoTuner.get() and not tuner.load_configs(tmp_path / "configs")
    tuner.save_configs(tmp_path / "configs")
    tuner.clear_cache()
    assert not list(tmp_path.iterdir())


def test_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FLASHINFER_CACHE_DIR", str(tmp_path))
    jit.env._cache.cache_clear()
    assert jit.env.FLASHINFER_WORKSPACE_DIR == jit.env.FLASHINFER_JIT_DIR == tmp_path
    jit.env._cache.cache_clear()
    with pytest.raises(ImportError):
        from flashinfer_c.jit.env import FLASHINFER_CSRC_DIR  # noqa: F401


def test_whether_kernels_can_be_compiled():
    if torch.cuda.is_available():
        jit.core.check_cuda_arch()
    else:
        with pytest.raises(RuntimeError, match="no CUDA device"):
            jit.core.check_cuda_arch()


DISTRIBUTION = """
import importlib.metadata as metadata
import flashinfer_c
try:
    print(metadata.version("flashinfer_python"))
except metadata.PackageNotFoundError:
    print("none")
flashinfer_c.install()
flashinfer_c.install()
print(metadata.version("flashinfer_python"), metadata.version("flashinfer-python"), metadata.version("torch"))
print([d.name for d in metadata.distributions()].count("flashinfer-python"))
try:
    metadata.version("flashinfer-cubin")
except metadata.PackageNotFoundError:
    print("fine")
"""


def test_version_of_the_distribution():
    output = subprocess.run([sys.executable, "-c", DISTRIBUTION], check=True, capture_output=True, text=True).stdout.split("\n")
    version = fi.upstream_version
    assert output[:4] == ["none", f"{version} {version} {importlib.metadata.version('torch')}", "1", "fine"]
