#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups by readyctl: park --group, take --group with and without --each, groups, parked --group.

READYD and READYCTL name the programs.
"""

import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from daemon import READYCTL, Daemon, children, name, readyctl

PATIENCE = 60.0
# Answers a line with what is known of it, and ends.
ANSWER = 'read -r line; echo "$line|$READYD_NOTE|$READYD_GROUP|$READYD_TIMEOUT"'
PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "client-lib", "ctl", "readyctl.1")


class Group(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon(level=None)
        self.addCleanup(self.daemon.__exit__)

    def ctl(self, *arguments, **options):
        return readyctl(self.daemon, *arguments, **options)

    def rows(self, verb, *arguments):
        done = self.ctl(verb, "--json", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)["parks" if verb == "parked" else verb]

    def park(self, *arguments):
        """Parks one end of a pair; the other end."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        ours.settimeout(PATIENCE)
        with theirs:
            done = self.ctl("park", "--fd", str(theirs.fileno()), *arguments,
                            pass_fds=[theirs.fileno()])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return ours

    def start(self, *arguments, **options):
        """readyctl take, in the background."""
        process = subprocess.Popen(
            [READYCTL, "--socket", self.daemon.socket, "take", *arguments], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.addCleanup(self.finish, process)
        return process

    @staticmethod
    def finish(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def end(self, process, status, number=None):
        """Its last words."""
        if number:
            process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (status, ""), err)
        return err

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)

    def all_of(self, end):
        with end.makefile() as said:
            return said.read()


