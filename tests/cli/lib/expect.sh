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

expect_json() { # ARGUMENT...: every line of standard output is an object, and there is one; they have what the page names
    flashinfer "$@" --json >"$work/json" 2>"$work/err" || complain "flashinfer $* --json: fails: $(cat "$work/err")"
    flashinfer "$@" --help >"$work/page"
    "$python" -c 'import json, re, sys
lines = [json.loads(line) for line in sys.stdin]
if not lines or not all(isinstance(line, dict) for line in lines):
    sys.exit("not one object a line")
page = " ".join(open(sys.argv[1]).read().split())
named = re.search(r"one JSON object a line: (.*?) -h, --help", page).group(1)
names = re.split(r", | and ", re.sub(r" \([^)]*\)", "", named))
absent = [name for name in names if " " not in name and not any(name in line for line in lines)]
sys.exit(f"no line has {absent}" if absent else 0)' "$work/page" <"$work/json" 2>"$work/err" ||
        complain "flashinfer $* --json: $(tail -n 1 "$work/err")"
}

require() { # WHAT COMMAND...
    what=$1
    shift
    "$@" || complain "$what"
}
