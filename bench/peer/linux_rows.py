"""The rows of the comparison on Linux: what is measured, and what ring3 promises about it. Read next: linux_machines.py."""
from dataclasses import dataclass
from typing import Optional

MIB = 1 << 20

PROCESSES = 200
MANY_PROCESSES = 500
PAGES = 64  # that each of them touches
MEMORY_GOAL_BYTES = 96 * MIB  # with PROCESSES; with MANY_PROCESSES they need only run

IDLE_SECONDS = 10
IDLE_GOAL_PERCENT = 2.0


@dataclass(frozen=True)
class Row:
    """A measure of bench/linux, by its name there, and its goals: upper bounds, None where there is none."""
    measure: str
    label: str
    over_tcg: Optional[float] = None
    over_native: Optional[float] = None
    seconds: Optional[float] = None


BOOT = Row("boot", "power-on to /init", over_tcg=0.5)
BOOT_PROCESSOR = Row("boot-processor", "    processor time of it")
BOOT_QUIET = Row("boot-quiet", "the same, with less said (quiet)")

ROWS = [
    Row("sieve", "sieve of 1 MiB", over_tcg=0.33, over_native=1.2),
    Row("fib", "fib(30), by -O2", over_tcg=0.33),
    Row("memcpy", "memcpy 1 MiB, 16-byte vectors", over_tcg=0.15),
    Row("copy-words", "copy of 1 MiB, by words"),
    Row("copy-string", "copy of 1 MiB, by rep movsl"),
    Row("pointers", "pointer chase, in L1", over_tcg=0.35),
    Row("indices", "chase by indices, in L1", over_tcg=0.35),
    Row("first-touch", "page fault, first touch", over_tcg=0.6),
    Row("fill", "new page, filled by words"),
    Row("mmap-munmap", "mmap, touch, munmap of a page", over_tcg=0.5),
    Row("mprotect", "mprotect twice, touch"),
    Row("working-set", "access, 1024 pages by turns"),
    Row("getppid", "getppid, by the vDSO's entry", over_tcg=0.5),
    Row("getppid-int80", "getppid, by int 0x80", over_tcg=0.5),
    Row("fork", "fork, exit, wait", over_tcg=0.5),
    Row("exec", "fork, exec, exit, wait", over_tcg=0.6),
    Row("pipe", "pipe round trip, 2 processes", over_tcg=0.25),
    Row("futex", "futex round trip, 2 processes"),
    Row("yield", "sched_yield, alone"),
    Row("signal", "signal to itself, handler, return"),
    Row("write-tmpfs", "write of 4 KiB, tmpfs"),
    Row("read-zero", "read of 4 KiB, /dev/zero"),
    Row("open-close", "open, close"),
]
