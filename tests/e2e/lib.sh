# Shared by the end-to-end tests that are shell scripts; harness.py is the same for those in Python. Sourced first:
#
#     source "$(dirname "$0")/lib.sh"
#     ring3 0 run --clock virtual "$GUESTS/tour.elf" && check "the tour comes to its end" grep -q "the end" out
#     finish
#
# A test is named checks: `check NAME COMMAND`, `ok NAME` or `fail NAME WHY`. It gets RING3, the program, and GUESTS,
# the folder of the guests' images, in its environment. The program always runs as an unprivileged user, in $tmp as its
# own folder; $tmp stays behind when a check fails, and the command to repeat is printed.
# shellcheck shell=bash
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../scripts/lib.sh" # unprivileged

if ! [ -x "${RING3:?is the program to test}" ] || ! [ -d "${GUESTS:?is the folder of the guests}" ]; then
    echo "not there: $RING3 or $GUESTS; build the targets ring3 and guests" >&2
    exit 1
fi
RING3=$(realpath "$RING3")
GUESTS=$(realpath "$GUESTS")

tmp=$(mktemp -d -t ring3-XXXXXXXX)
failed=0
repeat=() # the last command, for whoever has to repeat it

if [ "$(id -u)" = 0 ]; then # what root may reach, nobody may not
    mkdir "$tmp/from"
    cp "$RING3" "$GUESTS"/*.elf "$tmp/from"
    RING3=$tmp/from/$(basename "$RING3")
    GUESTS=$tmp/from
    chown -R 65534:65534 "$tmp"
fi
cd "$tmp" || exit 1

ok() {
    echo "ok   $1"
}

# fail NAME WHY [FILE...]: with the last lines of the files.
fail() {
    failed=1
    echo "FAIL $1: $2"
    [ ${#repeat[@]} = 0 ] || echo "     again: cd $tmp; ${repeat[*]@Q}"
    shift 2
    [ $# = 0 ] || tail -n 12 "$@" | sed 's/^/     | /'
}

# check NAME COMMAND...: ok if the command succeeds; else the program's last output is shown.
check() {
    local name=$1
    shift
    if "$@"; then ok "$name"; else fail "$name" "not so: $*" out err; fi
}

# skip WHY: ends the test (ctest's SKIP_RETURN_CODE).
skip() {
    echo "SKIP $*"
    rm -rf "$tmp"
    exit 77
}

# ring3 STATUS ARGUMENTS...: runs it, output in the files out and err. False, and said, if it ends otherwise.
ring3() {
    local expected=$1 status
    shift
    repeat=("$RING3" "$@")
    unprivileged "${repeat[@]}" </dev/null >out 2>err
    status=$?
    [ $status = "$expected" ] && return
    fail "ring3 $*" "exit status $status, not $expected" out err
    return 1
}

finish() {
    [ $failed = 0 ] && rm -rf "$tmp"
    exit $failed
}
