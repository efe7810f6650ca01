# SPDX-License-Identifier: MIT
"""Runs readyd against its protocol: `READYD=/path/to/readyd python3 conformance.py [word...]`.

Starts its own daemons, one for each backend, and prints a line for each test; with words, only
the tests whose line has one of them. Tests named S_ have the number of an item of the conformance
list, tests named P_ are about the protocol itself; each file of protocol/vectors is a test too.
"""

import contextlib
import ctypes
import os
import pathlib
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from readyd_client import (  # noqa: E402
    ALL_UIDS, BOTH, EXPIRED, FEATURES, FOREVER, MAGIC, MESSAGE_MAX, READ, REPLIES, WRITE, Answer,
    BreakEntry, Client, Code, Connection, ConnectionEnded, Direction, Entry, Error, Failure,
    Fatal, Flag, Hello, Kind, Message, Mode, Monitor, Quota, Refused, SessionFlag, Slots, SlotState,
    TimerEntry, TimerSet, Type, Unwatch, UnwatchFlag, Watch, WatchFlag, break_, deadline, encode,
    evict, get_status, is_poll_descriptor, list_rows, parse_message, parse_requests, reset, sync,
    timer_set, timer_stop, unwait, unwatch, wait, watch)

MS = 1_000_000
SECOND = 1000 * MS
SOON = 1.0
READY, CLOSING, TIMEOUT, NOT_POLLABLE = (
    Code.READY, Code.CLOSING, Code.TIMEOUT, Code.NOT_POLLABLE)
NOTHING = Code(0)
NEITHER = Direction(0)
VECTORS = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "vectors"


class Failed(Exception):
    """A test's expectation does not hold."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def equal(found, wanted, what="value"):
    check(found == wanted, f"{what}: {found!r}, not {wanted!r}")


class Fd:
    """A bare fd that can be closed."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def close(self):
        os.close(self.fd)


class Daemon:
    """A daemon of our own, ended on leaving."""

    def __init__(self, program, config):
        self.program, self.config = program, config

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="readyd-interop-"))
            path = os.path.join(self.folder, "readyd.yaml")
            pathlib.Path(path).write_text(self.config, encoding="ascii")
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            try:
                self.process = subprocess.Popen(
                    [self.program, "--private", "--config", path, "--ready-fd", str(writing)],
                    pass_fds=[writing], stderr=subprocess.DEVNULL)
            finally:
                os.close(writing)
            stack.callback(self.end)
            text = b""
            while not re.search(rb"^READYD_SOCKET=.*\n", text, re.M):
                check(select.select([reading], [], [], 10)[0], "the daemon does not start")
                part = os.read(reading, 4096)
                check(part, "the daemon ended as it started")
                text += part
            self.address = re.search(rb"^READYD_SOCKET=(.*)\n", text, re.M)[1].decode()
            self.stack = stack.pop_all()
        return self

    def loop(self):
        """The pid of the process that serves, which is what the daemon tells: the keeper's child."""
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        for child in children.split():
            if pathlib.Path(f"/proc/{child}/comm").read_text(encoding="ascii") != "readyd-holder\n":
                return int(child)
        return pid

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.stack.close()


class Bench:
    """What a test gets: the daemon, and things that are closed at its end."""

    def __init__(self, backend, daemon, program):
        self.backend, self.daemon, self.program = backend, daemon, program
        self.kept, self.clients = [], []

    def keep(self, thing):
        self.kept.append(thing)
        return thing

    def client(self, address=None, **options):
        client = self.keep(Client(address or self.daemon.address, **options))
        self.clients.append(client)
        return client

    def raw(self, greet=True):
        connection = self.keep(Connection(self.daemon.address))
        if greet:
            connection.post(encode(Message(Type.HELLO, (Hello(),), serial=1)))
            equal(connection.take(SOON).type, Type.WELCOME, "answer to HELLO")
        return connection

    def forget(self, client):
        """Closes a client before the test's end."""
        self.clients.remove(client)
        client.close()

    def pair(self, kind=socket.SOCK_STREAM):
        a, b = (self.keep(end) for end in socket.socketpair(socket.AF_UNIX, kind))
        a.setblocking(False)
        b.setblocking(False)
        return a, b

    def pipe(self):
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self.keep(open(reading, "rb", 0)), self.keep(open(writing, "wb", 0))

    def eventfd(self, value=0):
        fd = os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self.keep(Fd(fd))

    def watched(self, interest=BOTH, mode=Mode.WAIT, full=False):
        """A client, and a pair whose first end it watches as id 1; `full`: a cannot write."""
        client = self.client()
        a, b = self.pair()
        if full:
            fill(a)
        client.watch(a, 1, interest=interest, mode=mode)
        return client, a, b

    def full_pipe(self):
        """Both ends of a pipe that has no room."""
        reading, writing = self.pipe()
        while writing.write(bytes(65536)):
            pass
        return reading, writing

    def finish(self):
        for client in self.clients:
            client.sync()

    def close(self):
        for thing in reversed(self.kept):
            with contextlib.suppress(OSError):
                thing.close()


