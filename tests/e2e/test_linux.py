#!/usr/bin/env python3
"""Debian's unmodified 32-bit Linux kernel boots to a shell and finds a PC in which nothing is strange. scripts/get-linux.sh
fetches the kernel; the test looks for it in build/linux, or in the folder that LINUX names.
"""
import os
import re
import signal
import time

import harness

FOLDER = os.environ.get("LINUX") or os.path.join(os.path.dirname(__file__), "..", "..", "build", "linux")
ENGINE = "translate"

# Of the kernel's warnings and errors these are the only ones, and each is a property of the processor or of any PC
# without such a device.
EXPECTED = [r"Notice: NX \(Execute Disable\) protection missing in CPU!",
            r"DMI not present or invalid",
            r"(tsc|TSC|clocksource|APIC (calibration|delta)|hrtimer|sched_clock)",  # a busy host
            r"mce: Unable to init MCE device",
            r"fail to add MMCONFIG information",
            r"PS/2 appears to have AUX port disabled",
            r"Unknown kernel command line parameters",
            r"ima: No TPM chip found",
            r"Perf NMI watchdog|Performance Events: unsupported",
            r"i2c_dev|platform eisa|isapnp",
            r"kernel supports x86.*|Spectre|MDS|L1TF|MMIO|Meltdown|Speculative|ITLB|vulnerab|mitigation",
            r"module verification failed|out-of-tree"]


class Linux(harness.Test):
    def boot(self, *options, append=""):
        """To the shell's prompt."""
        kernel = self.put("vmlinuz", harness_read("vmlinuz"))
        initrd = self.put("initrd", harness_read("initrd"))
        linux = harness.Conversation(self, "run", "--engine", ENGINE, "--timeout", "200", *options, "--append",
                                     f"console=ttyS0 {append}", "--initrd", initrd, kernel)
        linux.expect("ring3 linux: a shell")
        linux.expect("/ # ")
        self.ask(linux, "stty cols 1000")  # the shell's echo of a command is one line
        return linux

    @staticmethod
    def ask(linux, command):
        """What the command writes. Its end is marked in a way that the echo of the command is not."""
        linux.type(command + "; echo en''d\n")
        linux.expect("; echo en''d")
        answer = linux.expect("end\r").replace("\r", "")
        linux.expect("/ # ")
        return answer.lstrip("\n")

    def test_nothing_is_strange(self):
        linux = self.boot()
        strange = [line for line in self.ask(linux, "dmesg -r | grep '^<[0-4]>' ").splitlines()
                   if line.startswith("<") and not any(re.search(pattern, line) for pattern in EXPECTED)]
        self.assertEqual(strange, [])
        messages = self.ask(linux, "dmesg")
        for part in ("ACPI: Interpreter enabled", "ACPI: Using IOAPIC for interrupt routing",
                     "PCI: Using configuration type 1 for base access", "[8086:1237]", "[8086:7010]", "[8086:7113]",
                     "ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A", "piix4_smbus"):
            self.assertIn(part, messages)
        self.assertNotRegex(messages, r"(?i)acpi (bios )?(warning|error|exception)")
        linux.type("poweroff -f\n")
        linux.expect("the guest switched the power off")
        self.assertEqual(linux.finish(), 0)

    def test_output_and_input_are_whole(self):
        linux = self.boot()
        numbers = self.ask(linux, "seq 1 3000")
        self.assertEqual(numbers.split(), [str(n) for n in range(1, 3001)])
        text = "".join(chr(ord("a") + n % 26) for n in range(300))
        self.assertEqual(self.ask(linux, f"echo {text}"), text + "\n")
        linux.type("poweroff -f\n")
        self.assertEqual(linux.finish(), 0)

    def test_disk_by_dma(self):
        disk = self.put("disk.img", b"".join(b"%07d\n" % n for n in range(1 << 17)))  # 1 MiB
        linux = self.boot("--drive", disk)
        self.assertIn("max MWDMA2", self.ask(linux, "dmesg | grep ata1"))
        self.assertIn("0131071", self.ask(linux, "dd if=/dev/sda bs=64k 2>/dev/null | tail -n 1"))
        self.ask(linux, "echo written | dd of=/dev/sda bs=512 seek=100 conv=notrunc; sync")
        linux.type("poweroff -f\n")
        self.assertEqual(linux.finish(), 0)
        self.assertEqual(self.get("disk.img")[51200:51208], b"written\n")

    def uptime(self, linux):
        """The guest's clock in seconds, and the host's before and after it was read."""
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        answer = self.ask(linux, "cat /proc/uptime")
        return float(answer.split()[0]), before, time.clock_gettime(time.CLOCK_MONOTONIC)

    def run_delay(self, linux):
        """Seconds that the monitor has waited for a processor; None: the host does not count."""
        try:
            with open(f"/proc/{linux.process.pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[1]) / 1e9
        except OSError:
            return None

    def test_clock(self):
        """Linux's clock is the paravirtual one, goes as the host's does, also while the monitor stands still, and what
        the host's scheduler took from it is stolen time there."""
        linux = self.boot()
        clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        self.assertEqual(self.ask(linux, f"cat {clock}"), "kvm-clock\n")
        self.assertIn("tsc: Detected 1000.000 MHz processor", self.ask(linux, "dmesg"))
        begin, begin_before, begin_after = self.uptime(linux)
        time.sleep(2)
        os.kill(linux.process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(linux.process.pid, signal.SIGCONT)
        for _ in range(3):  # busy, asleep
            self.ask(linux, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1")
        end, end_before, end_after = self.uptime(linux)
        # However long an answer takes, the guest's seconds lie between these; /proc/uptime has two digits.
        self.assertGreater(end - begin, (end_before - begin_after) * 0.999 - 0.02)
        self.assertLess(end - begin, (end_after - begin_before) * 1.001 + 0.02)
        stolen = int(self.ask(linux, "head -n 1 /proc/stat").split()[8]) / 100
        delay = self.run_delay(linux)
        if delay is not None:
            self.assertLessEqual(stolen, delay + 0.1)
            self.assertGreaterEqual(stolen, delay * 0.5 - 1)
        linux.type("poweroff -f\n")
        self.assertEqual(linux.finish(), 0)

    def test_nothing_is_mitigated(self):
        """Page-table isolation and its like protect nothing here and cost much."""
        linux = self.boot()
        answer = self.ask(linux, "cat /sys/devices/system/cpu/vulnerabilities/*")
        self.assertEqual(set(answer.splitlines()), {"Not affected"})
        self.assertIn("hypervisor", self.ask(linux, "grep flags /proc/cpuinfo"))
        linux.type("poweroff -f\n")
        self.assertEqual(linux.finish(), 0)

    def test_reboot(self):
        linux = self.boot("--reboot")
        linux.type("reboot -f\n")
        linux.expect("Restarting system")
        linux.expect("ring3 linux: a shell")
        linux.expect("/ # ")
        linux.type("poweroff -f\n")
        self.assertEqual(linux.finish(), 0)


def harness_read(name):
    with open(os.path.join(FOLDER, name), "rb") as file:
        return file.read()


if __name__ == "__main__":
    if not os.path.exists(os.path.join(FOLDER, "initrd")):
        harness.skip_all("no Linux here: scripts/get-linux.sh fetches it")
    harness.main()
