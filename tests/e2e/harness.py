"""Shared by the end-to-end tests in Python (the standard library alone); lib.sh is the same for those in shell.

A test file is a unittest program: `class Loader(harness.Test)` with a method for each named case, and
`harness.main()` at its end. RING3, the program, and GUESTS, the folder of the guests' images, come in the environment;
one case alone: `RING3=... GUESTS=... tests/e2e/test_loader.py Loader.test_empty_file`.

The program always runs as an unprivileged user, in self.tmp. That folder stays behind when a case fails, and the
command to repeat is printed.
"""
import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

NOBODY = 65534
PATIENCE = 60  # seconds for anything that should take a moment: only a failure waits that long

IS_ROOT = os.getuid() == 0
UNPRIVILEGED = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
                "--inh-caps=-all", "--bounding-set=-all"] if IS_ROOT else []


class Test(unittest.TestCase):
    """One case: a temporary folder, and ways to run ring3."""

    @classmethod
    def setUpClass(cls):
        cls.ring3 = os.path.realpath(os.environ["RING3"])
        cls.guests = os.path.realpath(os.environ["GUESTS"])
        cls.readable = None
        if IS_ROOT:  # what root may reach, nobody may not
            cls.readable = tempfile.mkdtemp(prefix="ring3-")
            os.chmod(cls.readable, 0o755)
            cls.ring3 = shutil.copy(cls.ring3, cls.readable)
            cls.guests = shutil.copytree(cls.guests, os.path.join(cls.readable, "guests"),
                                         ignore=shutil.ignore_patterns("CMakeFiles"))

    @classmethod
    def tearDownClass(cls):
        if cls.readable is not None:
            shutil.rmtree(cls.readable)

    def setUp(self):
        self.command = None  # the last one that ran
        self.tmp = tempfile.mkdtemp(prefix="ring3-")
        if IS_ROOT:
            os.chown(self.tmp, NOBODY, NOBODY)
        self.addCleanup(self._leave)

    def _leave(self):
        if self._outcome.success:
            shutil.rmtree(self.tmp)
            return
        program, guests = os.environ["RING3"], os.environ["GUESTS"]
        print(f"\nFAIL {self.id()}: its files are in {self.tmp}", file=sys.stderr)
        if self.command is not None:
            words = [word.replace(self.ring3, program).replace(self.guests, guests) for word in self.command]
            print(f"     its command: cd {self.tmp} && {shlex.join(words)}", file=sys.stderr)
        print(f"     again: RING3={program} GUESTS={guests} {sys.argv[0]} {self.id().removeprefix('__main__.')}",
              file=sys.stderr)

    # ---- files -------------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.tmp, name)

    def guest(self, name):
        return os.path.join(self.guests, name + ".elf")

    def put(self, name, content):
        """A file in self.tmp that ring3 may read and write; returns its path."""
        with open(self.path(name), "wb") as file:
            file.write(content)
        if IS_ROOT:
            os.chown(self.path(name), NOBODY, NOBODY)
        return self.path(name)

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    # ---- running -----------------------------------------------------------------------------------------

    def run_ring3(self, *arguments, status=0, input=b"", timeout=PATIENCE, **options):
        """Runs to the end; returns (stdout, stderr) as text. `status` is the exit status, -n for signal n."""
        self.command = [self.ring3, *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        if "stdin" not in options:
            options["input"] = input
        done = subprocess.run(UNPRIVILEGED + self.command, cwd=self.tmp, timeout=timeout, check=False, **options)
        out = (done.stdout or b"").decode(errors="replace")
        err = (done.stderr or b"").decode(errors="replace")
        self.assertEqual(done.returncode, status, f"exit status; it said:\n{out[-2000:]}\n{err[-2000:]}")
        return out, err

    def start_ring3(self, *arguments, **options):
        """Starts it; returns the Popen object. It is killed when the case is over."""
        self.command = [self.ring3, *arguments]
        process = subprocess.Popen(UNPRIVILEGED + self.command, cwd=self.tmp, **options)
        self.addCleanup(self._stop, process)
        return process

    @staticmethod
    def _stop(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def wait_until(self, condition, what):
        """Polls, for what has no descriptor to wait on."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, f"waited {PATIENCE} s in vain: {what}")
            time.sleep(0.01)

    def assert_one_line(self, text, *parts):
        """Beside the line that says which engine was chosen, if any."""
        text = re.sub(r"\Aring3: engine (trap|translate): .*\n", "", text)
        self.assertEqual(text.count("\n"), 1, f"not one line: {text!r}")
        for part in parts:
            self.assertIn(part, text)


class Conversation:
    """ring3 with its standard input and output on a terminal (a pty) or on pipes."""

    def __init__(self, test, *arguments, terminal=True):
        self.test = test
        self.seen = b""  # everything it wrote
        self.mark = 0  # what was looked at already
        if terminal:
            self.master, self.slave = pty.openpty()
            fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
            if IS_ROOT:
                os.fchown(self.slave, NOBODY, NOBODY)
            test.addCleanup(os.close, self.master)
            test.addCleanup(os.close, self.slave)
            self.process = test.start_ring3(*arguments, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                            start_new_session=True)
            self.output = self.input = self.master
        else:
            self.process = test.start_ring3(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT)
            self.output, self.input = self.process.stdout.fileno(), self.process.stdin.fileno()

    def _read(self, seconds):
        """More output within that time? False at its end."""
        if not select.select([self.output], [], [], seconds)[0]:
            return None
        try:
            data = os.read(self.output, 65536)
        except OSError:  # a terminal that nobody holds any more
            return False
        self.seen += data
        return bool(data)

    def expect(self, text, patience=PATIENCE):
        """Waits for text in what was not looked at yet; returns what came before it."""
        wanted, end = text.encode(), time.monotonic() + patience
        while wanted not in self.seen[self.mark:]:
            left = end - time.monotonic()
            if left <= 0 or self._read(left) is False:
                self.test.fail(f"no {text!r} came; it wrote:\n{self.text()[-3000:]}")
        start = self.seen.index(wanted, self.mark)
        before, self.mark = self.seen[self.mark:start], start + len(wanted)
        return before.decode(errors="replace")

    def type(self, text):
        os.write(self.input, text.encode())

    def finish(self):
        """Reads on until the process has ended; returns its exit status."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None or self._read(0):
            if time.monotonic() > end:
                self.test.fail(f"it does not end; it wrote:\n{self.text()[-3000:]}")
            if self._read(0.05) is False:
                self.process.wait(timeout=PATIENCE)
                break
        return self.process.returncode

    def text(self):
        return self.seen.decode(errors="replace")

    def terminal_mode(self):
        return termios.tcgetattr(self.slave)


# ---- small kernels -----------------------------------------------------------------------------------------

LOAD_ADDRESS = 0x100000


def segment(offset, address, file_size, memory_size=None, kind=1):
    """A program header (ELF-32 specification, 2-2); kind 1 is PT_LOAD."""
    return struct.pack("<8I", kind, offset, address, address, file_size,
                       file_size if memory_size is None else memory_size, 7, 1)


def elf(code=b"", entry=LOAD_ADDRESS, segments=None, **changes):
    """An ELF32 file: by default `code` alone, at 1 MiB. `changes` are fields of the ELF header."""
    fields = {"magic": b"\x7fELF", "bits": 1, "endian": 1, "version": 1, "type": 2, "machine": 3, "entry": entry,
              "phoff": 52, "phentsize": 32, "phnum": 1 if segments is None else len(segments), **changes}
    header = struct.pack("<4sBBBB8xHHIIIIIHHHHHH", fields["magic"], fields["bits"], fields["endian"],
                         fields["version"], 0, fields["type"], fields["machine"], fields["version"],
                         fields["entry"], fields["phoff"], 0, 0, 52, fields["phentsize"], fields["phnum"], 40, 0, 0)
    if segments is None:
        segments = [segment(84, LOAD_ADDRESS, len(code))]
    return header + b"".join(segments) + code


def write_port(port, value):
    """mov $port, %edx; mov $value, %al; out %al, (%dx)"""
    return b"\xba" + struct.pack("<I", port) + b"\xb0" + bytes([value]) + b"\xee"


def print_bytes(text):
    """Prints on the debug port 0xE9."""
    return b"".join(write_port(0xE9, byte) for byte in text.encode())


DEBUG_EXIT = 0xF4  # the port of isa-debug-exit
# Waits until the UART has a byte, which goes to %al.
WAIT_FOR_KEY = (write_port(0x3FC, 3) +  # modem control: DTR and RTS, somebody listens
                b"\xba\xfd\x03\x00\x00"  # 1: mov $0x3fd, %edx
                b"\xec\xa8\x01\x74\xf6"  #    in (%dx), %al; test $1, %al; jz 1b
                b"\xba\xf8\x03\x00\x00\xec")  # mov $0x3f8, %edx; in (%dx), %al
SPIN = b"\xeb\xfe"  # jmp .
HALT = b"\xfa\xf4"  # cli; hlt
# lidt with a limit of 0: xor %eax,%eax; push %eax; push %eax; lidt (%esp); then the stack as it was
NO_IDT = b"\xbc" + struct.pack("<I", 0x9000) + b"\x31\xc0\x50\x50\x0f\x01\x1c\x24\x58\x58"
TRIPLE_FAULT = NO_IDT + b"\x0f\x0b"  # ud2


def skip_all(reason):
    print(f"SKIP {reason}")
    sys.exit(77)


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    unittest.main(verbosity=2)
