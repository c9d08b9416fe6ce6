#!/usr/bin/env bash
# Fetches Debian's 32-bit Linux kernel and busybox, as any Debian system can, and puts them into build/linux: vmlinuz,
# the modules of an IDE disk, and an initial RAM disk that starts a shell. Nothing is installed.
# Used by: docs/linux.md, tests/e2e/test_linux.py.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

folder=$top/build/linux
kernel_package=linux-image-686
modules=(crct10dif_common crc-t10dif crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi scsi_common scsi_mod libata
    ata_piix sd_mod i2c-smbus i2c-piix4)

# apt as on an i386 system, with state of its own.
apt_i386() {
    local command=$1
    shift
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    "$command" -qq -o APT::Architecture=i386 -o APT::Architectures::=i386 -o Dir::State::Lists="$folder/apt/lists" \
        -o Dir::Cache="$folder/apt" -o APT::Sandbox::User=root "$@"
}

# The package that a metapackage stands for.
newest_kernel() {
    apt_i386 apt-cache depends "$kernel_package" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}

mkdir -p "$folder"
cd "$folder"
if [ ! -e vmlinuz ] || [ ! -e initrd ]; then
    say "fetching $kernel_package and busybox-static for i386"
    # One list of several that cannot be had need not be the one that is needed.
    apt_i386 apt-get update >update.log 2>&1 || true
    rm -rf ./*.deb kernel busybox root
    apt_i386 apt-get download "$(newest_kernel)" busybox-static
    dpkg-deb -x linux-image-*.deb kernel
    dpkg-deb -x busybox-static_*.deb busybox
    mkdir -p root/bin root/lib
    cp busybox/bin/busybox root/bin/
    for module in "${modules[@]}"; do
        find kernel/lib/modules -name "$module.ko*" -exec cp {} root/lib/ \;
    done
    printf '%s\n' "${modules[@]}" >root/lib/order
    python3 "$top/scripts/make-initrd.py" root "$top/tests/e2e/linux-init" initrd
    cp kernel/boot/vmlinuz-* vmlinuz
    rm -rf ./*.deb kernel busybox root apt update.log
fi
chmod a+r vmlinuz initrd
