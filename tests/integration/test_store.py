#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks in the fd store of a service manager (readyd(8), "As a systemd service"); the test is the
manager. READYD names the daemon.
"""

import array
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "interop")]

# pylint: disable=wrong-import-position
from daemon import children, name as name_of  # noqa: E402
from parks import Fd, Worker, token, until  # noqa: E402
from readyd_client import (  # noqa: E402
    Client, Error, ParkState, acknowledge, drop, park, take)
from test_service import Service  # noqa: E402

PATIENCE = 60
UID = os.getuid()
SEED = int(os.environ.get("READYD_SEED", time.time_ns() % 2**32))


class Manager(Service):
    """Keeps fds, as PID 1 does: `store` are fds by name, and `stored` how many there ever were."""

    def __init__(self, maximum=64, **options):
        super().__init__(environment={"READYD_STORE_MAX": str(maximum)}, **options)
        self.maximum, self.store, self.stored = maximum, {}, 0
        self.late = 0  # s: before a barrier is answered
        self.hangs = False  # hears nothing
        self.ending = threading.Event()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()
        self.listener = self.listen(backlog=64)
        self.arguments = ["--log-level", "info"]

    def keep(self):
        while not self.ending.is_set():
            if self.hangs or not select.select([self.notify], [], [], 0.05)[0]:
                time.sleep(0.01 * self.hangs)
                continue
            data, ancillary, _, _ = self.notify.recvmsg(4096, 8192)
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            self.obey(dict(line.partition("=")[::2] for line in data.decode().splitlines()), fds)

    def obey(self, message, fds):
        name = message.get("FDNAME")
        if "FDSTORE" in message:
            assert message["FDPOLL"] == "0" and len(fds) == 1, message
            if len(self.store) < self.maximum and name not in self.store:
                self.store[name] = fds[0]
                self.stored += 1
                return
        elif "FDSTOREREMOVE" in message:
            if name in self.store:
                os.close(self.store.pop(name))
        elif "BARRIER" in message:
            time.sleep(self.late)
        elif "READY" in message:
            self.ready.set()
        for fd in fds:
            os.close(fd)

    def start(self):
        """Starts it with what is stored; or starts it again."""
        if self.process:
            self.process.stderr.close()
        self.ready.clear()
        # as PID 1: behind the sockets, the last one first
        self.passed = [("socket", self.listener)]
        self.passed += [(name, Fd(fd)) for name, fd in reversed(self.store.items())]
        super().start()

    def start_and_wait(self):
        self.start()
        assert self.ready.wait(PATIENCE), "never ready"
        return self

    def client(self, **options):
        return Client(self.path, timeout=PATIENCE, **options)

    def holder(self, former=0):
        """Its pid, once it has its name; `former`: and is another one."""
        def found():
            return [pid for pid in children(self.process.pid)
                    if name_of(pid) == "readyd-holder" and pid != former]

        return until(found, "a holder")[0]

    def loop(self):
        """Its pid, when no other program is being tried."""
        def found():
            pids = [pid for pid in children(self.process.pid) if name_of(pid) == "readyd"]
            return len(pids) == 1 and pids[0]

        return until(found, "a loop")

    def kill_all(self):
        """Every process of it, at one moment."""
        pids = [self.process.pid, *children(self.process.pid)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        for pid in pids:
            until(lambda pid=pid: gone(pid), f"{pid} has ended")
        self.process.wait()
        if not self.hangs:
            self.hear_all()

    def hear_all(self):
        """Waits until the manager has heard all that was sent so far."""
        mine, other = os.pipe()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect(self.notify.getsockname())
            s.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                        array.array("i", [other]))])
        os.close(other)
        assert select.select([mine], [], [], PATIENCE)[0]
        os.close(mine)

    def add(self, name, *messages, fds=(), kind=socket.SOCK_SEQPACKET):
        """An entry of our own."""
        reading, writing = socket.socketpair(socket.AF_UNIX, kind)
        for message in messages:
            writing.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                         array.array("i", fds))] if fds else [])
        writing.close()
        self.store[name] = reading.detach()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            pids = children(self.process.pid)
            self.process.kill()
            for pid in pids:
                until(lambda pid=pid: gone(pid), f"{pid} has ended")
        self.ending.set()
        self.thread.join()
        for fd in self.store.values():
            os.close(fd)
        self.listener.close()
        super().__exit__()


def gone(pid):
    """Whether a process has ended; whoever adopted it may take its time to reap it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def is_open(peer):
    peer.setblocking(False)
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True


