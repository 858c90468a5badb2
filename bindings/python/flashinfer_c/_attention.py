# SPDX-License-Identifier: Apache-2.0
"""What the attention wrappers share: workspaces, page tables, masks, and plans that are made again when an option changes.

A plan here is a pure function of maxima, heads, dtypes and options; lengths and page tables are read on the device by every run.
So plan() waits for nothing if what it needs on the host (qo_indptr of the prefill wrappers) is given there; from the device it is
copied once.
"""
import functools
import inspect
import sys

import torch

from . import _api, _core
from ._arguments import Unplanned, annotate, guarded
from .utils import canonicalize_torch_dtype as dtype_of
from .variant import Variant

POS_ENCODING_MODES = {"NONE": 0, "ROPE_LLAMA": 1, "ALIBI": 2}
BACKENDS = ("auto", "fa2", "fa3")
HOOKS = "write it as hooks and give a flashinfer_c.Variant of the op that run() calls"


def _guarded_method(method, declared):
    if isinstance(method, functools.partialmethod):
        return functools.partialmethod(_guarded_method(method.func, declared), *method.args, **method.keywords)
    if not inspect.isfunction(method) or hasattr(method, "__wrapped__"):
        return method
    annotate(method, declared, {"custom_mask": "packed_custom_mask"})  # for plan ops it is a flag, for wrappers the mask itself
    return guarded(method)


def public(*ops):
    """Makes a class public: it stands among its module's names, the ops that it runs are known, its methods have type hints and
    name the argument that is no array."""

    def decorate(cls):
        sys.modules[cls.__module__].__dict__.setdefault("__all__", []).append(cls.__name__)
        _api.PUBLIC[f"{cls.__module__.partition('.')[2]}.{cls.__name__}"] = ops
        declared = [_core.op(name) for name in ops]
        for owner in cls.__mro__[:-1]:
            for name, method in list(vars(owner).items()):
                if not name.startswith("_") or name == "__init__":
                    setattr(owner, name, _guarded_method(method, declared))
        return cls

    return decorate


short_dtype = functools.cache(_core.short_dtype)


@functools.cache
def planner(name, device, order):
    """A *_plan op for runs on a torch device as plan(pointer, *values), the values those of the arguments in order."""
    declared = _core.op(name)
    place = _core.tvm_ffi.device(2 if device.type == "cuda" else 1, device.index or 0)
    plan, = (a.name for a in declared.arguments if a.kind == "plan")
    run = run_in_order(declared, lambda *values: declared.function(*values, None, 0, place), (plan, *order))
    return lambda *values: run(0, None, *values)


def make_plan(name, device, **arguments):
    """The plan of a *_plan op for runs on a torch device."""
    plan = _core.Plan()
    values = [short_dtype(v) if isinstance(v, torch.dtype) else v for v in arguments.values()]
    planner(name, device, tuple(arguments))(plan.pointer, *values)
    return plan


def runner(name, *order):
    """The op as run(flags, workspace, *values), the values those of the arguments in order; the rest are absent."""
    return run_in_order(_core.op(name), _core.launcher(name), order)


def run_in_order(declared, launch, order):
    unknown = set(order) - set(declared.by_name)
    if unknown:
        raise TypeError(f"{declared.name} has no arguments {', '.join(sorted(unknown))}")
    listed = ", ".join(f"v{order.index(a.name)}" if a.name in order else "None" for a in declared.arguments)
    taken = ", ".join(f"v{i}" for i in range(len(order)))
    return eval(f"lambda flags, workspace, {taken}: launch({listed}, flags, workspace)", {"launch": launch})


def check_layout(kv_layout):
    if kv_layout not in ("NHD", "HND"):
        raise KeyError(f"kv_layout is {kv_layout!r}, which is neither 'NHD' nor 'HND'")


def pos_encoding(mode):
    if mode not in POS_ENCODING_MODES:
        raise KeyError(f"pos_encoding_mode is {mode!r}, which is none of {', '.join(POS_ENCODING_MODES)}")
    return POS_ENCODING_MODES[mode]


