#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks over the wire: what PARK, CLAIM, TAKE, HANDOUT and PARKS carry, and who is told what
(sections 5.16 to 5.18, 5.31, 5.33, 5.39 and 11.9 of protocol/PROTOCOL.md).
READYD names the daemon.
"""

import os
import signal
import socket
import time
import unittest

from parks import OTHER_UID, Bench, Fd, fds_of, holders, now, token, until, variants
from readyd_client import (
    BOTH, NO_TOKEN, READ, WRITE, Answer, Code, Direction, Error, Flag, Kind, ParkEntry, ParkFlag,
    ParkState, Type, acknowledge, claim, drop, park, sync, take)

MS = 1_000_000
SECOND = 1000 * MS
HANDLE = b"one and the same"
LOCAL = b"\x02\x00\x1f\x90\xc0\x00\x02\x01" + bytes(8)
PEER = b"\x02\x00\x9c\x40\xc6\x33\x64\x07" + bytes(8)


class Wire(Bench):
    # ---- PARK, TAKE and what they carry ----

    def test_everything_comes_back(self):
        maker, taker = self.client(), self.client()
        a, b = self.pair()
        secret, before = token(), now()
        number = self.ok(maker, park(a, secret, name=b"conn-1", group=b"web", note=b"GET /index",
                                     local=LOCAL, peer=PEER, cookie=2**64 - 2)).value
        fd_there = a.fileno()
        a.close()
        item = self.rows(maker)[number]
        self.assertEqual((item.name, item.group, item.local, item.peer),
                         (b"conn-1", b"web", LOCAL, PEER))
        row = item.row
        self.assertEqual(
            (row.cookie, row.deadline, row.uid, row.flags, row.pid, row.worker_pid, row.state,
             row.ready, row.timed_out, row.kind, row.note_length, row.interest, row.fd),
            (2**64 - 2, 0, os.getuid(), ParkFlag(0), os.getpid(), 0, ParkState.HELD, Direction(0),
             0, Kind.UNIX, 10, READ, fd_there))
        self.assertTrue(before <= row.parked + SECOND and row.parked <= now(), row)
        self.alive(b)
        b.send(b"there is something")
        self.assertEqual(self.ready_row(number).ready, READ)

        message, fd = self.handed(taker, name=b"conn-1", group=b"web")
        record = message.records[0]
        self.assertEqual((record.token, record.park, record.cookie, record.parked, record.flags,
                          record.read, record.write),
                         (secret, number, 2**64 - 2, row.parked, 0, Code.READY, Code(0)))
        self.assertEqual(message.parts, {"name": b"conn-1", "group": b"web",
                                         "note": b"GET /index", "local": LOCAL, "peer": PEER})
        handed = self.row(number)
        self.assertEqual((handed.state, handed.worker_pid), (ParkState.HANDED, os.getpid()))
        self.ok(taker, acknowledge(secret))
        self.assertEqual(self.rows(), {})
        self.carries(fd, b)
        self.nothing(maker)
        self.nothing(taker)
        fd.close()
        self.ended(b)

    def test_take_by_name_number_and_token(self):
        client = self.client()
        for by in ("name", "number", "token", "name alone"):
            secret, number, b = self.parked(client, name=b"n", group=b"g" * (by != "name alone"))
            wrong = [{"name": b"n", "group": b"h"}, {"name": b"m", "group": b"g"}, {"name": b""},
                     {"number": number + 1}, {"number": 0}, {"token": token()}, {"token": NO_TOKEN}]
            for item in wrong:
                self.refused(client, take(**item), Error.NOT_FOUND)
                self.refused(client, drop(**item), Error.NOT_FOUND)
            right = {"name": {"name": b"n", "group": b"g"}, "number": {"number": number},
                     "token": {"token": secret}, "name alone": {"name": b"n"}}[by]
            _, fd = self.taken(client, **right)
            self.carries(fd, b)
            fd.close()
            self.ended(b)
            self.refused(client, take(**right), Error.NOT_FOUND)

    def test_longest_of_all(self):
        client = self.client()
        texts = {"name": b"n" * 255, "group": b"g" * 255, "note": os.urandom(2048),
                 "local": os.urandom(128), "peer": os.urandom(128)}
        secret, _, _ = self.parked(client, **texts)
        message, _ = self.taken(client, name=texts["name"], group=texts["group"])
        self.assertEqual(message.tail, b"".join(texts.values()))
        self.assertEqual(message.records[0].token, secret)

    def test_answer_then_handout_and_nothing_else(self):
        client = self.client()
        secret, number, _ = self.parked(client)
        client.trace = []
        serials = client.send(take(token=secret), sync())
        client.outcome(serials[0])
        message = client.handout(serials[0])
        self.keep(Fd(message.fds[0]))
        client.outcome(serials[1])
        self.assertEqual([(item.request, item.value) for item in client.trace],
                         [(Type.TAKE, number), (Type.SYNC, 0)])

    # ---- S-105, S-106, S-108 to S-110 ----

    def test_s105_the_connection_of_the_maker_has_ended(self):
        maker = self.client()
        secret, number, b = self.parked(maker, cookie=7, note=b"left behind")
        maker.close()
        self.assertEqual(self.row(number).ready, 0)
        b.send(b"late")
        self.assertEqual(self.ready_row(number).ready, READ)
        message, fd = self.taken(self.client(), token=secret)
        self.assertEqual((message.records[0].read, message.records[0].cookie), (Code.READY, 7))
        self.carries(fd, b)

    def test_s106_the_same_token_again(self):
        maker, other = self.client(), self.client()
        secret, number, b = self.parked(maker, name=b"first", note=b"first")
        self.parked(other)  # from now on the daemon has all that it needs to know of a client
        fds = self.counts()
        for client in (maker, other, maker):
            c, d = self.pair()
            again = self.ok(client, park(c, secret, name=b"second", note=b"second", cookie=9))
            self.assertEqual(again.value, number)
            self.assertEqual(self.counts()[0], fds[0], "fds of the loop")
            c.close()
            self.ended(d)
            self.alive(b)
        self.assertEqual(len(self.rows()), 2)
        message, fd = self.taken(other, token=secret)
        self.assertEqual(message.tail, b"firstfirst")
        self.assertEqual(message.records[0].cookie, 0)
        self.carries(fd, b)

    def test_the_same_token_twice_in_one_datagram(self):
        client = self.client()
        a, b = self.pair()
        c, d = self.pair()
        secret = token()
        first, second = client.call(park(a, secret), park(c, secret))
        self.assertEqual((first.error, second.error, first.value),
                         (Error.OK, Error.OK, second.value))
        a.close()
        c.close()
        self.ended(d)
        _, fd = self.taken(client, token=secret)
        self.carries(fd, b)

    def test_a_token_that_is_gone_is_free(self):
        client = self.client()
        secret, _, _ = self.parked(client, name=b"n")
        self.ok(client, drop(token=secret))
        _, number, b = self.parked(client, secret=secret, name=b"n")
        self.taken(client, number=number)
        _, number, b = self.parked(client, secret=secret, name=b"n")
        _, fd = self.taken(client, name=b"n")
        self.carries(fd, b)

    def test_s108_taken_is_gone_from_the_daemon(self):
        maker, taker = self.client(), self.client()
        secret, _, b = self.parked(maker)
        maker.close()
        b.send(b"before")
        _, fd = self.taken(taker, token=secret)
        self.assertEqual(os.read(fd.fileno(), 100), b"before")
        taker.sync()
        before = taker.status()[0]
        for _ in range(200):
            b.send(b"x")
            os.read(fd.fileno(), 1)
        time.sleep(0.1)
        after = taker.status()[0]
        self.assertLess(after.events - before.events, 20)
        self.assertLess(after.turns - before.turns, 20)
        self.nothing(taker)
        fd.close()
        self.ended(b)

    def test_s109_two_take_one_gets_it(self):
        first, second = self.client(), self.client()
        for clients in ((first, second), (second, first), (first, first)):
            secret, _, b = self.parked(first)
            sent = [(client, client.send(take(token=secret))[0]) for client in clients]
            outcomes = [client.outcome(serial) for client, serial in sent]
            self.assertEqual(sorted(outcome.error for outcome in outcomes),
                             [Error.OK, Error.NOT_FOUND])
            winner, serial = sent[[outcome.error for outcome in outcomes].index(Error.OK)]
            message = winner.handout(serial)
            fd = self.keep(Fd(message.fds[0]))
            for client in clients:
                client.sync()
                self.assertEqual(client.handouts, [])
            self.ok(winner, acknowledge(secret))
            self.carries(fd, b)

    def test_s109_the_taker_closes_its_connection(self):
        maker, taker = self.client(), self.client()
        secret, number, b = self.parked(maker)
        b.send(b"unread")
        _, fd = self.handed(taker, token=secret)
        taker.close()
        fd.close()
        self.parked_again(number)
        message, fd = self.taken(maker, token=secret)
        self.assertEqual(message.records[0].read, Code.READY)
        self.assertEqual(os.read(fd.fileno(), 100), b"unread")

    def test_s109_the_taker_shuts_its_connection_down(self):
        taker = self.client()
        secret, number, _ = self.parked(self.client())
        self.handed(taker, token=secret)
        taker.socket.shutdown(socket.SHUT_WR)
        self.parked_again(number)

    def test_s109_the_taker_is_killed(self):
        maker = self.client()
        secret, number, b = self.parked(maker)
        worker = self.worker("take", secret.hex())
        self.assertEqual(worker.line(), "done")
        self.assertEqual((self.row(number).state, self.row(number).worker_pid),
                         (ParkState.HANDED, worker.pid))
        worker.kill()
        self.parked_again(number)
        _, fd = self.taken(maker, token=secret)
        self.carries(fd, b)

    def test_the_taker_is_killed_and_its_connection_lives(self):
        maker = self.client()
        secret, number, b = self.parked(maker)
        worker = self.worker("lend", secret.hex())
        self.assertEqual(worker.line(), "done")
        worker.kill()  # its child has the connection
        self.parked_again(number)
        _, fd = self.taken(maker, token=secret)
        self.carries(fd, b)

    def test_s110_the_maker_is_killed_with_its_entry_unread(self):
        a, b = self.pair()
        secret = token()
        worker = self.worker("park", secret.hex(), a.fileno(), pass_fds=[a.fileno()])
        self.assertEqual(worker.line(), "done")
        a.close()
        number, = self.rows()
        self.assertEqual(self.row(number).pid, worker.pid)
        b.send(b"once")
        self.ready_row(number)  # and the entry is in its socket
        worker.kill()
        until(lambda: self.row(number).pid == 0, "the maker is gone")
        self.assertEqual(self.row(number).ready, READ)
        message, fd = self.taken(self.client(), token=secret)
        self.assertEqual(message.records[0].read, Code.READY)
        self.assertEqual(os.read(fd.fileno(), 100), b"once")

    # ---- Names ----

    def test_a_name_is_one_of_a_group(self):
        client, other = self.client(), self.client()
        self.parked(client, name=b"n", group=b"g")
        for who in (client, other):
            c, d = self.pair()
            self.refused(who, park(c, token(), name=b"n", group=b"g"), Error.EXISTS)
            c.close()
            self.ended(d)
        self.parked(client, name=b"n", group=b"h")
        self.parked(client, name=b"n")
        self.parked(client, name=b"N", group=b"g")
        self.parked(client, name=b"ng")
        for _ in range(2):  # without a name there is nothing that could be in use
            self.parked(client, group=b"g")
            self.parked(client)
        self.assertEqual(len(self.rows()), 9)

    def test_a_name_is_taken_while_it_is_handed(self):
        client = self.client()
        secret, number, _ = self.parked(client, name=b"n", group=b"g")
        self.handed(client, token=secret)
        c, _ = self.pair()
        self.refused(client, park(c, token(), name=b"n", group=b"g"), Error.EXISTS)
        self.assertEqual(self.ok(client, park(c, secret)).value, number)
        self.ok(client, acknowledge(secret))
        self.ok(client, park(c, token(), name=b"n", group=b"g"))

    def test_a_name_in_any_bytes_that_are_no_controls(self):
        client = self.client()
        for name in (b"caf\xc3\xa9", b"a b", b"'\"\\", b"/x"):
            self.parked(client, name=name)
            self.taken(client, name=name)

    # ---- Entries ----

    def test_what_an_entry_says(self):
        client = self.client()
        _, number, b = self.parked(client, cookie=2**64 - 2, name=b"n", note=b"a note")
        b.send(b"x")
        self.assertEqual(self.entry(client), ParkEntry(Code.READY, Code(0), number, 2**64 - 2))
        self.nothing(client)

    def test_the_entry_comes_after_the_answer(self):
        client = self.client()
        for flags in (ParkFlag(0), ParkFlag.RELATIVE | ParkFlag.DEADLINE_HAND):
            a, b = self.pair()
            b.send(b"before")
            client.trace = []
            serials = client.send(park(a, token(), deadline=1 if flags else 0, flags=flags), sync())
            for serial in serials:
                client.outcome(serial)
            until(lambda: len(client.trace) > 2 or client.receive(0.1) and False, "the entry")
            kinds = [type(item) for item in client.trace]
            self.assertEqual(kinds.count(Answer), 2)
            self.assertEqual(client.trace[0].request, Type.PARK)
            self.assertIn(ParkEntry, kinds[1:])
            client.events.clear()

    def test_one_entry_however_often_it_is_ready(self):
        client, stranger = self.client(), self.client()
        _, number, b = self.parked(client)
        for n in range(5):
            b.send(b"x")
            if n == 0:
                self.assertEqual(self.entry(client).park, number)
        self.nothing(client)
        self.nothing(stranger)

    def test_what_is_not_in_the_interest_is_not_readiness(self):
        client = self.client()
        _, number, b = self.parked(client)  # can be written from the start
        self.nothing(client)
        self.assertEqual(self.row(number).ready, 0)
        _, number, b = self.parked(client, interest=WRITE)
        entry = self.entry(client)
        self.assertEqual((entry.park, entry.read, entry.write), (number, 0, Code.READY))
        self.assertEqual(self.row(number).ready, WRITE)
        a, b = self.pair()
        b.send(b"x")
        number = self.ok(client, park(a, token(), interest=BOTH)).value
        entry = self.entry(client)
        self.assertEqual((entry.park, entry.read, entry.write), (number, Code.READY, Code.READY))

    def test_the_peer_hangs_up(self):
        client = self.client()
        secret, number, b = self.parked(client)
        b.close()
        self.assertEqual(self.entry(client).read, Code.READY)
        _, fd = self.taken(client, number=number)
        self.assertEqual(os.read(fd.fileno(), 1), b"")

    def test_claim_by_another_handle(self):
        maker, other = self.client(), self.client()
        secret, number, b = self.parked(maker, cookie=3)
        second, number2, b2 = self.parked(maker, cookie=4)
        b.send(b"x")
        self.assertEqual(self.entry(maker).park, number)
        self.assertEqual(self.ok(other, claim(secret, second)).value, number2)
        self.assertEqual(self.entry(other), ParkEntry(Code.READY, Code(0), number, 3))
        b.send(b"y")
        b2.send(b"x")
        self.assertEqual(self.entry(other), ParkEntry(Code.READY, Code(0), number2, 4))
        self.nothing(other)
        self.nothing(maker)

    def test_claim_answers_first(self):
        maker, other = self.client(), self.client()
        secret, number, b = self.parked(maker)
        b.send(b"x")
        self.entry(maker)
        other.trace = []
        self.ok(other, claim(secret))
        self.entry(other)
        self.assertEqual([type(item) for item in other.trace], [Answer, ParkEntry])

    def test_claim_in_one_turn_with_another_client(self):
        """The entry is said behind what another one is told."""
        maker, other = self.client(), self.client()
        secret, number, b = self.parked(maker)
        b.send(b"x")
        self.assertEqual(self.entry(maker).park, number)
        for client in (self.client(), self.client()):
            os.kill(self.d.loop(), signal.SIGSTOP)
            try:
                first = client.send(claim(secret)._replace(flags=Flag.ANSWER), *[sync()] * 3)
                second = other.send(*[sync()] * 5)
            finally:
                os.kill(self.d.loop(), signal.SIGCONT)
            for who, serials in ((client, first), (other, second)):
                for serial in serials:
                    self.assertEqual(who.outcome(serial).error, Error.OK)
            self.assertEqual(self.entry(client).park, number)

    def test_claim_on_a_new_connection_of_the_handle(self):
        maker = self.client(handle=HANDLE)
        secret, number, b = self.parked(maker)
        b.send(b"x")
        self.entry(maker)
        maker.close()
        for _ in range(3):
            again = self.client(handle=HANDLE)
            self.ok(again, claim(secret))
            self.assertEqual(self.entry(again).park, number)
            self.nothing(again)
            again.close()

    def test_claim_of_what_is_not_there(self):
        client = self.client()
        secret, number, _ = self.parked(client)
        outcome = client.call(claim(token(), secret, NO_TOKEN))
        self.assertEqual((outcome.error, outcome.value, outcome.answer.failed),
                         (Error.NOT_FOUND, number, 2))
        self.assertEqual([(item.index, item.error) for item in outcome.failures],
                         [(0, Error.NOT_FOUND), (2, Error.NOT_FOUND)])
        client.send(claim(token()))
        client.sync()
        self.assertEqual([item.error for item in client.failures], [Error.NOT_FOUND])

    # ---- Rows ----

    def test_rows_page_by_page(self):
        client = self.client()
        wanted = {}
        for n in range(300):
            a, _ = self.pair()
            texts = (b"%d " % n).ljust(255, b"n"), b"g" * 255, os.urandom(128), os.urandom(128)
            number = self.ok(client, park(a, token(), name=texts[0], group=texts[1], cookie=n,
                                          local=texts[2], peer=texts[3])).value
            wanted[number] = (n, *texts)
        self.assertEqual(len(wanted), 300)
        for filters in ({}, {"limit": 7}, {"limit": 1000}, {"uid": os.getuid()},
                        {"pid": os.getpid()}, {"session": 2**60}):
            items = list(client.parks(**filters))
            self.assertEqual(len(items), 300, filters)
            self.assertEqual({item.row.park: (item.row.cookie, *item[1:]) for item in items},
                             wanted)
        some = list(wanted)[123]
        self.assertEqual(list(self.rows(client, id=some & 0xFFFFFFFF)), [some])
        none = (max(wanted) + 1) & 0xFFFFFFFF
        for filters in ({"uid": OTHER_UID}, {"pid": 1}, {"id": none}):
            self.assertEqual(self.rows(client, **filters), {}, filters)
        for number in wanted:
            self.ok(client, drop(number=number))
        self.assertEqual(self.rows(client), {})

    def test_rows_that_come_and_go_between_pages(self):
        client = self.client()
        numbers = [self.parked(client)[1] for _ in range(40)]
        seen = []
        for item in client.parks(limit=3):
            seen.append(item.row.park)
            victim = numbers[(len(seen) * 7) % 40]
            if len(seen) % 2 and client.call(drop(number=victim)).error == 0:
                numbers[(len(seen) * 7) % 40] = 0
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual({number for number in numbers if number}, set(seen))

    def test_the_maker_of_a_row(self):
        client, other = self.client(), self.client()
        a, b = self.pair()
        secret = token()
        worker = self.worker("park", secret.hex(), a.fileno(), pass_fds=[a.fileno()])
        self.assertEqual(worker.line(), "done")
        number, = self.rows(client, pid=worker.pid)
        worker.kill()
        until(lambda: self.row(number).pid == 0, "the maker is gone")
        self.ok(other, claim(secret))
        self.assertEqual(list(self.rows(client, pid=os.getpid())), [number])

    # ---- What the daemon has ----

    def test_kinds(self):
        client = self.client()
        tcp = self.keep(socket.create_server(("127.0.0.1", 0)))
        near = self.keep(socket.create_connection(tcp.getsockname()))
        far = self.keep(tcp.accept()[0])
        reading, writing = (self.keep(Fd(fd)) for fd in os.pipe())
        event = self.keep(Fd(os.eventfd(0)))
        things = [(near, Kind.INET, READ, lambda: far.send(b"x")),
                  (reading, Kind.PIPE, READ, lambda: os.write(writing.fileno(), b"x")),
                  (writing, Kind.PIPE, WRITE, None),
                  (event, Kind.EVENTFD, READ, lambda: os.eventfd_write(event.fileno(), 1)),
                  (self.keep(Fd(os.pidfd_open(os.getpid()))), Kind.PIDFD, READ, None)]
        for fd, kind, interest, fire in things:
            secret = token()
            number = self.ok(client, park(fd, secret, interest=interest)).value
            self.assertEqual(self.row(number).kind, kind)
            if fire:
                self.nothing(client)
                fire()
            if kind != Kind.PIDFD:
                self.assertEqual(self.entry(client).park, number)
            _, back = self.taken(client, token=secret)
            self.assertEqual(os.readlink(f"/proc/self/fd/{back.fileno()}"),
                             os.readlink(f"/proc/self/fd/{fd.fileno()}"))

    def test_s098_all_fds_are_close_on_exec(self):
        client = self.client()
        secret, _, _ = self.parked(client)
        self.parked(client, deadline=3600 * SECOND, flags=ParkFlag.RELATIVE)
        self.handed(client, token=secret)
        for pid in (self.d.loop(), *holders(self.d)):
            for number in fds_of(pid):
                with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as f:
                    flags = next(int(line.split()[1], 8) for line in f if line.startswith("flags"))
                if number > 2:
                    self.assertTrue(flags & os.O_CLOEXEC, (pid, number, fds_of(pid)[number]))

    def test_the_loop_rests_while_parks_are_ready(self):
        client = self.client()
        for n in range(3):
            secret, _, b = self.parked(client, interest=BOTH)
            b.send(b"unread")
            self.entry(client)
            if n:
                b.close()
            if n == 2:
                self.handed(client, token=secret)
        time.sleep(0.1)
        before = client.status()[0].turns
        time.sleep(0.5)
        self.assertLess(client.status()[0].turns - before, 25)


globals().update(variants(Wire))
del Wire  # not a test by itself


if __name__ == "__main__":
    unittest.main(verbosity=2)
