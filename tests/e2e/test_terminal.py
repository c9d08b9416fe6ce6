#!/usr/bin/env python3
"""The terminal is as it was, however the monitor ends: by itself, by the keys, by a signal, killed."""
import os
import signal

import harness


class Terminal(harness.Test):
    def start(self, code, *options):
        """A guest that prints "here" on port 0xE9 and goes on with `code`; raw mode is on by then."""
        kernel = self.put("kernel.elf", harness.elf(harness.print_bytes("here\n") + code))
        talk = harness.Conversation(self, "run", *options, kernel)
        self.before = self.mode_before
        talk.expect("here")
        self.assertNotEqual(talk.terminal_mode(), self.before, "the terminal is not in raw mode")
        return talk

    def setUp(self):
        super().setUp()
        master, slave = os.openpty()  # what any fresh terminal is like
        self.mode_before = harness.termios.tcgetattr(slave)
        os.close(master)
        os.close(slave)

    def assert_restored(self, talk):
        self.wait_until(lambda: talk.terminal_mode() == self.before, "the terminal's mode")

    def test_own_end(self):
        for code, status in ((harness.HALT, 0), (harness.write_port(harness.DEBUG_EXIT, 21), 21 << 1 | 1),
                             (harness.TRIPLE_FAULT, 3)):
            with self.subTest(status=status):
                talk = self.start(harness.WAIT_FOR_KEY + code)
                talk.type("x")
                self.assertEqual(talk.finish(), status)
                self.assert_restored(talk)

    def test_timeout(self):
        talk = self.start(harness.SPIN, "--timeout", "0.5")
        self.assertEqual(talk.finish(), 4)
        self.assert_restored(talk)

    def test_quit_key(self):
        talk = self.start(harness.SPIN)
        talk.type("\x01h")  # Ctrl-A h
        talk.expect("x")
        talk.type("\x01x")  # Ctrl-A x
        self.assertEqual(talk.finish(), 0)
        self.assert_restored(talk)

    def test_ctrl_c_goes_to_the_guest(self):
        end = b"\xba\xf4\x00\x00\x00\xee"  # mov $0xf4, %edx; out %al, (%dx): isa-debug-exit gets the key
        talk = self.start(harness.WAIT_FOR_KEY + end)
        talk.type("\x03")
        self.assertEqual(talk.finish(), 3 << 1 | 1)
        self.assert_restored(talk)

    def test_signals(self):
        """The monitor dies of the signal, as a shell expects of a program, and cleans up before."""
        for code in (harness.SPIN, b"\xfb\xf4" + harness.SPIN):  # running, and waiting: sti; hlt
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                with self.subTest(signal=number.name, code=code.hex()):
                    talk = self.start(code)
                    talk.process.send_signal(number)
                    self.assertEqual(talk.finish(), -number)
                    self.assert_restored(talk)

    def test_kill(self):
        """Nobody can catch SIGKILL: the guardian, another process, puts the terminal back."""
        talk = self.start(harness.SPIN)
        talk.process.kill()
        self.assertEqual(talk.process.wait(), -signal.SIGKILL)
        self.assert_restored(talk)

    def test_stop_and_continue(self):
        talk = self.start(harness.SPIN)
        raw = talk.terminal_mode()
        talk.process.send_signal(signal.SIGSTOP)
        harness.termios.tcsetattr(talk.slave, harness.termios.TCSANOW, self.before)  # as a shell does
        talk.process.send_signal(signal.SIGCONT)
        self.wait_until(lambda: talk.terminal_mode() == raw, "raw mode again")
        talk.type("\x01x")
        self.assertEqual(talk.finish(), 0)
        self.assert_restored(talk)

    def test_terminal_hangs_up(self):
        """The window is closed: the monitor ends, and does not spin on a dead terminal."""
        kernel = self.put("kernel.elf", harness.elf(harness.print_bytes("here\n") + harness.SPIN))
        master, slave = os.openpty()
        process = self.start_ring3("run", kernel, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                   preexec_fn=lambda: harness.fcntl.ioctl(0, harness.termios.TIOCSCTTY, 0))
        os.close(slave)
        seen = b""
        while b"here" not in seen:
            seen += os.read(master, 100)
        os.close(master)
        self.assertEqual(process.wait(timeout=harness.PATIENCE), -signal.SIGHUP)


if __name__ == "__main__":
    harness.main()
