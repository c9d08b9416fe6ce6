#!/usr/bin/env bash
# Stores the traces that come out today as the golden ones, tests/golden/. Look at what changed before committing it.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

need_packages "${build_packages[@]}" util-linux
mkdir -p "$top/build"
build_preset release
RING3=$top/build/release/ring3 GUESTS=$top/build/release/guests GOLDEN=$top/build/release/tests/golden.elf \
    "$top/tests/e2e/test_golden.sh" --update
