"""The machines that are compared, and how long one takes between two markers.

A guest writes a byte before each round and one behind it (bench/nano/nano.h). At each the processor time that the
machine's process has used so far is read: all its threads, in the host's kernel too, but not what it waited for a
core. So the guest's clock is not believed, and a busy host matters little. Read next: xv6.py, compare.py.
"""
import ctypes
import os
import select
import struct
import subprocess
import sys
import tempfile
import time

MEMORY_MIB = 64
PATIENCE = 30.0  # seconds of silence: only a failure takes as long
MARK_BEGIN, MARK_END = b"\x01", b"\x02"
DEBUG_EXIT = 1  # exit status after the guest wrote 0 to isa-debug-exit


class Failure(Exception):
    """One line: why a machine has no figure."""


def processor_seconds(pid):
    """The processor time of a process, precisely (see clock_getcpuclockid(3) for what the number is made of)."""
    return time.clock_gettime((~pid << 3) | 2)


class ProcessorClock:
    """The processor time of a process that has just been started, in seconds. Of a process that is running,
    processor_seconds may be as old as the host's last tick, 4 ms for instance. The task clock of perf_event_open(2) is
    not; where the host forbids it, the other must do."""
    SYSCALL = 298
    SOFTWARE, TASK_CLOCK = 1, 1
    ATTRIBUTE_SIZE, FLAGS_OFFSET = 128, 40
    INHERIT, EXCLUDE_KERNEL = 1 << 1, 1 << 5  # all threads; the second is asked of the unprivileged, and changes nothing

    def __init__(self, pid):
        self.pid = pid
        attribute = bytearray(self.ATTRIBUTE_SIZE)
        struct.pack_into("=IIQ", attribute, 0, self.SOFTWARE, self.ATTRIBUTE_SIZE, self.TASK_CLOCK)
        struct.pack_into("=Q", attribute, self.FLAGS_OFFSET, self.INHERIT | self.EXCLUDE_KERNEL)
        self.event = ctypes.CDLL(None).syscall(self.SYSCALL, bytes(attribute), pid, -1, -1, 0)

    def seconds(self):
        if self.event < 0:
            return processor_seconds(self.pid)
        return int.from_bytes(os.read(self.event, 8), sys.byteorder) * 1e-9

    def close(self):
        if self.event >= 0:
            os.close(self.event)


class Machine:
    def __init__(self, name, cpu=None):
        self.name = name
        self.cpu = cpu

    def can(self, row):
        """Does the row mean anything here?"""
        return True

    def command(self, measure, n, rounds):
        """rounds None: each round is four times the last, until the process is killed."""
        raise NotImplementedError

    def start(self, argv, **streams):
        def pin():
            if self.cpu is not None:
                os.sched_setaffinity(0, {self.cpu})

        return subprocess.Popen(argv, preexec_fn=pin, **streams)  # pylint: disable=subprocess-popen-preexec-fn


class Native(Machine):
    """The same machine code in a process without any monitor."""

    def __init__(self, program, cpu=None):
        super().__init__("native", cpu)
        self.program = program

    def can(self, row):
        return row.kind == "compute"

    def command(self, measure, n, rounds):
        return [self.program, measure.removesuffix("/user"), str(n), "grow" if rounds is None else str(rounds)]


def append(measure, n, rounds):
    return f"measure={measure} n={n} " + ("grow" if rounds is None else f"rounds={rounds}")


class Ring3(Machine):
    def __init__(self, program, kernel, engine, clock, cpu=None):
        super().__init__(f"ring3 {engine}" + ("" if clock == "host" else f", {clock} clock"), cpu)
        self.program, self.kernel = program, kernel
        self.counts = engine == "translate" and clock == "virtual"
        # Patching is the trap engine's way to run all of a kernel; others need none.
        self.options = ["--engine", engine, "--clock", clock, *(["--holes", "patch"] if engine == "trap" else [])]

    def command(self, measure, n, rounds):
        return [self.program, "run", self.kernel, *self.options, "-m", f"{MEMORY_MIB}M",
                "--append", append(measure, n, rounds)]

    def boot(self, kernel, memory_mib, disks):
        drives = [word for disk in disks for word in ("--drive", f"{disk},snapshot")]
        return [self.program, "run", kernel, *self.options, "-m", f"{memory_mib}M", *drives]


class Qemu(Machine):
    """QEMU's translator, and nothing that takes time beside it."""

    def __init__(self, program, kernel, cpu=None):
        super().__init__("TCG", cpu)
        self.program, self.kernel = program, kernel

    def _machine(self, kernel, memory_mib):
        return [self.program, "-accel", "tcg", "-nodefaults", "-display", "none", "-monitor", "none",
                "-no-reboot", "-m", str(memory_mib), "-kernel", kernel]

    def command(self, measure, n, rounds):
        return [*self._machine(self.kernel, MEMORY_MIB), "-append", append(measure, n, rounds),
                "-chardev", "stdio,id=out,mux=on,signal=off", "-serial", "chardev:out",
                "-device", "isa-debugcon,iobase=0xe9,chardev=out",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]

    def boot(self, kernel, memory_mib, disks):
        drives = [word for index, disk in enumerate(disks)
                  for word in ("-drive", f"file={disk},index={index},media=disk,format=raw,snapshot=on")]
        # Kernels write to the screen, too, and some get lost when there is none.
        return [*self._machine(kernel, memory_mib), "-vga", "std", *drives, "-serial", "stdio"]


# ---- rounds ------------------------------------------------------------------------------------------------


class Rounds:
    """One process of a machine: an iterator over the seconds of its rounds. What it says besides is `text`."""

    def __init__(self, machine, measure, n, rounds):
        self.machine, self.text = machine, b""
        self.errors = tempfile.TemporaryFile()
        self.process = machine.start(machine.command(measure, n, rounds), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=self.errors)
        self.clock = ProcessorClock(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clock.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __iter__(self):
        began = 0.0
        output = self.process.stdout.fileno()
        while True:
            if not select.select([output], [], [], PATIENCE)[0]:
                raise Failure(f"it said nothing for {PATIENCE:.0f} s")
            data = os.read(output, 4096)
            now = self.clock.seconds()
            if not data:
                return
            for byte in (data[i:i + 1] for i in range(len(data))):
                if byte == MARK_BEGIN:
                    began = now
                elif byte == MARK_END:
                    yield now - began
                else:
                    self.text += byte

    def failure(self):
        """Why it ended without a result."""
        self.process.wait(timeout=PATIENCE)
        self.errors.seek(0)
        said = (self.text + b"\n" + self.errors.read()).decode(errors="replace").split("\n")
        lines = [line.strip() for line in said if line.strip()]
        return Failure(lines[-1] if lines else f"exit status {self.process.returncode}")


def find_count(machine, measure, seconds):
    """The count with which a round takes about so long."""
    n = 1
    with Rounds(machine, measure, n, None) as rounds:
        for took in rounds:
            if took > seconds / 5 or n >= 1 << 29:
                return max(1, min(round(n * seconds / took), 1 << 30))
            n *= 4
        raise rounds.failure()


def time_rounds(machine, measure, n, n_rounds):
    """Returns the seconds of each round, and what the last one computed."""
    with Rounds(machine, measure, n, n_rounds) as rounds:
        seconds = list(rounds)
        if len(seconds) != n_rounds or not rounds.text.startswith(b"="):
            raise rounds.failure()
        return seconds, int(rounds.text[1:9], 16)
