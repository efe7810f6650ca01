#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups over the wire: who gets what, when, and never more than he asked for (sections 5.22, 5.23,
5.26, 5.33 and 11.10 of protocol/PROTOCOL.md). READYD names the daemon; READYD_SEED, if set, says
what the random numbers begin with.
"""

import os
import random
import time
import unittest

from groups import G, UNSETTLED_MAX, Groups
from parks import PATIENCE, Bench, Fd, token, until, variants
from daemon import Daemon
from readyd_client import (
    READ, WRITE, Code, Error, ParkFlag, ParkState, Quota, Type, acknowledge, attach, claim, detach,
    drop, held, park, take)

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

    def test_parked_again_and_again(self):
        """As between the requests of one connection: also with the token from before, and all of a
        worker's requests in one datagram."""
        maker = self.client()
        workers = [self.worker_of(), self.worker_of()]
        secret, number, b = self.parked(maker, group=G)
        numbers = {number}
        for turn in range(60):
            b.send(b"%d" % turn)
            until(lambda: any(client.receive(0) for client in workers), "a HANDOUT")
            worker, = [client for client in workers if client.handouts]
            message, fd = self.given(worker)
            self.assertEqual((message.records[0].token, message.records[0].park),
                             (secret, number))
            again = secret if turn % 2 else token()
            options = {"group": G, "note": b"%d" % turn}
            if turn % 3:
                self.ok(worker, acknowledge(secret))
                self.assertEqual(os.read(fd.fileno(), 100), b"%d" % turn)
                number = self.ok(worker, park(fd, again, **options)).value
                fd.close()
                self.ok(worker, attach(G, 1))
            else:
                self.assertEqual(os.read(fd.fileno(), 100), b"%d" % turn)
                outcomes = worker.call(acknowledge(secret), park(fd, again, **options),
                                       attach(G, 1))
                self.assertEqual([item.error for item in outcomes], [Error.OK] * 3)
                number = outcomes[1].value
                fd.close()
            secret = again
            self.assertNotIn(number, numbers)
            numbers.add(number)
        self.idle(*workers)
        self.alive(b)
        self.assertEqual(list(self.rows()), [number])

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
        workers = [Model(self.worker_of(more=0, capacity=n), 0, n) for n in (1, 3, 20, 40)]
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
        workers.append(Model(self.worker_of(more=1000), 1000, 1000))
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

    def __init__(self, client, credit, capacity):
        self.client, self.credit, self.capacity = client, credit, capacity
        self.unsettled = {}

    def gets(self, test, message):
        secret = message.records[0].token
        self.credit -= 1
        test.assertGreaterEqual(self.credit, 0, "more than it asked for")
        test.assertNotIn(secret, self.unsettled)
        self.unsettled[secret] = test.keep(Fd(message.fds[0]))
        test.assertLessEqual(len(self.unsettled), UNSETTLED_MAX)


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
