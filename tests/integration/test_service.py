#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a service manager gives to readyd and hears from it; the test is the manager."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import READYD, Client, children

PATIENCE = 60


class Service:
    """readyd as a manager starts it: a notify socket, and sockets from fd 3 up; `passed` are pairs
    of a name and a socket."""

    def __init__(self, *arguments, passed=(), environment=None, config=""):
        self.folder = tempfile.mkdtemp(prefix="readyd-test-")
        self.path = os.path.join(self.folder, "socket")
        self.config = os.path.join(self.folder, "readyd.yaml")
        self.write_config(config)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.folder, "notify"))
        self.notify.settimeout(PATIENCE)
        self.arguments, self.passed = arguments, list(passed)
        self.environment = dict(os.environ, NOTIFY_SOCKET=self.notify.getsockname(),
                                **(environment or {}))
        self.process = None

    def write_config(self, text):
        with open(self.config, "w", encoding="ascii") as f:
            f.write(text)

    def listen(self, kind=socket.SOCK_SEQPACKET, backlog=16):
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(self.path)
        if backlog:
            listener.listen(backlog)
        return listener

    def start(self):
        fds = [s.fileno() for _, s in self.passed]
        environment = dict(self.environment)
        shell = "exec \"$@\""
        if fds:
            environment["LISTEN_FDS"] = str(len(fds))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.passed)
            shell = "LISTEN_PID=$$ exec \"$@\""

        def place():
            copies = [os.dup(fd) for fd in fds]
            for n, fd in enumerate(copies):
                os.dup2(fd, 100 + n)
            for n in range(len(fds)):
                os.dup2(100 + n, 3 + n)

        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", READYD, "--config", self.config, *self.arguments],
            env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=place,
            pass_fds=range(3, 3 + len(fds)))

    def hear(self):
        """One message, as a dict."""
        text = self.notify.recv(4096).decode()
        return dict(line.partition("=")[::2] for line in text.splitlines())

    def hear_until(self, key):
        while True:
            message = self.hear()
            if key in message:
                return message

    def end(self):
        """(exit status, log)"""
        self.process.send_signal(signal.SIGTERM)
        log = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
            self.process.stderr.close()
        self.notify.close()
        shutil.rmtree(self.folder)


