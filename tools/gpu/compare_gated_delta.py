#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the gated delta rule, Kimi Delta Attention and Mamba-2's state update against upstream FlashInfer's and the Triton
kernels of flash-linear-attention, on the same tensors.

Usage: tools/gpu/compare_gated_delta.py [--library build/libflashinfer.so] [--rounds 3] [--launches 11] [--csv FILE]
                                        [--peers upstream fla | --alone] [--shapes PREFIX,...]

Each launch: caches are flushed, a kernel of a few milliseconds hides what the host does, then the whole op runs between two
events. A round is the median of the launches; rounds alternate between the sides; the median of the rounds counts. ratio is the
peer's time over ours: above 1 ours is faster. GB/s are those of the states, read and written, or of all that checkpointing_ssu
moves; "of copy" relates them to torch's copy_ of a tensor of as many bytes, timed in the same rounds. difference is the
Frobenius norm of the outputs' difference to the peer's over the peer's norm.
"""

import argparse
import contextlib
import csv
import importlib
import os
import shlex
import statistics
import sys

from library import Library

COLUMNS = ["op", "shape", "peer", "ours us", "peer us", "ratio", "GB/s", "of copy", "difference", "error"]
DIM = 128
PREFILL = [(2, 8, [32768]), (2, 8, [8192]), (2, 8, [2048]), (2, 8, [4096] * 8), (4, 16, [32768]), (8, 32, [32768]),
           (8, 32, [8192] * 4), (16, 64, [32768]), (16, 64, [8192] * 4), (16, 64, [1024] * 8), (16, 32, [32768]),
           (16, 32, [2048]), (16, 32, [32768] + [512] * 63)]
LESS_GIVEN = [(2, 8, [8192]), (8, 32, [32768]), (8, 32, [8192] * 4), (16, 64, [8192] * 4), (16, 64, [1024] * 8), (16, 32, [2048])]
GATES = {"": ("g", "beta"), " beta only": ("beta",), " no gates": ()}
DECODE = [("pretranspose", "float32", 1), ("pretranspose", "float32", 64), ("pretranspose", "float32", 256),
          ("pretranspose", "bfloat16", 1), ("pretranspose", "bfloat16", 64), ("pretranspose", "bfloat16", 256),
          ("keys_first", "float32", 1), ("keys_first", "float32", 64), ("keys_first", "float32", 256),
          ("keys_first", "bfloat16", 1), ("keys_first", "bfloat16", 64), ("keys_first", "bfloat16", 256),
          ("pretranspose", "float16", 64), ("pretranspose", "float16", 256), ("keys_first", "float16", 64),
          ("keys_first", "float16", 256)]  # q has the dtype of states of 16 bits

KDA = [("bfloat16", 1), ("bfloat16", 64), ("bfloat16", 256), ("float16", 64), ("float16", 256)]
MAMBA = [("float32", 1), ("float32", 64), ("float32", 256), ("bfloat16", 1), ("bfloat16", 64), ("bfloat16", 256),
         ("float16", 64), ("float16", 256)]
RINGS = [("bfloat16", 1, 4), ("bfloat16", 64, 4), ("bfloat16", 256, 4), ("float16", 64, 4), ("float16", 256, 4),
         ("float32", 64, 4), ("float32", 256, 4), ("bfloat16", 64, 1), ("bfloat16", 64, 8), ("bfloat16", 64, 16)]  # tokens last


class Timer:
    def __init__(self, torch, launches):
        self.torch, self.launches = torch, launches
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def __call__(self, call):
        """Microseconds."""
        samples = []
        for i in range(-2, self.launches):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flush.fill_(i & 1)
            self.torch.cuda._sleep(2_000_000)
            begin.record()
            call()
            end.record()
            end.synchronize()
            if i >= 0:
                samples.append(begin.elapsed_time(end) * 1e3)
        return statistics.median(samples)


def prefill_shape(key_heads, value_heads, lengths):
    runs = []
    for n in dict.fromkeys(lengths):
        runs.append(f"{lengths.count(n)}x{n}")
    return f"{key_heads}/{value_heads} {'+'.join(runs)}"


def prefill(torch, ours, key_heads, value_heads, lengths, given, peers):
    """Our call, the peers' calls by name, our output, and bytes of states."""
    tokens, f32, bf16 = sum(lengths), torch.float32, torch.bfloat16

    def normal(*shape, dtype=f32):
        return torch.randn(*shape, device="cuda", dtype=dtype)
    q, k = (torch.nn.functional.normalize(normal(tokens, key_heads, DIM), dim=-1).to(bf16) for _ in range(2))
    v = normal(tokens, value_heads, DIM, dtype=bf16)
    gates = {"g": torch.exp(torch.nn.functional.logsigmoid(normal(tokens, value_heads)) / 16),
             "beta": torch.sigmoid(normal(tokens, value_heads))}
    gates = {name: gates[name] for name in GATES[given]}
    state = normal(len(lengths), value_heads, DIM, DIM)
    starts = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], device="cuda", dtype=torch.int64)
    output, final = torch.empty_like(v), torch.empty_like(state)
    mine = ours.bind("chunk_gated_delta_rule", output=output, output_state=final, q=q, k=k, v=v, initial_state=state,
                     cu_seqlens=starts, **gates)
    calls = {}
    if "upstream" in peers:
        rule = importlib.import_module("flashinfer.gdn_prefill").chunk_gated_delta_rule
        theirs, their_final = torch.empty_like(v), torch.empty_like(state)
        calls["upstream"] = lambda: rule(q, k, v, initial_state=state, output_final_state=True, cu_seqlens=starts,
                                         output=theirs, output_state=their_final, **gates)[0]
    if "fla" in peers and not given:  # which tunes itself for half a minute when it meets numbers of heads for the first time
        triton_rule = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
        log_g, transposed = torch.log(gates["g"])[None], state.transpose(-1, -2).contiguous()
        calls["fla"] = lambda: triton_rule(q[None], k[None], v[None], log_g, gates["beta"][None], initial_state=transposed,
                                           output_final_state=True, cu_seqlens=starts)[0][0]
    return mine, calls, output, 0


