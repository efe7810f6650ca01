#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks while the loop, their holder, and those who have them in hand are killed.

The clients do what section 12.6 of protocol/PROTOCOL.md says. READYD names the daemon; READYD_SEED
and READYD_ROUNDS, if set, say what the random numbers begin with and how many rounds there are.
"""

import os
import random
import select
import signal
import threading
import time
import unittest

from parks import PATIENCE, BenchOfDeaths, Fd, fds_of, holders, now, token, until, variants
from readyd_client import (
    NO_TOKEN, READ, Client, Code, ConnectionEnded, Error, Flag, ParkFlag, ParkState, acknowledge,
    claim, drop, held, park, take)

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
ROUNDS = int(os.environ.get("READYD_ROUNDS", "100"))
MS = 1_000_000
SECOND = 1000 * MS


class Steady:
    """A client that comes back with what it holds, for as long as that takes."""

    def __init__(self, d):
        self.d, self.handle = d, os.urandom(16)
        self.in_hand, self.owned = {}, {}  # Fd by token: received; ours
        self.takes = False
        self.made = []  # tokens of parks whose PARK was answered
        self.ends = 0
        self.client = self.answerer = None
        self.connect()

    def connect(self):
        end = time.monotonic() + PATIENCE
        while True:
            said = [*((secret, 1) for secret in self.in_hand), (NO_TOKEN, 0)]
            try:
                self.client = Client(self.d.socket, timeout=PATIENCE, handle=self.handle,
                                     pipeline=[held(*said)] if self.takes else ())
                if self.takes:
                    self.settle(said, self.client.outcome(self.client.pipelined[0]))
                return
            except (ConnectionEnded, ConnectionError):
                assert time.monotonic() < end, "the daemon does not come back"
                if self.client:
                    self.client.close()
                time.sleep(0.001)

    def settle(self, said, outcome):
        """The answer to ACKNOWLEDGE or HELD: what is ours now, and what never was."""
        refused = {item.index for item in outcome.failures}
        for index, (secret, has) in enumerate(said):
            fd = self.in_hand.pop(secret, None) if has else None
            if fd and index in refused:
                fd.close()
            elif fd:
                self.owned[secret] = fd

    def received(self):
        for message in self.client.handouts:
            self.in_hand[message.records[0].token] = Fd(message.fds[0])
        self.client.handouts.clear()

    def come_back(self):
        self.client.read_to_the_end()
        self.received()
        self.client.close()
        self.client = None
        self.ends += 1
        self.connect()
        if self.made:
            self.ask(claim(*self.made))

    def notice(self):
        """Comes back if the connection has ended."""
        try:
            while self.client.receive(0):
                pass
        except ConnectionEnded:
            self.come_back()

    def park(self, fd, secret, **options):
        outcome = self.ask(park(fd, secret, **options))
        if outcome.error == Error.OK and secret not in self.made:
            self.made.append(secret)
        return outcome

    def ask(self, request, settles=()):
        """The request's outcome; it is repeated until there is one. With `settles`, what
        connecting anew says of these is as good, and the outcome then None."""
        while True:
            client = self.answerer = self.client
            serial = None
            try:
                serial, = client.send(request._replace(flags=request.flags | Flag.ANSWER))
                outcome = client.outcome(serial)
            except ConnectionEnded:
                client.read_to_the_end()
                outcome = client._done.get(serial)
                if outcome and settles:
                    self.settle(settles, outcome)
                self.come_back()
                if settles:
                    return None
                if outcome:
                    return outcome
            else:
                if settles:
                    self.settle(settles, outcome)
                return outcome

    def take(self, secret, give_back=False):
        """OK, or why not. OK is: `secret` is in `owned`, or was given back."""
        self.takes = True
        while True:
            error = self.ask(take(token=secret)).error
            if error != Error.OK:
                return error
            self.received()
            try:
                while self.client is self.answerer and secret not in self.in_hand:
                    self.client.receive(PATIENCE)
                    self.received()
            except ConnectionEnded:
                self.come_back()
            if secret in self.owned:
                return Error.OK
            if secret in self.in_hand and give_back:
                self.in_hand.pop(secret).close()
                self.ask(held((secret, 0)))
                return Error.OK
            if secret in self.in_hand:
                self.ask(acknowledge(secret), settles=[(secret, 1)])
                if secret in self.owned:
                    return Error.OK

    def close(self):
        if self.client:
            self.client.close()
        for fd in [*self.in_hand.values(), *self.owned.values()]:
            fd.close()


class Deaths(BenchOfDeaths):
    # ---- The loop dies ----

    def test_s107_a_park_is_what_it_was(self):
        client = self.client()
        options = {"name": b"n", "group": b"g", "note": b"a note", "cookie": 11, "local": b"12",
                   "peer": b"345", "deadline": 3600 * SECOND}
        secret, number, b = self.parked(client, flags=ParkFlag.RELATIVE, **options)
        _, other, b2 = self.parked(client)
        told, number3, b3 = self.parked(client, deadline=1, flags=ParkFlag.DEADLINE_HAND)
        b.send(b"before")
        self.assertEqual(self.entry(client).park, number3)
        self.ready_row(number)  # parks of a group are told to nobody
        before = self.rows()
        for death in range(3):
            self.kill_loop()
            after = until(lambda: len(found := self.rows()) == 3 and found, "all parks")
            self.assertEqual(self.ready_row(number).ready, READ)
            for each in (number, other, number3):
                self.assertEqual(self.alike(after[each]), self.alike(before[each]))
            self.assertEqual(after[number3].row.timed_out, 1)
        self.assertEqual(self.row(other).ready, 0)
        b2.send(b"after")
        self.ready_row(other)
        taker = self.again_client()
        message, fd = self.taken(taker, name=b"n", group=b"g")
        self.assertEqual(message.tail, b"nga note12345")
        record = message.records[0]
        self.assertEqual((record.token, record.park, record.cookie, record.parked, record.read),
                         (secret, number, 11, before[number].row.parked, Code.READY))
        self.assertEqual(os.read(fd.fileno(), 100), b"before")
        fd.close()
        self.ended(b)
        message, fd = self.taken(taker, token=told)
        self.assertIn(Code.TIMEOUT, message.records[0].read | message.records[0].write)

    @staticmethod
    def alike(item):
        return item._replace(row=item.row._replace(cursor=0, pid=0, ready=0))

    def test_written_while_there_is_no_loop(self):
        for _ in range(5):
            client = self.again_client()
            secret, number, b = self.parked(client)
            os.kill(client.welcome.pid, signal.SIGKILL)
            b.send(b"x")
            self.next_loop(client.welcome.pid)
            self.ready_row(number)
            client = self.again_client()
            self.ok(client, claim(secret))  # the loop may have died before it noted its answer
            message, fd = self.taken(client, token=secret)
            self.assertEqual(message.records[0].read, Code.READY)
            self.assertEqual(os.read(fd.fileno(), 100), b"x")

    def test_claimed_after_a_death(self):
        maker = self.client()
        secret, number, b = self.parked(maker)
        later, number2, b2 = self.parked(maker)
        b.send(b"x")
        self.entry(maker)
        for handle in (maker.handle, os.urandom(16)):
            self.kill_loop()
            client = self.again_client(handle=handle)
            self.assertEqual(self.ok(client, claim(secret, later)).value, number2)
            self.assertEqual(self.entry(client).park, number)
            self.nothing(client)
        b2.send(b"x")
        self.assertEqual(self.entry(client).park, number2)

    def test_repeated_after_a_death(self):
        a, b = self.pair()
        secret = token()
        number = self.ok(self.client(), park(a, secret, name=b"n")).value
        for _ in range(3):
            self.kill_loop()
            client = self.again_client()
            self.assertEqual(self.ok(client, park(a, secret, name=b"n")).value, number)
            self.refused(client, park(a, token(), name=b"n"), Error.EXISTS)
        self.assertEqual(list(self.rows()), [number])
        a.close()
        _, fd = self.taken(client, token=secret)
        fd.close()
        self.ended(b)

    def test_s115_none_comes_back_that_was_taken(self):
        client = self.again_client()
        for _ in range(15):
            parks = [self.parked(client, note=b"%d" % n) for n in range(6)]
            _, fd = self.taken(client, token=parks[0][0])
            fd2 = self.handed(client, token=parks[1][0])[1]
            self.ok(client, drop(token=parks[2][0]))
            _, _, expired = self.parked(client, deadline=1)
            self.ended(expired)
            # the last word before the death
            self.ok(client, acknowledge(parks[1][0]))
            self.kill_loop()
            until(lambda: set(self.rows()) == {number for _, number, _ in parks[3:]},
                  "what was there, and nothing else")
            fd.close()
            fd2.close()
            for _, _, b in parks[:3]:
                self.ended(b)
            client = self.again_client()
            for n, (secret, _, b) in enumerate(parks[3:], 3):
                message, fd = self.taken(client, token=secret)
                self.assertEqual(message.tail, b"%d" % n)
                self.carries(fd, b)
                fd.close()
                self.ended(b)
            self.assertEqual(self.rows(), {})

    def test_deadlines_go_on(self):
        client = self.client()
        start = now()
        parks = [self.parked(client, deadline=n * 40 * MS, flags=ParkFlag.RELATIVE)
                 for n in range(1, 8)]
        # that PARK was answered may be recorded later; CLAIM is before its answer, but for those that
        # are over on a slow machine
        client.call(claim(*(secret for secret, _, _ in parks)))
        peers = [peer for _, _, peer in parks]
        for n, peer in enumerate(peers, 1):
            if n % 2:
                self.kill_loop()
            self.ended(peer)
            self.assertGreaterEqual(now(), start + n * 40 * MS - MS)
        until(lambda: not self.rows(), "all parks are gone")

    # ---- Hand-outs ----

    def test_a_hand_out_stays_until_its_worker_says_more(self):
        for has in (True, False):
            maker, taker = self.again_client(), self.again_client()
            secret, number, b = self.parked(maker)
            rest, number2, _ = self.parked(maker)
            _, fd = self.handed(taker, token=secret)
            _, fd2 = self.handed(taker, token=rest)
            for _ in range(2):
                self.kill_loop()
                row = until(lambda: (found := self.rows()).get(number) and found, "the park")
                self.assertEqual((row[number].row.state, row[number].row.worker_pid),
                                 (ParkState.HANDED, os.getpid()))
            stranger = self.again_client()
            self.refused(stranger, take(token=secret), Error.NOT_FOUND)
            self.refused(stranger, held((secret, 1)), Error.NOT_FOUND)
            back = self.again_client(handle=taker.handle)
            self.ok(back, held((secret, has), (NO_TOKEN, 0)))
            fd2.close()
            self.parked_again(number2)
            self.taken(stranger, token=rest)
            if not has:
                fd.close()
                self.parked_again(number)
                _, fd = self.taken(stranger, token=secret)
            self.assertEqual(self.rows(), {})
            self.carries(fd, b)
            fd.close()
            self.ended(b)

    def test_the_worker_dies_with_the_loop(self):
        for first in ("loop", "worker", "both"):
            client = self.again_client()
            secret, number, b = self.parked(client)
            worker = self.worker("take", secret.hex())
            self.assertEqual(worker.line(), "done")
            if first == "loop":
                self.kill_loop()
                row = until(lambda: self.rows().get(number), "the park").row
                self.assertEqual((row.state, row.worker_pid), (ParkState.HANDED, worker.pid))
                worker.kill()
            elif first == "worker":
                worker.kill()
                self.kill_loop()
            else:
                os.kill(client.welcome.pid, signal.SIGKILL)
                worker.kill()
                self.next_loop(client.welcome.pid)
            until(lambda: number in self.rows(), "the park")
            self.parked_again(number, ready=False)
            _, fd = self.taken(self.again_client(), token=secret)
            self.carries(fd, b)

    # ---- The holder dies ----

    def holder(self):
        """The only holder, once there is one."""
        return until(lambda: len(pids := holders(self.d)) == 1 and pids[0], "one holder")

    def kill_holder(self, parks):
        """Kills the holder, and waits until the next one has so many fds of parks."""
        old = self.holder()
        os.kill(old, signal.SIGKILL)
        until(lambda: old not in holders(self.d), "the holder is gone")
        until(lambda: len({link for link in fds_of(self.holder()).values()
                           if link.startswith("socket:")}) >= parks, "the next one has the parks")

    def test_the_holder_dies_and_then_the_loop(self):
        parks = [self.parked(self.again_client(), note=b"%d" % n) for n in range(40)]
        client = self.again_client()
        handed, _ = self.handed(client, token=parks[0][0])
        handed_fd = self.kept[-1]
        for death in range(3):
            self.kill_holder(40)
            self.assertEqual(len(self.rows()), 40)
            self.kill_loop()
            until(lambda: set(self.rows()) == {number for _, number, _ in parks}, "all parks")
            client = self.again_client(handle=client.handle)
        self.assertEqual(self.row(parks[0][1]).state, ParkState.HANDED)
        self.ok(client, held((parks[0][0], 1)))
        self.carries(handed_fd, parks[0][2])
        for n, (secret, _, b) in list(enumerate(parks))[1:]:
            message, fd = self.taken(client, token=secret)
            self.assertEqual(message.tail, b"%d" % n)
            self.carries(fd, b)
            fd.close()
            self.ended(b)

    def test_all_goes_on_while_the_holder_dies(self):
        client = self.again_client()
        for _ in range(10):
            secret, _, b = self.parked(client)
            gone, _, b2 = self.parked(client)
            os.kill(self.holder(), signal.SIGKILL)
            _, _, b3 = self.parked(client)
            _, fd = self.taken(client, token=secret)
            self.carries(fd, b)
            fd.close()
            self.ended(b)
            self.ok(client, drop(token=gone))
            self.ended(b2)
            self.alive(b3)

    def test_loop_and_holder_die_together(self):
        """The parks are lost then: nobody else had them. The daemon goes on serving."""
        for order in ("holder", "loop"):
            with self.again() as client:
                self.parked(client)
                pids = [self.holder(), client.welcome.pid]
            for pid in pids if order == "holder" else reversed(pids):
                os.kill(pid, signal.SIGKILL)
            self.next_loop(pids[1])
            client = self.again_client()
            secret, _, b = self.parked(client)
            _, fd = self.taken(client, token=secret)
            self.carries(fd, b)

    # ---- At random moments ----

    def test_s112_at_random_moments(self):
        print(f"READYD_SEED={SEED}")
        numbers = random.Random(SEED)
        people = [self.keep(Steady(self.d)) for _ in range(3)]
        kinds = (self.round_two_workers, self.round_drop, self.round_deadline,
                 self.round_deadline_and_worker)
        done = {}
        for number in range(ROUNDS):
            kind = numbers.choice(kinds)
            delays = [numbers.random() * 0.006 for _ in range(numbers.randint(1, 3))]
            try:
                self.at_once([lambda: self.kill_after(delays)],
                             kind(people, random.Random(numbers.random())))
                until(lambda: not self.rows(), "the park is gone")
            except BaseException:
                print(f"round {number}, {kind.__name__}, kills after {delays}")
                raise
            done[kind.__name__] = done.get(kind.__name__, 0) + 1
        print(f"{done}, {sum(each.ends for each in people)} connections ended")
        self.assertGreater(sum(each.ends for each in people), ROUNDS)

    def kill_after(self, delays):
        for delay in delays:
            time.sleep(delay)
            self.kill_loop()

    def at_once(self, functions, steps):
        """Runs the functions in threads, and beside them the steps, each when the one before is
        through; a step that is a list is run in threads, too."""
        errors = []

        def guarded(function):
            try:
                function()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(each,)) for each in functions]
        for thread in threads:
            thread.start()
        try:
            for step in steps:
                more = [threading.Thread(target=guarded, args=(each,)) for each in step]
                for thread in more:
                    thread.start()
                for thread in more:
                    thread.join()
                if errors:
                    break
        finally:
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    def park_one(self, person, **options):
        a, b = self.pair()
        secret = token()
        outcome = person.park(a, secret, **options)
        self.assertEqual(outcome.error, Error.OK)
        a.close()
        return secret, b

    def round_two_workers(self, people, numbers):
        """Both want it, and now and then give it back: in the end one has it."""
        secret, b = self.park_one(people[0])
        over = threading.Event()
        end = time.monotonic() + PATIENCE

        def want(person, mine):
            while not over.is_set():
                if person is people[1]:
                    people[0].notice()
                error = person.take(secret, give_back=mine.random() < 0.3)
                self.assertIn(error, (Error.OK, Error.NOT_FOUND, Error.BUSY))
                if secret in person.owned:
                    over.set()
                assert time.monotonic() < end, "lost: nobody gets it"
                time.sleep(mine.random() * 0.001)

        yield [lambda who=who, mine=random.Random(numbers.random()): want(who, mine)
               for who in people[1:]]
        owners = [person for person in people if secret in person.owned]
        self.assertEqual(len(owners), 1, "owners")
        self.finish(owners[0], secret, b)

    def finish(self, owner, secret, peer):
        fd = owner.owned.pop(secret)
        self.carries(fd, peer)
        fd.close()
        self.ended(peer)

    def round_drop(self, people, _):
        secret, b = self.park_one(people[0])
        self.alive(b)
        ends = people[1].ends
        error = people[1].ask(drop(token=secret)).error
        while error == Error.BUSY:
            people[0].notice()
            error = people[1].ask(drop(token=secret)).error
        # a repeated DROP does not find what the first one did away with
        self.assertIn(error, (Error.OK, Error.NOT_FOUND) if people[1].ends > ends else (Error.OK,))
        self.ended(b)
        yield []

    def park_for_a_while(self, person, numbers):
        """With a deadline: token, peer, and a function that checks that the end was not early."""
        after = int(numbers.random() * 8 * MS) + 1
        start = time.monotonic_ns()  # before the daemon's clock is looked at
        secret, b = self.park_one(person, deadline=after, flags=ParkFlag.RELATIVE)

        def ended():
            until(lambda: person.notice() or select.select([b], [], [], 0.001)[0], "its end")
            self.ended(b)
            self.assertGreaterEqual(time.monotonic_ns(), start + after, "the park was lost")

        return secret, b, ended

    def round_deadline(self, people, numbers):
        _, _, ended = self.park_for_a_while(people[0], numbers)
        ended()
        yield []

    def round_deadline_and_worker(self, people, numbers):
        """Either the deadline ends it, or the worker has it, whole."""
        secret, b, ended = self.park_for_a_while(people[0], numbers)
        error = people[1].take(secret)
        while error == Error.BUSY:
            people[0].notice()
            error = people[1].take(secret)
        if error == Error.OK:
            self.finish(people[1], secret, b)
        else:
            self.assertEqual(error, Error.NOT_FOUND)
            ended()
        yield []


globals().update((name, case) for name, case in variants(Deaths).items() if case.keeper)
del Deaths  # not a test by itself


if __name__ == "__main__":
    unittest.main(verbosity=2)