class Take(Group):
    def test_s121_one_of_a_group(self):
        quiet = self.park("--group", "web", "--note", "quiet")
        loud = self.park("--group", "web", "--note", "loud")
        loud.sendall(b"hello\n")
        taker = self.start("--group", "web", "--", "sh", "-c", ANSWER + "; exit 7")
        self.assertEqual(self.all_of(loud), "hello|loud|web|\n")
        self.assertEqual(self.end(taker, 7), "")
        row, = self.rows("parked", "--group", "web")
        self.assertEqual((row["note"], row["ready"], row["shared"]), (5, None, False))
        self.assertEqual(self.rows("parked", "--group", "mail"), [])
        self.assertFalse(select.select([quiet], [], [], 0)[0])

    def test_it_waits_until_one_is_ready(self):
        taker = self.start("--group", "web", "--", "sh", "-c", ANSWER)
        self.wait(lambda: self.rows("groups"))
        row, = self.rows("groups")
        self.assertEqual([row[key] for key in ("group", "uid", "shared", "parks", "ready", "handed",
                                               "workers", "credit", "capacity", "oldest")],
                         ["web", os.getuid(), False, 0, 0, 0, 1, 1, 1, None])
        end = self.park("--group", "web")
        end.sendall(b"now\n")
        self.assertEqual(self.all_of(end), "now||web|\n")
        self.assertEqual(self.end(taker, 0), "")
        self.wait(lambda: self.rows("groups") == [])

    def test_what_is_ready_and_has_no_worker(self):
        end = self.park("--group", "web")
        end.sendall(b"x\n")
        self.wait(lambda: self.rows("groups")[0]["ready"] == 1)
        row, = self.rows("groups", "--uid", str(os.getuid()))
        self.assertGreaterEqual(row["oldest"], 0)
        self.assertGreater(row["ready_since"], 0)
        self.assertEqual(self.rows("groups", "--uid", "4711"), [])
        self.assertRegex(self.ctl("groups", "--no-legend").stdout,
                         r"\Aweb +%d +1 +1 +0 +0 +0 +0 +\d+\S+\n\Z" % os.getuid())

    def test_as_listen_fds(self):
        end = self.park("--group", "web")
        end.sendall(b"x\n")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "said")
            extra, other = os.pipe()
            # ls itself has the folder open, as 4
            script = (f'echo "$LISTEN_FDS $LISTEN_PID $$" $(ls /proc/self/fd) >{path};'
                      'read -r line <&3; echo y >&3')
            with os.fdopen(extra), os.fdopen(other):
                taker = self.start("--group", "web", "--fd", "--", "sh", "-c", script,
                                   pass_fds=[extra])
                self.assertEqual(self.end(taker, 0), "")
            with open(path, encoding="ascii") as said:
                words = said.read().split()
        self.assertEqual((words[0], words[1]), ("1", words[2]))
        self.assertEqual(words[3:], ["0", "1", "2", "3", "4"])
        self.assertEqual(self.all_of(end), "y\n")

    def test_listen_fds_of_others_are_not_passed_on(self):
        end = self.park("--group", "web")
        end.sendall(b"x\n")
        environment = dict(os.environ, LISTEN_FDS="1", LISTEN_PID="1", LISTEN_FDNAMES="a")
        taker = self.start("--group", "web", "--", "sh", "-c",
                           'read -r line; echo "[$LISTEN_FDS$LISTEN_PID]"', env=environment)
        self.assertEqual(self.all_of(end), "[]\n")
        self.assertEqual(self.end(taker, 0), "")

    def test_deadline_hands_it_out(self):
        late = self.park("--group", "web", "--deadline", "10ms", "--on-deadline", "hand")
        closed = self.park("--group", "web", "--deadline", "10ms", "--on-deadline", "close")
        self.assertEqual(closed.recv(1), b"")
        taker = self.start("--group", "web", "--", "sh", "-c", 'echo "late: $READYD_TIMEOUT"')
        self.assertEqual(self.all_of(late), "late: 1\n")
        self.assertEqual(self.end(taker, 0), "")

    def test_nothing_is_taken_for_what_cannot_be_run(self):
        end = self.park("--group", "web")
        end.sendall(b"x\n")
        for each in ([], ["--each"]):
            taker = self.start("--group", "web", *each, "--", "no-such-command")
            self.assertRegex(self.end(taker, 127), "nothing was taken")
            taker = self.start("--group", "web", *each, "--", "/etc/passwd")
            self.assertRegex(self.end(taker, 126), "nothing was taken")
        self.assertEqual(len(self.rows("parked")), 1)

    def test_usage(self):
        for words, arguments in (
                ("--jobs goes with --each", ["--group", "g", "--jobs", "2", "true"]),
                ("--each goes with --group", ["--each", "--name", "n", "--group", "g", "true"]),
                ("--each goes with --group", ["--each", "1", "true"]),
                ("1 to 1024", ["--group", "g", "--each", "--jobs", "0", "true"]),
                ("1 to 1024", ["--group", "g", "--each", "--jobs", "1025", "true"]),
                ("is no group", ["--group", "", "true"]),
                ("usage: readyctl take", ["--group", "g"])):
            with self.subTest(arguments=arguments):
                self.assertRegex(self.end(self.start(*arguments), 2), words)
        taker = self.start("--group", "a\tb", "true")
        self.assertRegex(self.end(taker, 125), "control character")


