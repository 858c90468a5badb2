#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What Tab offers, in bash and, if it is installed, in zsh.
#   usage: tests/cli/completion.sh BUILD
build=$1
. tests/cli/lib/expect.sh
expect 2 'name a shell' completion
expect 2 'name a shell' completion fish
PATH=$(realpath "$build"):$PATH
unset -f flashinfer
eval "$(flashinfer completion bash)"

offers() { # LINE WORD...: what bash has after Tab at the end of the line, among it these words; after "not", none of these
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    shift
    _flashinfer
    local wanted=1 word
    for word in "$@"; do
        [ "$word" = not ] && { wanted=0; continue; }
        printf '%s\n' "${COMPREPLY[@]}" | grep -q -x -e "$word" && found=1 || found=0
        [ "$found" = "$wanted" ] ||
            complain "'$COMP_LINE': offers [${COMPREPLY[*]}], '$word' must be $([ "$wanted" = 1 ] || echo not) there"
    done
}

offers 'flashinfer ' list check cache compile clear-cache not 'cache list' --help verify
offers 'flashinfer --' --help --version not check
offers 'flashinfer c' check cache not bench
offers 'flashinfer cache ' list verify prune clear not check
offers 'flashinfer cache prune --' --unused-for --max-size --dry-run --json --help not --device
offers 'flashinfer help ca' cache
offers 'flashinfer help cache ' not check
offers 'flashinfer check --device ' cpu cuda all not mm
offers 'flashinfer check --device=' cpu cuda all
offers 'flashinfer check --device=cu' cuda not cpu
offers 'flashinfer compile -j ' not mm
offers 'flashinfer compile --from ' not mm
offers 'flashinfer specs --arch 1' 100 120 not 90
offers 'flashinfer explain rms' rmsnorm not mm
offers 'flashinfer explain rmsnorm ' hidden= rows= dtype= eps=
offers 'flashinfer explain rmsnorm dtype=' f16 bf16 not f64
offers 'flashinfer explain rmsnorm dtype=b' bf16 not f16
offers 'flashinfer explain rmsnorm input:dtype=' not dtype=
offers 'flashinfer bench rmsnorm --kernel ' norm_cpu not mm_cpu
offers 'flashinfer bench rmsnorm --shape ' odd
offers 'flashinfer version ' not mm
offers 'flashinfer version --' --json --help
offers 'flashinfer nonsense ' not mm
offers 'flashinfer completion ' bash zsh

# Every command and every option of its page is offered, and nothing else.
for name in $(flashinfer completion words -- '' | cut -f 1); do
    second=$(flashinfer completion words -- "$name" '' | cut -f 1)
    flashinfer "$name" --help >"$work/page" || complain "$name is offered, and has no page"
    grep -q '^COMMANDS' "$work/page" || second=
    for command in ${second:-$name}; do
        [ "$command" = "$name" ] && words="$name" || words="$name $command"
        # shellcheck disable=SC2086
        flashinfer $words --help | sed -n '/^OPTIONS/,/^E[NX]/p' | grep -o -E '^  (-., )?--[a-z-]+' |
            sed 's/.*--/--/' | sort >"$work/page"
        # shellcheck disable=SC2086
        flashinfer completion words -- $words -- | cut -f 1 | sort >"$work/offered"
        cmp -s "$work/page" "$work/offered" || complain "$words: help and completion differ: $(diff "$work/page" "$work/offered")"
    done
done

if command -v zsh >/dev/null; then
    mkdir "$work/functions"
    flashinfer completion zsh >"$work/functions/_flashinfer"
    cat >"$work/press.zsh" <<'EOT'
# Types a line and Tab into a zsh of its own, and prints what that shows.
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1= RPS1= LISTMAX=1000 COLUMNS=200 TERM=dumb; fpath=($1 \$fpath); autoload -U compinit; compinit -D -u; setopt no_beep; zstyle ':completion:*' verbose yes; bindkey '^I' complete-word; setopt list_ambiguous auto_list"
sleep 1.5
zpty -w -n shell "$2"$'\t'
sleep 1.5
zpty -r -t shell shown
while zpty -r -t shell more; do shown+=$more; done
print -r -- "$shown"
EOT
    presses() { # LINE SHOWN
        zsh -f "$work/press.zsh" "$work/functions" "$1" >"$work/shown" 2>&1
        grep -q -e "$2" "$work/shown" || complain "zsh, '$1': does not show '$2': $(cat "$work/shown")"
    }
    presses 'flashinfer cache ' 'prune  *-- remove what is of no use'
    presses 'flashinfer check --dev' '--device'
    presses 'flashinfer explain rmsnorm dtype=' 'dtype=bf16'
    presses 'flashinfer bench rmsnorm --kernel norm_c' 'norm_cpu'
else
    echo 'zsh is not installed: its completion was not tried'
fi
exit $status
