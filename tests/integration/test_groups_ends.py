#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups over the wire: workers that end, give back, detach or do not read, and deadlines (sections
5.20, 5.21, 5.23 and 11.10 of protocol/PROTOCOL.md). READYD names the daemon.
"""

import contextlib
import os
import resource
import select
import socket
import struct
import tempfile
import unittest

from groups import G, Groups
from parks import PATIENCE, Bench, Fd, token, until, variants
from readyd_client import (
    NO_TOKEN, Client, Code, Error, Fatal, Flag, ParkFlag, ParkState, Type, acknowledge, attach,
    detach, drop, encode, held, park, take)

MS = 1_000_000
HAND = ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND


class Ends(Groups, Bench):
    # ---- Workers that end ----

    def test_s123_closed_before_it_acknowledged(self):
        maker = self.client()
        for end in ("close", "shutdown"):
            first, second = self.worker_of(), self.worker_of(more=0, capacity=8)
            secret, number, b = self.parked(maker, group=G)
            b.send(b"x")
            self.given(first)
            self.fired(maker, 1)
            if end == "close":
                first.close()
            else:
                first.socket.shutdown(socket.SHUT_RDWR)
            self.parked_again(number)
            self.ok(second, attach(G, 8))
            message, fd = self.owned(second)  # it kept its place
            self.assertEqual((message.records[0].token, message.records[0].read),
                             (secret, Code.READY))
            self.owned(second)
            self.carries(fd, b)
            self.idle(second)
            second.close()

    def test_s123_killed_before_it_acknowledged(self):
        def lazy(say, _, address):
            client = connect_to(address)
            client.call(attach(G, 3)).check()
            for _ in range(3):
                say(client.handout(0).records[0].park)
            return client

        maker = self.client()
        parks = [self.parked(maker, group=G) for _ in range(4)]
        worker = self.forked(lazy, self.d.socket)
        until(lambda: (row := self.group()) and row.workers, "it has attached")
        self.fire(*parks)
        self.assertEqual([worker.line() for _ in range(3)], [str(each[1]) for each in parks[:3]])
        self.assertEqual({self.row(each[1]).worker_pid for each in parks[:3]}, {worker.pid})
        other = self.worker_of(more=8)
        self.assertEqual(self.owned(other)[0].records[0].park, parks[3][1])
        late = self.fired(maker, 1)[0]
        self.assertEqual(self.owned(other)[0].records[0].park, late[1])
        worker.kill()
        for secret, _, b in parks[:3]:
            message, fd = self.owned(other)
            self.assertEqual(message.records[0].token, secret)
            self.carries(fd, b)
        self.idle(other)
        self.assertEqual((self.rows(), self.group().workers), ({}, 1))

    def test_s123_it_acknowledged_forks_and_dies(self):
        def forks(say, _, address):
            client = connect_to(address)
            client.call(attach(G, 1)).check()
            message = client.handout(0)
            client.call(acknowledge(message.records[0].token)).check()
            if os.fork() == 0:
                client.close()
                while data := os.read(message.fds[0], 100):
                    os.write(message.fds[0], b"child " + data)
                os._exit(0)
            say("forked")

        maker = self.client()
        worker = self.forked(forks, self.d.socket)
        secret, _, b = self.parked(maker, group=G)
        b.send(b"one")
        self.assertEqual(worker.line(), "forked")
        worker.kill()
        self.assertEqual(b.recv(100), b"child one")
        other = self.worker_of()
        self.idle(other)
        self.assertEqual(self.rows(), {})
        b.send(b"two")
        self.assertEqual(b.recv(100), b"child two")
        b.shutdown(socket.SHUT_WR)  # now the child ends, and nobody else has the connection
        self.ended(b)

    def test_s123_the_daemon_ends_the_connection(self):
        """Then the hand-out waits for the word of its handle."""
        maker, other = self.client(), self.worker_of(more=0, capacity=4)
        first = self.worker_of()
        secret, number, b = self.parked(maker, group=G)
        b.send(b"x")
        self.given(first)[1].close()
        first.post(encode(take(number=1)._replace(flags=Flag(0), serial=7)))
        with self.assertRaises(Fatal):
            first.next_event(PATIENCE)
        first.close()
        self.ok(other, attach(G, 4))
        self.idle(other)
        self.assertEqual(self.row(number).state, ParkState.HANDED)
        back = self.client(handle=first.handle)
        self.ok(back, held((NO_TOKEN, 0)))
        message, fd = self.owned(other)
        self.assertEqual(message.records[0].token, secret)
        self.carries(fd, b)

    def test_a_second_connection_of_the_handle(self):
        """Whichever of the two is given it: it is not lost."""
        maker, other = self.client(), self.worker_of(more=0, capacity=4)
        for attaches in (False, True):
            first = self.worker_of(more=4)
            before = self.fired(maker, 1)[0]
            self.given(first)
            second = self.client(handle=first.handle)
            if attaches:
                self.ok(second, attach(G, 4))
            parks = [before, *self.fired(maker, 2)]
            first.close()
            second.sync()
            second.close()
            self.ok(other, attach(G, 3, 4))
            got = {self.owned(other)[0].records[0].token for _ in parks}
            self.assertEqual(got, {secret for secret, _, _ in parks})
            self.ok(other, attach(G, 0, 4))

    def test_given_back(self):
        """HELD with 0: it costs the credit all the same, and keeps its place."""
        maker = self.client()
        first, second = self.worker_of(more=2), self.worker_of(more=0, capacity=3)
        parks = self.fired(maker, 3)
        fds = [self.given(first)[1] for _ in range(2)]
        self.gives_back(first, parks[0][0], fds[0])
        self.idle(first, second)
        self.assertEqual((self.group().credit, self.group().ready), (0, 2))
        self.ok(second, attach(G, 3))
        got = [self.owned(second)[0].records[0].token for _ in range(2)]
        self.assertEqual(got, [parks[0][0], parks[2][0]])
        self.gives_back(first, parks[1][0], fds[1])
        self.assertEqual(self.owned(second)[0].records[0].token, parks[1][0])
        self.idle(first, second)

    def test_given_back_to_the_only_one(self):
        maker, worker = self.client(), self.worker_of(more=3)
        secret, number, b = self.parked(maker, group=G)
        b.send(b"x")
        for left in (2, 1, 0):
            message, fd = self.given(worker)
            self.assertEqual(message.records[0].park, number)
            self.assertEqual(self.group().credit, left)
            self.gives_back(worker, secret, fd)
        self.idle(worker)
        self.parked_again(number)
        self.ok(worker, attach(G, 1, 3))
        self.carries(self.owned(worker)[1], b)

    def test_held_is_an_acknowledgement(self):
        maker, worker = self.client(), self.worker_of()
        secret, _, b = self.parked(maker, group=G)
        b.send(b"x")
        _, fd = self.given(worker)
        self.ok(worker, held((secret, 1)))
        self.assertEqual(self.rows(), {})
        self.carries(fd, b)

    def test_s124_no_free_fd_slot(self):
        maker, poor, other = self.client(), self.worker_of(), self.worker_of(more=0, capacity=1)
        secret, _, b = self.parked(maker, group=G)
        b.send(b"x")
        self.assertTrue(select.select([poor], [], [], PATIENCE)[0])
        with full_table():
            data, control, flags, _ = poor.socket.recvmsg(65536, socket.CMSG_SPACE(64))
        self.assertTrue(flags & socket.MSG_CTRUNC)
        self.assertFalse([item for item in control if item[1] == socket.SCM_RIGHTS and item[2]])
        self.assertEqual((struct.unpack_from("=H", data)[0], data[16:32]), (Type.HANDOUT, secret))
        self.ok(poor, held((secret, 0)))
        self.ok(other, attach(G, 1))
        message, fd = self.owned(other)
        self.assertEqual(message.records[0].token, secret)
        self.carries(fd, b)
        self.idle(poor)
        later = self.fired(maker, 1)[0]
        self.idle(poor)
        self.ok(poor, attach(G, 1))
        self.assertEqual(self.owned(poor)[0].records[0].token, later[0])

    # ---- Deadlines ----

    def test_s125_a_deadline_hands_it_out_with_its_mark(self):
        maker, worker = self.client(), self.worker_of(more=3)
        start = maker.now()
        secret, _, b = self.parked(maker, group=G, deadline=40 * MS, flags=HAND)
        message, fd = self.owned(worker)
        record = message.records[0]
        self.assertGreaterEqual(maker.now(), start + 40 * MS)
        self.assertEqual((record.token, record.read | record.write), (secret, Code.TIMEOUT))
        self.assertIn(ParkFlag.DEADLINE_HAND, record.flags)
        self.carries(fd, b)
        # what cannot be ready, too
        file = self.keep(tempfile.TemporaryFile())
        self.ok(maker, park(file, token(), group=G, deadline=1,
                            flags=ParkFlag.DEADLINE_HAND | ParkFlag.HOLD_ONLY))
        record = self.owned(worker)[0].records[0]
        self.assertEqual(record.read | record.write, Code.TIMEOUT)
        # one that came in time has no mark
        _, _, b = self.parked(maker, group=G, deadline=3600_000 * MS, flags=HAND)
        b.send(b"x")
        self.assertEqual(self.owned(worker)[0].records[0].read, Code.READY)

    def test_s125_passed_while_nobody_was_free(self):
        maker = self.client()
        secret, number, b = self.parked(maker, group=G, deadline=1, flags=ParkFlag.DEADLINE_HAND)
        until(lambda: self.row(number).timed_out, "its deadline")
        self.alive(b)
        record = self.owned(self.worker_of())[0].records[0]
        self.assertEqual((record.token, record.read | record.write), (secret, Code.TIMEOUT))

    def test_s125_a_deadline_closes_it_though_a_child_has_a_copy(self):
        maker, worker = self.client(), self.worker_of(more=3)
        a, b = self.pair()
        child = self.forked(lambda say, _: say("here"), keep=[a.fileno()])
        self.assertEqual(child.line(), "here")
        start = maker.now()
        self.ok(maker, park(a, token(), group=G, deadline=40 * MS, flags=ParkFlag.RELATIVE))
        a.close()
        self.assertEqual(b.recv(1), b"")
        self.assertGreaterEqual(maker.now(), start + 40 * MS)
        until(lambda: not self.rows(), "the park is gone")
        self.idle(worker)
        # ready, and nobody was there in time
        self.ok(worker, detach(G))
        _, _, b = self.parked(maker, group=G, deadline=150 * MS, flags=ParkFlag.RELATIVE)
        with contextlib.suppress(ConnectionError):
            b.send(b"x")
        self.ended(b)
        until(lambda: not self.rows(), "the park is gone")

    def handed_when_it_passes(self, flags):
        """Two parks whose deadline passes while they are handed out: them, the worker, the fds."""
        for ms in (150, 1000, 10000):  # a busy machine needs more
            maker, worker = self.client(), self.worker_of(more=2)
            after = maker.now() + ms * MS
            parks = [self.parked(maker, group=G, deadline=after, flags=flags) for _ in range(2)]
            with contextlib.suppress(ConnectionError):
                self.fire(*parks)
            got = self.drained(worker)
            if len(got) == 2 and not any(item.records[0].read & Code.TIMEOUT for item in got):
                until(lambda: maker.now() > after + 20 * MS, "the deadline")
                return parks, worker, self.kept[-2:]
            worker.close()
            for _, number, _ in parks:
                maker.call(drop(number=number))
        return self.fail("no hand-out within 10 s")

    def test_s125_a_deadline_waits_for_a_hand_out_to_be_settled(self):
        for flags in (ParkFlag(0), ParkFlag.DEADLINE_HAND):
            (kept, dropped), worker, fds = self.handed_when_it_passes(flags)
            self.idle(worker)
            self.assertEqual(self.row(dropped[1]).state, ParkState.HANDED)
            self.alive(kept[2])
            self.alive(dropped[2])
            self.ok(worker, acknowledge(kept[0]))
            self.carries(fds[0], kept[2])
            self.gives_back(worker, dropped[0], fds[1])
            if flags:
                record = self.owned(self.worker_of())[0].records[0]
                self.assertEqual(record.token, dropped[0])
                self.assertTrue((record.read | record.write) & Code.TIMEOUT)
            else:
                self.ended(dropped[2])

    # ---- Workers that do not read, and that go ----

    def test_a_worker_that_does_not_read_stops_nobody(self):
        maker = self.client()
        deaf = self.worker_of(more=3)
        self.deafen(deaf)
        worker = self.worker_of(more=20)
        parks = [self.parked(maker, group=G) for _ in range(12)]
        for _, _, b in parks:
            b.send(b"x")
        got = [self.owned(worker)[0].records[0].token for _ in range(9)]
        deaf.close()
        got += [self.owned(worker)[0].records[0].token for _ in range(3)]
        self.assertEqual(sorted(got), sorted(secret for secret, _, _ in parks))

    def test_detach(self):
        maker, worker = self.client(), self.worker_of(more=9)
        first, = self.fired(maker, 1)
        _, fd = self.given(worker)
        self.ok(worker, detach(G))
        self.refused(worker, detach(G), Error.NOT_FOUND)
        later, = self.fired(maker, 1)
        self.idle(worker)
        group = self.group()
        self.assertEqual((group.workers, group.credit, group.capacity, group.ready, group.handed),
                         (0, 0, 0, 1, 1))
        self.ok(worker, acknowledge(first[0]))
        self.carries(fd, first[2])
        self.ok(worker, attach(G, 1))  # the credit from before is gone
        self.assertEqual(self.owned(worker)[0].records[0].token, later[0])
        self.fired(maker, 1)
        self.idle(worker)
        self.assertEqual(self.group().credit, 0)

    def test_nothing_comes_after_the_answer_to_detach(self):
        maker = self.client()
        for turn in range(12):
            worker = self.client()
            parks = [self.parked(maker, group=G) for _ in range(8)]
            self.ok(worker, attach(G, 16))
            for _, _, b in parks[:turn]:
                b.send(b"x")
            serial, = worker.send(detach(G))
            for _, _, b in parks[turn:]:
                b.send(b"x")
            worker.outcome(serial)
            before = list(worker.handouts)
            worker.handouts.clear()
            self.serials(before)
            self.idle(worker, seconds=0.02)
            for message in before:
                self.keep(Fd(message.fds[0]))
                self.ok(worker, acknowledge(message.records[0].token))
            gone = {message.records[0].token for message in before}
            self.assertEqual(len(gone), len(before))
            for secret, _, _ in parks:
                if secret not in gone:
                    self.ok(maker, drop(token=secret))


def connect_to(address):
    return Client(address, timeout=PATIENCE)


@contextlib.contextmanager
def full_table():
    """No fd can be opened or received in here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    extra = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                extra.append(os.dup(0))
        yield
    finally:
        for fd in extra:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


globals().update(variants(Ends))
del Ends  # not a test by itself


if __name__ == "__main__":
    unittest.main(verbosity=2)
