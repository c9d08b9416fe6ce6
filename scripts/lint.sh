#!/usr/bin/env bash
# Formatting and lints: clang-format on every source, clang-tidy on what ring3 itself is made of.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

cd "$top"
sources() {
    find decode vcpu shadowpt devices monitor signals translate guests tests bench \( -name '*.c' -o -name '*.h' \) -print0
}

say "clang-format"
sources | xargs -0 clang-format --dry-run --Werror

# One file a process: clang-tidy 14 takes the va_list of every file after the first for uninitialized.
say "clang-tidy"
mkdir -p build
configure_preset clang
find decode vcpu shadowpt devices monitor signals translate -name '*.c' -print0 |
    xargs -0 -n 1 -P "$(nproc)" clang-tidy -p build/clang --quiet 2>/dev/null
