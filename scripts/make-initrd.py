#!/usr/bin/env python3
"""make-initrd.py FOLDER INIT OUTPUT: an initial RAM disk with the files of FOLDER, INIT as /init, and /dev/console; in the
"new ASCII" format of cpio (Linux's Documentation/driver-api/early-userspace/buffer-format.rst)."""
import os
import stat
import sys


class Archive:
    def __init__(self, path):
        self.file = open(path, "wb")
        self.n_entries = 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        name = name.encode() + b"\0"
        self.n_entries += 1
        fields = (self.n_entries, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name
        self.file.write(header.ljust((len(header) + 3) & ~3, b"\0") + data + bytes(-len(data) % 4))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    folder, init, output = sys.argv[1:]
    archive = Archive(output)
    for name in ("proc", "sys", "dev"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    for path, _, names in sorted(os.walk(folder)):
        inside = os.path.relpath(path, folder)
        if inside != ".":
            archive.add(inside, stat.S_IFDIR | 0o755)
        for name in sorted(names):
            full = os.path.join(path, name)
            archive.add(os.path.normpath(os.path.join(inside, name)), os.stat(full).st_mode, read(full))
    archive.add("init", stat.S_IFREG | 0o755, read(init))
    archive.add("TRAILER!!!", 0)


main()
