#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parked connections while the daemon's processes are killed (tests/tools/park.c), and readyctl's
park, take, parked and drop.

READYD and READYCTL name the programs; READYD_BUILD the build folder with tests/park. READYD_KILLS and
READYD_SEED, if set, say how often the soak tests kill and what their random numbers begin with.
"""

import json
import os
import random
import select
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from daemon import READYCTL, SOON, Daemon, children, name, readyctl

PROGRAM = os.path.join(os.environ.get("READYD_BUILD", "build"), "tests", "park")
KILLS = int(os.environ.get("READYD_KILLS", "60"))
SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
PATIENCE = 90  # s: what should take few, on a machine that is busy


class Killed(Daemon):
    """A daemon whose loop and holders are killed, and replaced by its keeper."""

    def holders(self):
        return [pid for pid in children(self.process.pid) if name(pid) == "readyd-holder"]

    def kill_loop(self):
        killed = self.loop()
        os.kill(killed, signal.SIGKILL)
        self.wait(lambda: self.loop() not in (killed, self.process.pid))

    def kill_holder(self):
        """The next one has all its parks when this returns."""
        killed = self.holders()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        self.wait(lambda: not set(killed) & set(self.holders()))
        self.settle()

    def settle(self):
        """Loop and holder have all parks when this returns: an answer waits for what came before."""
        with socket.socket() as probe:
            done = readyctl(self, "park", "--name", "probe", "--fd", str(probe.fileno()),
                            pass_fds=[probe.fileno()])
        assert done.returncode == 0, done.stderr
        done = readyctl(self, "drop", done.stdout.strip())
        assert done.returncode == 0, done.stderr

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.001)


class Program:
    """One run of the program; killed at the end of a `with` if it still runs."""

    def __init__(self, daemon, *arguments):
        self.process = subprocess.Popen(
            [PROGRAM, arguments[0], daemon.socket, *arguments[1:]], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert readable, "the program says nothing"
        said = self.process.stdout.readline().strip()
        assert said, self.process.communicate(timeout=PATIENCE)[1]
        return said

    def end(self, text=None):
        """Its last words, if it ended well."""
        out, err = self.process.communicate(text, timeout=PATIENCE)
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


class Soak(unittest.TestCase):
    def soak(self, kill):
        """Numbers through parked connections while kill(daemon, random numbers) is called."""
        print("READYD_SEED=%d" % SEED)
        numbers = random.Random(SEED)
        with Killed(level=None) as daemon, Program(daemon, "soak", "16", "4") as program:
            self.assertEqual(program.line(), "ready")
            for _ in range(KILLS):
                time.sleep(numbers.random() * 0.05)
                kill(daemon, numbers)
                if program.process.poll() is not None:
                    self.fail(program.process.communicate()[1] + daemon.log()[-4000:])
            time.sleep(0.1)
            said = program.end()
            print(said)
            self.assertGreater(int(said.split()[0]), 16)
            self.assertEqual(json.loads(readyctl(daemon, "parked", "--json").stdout), {"parks": []})
            return int(said.split()[6])

    def test_s113_s115_parks_while_nothing_dies(self):
        self.assertEqual(self.soak(lambda daemon, numbers: None), 0)

    def test_s112_s115_parks_while_the_loop_is_killed(self):
        resumes = self.soak(lambda daemon, numbers: daemon.kill_loop())
        self.assertGreater(resumes, KILLS // 4)

    def test_s118_parks_while_their_holder_is_killed(self):
        self.soak(lambda daemon, numbers: daemon.kill_holder())

    def test_s118_parks_while_loop_and_holder_are_killed_in_turn(self):
        """Not both at once: what a park is in when both die is the fd store, if it is durable."""
        def kill(daemon, numbers):
            if numbers.random() < 0.5:
                daemon.kill_loop()
                daemon.settle()
            else:
                daemon.kill_holder()
        self.soak(kill)

    def test_s107_events_of_many_parks_after_a_death(self):
        with Killed(level=None) as daemon, Program(daemon, "many", "600") as program:
            self.assertEqual(program.line(), "parked")
            daemon.kill_loop()
            self.assertRegex(program.end("go\n"), r"^600 taken, [1-9]\d* resumes$")


class Readyctl(unittest.TestCase):
    """One daemon for all; each test leaves it without parks."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(level=None)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__()

    def tearDown(self):
        self.assertEqual(self.parked(), [])

    def run_ctl(self, *arguments, **options):
        return readyctl(self.daemon, *arguments, **options)

    def parked(self, *arguments):
        done = self.run_ctl("parked", "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["parks"]

    def connection(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname(), SOON)
            theirs, _ = listener.accept()
        self.addCleanup(ours.close)
        return ours, theirs

    def park(self, end, *arguments):
        with end:
            done = self.run_ctl("park", "--fd", str(end.fileno()), *arguments,
                                pass_fds=[end.fileno()])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def refused(self, status, words, *arguments, **options):
        done = self.run_ctl(*arguments, **options)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Areadyctl: .*" + words + r".*\n\Z")

    def test_park_parked_take(self):
        ours, theirs = self.connection()
        peer = "%s:%d" % ours.getsockname()
        local = "%s:%d" % theirs.getsockname()
        number = self.park(theirs, "--name", "conn", "--group", "web", "--note", "GET /",
                           "--deadline", "1h")
        ours.sendall(b"hello\n")
        end = time.monotonic() + PATIENCE
        while self.parked()[0]["ready"] is None:
            self.assertLess(time.monotonic(), end)
        row, = self.parked("--uid", str(os.getuid()))
        self.assertEqual((row["id"], row["name"], row["group"], row["note"], row["kind"]),
                         (int(number), "conn", "web", 5, "inet"))
        self.assertEqual((row["peer"], row["local"], row["ready"], row["state"]),
                         (peer, local, "r", "held"))
        self.assertEqual((row["timed_out"], row["durable"], row["hold_only"]), (False,) * 3)
        self.assertTrue(3500 < row["remaining"] <= 3600)
        self.assertEqual(self.parked("--uid", "4711"), [])
        table = self.run_ctl("parked", "--no-legend").stdout
        self.assertRegex(table, r"(?m)^%s +%d +- +conn +web +\S.* 59min \d+s +%s +inet +r +held +5$"
                         % (number, os.getuid(), peer))
        script = ('read -r line; echo "$line|$READYD_NOTE|$READYD_NAME|$READYD_GROUP|$READYD_PEER|'
                  '$READYD_PARK"; exit 7')
        done = self.run_ctl("take", "--name", "conn", "--group", "web", "--", "sh", "-c", script)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "", ""))
        ours.settimeout(SOON)
        with ours.makefile() as said:
            self.assertEqual(said.read(), f"hello|GET /|conn|web|{peer}|{number}\n")

    def test_take_by_id_passes_on_nothing_else(self):
        ours, theirs = self.connection()
        number = self.park(theirs)
        extra, other = os.pipe()
        with os.fdopen(extra), os.fdopen(other):
            # ls itself has the folder open, as 3
            done = self.run_ctl("take", number, "--", "ls", "/proc/self/fd", pass_fds=[extra])
        self.assertEqual(done.returncode, 0, done.stderr)
        ours.settimeout(SOON)
        with ours.makefile() as said:
            self.assertEqual(said.read().split(), ["0", "1", "2", "3"])

    def test_nothing_is_taken_for_what_cannot_be_run(self):
        _, theirs = self.connection()
        number = self.park(theirs, "--name", "conn")
        self.refused(127, "nothing was taken", "take", number, "no-such-command")
        self.refused(127, "nothing was taken", "take", number, "/no/such")
        self.refused(126, "nothing was taken", "take", number, "/etc/passwd")
        self.refused(2, "usage", "take", number)
        self.refused(2, "no id of a park", "take", "conn", "true")
        self.refused(125, "'web'", "take", "--name", "conn", "--group", "web", "true")
        self.assertEqual(len(self.parked()), 1)
        self.assertEqual(self.run_ctl("take", "--name", "conn", "true").returncode, 0)

    def test_drop(self):
        ours, theirs = self.connection()
        number = self.park(theirs, "--name", "conn")
        self.refused(2, "exclude", "drop", "--name", "conn", number)
        self.refused(2, "which park", "drop")
        done = self.run_ctl("drop", "--name", "conn")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        ours.settimeout(SOON)
        self.assertEqual(ours.recv(1), b"")
        self.refused(1, "'conn'", "drop", "--name", "conn")
        self.refused(1, "park " + number, "drop", number)

    def test_park_is_refused(self):
        _, theirs = self.connection()
        number = self.park(theirs, "--name", "conn")
        with socket.socket() as end:
            fd = str(end.fileno())
            self.refused(1, "in use", "park", "--name", "conn", "--fd", fd,
                         pass_fds=[end.fileno()])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.refused(1, "listening", "park", "--fd", str(listener.fileno()),
                         pass_fds=[listener.fileno()])
        self.refused(2, "not open", "park", "--fd", "77")
        self.refused(2, "--group goes with --name", "drop", "--group", "x")
        self.refused(2, "--on-deadline", "park", "--on-deadline", "hand")
        self.refused(2, "'close' or 'hand'", "park", "--deadline", "1", "--on-deadline", "keep")
        self.refused(2, "span of time", "park", "--deadline", "soon")
        with open("/etc/passwd", "rb") as file:
            self.refused(1, "cannot be polled", "park", stdin=file)
        self.refused(1, "2048", "park", "--note", "x" * 2049, stdin=subprocess.PIPE)
        self.assertEqual(self.run_ctl("drop", number).returncode, 0)

    def test_stdin_is_parked_and_json(self):
        reader, writer = os.pipe()
        with os.fdopen(reader) as end:
            done = self.run_ctl("park", "--json", stdin=end)
        self.assertEqual(done.returncode, 0, done.stderr)
        number = json.loads(done.stdout)["id"]
        with os.fdopen(writer, "w") as end:
            end.write("through the daemon\n")
        with tempfile.NamedTemporaryFile() as copy:
            done = self.run_ctl("take", str(number), "--", "sh", "-c",
                                f"cat >{copy.name}")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(copy.read(), b"through the daemon\n")


if __name__ == "__main__":
    assert READYCTL
    unittest.main(verbosity=2)
