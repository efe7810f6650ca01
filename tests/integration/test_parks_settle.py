#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks over the wire: who has a hand-out until it is settled, DROP, deadlines, and what must not
happen before the answer (sections 5.19 to 5.21 and 11.9 of protocol/PROTOCOL.md).
READYD names the daemon.
"""

import os
import select
import signal
import socket
import time
import unittest

from parks import PATIENCE, Bench, Fd, flood, now, token, until, variants
from daemon import Daemon
from readyd_client import (
    NO_TOKEN, Answer, Code, Error, Fatal, ParkFlag, ParkState, Type, acknowledge, claim, drop, held,
    park, sync, take)

MS = 1_000_000
SECOND = 1000 * MS
HANDLE = b"one and the same"


class Settle(Bench):
    # ---- Hand-out ----

    def test_nobody_else_has_anything_of_a_handed_park(self):
        maker, taker = self.client(), self.client()
        secret, number, b = self.parked(maker, name=b"n")
        _, fd = self.handed(taker, number=number)
        for client in (maker, taker):
            for by in ({"name": b"n"}, {"number": number}, {"token": secret}):
                self.refused(client, take(**by), Error.NOT_FOUND)
                self.refused(client, drop(**by), Error.NOT_FOUND)
        self.refused(maker, acknowledge(secret), Error.NOT_FOUND)
        self.refused(maker, held((secret, 1)), Error.NOT_FOUND)
        self.refused(maker, held((secret, 0)), Error.NOT_FOUND)
        self.ok(maker, held((NO_TOKEN, 0)))
        self.assertEqual(self.row(number).state, ParkState.HANDED)
        self.ok(taker, acknowledge(secret))
        self.carries(fd, b)
        fd.close()
        self.ended(b)

    def test_a_handed_park_tells_nobody(self):
        maker, taker = self.client(), self.client()
        secret, number, b = self.parked(maker)
        self.handed(taker, token=secret)
        b.send(b"x")
        self.nothing(maker)
        self.nothing(taker)

    def test_it_is_given_back(self):
        maker, taker = self.client(), self.client()
        secret, number, b = self.parked(maker, note=b"keep this", cookie=8)
        b.send(b"x")
        _, fd = self.handed(taker, token=secret)
        fd.close()
        self.ok(taker, held((secret, 0)))
        self.parked_again(number)
        message, fd = self.taken(maker, token=secret)
        self.assertEqual((message.tail, message.records[0].cookie, message.records[0].read),
                         (b"keep this", 8, Code.READY))
        self.carries(fd, b)

    def test_it_is_given_back_and_counts_as_ready(self):
        maker, taker = self.client(), self.client()
        secret, number, _ = self.parked(maker)
        self.handed(taker, token=secret)
        self.ok(taker, held((secret, 0)))
        self.parked_again(number)  # though nothing has come
        message, _ = self.taken(maker, token=secret)
        self.assertEqual(message.records[0].read, Code.READY)

    def test_all_of_earlier_connections_are_given_back(self):
        maker, taker = self.client(), self.client(handle=HANDLE)
        parks = [self.parked(maker) for _ in range(4)]
        fds = [self.handed(taker, token=secret)[1] for secret, _, _ in parks[:3]]
        self.ok(taker, held((NO_TOKEN, 0)))  # not what this connection itself was sent
        for _, number, _ in parks[:3]:
            self.still_handed(number, maker, taker)
        taker = self.client(handle=HANDLE)
        fds.append(self.handed(taker, token=parks[3][0])[1])
        self.ok(taker, held((parks[1][0], 1), (NO_TOKEN, 0)))
        for n in (0, 2):
            self.parked_again(parks[n][1])
        self.still_handed(parks[3][1], maker, taker)
        self.assertEqual(set(self.rows()), {parks[n][1] for n in (0, 2, 3)})
        self.carries(fds[1], parks[1][2])
        for fd in fds:
            fd.close()
        self.ended(parks[1][2])
        self.alive(parks[0][2])

    def test_what_is_settled_can_be_said_again(self):
        client = self.client()
        secret, _, b = self.parked(client)
        _, fd = self.taken(client, token=secret)
        for _ in range(2):
            self.ok(client, acknowledge(secret))
            self.ok(client, held((secret, 1)))
        self.ok(client, acknowledge(token()))
        self.ok(client, held((token(), 0), (token(), 1), (NO_TOKEN, 0)))
        self.carries(fd, b)

    def test_what_is_parked_cannot_be_acknowledged(self):
        client = self.client()
        secret, number, _ = self.parked(client)
        mine, _, _ = self.parked(client)
        _, fd = self.handed(client, token=mine)
        outcome = client.call(acknowledge(secret, mine, token()))
        self.assertEqual((outcome.error, outcome.answer.failed), (Error.NOT_FOUND, 1))
        self.assertEqual([item.index for item in outcome.failures], [0])
        self.assertEqual(list(self.rows()), [number])

    def end_by_garbage(self, client):
        """The daemon ends this connection, with an ERROR."""
        client.post(b"\xff" * 24)
        with self.assertRaises(Fatal) as caught:
            client.next_event(PATIENCE)
        self.assertEqual(caught.exception.error, Error.PROTOCOL)
        client.read_to_the_end()
        client.close()

    def still_handed(self, number, *clients):
        for _ in range(3):
            for client in clients:
                client.sync()
            self.assertEqual((self.row(number).state, self.row(number).worker_pid),
                             (ParkState.HANDED, os.getpid()))
            time.sleep(0.03)

    def test_the_daemon_ends_the_connection(self):
        maker = self.client()
        for statements in ("1", "0", "rest", "1 rest"):
            taker = self.client(handle=HANDLE)
            secret, number, b = self.parked(maker)
            rest, number2, b2 = self.parked(maker)
            _, fd = self.handed(taker, token=secret)
            _, fd2 = self.handed(taker, token=rest)
            self.end_by_garbage(taker)
            self.still_handed(number, maker)
            self.refused(maker, take(token=secret), Error.NOT_FOUND)
            stranger = self.client()
            self.ok(stranger, held((NO_TOKEN, 0)))
            self.refused(stranger, held((secret, 1)), Error.NOT_FOUND)
            taker = self.client(handle=HANDLE)
            self.still_handed(number, maker, taker)
            said = {"1": [(secret, 1), (rest, 0)], "0": [(secret, 0), (rest, 0)],
                    "rest": [(NO_TOKEN, 0)], "1 rest": [(secret, 1), (NO_TOKEN, 0)]}[statements]
            self.ok(taker, held(*said))
            fd2.close()
            self.parked_again(number2)
            if "1" in statements:
                self.assertNotIn(number, self.rows())
                self.carries(fd, b)
                fd.close()
                self.ended(b)
            else:
                fd.close()
                self.parked_again(number)
                _, fd = self.taken(maker, token=secret)
                self.carries(fd, b)
            _, fd2 = self.taken(maker, token=rest)
            self.carries(fd2, b2)
            taker.close()

    def test_held_comes_with_the_hello(self):
        maker, taker = self.client(), self.client(handle=HANDLE)
        secret, _, b = self.parked(maker)
        _, fd = self.handed(taker, token=secret)
        self.end_by_garbage(taker)
        taker = self.client(handle=HANDLE, pipeline=[held((secret, 1), (NO_TOKEN, 0)), sync()])
        self.assertEqual(taker.outcome(taker.pipelined[0]).error, Error.OK)
        self.carries(fd, b)

    def test_a_second_connection_takes_the_handle_over(self):
        maker = self.client()
        first = self.client(handle=HANDLE)
        secret, number, b = self.parked(maker)
        _, fd = self.handed(first, token=secret)
        second = self.client(handle=HANDLE)
        first.close()
        self.still_handed(number, maker, second)
        self.ok(second, held((secret, 1)))
        self.carries(fd, b)
        fd.close()
        self.ended(b)

    def test_a_second_connection_gets_the_entries(self):
        first = self.client(handle=HANDLE)
        secret, number, b = self.parked(first)
        second = self.client(handle=HANDLE)
        self.ok(second, claim(secret))
        b.send(b"x")
        self.assertEqual(self.entry(second).park, number)
        self.nothing(first)
        first.close()
        self.nothing(second)

    def test_no_room_for_the_fd(self):
        maker, taker = self.client(), self.client()
        secret, number, b = self.parked(maker)
        taker.send(take(token=secret))
        until(lambda: self.row(number).state == ParkState.HANDED, "it is handed")
        taker.socket.settimeout(PATIENCE)
        seen = [int.from_bytes(taker.socket.recv(65536)[:2], "little") for _ in range(2)]
        self.assertEqual(seen, [Type.READY, Type.HANDOUT])  # the kernel has closed the fd
        taker.socket.setblocking(False)
        self.alive(b)
        taker.send(sync())
        taker._expected.popleft()  # the TAKE, which was received by hand
        self.ok(taker, held((secret, 0)))
        self.parked_again(number)
        _, fd = self.taken(taker, token=secret)
        self.carries(fd, b)

    # ---- DROP ----

    def test_drop_by_all_names(self):
        client, other = self.client(), self.client()
        for who in (client, other):
            for which in range(3):
                secret, number, b = self.parked(client, name=b"n", group=b"g")
                by = ({"name": b"n", "group": b"g"}, {"number": number}, {"token": secret})[which]
                self.assertEqual(self.ok(who, drop(**by)).value, number)
                self.ended(b)
                self.refused(who, drop(**by), Error.NOT_FOUND)
                self.refused(who, take(**by), Error.NOT_FOUND)
        self.nothing(client)

    # ---- Deadlines ----

    def test_at_the_deadline_the_peer_sees_the_end(self):
        client = self.client()
        a, b = self.pair()
        start = now()
        number = self.ok(client, park(a, token(), deadline=80 * MS, flags=ParkFlag.RELATIVE)).value
        copy = self.keep(Fd(os.dup(a.fileno())))  # as a forked child has one
        self.ended(b)
        self.assertGreaterEqual(now(), start + 80 * MS - MS)
        until(lambda: not self.rows(), "the park is gone")
        self.refused(client, take(number=number), Error.NOT_FOUND)
        with self.assertRaises(BrokenPipeError):
            b.send(b"x")
        copy.close()

    def test_absolute_deadlines(self):
        client = self.client()
        for when in (1, now() - SECOND, now() + 50 * MS):
            _, _, b = self.parked(client, deadline=when)
            self.ended(b)
            self.assertGreaterEqual(now(), when - MS)
            until(lambda: not self.rows(), "the park is gone")
        _, number, b = self.parked(client, deadline=2**63 - 1)
        _, number2, b2 = self.parked(client, deadline=2**63 - 1, flags=ParkFlag.RELATIVE)
        _, number3, b3 = self.parked(client, deadline=0, flags=ParkFlag.RELATIVE)
        self.nothing(client)
        self.assertEqual({item.row.deadline for item in self.rows().values()}, {2**63 - 1, 0})
        start = now() - SECOND  # it is counted from the start of the turn
        _, number4, b4 = self.parked(client, deadline=3600 * SECOND, flags=ParkFlag.RELATIVE)
        self.assertTrue(start <= self.row(number4).deadline - 3600 * SECOND <= now())
        for peer in (b, b2, b3, b4):
            self.alive(peer)

    def test_what_cannot_be_shut_down_is_closed(self):
        client = self.client()
        reading, writing = (self.keep(Fd(fd)) for fd in os.pipe())
        self.ok(client, park(reading, token(), deadline=20 * MS, flags=ParkFlag.RELATIVE))
        reading.close()
        poll = select.poll()
        poll.register(writing.fileno(), 0)
        self.assertTrue(poll.poll(PATIENCE * 1000))
        until(lambda: not self.rows(), "the park is gone")

    def test_a_deadline_that_only_tells(self):
        client = self.client()
        start = now()
        secret, number, b = self.parked(client, deadline=50 * MS, cookie=5,
                                        flags=ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND)
        entry = self.entry(client)
        self.assertGreaterEqual(now(), start + 50 * MS - MS)
        self.assertEqual((entry.park, entry.cookie), (number, 5))
        self.assertEqual(entry.read | entry.write, Code.TIMEOUT)
        row = self.row(number)
        self.assertEqual((row.timed_out, row.deadline, row.state), (1, 0, ParkState.HELD))
        self.alive(b)
        message, fd = self.taken(client, token=secret)
        self.assertIn(Code.TIMEOUT, message.records[0].read | message.records[0].write)
        self.assertTrue(message.records[0].flags & ParkFlag.DEADLINE_HAND)
        self.carries(fd, b)

    def test_the_deadline_of_a_handed_park_waits(self):
        client = self.client()
        for give_back in (False, True):
            for tries in range(8):
                after = 50 * MS << tries
                secret, number, b = self.parked(client, deadline=after, flags=ParkFlag.RELATIVE)
                outcome = client.call(take(token=secret))
                if outcome.error == Error.OK:
                    break
                self.ended(b)  # the deadline was faster: once more, with a longer one
            self.assertEqual(outcome.error, Error.OK)
            fd = self.keep(Fd(client.handout(outcome.answer.serial).fds[0]))
            time.sleep(after / SECOND + 0.1)
            client.sync()
            self.alive(b)
            self.assertEqual(self.row(number).state, ParkState.HANDED)
            if give_back:
                fd.close()
                self.ok(client, held((secret, 0)))
                self.ended(b)
                until(lambda: not self.rows(), "the park is gone")
            else:
                self.ok(client, acknowledge(secret))
                self.carries(fd, b)
                time.sleep(0.1)
                self.alive(b)

    # ---- Before the answer ----

    def test_nothing_is_taken_before_its_answer_is_sent(self):
        if self.keeper:
            self.skipTest("stops the loop, which a keeper would replace")
        maker, taker = self.client(), self.client()
        secrets = flood(maker, os.urandom(8))
        found = {}
        for secret in secrets:
            by = (drop if len(found) % 2 else take)(token=secret)
            outcome = taker.call(by)
            found[secret] = outcome.error
            if outcome.error == Error.OK and by.type is Type.TAKE:
                self.keep(Fd(taker.handout(outcome.answer.serial).fds[0]))
        self.assertLessEqual(set(found.values()), {Error.OK, Error.BUSY, Error.NOT_FOUND})
        self.assertIn(Error.NOT_FOUND, found.values())  # the daemon reads no more of the maker
        os.kill(self.d.loop(), signal.SIGSTOP)  # what is there to read has been sent
        try:
            maker.trace = []
            while maker.receive(0):
                pass
        finally:
            os.kill(self.d.loop(), signal.SIGCONT)
        answered = sum(1 for item in maker.trace if isinstance(item, Answer)
                       and item.request == Type.PARK)
        self.assertLessEqual(list(found.values()).count(Error.OK), answered)
        maker.sync()
        for secret, error in found.items():
            if error != Error.OK:  # now all are parked
                self.ok(taker, drop(token=secret))

    def test_the_maker_dies_before_it_is_answered(self):
        start = os.urandom(8)
        worker = self.worker("flood", (start + bytes(8)).hex())
        count = int(worker.line())
        self.assertGreater(count, 0)
        worker.kill()
        client = self.client()
        self.assertLessEqual(len(self.rows()), count)
        for number in self.rows():
            until(lambda: client.call(drop(number=number)).error != Error.BUSY,
                  "what a dead process parked can be had")
        self.assertEqual(self.rows(), {})


globals().update(variants(Settle))
del Settle  # not a test by itself


class Ages(Bench):
    """With a largest age for all parks."""

    @classmethod
    def start(cls):
        return Daemon("park-max-age: 300ms\n")

    def test_all_end_with_their_age(self):
        client = self.client()
        start = now()
        peers = [self.parked(client, deadline=when, flags=flags)[2]
                 for when in (0, 3600 * SECOND) for flags in (
                     ParkFlag.RELATIVE, ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND)]
        for peer in peers:
            self.ended(peer)
            self.assertGreaterEqual(now(), start + 299 * MS)
        until(lambda: not self.rows(), "all parks are gone")

    def test_an_own_deadline_comes_first(self):
        client = self.client()
        start = now()
        _, number, b = self.parked(client, deadline=20 * MS,
                                   flags=ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND)
        entry = self.entry(client)
        self.assertEqual((entry.park, entry.read | entry.write), (number, Code.TIMEOUT))
        self.ended(b)
        self.assertGreaterEqual(now(), start + 299 * MS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
