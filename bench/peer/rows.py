"""The rows: what is measured, and what ring3 promises about it. Read next: machines.py."""
from dataclasses import dataclass, replace
from typing import Optional

NANOSECOND = 1e-9
CODE_INSTRUCTIONS = 200_000
REPEATED = 8  # NANO_REPEATED of bench/nano/nano.h

# Against TCG: ring3 takes at most so much of TCG's time.
THIRD, HALF = 1 / 3, 1 / 2
# Computation that is counted, instruction by instruction (--clock=virtual), may take so much of what it may otherwise.
COUNTING = 1.3


@dataclass(frozen=True)
class Row:
    """A measure of bench/nano/main.c, by its name there, and its goals: upper bounds, None where there is none."""
    measure: str
    label: str
    kind: str = "operation"  # or "compute": runs natively, too; "code": the first pass less the second
    units: int = 1  # what a count of the guest's n stands for
    repeated: int = 1  # how many times a turn of the loop does it
    over_native: Optional[float] = None
    seconds: Optional[float] = None
    over_tcg: Optional[float] = None

    @property
    def baseline(self):
        """The measure whose time is subtracted."""
        if self.kind != "operation" or self.measure.startswith("loop"):
            return None
        return "loop/user" if self.measure.endswith("/user") else "loop"

    def where_counted(self):
        """The row as it is for a machine that counts instructions."""
        if self.kind != "compute":
            return self
        return replace(self, over_native=self.over_native and self.over_native * COUNTING,
                       over_tcg=self.over_tcg and self.over_tcg * COUNTING)


def _compute(measure, label, over_native=None, units=1):
    return [Row(measure + mode, f"{label}, {name} mode", "compute", units, over_native=over_native, over_tcg=THIRD)
            for mode, name in (("", "kernel"), ("/user", "user"))]


def _operation(measure, label, nanoseconds=None, over_tcg=HALF, repeated=REPEATED):
    return Row(measure, label, repeated=repeated, seconds=nanoseconds and nanoseconds * NANOSECOND, over_tcg=over_tcg)


def _long_operation(measure, label, nanoseconds=None, over_tcg=HALF):
    return _operation(measure, label, nanoseconds, over_tcg, repeated=1)


ROWS = [
    *_compute("sum", "sum of 512 KiB", 1.15),
    *_compute("copy", "copy of 1 MiB, by words", 1.15),
    *_compute("rep-movs", "copy of 1 MiB, rep movsl"),
    *_compute("pointers", "pointer chase, in L1", 1.15),
    *_compute("indices", "chase by indices, in L1", 1.15),
    *_compute("fib", "fib(32)", 1.3),
    *_compute("indirect", "indirect call, one target", 2.0, units=8),
    *_compute("dispatch", "indirect call, eight targets", 2.0),
    *_compute("sieve", "sieve of 1 MiB"),
    Row("loop", "empty loop, kernel (subtracted below)"),
    Row("loop/user", "empty loop, user (subtracted below)"),
    _operation("cli-sti", "cli, sti", 5),
    _operation("pushf", "pushf", 15),
    _operation("popf", "push, popf", 15),
    _operation("in-pic", "in, 8259 mask", 150),
    _operation("out-pic", "out, 8259 mask", 150),
    _operation("out-post", "out, port 80", 150),
    _operation("in-cmos", "in, CMOS data", 150),
    _long_operation("int/user", "system call, int and iret", 300),
    _long_operation("sysenter/user", "system call, sysenter and sysexit", 150),
    _operation("mmio-read", "device memory, read (APIC ID)", 300),
    _operation("mmio-write", "device memory, write (APIC TPR)", 300),
    # TCG does not follow page tables: there it is any store.
    _operation("table-write", "page-table write, entry not in use", 100, over_tcg=None),
    _long_operation("page-fault", "page fault, map, retry; kernel", 8000),
    _long_operation("page-fault/user", "page fault, map, retry; user", 8000),
    _long_operation("cr3-switch", "CR3 switch, and 4 pages touched", over_tcg=None),
    _operation("invlpg", "invlpg, touch", over_tcg=None),
    _operation("read-cr0", "mov from CR0", over_tcg=None),
    _operation("read-cr2", "mov from CR2", over_tcg=None),
    _operation("rdtsc", "rdtsc", over_tcg=None),
    _operation("cpuid", "cpuid", over_tcg=None),
    _operation("call", "call and ret, kernel", over_tcg=None),
    _operation("call/user", "call and ret, user", over_tcg=None),
    _long_operation("divide-error", "#DE, iret behind it", over_tcg=None),
    Row("code", "translation, per guest instruction", "code", seconds=400 * NANOSECOND),
]