def unpack_cache(paged_kv_cache, kv_layout):
    """The two caches of 4-D pages. A missing page axis means pages of one token."""
    if isinstance(paged_kv_cache, (tuple, list)):
        k, v = paged_kv_cache
    elif torch.is_tensor(paged_kv_cache):
        if paged_kv_cache.shape[1] != 2:
            raise ValueError(f"paged_kv_cache has shape {list(paged_kv_cache.shape)}, must be [pages, 2, ...]: keys and values")
        k, v = paged_kv_cache.unbind(1)
    else:
        raise KeyError(f"paged_kv_cache is a {type(paged_kv_cache).__name__}, neither a tensor nor a tuple of two")
    if k.dim() == 3:
        axis = -3 if kv_layout == "NHD" else -2
        k, v = k.unsqueeze(axis), v.unsqueeze(axis)
    return k, v


def unpack_scales(kv_cache_sf, kv_layout):
    return (None, None) if kv_cache_sf is None else unpack_cache(kv_cache_sf, kv_layout)


def number(value, device):
    """A scale as the library takes it: absent, a float, or float32 on the device, one element or one for each head."""
    if value is None or isinstance(value, (int, float)):
        return value
    if not torch.is_tensor(value):
        return float(value)
    if value.numel() == 1 and value.device != device:
        return float(value)
    return value.reshape(-1).to(device=device, dtype=torch.float32)


def scales(q, k, v, kv_dtype, device):
    """q_scale, k_scale and v_scale. The library wants those of 8-bit keys and values said; upstream's default is 1."""
    if dtype_of(kv_dtype).itemsize == 1:
        k, v = 1.0 if k is None else k, 1.0 if v is None else v
    return number(q, device), number(k, device), number(v, device)


def head_scales(args, q_scale, k_scale, v_scale):
    """The scales of each head that upstream takes by position with 8-bit queries, in place of the others."""
    if len(args) != 3:
        raise NotImplementedError(f"{len(args)} further tensors by position: scales of each head are three, "
                                  "others belong to variants")
    if (q_scale, k_scale, v_scale) != (None, None, None):
        raise ValueError("scales are given by position and by name")
    return args


def softmax_scale(sm_scale):
    """sm_scale, which is not 0: to the library that is the default, and a caller who says 0 does not mean it."""
    if sm_scale == 0:
        raise ValueError("sm_scale is 0, must be another number (None: 1 / sqrt(head_dim))")
    return sm_scale


def indices_on(device, tensor, non_blocking):
    return tensor.to(device=device, dtype=torch.int32, non_blocking=non_blocking)


def on_host(tensor):
    """int32 on the host: one copy, which waits for the device, if it lies there."""
    return tensor.to(device="cpu", dtype=torch.int32)


def host_or_none(tensor):
    return tensor.to(torch.int32).contiguous() if tensor is not None and tensor.device.type == "cpu" else None


def end_of(indptr_host):
    """Where an indptr ends; 0 if it is not known on the host."""
    return 0 if indptr_host is None else int(indptr_host[-1])


def check_end(name, end, count, what):
    if end > count:
        raise ValueError(f"{name} ends at {end}, and there are {count} {what}")


def split_size(fixed_split_size):
    return 0 if fixed_split_size is None or fixed_split_size < 0 else fixed_split_size


