#!/usr/bin/env python3
"""Compares ring3 with native code and with QEMU's translator (TCG), on the same guest image, in one run.

For each row all machines do it in turn, in processes of their own, several times; a figure is a median, and a ratio the
median of the ratios of neighbours in time. `bench/run peer` builds everything and starts this; docs/benchmarks.md
explains each row. Read next: rows.py (what is promised), machines.py (how it is timed).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Optional

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

# pylint: disable=wrong-import-position
import table
import xv6
from machines import Failure, Native, Qemu, Ring3, find_count, time_rounds
from rows import CODE_INSTRUCTIONS, ROWS, Row

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))
ENGINES = ("translate", "trap")  # the first that this build has is the default
COMMAND_LINE_WRONG = 2


@dataclass
class Figure:
    """What is known about one machine of ring3's in one row; None is what could not be measured."""
    seconds: Optional[float] = None
    native: Optional[float] = None
    tcg: Optional[float] = None
    over_native: Optional[float] = None
    over_tcg: Optional[float] = None


def median(values):
    return statistics.median(values) if values else None


class Comparison:
    def __init__(self, options, subjects, native, tcg):
        self.options, self.subjects, self.native, self.tcg = options, subjects, native, tcg
        self.machines = [machine for machine in (native, *subjects, tcg) if machine is not None]
        self.baselines = {}  # measure: its samples
        self.failures = []
        self.records = []
        self.n_goals = self.n_missed = 0

    # ---- one row -------------------------------------------------------------------------------------------

    def fail(self, machine, label, failure):
        self.failures.append(f"{label}, {machine.name}: {failure}")

    def measure(self, row):
        """Returns {machine's name: seconds an operation, one for each repetition}, without what failed."""
        counts, samples, results = {}, {}, {}
        for machine in self.machines:
            if not machine.can(row):
                continue
            try:
                counts[machine.name] = (CODE_INSTRUCTIONS if row.kind == "code" else
                                        find_count(machine, row.measure, self.options.seconds))
                samples[machine.name] = []
            except Failure as failure:
                self.fail(machine, row.label, failure)
        for repetition in range(self.options.repetitions):
            # By turns: a drift of the host's speed favours nobody.
            for machine in self.machines if repetition % 2 == 0 else reversed(self.machines):
                if machine.name not in samples:
                    continue
                n = counts[machine.name]
                try:
                    # The first round is the one in which code and memory are new.
                    (first, *others), result = time_rounds(machine, row.measure, n, self.options.rounds + 1)
                except Failure as failure:
                    self.fail(machine, row.label, failure)
                    del samples[machine.name]
                    continue
                if row.kind == "code":
                    results[machine.name] = result
                    samples[machine.name].append((first - min(others)) / n)
                else:
                    samples[machine.name].append(statistics.median(others) / n / row.units)
        if len(set(results.values())) > 1:
            self.failures.append(f"{row.label}: the machines computed {results}")
        return samples

    def without_baseline(self, row, samples):
        """Subtracts the loop from each sample."""
        if row.baseline is None:
            return samples
        if row.baseline not in self.baselines:
            self.baselines[row.baseline] = self.measure(next(loop for loop in ROWS if loop.measure == row.baseline))
        loops = self.baselines[row.baseline]
        return {name: [value - median(loops[name]) / row.repeated for value in values]
                for name, values in samples.items() if name in loops}

    @staticmethod
    def ratio(above, below):
        pairs = [a / b for a, b in zip(above, below) if b > 0]
        return median(pairs)

    def report(self, row, samples):
        native = samples.get("native", [])
        tcg = samples.get("TCG", [])
        for subject in self.subjects:
            own = samples.get(subject.name, [])
            figure = Figure(median(own), median(native), median(tcg), self.ratio(own, native), self.ratio(own, tcg))
            label = row.label if len(self.subjects) == 1 else f"{row.label} [{subject.name.removeprefix('ring3 ')}]"
            promised = row.where_counted() if subject.counts else row
            table.print_row(label, figure, promised, sys.stdout)
            goals = table.judge(figure, promised)
            self.n_goals += len(goals)
            self.n_missed += sum(not is_met for _, is_met in goals)
            self.records.append({
                "measure": row.measure, "label": row.label, "machine": subject.name, **figure.__dict__,
                "samples": {"ring3": own, "native": native, "tcg": tcg},
                "goals": [{"goal": text, "met": is_met} for text, is_met in goals]})

    def run_row(self, row):
        samples = self.measure(row)
        if row.measure.startswith("loop"):
            self.baselines[row.measure] = samples
        self.report(row, self.without_baseline(row, samples))

    # ---- xv6 -----------------------------------------------------------------------------------------------

    def run_xv6(self, row, measure, repetitions):
        samples = {}
        for _ in range(repetitions):
            for machine in (*self.subjects, self.tcg):
                if machine is None:
                    continue
                try:
                    samples.setdefault(machine.name, []).append(measure(machine, self.options.xv6))
                except Failure as failure:
                    self.fail(machine, row.label, failure)
        self.report(row, samples)

    # ---- all -----------------------------------------------------------------------------------------------

    def run(self):
        table.print_head(sys.stdout)
        for row in ROWS:
            if self.is_wanted(row):
                self.run_row(row)
        boot = Row("xv6-boot", "xv6, start to the shell's prompt")
        usertests = Row("xv6-usertests", "xv6, usertests")
        if self.options.xv6 and self.is_wanted(boot):
            self.run_xv6(boot, xv6.boot_seconds, self.options.repetitions)
        if self.options.xv6 and self.options.usertests:
            self.run_xv6(usertests, xv6.usertests_seconds, 1)
        print(f"{self.n_goals - self.n_missed} of {self.n_goals} goals met")
        for failure in self.failures:
            print(f"compare.py: {failure}", file=sys.stderr)

    def is_wanted(self, row):
        wanted = self.options.only
        return not wanted or any(text in row.measure or text in row.label for text in wanted)

    def write_json(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"machines": [machine.name for machine in self.machines],
                       "repetitions": self.options.repetitions, "seconds": self.options.seconds,
                       "rows": self.records, "failures": self.failures}, file, indent=1)
            file.write("\n")


