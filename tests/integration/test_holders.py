#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The processes that keep parked fds: killed under load, stuck, stopped, and what others notice.

READYD names the daemon; READYD_SEED, if set, says what the random numbers begin with.
"""

import os
import random
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
import unittest

from daemon import Daemon
from parks import OTHER_UID, PATIENCE, BenchOfDeaths, holders, token, until
from readyd_client import ConnectionEnded, Error, ParkFlag, drop, park, sync
from test_parks_deaths import Steady

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
KILLS = 16
STAYING = 20
LINGER = 300  # s
NOTE = bytes(2048)


class Customer(threading.Thread):
    """Parks, takes back and drops, and looks at each step whether its peer sees what it should."""

    def __init__(self, d, seed):
        super().__init__()
        self.person, self.numbers = Steady(d), random.Random(seed)
        self.over, self.may_lose = threading.Event(), threading.Event()
        self.rounds = self.lost = 0
        self.error = None

    def run(self):
        try:
            while not self.over.is_set():
                self.round()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def round(self):
        secret = token()
        a, b = socket.socketpair()
        with b:
            b.settimeout(PATIENCE)
            with a:
                error = self.person.park(a, secret).error
                assert error == Error.OK, error
            if self.numbers.random() < 0.5:
                time.sleep(self.numbers.random() * 0.01)
            if self.numbers.random() < 0.3:
                self.drop(secret, b)
            else:
                self.take(secret, b)
        self.person.made.remove(secret)

    def drop(self, secret, peer):
        ends = self.person.ends
        while (error := self.person.ask(drop(token=secret)).error) == Error.BUSY:
            pass
        assert error == Error.OK or (error == Error.NOT_FOUND and self.person.ends > ends), error
        assert peer.recv(1) == b""

    def take(self, secret, peer):
        while (error := self.person.take(secret)) == Error.BUSY:
            pass
        if error == Error.NOT_FOUND and self.may_lose.is_set():
            assert peer.recv(1) == b""
            self.lost += 1
            return
        assert error == Error.OK, error
        with socket.socket(fileno=os.dup(self.person.owned[secret].fileno())) as fd:
            peer.send(b"there")
            assert fd.recv(100) == b"there"
        self.person.owned.pop(secret).close()
        assert peer.recv(1) == b""

    def close(self):
        self.over.set()
        self.join()
        self.person.close()


class Neighbour:
    """A process of another user that parks and takes; it says when it has done so once more."""

    def __init__(self, d):
        os.chmod(d.folder, 0o755)
        os.chmod(d.socket, 0o666)
        self.said, said = os.pipe()
        stop, self.stop = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.said)
                os.close(self.stop)
                os.setgroups([])
                os.setgid(OTHER_UID)
                os.setuid(OTHER_UID)
                customer = Customer(d, 1)
                while not select.select([stop], [], [], 0.005)[0]:
                    customer.round()
                    os.write(said, struct.pack("=q", time.monotonic_ns()))
            except BaseException as error:
                print("neighbour:", repr(error), file=sys.stderr)
            finally:
                os._exit(1)
        os.close(said)
        os.close(stop)
        self.times = []

    def read(self):
        """When it was served so far, ns."""
        while select.select([self.said], [], [], 0)[0]:
            data = os.read(self.said, 8)
            assert data, "the neighbour was not served"
            self.times += struct.unpack("=q", data)
        return self.times

    def close(self):
        os.close(self.stop)
        os.waitpid(self.pid, 0)
        os.close(self.said)


class Holders(BenchOfDeaths):
    @classmethod
    def start(cls):
        return Daemon(f"trusted: [{OTHER_UID}]\npark-max-age: 0s\n", level="info")

    @classmethod
    def renew(cls):
        super().renew()
        own, cls.others = set(holders(cls.d)), set()
        # a neighbour's holder lasts, too
        if os.geteuid() == 0:
            neighbour = Neighbour(cls.d)
            until(neighbour.read, "the neighbour is served")
            neighbour.close()
            cls.others = set(holders(cls.d)) - own
            cls.before = cls.counts(least=True)

    # ---- Deaths under load ----

    def serves(self):
        """The loop has all parks, and the holder has been told of all."""
        while True:
            try:
                with self.again() as client:
                    client.call(sync()).check()
                    return client.welcome.pid
            except ConnectionEnded:
                pass

    def holder(self):
        """Of our own uid, the only one."""
        def one():
            pids = set(holders(self.d)) - self.others
            return len(pids) == 1 and pids.pop()

        return until(one, "one holder")

    def kill(self, *whom):
        """Kills these, and waits until there are others, which serve."""
        pids = {"loop": self.serves(), "holder": self.holder()}
        for name in whom:
            os.kill(pids[name], signal.SIGKILL)
        if "holder" in whom:
            until(lambda: pids["holder"] not in holders(self.d), "the holder is dead")
        if "loop" in whom:
            self.next_loop(pids["loop"])
        self.serves()
        self.holder()

    def test_killed_under_load(self):
        print(f"READYD_SEED={SEED}")
        numbers = random.Random(SEED)
        customers = [self.keep(Customer(self.d, numbers.random())) for _ in range(4)]
        for customer in customers:
            customer.start()
        for _ in range(KILLS):
            self.kill(numbers.choice(("loop", "holder")))
            time.sleep(numbers.random() * 0.02)
        self.all_well(customers)
        # Both at once: what was parked is lost then, since nobody else had it. Who had it in hand
        # keeps it, and the daemon goes on.
        for customer in customers:
            customer.may_lose.set()
        for _ in range(KILLS // 2):
            self.kill(*numbers.sample(("loop", "holder"), 2))
        self.all_well(customers)
        print(f"{sum(each.rounds for each in customers)} rounds, "
              f"{sum(each.person.ends for each in customers)} connections ended, "
              f"{sum(each.lost for each in customers)} parks lost")

    def all_well(self, customers):
        """Each has another two rounds from now on."""
        for customer in customers:
            then = customer.rounds
            until(lambda: customer.error or customer.rounds >= then + 2, "rounds go on")
            if customer.error:
                raise customer.error

    # ---- Whose holder is told ----

    def theirs_is_gone(self):
        """The other user's holder is killed, and the keeper cannot make another one."""
        lines = self.d.log().count("has gone")
        pid = re.findall(rf"uid {OTHER_UID} has a holder \(pid (\d+)\)", self.d.log())[-1]
        os.kill(self.d.process.pid, signal.SIGSTOP)
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: self.d.log().count("has gone") > lines, "the loop has noticed")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for another user's process")
    def test_a_drop_of_anothers_is_recorded_first(self):
        (secret, number, b), (_, staying, peer) = self.theirs(), self.theirs()
        client = self.again_client()
        try:
            self.theirs_is_gone()
            serial, = client.send(drop(token=secret))
            self.assertFalse(select.select([client.socket], [], [], 0.3)[0], "it is answered")
        finally:
            os.kill(self.d.process.pid, signal.SIGCONT)
        self.assertEqual(client.outcome(serial).check().value, number)
        self.kill_loop()
        until(lambda: staying in self.rows(), "the one that stays")
        self.assertNotIn(number, self.rows())
        self.ended(b)
        self.alive(peer)
        client = self.again_client()
        self.ok(client, drop(number=staying))
        self.ended(peer)

    # ---- Stuck ----

    def lingering(self):
        """A TCP socket whose last close waits; the other end, whose close ends that; and how many
        bytes are under way."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            a = self.keep(socket.create_connection(server.getsockname()))
            b = self.keep(server.accept()[0])
        a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
        a.setblocking(False)
        sent = 0
        try:
            while True:
                sent += a.send(bytes(65536))
        except BlockingIOError:
            return a, b, sent

    def blocking(self):
        """A socket whose last close waits, in whatever process: one that lingers is in its queue."""
        a, b, _ = self.lingering()
        outer, other = self.pair()
        socket.send_fds(other, [b"in here"], [a.fileno()])
        a.close()
        return outer, b

    def flood(self, client, until_new):
        """PARK and DROP until there is another holder; the longest wait for an answer, ns: from, to."""
        longest = (0, 0)
        a, _ = self.pair()
        end = time.monotonic() + PATIENCE
        while not until_new():
            secret = token()
            begin = time.monotonic_ns()
            self.ok(client, park(a, secret, note=NOTE))
            self.ok(client, drop(token=secret))
            now = time.monotonic_ns()
            if now - begin > longest[1] - longest[0]:
                longest = begin, now
            self.assertLess(time.monotonic(), end, "the holder is not replaced")
        return longest

    def neighbour(self):
        neighbour = self.keep(Neighbour(self.d))
        until(lambda: len(neighbour.read()) > 3, "the neighbour is served")
        return neighbour

    def replaced(self, client, old, neighbour):
        """The holder `old` does nothing: another one is made, and the neighbour does not notice."""
        pids = set(holders(self.d))
        begin, end = self.flood(client, lambda: set(holders(self.d)) - pids)
        self.assertIn(old, holders(self.d))
        self.assertGreater(end - begin, 1e9, "nothing had to wait")
        served = [when for when in neighbour.read() if begin < when < end]
        self.assertGreater(len(served), 2, "the neighbour had to wait, too")
        self.assertIn("stuck", self.d.log())

    def all_there(self, parks):
        """And as they were, after the loop's death: the new holder has them."""
        self.kill_loop()
        client = self.again_client()
        for n, (secret, _, b) in enumerate(parks):
            message, fd = self.taken(client, token=secret)
            self.assertEqual(message.tail, b"%d" % n)
            self.carries(fd, b)
            fd.close()
        return [b for _, _, b in parks]

    def stuck_in_close(self, **options):
        client = self.again_client()
        parks = [self.parked(client, note=b"%d" % n) for n in range(STAYING)]
        old = self.holder()
        neighbour = self.neighbour()
        a, b = self.blocking()
        secret = token()
        serial, = client.send(park(a, secret, **options))
        a.close()  # ours is not to be the last copy
        self.assertEqual(client.outcome(serial).error, Error.OK)
        if not options:
            self.ok(client, drop(token=secret))
        self.replaced(client, old, neighbour)
        for peer in self.all_there(parks):
            # the one that is stuck had not read that they were taken
            self.alive(peer)
        self.assertIn(old, holders(self.d))
        neighbour.read()
        b.close()
        until(lambda: old not in holders(self.d), "the old holder has ended")
        for _, _, peer in parks:
            self.ended(peer)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for another user's process")
    def test_stuck_in_a_close_after_drop(self):
        self.stuck_in_close()

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for another user's process")
    def test_stuck_in_a_close_after_a_deadline(self):
        self.stuck_in_close(deadline=1_000_000_000, flags=ParkFlag.RELATIVE)

    def closed_while_lingering(self, **options):
        """The holder has the last copy of a socket that lingers, and the loop dies: it gives all
        back to the next one, and the socket's peer gets all that was sent to it."""
        client = self.again_client()
        parks = [self.parked(client, note=b"%d" % n) for n in range(STAYING)]
        holder = self.holder()
        a, b, sent = self.lingering()
        secret = token()
        serial, = client.send(park(a, secret, **options))
        a.close()
        number = client.outcome(serial).check().value
        if not options:
            self.ok(client, drop(token=secret))
        until(lambda: number not in self.rows(), "it is gone")
        for peer in self.all_there(parks):
            self.ended(peer)
        self.assertEqual(self.holder(), holder)
        b.settimeout(PATIENCE)
        while sent > 0:
            data = b.recv(1 << 20)
            self.assertTrue(data, f"{sent} bytes are missing")
            sent -= len(data)
        self.assertEqual((sent, b.recv(1)), (0, b""))

    def test_a_close_that_lingers_after_drop(self):
        self.closed_while_lingering()

    def test_a_close_that_lingers_after_a_deadline(self):
        self.closed_while_lingering(deadline=1_000_000, flags=ParkFlag.RELATIVE)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for another user's process")
    def test_stopped(self):
        client = self.again_client()
        parks = [self.parked(client, note=b"%d" % n) for n in range(STAYING)]
        old = self.holder()
        neighbour = self.neighbour()
        os.kill(old, signal.SIGSTOP)
        try:
            self.replaced(client, old, neighbour)
            peers = self.all_there(parks)
        finally:
            os.kill(old, signal.SIGCONT)
        until(lambda: old not in holders(self.d), "the old holder has ended")
        for peer in peers:
            self.ended(peer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
