# SPDX-License-Identifier: MIT
"""Holders that come late, and those that nobody needs any more.

READYD names the daemon; READYD_SEED, if set, says what the random numbers begin with.
"""

import os
import random
import signal
import socket
import time
import unittest

from daemon import Daemon
from parks import Fd, connect, fds_of, holders, token, until
from readyd_client import ConnectionEnded, Error, acknowledge, claim, drop, park, take
from test_keeper import is_gone

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
IDLE = 10  # s that a holder stays with nothing to keep


class Holders(unittest.TestCase):
    d = None

    def other(self, config=""):
        """A daemon, from now on the one of this test."""
        self.d = Daemon(config)
        self.addCleanup(self.d.__exit__)
        return self.d

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

    def test_who_is_gone_before_its_holder_was_told(self):
        """Its connection ends, though what it was to be told is kept back: the loop does not spin."""
        self.other()
        other = self.again()
        loop, keeper = other.welcome.pid, self.d.process.pid
        client = self.again()
        a, _ = self.pair()
        os.kill(keeper, signal.SIGSTOP)  # so there is no holder yet
        try:
            os.kill(loop, signal.SIGSTOP)
            client.send(park(a, token()))  # the loop finds this and the end at once
            client.close()
            os.kill(loop, signal.SIGCONT)
            other.sync()
        finally:
            os.kill(keeper, signal.SIGCONT)
        until(lambda: other.status()[0].connections == 1, "the end of the connection")

    def test_a_keeper_that_was_asked_twice(self):
        """The loop has the holder that the keeper thinks it has: so the next loop finds the park."""
        keeper = self.other().process.pid
        client = self.again()
        a, b = self.pair()
        secret = token()
        os.kill(keeper, signal.SIGSTOP)
        try:
            serial, = client.send(park(a, secret))
            time.sleep(2.5)  # the loop asks again after 2 s
        finally:
            os.kill(keeper, signal.SIGCONT)
        client.outcome(serial).check()
        a.close()
        self.holder()
        client.sync()
        self.kill_loop()
        again = self.again(handle=client.handle)
        again.call(claim(secret)).check()
        self.takes(again, secret, b)

    def test_status_counts_them(self):
        for config in ("", "backend: poll\n"):
            with self.subTest(config):
                self.check_counts(config)

    def check_counts(self, config):
        self.other(config)
        client = self.again()
        self.assertEqual(self.counts(client), (0, 0, 0, 0, 0))
        _, peer = self.parked(client)
        self.parked(client)
        secret, _ = self.parked(client)
        self.assertEqual(self.counts(client), (3, 0, 0, 1, 0))
        message = client.handout(client.call(take(token=secret)).check().answer.serial)
        self.assertEqual(self.counts(client), (3, 1, 0, 1, 0))
        peer.send(b"x")
        until(lambda: self.counts(client) == (3, 1, 1, 1, 0), "one that is ready")
        os.close(message.fds[0])
        client.call(acknowledge(secret)).check()
        until(lambda: self.counts(client) == (2, 0, 1, 1, 0), "one that was taken")
        self.assertEqual(client.status()[0].fds, len(fds_of(self.d.loop())))

    @staticmethod
    def counts(client):
        status = client.status()[0]
        return (status.parks, status.parks_handed, status.parks_ready, status.holders,
                status.holders_left)

    # ---- Holders that nobody needs ----

    def parked(self, client):
        a, b = self.pair()
        secret = token()
        client.call(park(a, secret)).check()
        a.close()
        return secret, b

    def holder(self):
        """The only holder; a park may be answered while it still has its keeper's name."""
        return until(lambda: len(pids := holders(self.d)) == 1 and pids[0], "one holder")

    def switches(self):
        """How often the loop has slept."""
        with open(f"/proc/{self.d.loop()}/status", encoding="ascii") as f:
            return [line for line in f if line.startswith("voluntary_ctxt_switches")]

    @staticmethod
    def sets(pid):
        """The numbers under which it has an epoll."""
        return [fd for fd, what in fds_of(pid).items() if what == "anon_inode:[eventpoll]"]

    def test_set_of_a_dead_loop(self):
        """Its last copy is the holder's, which closes it for the next loop."""
        self.other()
        client = self.again()
        secret, peer = self.parked(client)
        holder = self.holder()
        for _ in range(3):
            first = until(lambda: self.sets(holder), "a set")
            self.assertEqual(len(first), 1)
            self.kill_loop()
            self.again().sync()
            until(lambda: len(self.sets(holder)) == 1 and self.sets(holder) != first,
                  "the set of the next loop alone")
        self.assertEqual(holders(self.d), [holder])
        client.close()
        client = self.again(handle=client.handle)
        client.call(claim(secret)).check()
        self.takes(client, secret, peer)

    def test_answered_is_recorded_with_the_next_one(self):
        """That a PARK was answered goes along with what the holder is told next."""
        self.other()
        maker = self.again()
        secret, peer = self.parked(maker)
        self.parked(maker)  # its answer comes after its own record, and that is it
        self.kill_loop()
        self.takes(self.again(), secret, peer)

    def test_answered_is_recorded_before_a_claim_is_answered(self):
        self.other()
        for _ in range(10):
            maker = self.again()
            secret, peer = self.parked(maker)
            maker.call(claim(secret)).check()
            self.kill_loop()
            self.takes(self.again(), secret, peer)

    def test_answered_is_recorded_by_itself(self):
        """After some ms, when nothing else is said. Before, its maker has to claim it."""
        self.other()
        maker, pause, error = self.again(), 0.002, Error.BUSY
        while error == Error.BUSY:
            secret, peer = self.parked(maker)
            time.sleep(pause)
            self.kill_loop()
            client = self.again()
            error = client.call(take(token=secret)).error
            if error == Error.BUSY:
                maker.close()
                maker = self.again(handle=maker.handle)
                maker.call(claim(secret)).check()
                self.takes(client, secret, peer)
            pause *= 2
            self.assertLess(pause, 60, "never recorded")
        self.assertEqual(error, Error.OK)

    def test_idle_one_ends(self):
        # meanwhile, one that has something to keep, and one that another loop has found idle
        _ = self.other(), self.parked(self.again())
        busy, busy_holder = self.d, self.holder()
        self.other()
        client = self.again()
        client.call(drop(token=self.parked(client)[0])).check()
        found = self.holder()
        self.kill_loop()
        self.again().sync()
        self.other()
        fds, keeper_fds = len(fds_of(self.d.loop())), len(fds_of(self.d.process.pid))
        client = self.again()
        secret, _ = self.parked(client)
        holder = self.holder()
        start = time.monotonic()
        client.call(drop(token=secret)).check()
        until(lambda: is_gone(holder), "its end")
        self.assertGreaterEqual(time.monotonic() - start, IDLE - 0.1)
        self.assertNotIn("a holder of uid", self.d.log())  # nothing to complain of
        until(lambda: len(fds_of(self.d.process.pid)) == keeper_fds, "as many fds of the keeper")
        # whoever parks again gets another one
        secret, b = self.parked(client)
        self.takes(client, secret, b)
        secret, b = self.parked(client)
        self.holder()
        self.kill_loop()
        client.close()
        client = self.again(handle=client.handle)
        client.call(claim(secret)).check()
        self.takes(client, secret, b)
        until(lambda: is_gone(found), "the end of one that the next loop found idle")
        self.assertEqual(holders(busy), [busy_holder])
        # nothing is left where nothing is parked, and nobody wakes the loop
        until(lambda: not holders(self.d), "its end")
        client.close()
        until(lambda: len(fds_of(self.d.loop())) == fds, f"{fds} fds of the loop")
        until(self.sleeps, "an idle loop")

    def sleeps(self):
        """It is not woken for half a second."""
        before = self.switches()
        time.sleep(0.5)
        return self.switches() == before

    def test_parked_as_it_is_let_go(self):
        """Just before, just after, or meanwhile: the park is with a holder that stays."""
        benches = []
        for _ in range(12):
            self.other()
            client = self.again()
            secret, _ = self.parked(client)
            client.call(drop(token=secret)).check()
            benches.append((time.monotonic(), self.d, client))
        numbers = random.Random(SEED)
        print(f"READYD_SEED={SEED}")
        parks = []
        for start, self.d, client in benches:
            time.sleep(max(start + IDLE - 0.001 + numbers.random() * 0.006 - time.monotonic(), 0))
            parks.append(self.parked(client))
        spared = 0
        for (_, self.d, client), (secret, b) in zip(benches, parks):
            self.holder()
            spared += "needs its holder" in self.d.log()
            self.kill_loop()
            again = self.again(handle=client.handle)
            again.call(claim(secret)).check()
            self.takes(again, secret, b)
        print(f"{spared} of {len(benches)} were let go before")


if __name__ == "__main__":
    unittest.main(verbosity=2)
