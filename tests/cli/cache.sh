#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The cache as a person looks after it: listed, verified, pruned by age, size and version, cleared; and never a file that is not
# its own.
#   usage: tests/cli/cache.sh BUILD
build=$1
. tests/cli/lib/expect.sh
export FLASHINFER_CACHE_DIR="$work/the cache"
unset FLASHINFER_RECORD FLASHINFER_DISABLE_JIT

files() { find "$FLASHINFER_CACHE_DIR" -type f | wc -l; }

fill() {
    flashinfer clear-cache >/dev/null || complain 'clear-cache fails'
    flashinfer compile rmsnorm silu_and_mul --device cpu >"$work/out" 2>&1 || complain "$(cat "$work/out")"
    kernels=$(files)
    [ "$kernels" -ge 4 ] || complain "only $kernels kernels: this test shows nothing"
}

expect 0 '^0 files' cache list
fill
expect 0 "^$kernels files" cache list
expect 0 'norm_cpu  *cpu  *[0-9]*  [0-9.]* s  *[0-9.]* s  *whole' cache list
expect 0 "^$kernels whole, 0 damaged, 0 other" cache verify
expect_json cache list
expect_json cache verify

# When a program loads a kernel, that is a use; looking at the list is none.
age() { find "$FLASHINFER_CACHE_DIR" -type f -exec touch -m -d '3 hours ago' {} + -exec touch -a -d '2 hours ago' {} +; }
age
flashinfer check rmsnorm --device cpu --shape odd >/dev/null || complain 'check fails'
flashinfer cache verify >/dev/null
expect 0 'norm_cpu .* 3.0 h  *[0-9.]* s  *whole' cache list
expect 0 'gated_activation_cpu .* 3.0 h  2.0 h  whole' cache list
expect 0 'would be removed' cache prune --unused-for 1h -n
[ "$(files)" = "$kernels" ] || complain '--dry-run removed something'
expect 0 '^0 files' cache prune --unused-for 1d
expect 0 '^[1-9][0-9]* files.* removed' cache prune --unused-for 1h
[ "$(find "$FLASHINFER_CACHE_DIR" -name 'norm*' | wc -l)" -ge 1 ] || complain 'prune --unused-for removed what was used'
[ "$(find "$FLASHINFER_CACHE_DIR" -name 'gated_activation*' | wc -l)" = 0 ] ||
    complain 'prune --unused-for left what was not used'

# File systems count only the first read after a change: the second use of a kernel counts too.
fill
load() { flashinfer check rmsnorm --device cpu --shape odd >/dev/null || complain 'check fails'; }
last_use() { find "$FLASHINFER_CACHE_DIR" -name 'norm*' -printf '%A@\n' | sort -n | tail -n 1; }
load
first=$(last_use)
sleep 0.1
load
[ "$first" != "$(last_use)" ] || complain 'the second use of a kernel is not counted'

# Size: the least recently used go first.
fill
find "$FLASHINFER_CACHE_DIR" -name 'norm*' -exec touch -d '1 hour ago' {} +
size=$(find "$FLASHINFER_CACHE_DIR" -name 'gated_activation*' -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
expect 0 'removed' cache prune --max-size "$size"
[ "$(find "$FLASHINFER_CACHE_DIR" -name 'norm*' | wc -l)" = 0 ] || complain 'prune --max-size left what was older'
[ "$(find "$FLASHINFER_CACHE_DIR" -name 'gated_activation*' | wc -l)" -ge 2 ] || complain 'prune --max-size removed too much'
expect 0 '^0 files' cache prune --max-size 1G
expect 0 'removed' cache prune --max-size 0
[ "$(files)" = 0 ] || complain 'prune --max-size 0 left something'

# Damage: cut short, one bit, another kernel's name, a footer of another version.
fill
set -- "$FLASHINFER_CACHE_DIR"/norm*.so
truncate -s -1 "$1"
expect 1 '1 damaged' cache verify
printf 'X' | dd of="$2" bs=1 seek=1000 conv=notrunc status=none
expect 1 'FAIL .*altered: the checksum differs' cache verify
set -- "$FLASHINFER_CACHE_DIR"/gated_activation*.so
cp "$1" "$2"
expect 1 "another kernel's file under this name" cache verify
expect 1 '^4 whole, 3 damaged' cache verify
expect 0 'damaged' cache list
expect 0 '^3 files' cache prune
expect 0 '^4 whole, 0 damaged' cache verify
fill
set -- "$FLASHINFER_CACHE_DIR"/gated_activation*.so
version=$("$build/flashinfer" version | cut -d' ' -f2)
sed -i "s/FIJIT\(...\)$version/FIJIT\19.9.9/" "$1"
expect 0 "$kernels whole, 0 damaged" cache verify
expect 0 'of another version' cache list
expect 0 '^0 files' cache prune
expect 0 '^1 files' cache prune --other-versions
[ "$(files)" = $((kernels - 1)) ] || complain 'prune --other-versions removed something else'

# Leftovers of killed processes go after an hour, sources that did not compile with --unused-for, files of others never.
fill
touch -d '2 hours ago' "$1.Ab3dEf"
touch "$2.Ab3dEg"
touch -d '2 hours ago' "$FLASHINFER_CACHE_DIR/flashinfer-temporary-Ab3dEf"
touch -d '2 hours ago' "$FLASHINFER_CACHE_DIR/flashinfer-temporary-Ab3d"
touch -d '9 days ago' "$FLASHINFER_CACHE_DIR/failed-$(basename "$1").c"
touch -d '9 days ago' "$1.copy" "$1.Ab3dE-" "$FLASHINFER_CACHE_DIR/failed-$(basename "$1").txt"
touch -d '9 days ago' "$FLASHINFER_CACHE_DIR/notes.txt" "$FLASHINFER_CACHE_DIR/libmine.so" "$FLASHINFER_CACHE_DIR/failed-exam.c"
ln -s /etc/passwd "$FLASHINFER_CACHE_DIR/link-cpu-$(basename "$1" | sed 's/.*-cpu-//')"
expect 0 "^$kernels whole, 0 damaged, 4 other" cache verify
expect 0 '^2 files' cache prune
expect 0 '^1 files' cache prune --unused-for 1w
expect 0 "$((kernels + 1)) files.* would be removed" cache clear -n
expect 0 "$((kernels + 1)) files.* removed" cache clear
[ "$(files)" = 7 ] && [ -L "$FLASHINFER_CACHE_DIR"/link-* ] ||
    complain "clear removed files of others, or left its own: $(ls "$FLASHINFER_CACHE_DIR")"

# Misuse, and folders that are none.
expect 2 '--unused-for soon: must be a time' cache prune --unused-for soon
expect 2 '--unused-for 0d: must be a time' cache prune --unused-for 0d
expect 2 '--max-size 2T: must be bytes' cache prune --max-size 2T
expect 2 '--max-size nan: must be bytes' cache prune --max-size nan
expect 2 '"stray" was not expected' cache clear stray
: >"$work/file"
for name in list verify prune clear; do
    FLASHINFER_CACHE_DIR=$work/file expect 2 'is not a folder' cache $name
    HOME= XDG_CACHE_HOME= FLASHINFER_CACHE_DIR= expect 2 'none of FLASHINFER_CACHE_DIR' cache $name
done
exit $status
