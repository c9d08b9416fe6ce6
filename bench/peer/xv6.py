"""xv6, built by the reader (docs/xv6.md): how long until its shell, and how long its own tests take.

Here real time counts, as a person at the terminal sees it; the start of the program, and QEMU's firmware, included.
Read next: compare.py.
"""
import os
import select
import subprocess
import time

from machines import Failure

MEMORY_MIB = 512
BOOT_PATIENCE = 120.0
USERTESTS_PATIENCE = 3 * 3600.0
CONTEXT = 4096  # bytes of output that are kept
PROMPT, PASSED = b"$ ", b"ALL TESTS PASSED"


class Xv6:
    """One boot. Disks are used as snapshots: the files stay as they are."""

    def __init__(self, machine, folder):
        kernel, *disks = (os.path.join(folder, name) for name in ("kernel", "xv6.img", "fs.img"))
        for path in (kernel, *disks):
            if not os.path.exists(path):
                raise Failure(f"no {path}: build xv6 as docs/xv6.md says")
        self.seen = b""
        self.began = time.monotonic()
        self.process = machine.start(machine.boot(kernel, MEMORY_MIB, disks), stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def wait_for(self, text, patience):
        end = time.monotonic() + patience
        output = self.process.stdout.fileno()
        while text not in self.seen:
            if not select.select([output], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failure(f"no {text.decode()!r} within {patience:.0f} s")
            data = os.read(output, 65536)
            if not data:
                said = self.seen.decode(errors="replace").strip().split("\n")[-1]
                raise Failure(f"it ended before {text.decode()!r}: {said}")
            self.seen = self.seen[-CONTEXT:] + data
        self.seen = b""
        return time.monotonic()


def boot_seconds(machine, folder):
    with Xv6(machine, folder) as xv6:
        return xv6.wait_for(PROMPT, BOOT_PATIENCE) - xv6.began


def usertests_seconds(machine, folder):
    with Xv6(machine, folder) as xv6:
        xv6.wait_for(PROMPT, BOOT_PATIENCE)
        began = time.monotonic()
        os.write(xv6.process.stdin.fileno(), b"usertests\n")
        return xv6.wait_for(PASSED, USERTESTS_PATIENCE) - began
