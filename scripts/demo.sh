#!/usr/bin/env bash
# Builds ring3 and boots its embedded guest by trap-and-emulate (the trap engine), as an unprivileged user. All set-up is done here.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

need_packages "${build_packages[@]}" util-linux
mkdir -p "$top/build"
build_preset release >&2

# Where the tree cannot be read by others (a clone under /root), the one file needed is put where it can.
ring3=$(mktemp -d)/ring3
trap 'rm -rf "$(dirname "$ring3")"' EXIT
chmod 755 "$(dirname "$ring3")"
cp "$top/build/release/ring3" "$ring3"

say "ring3 run: the embedded guest, under the trap engine"
unprivileged "$ring3" run --engine trap "$@"
say "the same with every trap shown: the first 14 of them"
# Not a pipe into head: that ends first, and a trace that nobody takes is a failure.
unprivileged "$ring3" run --engine trap --trace - --console none 2>/dev/null >"$(dirname "$ring3")/trace"
head -n 15 "$(dirname "$ring3")/trace"
say "more: build/release/ring3 --help, and README.md"
