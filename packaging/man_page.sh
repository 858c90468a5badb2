#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the manual page of the command: what it and each of its subcommands print under --help.
#   usage: packaging/man_page.sh build/flashinfer
set -eu
command=$1

escape() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^[.']/\\\\\&&/"; }

# Headings in capitals become .HEADING; everything else keeps its lines.
page_of() { # HEADING ARGUMENT...
    heading=$1
    shift
    text=$("$command" "$@")
    echo '.nf'
    printf '%s\n' "$text" | escape | awk -v heading="$heading" '/^[A-Z][A-Z ]+$/ { print ".fi\n." heading " " $0 "\n.nf"; next } { print }'
    echo '.fi'
}

# Under COMMANDS: two spaces, a name of one or more words, two spaces.
subcommands=$("$command" --help | sed -n '/^COMMANDS$/,/^$/s/^  \([^ ]\)/\1/p' | sed 's/  .*//')
[ -n "$subcommands" ] || { echo "man_page: '$command --help' lists no commands under COMMANDS" >&2; exit 1; }

printf '.TH FLASHINFER 1 "" "%s" "User Commands"\n' "$("$command" version | sed 's/^flashinfer/flashinfer-c/' | escape)"
echo '.SH NAME'
echo 'flashinfer \- look into, check and time kernels for serving large language models'
echo '.SH SYNOPSIS'
page_of SH --help
printf '%s\n' "$subcommands" | while read -r subcommand; do
    echo ".SH flashinfer $subcommand" | sed 's/-/\\-/g'
    page_of SS $subcommand --help
done
