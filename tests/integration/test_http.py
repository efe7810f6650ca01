#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""client-lib/examples/http.c: that it speaks HTTP, in each of its three ways; and that with readyd no
parked connection is lost, whatever dies.

READYD and READYCTL name the programs, READYD_HTTP the server.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
import unittest

from daemon import Daemon, children, readyctl

HTTP = os.environ.get(
    "READYD_HTTP",
    os.path.join(os.environ.get("READYD_BUILD", "build"), "client-lib", "examples", "http"))
PATIENCE = 60  # s: what should take a few ms, on a machine that is busy
MANY = 40
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def runs(pid):
    """Whether it has not ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


class Server:
    """One run of the example; killed at the end of a `with` if it still runs."""

    def __init__(self, daemon, *arguments):
        self.process = subprocess.Popen(
            [HTTP, *arguments], env=dict(os.environ, READYD_SOCKET=daemon.socket),
            stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
        said = self.process.stdout.readline()
        if not said.startswith("port "):
            raise AssertionError(self.process.communicate()[1])
        self.port = int(said.split()[1])

    def workers(self):
        return children(self.process.pid)

    def kill_workers(self):
        """The next ones are there when this returns."""
        killed = self.workers()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(set(self.workers()) - set(killed)) == len(killed), "others in their place")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pids = self.workers() if self.process.poll() is None else []
        for pid in pids + [self.process.pid] * bool(pids):
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def number(self):
        """Which request of its connection it was, and who answered."""
        found = re.fullmatch(r"request (\d+) of this connection, answered by process (\d+)\n",
                             self.body)
        assert found, self.body
        return int(found[1]), int(found[2])


class Connection:
    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self.bytes = b""
        self.asked = 0

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        data = self.socket.recv(65536)
        self.bytes += data
        return bool(data)

    def answer(self, head=False):
        while b"\r\n\r\n" not in self.bytes:
            assert self.fill(), "the connection has ended: " + repr(self.bytes)
        top, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
        length = 0 if head else int(headers["content-length"])
        while len(self.bytes) < length:
            assert self.fill(), "the connection has ended: " + repr(self.bytes)
        body, self.bytes = self.bytes[:length].decode(), self.bytes[length:]
        assert first.startswith("HTTP/1.1 "), first
        return Answer(int(first.split()[1]), headers, body)

    def ask(self):
        self.send(GET)
        return self.answer()

    def ended(self):
        """Waits for the end, which is clean, and comes with nothing before it."""
        return not self.fill()

    def readable(self, seconds):
        return bool(select.select([self.socket], [], [], seconds)[0])

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Bench(unittest.TestCase):
    """One daemon for the tests of a class; each starts servers of its own."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(level=None)
        assert "READY=1" in cls.daemon.said, cls.daemon.log()
        cls.addClassCleanup(cls.daemon.__exit__)

    def server(self, *arguments):
        return self.enterContext(Server(self.daemon, *arguments))

    def connect(self, server):
        return self.enterContext(Connection(server))

    # of Python 3.11 and later
    def enterContext(self, context):
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    def parked(self):
        done = readyctl(self.daemon, "parked", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["parks"]

    def wait_parked(self, n):
        until(lambda: [row["state"] for row in self.parked()] == ["held"] * n, f"{n} are parked")


class Protocol:
    """What all three must do."""

    arguments = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.one = Server(cls.daemon, *cls.arguments)
        cls.addClassCleanup(cls.one.__exit__)

    def setUp(self):
        self.c = self.connect(self.one)

    def test_keep_alive(self):
        self.assertEqual([self.c.ask().number()[0] for _ in range(5)], [1, 2, 3, 4, 5])

    def test_pipelined_requests_are_answered_in_order(self):
        self.c.send(GET * 100 + b"\r\nGET /hello HTTP/1.1\r\nHost: test\r\n\r\n" + GET[:20])
        self.assertEqual([self.c.answer().number()[0] for _ in range(100)], list(range(1, 101)))
        self.assertEqual(self.c.answer().body, "hello\n")
        self.assertFalse(self.c.readable(0.01))
        self.c.send(GET[20:] + GET[:-1])
        self.assertEqual(self.c.answer().number()[0], 102)
        self.c.send(GET[-1:] + GET)
        self.assertEqual([self.c.answer().number()[0] for _ in range(2)], [103, 104])

    def test_a_request_in_single_bytes(self):
        self.c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET:
            self.c.send(bytes([byte]))
        self.assertEqual(self.c.answer().number()[0], 1)

    def test_a_peer_that_reads_late(self):
        self.c.close()
        n = 30000  # the answers are far more than the kernel keeps for a connection
        self.c.socket = socket.socket()
        self.c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.c.socket.settimeout(PATIENCE)
        self.c.socket.connect(("127.0.0.1", self.one.port))
        self.c.send(GET * n)
        self.assertEqual([self.c.answer().number()[0] for _ in range(n)], list(range(1, n + 1)))
        self.assertEqual(self.c.ask().number()[0], n + 1)

    def test_head_and_missing_pages(self):
        self.c.send(b"HEAD /hello HTTP/1.1\r\nHost: test\r\n\r\n"
                    b"GET http://test/hello?x=1 HTTP/1.1\nhost:test\n\n"
                    b"GET /Hello HTTP/1.1\r\nHost: test\r\n\r\n" + GET)
        head = self.c.answer(head=True)
        self.assertEqual((head.status, head.headers["content-length"]), (200, "6"))
        self.assertRegex(head.headers["date"], r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
        self.assertEqual(self.c.answer().body, "hello\n")
        self.assertEqual(self.c.answer().status, 404)
        self.assertEqual(self.c.answer().number()[0], 4)

    def test_close_is_said_and_done(self):
        self.c.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: x, Close\r\n\r\n" + GET)
        self.assertEqual(self.c.answer().headers["connection"], "close")
        with self.assertRaises((ConnectionResetError, AssertionError)):
            self.c.answer()

    def test_http_1_0(self):
        self.c.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(self.c.answer().headers["connection"], "keep-alive")
        self.c.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(self.c.answer().headers["connection"], "close")
        self.assertTrue(self.c.ended())


class Errors:
    """Requests that end the connection: on one server, one after another."""

    arguments = ()

    def test_errors(self):
        server = self.server(*self.arguments)
        host = b" HTTP/1.1\r\nHost: test\r\n"
        for status, request in (
                (400, b"GET /\r\n\r\n"),
                (400, b"GET  / HTTP/1.1\r\nHost: test\r\n\r\n"),
                (400, b"GET / HTTP/1.1 \r\nHost: test\r\n\r\n"),
                (400, b"GET / HTTP/1.1\r\n\r\n"),
                (400, b"GET /" + host + b"Host: test\r\n\r\n"),
                (400, b"GET /" + host + b"A : b\r\n\r\n"),
                (400, b"GET /" + host + b" b\r\n\r\n"),
                (400, b"GET /" + host + b"b\r\n\r\n"),
                (400, b"GET /" + host + b"a: \0\r\n\r\n"),
                (400, b"GET /" + host + b"a: b\rc\r\n\r\n"),
                (400, b"GET a" + host + b"\r\n"),
                (400, b"G\xc3\xa9T /" + host + b"\r\n"),
                (413, b"GET /" + host + b"Content-Length: 5\r\n\r\nhello"),
                (413, b"GET /" + host + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                (414, b"GET /" + b"a" * 70000),
                (431, b"GET /" + host + b"a: b\r\n" * 20000),
                (501, b"POST /" + host + b"\r\n"),
                (501, b"get /" + host + b"\r\n"),
                (505, b"GET / HTTP/2.0\r\nHost: test\r\n\r\n"),
                (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")):
            with self.subTest(request=request[:60]), Connection(server) as c:
                c.send(request)
                answer = c.answer()
                self.assertEqual(answer.status, status)
                self.assertEqual(answer.headers["connection"], "close")
                self.assertTrue(c.ended())
        with Connection(server) as c:
            c.send(b"GET /" + host + b"Content-Length: 0\r\na: " + b"b" * 8000 + b"\r\n\r\n")
            self.assertEqual(c.answer().number()[0], 1)

    def test_idle_connections_are_closed(self):
        server = self.server(*self.arguments, "--idle", "0.2")
        with Connection(server) as silent:
            self.assertTrue(silent.ended())
        with Connection(server) as c:
            self.assertEqual(c.ask().status, 200)
            self.assertTrue(c.ended())

    def test_ends_well(self):
        server = self.server(*self.arguments)
        with Connection(server) as c:
            self.assertEqual(c.ask().status, 200)
            self.assertEqual(server.stop(), (0, ""))


class EpollProtocol(Protocol, Bench):
    arguments = ("--epoll",)


class EpollErrors(Errors, Bench):
    arguments = ("--epoll",)


class PlainProtocol(Protocol, Bench):
    arguments = ("--plain", "--workers", "1")


class PlainErrors(Errors, Bench):
    arguments = ("--plain", "--workers", "1")

    def test_a_silent_connection_holds_a_worker(self):
        server = self.server(*self.arguments)
        with Connection(server) as first, Connection(server) as second:
            self.assertEqual(first.ask().status, 200)
            second.send(GET)
            self.assertFalse(second.readable(0.2))
            first.close()
            self.assertEqual(second.answer().status, 200)


class ReadydProtocol(Protocol, Bench):
    arguments = ("--readyd", "--workers", "2")

    def tearDown(self):
        self.c.close()
        self.wait_parked(0)


class Readyd(Errors, Bench):
    arguments = ("--readyd", "--workers", "2")

    def tearDown(self):
        for row in self.parked():
            readyctl(self.daemon, "drop", str(row["id"]))

    def many(self, server):
        """Connections of which every second one is still silent, all parked."""
        connections = [self.connect(server) for _ in range(MANY)]
        for c in connections[::2]:
            self.assertEqual(c.ask().number()[0], 1)
            c.asked = 1
        self.wait_parked(MANY)
        return connections

    def ask_all(self, connections):
        """Each knows how many requests it has had. Returns who answered."""
        asked = set()
        for c in connections:
            c.send(GET)
        for c in connections:
            number, pid = c.answer().number()
            c.asked += 1
            self.assertEqual(number, c.asked)
            asked.add(pid)
        self.wait_parked(len(connections))
        return asked

    def test_many_connections_and_few_workers(self):
        server = self.server(*self.arguments, "--group", "many")
        connections = self.many(server)
        row = self.parked()[0]
        self.assertEqual((row["group"], row["note"], row["kind"]), ("many", 4, "inet"))
        self.assertTrue(0 < row["remaining"] <= 60)
        self.assertLessEqual(self.ask_all(connections), set(server.workers()))

    def test_workers_are_killed(self):
        server = self.server(*self.arguments)
        connections = self.many(server)
        before = server.workers()
        server.kill_workers()
        after = self.ask_all(connections)
        self.assertFalse(after & set(before))

    def test_the_loop_is_killed(self):
        connections = self.many(self.server(*self.arguments))
        for _ in range(3):
            loop = self.daemon.loop()
            os.kill(loop, signal.SIGKILL)
            until(lambda: self.daemon.loop() not in (loop, self.daemon.process.pid), "a new loop")
            self.ask_all(connections)

    def test_all_are_killed_at_once(self):
        server = self.server(*self.arguments)
        connections = self.many(server)
        loop = self.daemon.loop()
        for pid in [*server.workers(), loop]:
            os.kill(pid, signal.SIGKILL)
        self.ask_all(connections)

    def test_another_instance_goes_on(self):
        with Server(self.daemon, *self.arguments) as first:
            connections = self.many(first)
            self.assertEqual(first.stop(), (0, ""))
        self.assertEqual(len(self.parked()), MANY)
        connections[0].send(GET)
        self.assertFalse(connections[0].readable(0.01))  # nobody is there
        second = self.server(*self.arguments)
        self.assertEqual(connections[0].answer().number()[0], 2)
        self.wait_parked(MANY)
        connections[0].close()
        self.wait_parked(MANY - 1)
        self.assertLessEqual(self.ask_all(connections[1:]), set(second.workers()))

    def test_the_master_is_killed(self):
        with Server(self.daemon, *self.arguments) as first:
            connections = self.many(first)
            workers = first.workers()
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
            until(lambda: not any(runs(pid) for pid in workers), "its workers end")
        second = self.server(*self.arguments)
        self.assertLessEqual(self.ask_all(connections), set(second.workers()))

    def test_half_a_request_is_not_parked(self):
        server = self.server("--readyd", "--workers", "1")
        c = self.connect(server)
        self.assertEqual(c.ask().number()[0], 1)
        self.wait_parked(1)
        c.send(GET[:10])
        self.wait_parked(0)
        c.send(GET[10:])
        self.assertEqual(c.answer().number()[0], 2)
        self.wait_parked(1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
