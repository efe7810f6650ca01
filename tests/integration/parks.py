# SPDX-License-Identifier: MIT
"""What the tests of parks have in common, all from protocol/PROTOCOL.md: a test case with a daemon
of its own that gets back every fd, and workers, which are processes that can be killed.

As a program it is such a worker: parks.py ADDRESS HANDLE WHAT [ARGUMENT]..., see `work`.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "interop")]

# pylint: disable=wrong-import-position
from daemon import Daemon, children, name as name_of  # noqa: E402
from readyd_client import (  # noqa: E402
    ConnectionEnded, Error, ParkEntry, ParkState, Client, acknowledge, claim, drop, held, park,
    sync, take)

# s: for what takes milliseconds on a machine that is not busy
PATIENCE = int(os.environ.get("READYD_PATIENCE", "60"))
OTHER_UID = 12345


class Fd:
    """An fd that is closed once."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def token():
    return os.urandom(16)


def now():
    """The daemon's clock, ns: it is this machine's. What a client makes of WELCOME is late by as much
    as that was under way."""
    return time.monotonic_ns()


def connect(d, **options):
    return Client(d.socket, timeout=PATIENCE, **options)


def until(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def fds_of(pid):
    """What a process has open: number, and what it names. A process that is gone has nothing."""
    found = {}
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
            except FileNotFoundError:
                pass
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass
    return found


def holders(d):
    """The pids of the processes that keep parked fds for the loop."""
    return [pid for pid in children(d.process.pid) if name_of(pid) == "readyd-holder"]


class Worker:
    """A process with a connection; killed at the latest at the end of a `with`."""

    def __init__(self, d, what, *arguments, handle=None, pass_fds=()):
        handle = os.urandom(16) if handle is None else handle
        self.process = subprocess.Popen(
            [sys.executable, __file__, d.socket, handle.hex(), what, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds)
        self.pid = self.process.pid

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, "the worker says nothing"
        return self.process.stdout.readline().strip()

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Bench(unittest.TestCase):
    """Tests with one daemon for all of them; every test leaves it as it was."""

    keeper = True

    @classmethod
    def start(cls):
        """The class's daemon."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls):
        cls.d = None
        cls.addClassCleanup(cls.stop)
        cls.renew()

    @classmethod
    def stop(cls):
        if cls.d:
            cls.d.__exit__()

    @classmethod
    def renew(cls):
        """Another daemon: at first, and after a test that has spoiled this one."""
        cls.stop()
        cls.d = cls.start()
        assert "READY=1" in cls.d.said, cls.d.log()
        # the first park makes what lasts: a holder, and the loop's connection to it
        with connect(cls.d) as client:
            a, b = socket.socketpair()
            with a, b:
                secret = token()
                client.call(park(a, secret)).check()
                client.call(drop(token=secret))  # too late, where parks do not grow old
        cls.before = cls.counts(least=True)

    @classmethod
    def counts(cls, least=False):
        """Open fds of the loop, and of all holders together; `least`: once they do not sink."""
        while True:
            found = (len(fds_of(cls.d.loop())), sum(len(fds_of(pid)) for pid in holders(cls.d)))
            if not least:
                return found
            for _ in range(10):
                time.sleep(0.02)
                again = cls.counts()
                if again != found:
                    break
            else:
                return found

    def setUp(self):
        self.kept = []
        # the last to run, whatever the test has added before
        self.addCleanup(self.settle)
        self.addCleanup(self.close_all)

    def close_all(self):
        for thing in reversed(self.kept):
            thing.close()

    def settle(self):
        """Drops what is parked; then nothing of the test is left in the daemon."""
        def gone():
            with connect(self.d) as client:
                rows = list(client.parks())
                for item in rows:
                    client.call(drop(number=item.row.park))
                return not rows

        try:
            until(gone, "all parks dropped")
            self.wait_for_counts()
        except BaseException:
            self.renew()
            raise

    def wait_for_counts(self):
        end = time.monotonic() + PATIENCE
        while any(now > then for now, then in zip(self.counts(), self.before)):
            self.assertLess(
                time.monotonic(), end, f"fds stay behind in loop, holders: {self.counts()}, "
                f"not {self.before}: {fds_of(self.d.loop())} {self.d.log()[-2000:]}")
            time.sleep(0.01)

    # Things.

    def keep(self, thing):
        self.kept.append(thing)
        return thing

    def client(self, **options):
        return self.keep(connect(self.d, **options))

    def worker(self, what, *arguments, **options):
        return self.keep(Worker(self.d, what, *arguments, **options))

    def theirs(self):
        """A park of another user's, as parked(); its group is how its token begins."""
        for path, mode in (self.d.folder, 0o755), (self.d.socket, 0o666):
            os.chmod(path, mode)
        a, b = self.pair()
        secret = token()
        worker = self.worker("theirs", secret.hex(), a.fileno(), pass_fds=[a.fileno()])
        self.assertEqual(worker.line(), "done")
        a.close()
        with connect(self.d) as client:
            number, = (item.row.park for item in client.parks(uid=OTHER_UID)
                       if item.group == secret.hex()[:8].encode())
        return secret, number, b

    def pair(self):
        a, b = socket.socketpair()
        b.settimeout(PATIENCE)
        return self.keep(a), self.keep(b)

    def parked(self, client, **options):
        """Parks one end of a pair and closes it here: token, number, the other end."""
        a, b = self.pair()
        secret = options.pop("secret", None) or token()
        number = self.ok(client, park(a, secret, **options)).value
        a.close()
        return secret, number, b

    # Steps.

    def ok(self, client, request):
        outcome = client.call(request)
        self.assertEqual(outcome.error, Error.OK, request.type.name)
        self.assertEqual(outcome.answer.failed, 0)
        return outcome

    def refused(self, client, request, error, **failure):
        """Refused, alone or all records of it, with this error."""
        outcome = client.call(request)
        self.assertEqual(outcome.error, error, request)
        self.assertEqual([item.error for item in outcome.failures], [error] * len(request.records))
        self.assertEqual(outcome.answer.failed, len(request.records))
        for name, value in failure.items():
            self.assertEqual(getattr(outcome.failures[0], name), value, name)
        return outcome

    def handed(self, client, **by):
        """TAKE to HANDOUT, without the acknowledgement: the message, and the fd."""
        outcome = self.ok(client, take(**by))
        message = client.handout(outcome.answer.serial)
        self.assertEqual(message.records[0].park, outcome.value)
        return message, self.keep(Fd(message.fds[0]))

    def taken(self, client, **by):
        """The whole of TAKE: the HANDOUT, and the fd, which is now ours."""
        message, fd = self.handed(client, **by)
        self.ok(client, acknowledge(message.records[0].token))
        return message, fd

    def rows(self, client=None, **filters):
        """Rows by number."""
        if client:
            return {item.row.park: item for item in client.parks(**filters)}
        with connect(self.d) as own:
            return {item.row.park: item for item in own.parks(**filters)}

    def row(self, number):
        return self.rows()[number].row

    def ready_row(self, number):
        return until(lambda: (row := self.row(number)).ready and row, f"{number} ready")

    def parked_again(self, number, ready=True):
        """Waits until a hand-out was taken back; then the park is ready, but for one that was taken
        back by a loop that died: the next one asks the kernel."""
        row = until(lambda: (row := self.row(number)).state == ParkState.HELD and row,
                    f"{number} parked again")
        self.assertEqual(row.worker_pid, 0)
        self.assertTrue(row.ready or not ready)
        return row

    def entry(self, client):
        entry = client.next_event(PATIENCE)
        self.assertIsInstance(entry, ParkEntry)
        return entry

    def nothing(self, client):
        """No event until a SYNC, 100 ms and another SYNC are through."""
        client.sync()
        event = client.next_event(0.1)
        client.sync()
        self.assertEqual([event] * (event is not None) + list(client.events), [])

    # Peers.

    def ended(self, peer):
        """The other end of `peer` is closed, by all who had it."""
        peer.settimeout(PATIENCE)
        try:
            while data := peer.recv(4096):
                self.assertTrue(data)
        except ConnectionResetError:
            pass  # what the peer had sent was not read

    def alive(self, peer):
        peer.setblocking(False)
        with self.assertRaises(BlockingIOError):
            peer.recv(1)
        peer.settimeout(PATIENCE)

    def carries(self, fd, peer):
        """Bytes go from the peer to this fd and back."""
        peer.send(b"there")
        self.assertEqual(os.read(fd.fileno(), 100)[-5:], b"there")
        os.write(fd.fileno(), b"back")
        self.assertEqual(peer.recv(100), b"back")


class BenchOfDeaths(Bench):
    """The same, with a loop that is killed now and then."""

    @classmethod
    def renew(cls):
        super().renew()
        cls.kill_loop()
        cls.before = cls.counts(least=True)

    @classmethod
    def again(cls, **options):
        """A connection to whatever loop there is."""
        def one():
            try:
                return connect(cls.d, **options)
            except (ConnectionEnded, ConnectionError):
                return None

        return until(one, "a connection")

    @classmethod
    def kill_loop(cls):
        """Kills the loop that serves now, and waits for the next."""
        with cls.again() as client:
            old = client.welcome.pid
        os.kill(old, signal.SIGKILL)
        cls.next_loop(old)

    @classmethod
    def next_loop(cls, old):
        def other():
            with cls.again() as client:
                return client.welcome.pid != old

        until(other, "another loop")

    def rows(self, client=None, **filters):
        while True:
            try:
                with self.again() as own:
                    return {item.row.park: item for item in own.parks(**filters)}
            except ConnectionEnded:
                pass

    def again_client(self, **options):
        return self.keep(self.again(**options))


def variants(rules):
    """Classes for these tests, for each way that a daemon can run; for the globals of a script. With
    sanitizers, which are slow, it is one way."""
    found = {}
    ways = [("WithKeeper", "", ()), ("WithoutKeeper", "", ["--no-keeper"]),
            ("WithPoll", "backend: poll\n", ())]
    for name, config, arguments in ways[:1 if "ASAN_OPTIONS" in os.environ else None]:
        def start(config=config, arguments=arguments):
            return Daemon(f"trusted: [{OTHER_UID}]\npark-max-age: 0s\n" + config,
                          arguments=arguments)

        found[name] = type(name, (rules,), {"start": staticmethod(start), "keeper": not arguments,
                                            "__module__": rules.__module__})
    return found


def answers(client, *requests):
    """One word a request: the name of the error that answers it."""
    return " ".join(client.call(request).error.name for request in requests)


def work(address, handle, what, *arguments):
    """What a worker does. It says a line when it is done, and lives until its stdin ends."""
    if what in ("other", "theirs"):
        os.setgroups([])
        os.setgid(OTHER_UID)
        os.setuid(OTHER_UID)
    client = Client(address, timeout=PATIENCE, handle=bytes.fromhex(handle))
    secret = bytes.fromhex(arguments[0])
    if what == "take":  # TOKEN: and does not acknowledge
        client.handout(client.call(take(token=secret)).check().answer.serial)
    elif what == "lend":  # TOKEN: the same, and a child goes on having the connection
        message = client.handout(client.call(take(token=secret)).check().answer.serial)
        if os.fork() == 0:
            os.close(message.fds[0])
            sys.stdin.read()
            os._exit(0)
    elif what == "park":  # TOKEN FD: and reads nothing any more
        client.call(park(int(arguments[1]), secret)).check()
        os.close(int(arguments[1]))
    elif what == "theirs":  # TOKEN FD: another user's park
        group = arguments[0][:8].encode()
        client.call(park(int(arguments[1]), secret, name=b"theirs", group=group)).check()
        os.close(int(arguments[1]))
    elif what == "flood":  # TOKEN: many PARKs; the answers to the last cannot be sent
        print(len(flood(client, secret[:8])), flush=True)
    elif what == "other":  # TOKEN NUMBER FD: what another user can do
        by_all = {"token": secret}, {"number": int(arguments[1])}, {"name": b"theirs"}
        print(len(list(client.parks())), answers(
            client, *(make(**by) for make in (take, drop) for by in by_all),
            held((secret, 0)), acknowledge(secret), claim(secret), park(int(arguments[2]), secret),
            park(int(arguments[2]), token(), name=b"theirs")), flush=True)
        sys.stdin.readline()
        client.call(drop(name=b"theirs")).check()
    print("done", flush=True)
    sys.stdin.read()


def flood(client, start):
    """PARKs, each behind as many SYNCs as make the client's socket full in the end, so that some
    are not answered. Nothing is read. Returns the tokens: `start` and a number."""
    secrets = []
    syncs = [sync()] * 2000
    room = select.poll()
    room.register(client.socket, select.POLLOUT)
    while room.poll(500):
        secrets.append(start + len(secrets).to_bytes(8, "big"))
        try:
            with contextlib.closing(Fd(os.eventfd(0))) as fd:
                client.send(*syncs, park(fd, secrets[-1]), block=False)
        except BlockingIOError:
            secrets.pop()
            break
    return secrets


if __name__ == "__main__":
    try:
        work(*sys.argv[1:])
    except ConnectionEnded as end:
        print(f"ended: {end}", flush=True)