def ends(peer):
    peer.settimeout(PATIENCE)
    assert peer.recv(1) == b"", "there is something to read"


class Case(unittest.TestCase):
    def manager(self, **options):
        m = Manager(**options)
        self.addCleanup(m.__exit__)
        return m

    def pair(self):
        a, b = socket.socketpair()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        return a, b

    def parked(self, client, n, **options):
        """n parks: (token, number, peer)"""
        found = []
        for i in range(n):
            a, b = self.pair()
            secret = token()
            number = client.call(park(a, secret, name=b"park %d" % i, cookie=i, **options)
                                 ).check().value
            a.close()
            found.append((secret, number, b))
        self.record(client)
        return found

    def record(self, client):
        """That parks were answered is recorded with the next change, at the latest."""
        a, _ = self.pair()
        client.call(park(a, secret := token())).check()
        client.call(drop(token=secret)).check()

    def rows(self, client):
        return {item.row.park: (item.row.cookie, item.row.state, bytes(item.name))
                for item in client.parks()}

    def check_taken(self, client, parked):
        """What was parked can be taken, works, and ends with its taker."""
        for secret, number, b in parked:
            outcome = client.call(take(number=number)).check()
            fd = client.handout(outcome.answer.serial).fds[0]
            client.call(acknowledge(secret)).check()
            b.settimeout(PATIENCE)
            b.send(b"x")
            self.assertEqual(os.read(fd, 10), b"x")
            self.assertTrue(is_open(b))
            os.close(fd)
            ends(b)


