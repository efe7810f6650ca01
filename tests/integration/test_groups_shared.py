#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups and users: nothing is shared without a rule, and each right gives what it says, no more
(sections 10 and 11.10 of protocol/PROTOCOL.md, S-127). Needs root, to be several users. READYD
names the daemon; READYD_SEED, if set, says what the random numbers begin with.
"""

import os
import random
import signal
import time
import unittest

from daemon import Daemon
from groups import USERS, Forked, Groups, as_user, shared
from parks import PATIENCE, Bench, BenchOfDeaths, Fd, connect, token, until
from readyd_client import (
    ALL_UIDS, Client, Code, Error, ParkState, Quota, acknowledge, attach, claim, detach, drop, held,
    park, take)

SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
A, B, C = USERS
WEB = b"web"
GID = 4321
CONFIG = f"trusted: {list(USERS)}\npark-max-age: 0s\n"
RIGHTS = {"web": {"park": [A, B], "take": [B, C], "list": [C]}, "parkers": {"park": [A]},
          "takers": {"take": [B]}, "listers": {"list": [C]}}
RULES = shared(**RIGHTS, members={"park": [f"@{GID}"], "take": [f"@{GID}"]})


SEVERAL = unittest.skipIf(os.getuid() != 0, "needs root, to be several users")


class People(Groups):
    """Steps of tests with several users, for a Bench."""

    rules = RULES

    @classmethod
    def start(cls):
        return Daemon(CONFIG + cls.rules)

    @classmethod
    def renew(cls):
        super().renew()
        os.chmod(cls.d.folder, 0o755)
        os.chmod(cls.d.socket, 0o666)
        for uid in USERS:  # what a user has once parked with may stay
            a, b = os.pipe()
            with cls.user(uid) as client:
                secret = token()
                client.call(park(a, secret)).check()
                client.call(drop(token=secret)).check()
            os.close(a)
            os.close(b)
        cls.before = tuple(map(max, cls.before, cls.counts(least=True)))

    @classmethod
    def user(cls, uid, groups=()):
        with as_user(uid, groups):
            return connect(cls.d)

    def person(self, uid, groups=()):
        return self.keep(self.user(uid, groups))

    def people(self):
        return [self.person(uid) for uid in USERS]

    def settle(self):
        for uid in USERS:
            with self.user(uid) as client:
                for item in client.parks():
                    client.call(drop(number=item.row.park))
        super().settle()

    def works(self, client, group, more=8):
        self.ok(client, attach(group, more))
        return client

    def sees(self, client):
        return {item.row.park for item in client.parks()}

    def names(self, client):
        return {(item.name, item.row.uid) for item in client.groups()}

    def refused_with(self, client, request, *errors):
        self.assertIn(client.call(request).error, errors, request)


@SEVERAL
class Shared(People, Bench):
    # ---- Nobody is named ----

    def test_s127_without_a_rule_each_has_a_group_of_his_own(self):
        a, b, c = self.people()
        for client in (a, b, self.client()):
            self.works(client, b"own")
        theirs = {}
        for client in (a, b):
            theirs[client] = self.parked(client, group=b"own", name=b"n")
        for client, other in ((a, b), (b, a), (c, a)):
            secret, number, peer = theirs[other]
            for by in ({"token": secret}, {"number": number}):
                self.refused(client, take(**by), Error.NOT_FOUND)
                self.refused(client, drop(**by), Error.NOT_FOUND)
            self.refused(client, claim(secret), Error.NOT_FOUND)
            self.refused(client, held((secret, 0)), Error.NOT_FOUND)
            self.assertNotIn(number, self.sees(client))
            self.alive(peer)
        for make in (take, drop):
            self.refused(c, make(name=b"n", group=b"own"), Error.NOT_FOUND)
        self.assertEqual(self.names(a), {(b"own", A)})
        self.assertEqual(self.names(b), {(b"own", B)})
        self.assertEqual(self.names(c), set())
        self.assertEqual(self.row(theirs[a][1]).shared, 0)
        for client in (a, b):
            secret, _, peer = theirs[client]
            peer.send(b"x")
            message, fd = self.given(client)
            self.assertEqual(message.records[0].token, secret)
            for other in {a, b, c} - {client}:
                self.refused(other, acknowledge(secret), Error.NOT_FOUND)
                self.refused(other, held((secret, 0)), Error.NOT_FOUND)
            self.ok(client, acknowledge(secret))
            self.carries(fd, peer)
        self.idle(a, b)

    def test_s127_who_may_none_of_it_is_in_another_world(self):
        """The group `takers` is B's. A has one of that name for himself, and so has C."""
        a, b, c = self.people()
        self.works(b, b"takers")
        for client, uid in ((a, A), (c, C)):
            self.works(client, b"takers")
            secret, number, peer = self.parked(client, group=b"takers", name=b"n")
            self.assertEqual(self.row(number).shared, 0)
            peer.send(b"x")
            message, fd = self.owned(client)
            self.assertEqual(message.records[0].token, secret)
            self.assertIn((b"takers", uid), self.names(client))
            self.carries(fd, peer)
        self.idle(a, b, c)
        self.assertEqual(self.shared_group(b"takers").workers, 1)
        self.assertEqual(self.group(b"takers", uid=A).workers, 1)
        # root is in the shared one
        secret, number, peer = self.parked(self.client(), group=b"takers")
        self.assertEqual(self.row(number).shared, 1)
        peer.send(b"x")
        self.assertEqual(self.owned(b)[0].records[0].token, secret)
        self.idle(a, c)

    # ---- Each right alone ----

    def test_s127_who_may_only_park(self):
        a, root = self.person(A), self.client()
        secret, number, peer = self.parked(a, group=b"parkers", name=b"n")
        _, foreign, _ = self.parked(root, group=b"parkers", name=b"m")
        self.assertEqual((self.row(number).shared, self.row(number).uid), (1, A))
        self.refused(a, attach(b"parkers", 1), Error.ACCESS)
        self.refused(a, detach(b"parkers"), Error.NOT_FOUND)
        for make in (take, drop):
            self.refused(a, make(name=b"m", group=b"parkers"), Error.ACCESS)
            self.refused_with(a, make(number=foreign), Error.ACCESS, Error.NOT_FOUND)
        self.assertEqual(self.sees(a), {number})  # his own
        self.assertNotIn((b"parkers", ALL_UIDS), self.names(a))
        self.ok(a, claim(secret))
        self.works(root, b"parkers")
        peer.send(b"x")
        message, fd = self.owned(root)
        self.assertEqual(message.records[0].token, secret)
        self.carries(fd, peer)
        self.idle(a)  # its maker is not told
        for by in ("token", "number", "name"):  # he takes back what is his own
            secret, number, peer = self.parked(a, group=b"parkers", name=b"n")
            _, fd = self.taken(a, **{"token": {"token": secret}, "number": {"number": number},
                                     "name": {"name": b"n", "group": b"parkers"}}[by])
            self.carries(fd, peer)

    def test_s127_who_may_only_take(self):
        b, root = self.person(B), self.client()
        x, y = self.pair()
        self.refused(b, park(x, token(), group=b"takers"), Error.ACCESS)
        self.alive(y)
        x.close()
        self.ended(y)
        parks = [self.parked(root, group=b"takers", name=b"n%d" % n) for n in range(6)]
        self.assertEqual(self.sees(b), set())
        self.assertNotIn((b"takers", ALL_UIDS), self.names(b))
        for by in ({"name": b"n0", "group": b"takers"}, {"number": parks[1][1]},
                   {"token": parks[2][0]}):
            _, fd = self.taken(b, **by)
            self.carries(fd, parks.pop(0)[2] if "name" in by else
                         next(peer for secret, number, peer in parks
                              if secret == by.get("token") or number == by.get("number")))
        parks = parks[-3:]
        self.ok(b, drop(name=b"n3", group=b"takers"))
        self.ended(parks[0][2])
        self.refused(b, claim(parks[1][0]), Error.NOT_FOUND)  # he did not make it
        self.works(b, b"takers")
        parks[1][2].send(b"x")
        message, fd = self.owned(b)
        self.assertEqual((message.records[0].token, message.parts["group"]),
                         (parks[1][0], b"takers"))
        self.carries(fd, parks[1][2])
        self.idle(b)

    def test_s127_who_may_only_list(self):
        c, root = self.person(C), self.client()
        secret, number, peer = self.parked(root, group=b"listers", name=b"n")
        peer.send(b"x")
        self.ready_row(number)
        item = next(item for item in c.parks() if item.row.park == number)
        self.assertEqual((item.name, item.group, item.row.uid, item.row.shared),
                         (b"n", b"listers", 0, 1))
        group = self.shared_group(b"listers", c)
        self.assertEqual((group.parks, group.ready, group.workers), (1, 1, 0))
        x, y = self.pair()
        self.refused(c, park(x, token(), group=b"listers"), Error.ACCESS)
        x.close()
        self.ended(y)
        self.refused(c, attach(b"listers", 1), Error.ACCESS)
        for make in (take, drop):
            self.refused(c, make(name=b"n", group=b"listers"), Error.ACCESS)
            self.refused_with(c, make(number=number), Error.ACCESS, Error.NOT_FOUND)
            self.refused_with(c, make(token=secret), Error.ACCESS, Error.NOT_FOUND)
        self.refused(c, claim(secret), Error.NOT_FOUND)
        self.assertEqual(self.row(number).state, ParkState.HELD)
        self.alive(peer)

    def test_members_of_a_group_of_users(self):
        member, stranger = self.person(A, [GID]), self.person(A)
        secret, number, peer = self.parked(member, group=b"members")
        self.assertEqual(self.row(number).shared, 1)
        self.works(stranger, b"members")  # in a world of his own
        peer.send(b"x")
        self.ready_row(number)
        self.idle(stranger)
        other = self.works(self.person(C, [GID]), b"members")
        message, fd = self.owned(other)
        self.assertEqual(message.records[0].token, secret)
        self.carries(fd, peer)

    def test_root_may_all_of_it(self):
        root = self.client()
        for group in (WEB, b"parkers", b"takers", b"listers", b"members"):
            secret, number, peer = self.parked(root, group=group, name=b"n")
            self.assertEqual(self.row(number).shared, 1, group)
            self.assertIsNotNone(self.shared_group(group, root))
            _, fd = self.taken(root, name=b"n", group=group)
            self.works(root, group)
            secret = token()
            self.ok(root, park(fd, secret, group=group))
            fd.close()
            peer.send(b"x")
            self.assertEqual(self.owned(root)[0].records[0].token, secret)

    # ---- Together ----

    def test_from_all_to_all(self):
        """Oldest ready first, whoever parked it; exactly one of all workers gets it."""
        a, b, c = self.people()
        parks = [self.parked(client, group=WEB) for client in (a, b, a, self.client(), b, a)]
        order = [parks[n] for n in (4, 0, 3, 5, 1, 2)]
        self.fire(*order)
        group = self.shared_group(WEB, c)
        self.assertEqual((group.parks, group.ready), (6, 6))
        self.ok(c, attach(WEB, 3))
        got = [self.owned(c)[0].records[0].token for _ in range(3)]
        self.assertEqual(got, [secret for secret, _, _ in order[:3]])
        self.idle(c)
        self.ok(b, attach(WEB, 3))
        got = [self.owned(b)[0].records[0].token for _ in range(3)]
        self.assertEqual(got, [secret for secret, _, _ in order[3:]])
        self.idle(a, b, c)
        self.assertEqual(self.shared_group(WEB, c).workers, 2)

    def test_a_worker_of_another_user_is_killed(self):
        a, c = self.person(A), self.person(C)
        worker = self.keep(Forked(works_as, self.d.socket, B, WEB))
        until(lambda: (row := self.shared_group(WEB)) and row.workers, "it has attached")
        secret, number, peer = self.parked(a, group=WEB)
        peer.send(b"x")
        self.assertEqual(worker.line(), str(number))
        self.assertEqual(self.row(number).worker_pid, worker.pid)
        self.works(c, WEB)
        self.idle(c)
        worker.kill()
        message, fd = self.owned(c)
        self.assertEqual(message.records[0].token, secret)
        self.carries(fd, peer)
        fd.close()
        self.ended(peer)

    def test_a_park_stays_its_makers(self):
        a, b, c = self.people()
        root = self.client()

        def used(uid):
            return {row.quota: row.used for row in root.quotas(uid=uid)}.get(Quota.PARKS, 0)

        secret, number, peer = self.parked(a, group=WEB)
        self.assertEqual((used(A), used(B)), (1, 0))
        self.works(b, WEB)
        peer.send(b"x")
        _, fd = self.given(b)
        self.assertEqual((used(A), used(B)), (1, 0))
        row = next(item.row for item in a.parks())
        self.assertEqual((row.park, row.uid, row.state), (number, A, ParkState.HANDED))
        for other in (a, c):
            self.refused(other, acknowledge(secret), Error.NOT_FOUND)
            self.refused(other, held((secret, 0)), Error.NOT_FOUND)
        self.ok(b, acknowledge(secret))
        self.assertEqual((used(A), used(B)), (0, 0))
        secret2 = token()
        self.ok(b, park(fd, secret2, group=WEB))  # now it is B's
        self.assertEqual((used(A), used(B)), (0, 1))
        self.refused(a, claim(secret2), Error.NOT_FOUND)
        self.ok(b, claim(secret2))

    def test_names_are_unique_for_each_user_and_ones_own_is_found_first(self):
        for make in (take, drop):
            a, b, c = self.people()
            oldest = self.parked(a, group=WEB, name=b"n")
            second = self.parked(self.client(), group=WEB, name=b"n")
            own = self.parked(b, group=WEB, name=b"n")
            for client in (a, b):
                x, _ = self.pair()
                self.refused(client, park(x, token(), group=WEB, name=b"n"), Error.EXISTS)
            for client, expected in ((b, own), (b, oldest), (c, second)):
                if make is take:
                    message, fd = self.taken(client, name=b"n", group=WEB)
                    self.assertEqual(message.records[0].token, expected[0])
                    self.carries(fd, expected[2])
                    fd.close()
                else:
                    self.assertEqual(self.ok(client, drop(name=b"n", group=WEB)).value,
                                     expected[1])
                self.ended(expected[2])
            self.refused(c, make(name=b"n", group=WEB), Error.NOT_FOUND)

    # ---- Listing ----

    def test_listing(self):
        a, b, c = self.people()
        of_a = self.parked(a, group=WEB)[1]
        of_b = self.parked(b, group=WEB)[1]
        alone = self.parked(a, group=b"mine")[1]
        without = self.parked(b)[1]
        self.assertEqual(self.sees(a), {of_a, alone})
        self.assertEqual(self.sees(b), {of_b, without})
        self.assertEqual(self.sees(c), {of_a, of_b})
        self.assertEqual(self.sees(self.client()), {of_a, of_b, alone, without})
        self.assertEqual(self.names(a), {(b"mine", A)})
        self.assertEqual(self.names(b), set())
        self.assertEqual(self.names(c), {(WEB, ALL_UIDS)})
        self.assertEqual(self.names(self.client()), {(WEB, ALL_UIDS), (b"mine", A)})
        self.works(b, WEB, 3)
        group = self.shared_group(WEB, c)
        self.assertEqual((group.parks, group.workers, group.credit, group.capacity), (2, 1, 3, 3))

    # ---- At random ----

    def test_s127_at_random(self):
        """Whatever they try, nobody has or sees what no rule gives him."""
        print(f"READYD_SEED={SEED}")
        numbers = random.Random(SEED)
        people = {uid: self.person(uid) for uid in USERS}
        groups = [*(name.encode() for name in RIGHTS), b"own"]
        made = {}  # by token: number, uid, group, peer
        got = {uid: 0 for uid in USERS}

        def look():
            for uid, client in people.items():
                client.sync()
                while client.handouts:
                    message = client.handouts.pop(0)
                    fd = Fd(message.fds[0])
                    secret = message.records[0].token
                    _, maker, group, peer = made.pop(secret)
                    self.assertTrue(can(uid, "take", group, maker), f"{uid} got {maker}'s {group}")
                    self.ok(client, acknowledge(secret))
                    self.carries(fd, peer)
                    fd.close()
                    got[uid] += 1

        for turn in range(300):
            uid, group = numbers.choice(USERS), numbers.choice(groups)
            client, what = people[uid], numbers.choice(("park", "attach", "take", "drop", "list"))
            if what == "park":
                a, b = self.pair()
                b.send(b"x")
                secret = token()
                made[secret] = None, uid, group, b
                outcome = client.call(park(a, secret, group=group, name=b"%d" % turn))
                a.close()
                self.assertEqual(outcome.error, Error.OK if can(uid, "park", group, uid)
                                 else Error.ACCESS)
                made[secret] = outcome.value, uid, group, b
                if outcome.error:
                    del made[secret]
            elif what == "attach":
                error = client.call(attach(group, 1, 1)).error
                self.assertIn(error, (Error.OK, Error.INVALID) if can(uid, "take", group, uid)
                              else (Error.ACCESS,))
            elif what == "list":
                look()
                self.assertEqual(self.sees(client), {
                    number for number, maker, where, _ in made.values()
                    if maker == uid or can(uid, "list", where, maker)})
                self.assertLessEqual({item.row.uid for item in client.groups()}, {uid, ALL_UIDS})
            elif look() or made:
                secret = numbers.choice(list(made))
                number, maker, where, peer = made[secret]
                by = numbers.choice(({"token": secret}, {"number": number}))
                outcome = client.call((take if what == "take" else drop)(**by))
                if outcome.error == Error.OK:
                    self.assertTrue(maker == uid or can(uid, "take", where, maker), where)
                if outcome.error == Error.OK and what == "take":
                    os.close(client.handout(outcome.answer.serial).fds[0])
                    self.ok(client, acknowledge(secret))
                if outcome.error == Error.OK:
                    self.ended(peer)
                    del made[secret]
                elif maker == uid or can(uid, "take", where, maker):
                    # it went to a worker in this moment
                    self.assertEqual(outcome.error, Error.NOT_FOUND)
            look()
        self.assertGreater(min(got.values()), 0)

    # ---- Reload ----

    def reload(self, rules):
        before = len(self.d.log())
        self.d.write_config(CONFIG + rules)
        self.d.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration read anew" in self.d.log()[before:], "the reload")

    def test_a_reload_gives_rights_and_takes_them(self):
        self.addCleanup(self.reload, self.rules)
        a, b, c = self.people()
        self.works(b, WEB, 4)
        first = self.parked(a, group=WEB)
        first[2].send(b"x")
        _, fd = self.given(b)
        self.reload(shared(web={"park": [B], "take": [C], "list": [A]}))
        x, y = self.pair()
        self.refused(a, park(x, token(), group=WEB), Error.ACCESS)
        x.close()
        self.ended(y)
        self.refused(b, attach(WEB, 1, 4), Error.ACCESS)
        self.refused(a, attach(WEB, 1), Error.ACCESS)
        second = self.parked(b, group=WEB)
        self.assertEqual(self.row(second[1]).shared, 1)
        self.assertIn(second[1], self.sees(a))
        self.assertEqual(self.sees(c), set())
        second[2].send(b"x")
        self.ready_row(second[1])
        self.idle(b)  # though he has credit from before
        self.assertEqual(self.row(second[1]).state, ParkState.HELD)
        self.works(c, WEB)
        self.assertEqual(self.owned(c)[0].records[0].token, second[0])
        self.ok(b, acknowledge(first[0]))  # what he was given is his
        self.carries(fd, first[2])

    def test_a_reload_that_takes_the_whole_rule(self):
        self.addCleanup(self.reload, self.rules)
        a, b, c = self.people()
        self.works(b, WEB, 4)
        self.works(c, WEB, 4)
        self.reload("")
        secret, number, peer = self.parked(a, group=WEB)
        self.assertEqual(self.row(number).shared, 0)
        peer.send(b"x")
        self.ready_row(number)
        self.idle(b, c)
        self.refused(b, take(token=secret), Error.NOT_FOUND)
        self.assertEqual(self.sees(c), set())
        self.works(a, WEB)  # a group of his own
        self.assertEqual(self.owned(a)[0].records[0].token, secret)

    def held_of(self, parks):
        """The tokens of those that are not handed out; the loop reads anew after the keeper has."""
        rows = self.rows()
        return {secret for secret, number in parks.items()
                if rows[number].row.state == ParkState.HELD}

    def test_a_reload_takes_back_what_is_not_sent(self):
        """What waits for the worker's socket is not sent to one who may not have it any more."""
        self.addCleanup(self.reload, self.rules)
        for rules in ("", shared(web={"list": [B]})):
            a, b = self.person(A), self.person(B)
            self.works(b, WEB, 12)
            asked = self.deafen(b)
            parks = {}
            for _ in range(12):
                secret, number, peer = self.parked(a, group=WEB)
                parks[secret] = number
                peer.send(b"x")
            until(lambda: self.shared_group(WEB).handed == 12, "all are handed out")
            self.reload(rules)
            unsent = until(lambda: self.held_of(parks), "what was not sent is parked again")
            if not rules:  # his worker is in a group of his own now, as free as he thinks it is
                until(lambda: self.group(WEB, uid=B).credit == len(unsent), "its credit again")
            self.reload("")  # A's again, in any case
            self.works(a, WEB, 12)
            self.assertEqual({self.owned(a)[0].records[0].token for _ in unsent}, unsent)
            for serial in asked:
                b.outcome(serial).check()
            self.assertEqual({message.records[0].token for message in self.drained(b)},
                             set(parks) - unsent)
            b.close()  # what it had goes to A
            for _ in range(12 - len(unsent)):
                self.owned(a)
            self.reload(self.rules)

    def test_a_bad_file_leaves_the_rules(self):
        self.addCleanup(self.reload, self.rules)
        a, b = self.people()[:2]
        self.d.write_config("shared-groups: 7\n")
        before = len(self.d.log())
        self.d.process.send_signal(signal.SIGHUP)
        until(lambda: "reload failed" in self.d.log()[before:], "the failure")
        self.works(b, WEB)
        secret, _, peer = self.parked(a, group=WEB)
        peer.send(b"x")
        self.assertEqual(self.owned(b)[0].records[0].token, secret)


