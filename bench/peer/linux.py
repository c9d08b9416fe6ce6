#!/usr/bin/env python3
"""Compares ring3 with QEMU's translator (TCG) on Debian's unmodified 32-bit Linux, and both with the host.

All run one program, bench/linux, by turns: the machines with the same kernel and RAM disk, the host without. It measures
by its CLOCK_MONOTONIC, which is compared with the host's. `bench/run linux` builds and fetches everything and starts this;
docs/benchmarks.md explains each row. Read next: linux_rows.py (what is promised), linux_machines.py (how it is run).
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

# pylint: disable=wrong-import-position
import table
from compare import TOP, Comparison, Figure, add_common_options, median
from linux_machines import (Native, Qemu, Ring3, boot_seconds, clock_error, idle_share, measure, processes_memory)
from linux_rows import (BOOT, BOOT_PROCESSOR, BOOT_QUIET, IDLE_GOAL_PERCENT, IDLE_SECONDS, MANY_PROCESSES,
                        MEMORY_GOAL_BYTES, MIB, PAGES, PROCESSES, ROWS)
from machines import Failure


class LinuxComparison:
    """One kernel's table."""

    def __init__(self, options, kernel, machines):
        self.options, self.kernel, self.machines = options, kernel, machines
        self.failures, self.records, self.clocks = [], [], {}
        self.n_goals = self.n_missed = 0

    def collect(self, label, function, machines, repetitions):
        """{machine's name: what the function returned, by repetition}; the machines take turns."""
        results = {}
        for repetition in range(repetitions):
            for machine in machines if repetition % 2 == 0 else reversed(machines):
                try:
                    results.setdefault(machine.name, []).append(function(machine))
                except Failure as failure:
                    self.failures.append(f"{self.kernel}: {label}, {machine.name}: {failure}")
        return results

    def guests(self):
        return [machine for machine in self.machines if machine.name != "native"]

    def note(self, measured, samples, goals):
        self.n_goals += len(goals)
        self.n_missed += sum(not is_met for _, is_met in goals)
        self.records.append({"kernel": self.kernel, "measure": measured, "samples": samples,
                             "goals": [{"goal": text, "met": is_met} for text, is_met in goals]})

    # ---- times ---------------------------------------------------------------------------------------------

    def report(self, row, samples, details=None):
        own, native, tcg = (samples.get(name, []) for name in ("ring3", "native", "TCG"))
        figure = Figure(median(own), median(native), median(tcg), Comparison.ratio(own, native),
                        Comparison.ratio(own, tcg))
        table.print_row(row.label, figure, row, sys.stdout)
        self.note(row.measure, {"figure": figure.__dict__, "best": samples, "rounds": details},
                  table.judge(figure, row))

    def run_boot(self):
        for quiet, row, processor_row in ((False, BOOT, BOOT_PROCESSOR), (True, BOOT_QUIET, None)):
            times = self.collect(row.label, lambda machine, quiet=quiet: boot_seconds(machine, quiet), self.guests(),
                                 self.options.repetitions)
            for i, shown in enumerate((row, processor_row)):
                if shown:
                    self.report(shown, {name: [both[i] for both in runs] for name, runs in times.items()})

    def run_rows(self, rows):
        names = [row.measure for row in rows]
        runs = self.collect("measure", lambda machine: measure(machine, self.options.milliseconds, self.options.rounds,
                                                               names), self.machines, self.options.repetitions)
        for row in rows:
            rounds = {name: [seconds[row.measure] for seconds, _ in of_machine if row.measure in seconds]
                      for name, of_machine in runs.items()}
            # Of many short rounds the best: on a busy host the others are interrupted by other processes.
            self.report(row, {name: [min(run) for run in of_machine] for name, of_machine in rounds.items()}, rounds)
        for name, of_machine in runs.items():
            self.clocks[name] = [clock_error(clocks) for _, clocks in of_machine]
            worst = max(self.clocks[name], key=abs)
            print(f"clock of {name} against the host's, worst of {len(of_machine)} runs: {worst * 100:+.3f} %")

    # ---- size and idleness ---------------------------------------------------------------------------------

    def print_other(self, label, values, form, goal=None):
        own, tcg = values.get("ring3"), values.get("TCG")
        goals = [(goal[0], own <= goal[1])] if goal and own is not None else []
        verdict = "  ".join(f"{text} {'ok' if is_met else 'MISSED'}" for text, is_met in goals)
        columns = ("-" if value is None else form.format(value) for value in (own, tcg))
        ratio = table.format_ratio(own / tcg if own is not None and tcg else None)
        own_text, tcg_text = columns
        print(table.LINE.format(label, "-", own_text, "-", tcg_text, ratio, verdict).rstrip(), flush=True)
        return goals

    def run_memory(self):
        for count, goal in ((PROCESSES, (f"<={MEMORY_GOAL_BYTES // MIB} MiB", MEMORY_GOAL_BYTES / MIB)),
                            (MANY_PROCESSES, None)):
            label = f"memory, {count} processes"
            samples = self.collect(label, lambda machine, count=count: processes_memory(machine, count, PAGES),
                                   self.guests(), 1)
            sums = {name: sum(parts[0].values()) / MIB for name, parts in samples.items()}
            goals = self.print_other(label, sums, "{:.1f} MiB", goal)
            for name, (parts,) in samples.items():
                print(f"    {name}: " + ", ".join(f"{part} {size / MIB:.1f}" for part, size in parts.items()))
            self.note(f"memory-{count}", samples, goals)

    def run_idle(self):
        in_time = [machine.with_options("--idle-slack", "0") for machine in self.machines if isinstance(machine, Ring3)]
        bound = (f"<{IDLE_GOAL_PERCENT:.0f} %", IDLE_GOAL_PERCENT)
        for measured, label, machines, goal in (
                ("idle", f"idle, {IDLE_SECONDS} s, of a processor", self.guests(), bound),
                ("idle-in-time", "    each tick in time (--idle-slack 0)", in_time, None)):
            samples = self.collect(measured, lambda machine: idle_share(machine, IDLE_SECONDS), machines, 1)
            goals = self.print_other(label, {name: shares[0] * 100 for name, shares in samples.items()}, "{:.2f} %", goal)
            self.note(measured, samples, goals)

    # ---- all -----------------------------------------------------------------------------------------------

    def is_wanted(self, *names):
        wanted = self.options.only
        return not wanted or any(text in name for text in wanted for name in names)

    def run(self):
        print(f"\n{self.kernel}")
        table.print_head(sys.stdout)
        if self.is_wanted(BOOT.measure, BOOT.label):
            self.run_boot()
        rows = [row for row in ROWS if self.is_wanted(row.measure, row.label)]
        if rows:
            self.run_rows(rows)
        if self.is_wanted("memory"):
            self.run_memory()
        if self.is_wanted("idle"):
            self.run_idle()
        print(f"{self.n_goals - self.n_missed} of {self.n_goals} goals met")


