#!/usr/bin/env python3
"""The command line: help, mistakes, exit statuses and how each end is explained; the manual page; `check`, `doctor`
and `trace diff` as a script uses them."""
import json
import os
import re
import shutil
import struct
import subprocess

import harness

COMMANDS = ["run", "check", "translate", "doctor", "step", "trace diff"]
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CommandLine(harness.Test):
    def test_help(self):
        for command in ["", *COMMANDS]:
            with self.subTest(command=command):
                out, err = self.run_ring3(*command.split(), "--help")
                self.assertRegex(out, rf"(?m)\A[Uu]sage: ring3 {command}")
                self.assertEqual(err, "")
                self.assertLessEqual(max(map(len, out.split("\n"))), 100, "a line is too long to read")
        out, _ = self.run_ring3("--help")
        for command in COMMANDS:
            self.assertRegex(out, rf"(?m)^ +{command.split()[0]} ")

    def test_version(self):
        out, _ = self.run_ring3("--version")
        self.assertRegex(out, r"\Aring3 \d+\.\d+\.\d+\n\Z")

    def test_mistakes(self):
        for arguments in ([], ["bot"], ["--bogus"], ["run", "--bogus"], ["run", "--engine"], ["run", "--engine", "kvm"],
                          ["run", "a", "b"], ["run", "-m", "0"], ["run", "-m", "5G"], ["run", "-m", "lots"],
                          ["run", "--clock", "sundial"], ["run", "--holes", "dig"], ["run", "--console", "vga"],
                          ["run", "--timeout", "0"], ["run", "--timeout", "soon"], ["run", "--load", "file"],
                          ["run", "--load", "file@-1"], ["run", "--load", "file@0x100000000"], ["check"],
                          ["check", "--bogus", "x"], ["translate"], ["translate", "--show", "x", "-n", "0"],
                          ["translate", "--show", "x", "--mode", "real"], ["doctor", "x"], ["step", "--bogus"], ["trace"], ["trace", "dif"],
                          ["trace", "diff"], ["trace", "diff", "a"], ["trace", "diff", "a", "b", "c"]):
            with self.subTest(arguments=arguments):
                out, err = self.run_ring3(*arguments, status=2)
                self.assertEqual(out, "")
                self.assertRegex(err, r"\Aring3.*\n(.*\n)?\Z")

    def test_empty_command_line(self):
        """An empty --append is what a script with nothing to say passes."""
        self.run_ring3("run", "--append", "")

    def test_manual_page(self):
        formatter = next(filter(shutil.which, ("mandoc", "groff")), None)
        if formatter is None:
            self.skipTest("neither mandoc nor groff here")
        command = {"mandoc": ["mandoc", "-T", "utf8"], "groff": ["groff", "-man", "-T", "utf8", "-ww"]}[formatter]
        page = os.path.join(TOP, "docs", "ring3.1")
        done = subprocess.run([*command, page], check=True, capture_output=True, text=True)
        self.assertEqual(done.stderr, "")
        text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
        for command in COMMANDS:
            self.assertTrue(f"ring3 {command}" in text, f"ring3 {command} is not in the manual")
        options = re.findall(r"(?m)^ +(?:-\w, )?(--[\w-]+)", self.run_ring3("run", "--help")[0])
        self.assertGreater(len(options), 10)
        for option in options:
            self.assertTrue(option in text.replace("\u2010", "-"), f"{option} is not in the manual")


