#!/usr/bin/env python3
"""Signals find the guest at any place, also between two host instructions of one of its own: whatever there was half
done is completed or begins again, and the guest notices nothing."""
import harness
import storm

N_RUNS = 10


class Signals(harness.Test):
    def run_in_a_storm(self, engine, guest, words, **options):
        return storm.run(self, "run", "--engine", engine, "--append", words, self.guest(guest), **options)

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
