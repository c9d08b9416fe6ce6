#!/usr/bin/env bash
# A shell on Debian's unmodified 32-bit Linux kernel: installs, builds and fetches what is missing, then boots it, as an
# unprivileged user. `--pae` takes the kernel with PAE (linux-image-686-pae); other options go to `ring3 run`, and what
# --append gives is added to the kernel's command line. docs/linux.md says more.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

kernel="" # which: "" or -pae
append="console=ttyS0"
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --pae) kernel=-pae ;;
    --append=*) append+=" ${1#*=}" ;;
    --append)
        append+=" ${2-}"
        shift
        ;;
    *) options+=("$1") ;;
    esac
    shift || true
done
# The guest's serial line cannot know them.
if size=$(stty size 2>/dev/null) && [ "${size% *}" -gt 0 ]; then
    append+=" LINES=${size% *} COLUMNS=${size#* } TERM=${TERM:-vt100}"
fi

need_packages "${build_packages[@]}" util-linux python3
mkdir -p "$top/build"
"$top/scripts/get-linux.sh" ${kernel:+-"$kernel"}
build_preset release ring3

# Where the tree cannot be read by others (a clone under /root), the files needed are put where they can.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cp "$top/build/release/ring3" "$top/build/linux/vmlinuz$kernel" "$top/build/linux/initrd$kernel" "$folder"

say "Linux: 'poweroff' ends it, and so does Ctrl-A x; Ctrl-C goes to the guest"
unprivileged "$folder/ring3" run --engine translate --append "$append" --initrd "$folder/initrd$kernel" \
    "${options[@]}" "$folder/vmlinuz$kernel"