def indptr_of(lengths):
    """int32 [len(lengths) + 1]: where each of these begins, and the last one ends, if they lie one behind the other."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    torch.cumsum(lengths, 0, dtype=torch.int32, out=indptr[1:])
    return indptr


def pack_mask(mask, lengths):
    """A flattened mask, lengths[b] elements of it for request b, as bits from the lowest: (bits, indptr in bytes).

    Nothing is read back: the bits have the room that they may need at most, if each request's last byte holds one bit.
    """
    indptr = indptr_of(lengths)
    bits = torch.empty((mask.numel() + 7 * len(lengths)) // 8, dtype=torch.uint8, device=mask.device)
    mask_indptr = torch.empty_like(indptr)
    _core.call("segment_packbits", y=bits, new_indptr=mask_indptr, x=mask.reshape(-1), indptr=indptr, bitorder="little")
    return bits, mask_indptr


def packed_mask_indptr(lengths):
    """Where each request's bytes start in a mask that the caller packed: every request on a byte of its own."""
    return indptr_of((lengths + 7) // 8)


def flags_of(enable_pdl):
    return 0 if enable_pdl is False else _core.PDL


def finish_lse(lse, layout, given):
    """lse [tokens, heads] in the order that was asked for, and in the tensor that was given."""
    if layout == "NH":
        return lse
    return lse.t().contiguous() if given is None else given.copy_(lse.t())


def check_lse(base, layout):
    if base not in ("log2", "ln"):
        raise ValueError(f"lse_base is {base!r}, which is neither 'log2' nor 'ln'")
    if layout not in ("NH", "HN"):
        raise ValueError(f"lse_layout is {layout!r}, which is neither 'NH' nor 'HN'")


class PlanInfo:
    """What plan() leaves in _plan_info: the library's plan, its bytes as a tensor, and the options that it was made from."""

    __slots__ = ("plan", "bytes", "options")

    def __init__(self, plan, options):
        self.plan, self.options = plan, options
        self.bytes = torch.frombuffer(plan._bytes, dtype=torch.uint8)


class Single:
    """What every wrapper is: one."""

    def __reduce_ex__(self, protocol):
        raise TypeError(f"{type(self).__name__} holds buffers of its process and device and is neither pickled nor copied; "
                        f"make another and plan it")


class Wrapper(Single):
    """Buffers, options and the plan of a wrapper."""

    _ragged = False

    def __init__(self, float_workspace_buffer, kv_layout, use_cuda_graph, backend, jit_args):
        check_layout(kv_layout)
        if backend not in BACKENDS:
            raise NotImplementedError(f"backend {backend!r} is not served; {', '.join(BACKENDS)} all let the library choose")
        self._sink_variant, self._variant, self._run_variant = False, None, None
        if isinstance(jit_args, Variant):
            self._variant = jit_args
        elif jit_args is not None:
            variant = jit_args[11] if len(jit_args) > 11 else None
            if variant != "AttentionSink":
                raise NotImplementedError(f"the variant {variant!r} is C++ of another library, which is not compiled here; "
                                          f"{HOOKS}")
            self._sink_variant = True
        self._kv_layout = kv_layout
        self._use_cuda_graph = use_cuda_graph
        self._backend = backend
        self._jit_module = None
        self.device = float_workspace_buffer.device
        self.reset_workspace_buffer(float_workspace_buffer, torch.empty(16, dtype=torch.uint8, device=self.device))
        self._pin_memory_int_workspace_buffer = torch.empty(16, dtype=torch.uint8)
        self._fixed_batch_size = 0
        self._plan_info = self._cached_module = None
        self._block_tables = self._seq_lens_kv = self._max_kv_len = None
        self._causal = False
        self._pos_encoding_mode = "NONE"
        self._window_left = -1
        self._logits_soft_cap = 0.0
        self._sm_scale = self._rope_scale = self._rope_theta = None

    @property
    def is_cuda_graph_enabled(self):
        """Whether the batch size is fixed and page tables are copied into the buffers given at construction."""
        return self._use_cuda_graph

    @property
    def resolved_backend(self):
        """The backend asked for; each call takes the kernel that `flashinfer explain` prints."""
        return self._backend

    def reset_workspace_buffer(self, float_workspace_buffer, int_workspace_buffer):
        """Takes other workspace: float_workspace_buffer holds partial results, int_workspace_buffer nothing here. Both start on
        16 bytes.
        """
        for name, buffer in (("float_workspace_buffer", float_workspace_buffer), ("int_workspace_buffer", int_workspace_buffer)):
            if buffer.data_ptr() % 16:
                raise ValueError(f"{name} starts at {buffer.data_ptr():#x}, which is no multiple of 16 bytes")
        self._float_workspace_buffer = float_workspace_buffer
        self._int_workspace_buffer = int_workspace_buffer
        flat = float_workspace_buffer.reshape(-1).view(torch.uint8)
        self._workspace = flat[-flat.data_ptr() % 256:]

    def prewarm_paged_kv_stride_variant(self, variant="independent"):
        """Nothing to do: every kernel takes the strides of K and V at run time."""
        if variant != "independent":
            raise ValueError(f"variant is {variant!r}; 'independent' is the only one")

    def end_forward(self):
        """Nothing to do: a plan holds no resources."""

    def _fix_batch(self, name, batch_size, **buffers):
        """The buffers of CUDA-graph mode: all given, and of one batch size."""
        for buffer_name, (buffer, extra) in buffers.items():
            if not torch.is_tensor(buffer):
                raise ValueError(f"{buffer_name} must be a tensor in CUDA-graph mode")
            if extra is not None and len(buffer) != batch_size + extra:
                raise ValueError(f"{buffer_name} has {len(buffer)} entries where {name} means {batch_size + extra}")
        self._fixed_batch_size = batch_size

    def _check_batch(self, batch_size, indices=None):
        if not self._use_cuda_graph:
            return
        if batch_size != self._fixed_batch_size:
            raise ValueError(f"the batch has {batch_size} requests; in CUDA-graph mode it is fixed at {self._fixed_batch_size}")
        if indices is not None and len(indices) > len(self._paged_kv_indices_buf):
            raise ValueError(f"there are {len(indices)} page indices and room for {len(self._paged_kv_indices_buf)}")

    def _set_buffer(self, name, value, non_blocking):
        """Eager mode takes the tensor, or its copy on the device; CUDA-graph mode copies into the buffer whose address was
        captured, and leaves page indices to the caller at once: engines fill them in again for the next step.
        """
        if value.is_floating_point():
            raise TypeError(f"{name.strip('_').removesuffix('_buf')} is {value.dtype}, must be int32")
        buffer = getattr(self, name)
        if not self._use_cuda_graph or buffer is None:
            setattr(self, name, indices_on(self.device, value, non_blocking))
        elif buffer.data_ptr() != value.data_ptr() or buffer.device != value.device:
            if name == "_paged_kv_indices_buf" and value.is_pinned():
                value = value.clone()  # in memory that is read before the copy returns, without waiting for the stream
            buffer[:len(value)].copy_(value, non_blocking=non_blocking)

    def _set_options(self, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta):
        pos_encoding(pos_encoding_mode)
        self._pos_encoding_mode = pos_encoding_mode
        self._window_left = window_left
        self._logits_soft_cap = 0.0 if logits_soft_cap is None else logits_soft_cap
        self._sm_scale = sm_scale
        self._rope_scale = rope_scale
        self._rope_theta = rope_theta

    def _options(self):
        return (self._causal, self._pos_encoding_mode, self._window_left, self._logits_soft_cap, self._sm_scale, self._rope_scale,
                self._rope_theta)

    def _option_arguments(self):
        return {"pos_encoding_mode": pos_encoding(self._pos_encoding_mode), "window_left": self._window_left,
                "logits_soft_cap": self._logits_soft_cap or None, "sm_scale": softmax_scale(self._sm_scale),
                "rope_scale": self._rope_scale, "rope_theta": self._rope_theta}

    def _refuse_unplanned(self):
        if self._plan_info is None:
            raise Unplanned(f"{type(self).__name__}: call plan() before run()")

    def _planned(self):
        """The plan of the options as they are now: forward() and engines change them after plan()."""
        info = self._plan_info
        if info is None:
            self._refuse_unplanned()
        options = self._options()
        if info.options != options:
            info = self._plan_info = PlanInfo(self._make_plan(), options)
        return info.bytes

    def _run_op(self, name, default, order, flags, values, further):
        """The op, or its variant, whose further arguments come behind."""
        if self._variant is None:
            return default(flags, self._workspace, *values)
        declared = self._variant.declaration
        names = [a.name for a in declared.arguments if a.name not in _core.op(name).by_name]
        if len(further) != len(names):
            raise TypeError(f"{declared.name} takes {len(names)} further arguments ({', '.join(names)}) and got {len(further)}")
        if self._run_variant is None:
            self._run_variant = run_in_order(declared, declared.function, (*order, *names))
        self._run_variant(flags, self._workspace, *values, *further)

    def _keep_plan(self):
        self._plan_info = PlanInfo(self._make_plan(), self._options())
        self._cached_module = self._cached_module or FastPlan(self)


class FastPlan:
    """Stands where engines look for a compiled module. plan() takes what they pass to it and returns what goes into
    _plan_info.
    """

    def __init__(self, wrapper):
        self._wrapper = wrapper

    def plan(self, float_workspace, int_workspace, pinned_workspace, *arguments):
        """Tensors on the host (indptr, lengths), then batch size, heads, page size ...: maxima and options come from the
        wrapper's plan().
        """
        numbers = [a for a in arguments if isinstance(a, int) and not isinstance(a, bool)]
        self._wrapper._resize(*numbers[:2], has_rows=torch.is_tensor(arguments[1]))
        return PlanInfo(self._wrapper._make_plan(), self._wrapper._options())
