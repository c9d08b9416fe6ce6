#!/bin/sh
# guests_qemu.sh DIRECTORY: runs every teaching guest in DIRECTORY under QEMU, which is the check on the guests
# themselves: what they expect of ring3 must hold on a machine that is not ring3.
# Prints a line for each guest; exit status 1 if one failed. Without QEMU it says so and succeeds.
set -u

if [ $# -ne 1 ] || [ ! -d "$1" ]; then
    echo "usage: $0 DIRECTORY (where the *.elf of the guests are)" >&2
    exit 2
fi
qemu="qemu-system-i386"
if ! command -v $qemu >/dev/null; then
    echo "SKIP guests under QEMU: no $qemu here (Debian package qemu-system-x86)"
    exit 0
fi

seconds=30
words="a20 breakpoints fpu x87 sysenter far cpuid" # what QEMU can do beyond the guests' default (guests/README.md)
tour_seconds=5 # the tour ends in a halt, which QEMU sleeps in for ever
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT

# escape asks that newer instructions be undefined, pae that there be NX. tour opens the interrupt flag for a moment, and
# the BIOS leaves its timer on: by instructions, not by how busy the host is, it has not run out by then.
processor() { # guest
    case $1 in
    tour) echo "-icount shift=1" ;;
    escape) echo "-cpu pentium3" ;;
    pae) echo "-cpu qemu32,+nx" ;;
    esac
}

# usage: machine SECONDS IMAGE
machine() {
    # shellcheck disable=SC2046 # two words or none
    timeout "$1" $qemu $(processor "$guest") -kernel "$2" -append "$words" -display none -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=0x4 -no-reboot
}

failed=0

# isa-debug-exit ends QEMU with (value << 1) | 1: status 1 is value 0, all checks passed.
verdict() { # guest status
    case $1:$2 in
    tour:124) grep -q '^  7  the end' "$output" ;;
    tour:*) false ;;
    *:1) grep -q '^[0-9]* checks, 0 failed' "$output" ;;
    *) false ;;
    esac
}

for image in "$1"/*.elf; do
    [ -e "$image" ] || { echo "no guests in $1" >&2; exit 1; }
    guest=$(basename "$image" .elf)
    limit=$seconds
    [ "$guest" = tour ] && limit=$tour_seconds
    machine $limit "$image" </dev/null >"$output" 2>/dev/null
    status=$?
    if verdict "$guest" $status; then
        echo "ok   $guest: $(tail -n 1 "$output")"
    else
        failed=1
        echo "FAIL $guest: status $status, last line: $(tail -n 1 "$output")"
        grep '^FAIL' "$output"
        echo "     again: $qemu $(processor "$guest") -kernel $image -append '$words' -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=0x4 -no-reboot"
    fi
done
exit $failed
