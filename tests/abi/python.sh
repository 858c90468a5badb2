#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bindings/python_abi.h has the layouts of the real headers: DLPack's, from the apache-tvm-ffi package, and CPython's, where its
# headers are installed.
#   usage: tests/abi/python.sh BUILD
set -eu
build=$1
python=$build/venv/bin/python
dlpack=$("$python" -c 'import os, tvm_ffi; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "include"))')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
facts() { # WHAT HEADER EXPRESSIONS...
    what=$1 header=$2
    shift 2
    {
        printf '#include %s\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\nconst long facts[] = {0' "$header"
        printf ', %s' "$@"
        printf '};\nfor (size_t i = 1; i < sizeof facts / sizeof *facts; i++) printf("%%ld\\n", facts[i]);\nreturn 0;\n}\n'
    } | gcc -x c -std=c11 -Wall -Werror -Iinclude -I. -I"$dlpack" -I"$headers" -o "$build/python_$what" -
    "$build/python_$what" >"$build/python_$what.txt"
}
m='struct managed_tensor' e='struct exchange'
facts dlpack_ours '"bindings/python_abi.h"' "sizeof($m)" "offsetof($m, context)" "offsetof($m, release)" "offsetof($m, flags)" \
    "offsetof($m, tensor)" "sizeof($e)" "offsetof($e, major)" "offsetof($e, earlier)" "offsetof($e, allocate)" \
    "offsetof($e, own)" "offsetof($e, wrap)" "offsetof($e, describe)" "offsetof($e, stream)"
m=DLManagedTensorVersioned e=DLPackExchangeAPI
facts dlpack_real '<dlpack/dlpack.h>' "sizeof($m)" "offsetof($m, manager_ctx)" "offsetof($m, deleter)" "offsetof($m, flags)" \
    "offsetof($m, dl_tensor)" "sizeof($e)" "offsetof($e, header.version.major)" "offsetof($e, header.prev_api)" \
    "offsetof($e, managed_tensor_allocator)" "offsetof($e, managed_tensor_from_py_object_no_sync)" \
    "offsetof($e, managed_tensor_to_py_object_no_sync)" "offsetof($e, dltensor_from_py_object_no_sync)" \
    "offsetof($e, current_work_stream)"
cmp "$build/python_dlpack_ours.txt" "$build/python_dlpack_real.txt"
[ -e "$headers/Python.h" ] || { echo "no $headers/Python.h: CPython's layouts are not compared"; exit 0; }
o='struct object' d='struct method'
facts cpython_ours '"bindings/python_abi.h"' PYTHON_FASTCALL "offsetof($o, type)" "sizeof($d)" "offsetof($d, name)" \
    "offsetof($d, call)" "offsetof($d, flags)" "offsetof($d, doc)"
o=PyObject d=PyMethodDef
facts cpython_real '<Python.h>' METH_FASTCALL "offsetof($o, ob_type)" "sizeof($d)" "offsetof($d, ml_name)" \
    "offsetof($d, ml_meth)" \
    "offsetof($d, ml_flags)" "offsetof($d, ml_doc)"
cmp "$build/python_cpython_ours.txt" "$build/python_cpython_real.txt"
