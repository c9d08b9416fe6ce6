#!/usr/bin/env python3
"""The guest of the comparison with QEMU (bench/nano) does the same everywhere: each of its measures computes the same
under ring3, under QEMU and natively, and marks each round. Otherwise the comparison compares nothing. NANO is the
image, NANO_NATIVE the program that runs its computations natively."""
import json
import os
import shutil
import subprocess
import unittest

import harness

BEGIN, END = "\x01", "\x02"
COUNT, ROUNDS = 4, 2  # an even count: a round of page faults ends with the page mapped that it begins without
QEMU = "qemu-system-i386"
PASSED = 1  # exit status after the guest wrote 0 to isa-debug-exit
COMPUTATIONS = ["sum", "copy", "rep-movs", "pointers", "indices", "fib", "indirect", "dispatch", "sieve"]


def all_measures(*options):
    return " ".join([f"measure=all n={COUNT} rounds={ROUNDS}", *options])


class Nano(harness.Test):
    def setUp(self):
        super().setUp()
        with open(os.environ["NANO"], "rb") as file:
            self.kernel = self.put("nano.elf", file.read())

    def measure(self, append, *options):
        out, _ = self.run_ring3("run", self.kernel, "-m", "64", "--holes", "patch", "--append", append, *options,
                                status=PASSED)
        return out

    def results(self, out):
        """{measure: what it computed}, of measure=all."""
        results = {}
        for line in out.splitlines():
            name, _, result = line.partition("=")
            self.assertEqual(name.count(BEGIN + END), ROUNDS, f"rounds of {line!r}")
            results[name.split(BEGIN)[0]] = result
        return results

    def test_measures_compute_the_same_under_qemu(self):
        if shutil.which(QEMU) is None:
            self.skipTest(f"no {QEMU} here (Debian package qemu-system-x86)")
        append = all_measures()
        done = subprocess.run([QEMU, "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64", "-no-reboot",
                               "-kernel", os.environ["NANO"], "-append", append, "-debugcon", "stdio",
                               "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=harness.PATIENCE, check=False)
        self.assertEqual(done.returncode, PASSED)
        theirs = self.results(done.stdout.decode())
        self.assertGreater(len(theirs), 30)
        self.assertEqual(self.results(self.measure(append)), theirs)

    def test_measures_compute_the_same_in_virtual_time(self):
        self.assertEqual(self.results(self.measure(all_measures(), "--clock", "virtual")),
                         self.results(self.measure(all_measures())))

    def test_computations_are_the_native_ones(self):
        ours = self.results(self.measure(all_measures()))
        for name in COMPUTATIONS:
            with self.subTest(name):
                done = subprocess.run([os.environ["NANO_NATIVE"], name, str(COUNT), str(ROUNDS)],
                                      capture_output=True, timeout=harness.PATIENCE, check=True)
                self.assertEqual(done.stdout.decode(), (BEGIN + END) * ROUNDS + f"={ours[name]}\n")
                self.assertEqual(ours[name + "/user"], ours[name])

    def test_events_are_counted(self):
        """Every fault and system call of a measure happened."""
        ours = self.results(self.measure(all_measures()))
        for name in ("divide-error", "page-fault", "page-fault/user", "int/user"):
            with self.subTest(name):
                self.assertEqual(int(ours[name], 16), COUNT)

    def test_what_raises_exceptions_stays_adapted(self):
        """A division that always fails is given back to the processor no more than once in a while."""
        self.measure("measure=divide-error n=5000 rounds=1", "--engine", "translate", "--stats", self.path("stats"))
        counters = json.loads(self.get("stats"))["engine_counts"]
        self.assertGreater(counters["adapted"], 0)
        self.assertEqual(counters["given_back"], 0)

    def test_rounds_can_grow(self):
        out = self.run_ring3("run", self.kernel, "-m", "64", "--append", "measure=loop n=1 grow", "--timeout", "1",
                             status=4)[0]
        self.assertGreater(out.count(BEGIN + END), 3)

    def test_unknown_measure(self):
        out, _ = self.run_ring3("run", self.kernel, "-m", "64", "--append", "measure=nothing", status=3)
        self.assertIn("FAIL no such measure: nothing", out)


if __name__ == "__main__":
    harness.main()