def decode(torch, ours, layout, state_type, batch, peers):
    key_heads, value_heads, f32 = 16, 32, torch.float32
    narrow = torch.float16 if state_type == "float16" else torch.bfloat16

    def normal(*shape, dtype=narrow):
        return torch.randn(*shape, device="cuda", dtype=dtype)
    q, k, v = (normal(batch, 1, heads, DIM) for heads in (key_heads, key_heads, value_heads))
    state = normal(batch, value_heads, DIM, DIM, dtype=getattr(torch, state_type))
    A_log, dt_bias = normal(value_heads, dtype=f32), normal(value_heads, dtype=f32)
    a, b = normal(batch, 1, value_heads), normal(batch, 1, value_heads)
    output, own = torch.empty_like(v), state.clone()
    op = "gated_delta_rule_decode" + ("_pretranspose" if layout == "pretranspose" else "")
    mine = ours.bind(op, output=output, state=own, q=q, k=k, v=v, A_log=A_log, a=a, dt_bias=dt_bias, b=b)
    calls = {}
    if "upstream" in peers:
        rule = getattr(importlib.import_module("flashinfer.gdn_decode"), op)
        calls["upstream"] = lambda: rule(q, k, v, state, A_log, a, dt_bias, b)[0]
    if "fla" in peers and state_type == "float32":  # that of the states that it writes
        recurrent = importlib.import_module("fla.ops.gated_delta_rule").fused_recurrent_gated_delta_rule
        calls["fla"] = lambda: recurrent(q, k, v, a, beta=b, initial_state=state, output_final_state=True, A_log=A_log,
                                         dt_bias=dt_bias, use_qk_l2norm_in_kernel=True, use_gate_in_kernel=True,
                                         use_beta_sigmoid_in_kernel=True, state_v_first=layout == "pretranspose")[0]
    return mine, calls, output, 2 * state.numel() * state.element_size()


