#!/usr/bin/env bash
# Runs all tests: builds with gcc, with clang and with sanitizers, checks formatting and lints, then every test as an
# unprivileged user. All set-up, packages included, is done here. `scripts/test.sh -R NAME` passes its options to the
# last ctest alone and skips the rest: for a quick second look at one test.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

need_packages "${build_packages[@]}" "${test_packages[@]}"

# Tests run as nobody, who must be able to read the tree: a clone in a private folder is tested from a copy.
if ! unprivileged test -r "$top/CMakeLists.txt"; then
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    chmod 755 "$copy"
    git -C "$top" ls-files -z | (cd "$top" && tar --null -T - -cf -) | tar -C "$copy" -xf -
    top=$copy
fi
mkdir -p "$top/build"
"$top/scripts/get-linux.sh" --pae || say "no Linux kernel could be fetched: its test will be skipped"

run_ctest() { # PRESET ctest-options...
    local preset=$1
    shift
    [ "$(id -u)" = 0 ] && chown -R 65534:65534 "$top/build/$preset"
    unprivileged ctest --test-dir "$top/build/$preset" --output-on-failure --parallel "$(nproc)" "$@"
}

if [ $# = 0 ]; then
    "$top/scripts/lint.sh"
    build_preset clang
    build_preset asan
    say "unit tests under AddressSanitizer and UBSan"
    run_ctest asan -L unit -LE native
fi
build_preset release
say "all tests"
run_ctest release "$@"