def can(uid, right, group, maker):
    """Whether this user has that right to what `maker` has parked in a group of this name."""
    rights = RIGHTS.get(group.decode(), {})
    shares = [each for each in (uid, maker) if any(each in who for who in rights.values())]
    if not shares:
        return uid == maker
    return uid in shares and maker in shares and uid in rights.get(right, ())


def works_as(say, _, address, uid, group):
    """A real process of another user."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    client = Client(address, timeout=PATIENCE)
    client.call(attach(group, 4)).check()
    while True:
        say(client.handout(0).records[0].park)


@SEVERAL
class Inspect(People, Bench):
    rules = RULES + f"inspect: [{C}]\n"

    def test_who_may_inspect_sees_all(self):
        a, b, c = self.people()
        numbers = {self.parked(a, group=b"mine")[1], self.parked(a, group=b"parkers")[1],
                   self.parked(b)[1]}
        self.assertEqual(self.sees(c), numbers)
        self.assertEqual(self.names(c), {(b"mine", A), (b"parkers", ALL_UIDS)})
        self.assertEqual(self.names(b), set())


@SEVERAL
class Unread(People, Bench):
    rules = RULES + "limits: {fds-unread: 2}\n"

    def test_hand_outs_are_charged_to_the_worker(self):
        a, b, c = self.people()
        self.fire(*(self.parked(a, group=WEB) for _ in range(6)))
        for client in (b, c):
            self.works(client, WEB)
            got = self.drained(client)
            self.assertEqual(len(got), 2)
            self.ok(client, acknowledge(got[0].records[0].token))
            self.assertEqual(len(self.drained(client)), 1)
        self.assertEqual(self.shared_group(WEB).handed, 4)


@SEVERAL
class AfterDeaths(People, BenchOfDeaths):
    def test_shared_after_a_death(self):
        with self.again():
            a = self.person(A)
            secret, number, peer = self.parked(a, group=WEB, name=b"n")
            # in A's own world
            own, mine, _ = self.parked(a, group=b"takers", name=b"n")
        for _ in range(2):
            self.kill_loop()
            until(lambda: set(self.rows()) == {number, mine}, "all parks")
            rows = self.rows()
            self.assertEqual([(rows[n].group, rows[n].row.shared, rows[n].row.uid)
                              for n in (number, mine)], [(WEB, 1, A), (b"takers", 0, A)])
        a, b, c = self.people()
        self.ok(a, claim(secret, own))
        self.assertEqual(self.names(c), {(WEB, ALL_UIDS)})
        self.works(b, b"takers")
        self.works(b, WEB)
        peer.send(b"x")
        message, fd = self.owned(b)
        self.assertEqual((message.records[0].token, message.records[0].read), (secret, Code.READY))
        self.carries(fd, peer)
        self.idle(b)

    def test_handed_to_another_user_when_the_loop_dies(self):
        a, b = self.person(A), self.person(B)
        secret, number, peer = self.parked(a, group=WEB)
        self.works(b, WEB)
        peer.send(b"x")
        _, fd = self.given(b)
        self.kill_loop()
        row = until(lambda: self.rows().get(number), "the park").row
        self.assertEqual((row.state, row.uid, row.shared), (ParkState.HANDED, A, 1))
        c = self.works(self.person(C), WEB)
        self.idle(c)
        with as_user(A):
            thief = self.client(handle=b.handle)  # the right word, from the wrong user
        self.refused_with(thief, held((secret, 0)), Error.NOT_FOUND)
        self.idle(c)
        with as_user(B):
            back = self.client(handle=b.handle)
        self.ok(back, held((secret, 1)))
        self.carries(fd, peer)
        self.idle(c)
        self.assertEqual(self.rows(), {})


if __name__ == "__main__":
    unittest.main(verbosity=2)