class Each(Group):
    def test_s122_one_after_another(self):
        worker = self.start("--group", "web", "--each", "--", "sh", "-c", ANSWER)
        ends = [self.park("--group", "web", "--note", str(i)) for i in range(6)]
        for i, end in enumerate(ends):
            end.sendall(b"line %d\n" % i)
        for i, end in enumerate(ends):
            self.assertEqual(self.all_of(end), f"line {i}|{i}|web|\n")
        self.assertEqual(self.end(worker, 0, signal.SIGTERM), "")
        self.assertEqual(self.rows("parked"), [])

    def test_nothing_else_is_passed_on(self):
        extra, other = os.pipe()
        with os.fdopen(extra), os.fdopen(other):
            worker = self.start("--group", "web", "--each", "--", "sh", "-c",
                                "read -r line; ls /proc/self/fd", pass_fds=[extra])
            end = self.park("--group", "web")
            end.sendall(b"x\n")
            # ls itself has the folder open, as 3
            self.assertEqual(self.all_of(end).split(), ["0", "1", "2", "3"])
            self.assertEqual(self.end(worker, 0, signal.SIGTERM), "")

    def test_jobs_at_once_and_no_more(self):
        worker = self.start("--group", "web", "--each", "--jobs", "2", "--", "sh", "-c",
                            'echo on; read -r line; read -r line; echo off')
        ends = [self.park("--group", "web") for _ in range(4)]
        for end in ends:
            end.sendall(b"a\n")
        for round_ in range(2):
            running, waiting = set(), set(ends)
            while len(running) < 2:
                readable = select.select(waiting, [], [], PATIENCE)[0]
                self.assertTrue(readable)
                running |= set(readable)
                waiting -= running
            self.assertEqual(len(running), 2)
            row, = self.rows("groups")
            self.assertEqual((row["workers"], row["credit"], row["capacity"]), (1, 0, 2))
            self.assertEqual(len(children(worker.pid)), 2)
            self.assertFalse(select.select(waiting, [], [], 0)[0] if waiting else [])
            for end in running:
                end.sendall(b"b\n")
                self.assertEqual(self.all_of(end), "on\noff\n")
            ends = list(waiting)
        self.assertEqual(self.end(worker, 0, signal.SIGINT), "")

    def test_a_signal_ends_it_and_what_runs_is_waited_for(self):
        worker = self.start("--group", "web", "--each", "--", "sh", "-c",
                            'echo on; read -r line; read -r line; echo "$line"')
        first, second = self.park("--group", "web"), self.park("--group", "web")
        first.sendall(b"a\n")
        self.assertEqual(first.recv(3), b"on\n")
        second.sendall(b"a\n")
        worker.send_signal(signal.SIGTERM)
        self.wait(lambda: self.rows("groups")[0]["workers"] == 0)
        self.assertIsNone(worker.poll())
        first.sendall(b"bye\n")
        self.assertEqual(self.all_of(first), "bye\n")
        self.assertEqual(self.end(worker, 0), "")
        self.assertEqual([row["ready"] for row in self.rows("parked")], ["r"])

    def test_a_second_signal_ends_it_at_once(self):
        worker = self.start("--group", "web", "--each", "--", "sh", "-c",
                            'echo on; read -r line; read -r line; echo "$line"')
        end = self.park("--group", "web")
        end.sendall(b"a\n")
        self.assertEqual(end.recv(3), b"on\n")
        worker.send_signal(signal.SIGTERM)
        self.wait(lambda: self.rows("groups") == [])
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(PATIENCE), -signal.SIGTERM)
        end.sendall(b"alone\n")
        self.assertEqual(self.all_of(end), "alone\n")

    def test_bad_ends_are_told_and_counted(self):
        worker = self.start("--group", "web", "--each", "--", "sh", "-c",
                            'read -r x; [ $x = kill ] && kill -9 $$; exit $x')
        for line in (b"0\n", b"3\n", b"kill\n"):
            end = self.park("--group", "web")
            end.sendall(line)
            self.assertEqual(self.all_of(end), "")
        # the last one has been waited for once the worker has room again
        self.wait(lambda: [row["credit"] for row in self.rows("groups")] == [1])
        said = self.end(worker, 0, signal.SIGTERM)
        self.assertRegex(said, r"(?m)^readyctl: park \d+: 'sh' ended with status 3$")
        self.assertRegex(said, r"(?m)^readyctl: park \d+: 'sh' was ended by signal 9 \(Killed\)$")
        self.assertRegex(said, r"(?m)^readyctl: 2 of 3 COMMANDs ended badly$")
        self.assertEqual(len(said.splitlines()), 3)

    def test_a_command_that_goes_is_not_given_another(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "serve")
            with open(path, "w", encoding="ascii") as script:
                script.write("#!/bin/sh\nread -r line\nrm \"$0\"\necho done\n")
            os.chmod(path, 0o755)
            worker = self.start("--group", "web", "--each", "--", path)
            first, second = self.park("--group", "web"), self.park("--group", "web")
            first.sendall(b"a\n")
            self.assertEqual(self.all_of(first), "done\n")
            second.sendall(b"b\n")
            self.assertRegex(self.end(worker, 127), "nothing was taken")
        self.assertEqual(len(self.rows("parked")), 1)

    def test_s125_it_goes_on_with_the_next_daemon(self):
        worker = self.start("--group", "web", "--each", "--jobs", "2", "--", "sh", "-c", ANSWER)
        for i in range(3):
            end = self.park("--group", "web")
            killed = self.daemon.loop()
            os.kill(killed, signal.SIGKILL)
            end.sendall(b"%d\n" % i)
            self.assertEqual(self.all_of(end), f"{i}||web|\n")
        self.assertEqual(self.end(worker, 0, signal.SIGTERM), "")

    def test_s125_a_worker_that_is_killed_loses_only_what_it_serves(self):
        script = 'read -r line; echo "$line $$"; read -r line'
        workers = [self.start("--group", "web", "--each", "--", "sh", "-c", script)]
        self.wait(lambda: self.rows("groups"))
        ends = [self.park("--group", "web") for _ in range(3)]
        for end in ends:
            end.sendall(b"x\n")
        served = select.select(ends, [], [], PATIENCE)[0][0]
        command = int(served.recv(100).split()[1])
        workers[0].kill()
        workers[0].wait(PATIENCE)
        os.kill(command, signal.SIGKILL)
        self.assertEqual(served.recv(1), b"")
        ends.remove(served)
        workers.append(self.start("--group", "web", "--each", "--", "sh", "-c", script))
        for _ in range(2):
            served = select.select(ends, [], [], PATIENCE)[0][0]
            self.assertRegex(served.recv(100), rb"\Ax \d+\n\Z")
            served.sendall(b"y\n")
            self.assertEqual(served.recv(1), b"")
            ends.remove(served)
        self.assertEqual(self.end(workers[1], 0, signal.SIGTERM), "")

    def test_where_no_process_can_be_made_it_waits(self):
        if os.getuid() == 0:
            self.skipTest("root has no limit of processes")
        limits = resource.getrlimit(resource.RLIMIT_NPROC)
        worker = self.start("--group", "web", "--each", "--", "sh", "-c", ANSWER)
        self.wait(lambda: self.rows("groups"))
        resource.prlimit(worker.pid, resource.RLIMIT_NPROC, (1, limits[1]))
        end = self.park("--group", "web")
        end.sendall(b"x\n")
        self.assertIn("trying again", worker.stderr.readline())
        resource.prlimit(worker.pid, resource.RLIMIT_NPROC, limits)
        self.assertEqual(self.all_of(end), "x||web|\n")


