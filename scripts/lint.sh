#!/usr/bin/env bash
# Formatting and lints: clang-format on every source, clang-tidy on what ring3 itself is made of.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

cd "$top"
sources() {
    find decode vcpu shadowpt devices monitor signals guests tests bench \( -name '*.c' -o -name '*.h' \) -print
}

say "clang-format"
sources | xargs clang-format --dry-run --Werror

say "clang-tidy"
mkdir -p build
cmake -S . --preset clang >build/clang.configure.log 2>&1
find decode vcpu shadowpt devices monitor signals -name '*.c' -print0 |
    xargs -0 -n 8 -P "$(nproc)" clang-tidy -p build/clang --quiet 2>/dev/null
