# SPDX-License-Identifier: Apache-2.0
"""Each public function against a few lines of torch, or against its inverse: arguments reach the op that they are meant for."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import flashinfer_c as fi
import states  # noqa: F401  its cases
from cases import CASES, case, close, ints, normal, rms
from flashinfer_c import _api

OWN_TESTS = {"decode", "prefill", "cascade", "attention", "pod", "sparse"}  # modules with a file of tests each


@case("norm.rmsnorm", "norm.gemma_rmsnorm")
def _(device, function, name):
    bias = float("gemma" in name)
    x, w = normal(device, 3, 5, 128), normal(device, 128)
    close(function(x, w), rms(x, w, bias=bias))
    close(function(x, w, 0.5), rms(x, w, 0.5, bias))
    out = torch.empty_like(x)
    assert function(x, w, out=out) is out and function(x, w, enable_pdl=False).equal(out)


@case("norm.fused_add_rmsnorm", "norm.gemma_fused_add_rmsnorm")
def _(device, function, name):
    x, r, w = normal(device, 5, 256), normal(device, 5, 256), normal(device, 256)
    total = x.float() + r.float()
    assert function(x, r, w, 1e-3) is None
    close(x, rms(total, w, 1e-3, float("gemma" in name)))
    assert r.equal(total.bfloat16())


def scale_tensors(value):
    """A scale as upstream takes it: of any dtype, with an axis or without, on the host."""
    return torch.tensor(value), torch.tensor([value], dtype=torch.float64), torch.tensor([value]).bfloat16()


@case("norm.rmsnorm_quant")
def _(device, function, name):
    x, w, out = normal(device, 5, 256), normal(device, 256), torch.empty(5, 256, device=device, dtype=torch.float8_e4m3fn)
    function(out, x, w, torch.tensor([0.5], device=device))
    close(out, (rms(x, w) / 0.5).clamp(-448, 448), 0.13)
    for scale in 0.5, *scale_tensors(0.5):
        again = torch.empty_like(out)
        function(again, x, w, scale)
        assert again.view(torch.uint8).equal(out.view(torch.uint8))


@case("norm.fused_add_rmsnorm_quant")
def _(device, function, name):
    x, r, w = normal(device, 5, 256), normal(device, 5, 256), normal(device, 256)
    out, total, kept = torch.empty(5, 256, device=device, dtype=torch.float8_e4m3fn), x.float() + r.float(), x.clone()
    for scale in 2.0, *scale_tensors(2.0):
        residual = r.clone()
        function(out.zero_(), x, residual, w, scale)
        close(out, rms(total, w) / 2, 0.13)
        assert residual.equal(total.bfloat16()) and x.equal(kept)


@case("norm.layernorm")
def _(device, function, name):
    x, w, b = normal(device, 5, 256), normal(device, 256, dtype=torch.float32), normal(device, 256, dtype=torch.float32)
    close(function(x, w, b, 1e-3), F.layer_norm(x.float(), (256,), w, b, 1e-3))


@case("norm.layernorm_quant")
def _(device, function, name):
    x, w, b = normal(device, 5, 256), normal(device, 256, dtype=torch.float32), normal(device, 256, dtype=torch.float32)
    out = torch.empty(5, 256, device=device, dtype=torch.float8_e4m3fn)
    for scale in 0.25, *scale_tensors(0.25):
        function(out.zero_(), x, w, b, scale)
        close(out, F.layer_norm(x.float(), (256,), w, b, 1e-6) / 0.25, 0.13)


@case("norm.fused_rmsnorm_silu")
def _(device, function, name):
    x, w = normal(device, 5, 256), normal(device, 256)
    expected = F.silu(rms(x, w))
    close(function(x, w), expected)
    codes, scales = function(x, w, out=torch.empty(5, 128, device=device, dtype=torch.uint8))
    assert scales.dtype == torch.float8_e4m3fn
    back = fi.e2m1_and_ufp8sf_scale_to_float(codes, scales.view(torch.uint8), None, 16, 1, False)
    assert F.cosine_similarity(back.flatten(), expected.flatten(), 0) > 0.98


@case("norm.fused_qk_rmsnorm_rope")
def _(device, function, name):
    qkv = normal(device, 6, 4 * 64)
    q, k, v = function(qkv, normal(device, 128), normal(device, 64), ppf=1, pph=2, ppw=3, num_frame_channels=32,
                       num_height_channels=16, num_width_channels=16, num_heads_q=2, num_heads_k=1, num_heads_v=1, head_dim=64)
    assert q.shape == (6, 2, 64) and k.shape == (6, 1, 64) and v.equal(qkv[:, 192:].unflatten(1, (1, 64)))
    assert not torch.isnan(q).any()


@case("norm.rmsnorm_fp4quant")
def _(device, function, name):
    x, w = normal(device, 5, 256), normal(device, 256)
    for swizzled, block_size, scale_format in itertools.product((False, True), (16, 32), ("e4m3", "ue8m0")):
        codes, scales = function(x, w, block_size=block_size, scale_format=scale_format, is_sf_swizzled_layout=swizzled)
        back = fi.e2m1_and_ufp8sf_scale_to_float(codes, scales, None, block_size, int(scale_format == "e4m3"), swizzled)
        assert F.cosine_similarity(back.flatten(), rms(x, w).flatten(), 0) > 0.98


@case("norm.add_rmsnorm_fp4quant")
def _(device, function, name):
    x, r, w = normal(device, 5, 256), normal(device, 5, 256), normal(device, 256)
    total = x.float() + r.float()
    codes, swizzled, linear = function(x, r, w, output_both_sf_layouts=True)
    assert r.equal(total.bfloat16())
    for scales, layout in (swizzled, True), (linear, False):
        back = fi.e2m1_and_ufp8sf_scale_to_float(codes, scales, None, 16, 1, layout)
        assert F.cosine_similarity(back.flatten(), rms(total, w).flatten(), 0) > 0.98
    assert len(function(x, r, w)) == 2


@case("activation.silu_and_mul", "activation.gelu_and_mul", "activation.gelu_tanh_and_mul")
def _(device, function, name):
    x = normal(device, 2, 3, 512)
    gate, up = x.float().chunk(2, -1)
    act = {"silu": F.silu(gate), "gelu": F.gelu(gate)}.get(name.partition(".")[2].removesuffix("_and_mul"),
                                                           F.gelu(gate, approximate="tanh"))
    close(function(x), act * up)
    out = torch.empty(2, 3, 256, device=device, dtype=torch.bfloat16)
    assert function(x, out=out) is out


def rotated(x, positions, rotary_dim, interleave, theta, scale=1.0, llama31=None):
    half = torch.arange(rotary_dim // 2, device=x.device, dtype=torch.float64)
    frequency = theta ** (-2 * half / rotary_dim)
    if llama31:
        low, high, old = llama31
        smooth = ((frequency * old / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        frequency = (1 - smooth) * frequency / scale + smooth * frequency
    else:
        frequency = frequency / scale
    angle = positions.double()[:, None, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    x = x.double()
    head, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    a, b = (head[..., ::2], head[..., 1::2]) if interleave else head.chunk(2, -1)
    a, b = a * cos - b * sin, b * cos + a * sin
    return torch.cat([torch.stack([a, b], -1).flatten(-2) if interleave else torch.cat([a, b], -1), rest], -1)


@case(*(f"rope.apply_{kind}rope{ids}{place}"
        for kind in ("", "llama31_") for ids in ("", "_pos_ids") for place in ("", "_inplace")))
def _(device, function, name):
    llama31 = (2.0, 5.0, 4096) if "llama31" in name else None
    q, k = normal(device, 6, 4, 64), normal(device, 6, 2, 64)
    if "pos_ids" in name:
        where = (ints(device, 0, 3, 2, 9, 5, 1),)
        positions = where[0]
    else:
        where = ints(device, 0, 2, 6), ints(device, 7, 1)
        positions = ints(device, 7, 8, 1, 2, 3, 4)
    for rotary_dim, interleave in (None, False), (32, True):
        options = {"rope_scale": 2.0, "rope_theta": 5e3}
        if llama31:
            options |= {"low_freq_factor": llama31[0], "high_freq_factor": llama31[1], "old_context_len": llama31[2]}
        expected = [rotated(x, positions, rotary_dim or 64, interleave, 5e3, 2.0, llama31) for x in (q, k)]
        found = q.clone(), k.clone()
        result = function(*found, *where, rotary_dim, interleave, **options)
        if "inplace" in name:
            assert result is None
        else:
            assert found[0].equal(q) and found[1].equal(k)
            found = result
        for one, other in zip(found, expected):
            close(one, other)


def cos_sin(device, positions, rotary_dim):
    angle = torch.arange(positions, device=device)[:, None] * 1e4 ** (-torch.arange(0, rotary_dim, 2, device=device) / rotary_dim)
    return torch.cat([angle.cos(), angle.sin()], -1).float()


@case("rope.apply_rope_with_cos_sin_cache", "rope.apply_rope_with_cos_sin_cache_inplace")
def _(device, function, name):
    q, k, positions = normal(device, 5, 4 * 64), normal(device, 5, 2 * 64), torch.tensor([3, 1, 4, 0, 5], device=device)
    for neox in True, False:
        found = q.clone(), k.clone()
        result = function(positions=positions, query=found[0], key=found[1], head_size=64, cos_sin_cache=cos_sin(device, 8, 64),
                          is_neox=neox)
        for one, other in zip(found if "inplace" in name else result, (q, k)):
            close(one.unflatten(1, (-1, 64)), rotated(other.unflatten(1, (-1, 64)), positions, 64, not neox, 1e4))


@case("rope.rope_quantize_fp8", "rope.mla_rope_quantize_fp8")
def _(device, function, name):
    mla = "mla" in name
    q, qn = normal(device, 5, 4, 64), normal(device, 5, 4, 128)
    k, kn = (normal(device, 5, 64), normal(device, 5, 128)) if mla else (normal(device, 5, 2, 64), normal(device, 5, 2, 128))
    positions = torch.tensor([3, 1, 4, 0, 5], device=device)
    q_out, k_out, qn_out, kn_out = function(q, k, qn, kn, cos_sin(device, 8, 64), positions, quant_scale_q=2.0,
                                            quant_scale_kv=0.5)
    close(q_out, 2 * rotated(q, positions, 64, False, 1e4), 0.13)
    close(k_out.reshape(5, -1, 64), 0.5 * rotated(k.reshape(5, -1, 64), positions, 64, False, 1e4), 0.13)
    close(qn_out, 2 * qn.float(), 0.13)
    close(kn_out, 0.5 * kn.float(), 0.13)
    found = function(q, k, None, None, cos_sin(device, 8, 64), positions, quant_scale_q=2.0, quant_scale_kv=0.5)
    assert [tuple(t.shape) for t in found[2:]] == [(5, 4, 0), (*k.shape[:-1], 0)] and found[2].dtype == found[3].dtype
    for rope, nope, expected in (found[0], found[2], q_out), (found[1], found[3], k_out):
        assert torch.cat((rope, nope), -1).view(torch.uint8).equal(expected.view(torch.uint8))


@case("rope.rope_quantize_fp8_append_paged_kv_cache")
def _(device, function, name):
    positions, batch = ints(device, 0, 1, 2), ints(device, 0, 0, 1)
    table = ints(device, 1, 0), ints(device, 0, 1, 2)
    for mla in False, True:
        heads = () if mla else (2,)
        q, qn = normal(device, 3, 4, 64), normal(device, 3, 4, 128)
        k, kn, v = normal(device, 3, *heads, 64), normal(device, 3, *heads, 128), normal(device, 3, 2, 128)
        widths = (128, 64) if mla else (192, 128)
        cache = tuple(torch.zeros(2, 4, *heads, width, device=device, dtype=torch.float8_e4m3fn) for width in widths)
        q_out, qn_out = function(q, k, qn, kn, None if mla else v, cos_sin(device, 8, 64), positions, cache, *table, batch,
                                 positions, page_size=4)
        close(qn_out, qn.float(), 0.13)
        close(cache[0][1, 1].reshape(-1)[-128:], kn[1].float().reshape(-1)[-128:], 0.13)
        assert cache[0].float().count_nonzero() > 0
        with pytest.raises(ValueError, match="page_size"):
            function(q, k, qn, kn, None if mla else v, cos_sin(device, 8, 64), positions, cache, *table, batch, positions)
    k, (k_cache, v_cache) = normal(device, 3, 2, 64), (cache[0].new_zeros(2, 4, 2, width) for width in (64, 128))
    rope_alone = function(q, k, None, None, v, cos_sin(device, 8, 64), positions, (k_cache, v_cache), *table, batch,
                          positions, page_size=4)
    assert rope_alone[1].shape == (3, 4, 0) and torch.cat(rope_alone, -1).float().equal(q_out.float())


@case("page.append_paged_kv_cache")
def _(device, function, name):
    key, value = normal(device, 3, 2, 64), normal(device, 3, 2, 64)
    args = ints(device, 0, 1, -1), torch.tensor([5, 0, 0], device=device)
    table = ints(device, 2, 0, 1), ints(device, 0, 2, 3), ints(device, 2, 1)
    for layout, shape in ("NHD", (3, 2, 4, 2, 64)), ("HND", (3, 2, 2, 4, 64)):
        cache = torch.zeros(shape, device=device, dtype=torch.bfloat16)
        assert function(key, value, *args, cache, *table, layout) is None
        rows = cache if layout == "NHD" else cache.transpose(2, 3)
        assert rows[0, 0, 1].equal(key[0]) and rows[0, 1, 1].equal(value[0]) and rows[1, 0, 0].equal(key[1])
        assert cache.count_nonzero() == 4 * 2 * 64 or (key == 0).any()
        pair = torch.zeros_like(cache[:, 0]), torch.zeros_like(cache[:, 1])
        function(key, value, *args, pair, *table, layout)
        assert pair[0].equal(cache[:, 0]) and pair[1].equal(cache[:, 1])
        # Without an axis of pages each token is one.
        tokens = ints(device, 0, 0, 1), ints(device, 0, 1, 0), ints(device, 4, 0, 1), ints(device, 0, 2, 3), ints(device, 1, 1)
        cache = torch.zeros(5, 2, 2, 64, device=device, dtype=torch.bfloat16)
        pair = torch.zeros_like(cache[:, 0]), torch.zeros_like(cache[:, 1])
        for written in cache, pair:
            function(key, value, *tokens[:2], written, *tokens[2:], layout)
        assert pair[0].equal(cache[:, 0]) and pair[1].equal(cache[:, 1])
        assert pair[0][[4, 0, 1]].equal(key) and pair[1][[4, 0, 1]].equal(value) and not cache[2:4].any()


@case("page.append_paged_mla_kv_cache")
def _(device, function, name):
    ckv, kpe = normal(device, 2, 512), normal(device, 2, 64)
    caches = [torch.zeros(2, 4, width, device=device, dtype=torch.bfloat16) for width in (512, 64)]
    function(ckv, kpe, ints(device, 0, 1), ints(device, 3, 0), *caches, ints(device, 1, 0), ints(device, 0, 1, 2),
             ints(device, 4, 1))
    assert caches[0][1, 3].equal(ckv[0]) and caches[1][0, 0].equal(kpe[1])


@case("page.get_batch_indices_positions")
def _(device, function, name):
    batch, positions = function(ints(device, 0, 2, 3), ints(device, 7, 4), 4)
    assert batch.tolist() == [0, 0, 1, -1] and positions.tolist() == [5, 6, 3, 0]


@case("page.get_seq_lens")
def _(device, function, name):
    assert function(ints(device, 0, 2, 3), ints(device, 3, 1), 16).tolist() == [19, 1]


@case("page.nvfp4_quantize_append_paged_kv_cache", "page.nvfp4_quantize_append_paged_kv_cache_with_slot_mapping")
def _(device, function, name):
    key, value = normal(device, 2, 2, 64), normal(device, 2, 2, 64)
    def append(cache, scales, page, slot, slots, layout="NHD"):
        if "slot" in name:
            function(key, value, torch.tensor([page * slots + slot, -1], device=device), cache, scales, 1.0, 1.0, layout)
        else:
            function(key, value, ints(device, 0, -1), ints(device, slot, 0), cache, scales, ints(device, page),
                     ints(device, 0, 1), ints(device, slots), 1.0, 1.0, layout)

    cache = tuple(torch.zeros(2, 4, 2, 32, device=device, dtype=torch.uint8) for _ in range(2))
    scales = tuple(torch.zeros(2, 4, 2, 4, device=device, dtype=torch.float8_e4m3fn) for _ in range(2))
    append(cache, scales, 1, 3, 4)
    for one, sf, x in zip(cache, scales, (key, value)):
        back = fi.nvfp4_kv_dequantize(one[1, 3], sf[1, 3], torch.tensor([1.0], device=device), torch.float32)
        assert F.cosine_similarity(back.flatten(), x[0].float().flatten(), 0) > 0.98
        assert one[0].count_nonzero() == 0
    for layout in "NHD", "HND":  # without an axis of pages
        both, both_scales = torch.zeros_like(torch.stack(cache, 1)[:, :, 0]), torch.zeros_like(torch.stack(scales, 1)[:, :, 0])
        append(both, both_scales, 1, 0, 1, layout)
        assert both[1].equal(torch.stack(cache)[:, 1, 3]) and not both[0].any()
        assert both_scales[1].float().equal(torch.stack(scales)[:, 1, 3].float())


@case("concat_ops.concat_mla_k")
def _(device, function, name):
    from flashinfer_c.concat_ops import concat_mla_k

    assert function is None
    nope, rope, k = normal(device, 3, 4, 128), normal(device, 3, 1, 64), normal(device, 3, 4, 192)
    concat_mla_k(k, nope, rope)
    assert k.equal(torch.cat([nope, rope.expand(-1, 4, -1)], -1))


@case("gemm.mm_bf16")
def _(device, function, name):
    a, b, bias = normal(device, 5, 64), normal(device, 96, 64), normal(device, 96)
    close(function(a, b.T), a.float() @ b.float().T, 5e-2)
    close(function(a, b.T, bias, out_dtype=torch.float32), a.float() @ b.float().T + bias.float(), 5e-2)
    out = torch.empty(5, 96, device=device, dtype=torch.bfloat16)
    assert function(a, b.T, out=out) is out


@case("gemm.tinygemm_bf16")
def _(device, function, name):
    from flashinfer_c.gemm import tinygemm_bf16

    a, b, bias = normal(device, 5, 64), normal(device, 96, 64), normal(device, 96)
    for more in None, bias:
        out = torch.empty(5, 96, device=device, dtype=torch.bfloat16)
        assert tinygemm_bf16(a, b, out, more) is None
        close(out, a.float() @ b.float().T + (0 if more is None else more.float()), 5e-2)


@case("sampling.softmax")
def _(device, function, name):
    x = normal(device, 5, 300, dtype=torch.float32)
    close(function(x), x.softmax(-1), 1e-5)
    close(function(x, 0.5), (x / 0.5).softmax(-1), 1e-5)
    t = torch.rand(5, device=device) + 0.5
    close(function(x, t), (x / t[:, None]).softmax(-1), 1e-5)


@case("sampling.sampling_from_probs", "sampling.top_p_sampling_from_probs", "sampling.top_k_sampling_from_probs",
      "sampling.top_k_top_p_sampling_from_probs")
def _(device, function, name):
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05], device=device).repeat(4000, 1)
    limits = {"top_p_s": (0.6,), "top_k_s": (2,), "top_k_t": (3, 0.6)}.get(name.partition(".")[2][:7], ())
    samples = function(probs, *limits)
    assert samples.dtype == torch.int32 and samples.shape == (4000,)
    counts = samples.long().bincount(minlength=4).double() / 4000
    kept = probs[0].double().cpu() * torch.tensor([True, True] + [not limits] * 2)
    torch.testing.assert_close(counts.cpu(), kept / kept.sum(), rtol=0, atol=0.05)
    assert function(probs, *limits, seed=5, offset=8).equal(function(probs, *limits, seed=5, offset=8))
    assert not function(probs, *limits).equal(samples)
    indices = torch.zeros(3, dtype=torch.int64, device=device)
    drawn, valid = function(probs, *limits, indices=indices, return_valid=True)
    assert drawn.dtype == torch.int64 and valid.all()
    tensors = [torch.full((4000,), x, device=device) for x in limits]
    assert function(probs, *tensors, seed=5, offset=8).equal(function(probs, *limits, seed=5, offset=8))
    with pytest.raises(ValueError, match="NaN"):
        function(probs * float("nan"), *limits, check_nan=True)


@case("sampling.sampling_from_logits", "sampling.top_k_top_p_sampling_from_logits")
def _(device, function, name):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05], device=device).log().repeat(4000, 1) + 7
    limits = (3, 0.6) if "top_k" in name else ()
    counts = function(logits, *limits).long().bincount(minlength=4).double() / 4000
    kept = logits[0].softmax(-1).double().cpu() * torch.tensor([True, True] + [not limits] * 2)
    torch.testing.assert_close(counts.cpu(), kept / kept.sum(), rtol=0, atol=0.05)


@case("quantization.packbits.packbits")
def _(device, function, name):
    x = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1, 1], device=device, dtype=torch.bool)
    assert function(x).tolist() == [128, 192] and function(x, "little").tolist() == [1, 3]
    for dtype in torch.uint8, torch.int64, torch.float32:
        assert function(-x.to(dtype)).tolist() == [128, 192]


@case("quantization.packbits.segment_packbits")
def _(device, function, name):
    y, indptr = function(torch.ones(12, device=device, dtype=torch.bool), ints(device, 0, 3, 12), "little")
    assert y.tolist() == [7, 255, 1] and indptr.tolist() == [0, 1, 3]


def similar(found, expected):
    assert F.cosine_similarity(found.double().flatten(), expected.double().flatten(), 0) > 0.98


@case("quantization.fp4_quantization.fp4_quantize", "quantization.fp4_quantization.nvfp4_quantize",
      "quantization.fp4_quantization.mxfp4_quantize", "quantization.fp4_quantization.silu_and_mul_nvfp4_quantize",
      "quantization.fp4_quantization.e2m1_and_ufp8sf_scale_to_float")
def _(device, function, name):
    x, scale = normal(device, 40, 128), torch.tensor([4.0], device=device)
    back = torch.tensor([0.25], device=device)
    if "mxfp4" in name:
        codes, scales = function(x)
        similar(fi.mxfp4_dequantize(codes, scales).to(device), x)
        return
    for swizzled in True, False:
        if "silu" in name:
            codes, scales = function(x, scale, is_sf_swizzled_layout=swizzled)
        elif "nvfp4" in name:
            codes, scales = function(x, scale, fi.SfLayout.layout_128x4 if swizzled else fi.SfLayout.layout_linear)
        else:
            codes, scales = fi.fp4_quantize(x, scale, is_sf_swizzled_layout=swizzled)
        expected = F.silu(x[:, :64].float()) * x[:, 64:].float() if "silu" in name else x
        assert codes.dtype == scales.dtype == torch.uint8
        assert scales.shape == ((128, expected.shape[1] // 16) if swizzled else (40, expected.shape[1] // 16))
        similar(fi.e2m1_and_ufp8sf_scale_to_float(codes, scales, back, 16, 1, swizzled), expected)
    if name.endswith("nvfp4_quantize") and "silu" not in name:
        with pytest.raises(NotImplementedError, match="per_token_activation"):
            function(x, scale, per_token_activation=True)


@case("quantization.fp4_quantization.nvfp4_batched_quantize", "quantization.fp4_quantization.scaled_fp4_grouped_quantize",
      "quantization.fp4_quantization.silu_and_mul_scaled_nvfp4_experts_quantize")
def _(device, function, name):
    x, scales_in = normal(device, 2, 40, 256), torch.tensor([4.0, 4.0], device=device)
    if "batched" in name:
        codes, scales = function(x, scales_in[:1])
        expected = x
    else:
        codes, scales = function(x, ints(device, 40, 40), scales_in)
        codes = codes.permute(2, 0, 1)
        assert scales.shape[:2] == (32, 4) and scales.dtype == torch.float8_e4m3fn
        scales = scales.permute(5, 2, 4, 0, 1, 3).reshape(2, -1)
        expected = F.silu(x[..., :128].float()) * x[..., 128:].float() if "silu" in name else x
    for b in range(2):
        similar(fi.e2m1_and_ufp8sf_scale_to_float(codes[b].contiguous(), scales[b], torch.tensor([0.25], device=device)),
                expected[b])


@case("quantization.fp4_quantization.nvfp4_kv_quantize", "quantization.fp4_quantization.nvfp4_kv_dequantize")
def _(device, function, name):
    x, scale = normal(device, 6, 64), torch.tensor([0.5], device=device)
    codes, scales = fi.nvfp4_kv_quantize(x, scale)
    back = fi.nvfp4_kv_dequantize(codes, scales, scale)
    assert back.dtype == torch.bfloat16
    similar(back, x)


@case("quantization.fp4_quantization.nvfp4_kv_dequantize_paged")
def _(device, function, name):
    key, value = normal(device, 3, 2, 64), normal(device, 3, 2, 64)
    cache = tuple(torch.zeros(2, 4, 2, 32, device=device, dtype=torch.uint8) for _ in range(2))
    scales = tuple(torch.zeros(2, 4, 2, 4, device=device, dtype=torch.float8_e4m3fn) for _ in range(2))
    fi.nvfp4_quantize_append_paged_kv_cache_with_slot_mapping(key, value, torch.tensor([4, 5, 6], device=device), cache, scales,
                                                              1.0, 1.0)
    one = torch.tensor([1.0], device=device)
    out = [torch.zeros(1, 8, 2, 64, device=device, dtype=torch.bfloat16) for _ in range(2)]
    function(cache, scales, ints(device, 1, 0)[None], ints(device, 3), one, one, *out)
    similar(out[0][0, :3], key)
    similar(out[1][0, :3], value)
    assert out[0][0, 3:].count_nonzero() == 0
    short = [torch.zeros(1, 3, 2, 64, device=device, dtype=torch.bfloat16) for _ in range(2)]
    tokens, token_scales = (tuple(part[1, :3].contiguous() for part in pair) for pair in (cache, scales))  # pages without an axis
    function(tokens, token_scales, ints(device, 0, 1, 2)[None], ints(device, 3), one, one, *short)
    assert all(few.equal(many[:, :3]) for few, many in zip(short, out))


@case("quantization.fp4_quantization.mxfp4_dequantize", "quantization.fp4_quantization.mxfp4_dequantize_host")
def _(device, function, name):
    codes, scales = fi.mxfp4_quantize(normal(device, 5, 64), sfLayout=fi.SfLayout.layout_linear)
    args = (codes.cpu(), scales.cpu())
    assert fi.SfLayout.layout_linear == 2  # upstream's is a number, which callers pass on as one
    found = function(*args) if name.endswith("host") else function(*args, fi.SfLayout.layout_linear)
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    values = table[torch.stack([args[0] & 15, args[0] >> 4], -1).long()].reshape(5, 2, 32)
    assert found.equal((values * (args[1].float() - 127).exp2()[..., None]).reshape(5, 64))


@case("quantization.fp4_quantization.block_scale_interleave")
def _(device, function, name):
    sf = torch.randint(0, 256, (40, 6), device=device, dtype=torch.uint8)
    padded = F.pad(sf, (0, 2, 0, 88))
    expected = padded.view(1, 4, 32, 2, 4).permute(0, 3, 2, 1, 4).flatten()
    assert function(sf).equal(expected) and function is fi.nvfp4_block_scale_interleave
    out = torch.empty_like(expected)
    assert function(sf, out=out) is out and out.equal(expected)
    with pytest.raises(ValueError, match="out is"):
        function(sf, out=out[:-1])


@case("quantization.fp8_quantization.mxfp8_quantize", "quantization.fp8_quantization.mxfp8_dequantize_host")
def _(device, function, name):
    x = normal(device, 40, 96)
    for swizzled in True, False:
        values, scales = fi.mxfp8_quantize(x, swizzled)
        assert values.dtype == torch.float8_e4m3fn and scales.dim() == 1
        close(fi.mxfp8_dequantize_host(values.cpu(), scales.cpu(), swizzled).to(device), x, 0.13)


@case("quantization.fp8_quantization.per_token_group_quant_8bit")
def _(device, function, name):
    from flashinfer_c.quantization import per_token_group_quant_8bit

    x = normal(device, 6, 256)
    for column_major in False, True:
        x_q, x_s = per_token_group_quant_8bit(x, 128, column_major_scales=column_major, scale_tma_aligned=column_major)
        assert x_s.stride() == ((1, 8) if column_major else (2, 1))
        close(x_q.float() * x_s.repeat_interleave(128, 1), x, 0.13)


def own():
    return [name for name in _api.PUBLIC if name.partition(".")[0] not in OWN_TESTS]


@pytest.mark.parametrize("name", own())
def test_function(name, device):
    assert name in CASES, f"{name} has no case here"
    CASES[name](device)


def test_cases_are_of_functions_that_exist():
    assert set(CASES) <= set(_api.PUBLIC)
