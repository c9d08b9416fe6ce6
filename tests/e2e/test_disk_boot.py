#!/usr/bin/env python3
"""A disk boots through a real BIOS: Debian's SeaBIOS (package seabios), unmodified, reads the boot sector of a disk made
here, which reads a second one, prints it by the video BIOS, and resets the machine or switches its power off.
"""
import os

import harness

BIOS = "/usr/share/seabios/bios-256k.bin"
ENGINES = ("interpret", "translate")
TEXT = b"the second sector was here\r\n\0"

BOOT_SECTOR = (b"\x31\xc0\x8e\xd8\x8e\xc0\x8e\xd0"  # xor %ax, %ax; mov %ax, %ds; %es; %ss
               b"\xbc\x00\x7c"                      # mov $0x7c00, %sp
               b"\xb8\x01\x02\xbb\x00\x80"          # mov $0x0201, %ax; mov $0x8000, %bx
               b"\xb9\x02\x00\xb6\x00\xcd\x13"      # mov $2, %cx; mov $0, %dh; int $0x13: read sector 2
               b"\xbe\x00\x80"                      # mov $0x8000, %si
               b"\xac\x84\xc0\x74\x09"              # 1: lodsb; test %al, %al; jz 2
               b"\xb4\x0e\xbb\x07\x00\xcd\x10"      # mov $14, %ah; mov $7, %bx; int $0x10: print
               b"\xeb\xf2"                          # jmp 1
               b"\xb0\x50\xe6\x70\xe4\x71"          # 2: mov $0x50, %al; out %al, $0x70; in $0x71, %al
               b"\x3c\x42\x74\x0d"                  # cmp $0x42, %al; je 3: this is the second time
               b"\xb0\x42\xe6\x71"                  # mov $0x42, %al; out %al, $0x71
               b"\xba\xf9\x0c\xb0\x06\xee"          # mov $0xcf9, %dx; mov $6, %al; out %al, %dx: reset
               b"\xf4\xeb\xfd"                      # hlt; jmp . - 1
               b"\xba\x04\x06\xb8\x00\x20\xef"      # 3: mov $0x604, %dx; mov $0x2000, %ax; out %ax, %dx: off
               b"\xf4\xeb\xfd")


def image():
    return BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + TEXT.ljust(512, b"\0") + bytes(1 << 20)


class DiskBoot(harness.Test):
    def boot(self, engine, *options):
        disk = self.put("disk.img", image())
        return self.run_ring3("run", "--engine", engine, "--boot", "disk", "--drive", f"{disk},snapshot", "--timeout",
                              "50", *options)

    def test_a_reset_ends_the_run(self):
        for engine in ENGINES:
            with self.subTest(engine):
                out, err = self.boot(engine)
                self.assertIn("SeaBIOS", out)
                self.assertIn("Booting from Hard Disk", out)
                self.assertEqual(out.count("the second sector was here"), 1, out)
                self.assert_one_line(err, "the guest reset the machine (port 0xCF9, reset control)")

    def test_or_starts_the_machine_again(self):
        for engine in ENGINES:
            with self.subTest(engine):
                out, err = self.boot(engine, "--reboot")
                self.assertEqual(out.count("the second sector was here"), 2, out)
                self.assert_one_line(err, "the guest switched the power off")

    def test_virtual_time(self):
        runs = {self.boot("interpret", "--clock", "virtual") for _ in range(2)}
        self.assertEqual(len(runs), 1)

    def test_what_is_no_bios(self):
        disk = self.put("disk.img", image())
        for bios, part in ((disk, "not a BIOS"), (self.path("missing"), "No such file or directory")):
            _, err = self.run_ring3("run", "--boot", "disk", "--drive", disk, "--bios", bios, status=1)
            self.assert_one_line(err, bios, part)

    def test_the_trap_engine_says_that_it_cannot(self):
        disk = self.put("disk.img", image())
        _, err = self.run_ring3("run", "--engine", "trap", "--boot", "disk", "--drive", disk, status=3)
        self.assert_one_line(err, "real mode")


if __name__ == "__main__":
    if not os.path.exists(BIOS):
        harness.skip_all("no SeaBIOS here (Debian package seabios)")
    harness.main()
