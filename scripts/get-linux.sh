#!/usr/bin/env bash
# Fetches Debian's 32-bit Linux kernel and busybox, as any Debian system can, and puts them into build/linux: vmlinuz, and
# initrd with the modules of an IDE disk, which starts a shell. With --pae the same of the kernel that Debian calls 686-pae,
# as vmlinuz-pae and initrd-pae. Nothing is installed.
# Used by: scripts/linux.sh, docs/linux.md, tests/e2e/test_linux.py.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

folder=$top/build/linux
modules=(crct10dif_common crc-t10dif crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi scsi_common scsi_mod libata
    ata_piix sd_mod i2c-smbus i2c-piix4)

# apt as on an i386 system, with state of its own.
apt_i386() {
    local command=$1
    shift
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    "$command" -o APT::Architecture=i386 -o APT::Architectures::=i386 -o Dir::State::Lists="$folder/apt/lists" \
        -o Dir::Cache="$folder/apt" -o APT::Sandbox::User=root "$@"
}

# The package that a metapackage stands for.
newest_kernel() { # METAPACKAGE
    apt_i386 apt-cache depends "$1" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}

# apt's progress on a terminal; into the log otherwise.
watched() {
    if [ -t 2 ]; then
        "$@" >&2
    else
        "$@" >>get.log 2>&1
    fi
}

fetch_kernel() { # METAPACKAGE SUFFIX
    say "fetching $1 and busybox-static for i386"
    rm -rf ./*.deb kernel busybox get.log "root$2"
    # One list of several that cannot be had need not be the one that is needed.
    watched apt_i386 apt-get update || true
    watched apt_i386 apt-get download "$(newest_kernel "$1")" busybox-static || { cat get.log >&2; return 1; }
    dpkg-deb -x linux-image-*.deb kernel
    dpkg-deb -x busybox-static_*.deb busybox
    mkdir -p "root$2/bin" "root$2/lib"
    cp busybox/bin/busybox "root$2/bin/"
    for module in "${modules[@]}"; do
        find kernel/lib/modules -name "$module.ko*" -exec cp {} "root$2/lib/" \;
    done
    printf '%s\n' "${modules[@]}" >"root$2/lib/order"
    cp kernel/boot/vmlinuz-* "vmlinuz$2"
    rm -rf ./*.deb kernel busybox apt get.log
}

# vmlinuz and initrd; the latter is made anew when /init has changed.
provide_kernel() { # METAPACKAGE SUFFIX
    if [ ! -e "vmlinuz$2" ] || [ ! -e "root$2/lib/order" ]; then
        fetch_kernel "$1" "$2"
    fi
    if [ ! -e "initrd$2" ] || [ "$top/tests/e2e/linux-init" -nt "initrd$2" ]; then
        python3 "$top/scripts/make-initrd.py" "root$2" "$top/tests/e2e/linux-init" "initrd$2"
    fi
    chmod a+r "vmlinuz$2" "initrd$2"
}

mkdir -p "$folder"
cd "$folder"
provide_kernel linux-image-686 ""
if [ "${1:-}" = --pae ]; then
    provide_kernel linux-image-686-pae -pae
fi
