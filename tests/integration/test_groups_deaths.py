#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups while workers and the loop are killed, by the rules of sections 11.10 and 12.6 of
protocol/PROTOCOL.md: what was parked is handed to one owner, once, or dies with him.

READYD names the daemon; READYD_SEED and READYD_KILLS, if set, say what the random numbers begin
with and how many processes are killed.
"""

import collections
import contextlib
import os
import random
import select
import signal
import socket
import struct
import tempfile
import time
import unittest

from groups import G, Forked, Groups
from parks import PATIENCE, BenchOfDeaths, Fd, token, until, variants
from readyd_client import (
    NO_TOKEN, Client, Code, ConnectionEnded, Error, ParkFlag, ParkState, acknowledge, attach, claim,
    held, park)
from test_parks_deaths import Steady

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
KILLS = int(os.environ.get("READYD_KILLS", "300"))
MS = 1_000_000


class Attached(Steady):
    """A worker that comes back by section 12.6, for as long as that takes. It is at work at what
    is in `owned`."""

    def __init__(self, d, capacity, group=G):
        self.capacity, self.group = capacity, group
        self.refused = []  # errors of ATTACH, which none should have
        super().__init__(d)
        self.takes = True

    def connect(self):
        while True:
            self.about_to_say()
            super().connect()
            try:
                self.say(self.capacity - len(self.owned))
                return
            except ConnectionEnded:
                self.client.read_to_the_end()
                self.received()
                self.client.close()

    def about_to_say(self):
        """On a new connection, of what is in hand: that it is."""

    def say(self, more):
        error = self.client.call(attach(self.group, more, self.capacity)).error
        if error != Error.OK:
            self.refused.append(error)

    def once(self, step):
        """Does it, or comes back, which is as good."""
        try:
            step()
        except ConnectionEnded:
            self.come_back()

    def next(self):
        """Waits until something is in hand."""
        self.received()
        while not self.in_hand and not self.refused:
            self.once(lambda: self.client.receive(None))
            self.received()

    def acknowledge(self, secret):
        """Whether it is ours."""
        self.ask(acknowledge(secret), settles=[(secret, 1)])
        return secret in self.owned

    def gives_back(self, secret):
        self.in_hand.pop(secret).close()
        self.once(lambda: self.client.call(held((secret, 0))))

    def done(self, secret):
        """Says so after it has closed it."""
        self.owned.pop(secret).close()
        self.once(lambda: self.say(1))


class Deaths(Groups, BenchOfDeaths):
    # ---- The loop dies ----

    def setUp(self):
        super().setUp()
        self.made = []

    def parked(self, client, **options):
        result = super().parked(client, **options)
        self.made.append(result[0])
        return result

    def claim_all(self):
        """As section 12.6 says: the loop may have died before it noted its answers."""
        with self.again() as client:
            if self.made:
                client.call(claim(*self.made))

    def killed(self):
        self.kill_loop()
        self.claim_all()

    def settle(self):
        self.claim_all()
        super().settle()

    def comes_back(self, old, **options):
        return self.again_client(handle=old.handle, **options)

    def test_attached_anew(self):
        maker = self.again_client()
        worker = self.again_client()
        self.ok(worker, attach(G, 3))
        parks = [self.parked(maker, group=G) for _ in range(4)]
        self.fire(parks[0])
        self.owned(worker)
        for secret, _, b in parks[1:]:
            self.killed()
            worker = self.comes_back(worker)
            b.send(b"x")
            number = next(number for known, number, _ in parks if known == secret)
            self.ready_row(number)
            self.idle(worker)  # it is not attached by itself
            self.assertEqual(self.group().workers, 0)
            self.ok(worker, held((NO_TOKEN, 0)))
            self.ok(worker, attach(G, 1, 3))
            message, fd = self.owned(worker)
            self.assertEqual((message.records[0].token, message.records[0].read),
                             (secret, Code.READY))
            self.carries(fd, b)

    def test_handed_out_when_the_loop_dies(self):
        """What each says of it is heeded, and nobody else gets it before."""
        for has in (True, False):
            worker, other = self.again_client(), self.again_client()
            self.ok(worker, attach(G, 3))
            parks = [self.parked(other, group=G) for _ in range(3)]
            self.fire(*parks)
            got = [self.given(worker) for _ in range(2)]  # the third is not received
            for _ in range(2):
                self.killed()
                other = self.again_client()
                self.ok(other, attach(G, 9))
                self.idle(other)
                self.assertEqual({number: item.row.state for number, item in self.rows().items()},
                                 {number: ParkState.HANDED for _, number, _ in parks})
                self.assertEqual(self.group().handed, 3)
            back = self.comes_back(worker)
            tokens = [message.records[0].token for message, _ in got]
            self.ok(back, held((tokens[0], 1), (tokens[1], int(has)), (NO_TOKEN, 0)))
            self.carries(got[0][1], parks[0][2])
            expected = parks[2:] if has else parks[1:]
            if has:
                self.carries(got[1][1], parks[1][2])
            else:
                got[1][1].close()
            found = dict(self.token_and_fd(other) for _ in expected)
            self.assertEqual(set(found), {secret for secret, _, _ in expected})
            for secret, _, b in expected:
                self.carries(found[secret], b)
            self.idle(other)
            self.assertEqual(self.rows(), {})
            other.close()

    def token_and_fd(self, client):
        message, fd = self.owned(client)
        return message.records[0].token, fd

    def test_what_a_group_is_after_a_death(self):
        maker = self.again_client()
        parks = [self.parked(maker, group=group, name=b"n", cookie=n)
                 for n, group in enumerate((G, b"h", b"n" * 255, "gr\u00fcn".encode(), b""))]
        self.parked(maker, group=G)
        self.fire(parks[0])
        before = {number: (item.group, item.name, item.row.shared, item.row.uid, item.row.cookie)
                  for number, item in self.rows().items()}
        for _ in range(3):
            self.killed()
            until(lambda: len(self.rows()) == len(before), "all parks")
            self.ready_row(parks[0][1])
            self.assertEqual({number: (item.group, item.name, item.row.shared, item.row.uid,
                                       item.row.cookie) for number, item in self.rows().items()},
                             before)
            with self.again() as client:
                groups = {item.name: item.row for item in client.groups()}
            self.assertEqual(set(groups), {G, b"h", b"n" * 255, "gr\u00fcn".encode()})
            self.assertEqual((groups[G].parks, groups[G].ready, groups[b"h"].parks,
                              groups[b"h"].ready), (2, 1, 1, 0))

    def test_a_description_that_is_parked_twice(self):
        maker = self.again_client()
        a, b = self.pair()
        file = self.keep(tempfile.TemporaryFile())
        secret = token()
        number = self.ok(maker, park(a, secret, group=G)).value
        other = token()
        self.ok(maker, park(file, other, group=G, flags=ParkFlag.HOLD_ONLY))
        worker = self.again_client()
        for death in range(4):
            self.killed()
            client = self.again_client()
            self.assertEqual(self.ok(client, park(a, secret, group=G)).value, number)
            self.ok(client, claim(other))
            for fd, flags in ((a, ParkFlag(0)), (file, ParkFlag.HOLD_ONLY)):
                with contextlib.closing(Fd(os.dup(fd.fileno()))) as copy:
                    self.refused(client, park(copy, token(), group=G, flags=flags), Error.EXISTS)
            if death == 1:  # and now it is handed out
                b.send(b"x")
                self.ready_row(number)
                self.ok(worker := self.again_client(), attach(G, 1))
                self.given(worker)
        back = self.comes_back(worker)
        self.ok(back, held((secret, 1)))
        self.ok(back, park(a, token(), group=G))

    def test_a_deadline_passes_while_it_is_handed_out_and_the_loop_dies(self):
        client = self.again_client()
        kept, dropped, hand = [
            self.parked(client, group=G, deadline=client.now() + 1500 * MS, flags=flags)
            for flags in (ParkFlag(0), ParkFlag(0), ParkFlag.DEADLINE_HAND)]
        worker = self.again_client()
        self.ok(worker, attach(G, 3))
        self.fire(kept, dropped, hand)
        fds = [self.given(worker)[1] for _ in range(3)]
        self.killed()
        until(lambda: client.now() > self.rows()[hand[1]].row.deadline, "the deadline")
        for _, _, b in (kept, dropped, hand):
            self.alive(b)
        for fd in fds[1:]:
            fd.close()
        other = self.again_client()
        self.ok(other, attach(G, 3))
        self.ok(self.comes_back(worker), held((kept[0], 1), (NO_TOKEN, 0)))
        self.carries(fds[0], kept[2])
        self.ended(dropped[2])
        message, fd = self.owned(other)
        self.assertEqual(message.records[0].token, hand[0])
        self.assertTrue((message.records[0].read | message.records[0].write) & Code.TIMEOUT)
        self.carries(fd, hand[2])
        self.idle(other)

    def test_a_deadline_that_passes_while_there_is_no_loop(self):
        client = self.again_client()
        when = client.now() + 100 * MS
        hand, _, b = self.parked(client, group=G, deadline=when, flags=ParkFlag.DEADLINE_HAND)
        _, _, ends = self.parked(client, group=G, deadline=when)
        os.kill(client.welcome.pid, signal.SIGKILL)
        until(lambda: client.now() > when, "the deadline")
        self.next_loop(client.welcome.pid)
        self.claim_all()
        worker = self.again_client()
        self.ok(worker, attach(G, 2))
        message, fd = self.owned(worker)
        self.assertEqual((message.records[0].token,
                          message.records[0].read | message.records[0].write),
                         (hand, Code.TIMEOUT))
        self.carries(fd, b)
        self.ended(ends)
        self.idle(worker)

    def test_the_worker_dies_with_the_loop(self):
        def lazy(say, _, address):
            client = Client(address, timeout=PATIENCE)
            client.call(attach(G, 2)).check()
            for _ in range(2):
                say(client.handout(0).records[0].park)
            return client

        for first in ("loop", "worker", "both"):
            client = self.again_client()
            parks = [self.parked(client, group=G) for _ in range(3)]
            worker = self.forked(lazy, self.d.socket)
            until(lambda: (row := self.group()) and row.workers, "it has attached")
            self.fire(*parks)
            self.assertEqual([worker.line(), worker.line()],
                             [str(number) for _, number, _ in parks[:2]])
            if first == "loop":
                self.killed()
                until(lambda: len(self.rows()) == 3, "all parks")
                self.assertEqual({self.row(number).worker_pid for _, number, _ in parks[:2]},
                                 {worker.pid})
                worker.kill()
            elif first == "worker":
                worker.kill()
                self.killed()
            else:
                os.kill(client.welcome.pid, signal.SIGKILL)
                worker.kill()
                self.next_loop(client.welcome.pid)
                self.claim_all()
            other = self.again_client()
            self.ok(other, claim(*(secret for secret, _, _ in parks)))
            self.ok(other, attach(G, 9))
            found = dict(self.token_and_fd(other) for _ in parks)
            self.assertEqual(set(found), {secret for secret, _, _ in parks})
            for secret, _, b in parks:
                self.carries(found[secret], b)
            other.close()

    # ---- At random moments ----

    def test_s123_killed_at_random_moments(self):
        print(f"READYD_SEED={SEED}")
        with self.again() as client:
            before = client.status()[0].restarts
        run = Soak(self, random.Random(SEED), KILLS if self.main else KILLS // 6, loops=True)
        try:
            run.go()
        finally:
            run.close()
        self.sleeps()
        with self.again() as client:
            self.assertEqual(client.status()[0].restarts - before, run.loops,
                             "no loop died by itself")

    @property
    def main(self):
        return type(self).__name__ == "WithKeeper"


class DeathsOfWorkers(Groups, BenchOfDeaths):
    """Where nothing outlives the loop."""

    @classmethod
    def kill_loop(cls):
        pass

    def test_s123_killed_at_random_moments(self):
        print(f"READYD_SEED={SEED}")
        run = Soak(self, random.Random(SEED), KILLS // 6, loops=False)
        try:
            run.go()
        finally:
            run.close()
        self.sleeps()


GOT, ASKED, OWNED, BACK = 1, 2, 3, 4  # what workers log of a token
NOTE = struct.Struct("=BI16s")
STEPS = ("got", "asked", "owned", "written", "closed", "done", "given back")


class Dying(Attached):
    """A worker of the soak. It says what it does before it does it, and dies where it was told."""

    def __init__(self, d, number, log, seed, immortal):
        self.number, self.log = number, log
        self.numbers = random.Random(seed)
        mortal = not immortal and self.numbers.random() < 0.7
        self.where = self.numbers.choice(STEPS) if mortal else None
        self.steps_left = self.numbers.randint(1, 3)
        self.known = set()
        super().__init__(d, self.numbers.randint(1, 4))

    def note(self, what, secret):
        os.write(self.log, NOTE.pack(what, self.number, secret))

    def at(self, step):
        if step == self.where:
            self.steps_left -= 1
            if not self.steps_left:
                os.kill(os.getpid(), signal.SIGKILL)

    def received(self):
        super().received()
        for secret in self.in_hand.keys() - self.known:
            self.note(GOT, secret)
        self.known = set(self.in_hand)

    def about_to_say(self):
        for secret in self.in_hand:
            self.note(ASKED, secret)

    def work(self):
        while not self.refused:
            self.next()
            for secret in list(self.in_hand):
                if secret not in self.in_hand:
                    continue  # settled when it came back
                self.at("got")
                if self.numbers.random() < 0.1:
                    self.note(BACK, secret)
                    self.gives_back(secret)
                    self.at("given back")
                    self.once(lambda: self.say(1))
                else:
                    self.note(ASKED, secret)
                    if self.where == "asked":
                        self.once(lambda: self.dies_unanswered(secret))
                    if self.acknowledge(secret):
                        self.finish(secret)
            for secret in list(self.owned):  # by what was said on coming back
                self.finish(secret)

    def dies_unanswered(self, secret):
        self.client.send(acknowledge(secret))
        self.at("asked")
        self.client.sync()

    def finish(self, secret):
        self.note(OWNED, secret)
        self.at("owned")
        fd = self.owned[secret].fileno()
        os.write(fd, NOTE.pack(OWNED, self.number, secret))
        assert os.read(fd, 100) == b"x"
        self.at("written")
        self.owned[secret].close()
        self.at("closed")
        self.done(secret)
        self.at("done")


class Job:
    """A parked connection, and what has become of it."""

    def __init__(self, peer, number):
        self.peer, self.number, self.said = peer, number, b""
        self.notes = collections.defaultdict(list)


class Soak:
    """Workers and the loop are killed while connections are parked, handed out, served."""

    WORKERS, OPEN, QUIET = 4, 12, 20

    def __init__(self, test, numbers, kills, loops):
        self.test, self.numbers, self.kills = test, numbers, kills
        self.log, self.log_in = os.pipe()
        os.set_blocking(self.log, False)
        self.loops = self.deaths = self.count = 0
        self.loops_too = loops
        self.workers, self.killed, self.jobs, self.past = {}, set(), {}, {}
        self.maker = test.keep(Steady(test.d))
        self.poll = select.poll()
        self.moved = time.monotonic()

    def go(self):
        quiet = [self.park() for _ in range(self.QUIET)]
        while self.deaths < self.kills:
            self.feed()
            self.step(self.numbers.random() * 0.004)
            self.kill_one()
        self.bury_all()  # the next ones live
        while self.jobs:
            self.feed(fresh=False)
            self.step(0.01)
        self.bury_all()
        self.read_log()
        self.check(quiet)

    def close(self):
        for worker in self.workers.values():
            worker.close()
        for job in [*self.jobs.values(), *self.past.values()]:
            job.peer.close()
        os.close(self.log)
        os.close(self.log_in)

    # One turn.

    def park(self):
        a, b = socket.socketpair()
        secret = token()
        outcome = self.maker.park(a, secret, group=G, note=secret)
        self.test.assertEqual(outcome.error, Error.OK)
        a.close()
        return secret, outcome.value, b

    def feed(self, fresh=True):
        """As many connections and workers as there should be."""
        self.maker.notice()
        while fresh and len(self.jobs) < self.OPEN:
            secret, number, b = self.park()
            b.send(b"x")
            self.jobs[secret] = Job(b, number)
            self.poll.register(b, select.POLLIN)
        while len(self.workers) < self.WORKERS:
            self.count += 1
            self.workers[self.count] = Forked(
                serve, self.test.d, self.count, self.log_in, self.numbers.random(), not fresh,
                keep=[self.log_in])

    def step(self, seconds):
        """What peers and workers have to say in this time."""
        end = time.monotonic() + seconds
        for number in [number for number, worker in self.workers.items() if worker.has_ended()]:
            self.bury(number)
        self.read_log()
        if self.poll.poll(max(0, end - time.monotonic()) * 1000):
            for secret, job in list(self.jobs.items()):
                self.read(secret, job)
        assert time.monotonic() < self.moved + PATIENCE, (
            f"stuck, with {[(job.number, dict(job.notes)) for job in self.jobs.values()]}")

    def read(self, secret, job):
        try:
            while data := job.peer.recv(4096, socket.MSG_DONTWAIT):
                job.said += data
        except BlockingIOError:
            return
        except ConnectionResetError:
            pass  # what was sent to it is unread
        self.poll.unregister(job.peer)
        job.peer.close()
        self.past[secret] = self.jobs.pop(secret)
        self.maker.made.remove(secret)
        self.moved = time.monotonic()

    def kill_one(self):
        if self.loops_too and self.numbers.random() < 0.08:
            self.test.kill_loop()
            self.loops += 1
            self.deaths += 1
        elif self.numbers.random() < 0.6 and self.workers:
            self.bury(self.numbers.choice(list(self.workers)))

    def bury_all(self):
        for number in list(self.workers):
            self.bury(number)

    def bury(self, number):
        """Kills it, if it is not dead. Nobody ends in another way."""
        worker = self.workers.pop(number)
        worker.close()
        if worker.status != -signal.SIGKILL:
            raise AssertionError(f"a worker ended with {worker.status}: {worker.last_words}")
        self.deaths += 1
        self.killed.add(number)

    def read_log(self):
        data = b""
        try:
            while more := os.read(self.log, 1 << 16):
                data += more
        except BlockingIOError:
            pass
        for what, number, secret in NOTE.iter_unpack(data):
            job = self.jobs.get(secret) or self.past.get(secret)
            assert job, f"worker {number} got what nobody has fired"
            job.notes[what].append(number)

    # The end.

    def check(self, quiet):
        test = self.test
        served = died = 0
        for secret, job in self.past.items():
            notes = dict(job.notes)
            test.assertLessEqual(len(notes.get(OWNED, ())), 1, "two owners")
            if job.said:
                owner, = notes[OWNED]
                test.assertEqual(job.said, NOTE.pack(OWNED, owner, secret), "said once")
                served += 1
            else:  # it died with a worker that had it, or might have had it
                test.assertTrue(set(notes.get(ASKED, ())) & self.killed, f"lost: {notes}")
                died += 1
        rows = test.rows()
        test.assertEqual(set(rows), {number for _, number, _ in quiet})
        test.assertEqual({item.row.state for item in rows.values()}, {ParkState.HELD})
        for _, _, b in quiet:
            b.settimeout(PATIENCE)
            test.alive(b)
            b.close()
        print(f"{self.deaths} killed, {self.loops} of them loops; {served} connections served, "
              f"{died} died with their worker; of these hand-outs "
              f"{sum(len(job.notes[GOT]) for job in self.past.values())} arrived")
        test.assertGreater(served, self.deaths // 4)


def serve(say, _, d, number, log, seed, immortal):
    worker = Dying(d, number, log, seed, immortal)
    worker.work()
    say(f"ATTACH was refused: {worker.refused}")


found = variants(Deaths)
globals().update((name, case) for name, case in found.items() if case.keeper)
globals().update((name, case) for name, case in variants(DeathsOfWorkers).items()
                 if not case.keeper)
del Deaths, DeathsOfWorkers, found  # not tests by themselves


if __name__ == "__main__":
    unittest.main(verbosity=2)
