#!/usr/bin/env python3
"""What a running monitor is to its host: an ordinary user's process without any privilege, with nothing mapped where
such a user may not map, and behind a filter that leaves it next to no system calls."""
import os
import re
import subprocess

import harness

LOW = 65536  # vm.mmap_min_addr for ordinary users


class Confinement(harness.Test):
    def start_spinning(self, *options, code=b""):
        """A guest that prints a word and then never traps: its process is in guest code when we look."""
        kernel = self.put("kernel.elf", harness.elf(code + harness.print_bytes("here\n") + harness.SPIN))
        process = self.start_ring3("run", *options, kernel, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        seen = b""
        while b"here" not in seen:
            byte = process.stdout.read(1)
            self.assertTrue(byte, "the guest did not start")
            seen += byte
        return process

    @staticmethod
    def status(process):
        with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)

    @staticmethod
    def mappings(process):
        """(first, end, the rest) of each."""
        with open(f"/proc/{process.pid}/maps", encoding="utf-8") as file:
            for line in file:
                span, rest = line.split(" ", 1)
                first, end = (int(number, 16) for number in span.split("-"))
                yield first, end, rest.strip()

    def test_unprivileged(self):
        status = self.status(self.start_spinning())
        for user in status["Uid"].split() + status["Gid"].split():
            self.assertNotEqual(user, "0", "this test itself runs with privilege")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0, kind)

    def test_sandbox(self):
        status = self.status(self.start_spinning())
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Seccomp"], "2", "no seccomp filter while the guest runs")
        self.assertEqual(status["Threads"], "1")

    def test_addresses(self):
        """Nothing below 64 KiB; below 4 GiB the guest's memory alone, and the monitor above, out of reach of 32 bits;
        nothing is writable and executable but the guest's own memory."""
        process = self.start_spinning()
        n_guest = 0
        for first, end, rest in self.mappings(process):
            self.assertGreaterEqual(first, LOW, rest)
            if first < 1 << 32:
                words = rest.split()
                self.assertTrue("memfd:" in rest or words[0][:3] == "---", f"{first:x}-{end:x} {rest}")
                n_guest += "memfd:" in rest
            elif "memfd:" not in rest:
                self.assertFalse("w" in rest[:4] and "x" in rest[:4], rest)
        self.assertGreater(n_guest, 0, "none of the guest's memory is mapped")

    def test_descriptors(self):
        """No file, folder or socket to reach through; the standard three, RAM, the fault descriptor, the trace, and what
        the host's scheduler says of the process, to read."""
        process = self.start_spinning("--trace", "trace")
        open_files = {}
        for number in os.listdir(f"/proc/{process.pid}/fd"):
            open_files[int(number)] = os.readlink(f"/proc/{process.pid}/fd/{number}")
        statistics = f"/proc/{process.pid}/schedstat"
        for number, path in open_files.items():
            if path == statistics:
                with open(f"/proc/{process.pid}/fdinfo/{number}", encoding="ascii") as file:
                    flags = int(re.search(r"^flags:\s*([0-7]+)$", file.read(), re.M)[1], 8)
                self.assertEqual(flags & os.O_ACCMODE, os.O_RDONLY)
            elif number > 2 and not path.startswith(("/memfd:", "anon_inode:")):
                self.assertEqual(path, self.path("trace"), f"descriptor {number}")

    def test_host_system_calls(self):
        """A guest that calls the host's kernel gets no further than its own IDT; here it has none."""
        # getpid by int $0x80: the host would answer in %eax and go on
        kernel = self.put("kernel.elf", harness.elf(harness.NO_IDT + b"\xb8\x14\x00\x00\x00\xcd\x80" + harness.HALT))
        _, err = self.run_ring3("run", kernel, status=3)
        self.assertIn("triple fault", err)


if __name__ == "__main__":
    harness.main()
