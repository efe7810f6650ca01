# SPDX-License-Identifier: MIT
"""A worker takes from a group that users share: what its user says concerns another user's holder.

READYD names the daemon. Run as root: connections of other users are made.
"""

import contextlib
import os
import signal
import socket
import unittest

from daemon import Daemon
from parks import Fd, connect, holders, token, until
from readyd_client import Attach, Message, Type, acknowledge, drop, park
from test_keeper import is_gone

MAKER, WORKER = 12345, 12346
CONFIG = f"""
trusted: [{MAKER}, {WORKER}]
shared-groups:
  web: {{park: [{MAKER}], take: [{WORKER}]}}
"""


@contextlib.contextmanager
def as_user(uid):
    """What connects in here is this user's, to the daemon."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@unittest.skipIf(os.getuid() != 0, "only root can connect as others")
class Sharing(unittest.TestCase):
    def setUp(self):
        self.d = Daemon(CONFIG)
        self.addCleanup(self.d.__exit__)
        self.assertIn("READY=1", self.d.said)
        os.chmod(os.path.dirname(self.d.socket), 0o755)
        os.chmod(self.d.socket, 0o777)

    def client(self, uid):
        with as_user(uid):
            client = connect(self.d)
        self.addCleanup(client.close)
        return client

    def pair(self):
        a, b = socket.socketpair()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        return a, b

    def parked(self, client, **options):
        a, b = self.pair()
        secret = token()
        client.call(park(a, secret, **options)).check()
        a.close()
        return secret, b

    def test_an_acknowledgement_waits_for_the_makers_holder(self):
        """Nobody hears that a park is gone before its maker's holder was told; others go on."""
        maker, worker = self.client(MAKER), self.client(WORKER)
        worker.call(Message(Type.ATTACH, (Attach(1, 1, 3),), b"web")).check()
        self.assertEqual(holders(self.d), [])  # who only takes needs none
        secret, peer = self.parked(maker, group=b"web")
        other, _ = self.parked(maker)
        peer.send(b"x")
        message = worker.handout(0)
        fd = Fd(message.fds[0])
        self.addCleanup(fd.close)
        self.assertEqual(message.records[0].token, secret)
        holder, = until(lambda: holders(self.d), "a holder with its own name")
        os.kill(self.d.process.pid, signal.SIGSTOP)  # the keeper: no other holder is made
        try:
            os.kill(holder, signal.SIGKILL)
            until(lambda: "has gone: another one gets" in self.d.log(), "its end is seen")
            serial, = worker.send(acknowledge(secret))
            self.client(WORKER).sync()
            self.assertIsNone(worker.take(0.2))
            maker.sync()
        finally:
            os.kill(self.d.process.pid, signal.SIGCONT)
        worker.outcome(serial).check()
        until(lambda: is_gone(holder), "the end of the holder")
        peer.send(b"y")
        self.assertEqual(os.read(fd.fd, 10), b"xy")
        maker.call(drop(token=other)).check()


if __name__ == "__main__":
    unittest.main(verbosity=2)
