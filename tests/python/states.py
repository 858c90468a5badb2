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
    given = torch.zeros_like(final)
    assert function(q, k, v, g, beta, None, initial, cu_seqlens=cu, output_state=given).equal(output) and given.equal(final)
    with pytest.raises(ValueError, match="cu_seqlens"):
        function(q, k, v)
    q, k, v = (x.repeat(16, 1, 1) for x in (q, k, v))
    starts, cu = (torch.tensor(x, device=device) for x in ([0, 1], [0, 80]))
    kept = torch.zeros(1, heads, dim, dim, device=device)
    output = function(q, k, v, cu_seqlens=cu, state_checkpoints=kept, checkpoint_cu_starts=starts, checkpoint_every_n_tokens=64)
    assert torch.is_tensor(output) and output.equal(function(q, k, v, cu_seqlens=cu))
    first = function(q[:64], k[:64], v[:64], output_final_state=True, cu_seqlens=torch.tensor([0, 64], device=device))[1]
    close(kept, first)
    with pytest.raises(ValueError, match="need checkpoint_every_n_tokens"):
        function(q, k, v, cu_seqlens=cu, state_checkpoints=kept, checkpoint_cu_starts=starts)


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
        for given in (states[indices.long()].contiguous(), {}), (None, dict(initial_state=states, initial_state_indices=indices)):
            state, pool = given[0], given[1].get("initial_state", given[0])
            before, each = pool.clone(), torch.empty(batch, 1, heads, dim, dim, device=device)
            assert function(q, k, v, state, log, a, bias, b, intermediate_states_buffer=each, disable_state_update=True,
                            **given[1])[0].equal(output)
            assert pool.equal(before)
            close(each[:, 0], final)
    else:
        pool = states.clone()
        output, _ = function(q, k, v, pool, indices, log, a, bias, b)
        assert pool.equal(states)
        function(q, k, v, pool, indices, log, a, bias, b, disable_state_update=False)
        close(pool[indices.long()], final)

        # With rows for the states after each token no other is written: not the one that was read, not output_state_indices.
        q, k, v, a, b = (torch.cat((x, x), 1) for x in (q, k, v, a, b))
        kept = ints(device, 1, -1, -1, 3, -1, -1).view(batch, 2)
        for written in None, ints(device, -1, 1, -1):
            pool = states.clone()
            function(q, k, v, pool, indices, log, a, bias, b, ssm_state_indices=kept, disable_state_update=False,
                     output_state_indices=written)
            assert pool[indices.long()].equal(states[indices.long()]) and not pool[3].equal(states[3])
            close(pool[1], final[0])
    close(output[:, 0], expected)


@case("gdn_kernels.gdn_decode_bf16_state.gated_delta_rule", "gdn_kernels.gdn_decode_bf16_state.gated_delta_rule_mtp")
def _(device, function, name):
    from flashinfer_c import gdn_decode
    from flashinfer_c.gdn_kernels import gdn_decode_bf16_state

    function = getattr(gdn_decode_bf16_state, name.rpartition(".")[2])
    batch, heads, dim, tokens = 3, 4, 128, 3 if "mtp" in name else 1
    q, k = (normal(device, batch, tokens, 2, dim) for _ in range(2))
    v, a, b = normal(device, batch, tokens, heads, dim), *(normal(device, batch, tokens, heads) for _ in range(2))
    log, bias, states = torch.randn(heads, device=device), torch.randn(heads, device=device), normal(device, 9, heads, dim, dim)
    rows, others = ints(device, 4, 0, 2), ints(device, 1, 3, 5)
    each = torch.empty(batch, tokens, heads, dim, dim, device=device, dtype=torch.bfloat16)
    expected = gdn_decode.gated_delta_rule_mtp(q, k, v, states, rows, log, a, bias, b, intermediate_states_buffer=each)[0]

    def run(**options):
        """The pool after a call whose output is as expected."""
        pool = states.clone()
        output = function(log, a, bias, q=q, k=k, v=v, b=b, initial_state_source=pool, initial_state_indices=rows, **options)
        close(output, expected)
        return pool

    def after(rows, written):
        pool = states.clone()
        pool[rows.long()] = written
        return pool

    close(run(), after(rows, each[:, -1]))
    close(run(output_state_indices=others), after(others, each[:, -1]))
    with pytest.raises(NotImplementedError, match="softplus_beta"):
        run(softplus_beta=2.0)
    if "mtp" not in name:
        return
    again, accepted = torch.empty_like(each), ints(device, 2, 0, 1)
    assert run(intermediate_states_buffer=again, disable_state_update=True).equal(states) and again.equal(each)
    picked = each[torch.arange(batch, device=device), accepted.long()]
    close(run(accepted_steps=accepted), after(rows, picked))
    close(run(accepted_steps=accepted, output_state_indices=others, disable_output=True), after(others, picked))
    close(run(recovery_steps=1), after(rows, each[:, 0]))
    kept = ints(device, 1, 4, 3, 5, 0, 6, 7, 8, -1).view(batch, tokens)
    scattered = after(kept.flatten()[:-1], each.flatten(0, 1)[:-1])
    close(run(ssm_state_indices=kept), scattered)
    with pytest.raises(NotImplementedError, match="accepted_steps"):
        run(ssm_state_indices=kept, accepted_steps=accepted)
    with pytest.raises(ValueError, match="excludes"):
        run(ssm_state_indices=kept, disable_state_update=True)


