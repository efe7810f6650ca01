# SPDX-License-Identifier: MIT
"""Parks while another binary takes over (S-115, S-119): what test_parks_deaths.py does to the loop
by SIGKILL is an upgrade here, and more that concerns upgrades only.

READYD, READYD_SEED, READYD_ROUNDS as there; READYD_CRASHING as in test_upgrade.py: with it each
second upgrade is one to that binary.
"""

import contextlib
import os
import signal
import struct
import unittest

import test_parks_deaths
from daemon import READYD, children, readyctl
from parks import Fd, fds_of, holders, token, until
from readyd_client import NO_TOKEN, READ, Error, ParkState, held, park, take
from test_keeper import is_gone
from test_upgrade import CRASHING, Installed

RECORDS_AT = 52  # in the state of an upgrade: see upgrade_state.c
SECOND = 1_000_000_000


def patch_records(version):
    """Shell: the state that is handed over says that records are of this version."""
    bytes_ = "".join(f"\\{byte:03o}" for byte in struct.pack("=I", version))
    return (f"printf '{bytes_}' | dd of=/proc/self/fd/$READYD_UPGRADE_STATE bs=1 "
            f"seek={RECORDS_AT} conv=notrunc status=none\n")


def at_takeover(command):
    """Shell: done when the program is to take over, not at its trial."""
    return f'case "$*" in *--check-upgrade*) ;; *) {command} ;; esac\nexec {READYD} "$@"\n'


