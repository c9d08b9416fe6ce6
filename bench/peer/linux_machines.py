"""The machines of the comparison on Linux, and one run of each: what its /init (bench/linux/main.c) wrote, when, and what
the machine's process used meanwhile. Read next: linux.py.
"""
import copy
import os
import re
import select
import subprocess
import tempfile
import time
from dataclasses import dataclass

from machines import Failure, Machine, processor_seconds

MEMORY_MIB = 256
PATIENCE = 120.0  # seconds of silence: only a failure takes as long
LINE = re.compile(r"@(\d+)\.(\d{9}) (.*)")
GUEST_RAM = ("guest-memory", "memory-backend-memfd")  # how the machines call the file that it is


class Native(Machine):
    """The same program as a process of the host."""

    def __init__(self, program, cpu):
        super().__init__("native", cpu)
        self.program = program

    def command(self, words, quiet=True):  # pylint: disable=arguments-renamed
        return [self.program, *words]


class Guest(Machine):
    def __init__(self, name, program, kernel, initrd, cpu):
        super().__init__(name, cpu)
        self.program, self.kernel, self.initrd = program, kernel, initrd

    @staticmethod
    def append(words, quiet):
        return " ".join(["console=ttyS0", *(["quiet"] if quiet else []), "--", *words])


class Ring3(Guest):
    def __init__(self, engine, *where):
        super().__init__("ring3", *where)
        self.engine = engine
        self.options = []

    def with_options(self, *options):
        other = copy.copy(self)
        other.options = options
        return other

    def command(self, words, quiet=True):  # pylint: disable=arguments-renamed
        return [self.program, "run", "--engine", self.engine, *self.options, "-m", f"{MEMORY_MIB}M",
                self.kernel, "--initrd", self.initrd, "--append", self.append(words, quiet)]


class Qemu(Guest):
    """QEMU's translator, and nothing that takes time beside it; RAM as a file, so that it can be told from the rest."""

    def __init__(self, *where):
        super().__init__("TCG", *where)

    def command(self, words, quiet=True):  # pylint: disable=arguments-renamed
        return [self.program, "-accel", "tcg", "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot",
                "-m", str(MEMORY_MIB), "-object", f"memory-backend-memfd,id=ram,size={MEMORY_MIB}M",
                "-machine", "pc,memory-backend=ram", "-kernel", self.kernel, "-initrd", self.initrd,
                "-append", self.append(words, quiet), "-serial", "stdio"]


# ---- a run -------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """A line of the program's: its text, by which clock of the guest's, by which of ours, and the processor time that
    the machine's process had used by then."""
    text: str
    guest: float
    host: float
    processor: float


class Run:
    """A run of a machine: an iterator over what it says, up to "done"."""

    def __init__(self, machine, words, quiet=True):
        self.errors = tempfile.TemporaryFile()
        self.tail = ""
        self.began = time.monotonic()
        self.process = machine.start(machine.command([str(word) for word in words], quiet), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=self.errors)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __iter__(self):
        output = self.process.stdout.fileno()
        while True:
            if not select.select([output], [], [], PATIENCE)[0]:
                raise Failure(f"it said nothing for {PATIENCE:.0f} s")
            data = os.read(output, 65536)
            host, processor = time.monotonic(), processor_seconds(self.process.pid)
            if not data:
                raise self.failure()
            *lines, self.tail = (self.tail + data.decode(errors="replace")).split("\n")
            for line in lines:
                match = LINE.search(line)
                if not match:
                    continue
                seconds, nanoseconds, text = match.groups()
                text = text.strip()
                if text.startswith("failed"):
                    raise Failure(text)
                if text == "done":
                    return
                yield Said(text, int(seconds) + int(nanoseconds) * 1e-9, host, processor)

    def failure(self):
        self.process.wait(timeout=PATIENCE)
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode(errors="replace").split("\n") if line.strip()]
        return Failure(lines[-1] if lines else f"exit status {self.process.returncode}")


# ---- what is made of it ------------------------------------------------------------------------------------


def boot_seconds(machine, quiet):
    """From the start of the program (firmware included) to the first line of /init: real time, and processor time."""
    with Run(machine, ["boot"], quiet) as run:
        for said in run:
            return said.host - run.began, said.processor
    raise Failure("/init said nothing")


def measure(machine, milliseconds, n_rounds, names):
    """Returns {measure: seconds an operation, by round}, and the pairs of clocks (guest's, host's) at each line."""
    rows, clocks = {}, []
    with Run(machine, ["measure", milliseconds, n_rounds, *names]) as run:
        for said in run:
            clocks.append((said.guest, said.host))
            if said.text.startswith("row "):
                _, name, n, *rounds = said.text.split()
                rows[name] = [int(ns) * 1e-9 / int(n) for ns in rounds]
    return rows, clocks


def clock_error(clocks):
    """How far the guest's clock went from the host's in a run, as a part of the time. A line comes late by what the console
    takes and until the host lets us run, never early: so the earliest of the first half is compared with that of the
    second."""
    half = len(clocks) // 2
    lateness = [host - guest for guest, host in clocks]
    first = min(range(half), key=lambda i: lateness[i])
    second = min(range(half, len(clocks)), key=lambda i: lateness[i])
    return (lateness[first] - lateness[second]) / (clocks[second][1] - clocks[first][1])


def memory_bytes(pid):
    """What a process takes beyond guest RAM: anonymous and file pages, page tables, and files in memory (memfds) that
    are not the RAM: of each the part that is mapped, once."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    parts = {name: int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile", "VmPTE")}
    files = {}  # inode: {permissions: bytes}
    current = None
    with open(f"/proc/{pid}/smaps", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
                name = words[5] if len(words) > 5 else ""
                is_ours = name.startswith("/memfd:") and name.removeprefix("/memfd:") not in GUEST_RAM
                current = (files.setdefault(words[4], {}), words[1]) if is_ours else None
            elif words[0] == "Rss:" and current:
                current[0][current[1]] = current[0].get(current[1], 0) + (int(words[1]) << 10)
    parts["memfds"] = sum(max(sizes.values()) for sizes in files.values())
    return parts


def processes_memory(machine, n_processes, n_pages):
    with Run(machine, ["processes", n_processes, n_pages]) as run:
        for said in run:
            if said.text == "ready":
                return memory_bytes(run.process.pid)
    raise Failure(f"{n_processes} processes did not get ready")


def idle_share(machine, seconds):
    """The part of one processor that an idle guest takes."""
    with Run(machine, ["idle", seconds]) as run:
        begin, end = [said for said in run if said.text in ("begin", "end")]
        return (end.processor - begin.processor) / (end.host - begin.host)