@case("mamba.selective_state_update.selective_state_update")
def _(device, function, name):
    from flashinfer_c.mamba import selective_state_update

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
    before = state.clone()  # vLLM's padding is row 0
    out = selective_state_update(state, x, dt, A, B, C, D, z, bias, True, indices, pad_slot_id=0)
    assert state[0].equal(before[0]) and not out[1].any() and out[0].any() and not state[2].equal(before[2])
    with pytest.raises(NotImplementedError, match="state_scale"):
        selective_state_update(state, x, dt, A, B, C, D, state_scale=bias)

    # Indices may be columns of a table and longer than the batch; rounds say nothing without a seed.
    table, pool, same = indices.int().repeat(3)[:, None].expand(-1, 2).clone(), kept.clone(), kept.clone()
    close(selective_state_update(pool, x, dt, A, B, C, D, z, bias, True, table[:, 0], philox_rounds=0,
                                 num_accepted_tokens=ints(device, 1, 1, 1, 1)),
          selective_state_update(same, x, dt, A, B, C, D, z, bias, True, indices))
    assert pool.equal(same)

    # Packed: sequences of one and two tokens, as the same tokens one after the other, with the states after each kept.
    rows, starts = torch.tensor([[1, 0], [3, 2]], device=device), ints(device, 0, 1, 3)
    packed = kept.clone()
    out = selective_state_update(packed, x, dt, A, B, C, D, z, bias, True, rows, dst_state_batch_indices=rows, cache_steps=2,
                                 cu_seqlens=starts)
    assert out.shape == x.shape
    single = kept.clone()
    for tokens, source, target in ((slice(0, 1), 1, 1), (slice(1, 2), 3, 3), (slice(2, 3), 3, 2)):
        one = selective_state_update(single, x[tokens], dt[tokens], A, B[tokens], C[tokens], D, z[tokens], bias, True,
                                     ints(device, source), dst_state_batch_indices=ints(device, target))
        close(out[tokens], one)
    close(packed, single)

    # Without heads, and rounded at random: between the neighbours, the same for the same seed.
    few = [m[:, 0] for m in (x, dt)] + [A[0]] + [m[:, 0] for m in (B, C)] + [D[0]]
    narrow = kept[:, 0].half()
    wide, twice, other = narrow.float(), narrow.clone(), narrow.clone()
    assert selective_state_update(wide, *few).shape == (3, 1, 32)
    seed = torch.tensor([7], device=device)
    selective_state_update(narrow, *few, rand_seed=seed)
    selective_state_update(twice, *few, rand_seed=seed)
    selective_state_update(other, *few, rand_seed=seed + 1)
    assert twice.equal(narrow) and not other.equal(narrow)
    assert ((narrow.float() - wide).abs() <= wide.abs().clamp(min=2**-14) * 2**-10 * 1.001).all()
    assert not wide.half().equal(narrow)


