#!/usr/bin/env python3
"""A file that cannot be loaded gets one line, which names the file and the check that failed, and exit status 1; with
`run` and `check` alike, and whatever is in it. (tests/unit/test_loader.c has every check; these are the ways there.)"""
import os
import random
import struct

import harness
from harness import elf, segment

CODE = harness.HALT
MIB = 0x100000


def multiboot(flags, *addresses, code=CODE):
    """A flat file with a multiboot 1 header."""
    return struct.pack("<3I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF) + struct.pack(
        f"<{len(addresses)}I", *addresses) + code


GOOD = elf(CODE)

# name: (content, parts of the message)
BAD_FILES = {
    "empty": (b"", ["empty"]),
    "text": (b"#!/bin/sh\n" * 100, ["not a kernel"]),
    "one_byte": (b"\x7f", []),
    "cut_in_ident": (GOOD[:8], ["truncated"]),
    "cut_in_header": (GOOD[:40], ["truncated"]),
    "cut_in_table": (GOOD[:60], ["truncated", "program header"]),
    "cut_in_segment": (elf(CODE * 100)[:-1], ["truncated", "segment 0"]),
    "64_bit": (elf(CODE, bits=2), ["64-bit"]),
    "big_endian": (elf(CODE, endian=2), ["big-endian"]),
    "arm": (elf(CODE, machine=40), ["another machine"]),
    "object": (elf(CODE, type=1), ["relocatable"]),
    "shared": (elf(CODE, type=3), ["shared object"]),
    "no_segments": (elf(CODE, segments=[]), ["no program headers"]),
    "only_notes": (elf(CODE, segments=[segment(84, MIB, 2, kind=4)]), ["no loadable segments"]),
    "interpreter": (elf(CODE, segments=[segment(84, MIB, 2, kind=3)]), ["interpreter"]),
    "overlapping": (elf(CODE * 100, segments=[segment(116, MIB, 200), segment(116, MIB + 100, 200)]), ["overlap"]),
    "beyond_ram": (elf(CODE, entry=0x40000000, segments=[segment(84, 0x40000000, 2)]), ["outside the memory of 256M"]),
    "across_the_end_of_ram": (elf(CODE, segments=[segment(84, MIB, 2, 0x7fffffff)]), ["outside the memory of 256M"]),
    "on_the_vga": (elf(CODE, entry=0xA0000, segments=[segment(84, 0xA0000, 2)]), []),
    "beyond_4_gib": (elf(CODE, entry=0xFFFFFFFF, segments=[segment(84, 0xFFFFFFFF, 2)]), []),
    "file_larger_than_memory": (elf(CODE, segments=[segment(84, MIB, 2, 1)]), ["more bytes in the file"]),
    "entry_nowhere": (elf(CODE, entry=0x500000), ["entry point"]),
    "table_nowhere": (elf(CODE, phoff=0xFFFFFFF0), ["program header"]),
    "many_segments": (elf(CODE, phnum=0xFFFF), ["program header"]),
    "odd_program_headers": (elf(CODE, phentsize=31), ["program headers of 31 bytes"]),
    "bytes_nowhere": (elf(CODE, segments=[segment(0xFFFFFFFE, MIB, 2)]), ["truncated", "segment 0"]),
    "multiboot_cut": (multiboot(0x10000), []),
    "multiboot_backwards": (multiboot(0x10000, MIB, MIB, MIB - 1, 0, MIB), []),
    "multiboot_needs_what_is_not_there": (multiboot(0x8, 0, 0, 0, 0, 0), []),
}


class Loader(harness.Test):
    def assert_refused(self, path, *parts, command=("run",)):
        out, err = self.run_ring3(*command, path, status=1)
        self.assertEqual(out, "")
        self.assert_one_line(err, "ring3", path, *parts)

    def test_good_file(self):
        """What the others are variations of."""
        _, err = self.run_ring3("run", self.put("kernel.elf", GOOD))
        self.assert_one_line(err, "halted with interrupts off, at 0008:00100002")

    def test_bad_files(self):
        for name, (content, parts) in BAD_FILES.items():
            with self.subTest(name):
                self.assert_refused(self.put(name, content), *parts)

    def test_bad_files_in_check(self):
        """What does not depend on how much RAM there is."""
        for name in ("empty", "text", "cut_in_header", "cut_in_segment", "64_bit", "overlapping", "table_nowhere"):
            with self.subTest(name):
                content, parts = BAD_FILES[name]
                self.assert_refused(self.put(name, content), *parts, command=("check",))

    def test_files_that_are_none(self):
        self.assert_refused(self.path("missing"), "No such file or directory")
        self.assert_refused(self.tmp, "directory")
        self.assert_refused("/dev/null")
        os.mkfifo(self.path("fifo"), 0o666)
        self.assert_refused(self.path("fifo"))  # and does not wait for somebody to write it
        secret = self.put("secret", GOOD)
        os.chmod(secret, 0)
        self.assert_refused(secret, "Permission denied")

    def test_companions(self):
        """Modules, raw files and disks."""
        kernel = self.put("kernel.elf", GOOD)
        tour = self.guest("tour")
        for option, value, parts in (("--module", "missing", ["missing", "No such file"]),
                                     ("--load", "missing@0x200000", ["missing", "No such file"]),
                                     ("--load", f"{kernel}@0x0fffffff", [kernel]),
                                     ("--load", f"{kernel}@0xa0000", [kernel]),
                                     ("--drive", "missing", ["missing", "No such file"]),
                                     ("--drive", self.tmp, [self.tmp])):
            with self.subTest(option=option, value=value):
                _, err = self.run_ring3("run", option, value, tour, status=1)
                self.assert_one_line(err, *parts)

    def test_snapshot_leaves_the_disk_alone(self):
        """A disk that is not ours to write serves a snapshot, and nothing else."""
        disk = self.put("disk", bytes(64 << 10))
        os.chmod(disk, 0o444)
        self.run_ring3("run", "--drive", f"{disk},snapshot")
        _, err = self.run_ring3("run", "--drive", disk, status=1)
        self.assert_one_line(err, disk, "Permission denied")

    def test_damaged_files(self):
        """Random damage to the headers of a real image: it runs, it is refused in a line, or the guest dies; the
        monitor never does."""
        with open(self.guest("tour"), "rb") as file:
            image = file.read()
        chance = random.Random(1)
        for _ in range(60):
            damaged = bytearray(image)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(4, 52 + 3 * 32)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            path = self.put("damaged.elf", damaged)
            with self.subTest(header=damaged[:148].hex()):
                self.run_damaged(path)

    def run_damaged(self, path):
        self.command = [self.ring3, "run", "--timeout", "2", path]
        done = harness.subprocess.run(harness.UNPRIVILEGED + self.command, cwd=self.tmp, input=b"", check=False,
                                      capture_output=True, timeout=harness.PATIENCE)
        err = done.stderr.decode()
        self.assertIn(done.returncode, (0, 1, 3, 4), err)
        if done.returncode == 1:
            self.assert_one_line(err, f"ring3: {path}: ")


if __name__ == "__main__":
    harness.main()
