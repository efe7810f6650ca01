#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups over the wire: what is refused, with which error (sections 5.16, 5.22, 5.23 and 11.9 of
protocol/PROTOCOL.md), that nothing has changed then, and who has the fd. READYD names the daemon.
"""

import contextlib
import os
import unittest

from groups import G, USERS, Groups, as_user
from parks import PATIENCE, Bench, Fd, token, until, variants
from readyd_client import (
    NO_TOKEN, Attach, Error, Fatal, Flag, Message, Park, ParkFlag, Type, attach, claim, detach,
    drop, encode, held, list_rows, park, sync, take)

CONTROL = (b"\0", b"a\0", b"\0a", b"a\nb", b"\x1b[0m", b"\x01", b"\x1f", b"\x7f", b"a\tb")
ALLOWED = (b" ", b"g", b"G", b"a b", b"/", b"\"'\\", b"n" * 255, "gr\u00fcn".encode(), b"\xff\xfe")
CAPACITY_MAX = 1024
GROUPS_MAX = 64


def raw_attach(type_, more, capacity, group, length=None):
    item = Attach(more, capacity, len(group) if length is None else length)
    return Message(type_, (item,), group, flags=Flag.ANSWER)


class Refused(Groups, Bench):
    def malformed(self, data):
        """The connection ends with PROTOCOL."""
        client = self.client()
        client.post(data)
        with self.assertRaises(Fatal) as caught:
            client.next_event(PATIENCE)
        self.assertEqual(caught.exception.error, Error.PROTOCOL)

    def nowhere(self, client, group=G):
        """It is not attached to this group."""
        self.refused(client, detach(group), Error.NOT_FOUND)

    # ---- ATTACH and DETACH ----

    def test_names(self):
        client = self.client()
        for name in CONTROL:
            self.refused(client, attach(name, 1), Error.INVALID)
        self.refused(client, attach(b"", 1), Error.INVALID)
        for name in ALLOWED:
            self.ok(client, attach(name, 1))
        self.assertEqual({item.name for item in client.groups()}, set(ALLOWED))
        for name in ALLOWED:
            self.ok(client, detach(name))
            self.nowhere(client, name)
        self.assertEqual(list(client.groups()), [])

    def test_lengths_that_are_malformed(self):
        for type_ in (Type.ATTACH, Type.DETACH):
            capacity = int(type_ is Type.ATTACH)
            for group, length in ((b"n" * 256, 256), (b"n" * 1000, 1000), (b"web", 2), (b"web", 4),
                                  (b"web", 0), (b"", 3), (b"web", 0xFFFFFFFF), (b"n" * 255, 511),
                                  (b"n" * 255, 65535)):
                self.malformed(encode(raw_attach(type_, capacity, capacity, group, length)))
            good = encode(raw_attach(type_, capacity, capacity, b"web"))
            self.malformed(good[:28] + b"\1" + good[29:])  # reserved
            self.malformed(good[:-1] + b"\1")  # padding
            self.malformed(good[:-8])  # cut short
            self.malformed(good[:8] + b"\2" + good[9:])  # two records
        self.assertIsNone(self.group(b"web"))

    def test_capacity_and_credit(self):
        client = self.client()
        for more, capacity in ((0, 0), (1, 0), (0, CAPACITY_MAX + 1), (1, CAPACITY_MAX + 1),
                               (1, 0xFFFFFFFF), (2, 1), (CAPACITY_MAX + 1, CAPACITY_MAX),
                               (0xFFFFFFFF, 1), (0xFFFFFFFF, CAPACITY_MAX)):
            self.refused(client, raw_attach(Type.ATTACH, more, capacity, G), Error.INVALID)
            self.nowhere(client)
        for more, capacity in ((0, 1), (1, 1), (0, CAPACITY_MAX), (CAPACITY_MAX, CAPACITY_MAX)):
            self.ok(client, attach(G, more, capacity))
            group = self.group()
            self.assertEqual((group.credit, group.capacity, group.workers), (more, capacity, 1))
            self.ok(client, detach(G))

    def test_credit_beyond_the_capacity_changes_nothing(self):
        client = self.client()
        self.ok(client, attach(G, 3, 4))
        for more, capacity in ((2, 4), (0, 2), (1, 3), (0xFFFFFFFF, 4), (0xFFFFFFFE, 1024), (1, 0),
                               (0, 0), (0, 1025)):
            self.refused(client, attach(G, more, capacity), Error.INVALID)
            group = self.group()
            self.assertEqual((group.credit, group.capacity, group.workers), (3, 4, 1))
        self.ok(client, attach(G, 1, 4))
        self.ok(client, attach(G, 0, 4))
        self.refused(client, attach(G, 1, 4), Error.INVALID)
        self.fired(self.client(), 5)
        self.assertEqual(len(self.drained(client)), 4)
        self.refused(client, attach(G, 5, 4), Error.INVALID)
        self.idle(client)
        self.ok(client, attach(G, 4, 4))
        self.assertEqual(len(self.drained(client)), 1)

    def test_without_a_handle(self):
        nobody = self.client(handle=bytes(16))
        self.refused(nobody, attach(G, 1), Error.INVALID)
        self.nowhere(nobody)
        self.assertEqual(list(nobody.groups()), [])

    def test_64_groups_and_no_more(self):
        client, other = self.client(), self.client()
        names = [b"g%d" % n for n in range(GROUPS_MAX)]
        for name in names:
            self.ok(client, attach(name, 1))
        self.refused(client, attach(b"more", 1), Error.NO_RESOURCES)
        self.nowhere(client, b"more")
        self.ok(client, attach(names[0], 0, 2))  # not another one
        self.ok(other, attach(b"more", 1))  # this one has room
        self.ok(client, detach(names[7]))
        self.ok(client, attach(b"more", 1))
        self.refused(client, attach(names[7], 1), Error.NO_RESOURCES)
        self.assertEqual({item.name for item in client.groups()},
                         {*names, b"more"} - {names[7]})
        self.assertEqual(self.group(b"more").workers, 2)
        client.close()
        other.close()
        until(lambda: not self.everything(), "no group is left")

    def everything(self):
        with_one = self.client()
        found = list(with_one.groups())
        with_one.close()
        return found

    def test_detach(self):
        client, other = self.client(), self.client()
        self.nowhere(client)
        self.ok(client, attach(G, 2))
        self.nowhere(other)
        self.nowhere(client, b"G")
        for more, capacity in ((1, 0), (0, 1), (2, 2)):
            self.refused(client, raw_attach(Type.DETACH, more, capacity, G), Error.INVALID)
        group = self.group()
        self.assertEqual((group.workers, group.credit), (1, 2))
        self.ok(client, detach(G))
        self.nowhere(client)
        for name in (b"", *CONTROL):
            outcome = client.call(detach(name))
            self.assertIn(outcome.error, (Error.NOT_FOUND, Error.INVALID))

    def test_failures_without_being_asked_for(self):
        client = self.client()
        client.send(attach(G, 2, 1)._replace(flags=Flag(0)), attach(G, 1)._replace(flags=Flag(0)),
                    detach(b"h")._replace(flags=Flag(0)))
        client.sync()
        self.assertEqual([item.error for item in client.failures],
                         [Error.INVALID, Error.NOT_FOUND])
        self.assertEqual(self.group().credit, 1)

    def test_no_fd_is_wanted(self):
        for request in (attach(G, 1), detach(G)):
            a, b = self.pair()
            client = self.client()
            client.post(encode(request._replace(serial=1)), [a])
            with self.assertRaises(Fatal) as caught:
                client.next_event(PATIENCE)
            self.assertEqual(caught.exception.error, Error.SURPLUS_FDS)
            a.close()
            self.ended(b)
        self.assertIsNone(self.group())

    # ---- LIST_GROUPS ----

    def test_any_cursor(self):
        client = self.client()
        for n in range(5):
            self.parked(client, group=b"g%d" % n)
        for cursor in (0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1):
            for limit in (0, 1, 2**32 - 1):
                reply = client.reply(client.send(
                    list_rows(Type.LIST_GROUPS, cursor=cursor, limit=limit, session=7, pid=1,
                              id=3))[0])
                self.assertEqual(reply.type, Type.GROUPS)
                self.assertLessEqual(len(reply.records), 5)
        self.assertEqual(len(list(client.groups())), 5)

    def test_more_than_one_message_of_rows(self):
        client = self.client()
        names = {(b"%d" % n).ljust(255, b"n") for n in range(250)}
        for name in names:
            self.parked(client, group=name)
        for limit in (0, 7, 2000):
            found = [item.name for item in client.groups(limit=limit)]
            self.assertEqual(len(found), 250)
            self.assertEqual(set(found), names)
        for number in self.rows():
            self.ok(client, drop(number=number))
        self.assertEqual(list(client.groups()), [])

    # ---- PARK ----

    def test_names_of_parks_and_their_groups(self):
        client = self.client()
        for bad in CONTROL:
            for options in ({"group": bad}, {"group": bad, "name": b"n"},
                            {"group": G, "name": bad}):
                a, b = self.pair()
                self.refused(client, park(a, token(), **options), Error.INVALID)
                self.still_ours(a, b)
        for good in ALLOWED:
            _, number, _ = self.parked(client, group=good, name=good)
            self.assertEqual((self.rows()[number].group, self.rows()[number].name), (good, good))
        for lengths in ((255, 255, 2), (0, 3, 2), (3, 0, 2), (1, 2, 2)):  # that do not add up
            item = Park(token(), name_length=lengths[0], group_length=lengths[1])
            self.malformed(encode(Message(Type.PARK, (item,), b"n" * lengths[2],
                                          flags=Flag.ANSWER)))
        self.assertEqual(len(self.rows()), len(ALLOWED))

    def still_ours(self, a, b):
        """The daemon has no copy: the connection is as it was, and ends when we close it."""
        self.alive(b)
        self.carries(a, b)
        a.close()
        self.ended(b)

    def test_a_name_is_one_in_its_group(self):
        client = self.client()
        first = self.parked(client, group=G, name=b"n")
        for who in (client, self.client()):
            a, b = self.pair()
            self.refused(who, park(a, token(), group=G, name=b"n"), Error.EXISTS)
            self.still_ours(a, b)
        for group in (b"", b"h", b"G"):
            self.parked(client, group=group, name=b"n")
        for _ in range(2):
            self.parked(client, group=G)  # no name is no name
        self.assertEqual(self.row(first[1]).state, 0)

    # ---- One description, one park (11.9, rule 8) ----

    def test_one_description_parked_twice(self):
        client, other = self.client(), self.client()
        for group in (G, b""):
            a, b = self.pair()
            secret = token()
            number = self.ok(client, park(a, secret, group=group)).value
            copy = self.keep(a.dup())
            for who in (client, other):
                for fd in (a, copy):
                    for options in ({}, {"group": G}, {"group": b"h"}, {"name": b"x"}):
                        self.refused(who, park(fd, token(), **options), Error.EXISTS)
            # with the same token it is the same request
            for who in (client, other):
                for fd in (a, copy):
                    self.assertEqual(self.ok(who, park(fd, secret, group=group)).value, number)
            self.assertEqual(list(self.rows()), [number])
            a.close()
            copy.close()
            self.alive(b)  # the daemon has it
            _, fd = self.taken(client, token=secret)
            self.carries(fd, b)
            # it is not among the parks any more
            secret = token()
            self.ok(client, park(fd, secret))
            self.refused(client, park(fd, token()), Error.EXISTS)
            self.ok(client, drop(token=secret))
            secret = token()
            self.ok(client, park(fd, secret))
            self.ok(client, drop(token=secret))
            fd.close()
            self.ended(b)

    def test_both_ends_are_two_descriptions(self):
        client = self.client()
        a, b = self.pair()
        self.ok(client, park(a, token(), group=G))
        self.ok(client, park(b, token(), group=G))
        same, other = os.pipe()
        for fd in (same, other):
            self.ok(client, park(fd, token()))
            self.refused(client, park(fd, token()), Error.EXISTS)
            os.close(fd)
        self.assertEqual(len(self.rows()), 4)

    def test_a_description_that_is_handed_out(self):
        client, worker = self.client(), self.worker_of()
        secret, _, b = self.parked(client, group=G)
        b.send(b"x")
        _, fd = self.given(worker)
        self.refused(client, park(fd, token()), Error.EXISTS)  # it is the daemon's still
        self.refused(worker, park(fd, token(), group=G), Error.EXISTS)
        self.gives_back(worker, secret, fd)
        _, fd = self.taken(client, token=secret)
        self.ok(client, park(fd, token(), group=G))

    def test_two_files_are_two_descriptions_and_a_copy_is_one(self):
        """Whatever the kernel can tell of them: eventfds share an inode, files cannot be polled."""
        client = self.client()
        path = os.path.join(self.d.folder, "file")
        for opened, flags in ((lambda: os.eventfd(0), ParkFlag(0)),
                              (lambda: os.eventfd(0), ParkFlag.HOLD_ONLY),
                              (lambda: os.open("/dev/null", os.O_RDWR), ParkFlag.HOLD_ONLY),
                              (lambda: os.open(path, os.O_RDWR | os.O_CREAT), ParkFlag.HOLD_ONLY)):
            fds = [self.keep(Fd(opened())) for _ in range(2)]
            for fd in fds:
                self.ok(client, park(fd, token(), group=G, flags=flags))
            for fd in fds:
                with contextlib.closing(Fd(os.dup(fd.fd))) as copy:
                    for other in (ParkFlag(0), ParkFlag.HOLD_ONLY):
                        outcome = client.call(park(copy, token(), flags=other))
                        self.assertIn(outcome.error, (Error.EXISTS,) if other == flags
                                      else (Error.EXISTS, Error.NOT_POLLABLE))
        self.assertEqual(len(self.rows()), 8)

    def test_one_description_twice_in_one_datagram(self):
        client = self.client()
        a, b = self.pair()
        secrets = [token() for _ in range(3)]
        outcomes = client.call(park(a, secrets[0], group=G), park(a, secrets[1], group=G),
                               park(a, secrets[0], group=G))
        self.assertEqual([item.error for item in outcomes], [Error.OK, Error.EXISTS, Error.OK])
        self.assertEqual(outcomes[0].value, outcomes[2].value)
        self.refused(client, take(token=secrets[1]), Error.NOT_FOUND)
        outcomes = client.call(drop(token=secrets[0]), park(a, secrets[2], group=G))
        self.assertEqual([item.error for item in outcomes], [Error.OK, Error.OK])
        a.close()
        _, fd = self.taken(client, token=secrets[2])
        self.carries(fd, b)

    def test_refused_for_another_reason_it_is_not_parked(self):
        client = self.client()
        self.parked(client, group=G, name=b"n")
        a, b = self.pair()
        for options in ({"name": b"n"}, {"name": b"\n"}, {"interest": 0}, {"deadline": -1}):
            self.assertNotEqual(client.call(park(a, token(), group=G, **options)).error, Error.OK)
        self.ok(client, park(a, token(), group=G))
        # and one whose deadline has passed is not, either
        c, d = self.pair()
        self.ok(client, park(c, token(), group=G, deadline=1))
        self.ended(d)
        until(lambda: client.call(park(c, token(), group=G)).error == Error.OK, "the park is gone")

    def test_a_watched_description_can_be_parked(self):
        client = self.client()
        a, b = self.pair()
        client.watch(a, 1)
        self.ok(client, park(a, token(), group=G))
        self.refused(client, park(a, token()), Error.EXISTS)
        client.unwatch(1, fd=a)

    def test_a_description_of_another_user(self):
        if os.getuid() != 0:
            self.skipTest("needs root, to be another user")
        os.chmod(self.d.folder, 0o755)
        os.chmod(self.d.socket, 0o666)
        client = self.client()
        with as_user(USERS[0]):
            other = self.client()
        a, b = self.pair()
        secret, theirs = token(), token()
        self.ok(client, park(a, secret, group=G))
        self.refused(other, park(a, secret, group=G), Error.EXISTS)  # the token is not his
        self.ok(other, park(a, theirs, group=G))  # what he has parked is his own affair
        self.refused(other, park(a, token(), group=G), Error.EXISTS)
        self.refused(client, park(a, token(), group=G), Error.EXISTS)
        a.close()
        self.ok(client, drop(token=secret))
        self.alive(b)
        self.ok(other, drop(token=theirs))
        self.ended(b)
        other.close()
        type(self).before = tuple(map(max, self.before, self.counts(least=True)))

    # ---- TAKE and DROP by name, and what is settled ----

    def test_by_names_that_are_not_there(self):
        client = self.client()
        secret, number, _ = self.parked(client, group=G, name=b"n")
        for make in (take, drop):
            for name, group in ((b"n", b""), (b"n", b"h"), (b"", G), (b"N", G), (b"m", G)):
                self.refused(client, make(name=name, group=group), Error.NOT_FOUND)
        self.assertEqual(list(self.rows()), [number])
        self.ok(client, drop(name=b"n", group=G))

    def test_hand_outs_of_others_cannot_be_settled(self):
        maker, worker, other = self.client(), self.worker_of(), self.client()
        secret, number, b = self.parked(maker, group=G)
        b.send(b"x")
        _, fd = self.given(worker)
        for who in (maker, other):
            self.refused(who, held((secret, 1)), Error.NOT_FOUND)
            self.refused(who, held((secret, 0)), Error.NOT_FOUND)
            self.refused(who, take(number=number), Error.NOT_FOUND)
            self.refused(who, drop(number=number), Error.NOT_FOUND)
            self.ok(who, held((NO_TOKEN, 0)))
        self.assertEqual(self.row(number).state, 1)
        self.ok(worker, held((secret, 1)))
        self.refused(maker, claim(secret), Error.NOT_FOUND)
        self.carries(fd, b)

    def test_many_requests_in_one_datagram(self):
        """Refused ones do not stop their neighbours, and answers come in order."""
        client = self.client()
        outcomes = client.call(attach(G, 1), attach(b"", 1), attach(b"h", 2), detach(b"no"),
                               detach(b"h"), detach(b"h"), attach(G, 1, 1), sync())
        self.assertEqual([item.error for item in outcomes],
                         [Error.OK, Error.INVALID, Error.OK, Error.NOT_FOUND, Error.OK,
                          Error.NOT_FOUND, Error.INVALID, Error.OK])
        self.assertEqual({item.name for item in client.groups()}, {G})


globals().update(variants(Refused))
del Refused  # not a test by itself


if __name__ == "__main__":
    unittest.main(verbosity=2)
