#!/usr/bin/env python3
"""ring3 step on a terminal: line editing, history, Ctrl-C, mistakes that can be corrected, the terminal afterwards.
(From pipes and files: test_step.sh.)"""
import os
import signal

import harness

PROMPT = "(ring3) "


class StepTerminal(harness.Test):
    def setUp(self):
        super().setUp()
        master, slave = os.openpty()  # what any fresh terminal is like
        self.before = harness.termios.tcgetattr(slave)
        os.close(master)
        os.close(slave)
        os.environ["TERM"] = "xterm"

    def start(self, *arguments):
        talk = harness.Conversation(self, "step", *arguments)
        self.prompt(talk)
        return talk

    def prompt(self, talk):
        """Waits for the prompt, and until the line can be edited: what is typed before is the terminal's to interpret.
        Returns what came before."""
        before = talk.expect(PROMPT)
        self.wait_until(lambda: self.is_editing(talk), "the line to be edited")
        return before

    def spin(self):
        return self.start("--clock", "host", self.put("kernel.elf", harness.elf(b"\x90\x90" + harness.SPIN)))

    def enter(self, talk, text):
        """Types a line; returns what came back before the next prompt."""
        talk.type(text + "\n")
        talk.expect("\n")
        return self.prompt(talk)

    def test_history(self):
        talk = self.start(self.guest("tour"))
        self.enter(talk, "until guest_main")
        first = self.enter(talk, "trap")
        second = self.enter(talk, "\x1b[A")  # cursor up: the same again
        self.assertIn("#GP(0)", first)
        self.assertNotEqual(first, second)
        third = self.enter(talk, "")  # an empty line: the same again
        self.assertNotEqual(second, third)
        self.assertIn("no breakpoints", self.enter(talk, "brekk\x7f\x7fak"))  # corrected while it is typed
        talk.type("quit\n")
        self.assertEqual(talk.finish(), 0)
        self.assertEqual(talk.terminal_mode(), self.before)

    def test_mistakes_can_be_corrected(self):
        talk = self.start(self.guest("tour"))
        self.assertIn("no command is called nonsense", self.enter(talk, "nonsense"))
        self.assertIn("=> ", self.enter(talk, "step"))
        talk.type("\x04")  # Ctrl-D
        self.assertEqual(talk.finish(), 0)

    def test_ctrl_c_ends_the_run(self):
        for halted in False, True:
            with self.subTest(halted=halted):
                code = b"\xfb\xf4" + harness.SPIN if halted else harness.SPIN  # sti; hlt: for an interrupt
                # A periodic timer, so that something can still end the halt: mov $0x34, %al; out %al, $0x43
                timer = b"\xb0\x34\xe6\x43\xb0\xff\xe6\x40\xe6\x40"
                kernel = self.put("kernel.elf", harness.elf(timer + harness.print_bytes("here\n") + code))
                talk = self.start("--clock", "host", kernel)
                talk.type("continue\n")
                talk.expect("| here")
                talk.process.send_signal(signal.SIGINT)  # what Ctrl-C sends, where the terminal controls the session
                self.assertIn("interrupted", self.prompt(talk))
                self.assertIn("virtual", self.enter(talk, "regs"))
                talk.type("quit\n")
                self.assertEqual(talk.finish(), 0)

    @staticmethod
    def is_editing(talk):
        return not talk.terminal_mode()[3] & harness.termios.ICANON

    def test_ctrl_c_gives_up_a_line(self):
        talk = self.spin()
        talk.type("nonsense")
        talk.expect("nonsense")
        talk.process.send_signal(signal.SIGINT)  # what Ctrl-C sends, where the terminal controls the session
        self.prompt(talk)
        self.assertIn("=> ", self.enter(talk, "step"))
        talk.type("quit\n")
        self.assertEqual(talk.finish(), 0)

    def test_signals(self):
        """At the prompt and while the guest runs: it ends, and the terminal is as it was."""
        for command in "", "continue\n":
            for signo in signal.SIGTERM, signal.SIGHUP:
                with self.subTest(command=command, signo=signo):
                    talk = self.spin()
                    if command:
                        talk.type(command)
                        self.wait_until(lambda talk=talk: not self.is_editing(talk), "the run")
                    talk.process.send_signal(signo)
                    self.assertEqual(talk.finish(), -signo)
                    self.assertEqual(talk.terminal_mode(), self.before)

    def test_commands_first(self):
        """-x, and then the terminal."""
        talk = self.start("-x", "until guest_main", self.guest("tour"))
        talk.expect("guest_main")
        self.prompt(talk)
        self.assertIn("guest_setup", self.enter(talk, "bt"))
        talk.type("quit\n")
        self.assertEqual(talk.finish(), 0)


harness.main()
