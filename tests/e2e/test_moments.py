#!/usr/bin/env python3
"""With --clock=virtual time is the number of instructions, and interrupts come between the same two in every run: for
each engine that counts, whichever ways it takes because of who watches, and while signals interrupt it."""
import re

import harness
import storm

WORDS = "sysenter"


class Moments(harness.Test):
    def sum_of(self, out):
        """Of the times and places that the guest `moments` saw."""
        found = re.search(r"\d+ moments, (\d+) interrupts: [0-9a-f]{8}$", out, re.M)
        self.assertIsNotNone(found, out)
        self.assertGreater(int(found[1]), 5)
        self.assertIn(", 0 failed", out)
        return found[0]

    def run_moments(self, engine, words, *options):
        return self.sum_of(self.run_ring3("run", "--engine", engine, "--clock", "virtual", "--append", words, *options,
                                          self.guest("moments"), status=storm.PASSED)[0])

    def test_engines(self):
        words = WORDS + " long"
        self.assertEqual(self.run_moments("translate", words), self.run_moments("interpret", words))

    def test_watchers(self):
        """A trace, statistics, a check at each exit: each takes some short way from translated code."""
        expected = self.run_moments("translate", WORDS)
        for options in (["--trace", "trace"], ["--stats", "stats"], ["--check-shadow"], ["--no-userfaultfd"]):
            with self.subTest(options[0]):
                self.assertEqual(self.run_moments("translate", WORDS, *options), expected)

    def test_signals(self):
        words = WORDS + " long"
        expected = self.run_moments("translate", words)
        n_signals = 0
        for _ in range(10):
            out, n = storm.run(self, "run", "--engine", "translate", "--clock", "virtual", "--append", words,
                               self.guest("moments"))
            self.assertEqual(self.sum_of(out), expected)
            n_signals += n
        self.assertGreater(n_signals, 100)


if __name__ == "__main__":
    harness.main()