class Ends(harness.Test):
    """How a run ends, and what is said about it."""

    def run_code(self, code, status, *options):
        _, err = self.run_ring3("run", *options, self.put("kernel.elf", harness.elf(code)), status=status)
        return err

    def test_halt(self):
        self.assert_one_line(self.run_code(harness.HALT, 0), "halted with interrupts off, at 0008:00100002")

    def test_debug_exit(self):
        for value in (0, 1, 2, 100, 127):
            err = self.run_code(harness.write_port(harness.DEBUG_EXIT, value), value << 1 | 1)
            self.assert_one_line(err, f"wrote {value} to isa-debug-exit")

    def test_reset(self):
        """By the keyboard controller's reset line, the reset control register, and port 0x92."""
        for port, value in ((0x64, 0xFE), (0xCF9, 0x06), (0x92, 0x01)):
            with self.subTest(port=hex(port)):
                self.assert_one_line(self.run_code(harness.write_port(port, value), 0), "reset")

    def test_reboot(self):
        """A kernel that resets the machine once, and finds by the CMOS memory that it has been here before; what it
        wrote to its own memory is gone."""
        count = struct.pack("<I", harness.LOAD_ADDRESS + 0x800)
        reset = (harness.write_port(0x71, 0x42) + harness.write_port(0x64, 0xFE) +
                 b"\xf4\xeb\xfd")                             # hlt; jmp . - 1
        code = (harness.print_bytes("boot ") +
                b"\x83\x3d" + count + b"\x00\x74\x02\x0f\x0b"   # cmpl $0, count; je 1; ud2
                b"\xff\x05" + count +                          # 1: incl count
                harness.write_port(0x70, 0x50) +
                b"\xba\x71\x00\x00\x00\xec"                    # mov $0x71, %edx; in (%dx), %al
                b"\x3c\x42\x74" + bytes([len(reset)]) + reset +  # cmp $0x42, %al; je 2
                harness.HALT)                                  # 2:
        segment = harness.segment(84, harness.LOAD_ADDRESS, len(code), 0x1000)
        kernel = self.put("kernel.elf", harness.elf(code, segments=[segment]))
        for engine in ("trap", "translate", "interpret"):
            with self.subTest(engine):
                out, err = self.run_ring3("run", "--engine", engine, kernel)
                self.assertEqual(out, "boot ")
                self.assert_one_line(err, "the guest reset the machine (the keyboard controller's RESET line)")
                out, err = self.run_ring3("run", "--engine", engine, "--reboot", kernel)
                self.assertEqual(out, "boot boot ")
                self.assert_one_line(err, "halted with interrupts off")

    def test_power_off(self):
        """ACPI, sleep state S5: SLP_EN to the PM1 control register."""
        code = b"\xba\x04\x06\x00\x00\xb8\x00\x20\x00\x00\x66\xef"  # mov $0x604, %edx; mov $0x2000, %eax; out %ax
        self.assert_one_line(self.run_code(code, 0), "power")

    def test_triple_fault(self):
        err = self.run_code(harness.TRIPLE_FAULT, 3)
        self.assert_one_line(err, "triple fault", "#UD", "IDT")
        self.assertRegex(err, r"at 0008:001000[0-9a-f]{2}")

    def test_impossible(self):
        """16-bit real mode is not for this engine: it stops there, with the bytes."""
        code = b"\x0f\x20\xc0\x24\xfe\x0f\x22\xc0"  # mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0
        err = self.run_code(code + harness.SPIN, 3, "--engine", "trap")
        self.assert_one_line(err)

    def test_timeout(self):
        for options in ([], ["--clock", "virtual"]):
            err = self.run_code(harness.SPIN, 4, "--timeout", "0.3", *options)
            self.assert_one_line(err, "--timeout", "at 0008:00100000")

    def test_timeout_while_halted(self):
        """Nothing runs: no exit ever comes by itself."""
        # The timer ticks (18.2 Hz) but its interrupt is masked: sti; hlt for ever.
        err = self.run_code(b"\xb0\xff\xe6\x21\xe6\xa1\xfb\xf4" + harness.SPIN, 4, "--timeout", "0.5")
        self.assert_one_line(err, "--timeout")

    def test_spinning_in_virtual_time(self):
        """Virtual time passes with exits, so a guest that makes none would wait for ever: it is told."""
        err = self.run_code(harness.SPIN, 3, "--clock", "virtual")
        self.assertIn("00100000", err)

    def test_end_of_input(self):
        """The end of standard input is not the end of the guest; what came before it arrives."""
        code = harness.WAIT_FOR_KEY + b"\xba\xf4\x00\x00\x00\xee"  # mov $0xf4, %edx; out %al, (%dx)
        kernel = self.put("kernel.elf", harness.elf(code))
        self.run_ring3("run", kernel, status=ord("!") << 1 | 1, input=b"!")
        _, err = self.run_ring3("run", "--timeout", "0.5", kernel, status=4, input=b"")
        self.assertIn("--timeout", err)
        self.run_ring3("run")

    def test_long_input(self):
        """More than any queue holds: nothing is lost, nothing is reordered."""
        # Echoes on port 0xE9 until a zero: WAIT_FOR_KEY; mov $0xe9, %edx; out; test %al, %al; jnz; cli; hlt
        loop = harness.WAIT_FOR_KEY + b"\xba\xe9\x00\x00\x00\xee\x84\xc0"
        code = loop + b"\x75" + struct.pack("b", -len(loop) - 2) + harness.HALT
        text = "".join(f"{number}\n" for number in range(2000))
        out, _ = self.run_ring3("run", self.put("kernel.elf", harness.elf(code)), input=text.encode() + b"\0")
        self.assertEqual(out, text + "\0")


