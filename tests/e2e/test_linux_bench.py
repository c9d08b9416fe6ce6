#!/usr/bin/env python3
"""The program of the comparison on Linux (bench/linux) does the same on the host and in a guest: every row that
bench/peer/linux_rows.py promises something about is measured. And 500 processes run. BENCH_LINUX is the program; the
kernel is the one of test_linux.py.
"""
import json
import os
import re
import subprocess
import sys
import unittest

import harness

TOP = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..")
FOLDER = os.environ.get("LINUX") or os.path.join(TOP, "build", "linux")
KERNEL = os.path.join(FOLDER, "vmlinuz")
SECONDS = 200
ROUNDS = 2

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TOP, "bench", "peer"))
from linux_rows import MANY_PROCESSES, ROWS  # pylint: disable=wrong-import-position


def measured(output):
    """{row: number of its rounds}"""
    rows = re.findall(r"^@\d+\.\d{9} row (\S+) \d+((?: \d+)+)\r?$", output, re.MULTILINE)
    return {name: len(rounds.split()) for name, rounds in rows}


class LinuxBench(harness.Test):
    def run_guest(self, *words, options=()):
        os.makedirs(self.path("empty"), exist_ok=True)
        subprocess.run([os.path.join(TOP, "scripts", "make-initrd.py"), self.path("empty"), os.environ["BENCH_LINUX"],
                        self.path("initrd")], check=True)
        os.chmod(self.path("initrd"), 0o644)
        with open(KERNEL, "rb") as file:
            kernel = self.put("vmlinuz", file.read())
        out, _ = self.run_ring3("run", "--engine", "translate", *options, "--timeout", str(SECONDS), kernel, "--initrd",
                                self.path("initrd"), "--append", " ".join(["console=ttyS0 quiet --", *words]),
                                timeout=SECONDS + harness.PATIENCE)
        self.assertIn(" done", out)
        return out

    @unittest.skipUnless(os.path.exists(KERNEL), "no Linux here: scripts/get-linux.sh fetches it")
    def test_every_row_in_a_guest(self):
        self.assertEqual(measured(self.run_guest("measure", "1", str(ROUNDS))),
                         {row.measure: ROUNDS for row in ROWS})

    @unittest.skipUnless(os.path.exists(KERNEL), "no Linux here: scripts/get-linux.sh fetches it")
    def test_many_processes(self):
        self.assertIn(" ready", self.run_guest("processes", str(MANY_PROCESSES), "16"))

    @unittest.skipUnless(os.path.exists(KERNEL), "no Linux here: scripts/get-linux.sh fetches it")
    def test_a_copy_settles(self):
        """REP MOVS that has met new pages is a call for each of them; but not for ever, once they are there."""
        calls = []
        for n_copies in ("20", "400"):  # of 256 pages
            self.run_guest("repeat", n_copies, str(ROUNDS), "copy-string", options=("--stats", self.path("stats")))
            calls.append(json.loads(self.get("stats"))["engine_counts"]["calls_memory"])
        # 190,000 if the copy does not settle
        self.assertLess(calls[1] - calls[0], 5000)

    def native(self, *words):
        return subprocess.run([os.environ["BENCH_LINUX"], *words], capture_output=True, text=True,
                              timeout=harness.PATIENCE, check=False)

    def test_every_row_on_the_host(self):
        done = self.native("measure", "1", str(ROUNDS))
        self.assertEqual(measured(done.stdout), {row.measure: ROUNDS for row in ROWS})
        self.assertEqual(done.returncode, 0)

    def test_wrong_words(self):
        for words in (["nothing"], ["measure", "1"], ["measure", "x", "1"], ["measure", "1", "1000"]):
            with self.subTest(words):
                done = self.native(*words)
                self.assertEqual(done.returncode, 1)
                self.assertIn("failed: ", done.stdout)


if __name__ == "__main__":
    harness.main()