@unittest.skipUnless(shutil.which("socat"), "there is no socat")
class Example(Group):
    def test_the_server_of_the_manual(self):
        with open(PAGE, encoding="ascii") as page:
            text = re.search(r"^cat >park.*?(?=^\.Ed)", page.read(), re.M | re.S).group()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        text = text.replace("7000", "%d,bind=127.0.0.1" % port)
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ, READYD_SOCKET=self.daemon.socket,
                               PATH=os.path.dirname(os.path.abspath(READYCTL)) + ":" +
                               os.environ["PATH"])
            server = subprocess.Popen(["sh", "-c", text], cwd=folder, env=environment,
                                      start_new_session=True)
            try:
                self.converse(port)
            finally:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(PATIENCE)
                self.wait(lambda: self.rows("groups") == [] or
                          self.rows("groups")[0]["workers"] == 0)

    def connect(self, port):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), PATIENCE)
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.02)

    def converse(self, port):
        ends = [self.connect(port) for _ in range(6)]
        for end in ends:
            self.addCleanup(end.close)
        self.wait(lambda: sum(row["parks"] for row in self.rows("groups")) == 6)
        for round_ in range(2):
            for i, end in enumerate(ends):
                end.sendall(b"%d %d\n" % (round_, i))
            for i, end in enumerate(ends):
                with end.makefile() as said:
                    self.assertEqual(said.readline(), f"you said: {round_} {i}\n")
        self.wait(lambda: sum(row["parks"] for row in self.rows("groups")) == 6)


if __name__ == "__main__":
    assert READYCTL and name(os.getpid())
    unittest.main(verbosity=2)