class Engine(harness.Test):
    """Which one runs when nobody says, and what is told about it."""

    HOLE = b"\x9c\x58"  # pushf; pop %eax

    def run_code(self, code, *options):
        return self.run_ring3("run", *options, self.put("kernel.elf", harness.elf(code)))[1]

    def test_no_holes(self):
        self.assertIn("ring3: engine trap: each sensitive instruction", self.run_code(harness.HALT))

    def test_holes(self):
        err = self.run_code(self.HOLE + harness.HALT)
        self.assertIn("ring3: engine translate: the kernel has 1 hole (first: pushfd at 00100000)\n", err)
        _, err = self.run_ring3("run")
        self.assertRegex(err, r"\Aring3: engine translate: the kernel has \d+ holes \(first: .* at [0-9a-f]{8}, \w+\+0x")

    def test_perhaps_holes(self):
        err = self.run_code(harness.HALT + harness.SPIN + self.HOLE)
        self.assertIn("ring3: engine translate: the kernel has what may be data or 1 hole", err)

    def test_unseen(self):
        blob = self.put("blob", b"?")
        for options in (["--load", f"{blob}@0x200000"], ["--drive", self.put("disk", bytes(512))]):
            self.assertIn("ring3: engine translate: ", self.run_code(harness.HALT, *options))

    def test_patched(self):
        self.assertIn("ring3: engine trap: --holes patch", self.run_code(self.HOLE + harness.HALT, "--holes", "patch"))

    def test_quiet(self):
        for options in (["--engine", "trap"], ["--engine", "translate", "--holes", "patch"], ["--console", "none"]):
            self.assertEqual(self.run_code(self.HOLE + harness.HALT, *options).count("\n"), 1)


class Check(harness.Test):
    def report(self, path):
        out, _ = self.run_ring3("check", "--json", path)
        report = json.loads(out)
        self.assertEqual(report["version"], 1)
        self.assertEqual(report["file"], path)
        self.assertEqual(report["sensitive"], sum(row["count"] for row in report["by_instruction"]))
        self.assertEqual(report["holes"], sum(row["count"] for row in report["by_instruction"] if row["hole"]))
        self.assertEqual(report["classically_virtualizable"], report["holes"] == 0)
        return report

    def test_holes(self):
        out, _ = self.run_ring3("check", self.guest("holes"))
        self.assertIn("--holes patch", out)
        report = self.report(self.guest("holes"))
        self.assertEqual(report["options"], "--engine trap --holes patch")
        self.assertIn("--engine translate", out)
        found = {row["name"]: row for row in report["by_instruction"]}
        for name in ("POPFD", "PUSHFD", "SGDT", "SIDT", "SMSW", "LAR", "STR"):
            self.assertTrue(found[name]["hole"] and found[name]["count"], name)
        for name in ("CLI", "HLT", "LGDT"):
            self.assertFalse(found[name]["hole"], name)

    def test_no_holes(self):
        """A kernel that Popek and Goldberg would like."""
        path = self.put("kernel.elf", harness.elf(harness.HALT))
        self.assertTrue(self.report(path)["classically_virtualizable"])

    def test_uboot(self):
        path = "/usr/lib/u-boot/qemu-x86/uboot.elf"
        if not os.path.exists(path):
            self.skipTest("no U-Boot here (Debian package u-boot-qemu)")
        out, _ = self.run_ring3("check", path)
        self.assertIn("--holes patch", out)
        self.assertGreater(self.report(path)["sensitive"], 50)

    def test_one_reader_goes(self):
        """`ring3 check | head -n 1`"""
        process = self.start_ring3("check", "--all", self.guest("privileged"), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=harness.PATIENCE)
        self.assertNotIn(b"BUG", process.stderr.read())