class Restart(Case):
    def test_all_parks_come_back_with_their_records(self):
        """S-115"""
        m = self.manager().start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 600, note=b"a note")
            before = self.rows(c)
        code, log = m.end()
        self.assertEqual(code, 0, log)
        self.assertEqual(len(m.store), 3, log)  # 253 each
        self.assertEqual({name.split(".")[0] for name in m.store}, {f"d{UID}"})
        self.assertIn("systemd keeps 600 parks, in 3 entries", log)
        self.assertTrue(all(is_open(b) for _, _, b in parked))
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(self.rows(c), before)
            self.assertEqual(m.store, {})  # before anything could be taken
            self.check_taken(c, parked)
        _, log = m.end()
        self.assertIn("600 parks come back", log)
        self.assertEqual(m.store, {})  # nothing is left to store

    def test_long_notes_take_more_entries(self):
        m = self.manager().start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 100, note=bytes(2048))
        m.end()
        self.assertGreater(len(m.store), 3)
        m.start_and_wait()
        with m.client() as c:
            self.check_taken(c, parked)

    def test_an_unsettled_handout_is_settled_later(self):
        m = self.manager().start_and_wait()
        handle = b"one and the same"
        d = type("Daemon", (), {"socket": m.path})
        with m.client() as c, Worker(d, "take", (parked := self.parked(c, 2))[0][0].hex()) as w:
            self.assertEqual(w.line(), "done")
            taker = m.client(handle=handle)
            outcome = taker.call(take(token=parked[1][0])).check()
            fd = taker.handout(outcome.answer.serial).fds[0]
            m.end()
            self.assertEqual(len(m.store), 1)
            m.start_and_wait()
            with m.client() as again:
                states = {number: row[1] for number, row in self.rows(again).items()}
                self.assertEqual(set(states.values()), {ParkState.HANDED})
            taker.close()
            with m.client(handle=handle) as taker:
                taker.call(acknowledge(parked[1][0])).check()
                os.close(fd)
                ends(parked[1][2])
            m.end()
            w.kill()  # while nobody is there to see it
            m.start_and_wait()
            with m.client() as again:
                until(lambda: [row[1] for row in self.rows(again).values()] == [ParkState.HELD],
                      "held again")
                self.check_taken(again, parked[:1])

    def test_the_keeper_is_killed_and_holders_store_by_themselves(self):
        for also in (signal.SIGTERM, None):
            with self.subTest(also=also):
                m = self.manager().start_and_wait()
                with m.client() as c:
                    parked = self.parked(c, 10)
                pid = m.holder()
                m.process.kill()
                if also:
                    os.kill(pid, also)
                m.process.wait()
                until(lambda pid=pid: gone(pid), "the holder has ended")
                self.assertEqual(len(m.store), 1)
                m.start_and_wait()
                with m.client() as c:
                    self.check_taken(c, parked)
                m.end()

    def test_sigterm_of_a_holder_alone(self):
        """It stores, and another one is made, maybe before it has ended; in the end the store is
        as if nothing had been."""
        for late in (0, 0.5):
            with self.subTest(late=late):
                m = self.manager().start_and_wait()
                with m.client() as c:
                    parked = self.parked(c, 10)
                    m.late = late
                    for _ in range(3):
                        old = m.holder()
                        before = m.stored
                        os.kill(old, signal.SIGTERM)
                        until(lambda before=before: m.stored > before, "it has stored")
                        c.call(drop(token=parked.pop()[0])).check()
                        m.holder(former=old)
                        until(lambda old=old: gone(old), "it has ended")
                        until(lambda: not m.store, "the store is empty")
                m.late = 0
                m.end()
                m.start_and_wait()
                with m.client() as c:
                    self.assertEqual(set(self.rows(c)), {number for _, number, _ in parked})
                    self.check_taken(c, parked)
                m.end()

    def test_nothing_is_taken_from_a_holder_that_stores(self):
        m = self.manager().start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 3)
            holder = m.holder()
            os.kill(m.process.pid, signal.SIGSTOP)  # it would have another one made
            m.late = 2  # so long it is there, and has stored what it has
            os.kill(holder, signal.SIGTERM)
            until(lambda: m.store, "it has stored")
            c.timeout = 1
            with self.assertRaises(TimeoutError):
                c.call(take(token=parked[0][0]))
            m.process.kill()
            m.process.wait()
        until(lambda: gone(holder), "the holder has ended")
        m.late = 0
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual({row[1] for row in self.rows(c).values()}, {ParkState.HELD})
            self.check_taken(c, parked)

    def test_again_and_again_under_load(self):
        m = self.manager().start_and_wait()
        rng = random.Random(SEED)
        there = {}
        for turn in range(5):
            handle = bytes([turn + 1]) * 16
            with m.client(handle=handle) as c:
                self.assertEqual(set(self.rows(c)), set(there), f"READYD_SEED={SEED}")
                for secret, number, b in self.parked(c, rng.randrange(400), group=b"%d" % turn):
                    there[number] = (secret, number, b)
                gone = rng.sample(sorted(there), rng.randrange(len(there) + 1))
                self.check_taken(c, [there.pop(number) for number in gone])
            m.end()
            self.assertTrue(all(is_open(b) for _, _, b in there.values()))
            m.start_and_wait()

    def test_after_an_upgrade_as_before(self):
        """Holders of before and after it; and entries are counted on."""
        m = self.manager(maximum=2)
        m.arguments += ["--socket", m.path]
        m.start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 10)
        for turn in range(2):
            old = m.loop()
            m.process.send_signal(signal.SIGUSR2)
            until(lambda old=old: gone(old), "the former loop has ended")
            with m.client() as c:
                parked += self.parked(c, 10, group=b"%d" % turn)
        holder = m.holder()
        os.kill(holder, signal.SIGKILL)
        m.holder(former=holder)
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), 30)
        _, log = m.end()
        self.assertEqual(len(m.store), 1, log)
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), 30)
            self.check_taken(c, parked)

    def test_a_slow_manager_is_no_stuck_holder(self):
        m = self.manager().start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 5)
        m.end()
        m.late = 3.5
        m.start_and_wait()
        with m.client() as c:
            m.late = 0
            self.check_taken(c, parked)
        _, log = m.end()
        self.assertNotIn("stuck", log)


