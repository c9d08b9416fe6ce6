#!/usr/bin/env python3
"""Output that cannot be written: the run ends with status 1 and one line that says so, the machine does not go on
unseen, and what was written before is readable. The same for a run that is killed."""
import collections
import functools
import json
import os
import resource
import signal
import subprocess

import harness

# Prints for ever. Its traps fill a trace as well.
CHATTER = harness.print_bytes("chatter\n") + b"\xeb" + bytes([256 - 8 * 11 - 2])
# mov $0x3f8,%edx; mov $-1,%ecx; mov $0x100000,%esi; rep outsb: thousands of bytes in one exit
TORRENT = b"\xba\xf8\x03\x00\x00\xb9\xff\xff\xff\xff\xbe\x00\x00\x10\x00\xf3\x6e"
TINY_DISK = 300_000  # bytes: more than the trace's buffer


class Output(harness.Test):
    def setUp(self):
        super().setUp()
        self.kernel = self.put("chatter.elf", harness.elf(CHATTER))

    def read_trace(self, name, whole_lines=True):
        """Every line of a trace is a record; returns them."""
        lines = self.get(name).split(b"\n")
        if whole_lines:
            self.assertEqual(lines[-1], b"", "the last line is cut off")
        records = [json.loads(line) for line in lines[:-1]]
        self.assertEqual(records[0]["ring3-trace"], 1)
        for number, record in enumerate(records[1:], 1):
            self.assertEqual(record.get("seq", number), number)
        return records

    # ---- standard output ---------------------------------------------------------------------------------

    def test_closed_stdout(self):
        _, err = self.run_ring3("run", self.kernel, status=1, stdout=None, preexec_fn=lambda: os.close(1))
        self.assert_one_line(err, "standard output")

    def test_closed_stdin(self):
        _, err = self.run_ring3("run", stdin=None, preexec_fn=lambda: os.close(0))
        self.assertIn("halted with interrupts off", err)

    def test_all_closed(self):
        def close_all():
            for descriptor in (0, 1, 2):
                os.close(descriptor)
        self.run_ring3("run", self.kernel, status=1, stdin=None, stdout=None, stderr=None, preexec_fn=close_all)

    def test_full_stdout(self):
        with open("/dev/full", "wb") as full:
            _, err = self.run_ring3("run", self.kernel, status=1, stdout=full)
            self.assert_one_line(err, "standard output", "No space left on device")
            _, err = self.run_ring3("run", "--console", "none", "--trace", "-", self.kernel, status=1, stdout=full)
            self.assertIn("No space left on device", err)

    def test_full_stdout_of_reports(self):
        for command in (["--help"], ["run", "--help"], ["check", self.guest("tour")], ["doctor"]):
            with self.subTest(command=command), open("/dev/full", "wb") as full:
                _, err = self.run_ring3(*command, status=1, stdout=full)
                self.assert_one_line(err, "No space left on device")

    def test_reader_is_gone(self):
        for options in ([], ["--trace", "-"], ["--console", "none", "--trace", "-"]):
            with self.subTest(options=options):
                process = self.start_ring3("run", *options, self.kernel, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.assertTrue(process.stdout.read(1000))
                process.stdout.close()
                self.assertEqual(process.wait(timeout=harness.PATIENCE), 1)
                self.assertIn("Broken pipe", process.stderr.read().decode())

    def test_reader_that_never_reads(self):
        """A full pipe stops the guest, not the monitor: it can still be ended."""
        torrent = self.put("torrent.elf", harness.elf(TORRENT))
        for kernel, options in ((self.kernel, []), (self.kernel, ["--console", "none", "--trace", "-"]), (torrent, [])):
            with self.subTest(kernel=kernel, options=options):
                process = self.start_ring3("run", *options, kernel, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                self.wait_until(lambda: self.is_full(process), "the pipe is full")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(timeout=harness.PATIENCE), -signal.SIGTERM)

    def test_timeout_while_the_reader_never_reads(self):
        torrent = self.put("torrent.elf", harness.elf(TORRENT))
        process = self.start_ring3("run", "--timeout", "0.5", torrent, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertEqual(process.wait(timeout=harness.PATIENCE), 4)

    @staticmethod
    def is_full(process):
        queued = harness.fcntl.ioctl(process.stdout, harness.termios.FIONREAD, b"\0" * 4)
        size = harness.fcntl.fcntl(process.stdout, 1032)  # F_GETPIPE_SZ
        return int.from_bytes(queued, "little") > size - 4096

    # ---- the trace ---------------------------------------------------------------------------------------

    def test_trace_to_a_full_device(self):
        _, err = self.run_ring3("run", "--trace", "/dev/full", self.kernel, status=1, stdout=subprocess.DEVNULL)
        self.assertIn("cannot write the trace to /dev/full: No space left on device", err)

    def test_trace_beyond_a_file_size_limit(self):
        """What is there is whole."""
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
        _, err = self.run_ring3("run", "-m", "2M", "--trace", "trace", self.kernel, status=1,
                                stdout=subprocess.DEVNULL, preexec_fn=limit)
        self.assertIn("cannot write the trace to trace: File too large", err)
        self.assertGreater(len(self.read_trace("trace")), 500)

    def test_file_size_limit_below_guest_memory(self):
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
        _, err = self.run_ring3("run", "-m", "4M", status=1, preexec_fn=limit)
        self.assert_one_line(err, "memory", "File too large")

    def test_trace_to_a_full_disk(self):
        if not harness.IS_ROOT:
            self.skipTest("mounting a small file system needs root")
        disk = self.path("disk")
        os.mkdir(disk)
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TINY_DISK},mode=1777", "tmpfs", disk],
                               check=False, capture_output=True)
        if mount.returncode != 0:
            self.skipTest(f"no file system can be mounted here: {mount.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        _, err = self.run_ring3("run", "--trace", "disk/trace", self.kernel, status=1, stdout=subprocess.DEVNULL)
        self.assertIn("cannot write the trace to disk/trace: No space left on device", err)
        self.assertGreater(len(self.read_trace("disk/trace")), 500)

    def test_trace_that_cannot_be_opened(self):
        for path in ("/nowhere/trace", self.tmp):
            _, err = self.run_ring3("run", "--trace", path, self.kernel, status=1)
            self.assert_one_line(err, f"cannot open the trace file {path}: ")

    def test_trace_of_a_killed_run(self):
        for number, is_whole in ((signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGINT, True)):
            with self.subTest(signal=number.name):
                process = self.start_ring3("run", "--trace", "trace", self.kernel, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                trace = self.path("trace")
                self.wait_until(lambda: os.path.exists(trace) and os.path.getsize(trace) > 1_000_000, "the trace grows")
                process.send_signal(number)
                self.assertEqual(process.wait(timeout=harness.PATIENCE), -number)
                records = self.read_trace("trace", whole_lines=is_whole)
                self.assertEqual("end" in records[-1], is_whole)
                os.remove(trace)

    def test_trace_of_every_end(self):
        """A trace that is whole says how the run ended."""
        for code, status, end in ((harness.HALT, 0, "halted"), (harness.TRIPLE_FAULT, 3, "triple-fault"),
                                  (harness.write_port(harness.DEBUG_EXIT, 1), 3, "debug-exit"),
                                  (harness.SPIN, 4, "timeout")):
            with self.subTest(end=end):
                kernel = self.put("kernel.elf", harness.elf(code))
                self.run_ring3("run", "--timeout", "1", "--trace", "trace", kernel, status=status)
                self.assertEqual(self.read_trace("trace")[-1]["end"], end)

    # ---- statistics --------------------------------------------------------------------------------------

    def test_statistics(self):
        """They count what the trace of the same run lists."""
        self.run_ring3("run", "--engine", "trap", "--clock", "virtual", "--stats", "stats", "--trace", "trace",
                       self.guest("interrupts"), status=1)
        stats = json.loads(self.get("stats"))
        events = self.read_trace("trace")[1:-1]
        exits = collections.Counter(event["exit"] for event in events if event["exit"] != "none")
        self.assertEqual({reason: row["count"] for reason, row in stats["exits"].items()}, exits)
        self.assertEqual(stats["dispositions"], collections.Counter(event["act"] for event in events))
        self.assertEqual(stats["instructions"]["STI"]["count"], sum(event.get("insn") == "sti" for event in events))
        injected = collections.Counter(str(int(note.split()[-1], 16)) for event in events for note in event["notes"]
                                       if note.startswith(("inject external", "inject nmi", "inject software")))
        self.assertEqual(stats["injected_interrupts"], injected)
        for row in stats["exits"].values():
            self.assertLessEqual(row["min_ns"], row["p50_ns"])
            self.assertLessEqual(row["p50_ns"], row["p99_ns"])
            self.assertLessEqual(row["min_ns"] * row["count"], row["total_ns"])

    def test_statistics_of_translation(self):
        """They do not make each exit leave translated code."""
        self.run_ring3("run", "--engine", "translate", "--stats", "stats", self.guest("interrupts"), status=1)
        stats = json.loads(self.get("stats"))
        counts = stats["engine_counts"]
        self.assertGreater(counts["calls_sensitive"], 100)
        self.assertLess(counts["entries"], sum(row["count"] for row in stats["exits"].values()))
        self.assertGreaterEqual(stats["exits"]["sensitive"]["count"], counts["calls_sensitive"])
        self.assertGreater(counts["block_instructions"], counts["blocks"])
        for cost in ("guest_ns", "call_ns", "find_ns", "build_ns"):
            self.assertGreater(counts[cost], 0, cost)
        self.assertGreater(stats["shadow"]["fills"], 0)

    def test_page_faults_without_signals(self):
        """An instruction that meets one page after the other is called, and the pages are not mapped for it."""
        self.run_ring3("run", "--engine", "translate", "--clock", "virtual", "--stats", "stats", self.guest("demand"),
                       status=1)
        stats = json.loads(self.get("stats"))
        counts, reflected = stats["engine_counts"], stats["dispositions"]["reflected"]
        self.assertGreater(reflected, 5000)
        self.assertLess(counts["faults"], reflected / 2)
        self.assertLess(stats["shadow"]["fills"], reflected / 2)
        self.assertGreater(counts["given_back"], 100)  # each check begins with code of its own

    # ---- the profile -------------------------------------------------------------------------------------

    def test_profile(self):
        spin = self.put("spin.elf", harness.elf(harness.SPIN))
        ask = self.put("ask.elf", harness.elf(b"\xec\xeb\xfd"))  # in %dx, %al, for ever
        for engine in ("trap", "translate", "interpret"):
            with self.subTest(engine=engine):
                self.run_ring3("run", "--engine", engine, "--timeout", "1", "--profile", "spin", spin, status=4)
                self.run_ring3("run", "--engine", engine, "--timeout", "1", "--profile", "ask", ask, status=4)
                self.assertRegex(self.get("spin").decode(), r"(?m)^kernel;0x00100000 \d+$")
                self.assertRegex(self.get("ask").decode(), r"(?m)^kernel;0x00100000;\[monitor\] \d+$")

    def test_profile_of_functions(self):
        self.run_ring3("run", "--engine", "interpret", "--profile", "profile", self.guest("mmio"), status=1)
        self.assertRegex(self.get("profile").decode(), r"(?m)^kernel;_start;guest_setup;guest_main;\w+")

    def test_profile_on_a_full_disk(self):
        spin = self.put("spin.elf", harness.elf(harness.SPIN))
        _, err = self.run_ring3("run", "--timeout", "1", "--profile", "/dev/full", spin, status=1)
        self.assertIn("No space left on device", err)

    def test_statistics_on_a_full_disk(self):
        _, err = self.run_ring3("run", "--stats", "/dev/full", status=1)
        self.assertIn("No space left on device", err)


if __name__ == "__main__":
    harness.main()
