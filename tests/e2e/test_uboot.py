#!/usr/bin/env python3
"""A real firmware boots: Debian's U-Boot for QEMU's PC (package u-boot-qemu), unmodified, to its prompt, and answers
what is typed.

Its uboot.elf is linked without the device tree that U-Boot expects right behind its image; u-boot.bin, the same
build as it goes into a ROM, has it. The test cuts it out there and loads both.
"""
import datetime
import os
import re
import struct

import harness

FOLDER = "/usr/lib/u-boot/qemu-x86"
DEVICE_TREE_MAGIC = 0xD00DFEED


def device_tree():
    """(physical address, bytes) of the device tree."""
    with open(os.path.join(FOLDER, "uboot.elf"), "rb") as file:
        header = struct.unpack("<8I", file.read(84)[52:84])
    address, size = header[3], header[4]  # of segment 0: p_paddr, p_filesz
    with open(os.path.join(FOLDER, "u-boot.bin"), "rb") as file:
        rom = file.read()
    magic, length = struct.unpack(">II", rom[size:size + 8])
    if magic != DEVICE_TREE_MAGIC:
        raise ValueError(f"u-boot.bin has no device tree at {size:#x}: is it of the same build as uboot.elf?")
    return address + size, rom[size:size + length]


class UBoot(harness.Test):
    def boot(self, *options, engine="trap", terminal=True):
        """Boots to the prompt."""
        address, tree = device_tree()
        path = self.put("u-boot.dtb", tree)
        uboot = harness.Conversation(self, "run", "--engine", engine, "--timeout", "100", *options, "--load",
                                     f"{path}@{address:#x}", os.path.join(FOLDER, "uboot.elf"), terminal=terminal)
        uboot.expect("U-Boot 20")
        uboot.expect("DRAM:  256 MiB")
        uboot.expect("Hit any key to stop autoboot")
        uboot.type(" ")
        uboot.expect("\n=> ")
        return uboot

    @staticmethod
    def ask(uboot, command):
        uboot.type(command + "\r")
        uboot.expect(command)  # its echo
        return uboot.expect("\n=> ").replace("\r", "")

    def converse(self, uboot):
        """Asks it about itself, its memory and its clock; returns the answer to `date`."""
        self.assertRegex(self.ask(uboot, "version"), r"(?m)^U-Boot 20\d\d\.\d\d.*\n\ni686-linux-gnu-gcc")
        info = self.ask(uboot, "bdinfo")
        self.assertRegex(info, r"(?m)^-> size += 0x10000000$")
        self.assertRegex(info, r"(?m)^baudrate += 115200 bps$")
        self.ask(uboot, "mw.l 200000 deadbeef 2")
        self.ask(uboot, "mw.b 200008 41 8")
        self.assertIn("00200000: deadbeef deadbeef 41414141 41414141  ........AAAAAAAA", self.ask(uboot, "md 200000 4"))
        date = re.search(r"Date: (\d{4})-(\d\d)-(\d\d) \((\w+)\) +Time: +(\d+):(\d\d):(\d\d)", self.ask(uboot, "date"))
        self.assertIsNotNone(date, uboot.text()[-500:])
        year, month, day, weekday, hour, minute, second = date.groups()
        answer = datetime.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))
        self.assertEqual(answer.strftime("%A"), weekday)
        return answer

    def test_virtual_clock(self):
        uboot = self.boot("--clock", "virtual")
        date = self.converse(uboot)  # machine time begins on this day in every run, and passes with exits
        self.assertEqual(date.date(), datetime.date(2000, 1, 1))
        self.assertLess(date.hour, 1)
        uboot.type("\x01x")  # Ctrl-A x
        self.assertEqual(uboot.finish(), 0)

    def test_interpreted(self):
        uboot = self.boot("--clock", "host", engine="interpret")
        self.converse(uboot)
        uboot.type("reset\r")
        self.assertEqual(uboot.finish(), 0)

    def test_translated(self):
        uboot = self.boot("--clock", "host", engine="translate")
        self.converse(uboot)
        uboot.type("reset\r")
        self.assertEqual(uboot.finish(), 0)

    def test_host_clock_and_pipes(self):
        uboot = self.boot("--clock", "host", terminal=False)
        before = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None, microsecond=0)
        date = self.converse(uboot)
        self.assertLess(abs(date - before), datetime.timedelta(seconds=harness.PATIENCE))
        uboot.type("reset\r")
        self.assertEqual(uboot.finish(), 0)


if __name__ == "__main__":
    if not os.path.exists(os.path.join(FOLDER, "uboot.elf")):
        harness.skip_all("no U-Boot here (Debian package u-boot-qemu)")
    harness.main()
