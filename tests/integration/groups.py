# SPDX-License-Identifier: MIT
"""What the tests of groups have in common, all from protocol/PROTOCOL.md: steps for a Bench, worker
processes that are forked from the test, and connections of other users.
"""

import contextlib
import gc
import os
import select
import signal
import sys
import time
import traceback

from parks import PATIENCE, Fd, connect, until
from readyd_client import ALL_UIDS, ParkState, acknowledge, attach, held, sync

G = b"g"
UNSETTLED_MAX = 16
USERS = (12345, 12346, 12347)


class Groups:
    """Steps of tests, for a Bench: beside `client`, `parked`, `rows` and the like."""

    def worker_of(self, group=G, more=1, capacity=None, **options):
        """A client that has attached."""
        client = self.client(**options)
        self.ok(client, attach(group, more, capacity))
        return client

    def fire(self, *parks):
        """Makes parks ready, one after the other. Each is what `parked` has returned."""
        for _, number, peer in parks:
            peer.send(b"x")
            until(lambda: (item := self.rows().get(number)) is None or item.row.ready
                  or item.row.state == ParkState.HANDED, f"{number} ready")

    def fired(self, client, count, group=G, **options):
        """So many parks, ready in this order. Nobody is attached."""
        parks = [self.parked(client, group=group, **options) for _ in range(count)]
        self.fire(*parks)
        return parks

    def given(self, client):
        """The next HANDOUT of a group: the message, and the fd."""
        message = client.handout(0)
        return message, self.keep(Fd(message.fds[0]))

    def owned(self, client):
        """The whole of it: the HANDOUT, and the fd, which is now ours."""
        message, fd = self.given(client)
        self.ok(client, acknowledge(message.records[0].token))
        return message, fd

    def gives_back(self, client, secret, fd):
        fd.close()
        self.ok(client, held((secret, 0)))

    def idle(self, *clients, seconds=0.05):
        """No HANDOUT, nor anything else, has come, until two SYNCs and some time are through."""
        for client in clients:
            client.sync()
        select.select(clients, [], [], seconds)
        for client in clients:
            client.sync()
            self.assertEqual((client.handouts, list(client.events)), ([], []))

    def drained(self, client, seconds=0.05):
        """All HANDOUTs that come without another word."""
        client.sync()
        while client.receive(seconds):
            pass
        messages = list(client.handouts)
        client.handouts.clear()
        for message in messages:
            self.keep(Fd(message.fds[0]))
        return messages

    def deafen(self, client):
        """Fills its socket, so that nothing more is sent to it. The serials of what it has asked."""
        serials = []
        room = select.poll()
        room.register(client.socket, select.POLLOUT)
        while room.poll(300):
            with contextlib.suppress(BlockingIOError):
                serials += client.send(*[sync()] * 2000, block=False)
        return serials

    def group(self, name=G, client=None, uid=None):
        """Its row; None where there is none."""
        uid = os.getuid() if uid is None else uid
        with contextlib.nullcontext(client) if client else connect(self.d) as asker:
            found = [item.row for item in asker.groups()
                     if item.name == name and item.row.uid == uid]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def shared_group(self, name=G, client=None):
        return self.group(name, client, ALL_UIDS)

    def serials(self, messages):
        """None of these belongs to a TAKE."""
        self.assertEqual({message.serial for message in messages} - {0}, set())

    def sleeps(self):
        """The loop has nothing to do, and does nothing: no end of a connection was missed."""
        def quiet():
            before = self.d.loop(), processor_time(self.d.loop())
            time.sleep(0.2)
            return before == (self.d.loop(), processor_time(self.d.loop()))

        until(quiet, "an idle loop", 8)  # before its keeper would count it as stuck

    def forked(self, function, *arguments, keep=()):
        return self.keep(Forked(function, *arguments, keep=keep))


def processor_time(pid):
    """In ticks."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Forked:
    """A process that runs a function of the test, with the fds in `keep` and no others of it, and
    then lives until it is killed, or closed. The function gets `say` and `heard` first: one says a
    line, the other waits for one. What it returns lives as long."""

    def __init__(self, function, *arguments, keep=()):
        said, say = os.pipe()
        hear, told = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            run_forked(function, arguments, say, hear, keep)
        os.close(say)
        os.close(hear)
        self.said, self.told = Fd(said), Fd(told)
        self.status = None
        self.last_words = b""

    def line(self):
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self.said], [], [], PATIENCE)
            assert ready, "the worker says nothing"
            more = os.read(self.said.fd, 1)
            assert more, f"the worker has ended: {text!r}"
            text += more
        return text.decode().rstrip("\n")

    def tell(self):
        os.write(self.told.fd, b"\n")

    def kill(self, number=signal.SIGKILL):
        if self.status is None:
            os.kill(self.pid, number)
        self.wait()

    def wait(self):
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def has_ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def close(self):
        self.kill()
        if self.said.fd >= 0 and select.select([self.said], [], [], 0)[0]:
            self.last_words = os.read(self.said.fd, 1 << 16)
        self.said.close()
        self.told.close()


def close_all_but(fds):
    """Nothing of the test stays open in a child; its objects there are never used again."""
    gc.disable()
    last = 3
    for fd in sorted(fd for fd in set(fds) if fd >= 3):
        os.closerange(last, fd)
        last = fd + 1
    os.closerange(last, 65536)


def run_forked(function, arguments, say, hear, keep):
    try:
        close_all_but([say, hear, *keep])
        kept = function(lambda *words: os.write(say, (" ".join(map(str, words)) + "\n").encode()),
                        lambda: os.read(hear, 1), *arguments)
        os.read(hear, 1)
        del kept
    except BaseException:  # pylint: disable=broad-exception-caught
        with contextlib.suppress(OSError):
            os.write(say, f"{traceback.format_exc()!r}\n".encode())
    finally:
        os._exit(1)


@contextlib.contextmanager
def as_user(uid, groups=()):
    """What connects in here is this user's, to the daemon: it asks the kernel, which looks at
    connect(2)."""
    before = os.getegid(), os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def shared(**groups):
    """The configuration's rules for shared groups: for each, the lists of who may what."""
    return "shared-groups:\n" + "".join(
        f"  {name}: {{{', '.join(f'{right}: [{listed(who)}]' for right, who in rights.items())}}}\n"
        for name, rights in groups.items())


def listed(who):
    return ", ".join(str(each) if isinstance(each, int) else f"'{each}'" for each in who)
