#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Durable parks, which a service manager has as they are made; the test is the manager (see
test_store.py). READYD names the daemon; READYD_SEED says what the random numbers begin with.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from parks import PATIENCE, token, until  # noqa: E402
from readyd_client import (  # noqa: E402
    FEATURES, ConnectionEnded, Error, Fatal, ParkFlag, ParkState, acknowledge, claim, drop, held,
    park, take)
from test_store import Case, ends, gone, is_open  # noqa: E402

SEED = int(os.environ.get("READYD_SEED", time.time_ns() % 2**32))
DURABLE = ParkFlag.DURABLE
MS = 1_000_000


class Durable(Case):
    def start(self, **options):
        return self.manager(**options).start_and_wait()

    def again(self, m, **options):
        """A connection to whatever loop there is."""
        def one():
            try:
                return m.client(**options)
            except (ConnectionEnded, ConnectionError):
                return None

        c = until(one, "a connection")
        self.addCleanup(c.close)
        return c

    def durable(self, client, n=1, **options):
        return self.parked(client, n, flags=DURABLE, **options)

    def silent(self, client, *requests):
        """Is not answered as long as the manager hangs; returns the first one's serial."""
        serials = client.send(*requests)
        self.assertIsNone(client.receive(0.3))
        return serials[0]

    def states(self, client):
        return {number: row[1] for number, row in self.rows(client).items()}

    # ---- What the store has ----

    def test_the_feature_is_where_a_store_is(self):
        m = self.start()
        with m.client(features=FEATURES + ("durable",)) as c:
            self.assertIn("durable", c.features)
        m.end()
        for maximum, arguments in ((0, []), (64, ["--no-keeper"])):
            m = self.manager(maximum=maximum)
            m.arguments += arguments
            m.start_and_wait()
            with m.client(features=FEATURES + ("durable",)) as c:
                self.assertNotIn("durable", c.features)
                a, _ = self.pair()
                self.assertEqual(c.call(park(a, token(), flags=DURABLE)).error,
                                 Error.NOT_SUPPORTED)
            m.end()

    def test_readyctl(self):
        m = self.start()

        def readyctl(*arguments, **options):
            return subprocess.run([os.environ["READYCTL"], *arguments], timeout=PATIENCE,
                                  env=dict(os.environ, READYD_SOCKET=m.path), check=True,
                                  capture_output=True, text=True, **options).stdout

        a, b = self.pair()
        readyctl("park", "--durable", "--name", "mine", stdin=a)
        a.close()
        m.kill_all()
        m.start_and_wait()
        self.assertIn(" held, durable ", readyctl("parked"))
        self.assertTrue(json.loads(readyctl("parked", "--json"))["parks"][0]["durable"])
        readyctl("take", "--name", "mine", "--", "true")
        ends(b)
        self.assertEqual(m.store, {})

    def test_answered_when_it_is_stored(self):
        """PARK, the fd of TAKE, ACKNOWLEDGE and DROP."""
        m = self.start()
        with m.client() as c:
            (kept, _, b), (dropped, _, b2) = self.durable(c, 2)
            a, b3 = self.pair()
            late = token()
            for request in (park(a, late, flags=DURABLE), take(token=kept), acknowledge(kept),
                            drop(token=dropped)):
                m.hangs = True
                serial = self.silent(c, request)
                m.hangs = False
                c.outcome(serial).check()
                if request.type.name == "TAKE":
                    os.close(c.handout(serial).fds[0])
            self.assertEqual(len(self.rows(c)), 1)
            for peer in (b, b2):
                ends(peer)
            self.assertTrue(is_open(b3))

    def test_no_copy_stays(self):
        m = self.start()
        with m.client() as c:
            for _ in range(3):
                self.check_taken(c, self.durable(c))
                self.assertEqual(m.store, {})  # at once
                (secret, _, b), = self.durable(c)
                c.call(drop(token=secret)).check()
                self.assertEqual(m.store, {})
                ends(b)
                (secret, _, b), = self.durable(c, deadline=time.monotonic_ns() + 20 * MS)
                ends(b)
                until(lambda: not m.store, "the store is empty")
        _, log = m.end()
        self.assertEqual(m.store, {})
        self.assertNotIn("error", log)

    def test_those_that_stay_are_in_few_entries(self):
        m = self.start()
        rng = random.Random(SEED)
        there = {}
        with m.client() as c:
            for group in (b"a", b"b", b"c"):
                for each in (self.durable(c, 20, group=group)
                             + self.parked(c, 3, group=group + b" not durable")):
                    there[each[1]] = each
                gone_ = rng.sample(sorted(there), 10)
                self.check_taken(c, [there.pop(number) for number in gone_])
            c.send(*(drop(number=number) for number in there))
            c.sync()
            self.assertEqual(m.store, {})
            a, _ = self.pair()
            secrets = [token() for _ in range(600)]
            for i in range(0, 600, 30):
                c.send(*(park(a, secret, flags=DURABLE) for secret in secrets[i:i + 30]))
            c.sync()
            self.assertLessEqual(len(m.store), 4)

    # ---- All are killed ----

    def test_all_are_killed(self):
        """S-115. Durable ones come back, others do not, nor what was taken or dropped."""
        m = self.start()
        rng = random.Random(SEED)
        with m.client() as c:
            parked = {each[1]: each for each in self.durable(c, 300, note=b"a note")}
            others = self.parked(c, 5, group=b"not durable")
            taken = rng.sample(sorted(parked), 40)
            self.check_taken(c, [parked.pop(number) for number in taken])
            for number in rng.sample(sorted(parked), 10):
                c.call(drop(number=number)).check()
                ends(parked.pop(number)[2])
            before = self.rows(c)
        m.kill_all()
        for _, number, b in others:
            ends(b)
            del before[number]
        for turn in range(2):
            self.assertTrue(all(is_open(b) for _, _, b in parked.values()), f"{SEED=}")
            m.start_and_wait()
            with m.client() as c:
                self.assertEqual(self.rows(c), before, f"{SEED=}")
                if turn == 0:
                    m.kill_all()
        with m.client() as c:
            for secret, _, _ in parked.values():
                c.call(claim(secret)).check()
            self.check_taken(c, parked.values())
            self.assertEqual(m.store, {})

    def test_all_are_killed_at_any_moment(self):
        """What was answered is so; what was not is one or the other, and can be repeated."""
        rng = random.Random(SEED)
        m = self.start()
        for _ in range(8):
            handle = os.urandom(16)
            c = self.again(m, handle=handle)
            m.late = rng.choice((0, 0, 0.002))
            secret = token()
            a, b = self.pair()
            asked = rng.choice((park(a, secret, flags=DURABLE), take(token=secret),
                                acknowledge(secret), drop(token=secret)))
            fd = None
            if asked.type.name != "PARK":
                c.call(park(a, secret, flags=DURABLE)).check()
                c.sync()
            if asked.type.name == "ACKNOWLEDGE":
                outcome = c.call(take(token=secret)).check()
                fd = c.handout(outcome.answer.serial).fds[0]
            c.send(asked)
            time.sleep(rng.random() * 0.003)
            m.kill_all()
            c.close()
            m.late = 0
            m.start_and_wait()
            with m.client(handle=handle) as c:
                if fd is not None:
                    c.call(held((secret, 1), (bytes(16), 0)))
                    os.close(fd)
                elif asked.type.name == "DROP":
                    until(lambda: c.call(drop(token=secret)).error != Error.BUSY, "answered")
                else:
                    c.call(held((bytes(16), 0))).check()
                    c.call(park(a, secret, flags=DURABLE)).check()
                    c.sync()
                    c.call(drop(token=secret)).check()
                self.assertEqual(self.rows(c), {}, f"{SEED=}")
                until(lambda: not m.store, "the store is empty")
            a.close()
            ends(b)

    def test_an_unsettled_handout_is_settled_by_its_worker(self):
        m = self.start()
        with m.client() as c:
            parked = self.durable(c, 2)
        handle = os.urandom(16)
        taker = m.client(handle=handle)
        fds = []
        for secret, _, _ in parked:
            outcome = taker.call(take(token=secret)).check()
            fds.append(taker.handout(outcome.answer.serial).fds[0])
        m.kill_all()
        m.start_and_wait()
        taker.close()
        with m.client() as c:
            self.assertEqual(set(self.states(c).values()), {ParkState.HANDED})
            for secret, _, _ in parked:
                self.assertEqual(c.call(take(token=secret)).error, Error.NOT_FOUND)
        os.close(fds.pop())
        with m.client(handle=handle) as taker:
            taker.call(held((parked[0][0], 1), (bytes(16), 0))).check()
            os.close(fds.pop())
            ends(parked[0][2])
            self.check_taken(taker, parked[1:])
            self.assertEqual(m.store, {})

    def test_what_was_not_stored_was_not_handed_out(self):
        m = self.start()
        handle = os.urandom(16)
        with m.client(handle=handle) as c:
            parked = self.durable(c)
            m.hangs = True
            self.silent(c, take(token=parked[0][0]))
            self.assertEqual(c.handouts, [])
            m.kill_all()
        m.hangs = False
        m.start_and_wait()
        with m.client(handle=handle) as c:
            c.call(held((bytes(16), 0))).check()
            self.check_taken(c, parked)

    # ---- One is killed ----

    def test_the_loop_dies_while_it_is_stored(self):
        m = self.start()
        handle = os.urandom(16)
        a, b = self.pair()
        secret = token()
        with m.client(handle=handle) as c:
            (other, _, b2), = self.durable(c)
            m.hangs = True
            self.silent(c, park(a, secret, flags=DURABLE), drop(token=other))
            loop = m.loop()
            os.kill(loop, signal.SIGKILL)
            until(lambda: gone(loop), "it is dead")
        c = self.again(m, handle=handle)
        self.silent(c, park(a, secret, flags=DURABLE))
        m.hangs = False
        c.sync()
        a.close()
        self.assertEqual(len(self.rows(c)), 1)
        ends(b2)
        m.kill_all()
        m.start_and_wait()
        with m.client(handle=handle) as c:
            c.call(claim(secret)).check()
            self.check_taken(c, [(secret, next(iter(self.rows(c))), b)])

    def test_the_holder_dies(self):
        """Another one stores all again, and nothing else stays."""
        m = self.start()
        with m.client() as c:
            parked = self.durable(c, 20)
            for _ in range(3):
                before = set(m.store)
                old = m.holder()
                os.kill(old, signal.SIGKILL)
                self.check_taken(c, [parked.pop()])
                m.holder(former=old)
                self.assertFalse(before & set(m.store))
                self.assertEqual(len(m.store), 1)
            old = m.holder()
            os.kill(old, signal.SIGKILL)  # and what it had stored is there until then
            until(lambda: gone(old), "it is dead")
            m.kill_all()
        m.start_and_wait()
        with m.client() as c:
            for secret, _, _ in parked:
                c.call(claim(secret)).check()
            self.check_taken(c, parked)

    # ---- Other ends ----

    def test_restart_and_upgrade(self):
        m = self.manager()
        m.arguments += ["--socket", m.path]
        m.start_and_wait()
        with m.client() as c:
            parked = self.durable(c, 20) + self.parked(c, 10, group=b"not")
        m.end()
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), 30)
            self.assertEqual(len(m.store), 1)
            self.check_taken(c, parked[:1] + parked[20:21])
        old = m.loop()
        m.process.send_signal(signal.SIGUSR2)
        until(lambda: gone(old), "the former loop has ended")
        c = self.again(m)
        self.check_taken(c, parked[1:2] + parked[21:])
        self.durable(c, group=b"more")
        m.kill_all()
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), 19)
            self.check_taken(c, parked[2:20])

    # ---- It cannot be stored ----

    def test_a_full_store(self):
        """K-006. Whoever parks hears of it, and what is there stays and can be taken."""
        m = self.start(maximum=4)
        parked, refused = [], None
        c = self.again(m)
        while refused is None:
            a, b = self.pair()
            secret = token()
            try:
                outcome = c.call(park(a, secret, flags=DURABLE, note=bytes(2048)))
                self.assertEqual(outcome.error, Error.OK)
                c.sync()
                parked.append((secret, outcome.value, b))
            except Fatal as fatal:
                refused = fatal
            if refused is None:
                a.close()
        self.assertEqual(refused.error, Error.NO_RESOURCES)
        self.assertIn("durable", refused.text)
        self.assertGreater(len(parked), 50)
        c = self.again(m)
        self.assertEqual(c.call(park(a, secret, flags=DURABLE)).error, Error.NO_RESOURCES)
        c.call(park(a, secret)).check()  # not durable
        c.sync()
        c.call(drop(token=secret)).check()
        a.close()
        ends(b)
        for secret, _, _ in parked:
            c.call(claim(secret)).check()
        self.check_taken(c, parked[:40])
        until(lambda: self.parks_again(c, parked), "room for another one")
        m.kill_all()
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), len(parked) - 40)
            for secret, _, _ in parked[40:]:
                c.call(claim(secret)).check()
            self.check_taken(c, parked[40:])

    def parks_again(self, c, parked):
        a, b = self.pair()
        secret = token()
        outcome = c.call(park(a, secret, flags=DURABLE))
        a.close()
        c.sync()
        if outcome.error == Error.OK:
            parked.append((secret, outcome.value, b))
        return outcome.error == Error.OK

    def test_a_manager_that_hangs(self):
        """A new park is dropped, and a hand-out taken back, in 8 s; when it hears again all is well."""
        m = self.start()
        one, two = self.again(m), self.again(m)
        parked = self.durable(one, 2)
        m.hangs = True
        a, b = self.pair()
        one.send(park(a, token(), flags=DURABLE))
        two.send(take(token=parked[0][0]))
        for c in (one, two):
            with self.assertRaises(Fatal) as caught:
                while True:
                    c.receive()
            self.assertEqual(caught.exception.error, Error.NO_RESOURCES)
        a.close()
        c = self.again(m)
        self.assertEqual(set(self.states(c).values()), {ParkState.HELD})
        self.assertEqual(len(self.states(c)), 2)
        m.hangs = False
        m.hear_all()
        ends(b)
        self.check_taken(c, parked)
        until(lambda: not m.store, "the store is empty")
        until(lambda: self.parks_again(c, parked), "it stores again")
        _, log = m.end()
        self.assertIn("does not answer", log)


if __name__ == "__main__":
    unittest.main(verbosity=2)