class Upgrades(test_parks_deaths.WithKeeper):
    upgrades = 0

    test_s119_at_random_moments = test_parks_deaths.WithKeeper.test_s112_at_random_moments
    test_s112_at_random_moments = None

    @staticmethod
    def start():
        return Installed("trusted: [12345]\npark-max-age: 0s\n")

    @classmethod
    def kill_loop(cls):
        """What kills it here is an upgrade."""
        cls.upgrades += 1
        cls.d.install(CRASHING if CRASHING and cls.upgrades % 2 else READYD)
        cls.upgrade()

    @classmethod
    def upgrade(cls):
        """To what is installed; waits until another loop serves."""
        with cls.again() as client:
            old = client.welcome.pid
        cls.d.process.send_signal(signal.SIGUSR2)
        cls.next_loop(old)

    def spoiled(self):
        """The next test needs another daemon: this one runs no longer what is installed, since the
        script that took over named another program."""
        self.addCleanup(self.renew)

    def keeper_fds(self):
        return len(fds_of(self.d.process.pid))

    # ---- S-115 ----

    def test_s115_five_upgrades(self):
        maker, taker = self.client(), self.client()
        parks = [self.parked(maker, note=b"%d" % n, name=b"n%d" % n, group=b"g", cookie=n,
                             deadline=maker.now() + 3600 * SECOND) for n in range(30)]
        parks[0][2].send(b"before")
        self.ready_row(parks[0][1])
        in_hand = [self.handed(taker, token=secret)[1] for secret, _, _ in parks[27:]]
        pids = until(lambda: holders(self.d), "a holder, by its name")
        before, fds = self.rows(), self.keeper_fds()
        holder_fds, status = len(fds_of(pids[0])), self.d.status()
        for upgrade in range(1, 6):
            self.kill_loop()
            after = until(lambda: len(found := self.rows()) == 30 and found, "all parks")
            self.assertEqual(self.ready_row(parks[0][1]).ready, READ)
            for _, number, b in parks:
                self.assertEqual(self.alike(after[number]), self.alike(before[number]))
                self.alive(b)
            self.assertEqual(holders(self.d), pids)
            # the new loop may serve before the keeper has closed its end of the channel
            until(lambda: self.keeper_fds() == fds, "as many fds of the keeper")
            # the earlier loop's epoll set is closed after all has been given back
            until(lambda: len(fds_of(pids[0])) == holder_fds, "as many fds of the holder")
            now = self.d.status()
            self.assertEqual(now["began"], status["began"])
            self.assertEqual(now["restarts"], status["restarts"] + upgrade)
        # a hand-out of five programs ago: held, not held, and the rest
        taker = self.again_client(handle=taker.handle)
        self.ok(taker, held((parks[27][0], 1), (parks[28][0], 0), (NO_TOKEN, 0)))
        self.carries(in_hand[0], parks[27][2])
        for fd in in_hand:
            fd.close()
        self.ended(parks[27][2])
        self.parked_again(parks[28][1])
        self.parked_again(parks[29][1])
        stranger = self.again_client()
        for n, (secret, _, b) in enumerate(parks):
            if n == 27:
                self.refused(stranger, take(token=secret), Error.NOT_FOUND)
                continue
            message, fd = self.taken(stranger, name=b"n%d" % n, group=b"g")
            self.assertEqual((message.records[0].token, message.tail),
                             (secret, b"n%dg%d" % (n, n)))
            if n == 0:
                self.assertEqual(os.read(fd.fileno(), 100), b"before")
            self.carries(fd, b)
            fd.close()
            self.ended(b)
        self.assertEqual(self.rows(), {})

    def test_an_upgrade_that_does_not_come_about(self):
        """The program is gone when it is to be run: the old one goes on, with its holders."""
        secret, number, b = self.parked(self.client())
        pids = until(lambda: holders(self.d), "a holder, by its name")
        self.d.install_script(f'rm "$0"\nexec {READYD} "$@"\n')
        self.upgrade()
        self.d.logs(f"cannot run {self.d.program}: No such file or directory")
        until(lambda: number in self.rows(), "the park")
        self.assertEqual(holders(self.d), pids)
        self.kill_loop()
        _, fd = self.taken(self.again_client(), token=secret)
        self.carries(fd, b)

    # ---- Holders ----

    def wait_in_trial(self):
        """Begins an upgrade whose trial lasts until the file is there whose name is returned."""
        go = self.d.file("go")
        self.addCleanup(lambda: os.path.exists(go) and os.unlink(go))
        self.d.install_script(f"while [ ! -e {go} ]; do sleep 0.01; done\nexec {READYD} \"$@\"\n")
        tried = self.d.log().count("trying")
        self.d.process.send_signal(signal.SIGUSR2)
        self.d.logs("trying", tried + 1)
        return go

    def test_holder_that_dies_during_the_trial(self):
        self.spoiled()
        parks = [self.parked(self.client(), note=b"%d" % n) for n in range(20)]
        with self.again() as client:
            old = client.welcome.pid
        go = self.wait_in_trial()
        self.kill_holder(20)
        with open(go, "w", encoding="ascii"):
            pass
        self.next_loop(old)
        until(lambda: set(self.rows()) == {number for _, number, _ in parks}, "all parks")
        client = self.again_client()
        for n, (secret, _, b) in enumerate(parks):
            message, fd = self.taken(client, token=secret)
            self.assertEqual(message.tail, b"%d" % n)
            self.carries(fd, b)

    def test_holder_that_dies_between_the_programs(self):
        """There is no loop then that could fill another one: the parks are lost, all else is not."""
        self.spoiled()
        _, number, b = self.parked(self.client())
        holder = self.holder()
        self.d.install_script(at_takeover(f"kill -KILL {holder}"))
        self.upgrade()
        self.ended(b)
        until(lambda: is_gone(holder), "its end")
        self.d.logs(f"a holder of uid {os.geteuid()} (pid {holder}) died by SIGKILL")
        self.assertNotIn("a loop that was left behind", self.d.log())
        client = self.again_client()
        until(lambda: number not in self.rows(), "no park")
        secret, _, b = self.parked(client)
        _, fd = self.taken(client, token=secret)
        self.carries(fd, b)

    def test_holder_that_is_left_behind(self):
        self.spoiled()
        client = self.again_client()
        stuck = self.holder()
        os.kill(stuck, signal.SIGSTOP)
        try:
            # until its queue is full; then it is left alone
            while len(holders(self.d)) == 1:
                with contextlib.closing(Fd(os.eventfd(0))) as fd:
                    self.ok(client, park(fd, token(), note=bytes(2000)))
                client.call(take(token=token()))
            found = holders(self.d)
            self.assertEqual(len(found), 2)
            before = len(self.rows())
            until(lambda: self.left_behind() == (1, 1), "one left behind, in the status")
            self.kill_loop()
            self.assertEqual(self.left_behind(), (1, 1))
            self.assertEqual(sorted(holders(self.d)), sorted(found))
            until(lambda: len(self.rows()) == before, "all parks")
            os.kill(stuck, signal.SIGKILL)
            self.d.logs(f"that was left behind (pid {stuck}) died by SIGKILL")
            until(lambda: self.left_behind() == (1, 0), "none left behind, in the status")
            self.assertNotIn("a loop that was left behind", self.d.log())
            self.kill_loop()
            until(lambda: len(self.rows()) == before, "all parks")
        finally:
            if stuck in children(self.d.process.pid):
                os.kill(stuck, signal.SIGCONT)

    def left_behind(self):
        status = self.d.status()
        return status["holders"], status["holders_left"]

    # ---- Another version of the records ----

    def test_program_that_knows_other_records(self):
        secret, number, b = self.parked(self.client())
        old, fds = self.d.serving(), self.keeper_fds()
        self.d.install_script(patch_records(99) + f'exec {READYD} "$@"\n')
        said = readyctl(self.d, "upgrade")
        self.assertEqual((said.returncode, said.stdout), (1, ""))
        self.assertIn("the new program failed its trial", said.stderr)
        self.d.logs("the running daemon keeps its parks in records of version 99")
        self.assertEqual(self.d.serving(), old)
        until(lambda: self.keeper_fds() == fds, "as many fds as before")
        self.assertEqual(self.row(number).state, ParkState.HELD)
        _, fd = self.taken(self.client(), token=secret)
        self.carries(fd, b)

    def test_other_records_after_the_trial(self):
        """What cannot be kept is let go, and the daemon serves."""
        self.spoiled()
        _, _, b = self.parked(self.client())
        holder = self.holder()
        self.d.install_script(at_takeover(patch_records(99).strip()))
        self.upgrade()
        self.d.logs("the parks are in records of version 99, which this program does not know")
        self.ended(b)
        until(lambda: is_gone(holder), "the end of the holder")
        self.assertEqual(self.rows(), {})
        client = self.again_client()
        secret, _, b = self.parked(client)
        self.kill_loop()
        _, fd = self.taken(self.again_client(), token=secret)
        self.carries(fd, b)


if __name__ == "__main__":
    unittest.main(verbosity=2)
