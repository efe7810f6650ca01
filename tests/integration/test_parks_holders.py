# SPDX-License-Identifier: MIT
"""Holders that come late, and those that nobody needs any more. READYD names the daemon."""

import os
import signal
import socket
import time
import unittest

from daemon import Daemon, children, name
from parks import Fd, connect, holders, token, until
from readyd_client import ConnectionEnded, acknowledge, drop, park, take
from test_keeper import is_gone


class Holders(unittest.TestCase):
    def setUp(self):
        self.d = Daemon("trusted: [12345]\n")
        self.addCleanup(self.d.__exit__)
        self.assertIn("READY=1", self.d.said)
        self.keeper = self.d.process.pid

    def again(self, **options):
        def one():
            try:
                return connect(self.d, **options)
            except (ConnectionEnded, ConnectionError):
                return None

        client = until(one, "a connection")
        self.addCleanup(client.close)
        return client

    def pair(self):
        a, b = socket.socketpair()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        return a, b

    def kill_loop(self):
        client = self.again()
        os.kill(client.welcome.pid, signal.SIGKILL)
        until(lambda: is_gone(client.welcome.pid), "its end")

    def takes(self, client, secret, peer):
        message = client.handout(client.call(take(token=secret)).check().answer.serial)
        fd = Fd(message.fds[0])
        client.call(acknowledge(secret)).check()
        peer.send(b"x")
        self.assertEqual(os.read(fd.fd, 10), b"x")
        fd.close()

    def test_a_keeper_that_was_asked_twice(self):
        """The loop has the holder that the keeper thinks it has: so the next loop finds the park."""
        client = self.again()
        a, b = self.pair()
        secret = token()
        os.kill(self.keeper, signal.SIGSTOP)
        try:
            serial, = client.send(park(a, secret))
            time.sleep(2.5)  # the loop asks again after 2 s
        finally:
            os.kill(self.keeper, signal.SIGCONT)
        client.outcome(serial).check()
        a.close()
        until(lambda: len(holders(self.d)) == 1, "one holder")
        client.sync()
        self.kill_loop()
        self.takes(self.again(handle=client.handle), secret, b)


if __name__ == "__main__":
    unittest.main(verbosity=2)
