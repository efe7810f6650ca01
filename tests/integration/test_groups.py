#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups over the wire: who gets what, when, and never more than he asked for (sections 5.22, 5.23,
5.26, 5.33 and 11.10 of protocol/PROTOCOL.md). READYD names the daemon; READYD_SEED, if set, says
what the random numbers begin with.
"""

import contextlib
import os
import random
import resource
import select
import socket
import struct
import tempfile
import time
import unittest

from groups import G, UNSETTLED_MAX, Groups
from parks import PATIENCE, Bench, Fd, token, until, variants
from daemon import Daemon
from readyd_client import (
    NO_TOKEN, READ, WRITE, Client, Code, Error, Fatal, Flag, ParkFlag, ParkState, Quota, Type,
    acknowledge, attach, claim, detach, drop, encode, held, park, sync, take)

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
MS = 1_000_000
NEAR = 200 * MS
HAND = ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND


class Work(Groups, Bench):
    # ---- Exactly one gets it ----

    def test_s121_exactly_one_of_three_gets_it(self):
        workers = [self.worker_of() for _ in range(3)]
        maker = self.client()
        start = maker.now()
        options = {"name": b"conn-1", "note": b"a note", "cookie": 7, "local": b"12",
                   "peer": b"345"}
        secret, number, b = self.parked(maker, group=G, **options)
        self.idle(*workers, maker)
        b.send(b"before")
        until(lambda: any(client.receive(0) for client in workers), "a HANDOUT")
        winner, = [client for client in workers if client.handouts]
        message, fd = self.given(winner)
        record = message.records[0]
        self.assertEqual(
            (message.serial, record.token, record.park, record.cookie, record.read, record.write),
            (0, secret, number, 7, Code.READY, 0))
        self.assertTrue(start - NEAR <= record.parked <= maker.now() + NEAR)
        self.assertEqual(message.parts, {"name": b"conn-1", "group": G, "note": b"a note",
                                         "local": b"12", "peer": b"345"})
        row = self.row(number)
        self.assertEqual((row.state, row.worker_pid, row.shared),
                         (ParkState.HANDED, os.getpid(), 0))
        group = self.group()
        self.assertEqual((group.parks, group.ready, group.handed, group.oldest, group.workers,
                          group.credit, group.capacity), (1, 0, 1, 0, 3, 2, 3))
        others = [client for client in workers if client is not winner]
        for client in others:
            self.refused(client, acknowledge(secret), Error.NOT_FOUND)
            self.refused(client, take(token=secret), Error.NOT_FOUND)
        self.ok(winner, acknowledge(secret))
        self.assertEqual(self.rows(), {})
        self.assertEqual(self.group().parks, 0)
        self.assertEqual(os.read(fd.fileno(), 100), b"before")
        self.carries(fd, b)
        self.idle(*workers, maker)
        fd.close()
        self.ended(b)

    def test_s121_each_of_many_goes_to_one(self):
        workers = [self.worker_of(more=8) for _ in range(3)]
        maker = self.client()
        parks = [self.parked(maker, group=G) for _ in range(24)]
        for _, _, b in parks:
            b.send(b"x")
        found = {}
        for client in workers:
            for _ in range(8):
                message, fd = self.owned(client)
                self.assertNotIn(message.records[0].token, found)
                found[message.records[0].token] = fd
        self.assertEqual(set(found), {secret for secret, _, _ in parks})
        self.idle(*workers)
        for secret, _, b in parks:
            self.carries(found[secret], b)

    def test_the_makers_own_worker_reads_the_answer_first(self):
        client = self.worker_of(more=16)
        for _ in range(16):
            a, b = self.pair()
            b.send(b"x")
            secret = token()
            client.trace = []
            serial, = client.send(park(a, secret, group=G))
            first = client.receive(PATIENCE)
            self.assertEqual((first.type, first.records[0].serial), (Type.READY, serial))
            self.assertEqual(client.outcome(serial).error, Error.OK)
            message, _ = self.owned(client)
            self.assertEqual(message.records[0].token, secret)

    def test_only_what_is_ready_and_in_the_group(self):
        workers = [self.worker_of(more=8), self.worker_of(b"h", 8)]
        maker = self.client()
        alone = self.parked(maker)
        other = self.parked(maker, group=b"G")
        for _, _, b in (alone, other):
            b.send(b"x")
        quiet = self.parked(maker, group=G)
        sender = self.parked(maker, group=G, interest=WRITE)
        message, _ = self.owned(workers[0])
        self.assertEqual((message.records[0].park, message.records[0].read,
                          message.records[0].write), (sender[1], 0, Code.READY))
        self.assertEqual(self.entry(maker).park, alone[1])
        self.idle(*workers, maker)
        self.assertEqual({number: item.row.state for number, item in self.rows().items()},
                         {each[1]: ParkState.HELD for each in (alone, other, quiet)})

    def test_a_worker_of_two_groups(self):
        worker = self.worker_of(more=1)
        self.ok(worker, attach(b"h", 1))
        maker = self.client()
        for group in (b"h", G):
            secret, _, b = self.parked(maker, group=group)
            b.send(b"x")
            message, _ = self.owned(worker)
            self.assertEqual((message.records[0].token, message.parts["group"]), (secret, group))
        self.fired(maker, 1)
        self.idle(worker)  # the credit of one is not the other's
        self.ok(worker, attach(b"h", 1))
        self.idle(worker)
        self.ok(worker, attach(G, 1))
        self.owned(worker)

    def test_parks_of_a_group_are_told_to_nobody(self):
        maker = self.client()
        parks = self.fired(maker, 3)
        timed = self.parked(maker, group=G, deadline=1, flags=ParkFlag.DEADLINE_HAND)
        until(lambda: self.row(timed[1]).timed_out, "its deadline")
        self.idle(maker)
        self.ok(maker, claim(*(secret for secret, _, _ in parks), timed[0]))
        self.idle(maker)
        again = self.client(handle=maker.handle)
        self.ok(again, claim(*(secret for secret, _, _ in parks)))
        self.idle(again)
        secret, number, b = self.parked(again)
        b.send(b"x")
        self.assertEqual(self.entry(again).park, number)

    def test_taken_and_dropped_beside_the_workers(self):
        maker, taker = self.client(), self.client()
        ready, quiet = self.fired(maker, 2)[0], self.parked(maker, group=G, name=b"q")
        _, fd = self.taken(taker, token=ready[0])
        self.carries(fd, ready[2])
        _, fd = self.taken(taker, name=b"q", group=G)
        self.carries(fd, quiet[2])
        left, = self.rows()
        self.ok(taker, drop(number=left))
        self.idle(self.worker_of())

    def test_what_a_taker_gives_back_goes_to_a_worker(self):
        taker, worker = self.client(), self.worker_of()
        secret, number, b = self.parked(taker, group=G)  # not ready
        _, fd = self.handed(taker, token=secret)
        self.idle(worker)
        self.gives_back(taker, secret, fd)
        message, fd = self.owned(worker)
        self.assertEqual(message.records[0].park, number)
        self.carries(fd, b)

    # ---- Nobody is free ----

    def test_s122_oldest_ready_first_over_many(self):
        print(f"READYD_SEED={SEED}")
        maker = self.client()
        parks = [self.parked(maker, group=G) for _ in range(40)]
        random.Random(SEED).shuffle(parks)
        before = maker.now()
        self.fire(parks[0])
        after = maker.now()
        self.fire(*parks[1:])
        group = self.group()
        self.assertEqual((group.parks, group.ready, group.handed, group.workers, group.credit,
                          group.capacity), (40, 40, 0, 0, 0, 0))
        self.assertTrue(before - NEAR <= group.oldest <= after + NEAR)
        self.assertEqual({item.row.state for item in self.rows().values()}, {ParkState.HELD})
        worker = self.worker_of(more=40)
        got = [self.owned(worker)[0].records[0].park for _ in range(40)]
        self.assertEqual(got, [number for _, number, _ in parks])
        self.assertEqual(self.group().oldest, 0)

    def test_s122_ready_as_they_were_parked(self):
        maker = self.client()
        numbers = []
        for _ in range(20):
            a, b = self.pair()
            b.send(b"x")
            numbers.append(self.ok(maker, park(a, token(), group=G)).value)
            until(lambda: self.row(numbers[-1]).ready, "ready")
        workers = [self.worker_of(more=0, capacity=20) for _ in range(2)]
        self.idle(*workers)
        for n, number in enumerate(numbers):
            self.ok(workers[n % 2], attach(G, 1, 20))
            self.assertEqual(self.owned(workers[n % 2])[0].records[0].park, number)

    def test_s122_the_next_that_says_it_is_free(self):
        maker = self.client()
        busy, free = self.worker_of(), self.worker_of(more=0, capacity=3)
        first, second = self.fired(maker, 2)
        self.assertEqual(self.owned(busy)[0].records[0].token, first[0])
        self.idle(busy, free)
        self.assertEqual(self.group().credit, 0)
        self.assertEqual((self.row(second[1]).state, self.row(second[1]).ready),
                         (ParkState.HELD, READ))
        self.ok(free, attach(G, 1, 3))
        self.assertEqual(self.owned(free)[0].records[0].token, second[0])
        self.idle(busy, free)

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

    def test_s123_killed_before_it_acknowledged(self):
        def lazy(say, _, address):
            client = connect_to(address)
            client.call(attach(G, 3)).check()
            for _ in range(3):
                say(client.handout(0).records[0].park)

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

    # ---- How much, and to whom ----

    def test_s126_never_more_than_its_credit(self):
        maker, worker = self.client(), self.worker_of(more=2, capacity=5)
        parks = self.fired(maker, 7)
        tokens = [message.records[0].token for message in self.drained(worker)]
        self.assertEqual(tokens, [secret for secret, _, _ in parks[:2]])
        self.ok(worker, acknowledge(*tokens))
        self.idle(worker)  # which alone does not raise it
        self.ok(worker, attach(G, 0, 5))
        self.idle(worker)
        self.ok(worker, attach(G, 1, 5))
        self.assertEqual(self.owned(worker)[0].records[0].token, parks[2][0])
        self.idle(worker)
        self.ok(worker, attach(G, 1, 1))  # another capacity
        self.assertEqual(self.owned(worker)[0].records[0].token, parks[3][0])
        self.ok(worker, attach(G, 3, 3))
        self.assertEqual(len(self.drained(worker)), 3)
        group = self.group()
        self.assertEqual((group.credit, group.capacity, group.handed), (0, 3, 3))

    def test_s126_to_the_least_loaded(self):
        maker = self.client()
        a, b, c = (self.worker_of(more=more, capacity=capacity)
                   for more, capacity in ((4, 4), (3, 10), (4, 6)))  # loads 0, 7, 2
        order = []
        for secret, _, peer in [self.parked(maker, group=G) for _ in range(11)]:
            peer.send(b"x")
            until(lambda: any(client.receive(0) for client in (a, b, c)), "a HANDOUT")
            winner, = [client for client in (a, b, c) if client.handouts]
            self.assertEqual(self.owned(winner)[0].records[0].token, secret)
            order.append(winner)
        names = "".join("abc"[(a, b, c).index(each)] for each in order)
        self.assertEqual(names, self.expected_order())
        self.idle(a, b, c)

    @staticmethod
    def expected_order():
        """By the rule: the smallest load, then who has waited longest."""
        load, credit = [0, 7, 2], [4, 3, 4]
        since, names = [0, 1, 2], ""
        for turn in range(3, 14):
            winner = min((n for n in range(3) if credit[n]), key=lambda n: (load[n], since[n]))
            load[winner] += 1
            credit[winner] -= 1
            since[winner] = turn
            names += "abc"[winner]
        return names

    def test_s126_among_equals_to_the_one_that_waits_longest(self):
        maker = self.client()
        workers = [self.worker_of(more=2) for _ in range(5)]
        for client in workers * 2:
            secret, _, b = self.parked(maker, group=G)
            b.send(b"x")
            self.assertEqual(self.owned(client)[0].records[0].token, secret)

    def test_s126_many_at_once_are_spread(self):
        maker = self.client()
        workers = [self.worker_of(more=4) for _ in range(4)]
        parks = [self.parked(maker, group=G) for _ in range(8)]
        for _, _, b in parks:
            b.send(b"x")
        until(lambda: self.group().handed == 8, "all are handed out")
        for client in workers:
            self.assertEqual(len(self.drained(client)), 2)

    def test_s126_not_more_than_16_unsettled(self):
        maker, worker = self.client(), self.worker_of(more=100)
        parks = self.fired(maker, 20)
        got = self.drained(worker)
        self.assertEqual([item.records[0].token for item in got],
                         [secret for secret, _, _ in parks[:UNSETTLED_MAX]])
        self.assertEqual(self.group().credit, 84)
        self.ok(worker, acknowledge(parks[3][0]))
        self.assertEqual(self.given(worker)[0].records[0].token, parks[16][0])
        self.idle(worker)
        other = self.worker_of()  # has room
        self.assertEqual(self.owned(other)[0].records[0].token, parks[17][0])
        self.idle(other, worker)
        self.ok(worker, acknowledge(parks[0][0], parks[1][0]))
        self.assertEqual([item.records[0].token for item in self.drained(worker)],
                         [parks[18][0], parks[19][0]])

    def test_s126_not_more_than_16_of_all_its_groups(self):
        maker, worker = self.client(), self.client()
        for group in (G, b"h"):
            self.fired(maker, 12, group)
        for group in (G, b"h"):
            self.ok(worker, attach(group, 100))
        got = self.drained(worker)
        self.assertEqual(len(got), UNSETTLED_MAX)
        self.ok(worker, acknowledge(*(item.records[0].token for item in got)))
        self.assertEqual(len(self.drained(worker)), 8)

    def test_s126_at_random(self):
        print(f"READYD_SEED={SEED}")
        numbers = random.Random(SEED)
        maker = self.client()
        workers = [Model(self.worker_of(more=0, capacity=n)) for n in (1, 3, 20, 40)]
        fired, owned = set(), set()

        def look():
            for worker in workers:
                while worker.client.receive(0):
                    pass
                for message in worker.client.handouts:
                    worker.gets(self, message)
                worker.client.handouts.clear()

        def settled():
            look()
            group = self.group()
            look()
            return group.credit == sum(worker.credit for worker in workers) and (
                group.capacity == sum(worker.capacity for worker in workers))

        for _ in range(250):
            worker = numbers.choice(workers)
            step = numbers.random()
            if step < 0.4:
                secret, _, b = self.parked(maker, group=G)
                b.send(b"x")
                fired.add(secret)
            elif step < 0.6:
                worker.capacity = numbers.randint(max(1, worker.credit), 40)
                more = numbers.randint(0, worker.capacity - worker.credit)
                # hand-outs that are under way make the credit smaller, never larger
                self.ok(worker.client, attach(G, more, worker.capacity))
                worker.credit += more
            elif step < 0.9 and worker.unsettled:
                secret, fd = worker.unsettled.popitem()
                if numbers.random() < 0.7:
                    self.ok(worker.client, acknowledge(secret))
                    self.assertNotIn(secret, owned)
                    owned.add(secret)
                else:
                    self.ok(worker.client, held((secret, 0)))
                fd.close()
            else:
                until(settled, "credit and capacity are what they should be")
            look()
        helper = Model(self.worker_of(more=1000))
        workers.append(helper)
        end = time.monotonic() + PATIENCE
        while owned != fired:
            self.assertLess(time.monotonic(), end, f"lost: {len(fired - owned)}")
            look()
            for worker in workers:
                while worker.unsettled:
                    secret, fd = worker.unsettled.popitem()
                    self.ok(worker.client, acknowledge(secret))
                    self.assertNotIn(secret, owned)
                    owned.add(secret)
                    fd.close()
        until(settled, "credit and capacity are what they should be")
        self.assertEqual(self.rows(), {})

    # ---- Workers that do not read, and that go ----

    def test_a_worker_that_does_not_read_stops_nobody(self):
        maker = self.client()
        deaf = self.worker_of(more=3)
        room = select.poll()
        room.register(deaf.socket, select.POLLOUT)
        while room.poll(300):
            with contextlib.suppress(BlockingIOError):
                deaf.send(*[sync()] * 2000, block=False)
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

    # ---- Listing ----

    def test_groups_are_listed(self):
        maker = self.client()
        names = [b"g%d" % n for n in range(5)] + [b"n" * 255, "gr\u00fcn".encode()]
        for name in names:
            self.parked(maker, group=name)
        self.parked(maker)  # in none
        worker = self.worker_of(b"g1", 2, 7)
        self.ok(worker, attach(b"only", 3, 4))
        for limit in (0, 1, 3):
            listed = {item.name: item.row for item in maker.groups(limit=limit)}
            self.assertEqual(set(listed), {*names, b"only"}, limit)
        self.assertEqual({row.uid for row in listed.values()}, {os.getuid()})
        row = listed[b"g1"]
        self.assertEqual((row.parks, row.workers, row.credit, row.capacity), (1, 1, 2, 7))
        row = listed[b"only"]
        self.assertEqual((row.parks, row.workers, row.credit, row.capacity), (0, 1, 3, 4))
        self.assertEqual({item.name for item in maker.groups(uid=os.getuid())}, set(listed))
        self.assertEqual(list(maker.groups(uid=os.getuid() + 1)), [])
        self.ok(worker, detach(b"only"))
        self.ok(maker, drop(number=next(number for number, item in self.rows().items()
                                        if item.group == b"g0")))
        self.assertEqual({item.name for item in maker.groups()}, set(names[1:]))
        worker.close()
        until(lambda: self.group(b"g1").workers == 0, "its end")

    def test_the_features_say_so(self):
        self.assertIn("groups", self.client(features=("park", "groups")).features)


class Model:
    """What a worker was promised, and has."""

    def __init__(self, client):
        self.client, self.credit, self.unsettled = client, 0, {}
        self.capacity = 1

    def gets(self, test, message):
        secret = message.records[0].token
        self.credit -= 1
        test.assertGreaterEqual(self.credit, 0, "more than it asked for")
        test.assertNotIn(secret, self.unsettled)
        self.unsettled[secret] = test.keep(Fd(message.fds[0]))
        test.assertLessEqual(len(self.unsettled), UNSETTLED_MAX)


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


globals().update(variants(Work))
del Work  # not a test by itself


class Unread(Groups, Bench):
    @classmethod
    def start(cls):
        return Daemon("limits: {fds-unread: 3}\npark-max-age: 0s\n")

    def test_the_quota_bounds_all_workers_of_a_user(self):
        maker = self.client()
        workers = [self.worker_of(more=5) for _ in range(2)]
        parks = self.fired(maker, 6)
        got = [(client, item.records[0].token) for client in workers
               for item in self.drained(client)]
        self.assertEqual(sorted(secret for _, secret in got),
                         sorted(secret for secret, _, _ in parks[:3]))
        self.refused(maker, take(token=parks[5][0]), Error.QUOTA, detail=Quota.FDS_UNREAD,
                     value=3)
        self.ok(got[0][0], acknowledge(got[0][1]))
        until(lambda: self.group().handed == 3, "another one")
        self.ok(got[1][0], held((got[1][1], 0)))
        until(lambda: self.group().handed == 3, "another one")
        for client in workers:
            client.close()
        until(lambda: self.group().handed == 0, "all are parked again")
        self.assertEqual(self.group().ready, 5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