def connected(path):
    """A connection, as soon as the daemon listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(path)
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.01)


class Notify(unittest.TestCase):
    def life(self, *arguments):
        with Service(*arguments) as s:
            s.arguments += ("--socket", s.path)
            s.start()
            said = s.hear()
            self.assertEqual(said["READY"], "1")
            with Client(s.path):
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                s.process.send_signal(signal.SIGHUP)
                self.assertGreaterEqual(int(s.hear_until("RELOADING")["MONOTONIC_USEC"]), before)
                said = s.hear()
                self.assertEqual(said["READY"], "1")
                s.write_config("nonsense: 1\n")
                s.process.send_signal(signal.SIGHUP)
                s.hear_until("RELOADING")
                self.assertEqual(s.hear()["READY"], "1")
                s.process.send_signal(signal.SIGTERM)
                self.assertEqual(s.hear_until("STOPPING")["STATUS"], "ending")
            self.assertEqual(s.process.wait(PATIENCE), 0)
            return said["STATUS"]

    def test_ready_reload_stop(self):
        self.assertEqual(self.life(), "1 connection, 0 watches, 0 waiting, 0 timers")

    def test_without_a_keeper(self):
        self.assertEqual(self.life("--no-keeper"), "serving")

    def test_a_new_loop_is_told(self):
        with Service() as s:
            s.arguments += ("--socket", s.path)
            s.start()
            s.hear_until("READY")
            os.kill(children(s.process.pid)[0], signal.SIGKILL)
            self.assertIn("connections", s.hear()["STATUS"])

    def test_signs_of_life_as_long_as_a_loop_serves(self):
        with Service(environment={"WATCHDOG_USEC": "200000"}) as s:
            s.arguments += ("--socket", s.path)
            begin = time.monotonic()
            s.start()
            s.hear_until("READY")
            signs = 0
            while signs < 8:
                s.hear_until("WATCHDOG")
                signs += 1
            # twice in the time that is allowed, and not more often
            self.assertLessEqual(signs, (time.monotonic() - begin) / 0.1 + 2)
            self.assertEqual(s.end()[0], 0)

    def test_no_keeper_says_that_it_gives_no_signs(self):
        with Service("--no-keeper", environment={"WATCHDOG_USEC": "200000"}) as s:
            s.arguments += ("--socket", s.path)
            s.start()
            s.hear_until("READY")
            self.assertIn("without --no-keeper", s.end()[1])

    def test_a_private_daemon_tells_nobody(self):
        """Whoever starts one may be a service itself; its manager must not hear of us."""
        with Service() as s:
            ready, writer = os.pipe()
            s.process = subprocess.Popen(
                [READYD, "--private", "--ready-fd", str(writer)], env=s.environment, text=True,
                stderr=subprocess.PIPE, pass_fds=[writer])
            os.close(writer)
            with os.fdopen(ready) as lines:
                self.assertIn("READY=1", lines.read())
            self.assertEqual(s.end()[0], 0)
            s.notify.setblocking(False)
            with self.assertRaises(BlockingIOError):
                s.notify.recv(1)

    def test_a_manager_that_is_gone_is_said_once(self):
        with Service(environment={"WATCHDOG_USEC": "20000"}) as s:
            s.arguments += ("--socket", s.path)
            s.environment["NOTIFY_SOCKET"] = os.path.join(s.folder, "nobody")
            s.start()
            with connected(s.path):
                time.sleep(0.3)
            status, log = s.end()
            self.assertEqual(status, 0)
            self.assertIn("the service manager could not be told", log)
            self.assertLessEqual(log.count("could not be told"), 6)


class Users(unittest.TestCase):
    def test_k087_a_namespace_that_hides_users(self):
        """What PrivateUsers= does: all peers would have one uid. Trying again does not help."""
        apart = ["unshare", "--user", "--map-root-user"]
        if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("no user namespace can be made here")
        with Service() as s:
            done = subprocess.run([*apart, READYD, "--socket", s.path, "--config", s.config],
                                  env=s.environment, capture_output=True, text=True,
                                  timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, 78)
        self.assertIn("start readyd outside of it (no PrivateUsers=), or --private", done.stderr)


class Activation(unittest.TestCase):
    def test_what_came_before_the_daemon_is_answered(self):
        for more in ((), ("--no-keeper",)):
            with Service(*more) as s, s.listen() as listener:
                s.passed = [("socket", listener)]
                with Client(s.path, hello=False) as early:
                    early.socket.settimeout(PATIENCE)
                    s.start()
                    early.greet()
                    early.sync()
                status, log = s.end()
                self.assertEqual(status, 0)
                self.assertIn(f"serves {s.path}", log)
                self.assertTrue(os.path.exists(s.path), "the path is the manager's")

    def test_the_zone_is_free(self):
        """The socket came as fd 3, where received fds are to land."""
        with Service() as s, s.listen() as listener:
            s.passed = [("socket", listener)]
            s.start()
            with Client(s.path) as c:
                c.sync()
                for pid in children(s.process.pid):
                    low = [int(fd) for fd in os.listdir(f"/proc/{pid}/fd") if 3 <= int(fd) < 256]
                    self.assertEqual(low, [])

    def test_another_path_in_the_configuration_is_told(self):
        with Service(config="socket: /tmp/readyd-elsewhere\n") as s, s.listen() as listener:
            s.passed = [("socket", listener)]
            s.start()
            with Client(s.path):
                pass
            self.assertIn("so /tmp/readyd-elsewhere is not used", s.end()[1])
            self.assertFalse(os.path.exists("/tmp/readyd-elsewhere"))

    def refused(self, s, sentence):
        s.start()
        log = s.process.communicate(timeout=PATIENCE)[1]
        self.assertIn(sentence, log)
        self.assertEqual(s.process.returncode, 78)

    def test_another_kind_of_socket(self):
        for kind, backlog in ((socket.SOCK_STREAM, 1), (socket.SOCK_SEQPACKET, 0)):
            with Service() as s, s.listen(kind, backlog) as listener:
                s.passed = [("socket", listener)]
                self.refused(s, "is no listening Unix socket of type SOCK_SEQPACKET")

    def test_another_name(self):
        with Service() as s, s.listen() as listener:
            s.passed = [("readyd.socket", listener)]
            self.refused(s, 'a descriptor named "readyd.socket", and readyd knows only "socket"')

    def test_two_sockets(self):
        with Service() as s, s.listen() as listener:
            s.passed = [("socket", listener), ("socket", listener)]
            self.refused(s, 'two sockets named "socket"')


if __name__ == "__main__":
    unittest.main(verbosity=2)
