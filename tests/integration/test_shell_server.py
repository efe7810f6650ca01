#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""client-lib/examples/shell-server.sh: a prefork server made of a shell script, readyctl, and something
that accepts.

READYD and READYCTL name the programs.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import types
import unittest

from daemon import READYCTL
from test_http import GET, PATIENCE, Bench, until

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "client-lib",
                      "examples", "shell-server.sh")
JOBS = 2
MANY = 6


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class ShellServer:
    """One run of the script, in a process group of its own, which is killed at the end of a `with`."""

    def __init__(self, daemon, front, port):
        self.port = port
        self.process = subprocess.Popen(
            ["sh", SCRIPT, "--front", front, str(port), str(JOBS)], start_new_session=True,
            env=dict(os.environ, READYD_SOCKET=daemon.socket, READYCTL=READYCTL),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.communicate()


class Shell(Bench):
    def tearDown(self):
        self.wait_parked(0)

    def connect(self, server):
        """Once its front listens."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return super().connect(server)
            except ConnectionRefusedError:
                assert server.process.poll() is None, server.process.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.01)

    def parked_with_note(self, note):
        """A connection that somebody else has parked into the group."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = self.connect(types.SimpleNamespace(port=listener.getsockname()[1]))
            theirs, _ = listener.accept()
        with theirs:
            done = subprocess.run(
                [READYCTL, "park", "--group", "shell", "--note", note], stdin=theirs,
                env=dict(os.environ, READYD_SOCKET=self.daemon.socket), check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return ours

    def ask_all(self, connections, number, parked=None):
        for c in connections:
            c.send(GET)
        pids = set()
        for c in connections:
            found, pid = c.answer().number()
            self.assertEqual(found, number)
            pids.add(pid)
        self.assertEqual(len(pids), len(connections))  # a process for each
        self.wait_parked(parked or len(connections))

    def serve(self, front, program):
        if not shutil.which(program):
            self.skipTest(f"{program} is not installed")
        port = free_port()
        with ShellServer(self.daemon, front, port) as server:
            connections = [self.connect(server) for _ in range(MANY)]
            self.wait_parked(MANY)
            self.ask_all(connections, 1)
            loop = self.daemon.loop()
            os.kill(loop, signal.SIGKILL)
            until(lambda: self.daemon.loop() not in (loop, self.daemon.process.pid), "a new loop")
            connections[0].send(GET * 3)
            self.assertEqual([connections[0].answer().number()[0] for _ in range(3)], [2, 3, 4])
            self.wait_parked(MANY)
            connections.pop(0).close()
            self.wait_parked(MANY - 1)
            self.assertEqual(server.stop(), 0)
        self.wait_parked(MANY - 1)
        with ShellServer(self.daemon, front, port) as server:
            self.ask_all(connections, 2)
            with self.connect(server) as c:
                c.send(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                answer = c.answer()
                self.assertEqual((answer.status, answer.headers["connection"]), (501, "close"))
                self.assertTrue(c.ended())
            connections.append(self.parked_with_note("x[$(exit 1)]"))
            self.ask_all(connections[-1:], 1, len(connections))
            for c in connections:
                c.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                self.assertEqual(c.answer().headers["connection"], "close")
                self.assertTrue(c.ended())
            self.assertEqual(server.stop(), 0)

    def test_with_socat(self):
        self.serve("socat", "socat")

    def test_with_systemd_socket_activate(self):
        self.serve("systemd", "systemd-socket-activate")


if __name__ == "__main__":
    unittest.main(verbosity=2)