def kda(torch, ours, state_type, batch, peers):
    """Upstream's kernels for decoding need sm_100."""
    heads = 32
    narrow = torch.float16 if state_type == "float16" else torch.bfloat16

    def normal(*shape, dtype=narrow):
        return torch.randn(*shape, device="cuda", dtype=dtype)
    q, k, v = (normal(batch, 1, heads, DIM) for _ in range(3))
    g = torch.nn.functional.logsigmoid(normal(batch, 1, heads, DIM))
    beta, state = torch.sigmoid(normal(batch, 1, heads)), normal(batch, heads, DIM, DIM, dtype=getattr(torch, state_type))
    output, own = torch.empty_like(v), state.clone()
    mine = ours.bind("recurrent_kda", output=output, initial_state=own, q=q, k=k, v=v, g=g, beta=beta)
    calls = {}
    if "fla" in peers:
        rule = importlib.import_module("fla.ops.kda").fused_recurrent_kda
        transposed = state.transpose(-1, -2).float().contiguous()  # it computes with float32 states
        calls["fla"] = lambda: rule(q, k, v, g, beta, initial_state=transposed, output_final_state=True,
                                    use_qk_l2norm_in_kernel=True)[0]
    return mine, calls, output, 2 * state.numel() * state.element_size()


def mamba(torch, ours, state_type, batch, peers):
    heads, groups, dim, state_dim, bf16 = 128, 8, 64, 128, torch.bfloat16

    def normal(*shape, dtype=bf16):
        return torch.randn(*shape, device="cuda", dtype=dtype)
    state, x, z = normal(batch, heads, dim, state_dim, dtype=getattr(torch, state_type)), *normal(2, batch, heads, dim)
    B, C = normal(2, batch, groups, state_dim)
    dt, D, bias = normal(batch, heads)[:, :, None].expand(-1, -1, dim), *normal(2, heads)[:, :, None].expand(-1, -1, dim)
    A = (-torch.rand(heads, device="cuda"))[:, None, None].expand(-1, dim, state_dim)
    output, own = torch.empty_like(x), state.clone()
    tokens = {"x": x, "dt": dt, "B": B, "C": C, "z": z, "out": output}
    mine = ours.bind("selective_state_update", state=own, A=A, D=D, dt_bias=bias, dt_softplus=1,
                     **{name: value[:, None] for name, value in tokens.items()})
    calls = {}
    if "upstream" in peers:
        update, theirs = importlib.import_module("flashinfer.mamba").selective_state_update, torch.empty_like(x)
        calls["upstream"] = lambda: update(state, x, dt, A, B, C, D, z=z, dt_bias=bias, dt_softplus=True, out=theirs)
    return mine, calls, output, 2 * state.numel() * state.element_size()


