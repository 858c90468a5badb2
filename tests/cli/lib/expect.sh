# SPDX-License-Identifier: Apache-2.0
# For the scripts of tests/cli, which source it with $build set: a folder $work, and what a run of the command must say.
set -u
python=$build/venv/bin/python
[ -x "$python" ] || python=python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

complain() { echo "$*"; status=1; }

flashinfer() { tools/with_nvrtc.sh "$build" "$build/flashinfer" "$@"; }

expect() { # CODE SAYS ARGUMENT...: the exit code, and what standard output and error together must contain
    code=$1 says=$2
    shift 2
    got=0
    flashinfer "$@" >"$work/out" 2>&1 || got=$?
    [ "$got" = "$code" ] || complain "flashinfer $*: exit code $got, must be $code: $(tail -n 3 "$work/out")"
    grep -q -e "$says" "$work/out" || complain "flashinfer $*: does not say '$says': $(tail -n 3 "$work/out")"
}

expect_json() { # ARGUMENT...: every line of standard output is an object, and there is one
    flashinfer "$@" --json >"$work/json" 2>"$work/err" || complain "flashinfer $* --json: fails: $(cat "$work/err")"
    "$python" -c 'import json, sys
lines = [json.loads(line) for line in sys.stdin]
sys.exit(not lines or not all(isinstance(line, dict) for line in lines))' <"$work/json" ||
        complain "flashinfer $* --json: not one object a line"
}

require() { # WHAT COMMAND...
    what=$1
    shift
    "$@" || complain "$what"
}
