#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Durable parks, with a death at every step of what the loop and the holder do for them (S-112): of
the loop, of the holder, and of every process at once.

As test_parks_steps.py, with a service manager (test_store.py); READYD_STEPS=all tries all steps.
"""

import random
import socket
import sys
import threading
import unittest

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import test_parks_steps as steps  # noqa: E402
from readyd_client import ParkFlag, drop, park  # noqa: E402
from test_store import Manager  # noqa: E402

STRIDE = 1 if steps.ALL else 16  # about one step of so many is tried


class Daemon(Manager):
    """What steps.Steps needs of its daemon."""

    def __init__(self):
        super().__init__()
        self.lines, self.reader = [], None
        self.write_config("park-max-age: 0s\n")
        self.start_and_wait()
        self.socket, self.said = self.path, "READY=1"

    def start(self):
        if self.reader:
            self.reader.join()
        super().start()
        stream = self.process.stderr
        self.reader = threading.Thread(target=lambda: self.lines.extend(stream), daemon=True)
        self.reader.start()

    def log(self):
        return "".join(self.lines)

    def __exit__(self, *_):
        self.process.kill()
        self.reader.join()
        super().__exit__()


class AllKiller(steps.HolderKiller):
    """Kills all while the loop waits at its step, and starts it again."""

    spares_connections = False

    def kill(self):
        self.d.kill_all()
        self.d.start_and_wait()


@unittest.skipUnless(steps.CRASHING, "READYD_CRASHING is not set: needs a readyd that was built "
                                     "with -Dmutant=DIE_AT_STEP")
class Durable(steps.Steps):
    @classmethod
    def start(cls):
        return Daemon()

    @classmethod
    def renew(cls):
        super().renew()
        # the first durable park makes what lasts: a holder's connection to the manager
        with steps.connect(cls.d) as client:
            a, b = socket.socketpair()
            with a, b:
                client.call(park(a, secret := steps.token(), flags=ParkFlag.DURABLE)).check()
                client.sync()
                client.call(drop(token=secret)).check()
        cls.before = tuple(map(max, cls.before, cls.counts(least=True)))

    def parked_by(self, person, twice=True, **options):
        options["flags"] = options.get("flags", 0) | ParkFlag.DURABLE
        return super().parked_by(person, twice, **options)

    def is_kept(self, peer):
        while True:
            try:
                super().is_kept(peer)
                return
            except FileNotFoundError:
                pass  # of a keeper that has just been killed

    def after(self, left):
        super().after(left)
        steps.until(lambda: not self.d.store, "the store is empty")

    def takes_one_of_three(self):
        """Depots are written anew."""
        secret, _, b = self.parked_by(self.maker, name=b"n", group=b"g", note=b"a note")
        others = [self.parked_by(self.maker, twice=False) for _ in range(2)]
        self.take_by(self.worker, secret, b)
        for other, _, peer in others:
            self.alive(peer)
            self.take_by(self.worker, other, peer)

    SCENARIOS = (steps.Steps.take_and_acknowledge, steps.Steps.drop_it,
                 steps.Steps.deadline_ends_it, steps.Steps.worker_dies, takes_one_of_three)

    def some_steps(self, letter):
        rng = random.Random(steps.SEED)
        for each in self.SCENARIOS:
            scenario = each.__get__(self)
            n, tried = rng.randint(1, STRIDE), 0
            while not self.run_once(scenario, f"{letter}{n}"):
                tried += 1
                n += rng.randint(1, 2 * STRIDE - 1)
                self.assertLess(n, steps.STEPS_MAX, f"READYD_SEED={steps.SEED}")
            print(f"{each.__name__}: {tried} steps of less than {n} (READYD_SEED={steps.SEED})")

    def test_s112_the_loop_dies_at_every_step(self):
        self.some_steps("K")

    def test_s112_the_holder_dies_at_every_step(self):
        self.some_steps("W")

    def test_s112_the_holder_dies_at_every_step_of_its_own(self):
        self.WHERE = steps.DIE_AT + ".holder"
        self.some_steps("K")

    def test_s112_all_die_at_every_step(self):
        self.KILLER = AllKiller
        self.some_steps("W")

    test_s112_what_was_told_can_be_had = test_s112_two_loops_die = None


if __name__ == "__main__":
    unittest.main(verbosity=2)