class Translate(harness.Test):
    def show(self, code, place, *options):
        return self.run_ring3("translate", "--show", place, *options, self.put("kernel.elf", harness.elf(code)))[0]

    def test_sides(self):
        """Each guest instruction once, beside the host code made of it."""
        out = self.show(b"\x55\xfa\xec\x31\xc0\xeb\xf9", "100000")  # push %ebp; cli; in %dx, %al; xor %eax, %eax; jmp
        self.assertIn("block at 00100000: 5 instructions, 7 bytes", out)
        self.assertRegex(out, r"(?m)^00100000  push ebp +\+\w+  mov \[rsp\+r14\*1-0x4\], ebp")
        self.assertRegex(out, r"(?m)^00100001  cli +\+\w+  mov dword ptr \[r15\+0x58\], 0x0 +; IF$")
        self.assertRegex(out, r"(?m)^00100002  in al, dx +\+\w+  ")
        self.assertRegex(out, r"(?m); to the monitor: run `in al, dx`$")
        self.assertRegex(out, r"(?m)^00100003  xor eax, eax +\+\w+  xor eax, eax$")
        self.assertRegex(out, r"(?m)^00100005  jmp 0x100000 ")
        self.assertNotIn("a bug", out)

    def test_places(self):
        for place in ("guest_main+21", "00102177", "0x102177"):
            out, _ = self.run_ring3("translate", "--show", place, "-n", "3")
            self.assertEqual(len(re.findall(r"(?m)^block at", out)), 3)
            self.assertIn("block at 00102177 guest_main+0x21: ", out)

    def test_user(self):
        self.assertIn("; to the monitor: run `cli`", self.show(b"\xfa\xf4", "100000", "--mode", "user"))

    def test_nothing_there(self):
        kernel = self.put("kernel.elf", harness.elf(harness.HALT + b"\x0f\xff"))
        for place in ("nosuch", "1", "guest_main+x", "100002"):
            _, err = self.run_ring3("translate", "--show", place, kernel, status=1)
            self.assert_one_line(err, place[-4:])

    def test_a_whole_kernel(self):
        """Nothing in the text of a guest, cut into blocks from any byte on, makes it fall over."""
        for offset in range(4):
            out, _ = self.run_ring3("translate", "--show", f"_start+{offset:x}", "-n", "200", self.guest("privileged"))
            self.assertNotIn("a bug", out)


class Doctor(harness.Test):
    def test_this_host(self):
        """Tests run here, so it must say that guests do."""
        out, _ = self.run_ring3("doctor")
        for word in ("modify_ldt", "seccomp", "userfaultfd", "mmap_min_addr"):
            self.assertIn(word, out)

    def test_json(self):
        out, _ = self.run_ring3("doctor", "--json")
        self.assertIsInstance(json.loads(out), dict)


class TraceDiff(harness.Test):
    def setUp(self):
        super().setUp()
        for name in ("a", "b"):
            self.run_ring3("run", "--clock", "virtual", "--console", "none", "--trace", name)

    def test_equal(self):
        self.assertEqual(self.get("a"), self.get("b"), "two runs in virtual time differ")
        self.run_ring3("trace", "diff", "a", "b", status=0)

    def test_different(self):
        lines = self.get("b").split(b"\n")
        middle = len(lines) // 2
        record = json.loads(lines[middle])
        lines[middle] = lines[middle].replace(record["eip"].encode(), b"0badcafe")
        self.put("c", b"\n".join(lines))
        out, _ = self.run_ring3("trace", "diff", "a", "c", status=1)
        self.assertIn("0badcafe", out)
        self.assertIn(record["eip"], out)
        self.assertIn(record["sym"], out)

    def test_cut_off(self):
        whole = self.get("b")
        for cut in (len(whole) // 2, whole.rindex(b"\n", 0, -1) + 1):
            self.put("c", whole[:cut])
            self.run_ring3("trace", "diff", "a", "c", status=3)

    def test_not_a_trace(self):
        self.put("c", b"{}\n")
        for name in ("c", "missing", "/dev/null", self.ring3):
            _, err = self.run_ring3("trace", "diff", "a", name, status=3)
            self.assertIn(name, err)


if __name__ == "__main__":
    harness.main()
