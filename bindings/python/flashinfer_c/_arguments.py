# SPDX-License-Identifier: Apache-2.0
"""What the arguments of public functions must be: their type hints, and what is raised for a value that is none of these."""

import enum
import functools
import inspect
import numbers
import typing

from . import _core


class Tensor(typing.Protocol):
    """An array of torch, NumPy, CuPy or JAX."""

    shape: tuple
    dtype: object

    def __dlpack__(self): ...


class Unplanned(RuntimeError):
    """A wrapper runs before its plan."""


# Modules that are written in torch.
NEED_TORCH = {"attention", "cascade", "decode", "pod", "prefill", "sparse", "utils"}

_KINDS = {"number": "float", "int": "int", "enum": "str", "dtype": "dtype", "text": "str"}
_PAIR, _LIST = "tuple[Tensor, Tensor]", "list[Tensor]"
# Parameters that no op declares by these names.
_UNDECLARED = {name: hint for hint, names in {
    "Tensor": """
        accepted_steps block_col_sz block_mask_map block_row_sz block_tables cb_old cb_scaled cumAdt_vec cum_seq_lens_kv
        cum_seq_lens_q custom_mask_buf custom_mask_d custom_mask_p float_workspace_buffer global_override_indptr_cpu indices
        indices_buffer indptr indptr_buffer initial_state initial_state_source int_workspace_buffer
        intermediate_states_buffer k k_p k_shared kv_indices_d kv_indices_p kv_indptr_buf kv_indptr_d kv_indptr_p kv_len_arr
        last_page_len last_page_len_buffer last_page_len_d last_page_len_p mask mask_indptr_buf max_item_len_ptr
        packed_custom_mask_d packed_custom_mask_p packed_mask paged_kv_indices paged_kv_indices_buf paged_kv_indices_buffer
        paged_kv_indptr paged_kv_indptr_buf paged_kv_indptr_buffer paged_kv_last_page_len paged_kv_last_page_len_buf
        paged_kv_last_page_len_buffer prefix_len_ptr q_cu_seq_lens q_d q_p qo_indptr_buf qo_indptr_d qo_indptr_p query
        seq_lens seq_lens_q token_pos_in_items_ptr unique_kv_indices unique_kv_indptr unique_kv_last_page_len v v_p v_shared
        workspace_buffer""",
    f"Tensor | {_PAIR}": "kv_cache kv_cache_sf paged_kv_cache paged_kv_cache_d paged_kv_cache_p unique_kv_cache",
    _LIST: """
        int_workspace_buffers paged_kv_indices_arr paged_kv_indices_buf_arr paged_kv_indptr_arr paged_kv_indptr_buf_arr
        paged_kv_last_page_len_buf_arr qo_indptr_arr qo_indptr_buf_arr""",
    "float | Tensor": "bmm1_scale bmm2_scale scale_k scale_q scale_v",
    "bool": "disable_state_update enable_pdl is_causal nvfp4_4over6 sf_swizzle_layout use_clc use_fp16_softmax uses_spcompress",
    "int": """
        C M N R batch_size cache_steps cp_rank cp_world d_split group_size head_dim kv_splits max_kv_len max_q_len max_seq_len
        max_seqlen max_sequence_kv max_token_per_sequence num_levels num_spec_tokens o_sf_vec_size page_size
        precompute_heads_per_cta recovery_steps uniform_q_len window_left_d window_left_p""",
    "float": "rope_scale_d rope_scale_p rope_theta_d rope_theta_p sm_scale_d sm_scale_p",
    "str": "backend",
    "dtype": "data_type dst_dtype o_dtype out_dtype quantize_dtype",
}.items() for name in names.split()}


_declared = {}  # function: {parameter: the tensor or integer that an op declares}


def _hint(name, argument, parameter):
    if isinstance(parameter.default, enum.Enum):
        return type(parameter.default).__name__
    if argument is None:
        told = isinstance(parameter.default, (bool, float, str))
        hint = _UNDECLARED.get(name) or (type(parameter.default).__name__ if told else None)
    elif argument.is_flag:
        hint = "bool"
    else:
        hint = "Tensor" if argument.is_tensor else _KINDS.get(argument.kind, "object")
    if argument is not None and argument.may_be_tensor:
        hint += " | Tensor"
    may_be_absent = parameter.default is None or (argument is not None and argument.optional)
    return hint + " | None" if hint and may_be_absent else hint