# ---- the program -------------------------------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(prog="bench/run linux", description="ring3 beside QEMU's TCG, on Linux")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, fewer of them (a minute a kernel)")
    parser.add_argument("--kernel", action="append", metavar="FILE",
                        help="repeatable (default: vmlinuz and vmlinuz-pae of build/linux, if they are there)")
    parser.add_argument("--engine", default="translate", help="ring3's (default: translate)")
    parser.add_argument("--repetitions", type=int, metavar="N", help="runs of each machine (5; quick: 2)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of a measure in a run (41; quick: 15)")
    parser.add_argument("--milliseconds", type=int, metavar="MS", help="how long a round takes at least (2)")
    add_common_options(parser)
    options = parser.parse_args()
    options.repetitions = options.repetitions or (2 if options.quick else 5)
    options.rounds = options.rounds or (15 if options.quick else 41)
    options.milliseconds = options.milliseconds or 2
    if not options.kernel:
        folder = os.path.join(TOP, "build", "linux")
        options.kernel = [path for path in (os.path.join(folder, name) for name in ("vmlinuz", "vmlinuz-pae"))
                          if os.path.exists(path)]
    if not options.kernel:
        parser.error("no kernel: scripts/get-linux.sh fetches one")
    return options


def main():
    options = parse()
    ring3 = os.path.join(options.build, "ring3")
    program = os.path.join(options.build, "bench", "linux_init")
    cpu = max(os.sched_getaffinity(0))  # one for all, as in compare.py
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        initrd, empty = os.path.join(folder, "initrd"), os.path.join(folder, "empty")
        os.mkdir(empty)
        subprocess.run([os.path.join(TOP, "scripts", "make-initrd.py"), empty, program, initrd], check=True)
        for kernel in options.kernel:
            machines = [Native(program, cpu), Ring3(options.engine, ring3, kernel, initrd, cpu)]
            if options.qemu:
                if not shutil.which(options.qemu):
                    sys.exit(f"linux.py: no {options.qemu} (Debian package qemu-system-x86)")
                machines.append(Qemu(options.qemu, kernel, initrd, cpu))
            comparisons.append(LinuxComparison(options, os.path.basename(kernel), machines))
            comparisons[-1].run()
    failures = [failure for comparison in comparisons for failure in comparison.failures]
    for failure in failures:
        print(f"linux.py: {failure}", file=sys.stderr)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"repetitions": options.repetitions, "milliseconds": options.milliseconds,
                       "rows": [record for comparison in comparisons for record in comparison.records],
                       "clocks": {comparison.kernel: comparison.clocks for comparison in comparisons},
                       "failures": failures}, file, indent=1)
            file.write("\n")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except FileNotFoundError as error:
        sys.exit(f"linux.py: {error}")
