#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command as a person and a program use it: exit codes, what is suggested, --json lines that parse.
#   usage: tests/tree/command.sh BUILD
set -u
build=$1
python=$build/venv/bin/python
[ -x "$python" ] || python=python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

complain() { echo "$*"; status=1; }

expect() { # CODE SAYS ARGUMENT...: the exit code, and what standard output and error together must contain
    code=$1 says=$2
    shift 2
    got=0
    "$build/flashinfer" "$@" >"$work/out" 2>&1 || got=$?
    [ "$got" = "$code" ] || complain "flashinfer $*: exit code $got, must be $code: $(tail -n 3 "$work/out")"
    grep -q -e "$says" "$work/out" || complain "flashinfer $*: does not say '$says': $(tail -n 3 "$work/out")"
}

expect_json() { # ARGUMENT...: every line of standard output is an object, and there is one
    "$build/flashinfer" "$@" --json >"$work/out" 2>"$work/err" || complain "flashinfer $* --json: fails: $(cat "$work/err")"
    "$python" -c 'import json, sys
lines = [json.loads(line) for line in sys.stdin]
sys.exit(not lines or not all(isinstance(line, dict) for line in lines))' <"$work/out" ||
        complain "flashinfer $* --json: not one object a line"
}

expect 2 'usage: flashinfer COMMAND'
expect 0 'usage: flashinfer COMMAND' --help
expect 2 'there is no command "chekc"' chekc
expect 2 'near it: .*rmsnorm' check rmsnrom
expect 2 'unknown option' check --no-such-option
expect 2 'no op that was asked for has a kernel' check rmsnorm --kernel none
expect 2 'rmsnorm has no dimension or number rwos' check rmsnorm --device cpu rwos=3
expect 2 'rmsnorm has no shape named none' check rmsnorm --device cpu --shape none
expect 2 'name one op' explain
expect 0 'Dimensions: rows, hidden (out, input, weight)' explain rmsnorm --device cpu
expect 0 ' 0 failures' check rmsnorm --device cpu --problems 4
expect 0 'rmsnorm' list
expect 0 'TMPDIR' show-config

gpu=0
"$build/flashinfer" explain rmsnorm --device cuda >"$work/out" 2>&1 && gpu=1
[ "$gpu" = 1 ] || expect 1 'rmsnorm' check rmsnorm --require cuda --problems 1

expect_json list
expect_json explain rmsnorm --device cpu
expect_json check rmsnorm --device cpu --problems 2
expect_json bench rmsnorm --device cpu --shape "$("$build/flashinfer" explain rmsnorm --device cpu |
    sed -n '/^Named shapes/{n;s/^ *\([^ ]*\).*/\1/p;}')"
expect_json show-config
expect_json version
exit $status
