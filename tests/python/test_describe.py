# SPDX-License-Identifier: Apache-2.0
"""What flashinfer_describe says is enough to call the C functions: the program of docs/other-languages.md, and more by it."""

import ctypes
import pathlib
import re
import subprocess
import sys

import pytest
import torch

from flashinfer_c import _core

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "other-languages.md"


@pytest.fixture(scope="module")
def page():
    """What the page's program defines."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names = {}
    exec(program.replace("libflashinfer.so.0", _core.LIBRARY), names)
    assert abs(names["y"][0] - 0.198) < 1e-3 and abs(names["y"][7] - 1.584) < 1e-3
    return names


@pytest.mark.parametrize("name", _core.op_names)
def test_layout_is_described(page, name):
    declared = page["declaration"](name)
    end = 8
    for argument in sorted(declared["arguments"], key=lambda a: a["offset"]):
        begin, size = argument["offset"], argument["bytes"]
        assert begin >= end and begin % min(size, 8) == 0, f"{name}: {argument['name']} begins at {begin}, {end}"
        end = begin + size
    assert end <= declared["size"] < end + 8
    with pytest.raises(ValueError) as error:
        page["call"](name)
    assert "args.size" not in str(error.value)  # what is wrong is absent arguments


def test_members_are_documented(page):
    text = PAGE.read_text()
    for name in _core.op_names:
        declared = page["declaration"](name)
        for told in (declared, *declared["arguments"]):
            for word in (*told, told.get("kind", "kind")):
                assert f"`{word}`" in text, f"{name}: {word} is not on {PAGE.name}"


def test_language_of_the_program(tmp_path):
    """Where a program writes 0,5 for a half, JSON has 0.5 all the same."""
    if subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"], capture_output=True).returncode:
        pytest.skip("there is no such language to be made here")
    text = f"""if True:
        import locale, os
        os.environ["LOCPATH"] = {str(tmp_path)!r}
        locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
        assert locale.localeconv()["decimal_point"] == ","
        import flashinfer_c._core
        for name in flashinfer_c._core.op_names:
            getattr(flashinfer_c.ops, name).__doc__
        assert locale.localeconv()["decimal_point"] == ","
    """
    subprocess.run([sys.executable, "-c", text], check=True)


def test_attention_through_ctypes_alone(page):
    def tensor(value):
        return page["tensor"](value.data_ptr(), *{torch.float16: (2, 16), torch.int32: (0, 32)}[value.dtype], *value.shape)

    plan = (ctypes.c_uint64 * 128)()
    address = ctypes.addressof(plan)
    exec_ = (ctypes.c_uint64 * 7)(56, 0, 0, 0, 0, 1)  # of the CPU
    page["call"]("batch_decode_plan", exec_, plan=address, max_batch_size=2, num_qo_heads=4, num_kv_heads=2, head_dim=64,
                 page_size=4)
    q, out = torch.randn(2, 4, 64).half(), torch.empty(2, 4, 64).half()
    k, v = torch.randn(2, 3, 4, 2, 64).half()
    kv_indptr, kv_indices, lengths = (torch.tensor(x, dtype=torch.int32) for x in ([0, 2, 3], [2, 0, 1], [3, 4]))
    page["call"]("batch_decode", exec_, plan=address, out=tensor(out), q=tensor(q), k_cache=tensor(k), v_cache=tensor(v),
                 kv_indptr=tensor(kv_indptr), kv_indices=tensor(kv_indices), kv_last_page_len=tensor(lengths), q_scale=0.5,
                 window_left=100)
    for row, (keys, values) in enumerate(((k[[2, 0]], v[[2, 0]]), (k[[1]], v[[1]]))):
        keys, values = (x.reshape(-1, 2, 64)[:7].float().repeat_interleave(2, 1) for x in (keys, values))
        weights = (torch.einsum("hd,thd->ht", q[row].float(), keys) / 16).softmax(-1)
        torch.testing.assert_close(out[row].float(), torch.einsum("ht,thd->hd", weights, values), rtol=2e-3, atol=2e-3)
