"""A storm of signals while a guest runs."""
import os
import signal
import time

import harness

PASSED = 1  # exit status after the guest wrote 0 to isa-debug-exit
PAUSE = 50e-6  # seconds between two signals: a handler should be done by then
LONGEST = 10  # seconds: where signals come faster than they are handled, the guest may take minutes


def run(test, *arguments, pause=PAUSE):
    """Runs ring3 until the guest has passed its checks, and from its first line on in a storm. Returns what it said, and
    how many signals it was sent."""
    out = test.path("out")
    with open(out, "wb") as file:
        process = test.start_ring3(*arguments, stdout=file)
    test.wait_until(lambda: os.path.getsize(out) > 0 or process.poll() is not None, "the guest's first line")
    n_signals = 0
    storm_end = time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < storm_end:
        process.send_signal(signal.SIGCONT)  # which has a handler, and no other effect
        n_signals += 1
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
    process.wait(harness.PATIENCE)
    test.assertEqual(process.returncode, PASSED)
    return test.get("out").decode(), n_signals