def fill(sock):
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def drain(sock):
    """Reads until EAGAIN or the end; returns the number of bytes."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(1 << 20):
            total += len(data)
    return total


def expect(client, read=NOTHING, write=NOTHING, id=1, gen=1, within=SOON):
    """The next event is this entry."""
    entry = client.next_event(within)
    check(isinstance(entry, Entry), f"{entry!r} where an entry was due")
    equal((entry.id, entry.gen, entry.read, entry.write), (id, gen, read, write), "entry")
    return entry


def expect_both(client, code, id=1):
    """An entry for each direction, together or one after the other."""
    read = write = NOTHING
    while not (read and write):
        entry = client.next_event(SOON)
        check(isinstance(entry, Entry) and entry.id == id, f"{entry!r} where an entry was due")
        check(not (entry.read and read or entry.write and write), "a second entry for a direction")
        read, write = read | entry.read, write | entry.write
    equal((read, write), (code, code), "codes")


def expect_timer(client, id=1, gen=1, within=SOON):
    entry = client.next_event(within)
    check(isinstance(entry, TimerEntry), f"{entry!r} where a timer was due")
    equal((entry.id, entry.gen), (id, gen), "timer")
    return entry


def nothing(client):
    """No event until a SYNC, 100 ms and another SYNC are through."""
    client.sync()
    event = client.next_event(0.1)
    client.sync()
    found = [event] * (event is not None) + list(client.events)
    check(not found, f"{found!r} came unasked")


def accepted(client, *requests):
    outcomes = client.call(*requests)
    for outcome in [outcomes] if len(requests) == 1 else outcomes:
        equal(outcome.error, Error.OK, f"answer to {outcome.answer.request.name}")
    return outcomes


def refused(client, request, error, **failure):
    """All records of the request are refused with this error."""
    outcome = client.call(request)
    equal(outcome.error, error, f"answer to {request.type.name}")
    equal(outcome.answer.failed, len(request.records), "failed")
    equal([item.index for item in outcome.failures], list(range(len(request.records))), "indexes")
    for item in outcome.failures:
        equal(item.error, error, "failure")
        for name, value in failure.items():
            equal(getattr(item, name), value, name)
    return outcome


def wait_until(condition, text, within=SOON):
    limit = time.monotonic() + within
    while not condition():
        check(time.monotonic() < limit, text)
        time.sleep(0.002)


def not_before(when):
    check(time.monotonic_ns() >= when, "it came early")


def many(requests, client):
    """Sends single-record requests of one type in as few datagrams as possible, all accepted."""
    for start in range(0, len(requests), 250):
        part = requests[start:start + 250]
        accepted(client, Message(part[0].type, tuple(item.records[0] for item in part),
                                 fds=tuple(fd for item in part for fd in item.fds)))


def on_epoll(reason):
    """The test is for the backend epoll only."""

    def mark(function):
        function.skip = {"poll": reason}
        return function

    return mark


def on_poll(reason):
    def mark(function):
        function.skip = {"epoll": reason}
        return function

    return mark


WEAK = "without the feature weak the daemon keeps a copy"
EDGE = "without the feature edge nothing is latched"
STREAM = "there is no stream mode"


# Open and close.

def S_001_what_is_there_at_watch_counts(t):
    client = t.client()
    a, b = t.pair()
    b.send(b"x")
    client.watch(a, 1, cookie=0x1122334455667788)
    client.send(wait(1))
    equal(expect(client, READY).cookie, 0x1122334455667788, "cookie")


def S_002_one_entry_after_a_write(t):
    client, _, b = t.watched()
    client.send(wait(1))
    nothing(client)
    b.send(b"x")
    expect(client, READY)
    nothing(client)


def S_003_a_fresh_pair_can_be_written(t):
    client, _, _ = t.watched()
    client.send(wait(1, WRITE))
    expect(client, write=READY)


def S_004_a_regular_file_is_not_pollable_and_its_id_free(t):
    client = t.client()
    with open(__file__, "rb") as file:
        refused(client, watch(file, 1), Error.NOT_POLLABLE, id=1, gen=1)
    a, b = t.pair()
    client.watch(a, 1)
    b.send(b"x")
    client.send(wait(1))
    expect(client, READY)


def S_005_a_live_id_is_in_use(t):
    client, _, b = t.watched()
    other, _ = t.pair()
    refused(client, watch(other, 1, gen=2), Error.EXISTS, id=1, gen=2)
    client.send(wait(1))
    b.send(b"x")
    expect(client, READY)


def S_006_unwatch_with_the_fd(t):
    client, a, b = t.watched()
    accepted(client, unwatch(1, fd=a))
    b.send(b"x")
    nothing(client)
    client.watch(a, 1, gen=2)
    client.send(wait(1, gen=2))
    expect(client, READY, gen=2)


def S_007_unwatch_without_the_fd(t):
    client, a, b = t.watched()
    accepted(client, unwatch(1))
    b.send(b"x")
    nothing(client)
    client.watch(a, 2)
    client.send(wait(2))
    expect(client, READY, id=2)


@on_epoll(WEAK)
def S_008_close_ends_the_connection_behind_it(t):
    _, a, b = t.watched()
    a.close()
    check(select.select([b], [], [], SOON)[0], "the peer sees no end")
    equal(b.recv(1), b"", "what the peer reads")


@on_epoll(WEAK)
def S_009_close_is_silent(t):
    client, a, _ = t.watched()
    client.send(wait(1))
    client.sync()
    a.close()
    nothing(client)
    client.trace = []
    accepted(client, unwatch(1))
    expect(client, CLOSING)
    equal([type(item) for item in client.trace], [Entry, Answer], "order")


@on_epoll(WEAK)
def S_010_the_daemon_keeps_no_fd(t):
    client = t.client()
    before = client.status()[0].fds
    for start in range(0, 1000, 100):
        pairs = [socket.socketpair() for _ in range(100)]
        many([watch(a, start + n + 1) for n, (a, _) in enumerate(pairs)], client)
        for a, b in pairs:
            a.close()
            b.close()
    status = client.status()[0]
    equal((status.fds, status.watches), (before, 1000), "fds and watches")


def S_011_fd_and_dup_both_report(t):
    client, a, b = t.watched()
    copy = t.keep(a.dup())
    client.watch(copy, 2)
    client.send(wait(1), wait(2))
    client.sync()
    b.send(b"x")
    entries = {client.next_event(SOON).id for _ in range(2)}
    equal(entries, {1, 2}, "entries of")
    nothing(client)


@on_epoll("watches are not bounded by numbers for a description")
def S_012_no_lane_is_left(t):
    client, a, b = t.watched()
    last = 1
    while True:
        copy = t.keep(a.dup())
        outcome = client.call(watch(copy, last + 1))
        if outcome.error is not Error.OK:
            break
        last += 1
        check(last <= 1000, "1000 watches of one description")
    equal(outcome.error, Error.NO_LANE, "refusal")
    check(last >= 200, f"only {last} watches of one description")
    many([wait(id) for id in range(1, last + 1)], client)
    b.send(b"x")
    found = sorted(client.next_event(SOON).id for _ in range(last))
    equal(found, list(range(1, last + 1)), "entries of")


def S_013_the_end_of_a_connection_frees_all(t):
    observer = t.client()

    def counts():
        status = observer.status()[0]
        return status.fds, status.watches, status.waiting, status.connections

    before = counts()
    client = t.client()
    for id in range(1, 11):
        client.watch(t.pair()[0], id)
        client.send(wait(id))
    client.sync()
    equal(counts()[1:], (before[1] + 10, before[2] + 10, before[3] + 1), "counts")
    t.forget(client)
    wait_until(lambda: counts() == before, f"counts stay {counts()}, not {before}")


def S_014_unwatch_with_a_foreign_fd(t):
    client, _, _ = t.watched()
    c, d = t.pair()
    client.watch(c, 2)
    other = t.client()
    other.watch(c, 1)
    other.send(wait(1))
    other.sync()
    accepted(client, unwatch(1, fd=c))
    d.send(b"x")
    expect(other, READY)


@on_epoll("the kernel's limit is that of epoll")
def S_014_501_sessions_watch_one_description(t):
    a, b = t.pair()
    clients = [t.client() for _ in range(501)]
    for client in clients[:500]:
        client.send(watch(a, 1), wait(1))
    for client in clients[:500]:
        client.sync()
    refused(clients[500], watch(a, 1), Error.SHARED)
    b.send(b"x")
    for client in clients[:500]:
        expect(client, READY, within=5)


# Wait.

def S_015_a_second_wait_is_busy(t):
    client, _, b = t.watched()
    client.send(wait(1))
    refused(client, wait(1), Error.BUSY)
    b.send(b"x")
    expect(client, READY)
    nothing(client)


def S_016_directions_are_independent(t):
    client, a, b = t.watched()
    client.send(wait(1, WRITE))
    expect(client, write=READY)
    fill(a)
    client.sync()
    client.send(wait(1, READ), wait(1, WRITE))
    nothing(client)
    drain(b)
    expect(client, write=READY)
    nothing(client)
    b.send(b"x")
    expect(client, READY)


def S_016_a_write_latch_serves_no_read(t):
    client, _, b = t.watched()
    client.send(wait(1, READ))
    nothing(client)
    b.send(b"x")
    expect(client, READY)


def S_017_one_entry_for_one_wait(t):
    client, _, b = t.watched()
    client.send(wait(1))
    client.sync()
    for _ in range(100):
        b.send(b"x")
    expect(client, READY)
    nothing(client)


def S_018_both_directions_in_one_entry(t):
    client, _, b = t.watched(full=True)
    accepted(client, wait(1, BOTH))
    nothing(client)
    b.close()
    expect(client, READY, READY)
    nothing(client)


def S_019_answer_first_then_one_entry(t):
    client, _, b = t.watched()
    b.send(b"x")
    client.sync()
    client.trace = []
    accepted(client, wait(1))
    expect(client, READY)
    nothing(client)
    kinds = [type(item) for item in client.trace]
    equal(kinds[:2], [Answer, Entry], "order")
    equal(kinds.count(Entry), 1, "entries")


def S_020_unwait(t):
    client, _, b = t.watched()
    client.send(wait(1))
    accepted(client, unwait(1))
    b.send(b"x")
    nothing(client)
    client.send(wait(1))
    expect(client, READY)
    refused(client, unwait(1), Error.NOT_FOUND)
    refused(client, unwait(2), Error.NOT_FOUND)


def S_021_the_peer_shuts_down(t):
    client, a, b = t.watched()
    client.send(wait(1))
    client.sync()
    b.shutdown(socket.SHUT_WR)
    expect(client, READY)
    equal(a.recv(1), b"", "what is read")


def S_022_the_writer_of_a_pipe_closes(t):
    client = t.client()
    reading, writing = t.pipe()
    client.watch(reading, 1)
    client.send(wait(1))
    client.sync()
    writing.close()
    expect(client, READY)
    equal(reading.read(1), b"", "what is read")


def S_022_the_reader_of_a_full_pipe_closes(t):
    client = t.client()
    reading, writing = t.full_pipe()
    client.watch(writing, 1)
    client.send(wait(1, WRITE))
    nothing(client)
    reading.close()
    expect(client, write=READY)
    with contextlib.suppress(BrokenPipeError):
        writing.write(b"x")
        raise Failed("no EPIPE")


def _tcp(t):
    listener = t.keep(socket.create_server(("127.0.0.1", 0)))
    listener.setblocking(False)
    return listener


def S_023_a_reset_of_tcp_is_ready(t):
    listener = _tcp(t)
    a = t.keep(socket.create_connection(listener.getsockname()))
    check(select.select([listener], [], [], SOON)[0], "no connection")
    b = t.keep(listener.accept()[0])
    a.setblocking(False)
    client = t.client()
    client.watch(a, 1)
    client.send(wait(1))
    nothing(client)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    b.close()
    expect(client, READY)
    with contextlib.suppress(ConnectionResetError):
        a.recv(1)
        raise Failed("no ECONNRESET")


def S_024_a_listening_socket(t):
    listener = _tcp(t)
    client = t.client()
    client.watch(listener, 1)
    client.send(wait(1))
    nothing(client)
    t.keep(socket.create_connection(listener.getsockname()))
    expect(client, READY)
    t.keep(listener.accept()[0])


def S_025_a_socket_that_connects(t):
    listener = _tcp(t)
    a = t.keep(socket.socket())
    a.setblocking(False)
    client = t.client()
    client.watch(a, 1)
    client.send(wait(1, WRITE))
    expect(client, write=READY)
    a.connect_ex(listener.getsockname())
    for _ in range(3):
        client.send(wait(1, WRITE))
        expect(client, write=READY)
        with contextlib.suppress(OSError):
            a.getpeername()
            break
    else:
        raise Failed("not connected after three entries")


# Latch.

def S_026_readiness_before_wait_is_kept(t):
    client, _, b = t.watched()
    b.send(b"x")
    client.sync()
    client.send(wait(1))
    expect(client, READY)


@on_epoll(EDGE)
def S_027_the_latch_is_one_bit(t):
    client, _, b = t.watched()
    for _ in range(10):
        b.send(b"x")
    client.sync()
    client.send(wait(1))
    expect(client, READY)
    client.send(wait(1))
    nothing(client)


@on_epoll(EDGE)
def S_028_a_stale_latch_gives_one_entry(t):
    client, a, b = t.watched()
    b.send(b"x")
    client.sync()
    drain(a)
    client.send(wait(1))
    expect(client, READY)
    client.send(wait(1))
    nothing(client)


def _soak(t, rounds, with_reset):
    client, a, b = t.watched()
    chance = random.Random(29)
    sent = got = 0

    def maybe_write(force=False):
        nonlocal sent
        if sent < rounds and (force or chance.random() < 0.4):
            sent += b.send(b"x")

    while got < rounds:
        maybe_write()
        if with_reset:
            accepted(client, reset(1))
        maybe_write()
        got += drain(a)
        maybe_write()
        serial, = client.send(wait(1)._replace(flags=Flag.ANSWER))
        maybe_write()
        if got == sent:
            maybe_write(force=True)
        equal(client.outcome(serial).error, Error.OK, "answer to WAIT")
        if got < rounds:
            expect(client, READY, within=5)
    equal(got, sent, "bytes")


def S_029_soak_without_reset(t):
    _soak(t, 3000, False)


def S_029_soak_with_reset(t):
    _soak(t, 3000, True)


def S_030_an_edge_while_wait_is_under_way(t):
    client, a, b = t.watched()
    for number in range(500):
        if number % 2:
            b.send(b"x")
            client.send(wait(1))
        else:
            client.send(wait(1))
            b.send(b"x")
        expect(client, READY)
        drain(a)
    nothing(client)


# Reset.

def S_031_reset_clears_one_direction(t):
    client, a, b = t.watched()
    b.send(b"x")
    client.sync()
    drain(a)
    accepted(client, reset(1))
    client.send(wait(1))
    nothing(client)
    b.send(b"x")
    expect(client, READY)
    client.send(wait(1, WRITE))
    expect(client, write=READY)


def S_032_a_refused_reset_keeps_the_latch(t):
    client, _, b = t.watched()
    b.send(b"x")
    accepted(client, deadline(1, EXPIRED, READ))
    refused(client, reset(1), Error.TIMEOUT, direction=READ)
    accepted(client, deadline(1, 0, READ))
    client.send(wait(1))
    expect(client, READY)


def S_033_reset_after_evict(t):
    client, _, _ = t.watched()
    accepted(client, evict(1))
    for directions in (READ, WRITE, BOTH):
        refused(client, reset(1, directions), Error.CLOSING)


def S_034_reset_while_waiting(t):
    client, _, b = t.watched()
    client.send(wait(1))
    refused(client, reset(1), Error.BUSY)
    b.send(b"x")
    expect(client, READY)


def S_035_reset_without_an_answer(t):
    connection = t.raw()
    connection.post(encode(reset(1)._replace(flags=Flag(0), serial=9)))
    error = fatal(connection)
    equal((error.error, error.record.serial), (Error.PROTOCOL, 9), "ERROR")


# Deadlines.

def S_037_a_deadline_in_the_past(t):
    client, _, b = t.watched()
    b.send(b"x")
    accepted(client, deadline(1, time.monotonic_ns() - 5 * SECOND, READ))
    for _ in range(2):
        client.send(wait(1))
        expect(client, TIMEOUT)


def S_038_a_past_deadline_ends_a_wait(t):
    client, _, _ = t.watched()
    client.send(wait(1))
    client.sync()
    client.trace = []
    accepted(client, deadline(1, EXPIRED, READ))
    expect(client, TIMEOUT)
    equal([type(item) for item in client.trace], [Answer, Entry], "order")


def S_039_S_040_a_deadline_comes_in_time_and_stays(t):
    client, _, _ = t.watched()
    when = time.monotonic_ns() + 50 * MS
    client.send(deadline(1, when, READ), wait(1))
    expect(client, TIMEOUT)
    not_before(when)
    for _ in range(3):
        client.send(wait(1))
        expect(client, TIMEOUT)
        refused(client, reset(1), Error.TIMEOUT, direction=READ)
    accepted(client, deadline(1, 0, READ), reset(1))
    client.send(wait(1))
    nothing(client)


def S_041_a_deadline_that_is_taken_away(t):
    client, _, _ = t.watched()
    client.send(deadline(1, EXPIRED, READ), deadline(1, 0, READ), wait(1))
    nothing(client)


def S_042_none_and_then_a_deadline(t):
    client, _, _ = t.watched()
    client.send(deadline(1, 0, READ), deadline(1, 10 * MS, READ, relative=True), wait(1))
    expect(client, TIMEOUT)


def S_043_one_of_two_is_cleared(t):
    for kept in (READ, WRITE):
        client, _, _ = t.watched(full=True)
        accepted(client, deadline(1, EXPIRED), deadline(1, 0, BOTH & ~kept))
        client.send(wait(1, BOTH & ~kept))
        nothing(client)
        client.send(wait(1, kept))
        expect(client, *((TIMEOUT, NOTHING) if kept == READ else (NOTHING, TIMEOUT)))


def S_044_one_time_for_both_is_one_entry(t):
    client, _, _ = t.watched(full=True)
    when = time.monotonic_ns() + 50 * MS
    client.send(deadline(1, when), wait(1, BOTH))
    expect(client, TIMEOUT, TIMEOUT)
    not_before(when)
    nothing(client)


def S_045_a_combined_deadline_is_split(t):
    client, _, _ = t.watched(full=True)
    first = time.monotonic_ns() + 60 * MS
    second = first + 200 * MS
    client.send(deadline(1, first), wait(1, BOTH), deadline(1, second, READ))
    expect(client, write=TIMEOUT)
    not_before(first)
    expect(client, TIMEOUT)
    not_before(second)
    third = time.monotonic_ns() + 40 * MS
    client.send(deadline(1, third), wait(1, BOTH), deadline(1, 0, WRITE))
    expect(client, TIMEOUT)
    nothing(client)


def S_046_a_deadline_moved_later(t):
    client, _, _ = t.watched()
    start = time.monotonic_ns()
    client.send(deadline(1, start + 100 * MS, READ), wait(1))
    check(client.next_event(0.02) is None, "an entry at once")
    client.send(deadline(1, start + 500 * MS, READ))
    check(client.next_event(0.2) is None, "an entry at the old time")
    expect(client, TIMEOUT)
    not_before(start + 500 * MS)


def S_047_a_deadline_moved_earlier(t):
    client, _, _ = t.watched()
    client.send(deadline(1, 10 * SECOND, READ, relative=True), wait(1))
    client.sync()
    when = time.monotonic_ns() + 20 * MS
    client.send(deadline(1, when, READ))
    expect(client, TIMEOUT)
    not_before(when)


def S_048_expiry_keeps_the_latch(t):
    client, _, b = t.watched()
    b.send(b"x")
    accepted(client, deadline(1, 20 * MS, READ, relative=True))
    wait_until(lambda: next(client.watches(id=1, session=client.session)).read_deadline == -1,
               "it does not expire")
    accepted(client, deadline(1, 0, READ))
    client.send(wait(1))
    expect(client, READY)


def S_051_stamps_name_the_deadline_that_expired(t):
    client, _, _ = t.watched(full=True)
    client.send(deadline(1, EXPIRED, READ, stamp=7), deadline(1, EXPIRED, WRITE, stamp=65535))
    client.send(wait(1, READ))
    entry = expect(client, TIMEOUT)
    equal((entry.read_stamp, entry.write_stamp), (7, 0), "stamps")
    client.send(wait(1, WRITE))
    entry = expect(client, write=TIMEOUT)
    equal((entry.read_stamp, entry.write_stamp), (0, 65535), "stamps")
    client.send(deadline(1, 20 * MS, stamp=9, relative=True), wait(1, BOTH))
    entry = expect(client, TIMEOUT, TIMEOUT)
    equal((entry.read_stamp, entry.write_stamp), (9, 9), "stamps")


def S_052_the_end_of_time(t):
    client, _, _ = t.watched(full=True)
    accepted(client, deadline(1, FOREVER, READ), deadline(1, FOREVER, WRITE, relative=True),
             wait(1, BOTH))
    nothing(client)
    row = next(client.watches(session=client.session))
    equal((row.read_deadline, row.write_deadline), (FOREVER, FOREVER), "deadlines")


def S_053_from_a_nanosecond_to_a_second(t):
    steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 750, 1000, 5000, 25_000, 250_000, 500_000,
             MS, 5 * MS, 100 * MS, 500 * MS, SECOND]
    client = t.client()
    many([watch(t.pair()[0], id) for id in range(1, len(steps) + 1)], client)
    start = time.monotonic_ns()
    client.send(*(request for id, step in enumerate(steps, 1)
                  for request in (deadline(id, step, READ, relative=True), wait(id))))
    seen = set()
    for _ in steps:
        entry = client.next_event(2)
        check(isinstance(entry, Entry) and entry.read == TIMEOUT, f"{entry!r}")
        not_before(start + steps[entry.id - 1])
        seen.add(entry.id)
    equal(len(seen), len(steps), "timeouts")


def S_054_a_far_deadline_before_each_exchange(t):
    client, a, b = t.watched()
    for _ in range(1000):
        client.send(deadline(1, 3600 * SECOND, relative=True), wait(1, READ))
        b.send(b"x")
        expect(client, READY)
        drain(a)
    for _ in range(1000):
        client.send(deadline(1, 3600 * SECOND, relative=True))
        a.send(b"x")
        drain(b)
    nothing(client)


def S_054_deadlines_race_with_waits(t):
    client, _, _ = t.watched()
    for _ in range(1000):
        client.send(deadline(1, 2000, READ, relative=True), wait(1))
        expect(client, TIMEOUT)
    nothing(client)
    equal(client.failures, [], "failures")


def S_056_evict_cancels_deadlines(t):
    client, _, _ = t.watched()
    accepted(client, deadline(1, 150 * MS, relative=True))
    equal(client.status()[0].deadlines, 2, "deadlines")
    accepted(client, evict(1))
    equal(client.status()[0].deadlines, 0, "deadlines")
    refused(client, deadline(1, 10 * MS, relative=True), Error.CLOSING)
    equal(client.next_event(0.2), None, "event")


def S_057_unwatch_cancels_deadlines(t):
    client, a, b = t.watched()
    accepted(client, deadline(1, 150 * MS, READ, relative=True), wait(1))
    accepted(client, unwatch(1, fd=a))
    expect(client, CLOSING)
    accepted(client, watch(b, 2), wait(2))
    equal(client.status()[0].deadlines, 0, "deadlines")
    equal(client.next_event(0.2), None, "event")


def S_058_a_deadline_fires_after_close(t):
    client, a, _ = t.watched()
    client.send(wait(1), deadline(1, 50 * MS, READ, relative=True))
    client.sync()
    a.close()
    expect(client, TIMEOUT)


# Evict.

def S_059_evict_ends_both_waits(t):
    client, _, _ = t.watched(full=True)
    accepted(client, wait(1, BOTH))
    client.trace = []
    accepted(client, evict(1))
    expect(client, CLOSING, CLOSING)
    equal([type(item) for item in client.trace], [Answer, Entry], "order")
    nothing(client)


def S_060_every_wait_after_evict(t):
    client, _, b = t.watched()
    accepted(client, evict(1))
    client.send(wait(1))
    expect(client, CLOSING)
    b.send(b"x")
    client.send(wait(1, BOTH))
    expect_both(client, CLOSING)
    client, _, b = t.watched()
    b.send(b"x")
    accepted(client, deadline(1, EXPIRED), evict(1), wait(1))
    expect(client, CLOSING)


def S_061_evict_twice(t):
    client, _, _ = t.watched()
    accepted(client, evict(1))
    refused(client, evict(1), Error.CLOSING)
    nothing(client)


def S_062_unwatch_while_waiting(t):
    client, a, b = t.watched()
    accepted(client, wait(1))
    client.trace = []
    accepted(client, unwatch(1, fd=a))
    expect(client, CLOSING)
    equal([type(item) for item in client.trace], [Entry, Answer], "order")
    b.send(b"x")
    nothing(client)


def S_063_evict_and_what_was_not_sent(t):
    client, _, b = t.watched()
    b.send(b"x")
    client.sync()
    client.send(wait(1), evict(1))
    entry = client.next_event(SOON)
    check(isinstance(entry, Entry) and entry.read in (CLOSING, READY), f"{entry!r}")
    nothing(client)


def P_unwatch_sends_what_was_not_sent(t):
    client, a, b = t.watched()
    b.send(b"x")
    client.sync()
    client.trace = []
    accepted(client, wait(1), unwatch(1, fd=a))
    entry = client.next_event(SOON)
    # The backend poll looks at the level a moment later: it may not have seen it yet.
    check(isinstance(entry, Entry) and entry.read == READY
          or t.backend == "poll" and entry.read == CLOSING, f"{entry!r}")
    equal([type(item) for item in client.trace], [Answer, Entry, Answer], "order")


def P_unwait_too_late(t):
    client, _, b = t.watched()
    b.send(b"x")
    client.sync()
    client.send(wait(1))
    outcome = client.call(unwait(1))
    check(outcome.error in (Error.ALREADY, Error.NOT_FOUND), f"{outcome.error!r}")
    expect(client, READY)
    nothing(client)


# Break.

def S_065_many_breaks_are_one(t):
    client = t.client()
    client.trace = []
    accepted(client, Message(Type.BREAK, break_().records * 1000))
    equal(client.next_event(SOON), BreakEntry(), "event")
    equal([type(item) for item in client.trace], [Answer, BreakEntry], "order")
    nothing(client)


def S_067_break_and_an_entry(t):
    client, _, b = t.watched()
    client.send(wait(1), break_())
    b.send(b"x")
    events = {type(client.next_event(SOON)) for _ in range(2)}
    equal(events, {Entry, BreakEntry}, "events")


def S_068_break_is_for_one_session(t):
    client, other = t.client(), t.client()
    client.send(break_())
    equal(client.next_event(SOON), BreakEntry(), "event")
    nothing(other)
    client.send(break_(other.session))
    equal(other.next_event(SOON), BreakEntry(), "event")
    nothing(client)
    refused(client, break_(2**63), Error.NOT_FOUND)


# Batches.

def S_072_five_thousand_at_once(t):
    count = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    client = t.client()
    fds = [t.eventfd() for _ in range(count)]
    many([watch(fd, id, interest=READ) for id, fd in enumerate(fds, 1)], client)
    many([wait(id) for id in range(1, count + 1)], client)
    equal(client.status()[0].waiting, count, "waiting")
    for fd in fds:
        os.eventfd_write(fd.fileno(), 1)
    found = sorted(client.next_event(SOON).id for _ in fds)
    equal(found, list(range(1, count + 1)), "ids")
    client.sync()
    check(not client.events, "more than one entry for a watch")


def choke(client):
    """Sends SYNC until the daemon reads no more; returns how many."""
    count, limit = 0, time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            client.send(sync(), block=False)
            count += 1
        except BlockingIOError:
            if not select.select([], [client], [], 0.05)[1]:
                return count
    raise Failed("the socket is never full")


def S_074_nothing_is_lost_while_the_socket_is_full(t):
    client, observer = t.client(), t.client()
    fds = [t.eventfd() for _ in range(500)]
    many([watch(fd, id, interest=READ) for id, fd in enumerate(fds, 1)], client)
    many([wait(id) for id in range(1, 501)], client)
    choke(client)
    row = next(observer.sessions(session=client.session))
    check(row.flags & SessionFlag.BLOCKED, "not shown as blocked")
    for fd in fds:
        os.eventfd_write(fd.fileno(), 1)
    observer.sync()
    found = sorted(client.next_event(SOON).id for _ in fds)
    equal(found, list(range(1, 501)), "ids")


# Stream.

@on_epoll(STREAM)
def S_077_each_write_is_an_entry(t):
    client, _, b = t.watched(READ, Mode.STREAM)
    for _ in range(3):
        b.send(b"x")
        equal(expect(client, READY).mode, Mode.STREAM, "mode")
    nothing(client)


@on_epoll(STREAM)
def S_078_what_cannot_be_sent_is_merged(t):
    client, _, b = t.watched(READ, Mode.STREAM)
    observer = t.client()
    choke(client)
    for _ in range(10):
        b.send(b"x")
        observer.sync()
    expect(client, READY)
    nothing(client)


@on_epoll(STREAM)
def S_079_an_unread_entry_swallows_nothing(t):
    client, _, b = t.watched(READ, Mode.STREAM)
    observer = t.client()

    def fired():
        return next(observer.watches(session=client.session)).fired

    for number in (1, 2):
        b.send(b"x")
        wait_until(lambda: fired() == number, "the entry is not sent")  # noqa: B023
    expect(client, READY)
    expect(client, READY)
    nothing(client)


@on_epoll(STREAM)
def S_080_interest_bounds_the_entry(t):
    client, a, b = t.watched(READ, Mode.STREAM)
    a.send(b"x")
    drain(b)
    b.send(b"x")
    expect(client, READY)
    nothing(client)


@on_epoll(STREAM)
def S_081_wait_and_deadline_on_a_stream(t):
    client, _, b = t.watched(READ, Mode.STREAM)
    refused(client, wait(1), Error.INVALID)
    accepted(client, deadline(1, 20 * MS, READ, stamp=3, relative=True))
    equal(expect(client, TIMEOUT).read_stamp, 3, "stamp")
    nothing(client)
    b.send(b"x")
    expect(client, READY)


@on_epoll(STREAM)
def P_stream_evict_and_unwatch(t):
    client, a, b = t.watched(READ, Mode.STREAM)
    client.trace = []
    accepted(client, evict(1))
    expect(client, CLOSING)
    refused(client, reset(1), Error.CLOSING)
    nothing(client)
    accepted(client, unwatch(1, fd=a))
    b.send(b"x")
    nothing(client)


@on_poll("there is stream mode")
def P_stream_is_not_supported(t):
    client = t.client()
    a, _ = t.pair()
    refused(client, watch(a, 1, mode=Mode.STREAM), Error.NOT_SUPPORTED)
    client.watch(a, 1)


# Timers.

def S_082_a_one_shot_timer(t):
    client = t.client()
    when = time.monotonic_ns() + 50 * MS
    equal(accepted(client, timer_set(1, when, cookie=77)).value, 0, "pending before")
    entry = expect_timer(client)
    not_before(when)
    equal((entry.cookie, entry.count), (77, 1), "cookie and count")
    refused(client, timer_stop(1), Error.NOT_FOUND)
    accepted(client, timer_set(1, 150 * MS, gen=2, relative=True))
    equal(accepted(client, timer_stop(1, gen=2)).value, 1, "pending")
    equal(client.next_event(0.2), None, "event")


def S_083_a_periodic_timer_keeps_its_phase(t):
    client = t.client()
    period = 20 * MS
    start = time.monotonic_ns() - 110 * MS
    accepted(client, timer_set(1, start, period))
    total = expect_timer(client).count
    check(total >= 6, f"{total} expirations where 6 were missed")
    while total < 12:
        total += expect_timer(client).count
        not_before(start + (total - 1) * period)
    row = next(client.timers(session=client.session))
    equal((row.when - start) % period, 0, "phase")
    client.trace = []
    equal(accepted(client, timer_stop(1)).value, 1, "pending")
    equal(type(client.trace[-1]), Answer, "what came last")
    client.events.clear()  # it fired before it was stopped
    nothing(client)


def S_084_timers_fire_in_order(t):
    client = t.client()
    order = list(range(1, 11))
    random.Random(84).shuffle(order)
    start = time.monotonic_ns() + 30 * MS
    client.send(*(timer_set(id, start + id * MS) for id in order))
    client.send(*(timer_set(20 + id, start + 40 * MS) for id in order))
    equal([client.next_event(SOON).id for _ in range(20)],
          list(range(1, 11)) + [20 + id for id in order], "order")


def S_085_a_far_timer_moved_to_the_past(t):
    client = t.client()
    for gen in range(1, 21, 2):
        equal(accepted(client, timer_set(1, 3600 * SECOND, gen=gen, relative=True)).value, 0,
              "pending before")
        equal(accepted(client, timer_set(1, 1, gen=gen + 1)).value, 1, "pending before")
        expect_timer(client, gen=gen + 1)
        refused(client, timer_stop(1, gen=gen + 1), Error.NOT_FOUND)
    nothing(client)


def S_086_timers_moved_at_random(t):
    client = t.client()
    chance = random.Random(86)
    base = time.monotonic_ns() + 100 * MS
    times = {}
    for gen in (1, 2, 3):
        times = {id: base + chance.randrange(150 * MS) for id in range(1, 101)}
        client.send(*(timer_set(id, when, gen=gen) for id, when in times.items()))
    while times:
        entry = client.next_event(SOON)
        check(isinstance(entry, TimerEntry), f"timers {sorted(times)} are lost")
        if entry.gen == 3:
            not_before(times.pop(entry.id))
    nothing(client)


def S_087_odd_times_and_periods(t):
    client = t.client()
    accepted(client, timer_set(1, 1, FOREVER))
    equal(expect_timer(client).count, 1, "count")
    refused(client, timer_set(2, 1, -1), Error.INVALID, id=2)
    refused(client, timer_set(0, 1), Error.INVALID, id=0)
    client.trace = []
    for when in (0, -5):
        accepted(client, timer_set(3, when))
        expect_timer(client, 3)
    equal([type(item) for item in client.trace], [Answer, TimerEntry] * 2, "order")
    accepted(client, timer_set(4, FOREVER), timer_set(5, FOREVER, relative=True))
    nothing(client)
    equal([accepted(client, timer_stop(id)).value for id in (1, 4, 5)], [1, 1, 1], "pending")


def P_timer_generations(t):
    client = t.client()
    accepted(client, timer_set(1, 3600 * SECOND, gen=5, relative=True))
    refused(client, timer_stop(1, gen=4), Error.STALE, id=1, gen=4)
    refused(client, timer_stop(2), Error.NOT_FOUND)
    outcome = client.call(Message(Type.TIMER_SET, (
        TimerSet(1, 3600 * SECOND, 0, 1, 6), TimerSet(1, 3600 * SECOND, -1, 2, 1),
        TimerSet(1, 3600 * SECOND, 0, 3, 1))))
    equal((outcome.error, outcome.answer.failed, outcome.value), (Error.INVALID, 1, 1), "answer")


# Errors.

@on_epoll("the error is seen only where somebody waits")
def S_089_a_bare_error(t):
    client = t.client()
    reading, writing = t.full_pipe()
    client.watch(writing, 1)
    reading.close()
    client.sync()
    client.send(wait(1, READ))
    expect(client, NOT_POLLABLE)
    refused(client, reset(1, READ), Error.NOT_POLLABLE, direction=READ)
    client.send(wait(1, WRITE))
    expect(client, write=READY)


def S_090_a_bare_error_while_waiting(t):
    client = t.client()
    reading, writing = t.full_pipe()
    client.watch(writing, 1)
    accepted(client, wait(1, READ))
    reading.close()
    expect(client, READY)
    client.send(wait(1, READ))
    expect(client, NOT_POLLABLE)


def S_092_the_order_of_the_error_check(t):
    client = t.client()
    reading, writing = t.full_pipe()
    client.watch(writing, 1)
    accepted(client, wait(1, READ))
    reading.close()
    expect(client, READY)
    client.send(deadline(1, EXPIRED, READ), wait(1, READ))
    expect(client, TIMEOUT)
    client.send(deadline(1, 0, READ), wait(1, READ))
    expect(client, NOT_POLLABLE)
    client.send(deadline(1, EXPIRED, READ), evict(1), wait(1, READ))
    expect(client, CLOSING)


def S_093_a_refused_record_stops_no_other(t):
    client, _, b = t.watched()
    b.send(b"x")
    outcome = client.call(Message(Type.WAIT, (
        Slots(9, 1, READ), Slots(1, 2, READ), Slots(1, 1, Direction(0)), Slots(1, 1, READ))))
    equal([(item.index, item.error, item.id, item.gen) for item in outcome.failures],
          [(0, Error.NOT_FOUND, 9, 1), (1, Error.STALE, 1, 2), (2, Error.INVALID, 1, 1)],
          "failures")
    equal((outcome.error, outcome.answer.failed), (Error.NOT_FOUND, 3), "answer")
    expect(client, READY)


def S_094_three_records_and_two_fds(t):
    client = t.client()
    (a, b), (c, d) = t.pair(), t.pair()
    outcome = client.call(Message(Type.WATCH, tuple(Watch(0, id, 1) for id in (1, 2, 3)),
                                  fds=(a, c)))
    equal([(item.index, item.error) for item in outcome.failures], [(2, Error.BAD_FD)], "failures")
    for id, peer in ((1, b), (2, d)):
        client.send(wait(id))
        peer.send(b"x")
        expect(client, READY, id=id)


# Poll descriptors and kinds.

def S_095_is_poll_descriptor(t):
    client, other = t.client(), t.client()
    a, _ = t.pair()
    reading, _ = t.pipe()
    equal(accepted(client, is_poll_descriptor(a, client, reading, other)).value, 0b1010, "bits")
    outcome = client.call(is_poll_descriptor(*[a] * 63, client, client, client))
    equal(outcome.value, 1 << 63, "bits")
    equal([(item.index, item.error) for item in outcome.failures],
          [(64, Error.INVALID), (65, Error.INVALID)], "failures")
    outcome = client.call(is_poll_descriptor(client, a)._replace(fds=(client,)))
    equal((outcome.error, outcome.value), (Error.BAD_FD, 1), "answer")
    outcome = client.outcome(client.send(is_poll_descriptor(a))[0])
    equal(outcome.error, Error.OK, "answer that was not asked for")


def S_096_a_connection_is_not_watched(t):
    client, other = t.client(), t.client()
    for sock in (client, other):
        refused(client, watch(sock, 1), Error.POLL_DESCRIPTOR)


def S_097_kinds_that_are_refused(t):
    client = t.client()
    refused(client, watch(t.keep(select.epoll()), 1), Error.KIND, detail=Kind.EPOLL)
    mask = ctypes.create_string_buffer(128)
    fd = ctypes.CDLL(None).signalfd(-1, mask, os.O_CLOEXEC)
    check(fd >= 0, "no signalfd")
    refused(client, watch(t.keep(Fd(fd)), 1), Error.KIND, detail=Kind.SIGNALFD)


def S_098_the_daemon_s_fds_are_close_on_exec(t):
    client, _, _ = t.watched()
    folder = pathlib.Path(f"/proc/{client.welcome.pid}/fdinfo")
    for path in folder.iterdir():
        flags = re.search(r"^flags:\s*(\d+)", path.read_text(), re.M)[1]
        check(int(path.name) <= 2 or int(flags, 8) & os.O_CLOEXEC, f"fd {path.name}")


# Ids, generations and order.

def S_103_generations_in_one_datagram(t):
    client = t.client()
    a, b = t.pair()
    client.trace = []
    accepted(client, watch(a, 1), wait(1), unwatch(1, fd=a), watch(a, 1, gen=2), wait(1, gen=2))
    expect(client, CLOSING)
    b.send(b"x")
    expect(client, READY, gen=2)
    kinds = [item.gen if isinstance(item, Entry) else item.request for item in client.trace]
    equal(kinds, [Type.WATCH, Type.WAIT, 1, Type.UNWATCH, Type.WATCH, Type.WAIT, 2], "order")


def S_104_answers_come_in_order(t):
    client = t.client()
    client.trace = []
    asked = Flag.ANSWER
    requests = [sync(), wait(7)._replace(flags=asked), get_status(), wait(8),
                timer_set(1, FOREVER)._replace(flags=asked)]
    serials = client.send(*(requests[:2] * 250))
    for number in range(500):
        serials += client.send(requests[number % 5])
    client.sync()
    order = [item.serial for item in client.trace[:-1]]
    equal(order, sorted(order), "order")
    wanted = {serial for number, serial in enumerate(serials)
              if number < 500 or number % 5 != 3}
    found = {item.serial for item in client.trace[:-1] if not isinstance(item, Failure)}
    equal(found, wanted, "answers")


# The protocol itself.

def P_welcome(t):
    client = t.client(features=(*FEATURES, "no-such-thing"))
    equal(client.features, {"epoll": {"weak", "edge", "stream", "ns"}, "poll": {"ns"}}[t.backend],
          "features")
    equal(t.client(features=()).features, frozenset(), "features")
    welcome = client.welcome
    equal((welcome.magic, welcome.protocol, welcome.message_max, welcome.records_max,
           welcome.fds_max, welcome.pid), (MAGIC, 1, MESSAGE_MAX, 1024, 253, t.daemon.loop()),
          "WELCOME")
    check(abs(client.clock_offset) < SECOND, "the daemon's clock is another")
    check(t.client().session != client.session, "a session's number is used again")


def P_requests_without_awaiting_welcome(t):
    a, b = t.pair()
    b.send(b"x")
    client = t.client(pipeline=[watch(a, 1), wait(1)])
    expect(client, READY)


def P_versions(t):
    t.client(versions=(0, 65535))
    for versions in ((2, 9), (0, 0)):
        try:
            t.client(versions=versions)
        except Fatal as error:
            equal(error.error, Error.VERSION, "ERROR")
            check("1" in error.text and str(versions[1]) in error.text, error.text)
        else:
            raise Failed(f"versions {versions} are welcome")


def P_an_empty_datagram_is_the_end(t):
    connection = t.raw()
    connection.post(b"")
    with contextlib.suppress(ConnectionEnded):
        message = connection.take(SOON)
        raise Failed(f"{message!r}")


def P_half_a_close_is_the_end(t):
    connection = t.raw()
    connection.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionEnded):
        message = connection.take(SOON)
        raise Failed(f"{message!r}")


def P_a_malformed_datagram_has_no_effect(t):
    observer = t.client()
    connection = t.raw()
    good = timer_set(1, FOREVER)._replace(flags=Flag.ANSWER, serial=2)
    bad = encode(sync()._replace(serial=3))[:-1] + b"\1"
    before = observer.status()[0]
    connection.post(encode(good) + bad)
    error = fatal(connection)
    equal((error.error, error.record.serial), (Error.PROTOCOL, 3), "ERROR")
    wait_until(lambda: observer.status()[0].connections == before.connections - 1,
               "the connection stays")
    equal(observer.status()[0].timers, before.timers, "timers")


def P_too_long_a_datagram(t):
    connection = t.raw()
    data = encode(*[sync()] * 4097)
    equal(len(data), MESSAGE_MAX + 16, "length")
    connection.post(data)
    equal(fatal(connection).error, Error.PROTOCOL, "ERROR")


def P_the_longest_datagram(t):
    client = t.client()
    client.sync()
    client.send(*[sync()._replace(flags=Flag(0))] * 4096)


def P_surplus_fds(t):
    connection = t.raw()
    a, _ = t.pair()
    connection.post(encode(watch(a, 1)), (a, a))
    equal(fatal(connection).error, Error.SURPLUS_FDS, "ERROR")


def P_253_fds(t):
    client = t.client()
    fds = [t.eventfd() for _ in range(253)]
    accepted(client, Message(Type.WATCH, tuple(Watch(0, id, 1) for id in range(1, 254)),
                             fds=tuple(fds)))
    equal(client.status()[0].watches, 253, "watches")


def P_unwatch_with_a_missing_fd(t):
    client, a, b = t.watched()
    c, _ = t.pair()
    client.watch(c, 2)
    outcome = client.call(Message(Type.UNWATCH, (
        Unwatch(2, 1, UnwatchFlag.FD), Unwatch(1, 1, UnwatchFlag.FD)), fds=(c,)))
    equal(outcome.error, Error.OK, "answer")
    b.send(b"x")
    nothing(client)
    client.watch(a, 1, gen=2)


def P_an_unwatched_fd_is_closed_at_the_answer(t):
    client, a, b = t.watched()
    accepted(client, unwatch(1, fd=a))
    a.close()
    equal(b.recv(1), b"", "what the peer reads")


def P_invalid_values(t):
    client, a, b = t.watched(READ)
    refused(client, watch(b, 0), Error.INVALID)
    refused(client, watch(b, 2, interest=0), Error.INVALID)
    refused(client, watch(b, 2, interest=4), Error.INVALID)
    refused(client, watch(b, 2, mode=2), Error.INVALID)
    refused(client, wait(0), Error.NOT_FOUND)
    refused(client, timer_stop(0), Error.NOT_FOUND)
    for request in (wait(1, WRITE), wait(1, BOTH), wait(1, 4), unwait(1, 0), reset(1, WRITE),
                    deadline(1, 0, BOTH), deadline(1, 0, 0)):
        refused(client, request, Error.INVALID, id=1, gen=1)
    refused(client, Message(Type.EVICT, (Slots(1, 1, READ),)), Error.INVALID)
    accepted(client, evict(1))
    refused(client, unwatch(1, gen=2, fd=a), Error.STALE)
    client.watch(b, 2)


def P_wait_is_all_or_nothing(t):
    client, _, b = t.watched(full=True)
    accepted(client, wait(1, READ))
    refused(client, wait(1, BOTH), Error.BUSY)
    drain(b)
    nothing(client)
    b.send(b"x")
    expect(client, READY)


def P_busy_names_the_direction(t):
    client, _, _ = t.watched(full=True)
    accepted(client, wait(1, WRITE))
    for make in (wait, reset):
        refused(client, make(1, WRITE), Error.BUSY, direction=WRITE)
        refused(client, make(1, BOTH), Error.BUSY, direction=NEITHER)


def P_closing_names_the_direction(t):
    client, _, _ = t.watched()
    accepted(client, evict(1))
    for directions, named in ((READ, READ), (WRITE, WRITE), (BOTH, NEITHER)):
        refused(client, reset(1, directions), Error.CLOSING, direction=named)


def P_reset_looks_at_read_first(t):
    client, _, _ = t.watched()
    accepted(client, deadline(1, EXPIRED, WRITE))
    refused(client, reset(1, BOTH), Error.TIMEOUT, direction=NEITHER)
    accepted(client, reset(1, READ))
    accepted(client, deadline(1, EXPIRED, READ))
    refused(client, reset(1, READ), Error.TIMEOUT, direction=READ)


def P_failures_come_unasked(t):
    client = t.client()
    client.send(wait(5), timer_stop(6, gen=7))
    client.sync()
    equal([(item.error, item.id, item.gen) for item in client.failures],
          [(Error.NOT_FOUND, 5, 1), (Error.NOT_FOUND, 6, 7)], "failures")


def P_unwait_of_two_directions(t):
    client, _, b = t.watched(full=True)
    accepted(client, wait(1, BOTH), unwait(1, BOTH))
    accepted(client, wait(1, READ), unwait(1, BOTH))
    b.close()
    nothing(client)


def P_interrupting_a_wait(t):
    client, _, b = t.watched()
    client.send(wait(1))
    client.send(deadline(1, EXPIRED, READ), deadline(1, 0, READ))
    expect(client, TIMEOUT)
    client.send(wait(1))
    nothing(client)
    b.send(b"x")
    expect(client, READY)


def P_relative_zero_is_now(t):
    client, _, _ = t.watched()
    client.send(wait(1), deadline(1, 0, READ, relative=True))
    expect(client, TIMEOUT)


def P_not_implemented(t):
    client = t.client()
    requests = (Message(Type.MONITOR, (Monitor(),)),)
    before = client.status()[0].fds
    for request in requests:
        refused(client, request, Error.NOT_IMPLEMENTED)
        serial, = client.send(request)
        if request.answered:
            equal(client.outcome(serial).error, Error.NOT_IMPLEMENTED, "answer")
    client.sync()
    equal(len(client.failures), sum(len(item.records) for item in requests if not item.answered),
          "failures")
    equal(client.status()[0].fds, before, "fds")


def P_status(t):
    client, _, b = t.watched()
    before, texts = client.status()
    equal(texts[1:], [t.backend, t.daemon.address], "texts")
    accepted(client, wait(1), deadline(1, FOREVER, READ), timer_set(1, FOREVER))
    status = client.status()[0]
    equal((status.pid, status.protocol, status.connections, status.watches, status.waiting,
           status.timers, status.deadlines), (t.daemon.loop(), 1, 1, 1, 1, 1, 1), "numbers")
    check(status.began <= status.started < before.now <= status.now <= time.monotonic_ns(), "times")
    equal((status.restarts, status.left_behind), (0, 0), "loops")
    equal((status.parks, status.parks_handed, status.parks_ready, status.holders,
           status.holders_left), (0, 0, 0, 0, 0), "parks")
    b.send(b"x")
    expect(client, READY)
    client.send(wait(99))
    client.sync()
    after = client.status()[0]
    equal((after.entries, after.messages, after.failures, after.waiting),
          (status.entries + 1, status.messages + 1, status.failures + 1, 0), "numbers")


def P_one_list_a_datagram(t):
    client = t.client()
    first, second, third = client.send(list_rows(Type.LIST_TIMERS), get_status(), sync())
    equal(client.reply(first).type, Type.TIMERS, "reply")
    try:
        client.reply(second)
    except Refused as error:
        equal((error.error, error.outcome.answer.request), (Error.BUSY, Type.GET_STATUS), "answer")
        equal(error.outcome.failures, (), "failures")
    else:
        raise Failed("both were answered")
    equal(client.outcome(third).error, Error.OK, "SYNC")


def P_sessions(t):
    client, _, _ = t.watched()
    other = t.client()
    accepted(client, wait(1))
    rows = {row.session: row for row in client.sessions()}
    equal(set(rows), {client.session, other.session}, "sessions")
    row = rows[client.session]
    equal((row.pid, row.uid, row.gid, row.flags, row.watches, row.waiting, row.timers),
          (os.getpid(), os.getuid(), os.getgid(), SessionFlag.SELF, 1, 1, 0), "row")
    equal(rows[other.session].flags, SessionFlag(0), "flags")
    equal([item.session for item in client.sessions(session=other.session)], [other.session],
          "with a session")
    equal(list(client.sessions(uid=os.getuid() + 1)), [], "with another uid")
    equal(len(list(client.sessions(pid=os.getpid(), limit=1))), 2, "one a reply")
    equal(list(client.sessions(pid=1 if os.getpid() != 1 else 2)), [], "with another pid")


def P_watches(t):
    client, a, b = t.watched(full=True)
    reading, _ = t.pipe()
    client.watch(reading, 2, gen=9, interest=READ, cookie=55)
    accepted(client, wait(1, BOTH), deadline(1, EXPIRED, WRITE), deadline(1, FOREVER, READ))
    expect(client, write=TIMEOUT)
    rows = {row.id: row for row in client.watches(session=client.session)}
    equal(set(rows), {1, 2}, "ids")
    row = rows[1]
    equal((row.session, row.gen, row.pid, row.uid, row.fd, row.kind, row.interest, row.mode,
           row.fired, row.read_deadline, row.write_deadline, row.read_state, row.write_state,
           row.flags),
          (client.session, 1, os.getpid(), os.getuid(), a.fileno(), Kind.UNIX, BOTH, Mode.WAIT, 1,
           FOREVER, -1, SlotState.WAITING, SlotState.IDLE, WatchFlag(0)), "row 1")
    check(row.read_since > 0 and row.write_since == 0, "since")
    row = rows[2]
    equal((row.gen, row.cookie, row.kind, row.interest, row.read_deadline), (9, 55, Kind.PIPE, READ,
                                                                             0), "row 2")
    accepted(client, evict(1))
    expect(client, CLOSING)
    equal(next(client.watches(id=1)).flags, WatchFlag.CLOSING, "flags")
    many([watch(b, id) for id in range(3, 60)], client)
    for limit in (1, 7, 0):
        found = [item.id for item in client.watches(session=client.session, limit=limit)]
        equal(sorted(found), list(range(1, 60)), f"ids, {limit} a reply")


def P_timers(t):
    client = t.client()
    when = time.monotonic_ns() + 3600 * SECOND
    many([timer_set(id, when + id, period=id % 2 * SECOND, gen=4, cookie=id)
          for id in range(1, 31)], client)
    for limit in (3, 0):
        rows = sorted(client.timers(limit=limit), key=lambda row: row.id)
        equal([(row.id, row.when, row.period, row.gen, row.cookie, row.session, row.count)
               for row in rows],
              [(id, when + id, id % 2 * SECOND, 4, id, client.session, 0) for id in range(1, 31)],
              "rows")
    equal([row.id for row in client.timers(id=17)], [17], "with an id")


def P_any_cursor(t):
    with Daemon(t.program, f"backend: {t.backend}\n") as daemon:
        client, _ = t.client(daemon.address), t.clients.pop()
        accepted(client, timer_set(1, FOREVER), watch(t.pair()[0], 1))
        for cursor in (2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1):
            for type_ in (Type.LIST_SESSIONS, Type.LIST_WATCHES, Type.LIST_TIMERS,
                          Type.LIST_QUOTAS):
                try:
                    client.reply(client.send(list_rows(type_, cursor=cursor))[0])
                except ConnectionEnded:
                    raise Failed(f"{type_.name} with cursor {cursor:#x} ends the "
                                 "connection") from None


def P_quotas(t):
    client, _, _ = t.watched()
    accepted(client, timer_set(1, FOREVER))
    rows = {row.quota: row for row in client.quotas(uid=os.getuid(), limit=2)}
    equal(set(rows), set(Quota), "quotas")
    equal([rows[item].used for item in (Quota.CONNECTIONS, Quota.WATCHES, Quota.TIMERS)],
          [1, 1, 1], "used")
    check({row.uid for row in client.quotas(uid=ALL_UIDS)} >= {os.getuid()}, "no row of mine")


def P_a_quota_is_reached(t):
    with Daemon(t.program, f"backend: {t.backend}\nlimits: {{watches: 2}}\n") as d:
        client = t.client(d.address)
        a, b = t.pair()
        for id in (1, 2):
            client.watch(a, id)
        refused(client, watch(b, 3), Error.QUOTA, detail=Quota.WATCHES, value=2, id=3)
        accepted(client, unwatch(2, fd=a))
        client.watch(b, 3)
        client.sync()
        t.forget(client)


def P_a_connection_too_many(t):
    with Daemon(t.program, f"backend: {t.backend}\nlimits: {{connections: 1}}\n") as daemon:
        client = t.client(daemon.address)
        try:
            t.client(daemon.address)
        except Fatal as error:
            equal(error.record, (Error.QUOTA, 0, Quota.CONNECTIONS, 1), "ERROR")
        else:
            raise Failed("it is let in")
        finally:
            t.forget(client)


def P_the_daemon_s_end(t):
    with Daemon(t.program, f"backend: {t.backend}\n") as daemon:
        client = t.client(daemon.address)
        t.clients.remove(client)
        daemon.process.terminate()
        equal(fatal(client).error, Error.SHUTDOWN, "ERROR")


def P_upgrade(t):
    with Daemon(t.program, f"backend: {t.backend}\n") as daemon:
        client = t.client(daemon.address)
        t.clients.remove(client)
        before = client.status()[0].pid
        upgrade, after = client.send(Message(Type.UPGRADE), sync())
        equal(client.outcome(after).error, Error.OK, "answer to SYNC")
        equal(client.outcome(upgrade).answer, Answer(Error.OK, upgrade, 0, Type.UPGRADE, 0),
              "answer to UPGRADE")
        equal(fatal(client).error, Error.SHUTDOWN, "ERROR")
        client = t.client(daemon.address)  # waits in the queue of the socket
        check(client.status()[0].pid != before, "the same loop")
        t.forget(client)


def P_upgrade_that_fails_its_trial(t):
    with Daemon(t.program, f"backend: {t.backend}\n") as daemon:
        client = t.client(daemon.address)
        pathlib.Path(daemon.folder, "readyd.yaml").write_text("backend: none\n", encoding="ascii")
        first, second = client.send(Message(Type.UPGRADE), Message(Type.UPGRADE))
        equal(client.outcome(second).error, Error.BUSY, "answer to another UPGRADE")
        equal(client.outcome(first).answer, Answer(Error.INVALID, first, 0, Type.UPGRADE, 0),
              "answer to UPGRADE")
        client.sync()
        equal(client.status()[0].pid, daemon.loop(), "loop")
        t.forget(client)


def fatal(connection):
    """The ERROR that ends the connection, and its end."""
    try:
        while message := connection.take(SOON):
            pass
    except Fatal as error:
        with contextlib.suppress(ConnectionEnded):
            raise Failed(f"{connection.take(SOON)!r} after ERROR")
        return error
    raise Failed(f"{message!r} where ERROR was due")


# Vectors.

class Vector:
    """A file of protocol/vectors."""

    def __init__(self, path):
        self.name = path.stem
        self.keys, self.data, at_top = {}, b"", True
        for line in path.read_text(encoding="utf-8").splitlines():
            at_top = at_top and bool(line)
            if not line.startswith("#"):
                self.data += bytes.fromhex(line)
            elif at_top:
                key, value = line[2:].split(": ", 1)
                self.keys[key] = value

    def run_daemon(self):
        """What the daemon sends: our own parser judges it."""
        fds = (0,) * int(self.keys["fds"])
        try:
            message = parse_message(self.data, fds)
        except ValueError as error:
            check(self.keys["verdict"] != "ok", f"refused: {error}")
        else:
            equal(self.keys["verdict"], "ok", "verdict")
            equal(encode(message), self.data, "the bytes made anew")

    def run_client(self, t):
        connection = t.raw(self.keys["greeted"] == "yes")
        connection.post(self.data, [t.eventfd() for _ in range(int(self.keys["fds"]))])
        if self.keys["verdict"] != "ok":
            equal(fatal(connection).error.name, self.keys["verdict"], "ERROR")
            return
        requests = parse_requests(self.data)
        equal(encode(*requests), self.data, "the bytes made anew")
        if requests[0].type is Type.UPGRADE:
            self.await_upgrade(connection)
            return
        answered = [REPLIES.get(item.type, item.type) for item in requests if item.answered]
        connection.post(encode(sync()._replace(serial=0xFEEDFACE)))
        found = []
        while not found or found[-1] != Type.SYNC or answered and answered[-1] == Type.SYNC and (
                len(found) <= len(answered)):
            message = connection.take(SOON)
            check(message, "no answer to SYNC")
            if message.type is Type.READY:
                found += [item.request for item in message.records if isinstance(item, Answer)]
            else:
                found.append(message.type)
        equal(found, answered + [Type.SYNC], "answers")

    @staticmethod
    def await_upgrade(connection):
        """The daemon is replaced by itself, and the tests that follow have another loop."""
        equal([item.request for item in connection.take(SOON).records], [Type.UPGRADE], "answer")
        equal(fatal(connection).error, Error.SHUTDOWN, "ERROR")


# Running.

def tests():
    """Name, and function of a bench, of all tests of a backend."""
    for name, function in list(globals().items()):
        if re.match(r"[SP]_", name):
            yield name, function
    for path in sorted(VECTORS.glob("*.hex")):
        vector = Vector(path)
        if vector.keys["from"] == "client":
            yield "vector_" + vector.name, vector.run_client


def title(name, backend):
    numbers = re.findall(r"S_(\d+)", name)
    words = re.sub(r"^((S_\d+_)+|[a-zA-Z]+_)", "", name).replace("_", " ")
    kind = "+".join("S-" + number for number in numbers) or name.split("_")[0]
    return f"{kind} {backend} {words}"


class Runner:
    def __init__(self, program, words):
        self.program, self.words = program, words
        self.passed = self.failed = 0

    def run(self, line, function):
        try:
            function()
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            frame = [item for item in traceback.extract_tb(error.__traceback__)
                     if item.filename == __file__]
            places = ", ".join(str(item.lineno) for item in frame[1:])
            print(f"not ok {line}: {type(error).__name__}: {error} (lines {places})", flush=True)
        else:
            self.passed += 1
            print(f"ok {line}", flush=True)

    def wanted(self, line):
        return not self.words or any(word in line for word in self.words)

    def run_backend(self, backend):
        with Daemon(self.program, f"backend: {backend}\n") as daemon:
            for name, function in tests():
                line = title(name, backend)
                if not self.wanted(line):
                    continue
                reason = getattr(function, "skip", {}).get(backend)
                if reason:
                    print(f"skip {line}: {reason}", flush=True)
                    continue
                bench = Bench(backend, daemon, self.program)

                def body():
                    settle(daemon)
                    try:
                        function(bench)  # noqa: B023
                        bench.finish()  # noqa: B023
                    finally:
                        bench.close()  # noqa: B023

                self.run(line, body)
            self.run(f"P {backend} nothing stays behind", lambda: settle(daemon))

    def run_all(self):
        for path in sorted(VECTORS.glob("*.hex")):
            vector = Vector(path)
            line = f"vector parser {vector.name}"
            if vector.keys["from"] == "daemon" and self.wanted(line):
                self.run(line, vector.run_daemon)
        for backend in ("epoll", "poll"):
            self.run_backend(backend)
        print(f"{self.passed} passed, {self.failed} failed")


def settle(daemon):
    """Waits until the daemon has forgotten the test's sessions."""
    with Client(daemon.address) as client:
        wait_until(lambda: client.status()[0].connections == 1, "sessions stay")
        status = client.status()[0]
        equal((status.watches, status.timers, status.waiting, status.deadlines), (0, 0, 0, 0),
              "what stays behind")


def main():
    program = os.environ.get("READYD")
    if not program:
        sys.exit("READYD must name the daemon's program")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20000)), hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    runner = Runner(program, sys.argv[1:])
    runner.run_all()
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
