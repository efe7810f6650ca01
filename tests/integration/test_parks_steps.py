#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks, with a death at every step of what the loop does for them, one after the other (S-112).

READYD_CRASHING names a readyd that was built with -Dmutant=DIE_AT_STEP (daemon/edge/step.c says what
that does); READYD_SEED, if set, says what the random numbers begin with; READYD_STEPS=all tries all
pairs of steps of two loops, not a sample.
"""

import os
import random
import select
import signal
import tempfile
import threading
import time
import unittest

CRASHING = os.environ.get("READYD_CRASHING")
if CRASHING:
    os.environ["READYD"] = CRASHING
FOLDER = tempfile.TemporaryDirectory(prefix="readyd-steps-")
DIE_AT = os.path.join(FOLDER.name, "die-at")
os.environ["READYD_DIE_AT"] = DIE_AT

# pylint: disable=wrong-import-position
from daemon import Daemon  # noqa: E402
from parks import PATIENCE, BenchOfDeaths, connect, fds_of, holders, token, until  # noqa: E402
from readyd_client import (  # noqa: E402
    Code, ConnectionEnded, Error, ParkEntry, ParkFlag, claim, drop, park, sync, take)
from test_parks_deaths import Steady  # noqa: E402

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
ALL = os.environ.get("READYD_STEPS") == "all"
SAMPLE = 8  # pairs of a scenario
MS = 1_000_000
STEPS_MAX = 500


class Person(Steady):
    """One who also waits, for entries and for fds."""

    def entry(self, number):
        while True:
            try:
                event = self.client.next_event(PATIENCE)
                assert isinstance(event, ParkEntry), f"no entry, but {event}"
                if event.park == number:
                    return event
            except ConnectionEnded:
                self.come_back()

    def have_in_hand(self, secret, meanwhile=lambda: None):
        """TAKE until the HANDOUT is here, and no further."""
        self.takes = True
        while secret not in self.in_hand:
            if (error := self.ask(take(token=secret)).error) == Error.BUSY:
                meanwhile()
                continue
            assert error == Error.OK, error
            self.received()
            try:
                while self.client is self.answerer and secret not in self.in_hand:
                    self.client.receive(PATIENCE)
                    self.received()
            except ConnectionEnded:
                self.come_back()


class Mortal:
    """A process that takes what it is told to, and has it in hand until it is killed."""

    def __init__(self, d):
        to, self.to = os.pipe()
        self.said, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.to)
                if secret := os.read(to, 16):
                    person = Person(d)
                    person.have_in_hand(secret)
                    os.write(said, b"x")
                    os.read(to, 1)
                status = 0
            finally:
                os._exit(status)
        os.close(to)
        os.close(said)

    def have_in_hand(self, secret, meanwhile):
        os.write(self.to, secret)
        until(lambda: meanwhile() or select.select([self.said], [], [], 0.001)[0],
              "the worker has it")
        assert os.read(self.said, 1), "the worker died"

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def close(self):
        os.close(self.to)  # which ends it, if nobody has killed it
        os.close(self.said)
        os.waitpid(self.pid, 0)


class HolderKiller(threading.Thread):
    """Kills the holder while the loop waits at its step."""

    spares_connections = True

    def __init__(self, d):
        super().__init__()
        self.d, self.over, self.error = d, threading.Event(), None
        with open(DIE_AT + ".wait", "w", encoding="ascii"):
            pass

    def run(self):
        try:
            while os.path.exists(DIE_AT):
                if self.over.wait(0.001):
                    return
            self.kill()
        except BaseException as error:
            self.error = error
        finally:
            os.unlink(DIE_AT + ".wait")

    def kill(self):
        pids = holders(self.d)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not set(pids) & set(holders(self.d)), "the holder is dead")

    def finish(self):
        self.over.set()
        self.join()
        if self.error:
            raise self.error


@unittest.skipUnless(CRASHING, "READYD_CRASHING is not set: needs a readyd that was built with "
                               "-Dmutant=DIE_AT_STEP")
class Steps(BenchOfDeaths):
    KILLER = HolderKiller  # at a step of the loop
    WHERE = DIE_AT

    @classmethod
    def start(cls):
        return Daemon("park-max-age: 0s\n", level="info")

    @classmethod
    def tearDownClass(cls):
        FOLDER.cleanup()

    # ---- One run ----

    def arm(self, *lines):
        with open(DIE_AT + ".new", "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        os.rename(DIE_AT + ".new", self.WHERE)

    def disarm(self):
        """Whether something was left to happen."""
        try:
            os.unlink(self.WHERE)
        except FileNotFoundError:
            return False
        return True

    def run_once(self, scenario, *lines):
        """Whether it came through before all the lines were used."""
        started = len(self.kept)
        self.mortal = self.keep(Mortal(self.d))
        self.maker, self.worker, self.other = (self.keep(Person(self.d)) for _ in range(3))
        killer = self.KILLER(self.d) if lines[0][0] == "W" else None
        self.arm(*lines)
        try:
            if killer:
                killer.start()
            scenario()
            for person in (self.maker, self.worker, self.other):
                person.ask(sync())
            left = self.disarm()
            if killer:
                killer.finish()
            if killer and killer.spares_connections:
                ends = [each.ends for each in (self.maker, self.worker, self.other)]
                # whose connection ended had ended it
                self.assertEqual(sum(ends), 0, "connections ended, and only a holder died")
            self.after(left)
        except BaseException:
            print(f"{scenario.__name__} {' '.join(lines)}\n{self.d.log()[-3000:]}")
            raise
        finally:
            self.disarm()
            if killer and killer.is_alive():
                killer.finish()
            for thing in reversed(self.kept[started:]):
                thing.close()
            del self.kept[started:]
        return left

    def after(self, left):
        """Nothing is left, of parks or of fds."""
        for thing in (self.mortal, self.maker, self.worker, self.other):
            thing.close()
            self.kept.remove(thing)
        with connect(self.d) as client:
            rows = list(client.parks())
        self.assertEqual([(item.row.park, item.row.state) for item in rows], [])
        self.wait_for_counts()

    # ---- What the scenarios are made of ----

    def notice(self):
        for person in (self.maker, self.worker, self.other):
            person.notice()

    def comes_to_its_end(self, peer):
        until(lambda: self.notice() or select.select([peer], [], [], 0.001)[0], "its end")
        self.ended(peer)

    def parked_by(self, person, twice=True, **options):
        """token, number, peer; asked for a second time, too."""
        a, b = self.pair()
        secret = token()
        self.link = f"socket:[{os.fstat(a.fileno()).st_ino}]"
        outcome = person.park(a, secret, **options)
        self.assertEqual(outcome.error, Error.OK)
        if twice:
            again = person.park(a, secret, **options)
            self.assertEqual((again.error, again.value), (Error.OK, outcome.value))
        a.close()
        return secret, outcome.value, b

    def is_kept(self, peer):
        """The fd is in the loop and in its holder, once in each, and the peer sees nothing."""
        def copies():
            found = [list(fds_of(pid).values()).count(self.link)
                     for pid in [self.d.loop(), *holders(self.d)]]
            return found == [1, 1]

        until(copies, "once in the loop, and once in the holder")
        self.alive(peer)

    def take_by(self, person, secret, peer):
        """The park is parked, or will be in a moment: this one gets it, and nobody else."""
        end = time.monotonic() + PATIENCE
        while (error := person.take(secret)) != Error.OK:
            self.assertIn(error, (Error.NOT_FOUND, Error.BUSY))
            self.assertLess(time.monotonic(), end, "lost: nobody gets it")
            self.notice()
        others = [each for each in (self.maker, self.worker, self.other) if each is not person]
        for each in others:
            self.assertEqual(each.take(secret), Error.NOT_FOUND)
            self.assertEqual(each.owned, {})
        fd = person.owned.pop(secret)
        self.alive(peer)
        self.carries(fd, peer)
        fd.close()
        self.ended(peer)

    # ---- Scenarios ----

    def take_and_acknowledge(self):
        secret, number, b = self.parked_by(self.maker, name=b"n", note=b"a note")
        self.is_kept(b)
        b.send(b"x")
        self.assertEqual(self.maker.entry(number).read, Code.READY)
        self.is_kept(b)
        self.take_by(self.worker, secret, b)

    def drop_it(self):
        secret, _, b = self.parked_by(self.maker)
        self.is_kept(b)
        ends = self.worker.ends
        while (error := self.worker.ask(drop(token=secret)).error) == Error.BUSY:
            self.notice()
        # a repeated DROP does not find what the first one did away with
        self.assertIn(error, (Error.OK, Error.NOT_FOUND) if self.worker.ends > ends
                      else (Error.OK,))
        self.ended(b)
        self.assertEqual(self.maker.take(secret), Error.NOT_FOUND)

    def deadline_ends_it(self):
        start = time.monotonic_ns()
        secret, _, b = self.parked_by(self.maker, twice=False, deadline=start + 20 * MS)
        self.comes_to_its_end(b)
        self.assertGreaterEqual(time.monotonic_ns(), start + 20 * MS, "lost before")
        self.assertEqual(self.worker.take(secret), Error.NOT_FOUND)

    def deadline_hands_it(self):
        start = time.monotonic_ns()
        secret, number, b = self.parked_by(self.maker, deadline=start + 10 * MS,
                                           flags=ParkFlag.DEADLINE_HAND)
        self.assertIn(Code.TIMEOUT, self.maker.entry(number).read)
        self.assertGreaterEqual(time.monotonic_ns(), start + 10 * MS)
        self.is_kept(b)
        self.take_by(self.worker, secret, b)

    def hand_it_back(self):
        secret, _, b = self.parked_by(self.maker)
        while (error := self.worker.take(secret, give_back=True)) == Error.BUSY:
            self.notice()
        self.assertEqual(error, Error.OK)
        self.is_kept(b)
        self.take_by(self.other, secret, b)

    def worker_dies(self):
        secret, _, b = self.parked_by(self.maker)
        self.mortal.have_in_hand(secret, self.notice)
        self.assertEqual(self.worker.take(secret), Error.NOT_FOUND)
        self.is_kept(b)
        self.mortal.kill()
        self.take_by(self.worker, secret, b)

    def connection_ends(self):
        secret, _, b = self.parked_by(self.maker)
        self.worker.have_in_hand(secret, self.maker.notice)
        self.is_kept(b)
        self.worker.in_hand.pop(secret).close()
        self.worker.client.close()
        self.worker.connect()
        self.take_by(self.other, secret, b)

    def claim_it(self):
        secret, number, b = self.parked_by(self.maker)
        self.other.made.append(secret)
        b.send(b"x")
        self.assertEqual(self.other.ask(claim(secret)).value, number)
        self.assertEqual(self.other.entry(number).read, Code.READY)
        self.is_kept(b)
        self.take_by(self.other, secret, b)

    SCENARIOS = (take_and_acknowledge, drop_it, deadline_ends_it, deadline_hands_it, hand_it_back,
                 worker_dies, connection_ends, claim_it)

    # ---- The tests ----

    def all_steps(self, letter):
        """Something happens at the n-th step, for all n."""
        for each in self.SCENARIOS:
            scenario = each.__get__(self)
            n = 1
            while not self.run_once(scenario, f"{letter}{n}"):
                n += 1
                self.assertLess(n, STEPS_MAX)
            print(f"{each.__name__}: {n - 1} steps")
            self.assertGreater(n, 10)

    def test_s112_the_loop_dies_at_every_step(self):
        self.all_steps("K")

    def test_s112_the_holder_dies_at_every_step(self):
        self.all_steps("W")

    def test_s112_what_was_told_can_be_had(self):
        """An entry says that a park can be taken: from the next loop, too, and though its maker does
        not claim it."""
        told = 0
        for n in range(1, 25):
            a, b = self.pair()
            b.send(b"x")
            secret, entry = token(), None
            maker = self.again_client()
            for pid in holders(self.d):  # so that it is ready before the answer can be sent
                os.kill(pid, signal.SIGKILL)
            with open(DIE_AT, "w", encoding="ascii") as f:
                f.write(f"K{n}\n")
            try:
                maker.send(park(a, secret))
                while not isinstance(entry, ParkEntry):
                    entry = maker.next_event(PATIENCE)
            except ConnectionEnded:
                pass
            if os.path.exists(DIE_AT):
                os.unlink(DIE_AT)
            client = self.again_client()
            if isinstance(entry, ParkEntry):
                told += 1
                self.taken(client, token=secret)
            else:
                self.ok(client, park(a, secret))  # and what it did not hear of, it repeats
                self.taken(client, token=secret)
            a.close()
        self.assertGreater(told, 5)

    def test_s112_two_loops_die(self):
        """The second one at a step of what it does to be where the first one was."""
        print(f"READYD_SEED={SEED}")
        numbers = random.Random(SEED)
        for each in self.SCENARIOS:
            scenario = each.__get__(self)
            if ALL:
                done = self.all_pairs(scenario)
            else:
                done = SAMPLE
                for _ in range(SAMPLE):
                    self.run_once(scenario, f"K{numbers.randint(1, 20)}",
                                  f"K{numbers.randint(1, 12)}")
            print(f"{each.__name__}: {done} pairs")

    def all_pairs(self, scenario):
        n = done = 0
        while True:
            n += 1
            if self.run_once(scenario, f"K{n}"):
                return done
            m = 1
            while not self.run_once(scenario, f"K{n}", f"K{m}"):
                m += 1
                done += 1
                self.assertLess(m, STEPS_MAX)


if __name__ == "__main__":
    unittest.main(verbosity=2)