# ---- the program -------------------------------------------------------------------------------------------


def add_common_options(parser):
    """What linux.py takes as well."""
    parser.add_argument("--only", action="append", metavar="TEXT", help="only rows with TEXT in their name; repeatable")
    parser.add_argument("--json", metavar="FILE", help="write all figures and samples there, too")
    parser.add_argument("--build", metavar="FOLDER", default=os.path.join(TOP, "build", "release"))
    parser.add_argument("--qemu", metavar="PROGRAM", default="qemu-system-i386", help="empty: without TCG")


def parse():
    parser = argparse.ArgumentParser(prog="bench/run peer", description="ring3 beside native code and QEMU's TCG")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, fewer of them (about a minute)")
    parser.add_argument("--engine", action="append", metavar="NAME",
                        help="ring3's engine; repeatable (default: translate if there, else trap)")
    parser.add_argument("--clock", action="append", choices=("host", "virtual"), help="repeatable (default: host)")
    parser.add_argument("--xv6", metavar="FOLDER", default=os.environ.get("XV6"),
                        help="also time xv6, built there (docs/xv6.md); default: $XV6")
    parser.add_argument("--usertests", action="store_true", help="with --xv6: its tests, too (an hour with trap)")
    parser.add_argument("--repetitions", type=int, metavar="N", help="processes of each machine for each row")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long a round takes")
    add_common_options(parser)
    options = parser.parse_args()
    options.repetitions = options.repetitions or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.06 if options.quick else 0.25)
    options.rounds = 2 if options.quick else 3
    options.clock = options.clock or ["host"]
    return options


def has_engine(ring3, kernel, engine):
    """A build without it calls the command line wrong."""
    probe = [ring3, "run", kernel, "--engine", engine, "--append", "measure=loop n=1"]
    return subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True,
                          check=False).returncode != COMMAND_LINE_WRONG


def main():
    options = parse()
    ring3 = os.path.join(options.build, "ring3")
    kernel = os.path.join(options.build, "bench", "nano.elf")
    # One core for all, as the figures are of one core; this program mostly sleeps.
    cpu = max(os.sched_getaffinity(0))
    if not options.engine:
        options.engine = [next(engine for engine in ENGINES if has_engine(ring3, kernel, engine))]
    subjects = [Ring3(ring3, kernel, engine, clock, cpu) for engine in options.engine for clock in options.clock]
    native = Native(os.path.join(options.build, "bench", "nano_native"), cpu)
    tcg = Qemu(options.qemu, kernel, cpu) if options.qemu else None
    comparison = Comparison(options, subjects, native, tcg)
    print("ring3 is " + ", ".join(subject.name for subject in subjects))
    comparison.run()
    if options.json:
        comparison.write_json(options.json)
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except FileNotFoundError as error:
        sys.exit(f"compare.py: {error}")