def annotate(function, declared=(), renamed={}):
    """Type hints of the parameters that have none and that the ops declare, or whose name or default tells."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name in function.__annotations__:
            continue
        called = renamed.get(name, name)
        argument = next((op.by_name[called] for op in declared if called in op.by_name), None)
        if argument is not None and (argument.is_tensor or argument.kind == "int"):
            _declared.setdefault(function, {})[name] = argument
        hint = _hint(name, argument, parameter)
        if hint:
            function.__annotations__[name] = hint
    for name, meaning in {"Tensor": Tensor, "dtype": object}.items():
        inspect.unwrap(function).__globals__.setdefault(name, meaning)


# ------------------------------------------------------------------------------------------------- values that they must not be


def _is(value, kind, is_array):
    if kind in (_PAIR, _LIST):
        return isinstance(value, (tuple, list)) and (kind == _LIST or len(value) == 2) and all(map(is_array, value))
    return is_array(value) if kind == "Tensor" else value is None if kind == "None" else isinstance(value, numbers.Real)


def _wrong_integer(what, value, argument, kinds):
    """The error of a value that stands where an int or a flag is declared, or None."""
    if argument.may_be_tensor or (value is None and "None" in kinds):
        return None
    if not isinstance(value, numbers.Integral):
        return TypeError(f"{what} is of type {type(value).__name__}, must be {'a bool' if argument.is_flag else 'an int'}")
    return ValueError(f"{what} is {value}, must be at least {argument.min:.0f}") if value < argument.min else None


def _complaint(function, values, error):
    """What to raise instead of an error of Python's or of torch's: a TypeError for the first of these arguments that should be an
    array and is none, a ValueError for the first with so many axes as it cannot have, or either for the first integer that the op
    would not take, as where an output's shape follows from it; None if there is no such."""
    if isinstance(error, NotImplementedError):
        return None
    is_array, array = _core.is_array, "an array"
    if function.__module__.rpartition(".")[2] in NEED_TORCH:
        is_array, array = _core.torch.is_tensor, "a torch tensor"
    words = {"Tensor": array, _PAIR: f"a pair of {array.partition(' ')[2]}s", _LIST: f"a list of {array.partition(' ')[2]}s",
             "float": "a number", "int": "an int"}
    shown = (type(values["self"]).__name__ + "." if "." in function.__qualname__ else "") + function.__name__
    for name, value in values.items():
        kinds = (hint := function.__annotations__.get(name, "")).split(" | ")
        if "Tensor" not in hint or any(_is(value, kind, is_array) for kind in kinds):
            continue
        return TypeError(f"{shown}: {name} is of type {type(value).__name__}, must be "
                         f"{' or '.join(words[kind] for kind in kinds if kind != 'None')}")
    if isinstance(error, IndexError) or "to unpack" in str(error) or "0-d tensor" in str(error):
        for name, argument in _declared.get(function, {}).items():
            if argument.is_tensor and is_array(values[name]) and not argument.may_have_rank(len(values[name].shape)):
                return ValueError(f"{shown}: {name} has shape {list(values[name].shape)}, must be "
                                  f"{argument.describe_shape()}")
        for name, value in values.items():
            hint = function.__annotations__.get(name, "")
            if "Tensor" in hint and "float" not in hint and is_array(value) and not value.shape:
                return ValueError(f"{shown}: {name} has no axes")
    if not str(error).startswith(tuple(f"{op}: " for op in _core.op_names)):
        integers = ((name, argument) for name, argument in _declared.get(function, {}).items() if argument.kind == "int")
        wrong = (_wrong_integer(f"{shown}: {name}", values[name], argument, function.__annotations__[name].split(" | "))
                 for name, argument in integers)
        undeclared = (TypeError(f"{shown}: {name} is of type {type(value).__name__}, must be an int")
                      for name, value in values.items()
                      if function.__annotations__.get(name) == "int" and not isinstance(value, numbers.Integral))
        return next(filter(None, wrong), next(undeclared, None))
    return None


def _hands_on(function):
    """Whether a function leaves its arguments to others that name the one they cannot take."""
    called = map(function.__globals__.get, function.__code__.co_names)
    return all(callable(value) and value in _core.complaining for value in called)


# RuntimeError is what torch raises for a size that it cannot allocate.
_MISTAKES = AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError, ZeroDivisionError


@functools.cache
def guarded(function):
    """The function, whose errors about a value without an array's attributes become a TypeError that names the argument.

    What is returned has the function's own parameters, because passing *args and **kwargs on costs five times as much."""
    parameters = inspect.signature(function).parameters.values()
    if _hands_on(function):
        return function
    listed, passed, star = [], [], False
    for p in parameters:
        if p.kind == p.KEYWORD_ONLY and not star:
            listed.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        listed.append(prefix + p.name + ("" if p.default is p.empty else "=None"))
        passed.append(f"{p.name}={p.name}" if p.kind == p.KEYWORD_ONLY else prefix + p.name)
    values = ", ".join(f"{p.name!r}: {p.name}" for p in parameters)
    scope = {}
    text = f"""
def make(function, complaint, mistakes):
    def {function.__name__}({", ".join(listed)}):
        try:
            return function({", ".join(passed)})
        except mistakes as error:
            told = complaint(function, {{{values}}}, error)
            if told is None:
                raise
            raise told from None
    return {function.__name__}
"""
    exec(compile(text, f"<arguments of {function.__qualname__}>", "exec"), function.__globals__, scope)
    made = functools.update_wrapper(scope["make"](function, _complaint, _MISTAKES), function)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made
