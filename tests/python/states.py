# SPDX-License-Identifier: Apache-2.0
"""The cases of test_functions.py for functions that keep a state."""

import pytest
import torch
import torch.nn.functional as F

from cases import case, close, ints, normal


def delta_rule(q, k, v, decay, beta, scale, state):
    """One token of each batch: state [batch, heads, values, keys]."""
    group = v.shape[1] // q.shape[1]
    q, k = (x.double().repeat_interleave(group, 1) for x in (q, k))
    state = state.double() * decay.double()[..., None, None]
    residual = beta.double()[..., None] * (v.double() - torch.einsum("bhvk,bhk->bhv", state, k))
    state = state + torch.einsum("bhv,bhk->bhvk", residual, k)
    return scale * torch.einsum("bhvk,bhk->bhv", state, q), state


@case("gdn_prefill.chunk_gated_delta_rule")
def _(device, function, name):
    tokens, heads, dim = 5, 2, 64
    q, k = (F.normalize(normal(device, tokens, 1, dim).float(), dim=-1).bfloat16() for _ in range(2))
    v, g, beta = normal(device, tokens, heads, dim), torch.rand(tokens, heads, device=device), torch.rand(tokens, heads,
                                                                                                          device=device)
    initial = normal(device, 2, heads, dim, dim, dtype=torch.float32)
    cu = torch.tensor([0, 3, 5], device=device)
    output, final = function(q, k, v, g, beta, None, initial, True, cu)
    states = [initial[:1], initial[1:]]
    for t in range(tokens):
        b = int(t >= 3)
        expected, states[b] = delta_rule(q[t:t + 1], k[t:t + 1], v[t:t + 1], g[t:t + 1], beta[t:t + 1], dim**-0.5, states[b])
        close(output[t], expected[0])
    close(final, torch.cat(states))
    assert function(q, k, v, g, beta, None, initial, cu_seqlens=cu).equal(output)
    with pytest.raises(ValueError, match="cu_seqlens"):
        function(q, k, v)


@case("gdn_decode.gated_delta_rule_decode", "gdn_decode.gated_delta_rule_decode_pretranspose", "gdn_decode.gated_delta_rule_mtp")
def _(device, function, name):
    from flashinfer_c import gdn_decode

    function = getattr(gdn_decode, name.partition(".")[2])
    batch, heads, dim = 3, 4, 64
    q, k, v = normal(device, batch, 1, 2, dim), normal(device, batch, 1, 2, dim), normal(device, batch, 1, heads, dim)
    log, a, bias, b = (torch.randn(heads, device=device), normal(device, batch, 1, heads), normal(device, heads),
                       normal(device, batch, 1, heads))
    states = normal(device, batch + 2, heads, dim, dim, dtype=torch.float32)
    indices = ints(device, 4, 0, 2)
    decay = torch.exp(-log.exp() * F.softplus(a[:, 0].float() + bias.float()))
    unit = [F.normalize(x[:, 0].float(), dim=-1) for x in (q, k)]
    expected, final = delta_rule(*unit, v[:, 0], decay, b[:, 0].float().sigmoid(), dim**-0.5, states[indices.long()])
    if name.endswith("decode"):
        state = states[indices.long()].transpose(-1, -2).contiguous()
        output, same = function(q, k, v, state, log, a, bias, b)
        assert same is state
        close(state.transpose(-1, -2), final)
    elif name.endswith("pretranspose"):
        pool = states.clone()
        output, same = function(q, k, v, None, log, a, bias, b, initial_state=pool, initial_state_indices=indices.long())
        assert same is pool
        close(pool[indices.long()], final)
        state = states[indices.long()].contiguous()
        assert function(q, k, v, state, log, a, bias, b)[0].equal(output)
        with pytest.raises(NotImplementedError):
            function(q, k, v, state, log, a, bias, b, disable_state_update=True)
    else:
        pool = states.clone()
        output, _ = function(q, k, v, pool, indices, log, a, bias, b)
        assert pool.equal(states)
        function(q, k, v, pool, indices, log, a, bias, b, disable_state_update=False)
        close(pool[indices.long()], final)
    close(output[:, 0], expected)


@case("mamba.selective_state_update")
def _(device, function, name):
    from flashinfer_c.mamba import selective_state_update

    if device == "cuda":
        pytest.skip("no kernel for GPUs")
    state, x, z = normal(device, 4, 4, 32, 16, dtype=torch.float32), normal(device, 3, 4, 32), normal(device, 3, 4, 32)
    dt, A = torch.rand(3, 4, 32, device=device).bfloat16(), -torch.rand(4, 32, 16, device=device)
    B, C, D = normal(device, 3, 2, 16), normal(device, 3, 2, 16), normal(device, 4, 32)
    bias, indices = normal(device, 4, 32), torch.tensor([2, 0, 3], device=device)
    step = F.softplus(dt.float() + bias.float())
    b, c = (m.float().repeat_interleave(2, 1)[:, :, None] for m in (B, C))
    final = state[indices] * torch.exp(A * step[..., None]) + (step * x.float())[..., None] * b
    expected = ((final * c).sum(-1) + D.float() * x.float()) * F.silu(z.float())
    kept = state.clone()
    close(selective_state_update(state, x, dt, A, B, C, D, z, bias, True, indices, disable_state_update=True), expected, 5e-2)
    assert state.equal(kept)
    out = torch.empty_like(x)
    assert selective_state_update(state, x, dt, A, B, C, D, z, bias, True, indices, out=out) is out
    close(out, expected, 5e-2)
    close(state[indices], final)
    with pytest.raises(NotImplementedError, match="rand_seed"):
        selective_state_update(state, x, dt, A, B, C, D, rand_seed=indices)


@case("kda.recurrent_kda", "kda_decode.recurrent_kda")
def _(device, function, name):
    from flashinfer_c import kda, kda_decode

    recurrent_kda = (kda_decode if "decode" in name else kda).recurrent_kda
    q, k, v = normal(device, 3, 1, 2, 128), normal(device, 3, 1, 2, 128), normal(device, 3, 1, 4, 128)
    g, beta = -torch.rand(3, 1, 4, 128, device=device).bfloat16(), torch.rand(3, 1, 4, device=device).bfloat16()
    state = normal(device, 3, 4, 128, 128, dtype=torch.float32)
    unit = [F.normalize(x[:, 0].float(), dim=-1) for x in (q, k)]
    decayed = state * g[:, 0].float().exp()[:, :, None, :]
    expected, final = delta_rule(*unit, v[:, 0], torch.ones(3, 4, device=device), beta[:, 0], 128**-0.5, decayed)
    kept = state.clone()
    close(recurrent_kda(q, k, v, g, beta, initial_state=state, disable_state_update=True)[0][:, 0], expected)
    assert state.equal(kept)
    output, same = recurrent_kda(q, k, v, g, beta, initial_state=state, output_final_state=True)
    assert same is state
    close(output[:, 0], expected)
    close(state, final)
    with pytest.raises(NotImplementedError, match="cu_seqlens"):
        recurrent_kda(q, k, v, g, beta, cu_seqlens=ints(device, 0, 3))