def rings(torch, ours, state_type, batch, tokens, peers):
    """As if all tokens were accepted: of so many calls as fill the window, of 12 tokens or 16, one writes the states."""
    heads, groups, dim, state_dim, window = 128, 8, 64, 128, 16 if tokens in (1, 8, 16) else 12

    def normal(*shape, dtype=torch.bfloat16):
        return torch.randn(*shape, device="cuda", dtype=dtype)
    state = normal(batch, heads, dim, state_dim, dtype=getattr(torch, state_type))
    live = (tokens * (1 + torch.arange(batch, device="cuda") % (window // tokens))).int()
    x, z = normal(2, batch, tokens, heads, dim)
    B, C = normal(2, batch, tokens, groups, state_dim)
    kept = {"x_cache": normal(batch, heads, window + tokens, dim), "B_cache": normal(batch, groups, window + tokens, state_dim),
            "dt_cache": torch.rand(batch, heads, window + tokens, device="cuda")}
    start, output = torch.randint(window + tokens, (batch,), device="cuda", dtype=torch.int32), torch.empty_like(x)
    dt, A, D, bias = normal(batch, tokens, heads), -torch.rand(heads, device="cuda"), *normal(2, heads)
    mine = ours.bind("checkpointing_ssu", state=state, **kept, ring_start=start, prev_num_accepted_tokens=live, x=x, z=z, B=B,
                     C=C, out=output, dt=dt, A=A, D=D, dt_bias=bias, dt_softplus=1)
    written = (live + tokens > window).float().mean().item()
    token = 2 * heads * dim + 2 * groups * state_dim + 4 * heads  # x, B and delta
    moved = state.numel() * state.element_size() * (1 + written) + live.sum().item() * token + batch * tokens * (
        2 * token + 2 * 2 * heads * dim + 2 * groups * state_dim)
    calls = {}
    if "upstream" in peers:
        module = importlib.import_module("flashinfer.mamba.checkpointing_ssu")
        scratch = module.allocate_checkpointing_ssu_scratch(batch, heads, tokens, window, x.dtype, x.device)
        theirs, own, given = torch.empty_like(x), state.clone(), {name: ring.clone() for name, ring in kept.items()}
        calls["upstream"] = lambda: module.checkpointing_ssu(
            own, *given.values(), start, live, x, dt[..., None].expand(-1, -1, -1, dim),
            A[:, None, None].expand(-1, dim, state_dim), B, C, theirs, D=D[:, None].expand(-1, dim), z=z,
            dt_bias=bias[:, None].expand(-1, dim), dt_softplus=True, **dict(zip(("cb_scaled", "cumAdt_vec", "cb_old"), scratch)))
    return mine, calls, output, int(moved)


def difference(torch, call, mine, output):
    """Of the first outputs: both sides start from the same states."""
    theirs = call().float().reshape(output.shape)
    mine()
    torch.cuda.synchronize()
    return ((output.float() - theirs).norm() / theirs.norm()).item()


def copy_call(torch, size):
    source = torch.empty(size // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def medians(timer, rounds, sides):
    """Microseconds by side, which take turns."""
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            times[name].append(timer(call))
    return {name: statistics.median(values) for name, values in times.items()}


def rows(arguments, torch, timer, ours):
    peers = [] if arguments.alone else arguments.peers
    cases = [("chunk_gated_delta_rule", prefill_shape(*shape), prefill, (*shape, "")) for shape in PREFILL]
    cases += [("chunk_gated_delta_rule", prefill_shape(*shape) + given, prefill, (*shape, given))
              for given in GATES if given for shape in LESS_GIVEN]
    cases += [("decode " + shape[0], f"{shape[1]} batch {shape[2]}", decode, shape) for shape in DECODE]
    cases += [("recurrent_kda", f"{shape[0]} batch {shape[1]}", kda, shape) for shape in KDA]
    cases += [("selective_state_update", f"{shape[0]} batch {shape[1]}", mamba, shape) for shape in MAMBA]
    cases += [("checkpointing_ssu", f"{shape[0]} batch {shape[1]} tokens {shape[2]}", rings, shape) for shape in RINGS]
    for op, shape, make, values in cases:
        if arguments.shapes and not any(f"{op} {shape}".startswith(p) for p in arguments.shapes.split(",")):
            continue
        row = {"op": op, "shape": shape}
        try:
            mine, calls, output, size = make(torch, ours, *values, peers)
        except Exception as error:  # the GPU may have failed; what is measured so far is in the file
            yield row | {"error": f"{type(error).__name__}: {error}"}
            continue
        sides = {"ours": mine} | ({"copy": copy_call(torch, size)} if size else {})
        for peer in list(calls) or [""]:
            off, error = None, ""
            try:
                off = difference(torch, calls[peer], mine, output) if peer else None
                times = medians(timer, arguments.rounds, sides | ({peer: calls[peer]} if peer else {}))
            except Exception as failure:  # whatever a peer raises, the next one may work
                error = " ".join(f"{type(failure).__name__}: {failure}".split())[-300:]
                times = medians(timer, arguments.rounds, sides)
            line = row | {"peer": peer, "ours us": times["ours"], "difference": off, "error": error}
            if peer in times:
                line |= {"peer us": times[peer], "ratio": times[peer] / times["ours"]}
            if size:
                line |= {"GB/s": size / times["ours"] * 1e-3, "of copy": times["copy"] / times["ours"]}
            yield line
        del mine, calls, output, sides
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description="linear attention and state spaces against their peers on this GPU")
    parser.add_argument("--library", default="build/libflashinfer.so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--launches", type=int, default=11)
    parser.add_argument("--csv", help="default: standard output")
    parser.add_argument("--peers", nargs="+", default=["upstream", "fla"])
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--shapes", help="only those whose op and shape begin so")
    arguments = parser.parse_args()
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    timer, ours, failed = Timer(torch, arguments.launches), Library(torch, arguments.library), 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(arguments.csv or os.dup(1), "w", encoding="utf-8"))
        print("# " + shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]), file=file)
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows(arguments, torch, timer, ours):
            failed += bool(row.get("error"))
            row = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items() if v is not None}
            writer.writerow(row)
            file.flush()
            print(" ".join(f"{v}" for v in row.values()), file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
