#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Parks over the wire: what is refused, with which error (sections 5.16 to 5.21, 6.3 and 6.4 of
protocol/PROTOCOL.md), and that a refused fd is closed.
READYD names the daemon.
"""

import os
import select
import signal
import socket
import tempfile
import unittest

from parks import OTHER_UID, PATIENCE, Bench, Fd, token, until, variants
from daemon import Daemon
from readyd_client import (
    NO_TOKEN, Error, Fatal, Flag, Kind, Message, ParkFlag, ParkState, Quota, Take, Type,
    acknowledge, claim, drop, encode, held, park, take)



class Refused(Bench):
    # ---- Refusals ----

    def test_values_that_make_no_sense(self):
        client = self.client()
        nobody = self.client(handle=bytes(16))
        secret, number, _ = self.parked(client)
        bad = [(client, NO_TOKEN, {})] + [(nobody, token(), {})] + [
            (client, token(), options) for options in (
                {"interest": 0}, {"deadline": -1}, {"deadline": -2**63},
                {"deadline": -1, "flags": ParkFlag.RELATIVE}, {"name": b"a\nb"}, {"name": b"\0"},
                {"group": b"a\x1b"}, {"name": b"ok", "group": b"a\0"}, {"name": b"\x01"})]
        for who, secret2, options in bad:
            a, b = self.pair()
            self.refused(who, park(a, secret2, **options), Error.INVALID)
            a.close()
            self.ended(b)
        for by in ({"token": secret}, {"number": number}):
            self.refused(nobody, take(**by), Error.INVALID)
        self.refused(nobody, claim(secret), Error.INVALID)
        for type_ in (Type.TAKE, Type.DROP):
            self.refused(client, Message(type_, (Take(secret, number, by=3),), flags=Flag.ANSWER),
                         Error.INVALID)
        self.assertEqual(list(self.rows()), [number])

    def test_no_fd(self):
        client = self.client()
        secret = token()
        self.refused(client, park(None, secret), Error.BAD_FD)
        _, _, b = self.parked(client, secret=secret)
        a, b = self.pair()
        outcomes = client.call(park(a, token()), park(None, token()))
        self.assertEqual([item.error for item in outcomes], [Error.OK, Error.BAD_FD])

    def test_two_fds_for_one_park(self):
        client = self.client()
        a, b = self.pair()
        client.send(park(a, token())._replace(fds=(a, b)))
        with self.assertRaises(Fatal) as caught:
            client.next_event(PATIENCE)
        self.assertEqual(caught.exception.error, Error.SURPLUS_FDS)
        a.close()
        self.ended(b)
        self.assertEqual(self.rows(), {})

    def test_unanswered_requests_are_malformed(self):
        a, _ = self.pair()
        for request in (park(a, token()), take(number=1), acknowledge(token())):
            client = self.client()
            client.post(encode(request._replace(flags=Flag(0), serial=7)), request.fds)
            with self.assertRaises(Fatal) as caught:
                client.next_event(PATIENCE)
            self.assertEqual(caught.exception.error, Error.PROTOCOL)
        client = self.client()  # and these need not ask
        secret, _, b = self.parked(client)
        client.send(drop(token=secret)._replace(flags=Flag(0)), claim(token()),
                    held((token(), 0))._replace(flags=Flag(0)))
        client.sync()
        self.ended(b)
        self.assertEqual([item.error for item in client.failures], [Error.NOT_FOUND])

    def test_kinds_that_are_refused(self):
        client, other = self.client(), self.client()
        file = self.keep(tempfile.TemporaryFile())
        listeners = [self.keep(socket.socket(family))
                     for family in (socket.AF_INET, socket.AF_UNIX)]
        listeners[0].bind(("127.0.0.1", 0))
        listeners[1].bind("")  # to any abstract name
        for listener in listeners:
            listener.listen()
        epoll = self.keep(select.epoll())
        null = self.keep(Fd(os.open("/dev/null", os.O_RDWR)))
        path = self.keep(Fd(os.open("/", os.O_PATH)))
        signals = self.keep(Fd(make_signalfd()))
        for hold in (ParkFlag(0), ParkFlag.HOLD_ONLY):
            for fd in listeners:  # K-058
                self.refused(client, park(fd, token(), flags=hold), Error.KIND)
            self.refused(client, park(epoll, token(), flags=hold), Error.KIND, detail=Kind.EPOLL)
            self.refused(client, park(signals, token(), flags=hold), Error.KIND,
                         detail=Kind.SIGNALFD)
            for fd in (client.socket, other.socket):
                self.refused(client, park(fd, token(), flags=hold), Error.POLL_DESCRIPTOR)
        for fd in (file, null, path):
            self.refused(client, park(fd, token()), Error.NOT_POLLABLE)
        self.assertEqual(self.rows(), {})

    def test_hold_only(self):
        client = self.client()
        file = self.keep(tempfile.TemporaryFile())
        file.write(b"contents")
        file.flush()
        file.seek(3)
        secret = token()
        number = self.ok(client, park(file, secret, flags=ParkFlag.HOLD_ONLY)).value
        inode = os.fstat(file.fileno()).st_ino
        file.close()
        a, b = self.pair()
        b.send(b"x")
        ready = self.ok(client, park(a, token(), flags=ParkFlag.HOLD_ONLY)).value
        self.nothing(client)
        self.assertEqual((self.row(number).kind, self.row(number).flags, self.row(number).ready),
                         (Kind.FILE, ParkFlag.HOLD_ONLY, 0))
        self.assertEqual(self.row(ready).ready, 0)
        message, fd = self.taken(client, token=secret)
        self.assertEqual((message.records[0].flags, os.fstat(fd.fileno()).st_ino),
                         (ParkFlag.HOLD_ONLY, inode))
        self.assertEqual(os.read(fd.fileno(), 100), b"tents")

    def test_features_say_what_parks_outlive(self):
        client = self.client(features=("park", "survive", "durable"))
        self.assertIn("park", client.features)
        self.assertEqual("survive" in client.features, self.keeper)
        self.assertFalse("durable" in client.features and not self.keeper)
        a, b = self.pair()
        request = park(a, token(), flags=ParkFlag.DURABLE)
        if "durable" in client.features:
            self.ok(client, request)
        else:
            self.refused(client, request, Error.NOT_SUPPORTED)
            a.close()
            self.ended(b)

    def test_another_user(self):
        if os.getuid() != 0:
            self.skipTest("needs root, to be another user")
        os.chmod(self.d.folder, 0o755)
        os.chmod(self.d.socket, 0o666)
        for again in range(2):
            client = self.client()
            secret, number, b = self.parked(client, name=b"theirs")
            a, _ = self.pair()
            worker = self.worker("other", secret.hex(), number, a.fileno(), pass_fds=[a.fileno()])
            self.assertEqual(worker.line(), "0 " + "NOT_FOUND " * 9 + "EXISTS OK")
            self.assertEqual({item.row.uid for item in client.parks()}, {0, OTHER_UID})
            self.assertEqual([item.name for item in client.parks(uid=OTHER_UID)], [b"theirs"])
            worker.tell()
            self.assertEqual(worker.line(), "done")
            _, fd = self.taken(client, token=secret)
            self.carries(fd, b)
            # what a uid has once parked with may stay, but it stays one
            if not again:
                self.close_all()
                type(self).before = self.counts(least=True)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for another user's process")
    def test_root_drops_anybodys(self):
        client = self.client()
        for by in "token", "number":
            secret, number, b = self.theirs()
            group = secret.hex()[:8].encode()
            self.refused(client, drop(name=b"theirs", group=group), Error.NOT_FOUND)
            self.refused(client, take(token=secret), Error.NOT_FOUND)
            self.alive(b)
            named = {"token": secret} if by == "token" else {"number": number}
            self.assertEqual(self.ok(client, drop(**named)).value, number)
            self.ended(b)
            self.assertNotIn(number, self.rows())
            self.refused(client, drop(**named), Error.NOT_FOUND)
            if by == "token":  # from now on there is that user's holder, too
                self.close_all()
                type(self).before = self.counts(least=True)
                client = self.client()


def make_signalfd():
    """Python has no signalfd: by ctypes, of a signal that nobody sends."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR2 - 1))
    fd = libc.signalfd(-1, mask, os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


globals().update(variants(Refused))
del Refused  # not a test by itself


class Quotas(Bench):
    @classmethod
    def start(cls):
        return Daemon("limits: {parks: 5, note-bytes: 100, fds-unread: 2}\n")

    def used(self, client, quota):
        return next((row.used for row in client.quotas(uid=os.getuid()) if row.quota == quota), 0)

    def test_parks(self):
        client, other = self.client(), self.client()
        parks = [self.parked(client) for _ in range(5)]
        self.assertEqual(self.used(client, Quota.PARKS), 5)
        for who in (client, other):
            a, b = self.pair()
            self.refused(who, park(a, token()), Error.QUOTA, detail=Quota.PARKS, value=5)
            a.close()
            self.ended(b)
        # a repeated one is not another one
        a, _ = self.pair()
        self.assertEqual(self.ok(other, park(a, parks[0][0])).value, parks[0][1])
        _, fd = self.handed(client, token=parks[1][0])  # still the daemon's
        self.refused(client, park(a, token()), Error.QUOTA)
        self.ok(client, acknowledge(parks[1][0]))
        self.parked(client)
        self.refused(client, park(a, token()), Error.QUOTA)
        self.ok(client, drop(token=parks[2][0]))
        self.parked(client)
        self.refused(client, park(a, token()), Error.QUOTA)
        for _, _, b in parks[3:]:
            self.alive(b)

    def test_a_passed_deadline_frees(self):
        client = self.client()
        for _ in range(5):
            _, _, b = self.parked(client, deadline=1)
            self.ended(b)
        until(lambda: self.used(client, Quota.PARKS) == 0, "none is left")
        self.parked(client)

    def test_note_bytes(self):
        client = self.client()
        first, _, _ = self.parked(client, note=b"n" * 60)
        a, b = self.pair()
        self.refused(client, park(a, token(), note=b"n" * 41), Error.QUOTA,
                     detail=Quota.NOTE_BYTES, value=100)
        c, d, e = (self.pair()[0] for _ in range(3))
        self.ok(client, park(c, token(), note=b"n" * 40))
        self.assertEqual(self.used(client, Quota.NOTE_BYTES), 100)
        self.refused(client, park(a, token(), note=b"n"), Error.QUOTA)
        self.ok(client, park(d, token()))
        self.taken(client, token=first)
        self.assertEqual(self.used(client, Quota.NOTE_BYTES), 40)
        self.ok(client, park(e, token(), note=b"n" * 60))

    def test_fds_unread(self):
        client, other = self.client(), self.client()
        parks = [self.parked(client) for _ in range(4)]
        handed = [self.handed(client, token=secret)[1] for secret, _, _ in parks[:2]]
        for who in (client, other):
            self.refused(who, take(token=parks[2][0]), Error.QUOTA, detail=Quota.FDS_UNREAD,
                         value=2)
        self.assertEqual(self.row(parks[2][1]).state, ParkState.HELD)
        self.ok(client, acknowledge(parks[0][0]))
        _, third = self.handed(other, token=parks[2][0])
        self.refused(other, take(token=parks[3][0]), Error.QUOTA)
        self.ok(client, held((parks[1][0], 0)))
        self.taken(other, token=parks[3][0])
        self.taken(other, token=parks[1][0])
        self.carries(handed[0], parks[0][2])


if __name__ == "__main__":
    unittest.main(verbosity=2)
