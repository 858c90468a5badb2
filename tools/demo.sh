#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches the model if need be and lets it talk.
#   usage: tools/demo.sh BUILD [OPTION of examples/generate ...]
set -eu
build=$1
shift
case " $* " in
*' --model '* | *' --model='* | *' --help '*) exec tools/with_nvrtc.sh "$build" "$build/generate" "$@" ;;
esac
model=$(tools/fetch_model.sh) || exit $?
if tools/with_nvrtc.sh "$build" true 2>/dev/null; then
    exec tools/with_nvrtc.sh "$build" "$build/generate" --model "$model" "$@"
fi
exec "$build/generate" --model "$model" "$@"
