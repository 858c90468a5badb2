# SPDX-License-Identifier: Apache-2.0
"""Builds the wheel of the Python package: pure Python, the library and the command, for every CPython there is.

    python3 packaging/wheel.py BUILD FOLDER      from what `make` made in BUILD

pip calls build_wheel, which runs make first (in the folder that the environment variable BUILD names, else build). Nothing
besides Python and what make needs is needed; files have a fixed time and order, so that the same inputs give the same bytes."""

import base64
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "bindings", "python", "flashinfer_c")
REQUIRES = "apache-tvm-ffi>=0.1.6,!=0.1.8,!=0.1.8.post0,<0.2"


def version():
    with open(os.path.join(ROOT, "include", "flashinfer", "core.h")) as header:
        return re.search(r'#define FLASHINFER_VERSION "(.*)"', header.read()).group(1)


def stripped(path):
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        subprocess.run(["strip", "-o", copy, path], check=True)
        with open(copy, "rb") as file:
            return file.read()


def files(build):
    """Name in the wheel, content, mode."""
    for folder, folders, names in os.walk(PACKAGE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    yield "flashinfer_c/" + os.path.relpath(path, PACKAGE), file.read(), 0o644
    headers = os.path.join(ROOT, "include", "flashinfer")
    for name in sorted(os.listdir(headers)):
        with open(os.path.join(headers, name), "rb") as file:
            yield f"flashinfer_c/include/flashinfer/{name}", file.read(), 0o644
    yield "flashinfer_c/lib/libflashinfer.so", stripped(os.path.join(build, "libflashinfer.so")), 0o755
    yield "flashinfer_c/bin/flashinfer", stripped(os.path.join(build, "flashinfer")), 0o755


def tag(contents):
    """py3-none-manylinux_2_N_ARCH: N is the newest version of the C library that a symbol asks for."""
    newest = max(int(minor) for content in contents for minor in re.findall(rb"\0GLIBC_2\.(\d+)", content))
    return f"py3-none-manylinux_2_{newest}_{platform.machine()}"


def metadata():
    with open(os.path.join(ROOT, "README.md")) as file:
        readme = file.read()
    return (
        f"Metadata-Version: 2.1\nName: flashinfer-c\nVersion: {version()}\n"
        "Summary: Kernels for LLM serving, compiled when they are first needed\n"
        f"License: Apache-2.0\nRequires-Python: >=3.10\nRequires-Dist: {REQUIRES}\n"
        f"Description-Content-Type: text/markdown\n\n{readme}"
    )


def write(build, folder):
    members = list(files(build))
    name, wheel_tag = f"flashinfer_c-{version()}", tag([content for _, content, mode in members if mode == 0o755])
    info = f"{name}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: flashinfer-c\nRoot-Is-Purelib: false\nTag: {wheel_tag}\n"
    with open(os.path.join(ROOT, "LICENSE"), "rb") as file:
        members.append((f"{info}/LICENSE", file.read(), 0o644))
    members += [(f"{info}/METADATA", metadata().encode(), 0o644), (f"{info}/WHEEL", wheel.encode(), 0o644)]
    record = "".join(
        f"{member},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}\n"
        for member, content, _ in members)
    members.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode(), 0o644))
    filename = f"{name}-{wheel_tag}.whl"
    os.makedirs(folder, exist_ok=True)
    with zipfile.ZipFile(os.path.join(folder, filename), "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member, content, mode in members:
            entry = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = (0o100000 | mode) << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return filename


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    build = os.environ.get("BUILD", "build")
    subprocess.run(["make", "-s", "-C", ROOT, f"-j{os.cpu_count()}", f"BUILD={build}", "all"], check=True)
    return write(os.path.join(ROOT, build), wheel_directory)


if __name__ == "__main__":
    print(write(sys.argv[1], sys.argv[2]))
