# SPDX-License-Identifier: MIT
"""Clients that ask for too much: each did harm once. The daemon lives, and serves the others."""

import os
import resource
import signal
import socket
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import QUOTA, READ, SOON, UNWATCH, Client, Daemon, Ended

LIST = (0x31, 0x32, 0x33, 0x34)
TIMER_STOP, TIMER_SET = 0x19, 0x18
HEADER = struct.Struct("=HHIII")


def request(kind, records, count):
    return HEADER.pack(kind, 0, 1, count, 0) + records


class Frozen:
    """The daemon sees all that is sent in the block in one turn."""

    def __init__(self, daemon):
        self.daemon = daemon

    def __enter__(self):
        self.daemon.process.send_signal(signal.SIGSTOP)
        with open(f"/proc/{self.daemon.process.pid}/stat", encoding="ascii") as f:
            while f.read().rpartition(")")[2].split()[0] != "T":
                f.seek(0)

    def __exit__(self, *_):
        self.daemon.process.send_signal(signal.SIGCONT)


class Hostile(unittest.TestCase):
    def test_any_cursor(self):
        with Daemon() as d, Client(d.socket) as c, Client(d.socket) as other:
            a, b = socket.socketpair()
            with a, b:
                self.assertEqual(c.watch(1, a.fileno()), 0)
                for kind in LIST:
                    for cursor in (0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 2, 2**64 - 1):
                        record = struct.pack("=QQIIII", cursor, 0, 2**32 - 1, 0, 0, 0)
                        c.send(kind, record)
                        self.assertEqual(c.receive()[0], kind + 0x80)
            other.sync()

    def test_failures_of_the_smallest_records_fill_no_more_than_there_is(self):
        """Eight bytes asked, twenty-four answered: 8,000 of them in each of many datagrams."""
        stops = struct.pack("=II", 5, 1) * 1020
        datagram = request(TIMER_STOP, stops, 1020) * 7
        with Daemon() as d, Client(d.socket) as other:
            clients = [Client(d.socket) for _ in range(20)]
            with Frozen(d):
                for c in clients:
                    c.socket.send(datagram)
            for c in clients:
                got = 0
                while got < 7 * 1020:
                    self.assertEqual(c.next_record()[0], 5)
                    got += 1
                c.close()
            other.sync()

    def test_many_that_never_say_hello_end_in_one_turn(self):
        n = 4000
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < n + 6000:
            self.skipTest("needs more fds")
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        with Daemon("hello-timeout: 3s\n") as d, Client(d.socket) as other:
            silent = [Client(d.socket, hello=False) for _ in range(n)]
            other.sync()
            with Frozen(d):
                time.sleep(3.5)
            for c in silent:
                self.assertEqual(c.receive()[0], 0x83)
                c.close()
            other.sync()

    def test_error_is_the_last_message(self):
        with Daemon() as d, Client(d.socket) as c:
            a, b = socket.socketpair()
            with a, b:
                self.assertEqual(c.watch(1, a.fileno(), READ, mode=1), 0)
                with Frozen(d):
                    b.send(b"x")
                    c.socket.send(request(0x7f, b"", 0))
                kinds = []
                with self.assertRaises(Ended):
                    while True:
                        kinds.append(c.receive()[0])
                self.assertEqual(kinds[-1], 0x83)
                self.assertEqual(kinds.count(0x83), 1)

    def test_answers_that_nobody_reads_are_bounded(self):
        stops = struct.pack("=II", 5, 1) * 1020
        datagram = request(TIMER_STOP, stops, 1020) * 7
        with Daemon() as d, Client(d.socket) as other:
            clients = [Client(d.socket) for _ in range(200)]
            for c in clients:
                c.socket.setblocking(False)
                for _ in range(20):
                    try:
                        c.socket.send(datagram)
                    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                        break
            other.sync()
            with open(f"/proc/{d.process.pid}/status", encoding="ascii") as f:
                fields = dict(line.split(":", 1) for line in f)
            if "asan" not in os.environ.get("READYD_BUILD", "") and "ASAN_OPTIONS" not in os.environ:
                self.assertLess(int(fields["RssAnon"].split()[0]), 40 * 1024)
            d.wait_for_log("does not read the answers")
            for c in clients:
                c.close()
            other.sync()

    def test_timers_without_end_leave_the_others_their_turns(self):
        with Daemon() as d, Client(d.socket) as c, Client(d.socket) as other:
            far = 1
            for base in range(0, 100000, 1000):
                timers = [struct.pack("=QqqIIII", i, far, 1, base + i + 1, 1, 0, 0)
                          for i in range(1000)]
                try:
                    c.send(TIMER_SET, *timers)
                except TimeoutError:
                    break
            end = time.monotonic() + SOON
            for _ in range(20):
                other.sync()
            self.assertLess(time.monotonic(), end)

    def test_registrations_left_behind_stay_charged_until_they_are_closed(self):
        """UNWATCH without the fd leaves the kernel's registration to whoever holds the file."""
        with Daemon("limits: {watches: 100}\n") as d, Client(d.socket) as c:
            pairs = [socket.socketpair() for _ in range(100)]
            for i, (a, _) in enumerate(pairs):
                self.assertEqual(c.watch(i + 1, a.fileno()), 0)
                self.assertEqual(c.ask(UNWATCH, struct.pack("=IIII", i + 1, 1, 0, 0))[0], 0)
            self.assertEqual(c.watch(500, pairs[0][1].fileno()), QUOTA)
            for a, _ in pairs:
                a.close()
            end = time.monotonic() + SOON
            while c.watch(500, pairs[0][1].fileno()) != 0:  # counted at most once a second
                self.assertLess(time.monotonic(), end)
                time.sleep(0.1)
            for _, b in pairs:
                b.close()

    @unittest.skipIf(os.geteuid() != 0, "needs root to become another user")
    def test_limits_of_the_primary_group_count(self):
        with Daemon("trusted: [65533]\ngroups: {'4321': {watches: 1}}\n") as d:
            os.chmod(d.folder, 0o755)
            os.chmod(d.socket, 0o666)
            pid = os.fork()
            if pid == 0:
                try:
                    os.setgroups([])
                    os.setgid(4321)
                    os.setuid(65533)
                    with Client(d.socket) as c:
                        a, b = socket.socketpair()
                        first, second = c.watch(1, a.fileno()), c.watch(2, b.fileno())
                    os._exit(0 if (first, second) == (0, 17) else 1)
                except BaseException:
                    os._exit(3)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
