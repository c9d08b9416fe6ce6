#!/usr/bin/env python3
"""Debian's unmodified 32-bit Linux kernels boot to a shell, find a PC in which nothing is strange, and work. TORTURE is
tests/linux/torture.c. scripts/get-linux.sh --pae fetches the kernels; the test looks for them in build/linux, or in the
folder that LINUX names.
"""
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import harness

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
FOLDER = os.environ.get("LINUX") or os.path.join(TOP, "build", "linux")
ENGINE = "translate"
STRESS_SECONDS = 60
CURSOR_QUERY = "\x1b[6n"  # busybox's shell asks the terminal, behind each prompt

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


# In its log these are bugs, of ring3 most likely.
BUGS = r"WARNING|Oops|BUG|[Uu]nhandled|Call Trace|segfault at .*\[busybox"

# What Linux calls a feature, where that is not the name in the table of docs/cpuid.md; and what it adds by itself.
FLAG_NAMES = {"clfsh": "clflush", "sse3": "pni"}
OWN_FLAGS = {"cpuid", "constant_tsc", "nonstop_tsc", "tsc_known_freq", "tsc_reliable", "rep_good", "nopl"}


class Linux(harness.Test):
    def boot(self, *options, append="", kernel="", extra=b"", patience=harness.PATIENCE):
        """To the shell's prompt. `extra` is one more archive for the RAM disk."""
        if not os.path.exists(os.path.join(FOLDER, "initrd" + kernel)):
            self.skipTest(f"no vmlinuz{kernel} here: scripts/get-linux.sh --pae fetches it")
        image = self.put("vmlinuz", harness_read("vmlinuz" + kernel))
        initrd = self.put("initrd", harness_read("initrd" + kernel) + extra)
        linux = harness.Conversation(self, "run", "--engine", ENGINE, "--timeout", "300", *options, "--append",
                                     f"console=ttyS0 LINES=25 COLUMNS=1000 {append}", "--initrd", initrd, image)
        linux.expect("ring3 linux: a shell", patience)
        linux.expect("/ # ", patience)
        return linux  # the shell's echo of a command is one line: 1000 columns

    def archive(self, **programs):
        """Programs for /bin, as an archive for the RAM disk."""
        folder = self.path("extra")
        os.makedirs(os.path.join(folder, "bin"))
        for name, program in programs.items():
            with open(os.path.join(folder, "bin", name), "wb") as file:
                file.write(program)
            os.chmod(file.name, 0o755)
        subprocess.run([sys.executable, os.path.join(TOP, "scripts", "make-initrd.py"), folder,
                        os.path.join(HERE, "linux-init"), self.path("extra.cpio")], check=True)
        return self.get("extra.cpio")

    def assert_clean_log(self, linux):
        """No kernel bug; what it says about the PCI bridge asks for a report in any case."""
        log = self.ask(linux, "dmesg")
        self.assertEqual([line for line in log.splitlines() if re.search(BUGS, line)], [], log)

    def power_off(self, linux):
        self.assert_clean_log(linux)
        linux.type("poweroff -f\n")
        linux.expect("the guest switched the power off")
        self.assertEqual(linux.finish(), 0)

    @staticmethod
    def ask(linux, command, patience=harness.PATIENCE):
        """What the command writes. Its end is marked in a way that the echo of the command is not."""
        linux.type(command + "; echo en''d\n")
        linux.expect("; echo en''d")
        answer = linux.expect("end\r", patience).replace("\r", "")
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
        self.power_off(linux)

    def session(self, kernel="", options=(), line=b"0123456789abcde\n", torture=5):
        """Programs, processes, files, floating point, signals, and code that changes: all work."""
        with open(os.environ["TORTURE"], "rb") as file:
            linux = self.boot(*options, kernel=kernel, extra=self.archive(torture=file.read()),
                              patience=3 * harness.PATIENCE)
        self.assertRegex(self.ask(linux, "uname -srm"), r"^Linux \d+\.\d+\.\S+-686" + kernel + r" i686\n$")
        flags = re.search(r"flags\t+: (.*)", self.ask(linux, "cat /proc/cpuinfo"))[1].split()
        self.assertEqual(set(flags) - OWN_FLAGS, documented_flags())
        self.assertRegex(self.ask(linux, "ps"), r"(?m)^ *1 .* init$")
        self.assertEqual(self.ask(linux, "seq 1 1000 | grep 7 | sort -rn | head -n 3 | tr '\\n' ' '"), "997 987 979 ")

        # 200 processes at once, and 100 programs one after the other.
        self.assertEqual(self.ask(linux, "sh -c 'for i in $(seq 200); do (echo $i >>/tmp/forks) & done; wait'; "
                                         "sort -n /tmp/forks | uniq | wc -l"), "200\n")
        self.assertEqual(self.ask(linux, "for i in $(seq 100); do /bin/busybox expr $i '*' 2; done | tail -n 1"), "200\n")

        self.assertEqual(self.ask(linux, f"yes {line.decode().strip()} | dd bs=64k count=1024 iflag=fullblock of=/tmp/file "
                                         "2>/dev/null; sha256sum </tmp/file; rm /tmp/file").split()[0],
                         hashlib.sha256(line * ((64 << 20) // len(line))).hexdigest())
        self.assertEqual(self.ask(linux, """awk 'BEGIN { for (i = 1; i <= 5000; i++) s += 1 / (i * i); printf "%.9f", s }'"""),
                         "%.9f" % sum(1 / (i * i) for i in range(1, 5001)))

        self.assertEqual(self.ask(linux, "sh -c 'trap \"echo caught\" USR1; kill -USR1 $$; echo after'"), "caught\nafter\n")
        self.assertEqual(self.ask(linux, "sh -c 'sleep 1000 & kill $!; wait $!; echo status $?'").splitlines()[-1], "status 143")
        self.assertEqual(self.ask(linux, "sh -c 'kill -SEGV $$'; echo status $?").splitlines()[-1], "status 139")
        answer = self.ask(linux, f"torture {torture}; echo status $?", patience=3 * harness.PATIENCE)
        self.assertIn("torture: all is well", answer)
        self.assertIn("status 0", answer)
        self.power_off(linux)

    def test_session(self):
        self.session()

    def test_session_with_pae(self):
        self.session("-pae")

    def test_stress(self):
        """A minute of tests/linux/stress.sh while the host interrupts the monitor at any place: nothing gets lost, and the
        kernel has nothing to say."""
        with open(os.environ["TORTURE"], "rb") as file:
            torture = file.read()
        with open(os.path.join(HERE, "..", "linux", "stress.sh"), "rb") as file:
            linux = self.boot(extra=self.archive(torture=torture, stress=file.read()))
        interrupting = threading.Thread(target=self.interrupt, args=(linux.process.pid,))
        interrupting.start()
        answer = self.ask(linux, f"stress {STRESS_SECONDS}", patience=STRESS_SECONDS + 2 * harness.PATIENCE)
        interrupting.join()
        self.assertRegex(answer, r"^stress: all is well; \d\d+ rounds\n$")
        self.power_off(linux)

    @staticmethod
    def interrupt(pid):
        """SIGCONT, about a thousand times a second."""
        end = time.monotonic() + STRESS_SECONDS
        while time.monotonic() < end:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.001)

    def test_the_shadow_is_right_at_every_exit(self):
        """All host mappings against the guest's page tables, at each exit. (`yes` has a system call, and many exits, for
        each line.)"""
        self.session(options=("--check-shadow",), line=b"0" * 255 + b"\n", torture=0)

    def test_keys(self):
        """The shell has a controlling terminal of the right size, and job control."""
        linux = self.boot()
        self.assertEqual(self.ask(linux, "tty; stty size"), "/dev/ttyS0\n25 1000\n")
        for key in ("\x03", "\x1a"):  # pressed when a program runs, and not while the shell still edits its line
            linux.type("echo be''gin; sleep 1000\n")
            linux.expect("begin\r")
            linux.type(key)
            if key == "\x03":
                linux.expect("/ # ")
        linux.expect("Stopped")
        linux.expect("/ # ")
        self.assertIn("Stopped", self.ask(linux, "jobs; kill -CONT %1; kill %1"))
        linux.type("echo abc\x02\x02X\x7fY\n")  # left twice, X, erased, Y
        linux.expect("aYbc\r")
        for _ in range(5):  # a terminal that answers the question where its cursor is
            linux.expect(CURSOR_QUERY)
            linux.type("\x1b[7;5Recho on''e\n")
            linux.expect("one\r")
        self.assertNotIn("[7;5R", linux.text())
        linux.expect("/ # ")
        linux.type("poweroff\n")
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

    def test_idle(self):
        """Debian's kernel ticks also when it is idle, and not each of these ticks wakes it; unless one wants that."""
        for slack, is_passed_over in ((), True), (("--idle-slack", "0"), False):
            stats = self.path("stats")
            linux = self.boot("--stats", stats, *slack)
            self.ask(linux, "sleep 3")
            linux.type("poweroff -f\n")
            self.assertEqual(linux.finish(), 0)
            self.assertEqual(json.loads(self.get("stats"))["ticks_passed_over"] > 0, is_passed_over)

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


def documented_flags():
    """What docs/cpuid.md lists, as /proc/cpuinfo calls it."""
    with open(os.path.join(TOP, "docs", "cpuid.md"), encoding="utf-8") as file:
        text = file.read()
    features = re.findall(r"(?m)^\| \d+ \| (\S+) \|", text[text.index("## Features"):])
    return {FLAG_NAMES.get(name.lower(), name.lower()) for name in features} | {"nx", "hypervisor"}


def harness_read(name):
    with open(os.path.join(FOLDER, name), "rb") as file:
        return file.read()


if __name__ == "__main__":
    if not os.path.exists(os.path.join(FOLDER, "initrd")):
        harness.skip_all("no Linux here: scripts/get-linux.sh fetches it")
    harness.main()