@case("mamba.checkpointing_ssu.checkpointing_ssu")
def _(device, function, name):
    from flashinfer_c.mamba.checkpointing_ssu import allocate_checkpointing_ssu_scratch, checkpointing_ssu

    batch, tokens, heads, groups, dim, width, ring, window = 3, 2, 4, 2, 32, 32, 6, 4
    log, bias, D = -torch.rand(heads, device=device), normal(device, heads), normal(device, heads)
    weights = dict(A=log[:, None, None].expand(-1, dim, width), D=D[:, None].expand(-1, dim),
                   dt_bias=bias[:, None].expand(-1, dim), dt_softplus=True)
    state, rows = normal(device, 5, heads, dim, width, dtype=torch.float32), torch.tensor([4, 0, 2], device=device)
    rings = dict(x_cache=normal(device, 5, heads, ring, dim), B_cache=normal(device, 5, groups, ring, width),
                 dt_cache=torch.full((5, heads, ring), float("nan"), device=device))
    start, live = ints(device, 3, 0, 5, 1, 2), torch.zeros(5, dtype=torch.int32, device=device)
    accepted_state, first = state[rows].double(), state.clone()  # after all accepted tokens

    def step(s, x, dt, B, C, z):
        delta = F.softplus(dt.double() + bias.double())[..., None]
        b, c = (m.double().repeat_interleave(heads // groups, 1)[:, :, None] for m in (B, C))
        s = s * torch.exp(log.double()[:, None] * delta)[..., None] + (delta * x.double())[..., None] * b
        return s, ((s * c).sum(-1) + D.double()[:, None] * x.double()) * F.silu(z.double())

    for accept in ([2, 1, 0], [1, 2, 2], [2, 2, 2], [2, 0, 1], [1, 1, 2]):
        x, z = normal(device, batch, tokens, heads, dim), normal(device, batch, tokens, heads, dim)
        dt, B, C = normal(device, batch, tokens, heads), *(normal(device, batch, tokens, groups, width) for _ in range(2))
        given = dict(x=x, dt=dt[..., None].expand(-1, -1, -1, dim), B=B, C=C, z=z, out=torch.empty_like(x))
        shared = weights | dict(ring_start=start, prev_num_accepted_tokens=live, state_batch_indices=rows)
        before, kept = state.clone(), {name: ring.clone() for name, ring in rings.items()}
        out = checkpointing_ssu(state, **rings, **given, **shared)
        assert out is given["out"]
        one = {name: value.reshape(1, -1, *value.shape[2:]) for name, value in given.items() if name != "dt"}
        one["dt"] = dt.reshape(1, -1, heads, 1).expand(-1, -1, -1, dim)
        packed = checkpointing_ssu(before.clone(), **kept, **one | {"out": torch.empty_like(one["out"])}, **shared,
                                   cu_seqlens=ints(device, 0, 2, 4, 6), max_seqlen=tokens)
        assert packed.equal(one["out"])
        full = live[rows] + tokens > window
        close(state[rows][full], accepted_state[full])
        assert state[rows][~full].equal(before[rows][~full]) and state[1::2].equal(first[1::2])
        s = accepted_state.clone()
        for t in range(tokens):
            s, expected = step(s, x[:, t], dt[:, t], B[:, t], C[:, t], z[:, t])
            close(out[:, t], expected, 5e-2)
            more = torch.tensor(accept, device=device) > t
            accepted_state[more] = s[more]
        start[rows] = torch.where(full, (start[rows] + live[rows]) % ring, start[rows])
        live[rows] = (torch.where(full, 0, live[rows]) + torch.tensor(accept, device=device)).int()
    with pytest.raises(NotImplementedError, match="8 bits"):
        checkpointing_ssu(state.to(torch.int8), **rings, **given, **shared, state_scale=state[..., 0])
    with pytest.raises(ValueError, match="D must be the same"):
        checkpointing_ssu(state, **rings, **given, **shared | {"D": normal(device, heads, dim)})
    with pytest.raises(ValueError, match="given together"):
        checkpointing_ssu(state, **rings, **given, **shared, max_seqlen=2)
    scratch = allocate_checkpointing_ssu_scratch(3, 4, 2, 9, torch.bfloat16, device)
    assert [tuple(t.shape) for t in scratch] == [(3, 4, 32, 8), (3, 4, 16), (3, 4, 32, 8)]


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

    # Packed is the same, and so are drafts of two sequences, whose states after each token are kept.
    flat, packed = [m.reshape(1, 3, *m.shape[2:]) for m in (q, k, v, g, beta)], kept.clone()
    close(recurrent_kda(*flat, initial_state=packed, cu_seqlens=ints(device, 0, 1, 2, 3))[0], output.reshape(1, 3, 4, 128))
    close(packed, state)
    drafts, pool = [torch.cat((m, m)).reshape(3, 2, *m.shape[2:]) for m in (q, k, v, g, beta)], kept.repeat(2, 1, 1, 1)
    again = pool.clone()
    first, _ = recurrent_kda(*drafts, initial_state=pool, num_spec_tokens=1)
    second, _ = recurrent_kda(*drafts, initial_state=again, ssm_state_indices=ints(device, 0, 1, 2, 3, 4, 5).reshape(3, 2),
                              num_spec_tokens=1)
    assert first.equal(second) and pool.equal(again)

    # Without a state there is one for each row that is named; columns of a table may name them.
    table = ints(device, 1, 0, 7, 0, 4, 0).reshape(3, 2)
    starts = ints(device, 0, 1, 2, 3)
    alone, fresh = recurrent_kda(*flat, cu_seqlens=starts, ssm_state_indices=table[:, 0], output_final_state=True)
    each, one = recurrent_kda(q, k, v, g, beta, ssm_state_indices=table[:, 0], output_final_state=True)
    assert fresh.shape[0] == 8 and one.shape[0] == 3 and fresh[table[:, 0].long()].equal(one)
    assert alone.reshape(each.shape).equal(each) and not fresh[[0, 2, 3, 5, 6]].any()
    spread = ints(device, 0, 1, 8, 3, 4, -1).reshape(3, 2)
    assert recurrent_kda(*drafts, ssm_state_indices=spread, num_spec_tokens=1, output_final_state=True)[1].shape[0] == 9
    with pytest.raises(ValueError, match="ssm_state_indices has shape"):
        recurrent_kda(*drafts, initial_state=pool, ssm_state_indices=ints(device, 0, 1, 2), num_spec_tokens=1)
    with pytest.raises(ValueError, match="lower_bound"):
        recurrent_kda(q, k, v, g, beta, lower_bound=-5.0)

    # A verification keeps what the states gain, and the keys and gates.
    corrections, given = torch.zeros(3, 4, 2, 128, device=device), normal(device, 3, 4, 2, 256)
    recurrent_kda(q, k, v, g, beta, initial_state=kept, initial_state_indices=ints(device, 0, 1, 2), disable_state_update=True,
                  correction_cache=corrections, kg_cache=given)
    gained = torch.einsum("bhv,bhk->bhvk", corrections[:, :, 0], unit[1].repeat_interleave(2, 1))
    close(kept * g[:, 0].float().exp()[:, :, None, :] + gained, final)
    assert given[:, :, 0, :128].equal(k[:, 0].repeat_interleave(2, 1)) and given[:, :, 0, 128:].equal(g[:, 0])
    assert not corrections[:, :, 1].any()
    with pytest.raises(ValueError, match="disable_state_update"):
        recurrent_kda(q, k, v, g, beta, initial_state=state, kg_cache=given)

    # Checkpoints of prefill: the state that each block of a token begins with, or into rows of a pool those that it ends with.
    whole, final = kept[:1].clone(), kept[:1].clone()
    _, _, checkpoints = kda.recurrent_kda(*flat, initial_state=whole, checkpoint_every_n_tokens=1)
    assert checkpoints.shape[0] == 3 and checkpoints[0].equal(kept[0])
    rows = torch.zeros(4, *kept.shape[1:], device=device)
    kda.recurrent_kda(*flat, initial_state=final, checkpoint_every_n_tokens=1, state_checkpoints=rows,
                      checkpoint_state_indices=ints(device, 3, 1, 0))
    assert rows[3].equal(checkpoints[1]) and rows[1].equal(checkpoints[2]) and rows[0].equal(final[0]) and final.equal(whole)
    assert not rows[2].any()
    with pytest.raises(ValueError, match="state_checkpoints"):
        kda.recurrent_kda(*flat, checkpoint_every_n_tokens=1, checkpoint_state_indices=ints(device, 3, 1, 0))
