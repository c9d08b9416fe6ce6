#!/usr/bin/env python3
"""Signals find the guest at any place, also between two host instructions of one of its own: whatever there was half
done is completed or begins again, and the guest notices nothing."""
import os
import signal
import time

import harness

PASSED = 1  # exit status after the guest wrote 0 to isa-debug-exit
N_RUNS = 10
PAUSE = 50e-6  # between two signals: a handler should be done by then


class Signals(harness.Test):
    def run_in_a_storm(self, engine, guest, words, pause=PAUSE):
        """Returns what the guest said, and how many signals it was sent meanwhile."""
        out = self.path("out")
        with open(out, "wb") as file:
            process = self.start_ring3("run", "--engine", engine, "--append", words, self.guest(guest), stdout=file)
        self.wait_until(lambda: os.path.getsize(out) > 0 or process.poll() is not None, "the guest's first line")
        n_signals = 0
        while process.poll() is None:
            process.send_signal(signal.SIGCONT)  # which has a handler, and no other effect
            n_signals += 1
            end = time.perf_counter() + pause
            while time.perf_counter() < end:
                pass
        self.assertEqual(process.returncode, PASSED)
        return self.get("out").decode(), n_signals

    def survive_storms(self, guest, words):
        n_signals = 0
        for _ in range(N_RUNS):
            out, n = self.run_in_a_storm("translate", guest, words)
            self.assertNotIn("FAIL", out)
            self.assertIn(", 0 failed", out)
            n_signals += n
        self.assertGreater(n_signals, 100)

    def test_switches_of_rings(self):
        self.survive_storms("switches", "sysenter limits alignment")

    def test_instructions_that_are_told_where_memory_is(self):
        self.survive_storms("revisit", "sysenter")

    def test_few_elements(self):
        self.survive_storms("copies", "long elements")

    def test_faster_than_they_are_handled(self):
        for engine in ("trap", "translate"):
            with self.subTest(engine):
                out, _ = self.run_in_a_storm(engine, "switches", "", pause=0)
                self.assertIn(", 0 failed", out)


if __name__ == "__main__":
    harness.main()