class Full(Case):
    def test_what_does_not_fit_is_told(self):
        """K-006"""
        m = self.manager(maximum=2).start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 600)
        _, log = m.end()
        self.assertEqual(len(m.store), 2)
        self.assertIn(f"uid {UID}: 94 of its parks are lost, systemd's store being full (2 entries)",
                      log)
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), 506)
            self.check_taken(c, parked[:506])
        for _, _, b in parked[506:]:
            ends(b)

    def test_a_manager_without_a_store(self):
        m = self.manager(maximum=0).start_and_wait()
        with m.client() as c:
            parked = self.parked(c, 3)
        _, log = m.end()
        self.assertNotIn("systemd", log)
        for _, _, b in parked:
            ends(b)


class Damage(Case):
    def one_depot(self, n=20):
        m = self.manager().start_and_wait()
        with m.client() as c:
            parked = self.parked(c, n)
        m.end()
        self.assertEqual(len(m.store), 1)
        (fd,) = m.store.values()
        with socket.socket(fileno=os.dup(fd)) as s:
            data, ancillary, _, _ = s.recvmsg(65536, 8192, socket.MSG_PEEK)
        fds = list(array.array("i", ancillary[0][2]))
        self.addCleanup(lambda: [os.close(fd) for fd in fds])
        return m, parked, data, fds

    def test_what_is_right_comes_back_from_among_what_is_not(self):
        """S-118, K-003, K-007"""
        m, parked, data, fds = self.one_depot()
        m.add(f"d{UID}.1001")
        m.add(f"d{UID}.1002", b"no depot")
        m.add(f"d{UID}.1003", bytes([data[0] ^ 1]) + data[1:], fds=fds)  # another magic
        m.add(f"d{UID}.1004", data[:4] + b"\xff\xff" + data[6:], fds=fds)  # another version
        m.add(f"d{UID}.1005", data[:len(data) // 2], fds=fds)
        m.add(f"d{UID}.1006", data, fds=fds[:5])
        m.add(f"d{UID}.1007", data, b"more", fds=fds)
        m.add(f"d{UID + 1}.1008", data, fds=fds)  # of another user
        m.add(f"d{UID}.1009", os.urandom(3000), kind=socket.SOCK_DGRAM)
        m.store[f"d{UID}.1010"] = os.memfd_create("no socket")
        m.add("strange", data, fds=fds)
        m.add("d1000.", data, fds=fds)
        m.add("d99999999999.5", data, fds=fds)
        m.add("stored")
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(set(self.rows(c)), {number for _, number, _ in parked})
            until(lambda: not m.store, "the store is empty")
            for fd in fds:
                os.close(fd)
            fds.clear()
            self.check_taken(c, parked)
        _, log = m.end()
        for text in ("it is empty", "another version", "no message between", "it is another user's",
                     "4 entries of systemd's fd store have names that readyd does not give"):
            self.assertIn(text, log)
        self.assertNotIn("died", log)

    def test_the_newer_of_two_counts(self):
        m = self.manager().start_and_wait()
        with m.client() as c:
            secret, number, b = self.parked(c, 1)[0]
            m.end()
            old = {name: os.dup(fd) for name, fd in m.store.items()}
        m.start_and_wait()
        handle = b"newer newer newe"
        with m.client(handle=handle) as taker:
            taker.call(take(token=secret)).check()
            m.end()
        for name, fd in old.items():
            m.store[name + "7"] = fd
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(self.rows(c)[number][1], ParkState.HANDED)
            self.assertTrue(is_open(b))

    def test_started_with_a_wrong_file(self):
        m, parked, _, fds = self.one_depot()
        m.write_config("nonsense: 1\n")
        m.start_and_wait()
        with m.client() as c:
            for fd in fds:
                os.close(fd)
            fds.clear()
            self.check_taken(c, parked)
        _, log = m.end()
        self.assertIn("readyd.yaml:1:1: ", log)
        self.assertIn("it starts with the default settings", log)
        m.start()
        self.assertEqual(m.process.wait(PATIENCE), 78)

    def test_without_a_keeper_they_stay_where_they_are(self):
        m, parked, _, _ = self.one_depot()
        m.arguments.append("--no-keeper")
        m.start_and_wait()
        _, log = m.end()
        self.assertIn("Start readyd without --no-keeper", log)
        m.arguments.pop()
        m.start_and_wait()
        with m.client() as c:
            self.assertEqual(len(self.rows(c)), len(parked))


if __name__ == "__main__":
    unittest.main(verbosity=2)
