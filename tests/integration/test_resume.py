#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs that use libreadyd, while the daemon is killed and started again (tests/tools/resume.c).

READYD names the daemon; READYD_BUILD the build folder with tests/resume. READYD_KILLS and
READYD_SEED, if set, say how often the soak test kills and what its random numbers begin with.
"""

import os
import random
import select
import signal
import subprocess
import time
import unittest

from daemon import READYD, SOON, Daemon

PROGRAM = os.path.join(os.environ.get("READYD_BUILD", "build"), "tests", "resume")
CROWD = os.path.join(os.environ.get("READYD_BUILD", "build"), "tests", "crowd")
KILLS = int(os.environ.get("READYD_KILLS", "300"))
SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
PATIENCE = 90  # s: what should take few, on a machine that is busy


class Restarted(Daemon):
    """A daemon that can be killed, and another one started on its socket; or only its loop."""

    def __init__(self, loop_only=False, **options):
        super().__init__(**options)
        self.loop_only = loop_only
        self.killed = None

    def kill(self):
        if self.loop_only:
            self.killed = self.loop()
            os.kill(self.killed, signal.SIGKILL)
            return
        self.process.kill()
        self.process.wait()

    def start_again(self):
        if self.loop_only:  # the keeper does
            end = time.monotonic() + SOON
            while self.loop() in (self.process.pid, self.killed):
                assert time.monotonic() < end, self.log()
                time.sleep(0.001)
            return
        ready, writer = os.pipe()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [READYD, "--config", self.config, "--socket", self.socket, "--ready-fd",
                 str(writer)], stderr=log, pass_fds=[writer])
        os.close(writer)
        with os.fdopen(ready) as lines:
            said = lines.read()
        assert "READY=1" in said, f"{said}{self.log()}"


class Program:
    """One run of a program; killed at the end of a `with` if it still runs."""

    def __init__(self, daemon, name, *arguments):
        command = [CROWD] if name == "crowd" else [PROGRAM, name]
        self.process = subprocess.Popen(
            [*command, daemon.socket, *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert readable, "the program says nothing"
        said = self.process.stdout.readline().strip()
        assert said, self.process.communicate(timeout=PATIENCE)[1]
        return said

    def tell(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self):
        """Its last words, if it ended well."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0 and not err, \
            f"exit status {self.process.returncode}: {err}"
        return out.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class Resume(unittest.TestCase):
    def test_s111_a_thousand_waits_survive_a_kill(self):
        for write_first in (False, True):
            with Restarted(level=None) as daemon, Program(daemon, "many", "1000") as program:
                self.assertEqual(program.line(), "ready")
                daemon.kill()
                if write_first:  # what comes in while nobody looks is the level at WATCH
                    program.tell("go")
                    time.sleep(0.05)
                    daemon.start_again()
                else:
                    daemon.start_again()
                    program.tell("go")
                said = program.end()
                self.assertRegex(said, r"^1000 ready, \d+ spurious, 1 resumes$")
                print(said)

    def test_s111_many_kills_in_a_row(self):
        with Restarted(level=None) as daemon, Program(daemon, "many", "1000") as program:
            self.assertEqual(program.line(), "ready")
            program.tell("go")
            for _ in range(5):
                daemon.kill()
                daemon.start_again()
            self.assertRegex(program.end(), r"^1000 ready, ")

    def test_s113_counters_through_pairs_while_the_daemon_is_killed(self):
        self.soak(["wait", "stream"] * 4)

    def test_s113_the_same_while_the_keeper_replaces_the_loop(self):
        self.soak(["wait", "stream"] * 4, loop_only=True)

    def test_s113_threads_in_pollwait_while_the_daemon_is_killed(self):
        self.soak(["threads"])

    def soak(self, modes, loop_only=False):
        print("READYD_SEED=%d" % SEED)
        numbers = random.Random(SEED)
        with Restarted(level=None, loop_only=loop_only) as daemon:
            programs = [Program(daemon, "soak", mode) for mode in modes]
            try:
                for program in programs:
                    self.assertEqual(program.line(), "ready")
                for _ in range(KILLS):
                    time.sleep(numbers.random() * 0.05)
                    daemon.kill()
                    if numbers.random() < 0.3:
                        time.sleep(numbers.random() * 0.02)
                    daemon.start_again()
                time.sleep(0.1)
                ends = [program.end().split() for program in programs]  # closes their stdin
                counts, resumes = [int(e[0]) for e in ends], [int(e[4]) for e in ends]
                print(f"summary: {KILLS} kills of the {'loop' if loop_only else 'daemon'}, "
                      f"{len(ends)} programs by {', '.join(sorted(set(modes)))}: no error, "
                      f"{sum(counts)} numbers in order, {sum(resumes)} resumes")
                self.assertGreater(min(counts), 0)
                self.assertGreater(min(resumes), KILLS // 4)
                self.wait_for_connections(daemon, 0)
            finally:
                for program in programs:
                    program.__exit__()

    def wait_for_connections(self, daemon, n):
        """The loop's sockets are the listener, the channel to the keeper, and one a client."""
        end = time.monotonic() + SOON
        while True:
            sockets = sum(1 for fd in os.listdir(f"/proc/{daemon.loop()}/fd")
                          if self.is_socket(daemon, fd))
            if sockets <= n + 2:
                return
            self.assertLess(time.monotonic(), end, "connections are left in the daemon")
            time.sleep(0.01)

    @staticmethod
    def is_socket(daemon, fd):
        try:
            return os.readlink(f"/proc/{daemon.loop()}/fd/{fd}").startswith("socket:")
        except FileNotFoundError:
            return False

    def test_a_thousand_clients_come_back_at_once(self):
        """All are back, every watch has its event, and one that works meanwhile is not starved."""
        with Restarted(level=None, loop_only=True) as daemon, \
                Program(daemon, "crowd", "1000", "3") as program:
            self.assertEqual(program.line(), "ready")
            for kills in (1, 3):
                daemon.kill()
                daemon.start_again()
                program.tell("killed")
                for _ in range(kills - 1):  # while they come back
                    time.sleep(0.02)
                    daemon.kill()
                    daemon.start_again()
                said = program.line()
                print(said)
                self.assertRegex(said, r"^1000 back, 3000 events, [1-9]\d* wakes, longest \d+ ms$")
                self.assertLess(int(said.split()[7]), 30000)
            self.assertEqual(program.end(), "")

    def test_s114_deadlines_and_timers_across_a_death(self):
        with Restarted(level=None) as daemon, Program(daemon, "times") as program:
            self.assertEqual(program.line(), "ready")
            for _ in range(4):
                time.sleep(0.3)
                daemon.kill()
                time.sleep(0.1)
                daemon.start_again()
            said = program.end()
            self.assertRegex(said, r"^20 timeouts, 20 shots, \d+ ticks, latest \d+ ms, 4 resumes$")
            print(said)
            latest = int(said.split("latest ")[1].split()[0])
            self.assertLess(latest, 1500)

    def test_a_private_daemon_is_replaced(self):
        done = subprocess.run([PROGRAM, "private"], capture_output=True, text=True,
                              env=dict(os.environ, READYD_DAEMON=READYD), timeout=PATIENCE,
                              check=False)
        self.assertEqual(done.stdout, "another, 3 resumes\n", done.stderr)

    def test_s120_no_daemon_for_a_while(self):
        with Restarted(level=None) as daemon, Program(daemon, "away") as program:
            self.assertEqual(program.line(), "ready")
            daemon.kill()
            os.unlink(daemon.socket)
            program.tell("gone")
            self.assertEqual(program.line(), "resuming")
            time.sleep(0.3)
            daemon.start_again()
            self.assertEqual(program.end(), "back, 1 resumes")


if __name__ == "__main__":
    unittest.main(verbosity=2)
