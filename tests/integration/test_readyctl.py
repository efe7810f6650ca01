#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""readyctl against a real daemon: every verb, every exit status, every error line.

READYD and READYCTL name the programs; READYD_ECHO, if set, an example server to look at. The
clients here speak the protocol themselves, so that what readyctl shows was not made by its own
library. Nothing is left behind: sockets live in a temporary directory, each process is waited for.
"""

import array
import ctypes
import grp
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

READYD = os.environ.get("READYD", "")
READYCTL = os.environ.get("READYCTL", "")
ECHO = os.environ.get("READYD_ECHO", "")

COMMAND = os.path.basename(READYCTL)[:15]  # as /proc has it
PATIENCE = 30  # s, for what should come at once

LIST_COLUMNS = ("ID PID UID COMMAND FD KIND MODE INTEREST READ WRITE SINCE DEADLINE FIRED")
SESSION_COLUMNS = ("SESSION PID UID COMMAND AGE WATCHES WAITING TIMERS READY ENTRIES BATCH "
                   "COALESCED STATE")
SPAN = r"(?:\d+(?:ns|us|ms|s)|\d+min \d+s|\d+h \d+min|\d+d \d+h)"

# What ASan says when a private daemon is started on a stack of its own; not readyctl's words.
SANITIZER_REMARK = re.compile(r"^==\d+==WARNING: ASan is ignoring requested "
                              r"__asan_handle_no_return.*\nFalse positive .*\nFor details .*\n",
                              re.M)


def closed_pipe():
    """The writing end of a pipe whose reader has gone."""
    r, w = os.pipe()
    os.close(r)
    return w


class Daemon:
    def __init__(self, directory, backend="epoll"):
        self.socket = os.path.join(directory, "socket")
        config = os.path.join(directory, "readyd.yaml")
        with open(config, "w", encoding="ascii") as f:
            f.write("backend: %s\n" % backend)
        r, w = os.pipe()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [READYD, "--config", config, "--socket", self.socket, "--ready-fd", str(w)],
            pass_fds=[w], stderr=self.log, stdin=subprocess.DEVNULL)
        os.close(w)
        said = b""
        while b"READY=1" not in said:
            readable, _, _ = select.select([r], [], [], PATIENCE)
            more = os.read(r, 4096) if readable else b""
            if not more:
                break
            said += more
        os.close(r)
        if b"READY=1" not in said:
            log = self.stop()
            raise RuntimeError("the daemon did not start: %r %s" % (said, log))

    def loop(self):
        """The pid of the process that serves, which is what status tells: the keeper's child."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return int(f.read() or pid)

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.seek(0)
        log = self.log.read().decode(errors="replace")
        self.log.close()
        return log


class Client:
    """A few words of the protocol: enough to hold watches and timers."""

    SYNC, WATCH, WAIT, DEADLINE, TIMER_SET = 0x02, 0x10, 0x12, 0x15, 0x18
    ANSWER_FLAG = 1
    RECORD_BREAK, RECORD_ANSWER = 3, 4

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.serial = 0
        hello = struct.pack("=IHH16sQ", 0x52454459, 1, 1, os.urandom(16), 0)
        self.send(0x01, [hello], flags=0, tail=b"weak edge stream ns")
        kind, records = self.receive()
        assert kind == 0x81, kind
        self.session = struct.unpack_from("=Q", records, 16)[0]

    def close(self):
        self.sock.close()

    def encode(self, kind, records, flags=ANSWER_FLAG, tail=b""):
        self.serial += 1
        message = struct.pack("=HHIII", kind, flags, self.serial, len(records), len(tail))
        message += b"".join(records) + tail
        return message + bytes(-len(message) % 8)

    def send(self, kind, records, flags=ANSWER_FLAG, tail=b"", fds=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([self.encode(kind, records, flags, tail)], control)

    def receive(self):
        message = self.sock.recv(65536)
        assert message, "the daemon ended the connection"
        kind, _, _, count, tail = struct.unpack_from("=HHIII", message)
        return kind, message[16:]

    def request(self, kind, records, fds=()):
        """Waits for the answer, which must be no error."""
        self.send(kind, records, fds=fds)
        while True:
            answer, records = self.receive()
            assert answer == 0x82, answer
            for at in range(0, len(records) - len(records) % 24, 24):
                if records[at] == self.RECORD_ANSWER:
                    _, error, serial = struct.unpack_from("=BxHI", records, at)
                    assert serial == self.serial and error == 0, (serial, error)
                    return

    def watch(self, ident, fd, interest=1, mode=0, cookie=0xabc, gen=1):
        self.request(self.WATCH, [struct.pack("=QIIiBBH", cookie, ident, gen, fd, interest, mode,
                                              0)], fds=[fd])

    def wait(self, ident, directions=1, gen=1):
        self.request(self.WAIT, [struct.pack("=IIII", ident, gen, directions, 0)])

    def deadline(self, ident, ns, directions=1, gen=1):
        """Relative, or -1 for expired."""
        self.request(self.DEADLINE, [struct.pack("=qIIHHHH", ns, ident, gen, directions,
                                                 1 if ns > 0 else 0, 0, 0)])

    def timer(self, ident, ns, period=0, cookie=0x77):
        self.request(self.TIMER_SET, [struct.pack("=QqqIIII", cookie, ns, period, ident, 1, 1,
                                                  0)])

    def fill(self):
        """Asks and does not read, until the daemon stops reading too."""
        self.sock.setblocking(False)
        try:
            while True:
                self.sock.send(self.encode(self.SYNC, []))
        except BlockingIOError:
            pass
        self.sock.settimeout(PATIENCE)


class Base(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        # Descriptors that a test left open, in the process that runs them all, are its fault.
        before = set(os.listdir("/proc/self/fd"))
        self.addCleanup(lambda: self.assertEqual(set(os.listdir("/proc/self/fd")), before))

    def pipe(self):
        r, w = os.pipe()
        self.addCleanup(os.close, r)
        self.addCleanup(os.close, w)
        return r, w

    def directory(self):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        return d.name

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items()
               if k not in ("READYD_SOCKET", "XDG_RUNTIME_DIR")}
        env.update(more)
        return env

    def run_ctl(self, *arguments, env=None, **more):
        more.setdefault("stdout", subprocess.PIPE)
        result = subprocess.run([READYCTL, *arguments], stderr=subprocess.PIPE, text=True,
                                env=env or self.environment(), timeout=PATIENCE * 2,
                                stdin=more.pop("stdin", subprocess.DEVNULL), **more)
        result.stderr = SANITIZER_REMARK.sub("", result.stderr)
        return result

    def assert_line(self, result, status, pattern):
        """One line on stderr that matches, nothing on stdout."""
        self.assertEqual(result.returncode, status, result)
        self.assertFalse(result.stdout)
        self.assertRegex(result.stderr, r"\Areadyctl: [ -~]+\n\Z")
        self.assertRegex(result.stderr, pattern)

    def until(self, condition, what):
        """Looks again and again; the looking takes its own time."""
        end = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            self.assertLess(time.monotonic(), end, "in vain: " + what)

    def popen_ctl(self, *arguments, env=None, **more):
        process = subprocess.Popen([READYCTL, *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True,
                                   env=env or self.environment(), stdin=subprocess.DEVNULL,
                                   **more)

        def end():
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.addCleanup(end)
        return process


class DaemonTest(Base):
    """All that needs a daemon; one for all tests."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.dir.cleanup)
        cls.daemon = Daemon(cls.dir.name)
        cls.addClassCleanup(cls.daemon.stop)

    def client(self):
        client = Client(self.daemon.socket)
        self.addCleanup(client.close)
        return client

    def ctl(self, *arguments, **more):
        return self.run_ctl("--socket", self.daemon.socket, *arguments, **more)

    def good(self, *arguments, **more):
        result = self.ctl(*arguments, **more)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result)
        return result.stdout

    def json(self, *arguments):
        return json.loads(self.good("--json", *arguments))

    def table(self, *arguments):
        """[{column: cell}] by the positions of the header; checks the alignment."""
        lines = self.good(*arguments).splitlines()
        heads = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\S+", lines[0])]
        rows = []
        for line in lines[1:]:
            self.assertEqual(line, line.rstrip())
            cells = re.split(r"  +", line.strip())
            self.assertEqual(len(cells), len(heads), (lines[0], line))
            rows.append(dict(zip((h[0] for h in heads), cells)))
            for (head, start, end), cell in zip(heads, cells):
                # Left-aligned cells begin, right-aligned ones end, where the head does.
                self.assertTrue(line[start:].startswith(cell) or line[:end].endswith(cell),
                                (head, lines[0], line))
        return rows

    # ---- status ----

    def test_status_form(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(1, r)
        client.wait(1)
        lines = self.good("status").splitlines()
        for line in lines:
            self.assertRegex(line, r"\A[A-Z][A-Za-z ]*: +\S")
        self.assertEqual(len({re.match(r".*?: +", line).end() for line in lines}), 1)
        form = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines}
        self.assertEqual(form["PID"], str(self.daemon.loop()))
        self.assertEqual(form["Socket"], self.daemon.socket)
        self.assertEqual(form["Backend"], "epoll")
        self.assertRegex(form["Uptime"], SPAN)
        self.assertRegex(form["Longest turn"], SPAN)
        self.assertRegex(form["Fds"], r"\A\d+ of \d+\Z")
        self.assertGreaterEqual(int(form["Connections"]), 2)
        self.assertGreaterEqual(int(form["Watches"]), 1)
        self.assertGreaterEqual(int(form["Waiting"]), 1)

    def test_status_json(self):
        status = self.json("status")
        self.assertEqual(status["pid"], self.daemon.loop())
        self.assertEqual(status["socket"], self.daemon.socket)
        self.assertEqual(status["protocol"], 1)
        for key in ("now", "began", "started", "restarts", "left_behind", "turn_longest", "fds",
                    "fds_max", "connections", "parks", "parks_handed", "parks_ready", "holders",
                    "holders_left"):
            self.assertIsInstance(status[key], int)
        self.assertIsInstance(status["uptime"], float)
        self.assertAlmostEqual(status["uptime"], (status["now"] - status["began"]) / 1e9, 3)
        self.assertAlmostEqual(status["loop_uptime"], (status["now"] - status["started"]) / 1e9, 3)
        self.assertLess(abs(status["now"] - time.monotonic_ns()), 60 * 10**9)

    # ---- sessions ----

    def test_sessions_table(self):
        client = self.client()
        r, w = self.pipe()
        client.watch(1, r)
        client.watch(2, w, interest=2)
        client.wait(1)
        client.timer(1, 3600 * 10**9)
        self.assertEqual(self.good("sessions").splitlines()[0].split(), SESSION_COLUMNS.split())
        rows = {row["SESSION"]: row for row in self.table("sessions")}
        row = rows[str(client.session)]
        self.assertEqual(row["PID"], str(os.getpid()))
        self.assertEqual(row["UID"], str(os.getuid()))
        self.assertEqual((row["WATCHES"], row["WAITING"], row["TIMERS"]), ("2", "1", "1"))
        self.assertEqual(row["STATE"], "open")
        self.assertRegex(row["AGE"], SPAN)
        self.assertEqual([r["COMMAND"] for r in rows.values() if r["STATE"] == "self"],
                         [COMMAND])

    def test_sessions_filters(self):
        one, two = self.client(), self.client()
        found = self.json("sessions", "--session", str(two.session))["sessions"]
        self.assertEqual([s["session"] for s in found], [two.session])
        mine = self.json("sessions", "--pid", str(os.getpid()))["sessions"]
        self.assertEqual({s["session"] for s in mine}, {one.session, two.session})
        self.assertEqual(self.json("sessions", "--uid", "4294967294"), {"sessions": []})
        named = self.json("--uid", "root", "sessions")["sessions"]
        self.assertEqual(bool(named), os.getuid() == 0)

    def test_sessions_blocked_and_overdue(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(5, r)
        client.wait(5)
        client.deadline(5, 700 * 10**6)
        client.fill()
        self.until(lambda: self.json("sessions", "--session", str(client.session))
                   ["sessions"][0]["state"] == "blocked", "a blocked session")
        row = self.until(lambda: self.json("list", "--overdue", "--session",
                                           str(client.session))["watches"], "an overdue wait")
        self.assertEqual([(w["watch"], w["deadline"]) for w in row], [(5, "overdue")])
        self.assertRegex(self.table("list", "--overdue")[0]["DEADLINE"], r"\Aoverdue")
        self.assertGreaterEqual(self.json("status")["overdue"], 1)

    def test_sessions_of_a_process_that_has_exited(self):
        told, tell = os.pipe()
        hold, release = os.pipe()
        child = os.fork()
        if not child:
            try:
                client = Client(self.daemon.socket)
                if os.fork():
                    os.write(tell, str(client.session).encode())
                    os._exit(0)
                os.close(release)
                os.read(hold, 1)
            finally:
                os._exit(0)
        os.close(tell)
        os.close(hold)
        os.waitpid(child, 0)
        session = os.read(told, 20).decode()
        try:
            row, = self.table("sessions", "--session", session)
            self.assertEqual((row["PID"], row["COMMAND"]), (str(child), "exited"))
            self.assertIsNone(self.json("sessions", "--session", session)["sessions"][0]
                              ["command"])
        finally:
            os.close(release)
            os.read(told, 1)  # its end: the grandchild has gone
            os.close(told)

    # ---- list ----

    def test_list_table(self):
        client = self.client()
        r, w = self.pipe()
        a, b = socket.socketpair()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        client.watch(1, r)
        client.watch(2, w, interest=2)
        client.watch(3, a.fileno(), interest=3)
        client.wait(1)
        client.deadline(1, 7200 * 10**9)
        client.deadline(3, -1, directions=2)
        self.assertEqual(self.good("list").splitlines()[0].split(), LIST_COLUMNS.split())
        rows = {row["ID"]: row for row in self.table("list", "--session", str(client.session))}
        row = rows["%d/1" % client.session]
        self.assertEqual((row["PID"], row["UID"]), (str(os.getpid()), str(os.getuid())))
        self.assertEqual((row["FD"], row["KIND"]), (str(r), "pipe"))
        self.assertEqual((row["MODE"], row["INTEREST"]), ("wait", "r"))
        self.assertEqual((row["READ"], row["WRITE"]), ("waiting", "-"))
        self.assertEqual(row["DEADLINE"], "1h 59min")
        self.assertRegex(row["SINCE"], SPAN)
        self.assertEqual(row["FIRED"], "0")
        row = rows["%d/2" % client.session]
        self.assertEqual((row["INTEREST"], row["READ"], row["WRITE"]), ("w", "-", "ready"))
        self.assertEqual(row["DEADLINE"], "-")
        row = rows["%d/3" % client.session]
        self.assertEqual((row["KIND"], row["INTEREST"], row["READ"]), ("unix", "rw", "idle"))
        self.assertEqual(row["DEADLINE"], "expired")

    def test_list_json(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(9, r, cookie=0xfedcba9876543210, gen=3)
        client.wait(9, gen=3)
        client.deadline(9, 100 * 10**9, gen=3)
        row, = self.json("list", "--session", str(client.session))["watches"]
        self.assertEqual(row["id"], "%d/9" % client.session)
        self.assertEqual((row["session"], row["watch"], row["generation"]),
                         (client.session, 9, 3))
        self.assertEqual(row["cookie"], "0xfedcba9876543210")
        self.assertEqual((row["read"], row["write"]), ("waiting", None))
        self.assertEqual((row["closing"], row["error"]), (False, False))
        self.assertEqual(row["deadline"], "pending")
        self.assertTrue(90 < row["remaining"] <= 100)
        now = time.monotonic_ns()
        self.assertTrue(now < row["read_deadline"] <= now + 100 * 10**9)
        self.assertTrue(0 <= now - row["read_since"] < 60 * 10**9)
        self.assertTrue(0 <= row["waited"] < 60)
        self.assertTrue(0 <= row["age"] < 60)
        self.assertIsNone(row["write_since"])
        self.assertIsNone(row["write_deadline"])
        self.assertIsNone(row["read_code"])

    def test_list_filters(self):
        client, other = self.client(), self.client()
        r, w = self.pipe()
        client.watch(1, r)
        client.watch(2, w, interest=2)
        other.watch(1, r)
        client.wait(1)
        mine = ("list", "--session", str(client.session))
        self.assertEqual([row["watch"] for row in self.json(*mine)["watches"]], [1, 2])
        self.assertEqual([row["watch"] for row in self.json(*mine, "--waiting")["watches"]], [1])
        self.assertEqual(self.json(*mine, "--overdue"), {"watches": []})
        self.assertEqual(len(self.json("list", "--pid", str(os.getpid()))["watches"]), 3)
        self.assertEqual(self.json("list", "--pid", "1"), {"watches": []})
        self.assertEqual(len(self.json("list", "--uid", str(os.getuid()))["watches"]), 3)
        self.assertEqual(len(self.good(*mine, "--no-legend").splitlines()), 2)
        self.assertEqual(self.good("list", "--pid", "1", "--no-legend"), "")
        self.assertEqual(self.good("list", "--pid", "1").split(), LIST_COLUMNS.split())

    def test_list_stream(self):
        client = self.client()
        r, w = self.pipe()
        client.watch(4, r, mode=1)
        os.write(w, b"x")
        kind, records = client.receive()
        self.assertEqual((kind, records[0]), (0x82, 1))
        row, = self.table("list", "--session", str(client.session))
        self.assertEqual((row["MODE"], row["FIRED"]), ("stream", "1"))

    def test_list_of_many(self):
        client = self.client()
        r, _ = self.pipe()
        copies = []
        self.addCleanup(lambda: [os.close(fd) for fd in copies])
        for ident in range(1, 701):
            if ident % 100 == 1:
                copies.append(os.dup(os.eventfd(0) if False else r))
            pair = os.pipe()
            copies.extend(pair)
            client.watch(ident, pair[0])
        rows = self.json("list", "--session", str(client.session))["watches"]
        self.assertEqual([row["watch"] for row in rows], list(range(1, 701)))
        rows = self.table("list", "--session", str(client.session))
        self.assertEqual([row["ID"] for row in rows],
                         ["%d/%d" % (client.session, n) for n in range(1, 701)])

    def test_names_are_escaped(self):
        with open("/proc/self/comm", "rb") as f:
            name = f.read().rstrip(b"\n")
        self.addCleanup(self.set_name, name)
        self.set_name(b"a\x1b[31m\\b \xe9\nz")
        client = self.client()
        r, _ = self.pipe()
        client.watch(1, r)
        shown = r"a\x1b[31m\\b \xe9\x0az"
        session = str(client.session)
        self.assertEqual(self.table("list", "--session", session)[0]["COMMAND"], shown)
        self.assertEqual(self.table("sessions", "--session", session)[0]["COMMAND"], shown)
        self.assertEqual(self.json("list", "--session", session)["watches"][0]["command"], shown)
        self.assertIn("(%s)" % shown, self.good("show", session + "/1"))

    @staticmethod
    def set_name(name):
        with open("/proc/self/comm", "wb") as f:
            f.write(name)

    # ---- show ----

    def test_show(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(6, r, cookie=0x1234, gen=8)
        client.wait(6, gen=8)
        client.deadline(6, 50 * 10**9, gen=8)
        ident = "%d/6" % client.session
        lines = self.good("show", ident).splitlines()
        form = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines}
        self.assertEqual(form["Watch"], ident + " (generation 8)")
        self.assertRegex(form["Process"], r"\A%d \(.+\)\Z" % os.getpid())
        self.assertRegex(form["User"], r"\A%d\b" % os.getuid())
        self.assertEqual(form["Fd"], str(r))
        self.assertEqual(form["Kind"], "pipe or FIFO")
        self.assertRegex(form["Mode"], r"\Await: ")
        self.assertEqual(form["Interest"], "read")
        self.assertRegex(form["Read"], r"\Awaiting for %s; deadline in 49s\Z" % SPAN)
        self.assertEqual(form["Write"], "not watched")
        self.assertEqual(form["Fired"], "0 entries")
        self.assertEqual(form["Cookie"], "0x1234")
        self.assertEqual(form["State"], "live")

    def test_show_json_has_the_names_of_list(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(6, r)
        row, = self.json("list", "--session", str(client.session))["watches"]
        shown = self.json("show", row["id"])
        self.assertEqual(list(shown), list(row))
        for key in ("id", "pid", "fd", "kind", "since", "read", "cookie", "lane"):
            self.assertEqual(shown[key], row[key])

    def test_show_what_is_not_there(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(6, r)
        for ident in ("%d/7" % client.session, "%d/6" % (client.session + 10**9)):
            self.assert_line(self.ctl("show", ident), 1,
                             "no watch %s; 'readyctl list' has" % ident)

    # ---- timers, quotas, break, version ----

    def test_timers(self):
        client = self.client()
        client.timer(1, 7200 * 10**9, cookie=0x99)
        client.timer(2, 86400 * 10**9, period=1500 * 10**6)
        rows = {row["ID"]: row for row in self.table("timers", "--session", str(client.session))}
        self.assertEqual(list(next(iter(rows.values()))),
                         "ID PID UID COMMAND NEXT PERIOD UNSENT".split())
        one, two = rows["%d/1" % client.session], rows["%d/2" % client.session]
        self.assertEqual((one["NEXT"], one["PERIOD"], one["UNSENT"]), ("1h 59min", "-", "0"))
        self.assertEqual((two["NEXT"], two["PERIOD"]), ("23h 59min", "1s"))
        found = self.json("timers", "--session", str(client.session))["timers"]
        found = {timer["timer"]: timer for timer in found}
        self.assertEqual(found[1]["cookie"], "0x99")
        self.assertEqual((found[1]["period"], found[2]["period"]), (None, 1500000000))
        self.assertTrue(7100 < found[1]["remaining"] <= 7200)
        self.assertGreater(found[1]["when"], time.monotonic_ns())

    def test_quotas(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(1, r)
        client.watch(2, r)
        rows = {row["QUOTA"]: row for row in self.table("quotas", "--uid", str(os.getuid()))}
        for name in ("connections", "watches", "timers"):
            self.assertIn(name, rows)
        self.assertEqual(rows["watches"]["USED"], "2")
        found = self.json("quotas", "--uid", str(os.getuid()))["quotas"]
        for quota in found:
            self.assertEqual(quota["uid"], os.getuid())
            self.assertEqual(quota["free"], quota["limit"] - quota["used"])

    def test_break(self):
        client = self.client()
        self.assertEqual(self.good("break", str(client.session)), "")
        kind, records = client.receive()
        self.assertEqual((kind, records[0]), (0x82, Client.RECORD_BREAK))
        self.assertEqual(self.json("break", str(client.session)), {"session": client.session})
        gone = client.session + 10**9
        self.assert_line(self.ctl("break", str(gone)), 1,
                         "no session %d; 'readyctl sessions' has" % gone)

    def test_version(self):
        found = self.json("version")
        self.assertEqual(set(found), {"readyctl", "libreadyd", "readyd", "protocol"})
        self.assertEqual(found["protocol"], 1)
        for key in ("readyctl", "libreadyd", "readyd"):
            self.assertRegex(found[key], r"\A\d+\.\d+\.\d+")
        form = self.good("version")
        self.assertRegex(form, r"(?m)^readyd: +\d+\.\d+\.\d+")

    def test_every_document_is_one_object_with_every_key(self):
        client = self.client()
        r, _ = self.pipe()
        client.watch(1, r)
        client.timer(1, 3600 * 10**9)
        for verb, array_name in (("sessions", "sessions"), ("list", "watches"),
                                 ("timers", "timers"), ("quotas", "quotas")):
            with self.subTest(verb=verb):
                document = self.json(verb)
                self.assertEqual(list(document), [array_name])
                self.assertEqual(len({tuple(row) for row in document[array_name]}), 1)
                self.assertEqual(json.loads(self.good("--json", "--no-legend", verb)).keys(),
                                 document.keys())
        self.assertIsInstance(self.json("status"), dict)

    # ---- the environment, and output that fails ----

    def test_the_environment_names_the_socket(self):
        result = self.run_ctl("status", "--json",
                              env=self.environment(READYD_SOCKET=self.daemon.socket))
        self.assertEqual(json.loads(result.stdout)["socket"], self.daemon.socket)

    def test_the_users_own_socket_is_found(self):
        d = self.directory()
        os.mkdir(os.path.join(d, "readyd"))
        os.symlink(self.daemon.socket, os.path.join(d, "readyd", "socket"))
        result = self.run_ctl("status", "--json", env=self.environment(XDG_RUNTIME_DIR=d))
        self.assertEqual(json.loads(result.stdout)["pid"], self.daemon.loop())

    def test_full_disk(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            for arguments in (("status",), ("list", "--json"), ("--help",), ("--version",)):
                self.assert_line(self.ctl(*arguments, stdout=full), 4,
                                 "could not write the output: No space left")

    def test_closed_output(self):
        result = subprocess.run(["sh", "-c", '"$0" --socket "$1" status >&-', READYCTL,
                                 self.daemon.socket], stderr=subprocess.PIPE, text=True,
                                timeout=PATIENCE, check=False)
        self.assertEqual(result.returncode, 4)
        self.assertRegex(result.stderr, r"\Areadyctl: could not write the output: [^\n]*\n\Z")

    def test_a_reader_that_has_gone(self):
        for restore in (True, False):  # SIGPIPE as usual, and ignored
            w = closed_pipe()
            try:
                result = self.ctl("list", stdout=w, restore_signals=restore)
            finally:
                os.close(w)
            self.assertEqual(result.stderr, "")
            self.assertEqual(result.returncode, -signal.SIGPIPE if restore else 0)

    def test_a_socket_that_may_not_be_opened(self):
        mode = os.stat(self.daemon.socket).st_mode
        group = os.stat(self.daemon.socket).st_gid
        try:
            name = grp.getgrgid(group).gr_name
        except KeyError:
            name = str(group)
        os.chmod(self.daemon.socket, 0o060)  # as an owner one has the owner's rights: none
        try:
            result = self.ctl("status", preexec_fn=drop_override)
        finally:
            os.chmod(self.daemon.socket, mode & 0o777)
        self.assert_line(result, 1, re.escape(self.daemon.socket))
        self.assertRegex(result.stderr, "members of group %s: .*%s" % (name, name))
        self.assertRegex(result.stderr, "usermod|gpasswd|adduser")

    # ---- wait ----

    def wait_blocked(self, process):
        """Until the daemon shows the wait of that process."""
        return self.until(lambda: self.json("list", "--waiting", "--pid", str(process.pid))
                          ["watches"], "a wait of readyctl")

    def test_wait_through_the_daemon(self):
        r, w = self.pipe()
        other, _ = self.pipe()
        process = self.popen_ctl("--socket", self.daemon.socket, "wait", "-t", "60",
                                 "%d:r" % r, "%d" % other, pass_fds=[r, other])
        rows = self.wait_blocked(process)
        self.assertEqual({row["fd"] for row in rows} - {r, other}, set())
        self.assertEqual(rows[0]["command"], COMMAND)
        os.write(w, b"x")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, err, process.returncode), ("%d read\n" % r, "", 0))

    def test_wait_for_all_through_the_daemon(self):
        r1, w1 = self.pipe()
        r2, w2 = self.pipe()
        process = self.popen_ctl("--socket", self.daemon.socket, "wait", "--all",
                                 "%d" % r1, "%d" % r2, pass_fds=[r1, r2])
        self.wait_blocked(process)
        os.write(w1, b"x")
        self.until(lambda: [row["fd"] for row in self.wait_blocked(process)] == [r2],
                   "the one that is left")
        os.read(r1, 1)
        os.write(w2, b"x")
        # The first is empty again: both must be ready at once.
        self.until(lambda: [row["fd"] for row in self.wait_blocked(process)] == [r1],
                   "the other one")
        os.write(w1, b"x")
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, process.returncode), ("%d read\n%d read\n" % (r1, r2), 0))

    def test_wait_times_out_through_the_daemon(self):
        r, _ = self.pipe()
        result = self.ctl("wait", "-t", "100ms", "%d" % r, pass_fds=[r])
        self.assertEqual((result.returncode, result.stdout, result.stderr), (1, "", ""))

    def test_wait_takes_what_the_daemon_refuses(self):
        """An epoll fd is not admitted: readyctl polls it by itself, beside the other."""
        r, w = self.pipe()
        idle, _ = self.pipe()
        ep = select.epoll()
        self.addCleanup(ep.close)
        ep.register(r, select.EPOLLIN)
        process = self.popen_ctl("--socket", self.daemon.socket, "wait", "-t", "60", "%d" % idle,
                                 "%d" % ep.fileno(), pass_fds=[idle, ep.fileno()])
        self.wait_blocked(process)
        os.write(w, b"x")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, err, process.returncode), ("%d read\n" % ep.fileno(), "", 0))

    def test_wait_through_a_daemon_that_polls(self):
        daemon = Daemon(self.directory(), backend="poll")
        try:
            r, w = self.pipe()
            process = self.popen_ctl("--socket", daemon.socket, "wait", "%d:r" % r, pass_fds=[r])
            self.until(lambda: "waiting" in self.run_ctl("--socket", daemon.socket, "list").stdout,
                       "a wait")
            self.assertRegex(self.run_ctl("--socket", daemon.socket, "status").stdout,
                             r"(?m)^Backend: +poll$")
            os.write(w, b"x")
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            daemon.stop()
        self.assertEqual((out, err, process.returncode), ("%d read\n" % r, "", 0))

    def test_wait_outlives_the_daemon(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=sig):
                daemon = Daemon(self.directory())
                try:
                    r, w = self.pipe()
                    process = self.popen_ctl("--socket", daemon.socket, "wait", "-t", "60",
                                             "%d" % r, pass_fds=[r])
                    self.until(lambda: json.loads(self.run_ctl(
                        "--socket", daemon.socket, "list", "--waiting", "--json").stdout)
                        ["watches"], "a wait")
                finally:
                    daemon.stop(sig)
                self.assertIsNone(process.poll())
                os.write(w, b"x")
                out, err = process.communicate(timeout=PATIENCE)
                self.assertEqual((out, err, process.returncode), ("%d read\n" % r, "", 0))

    @unittest.skipUnless(ECHO, "READYD_ECHO names no server")
    def test_the_example_server(self):
        process = subprocess.Popen([ECHO, "--port", "0"], stdout=subprocess.PIPE, text=True,
                                   env=self.environment(READYD_SOCKET=self.daemon.socket))
        try:
            port = int(process.stdout.readline().split()[-1])
            with socket.create_connection(("127.0.0.1", port)) as s:
                rows = self.until(lambda: self.two_waits(process.pid), "its two waits")
                self.assertEqual({row["kind"] for row in rows}, {"inet"})
                # Both wait, so what comes now is an entry.
                s.sendall(b"hello")
                self.assertEqual(s.recv(5), b"hello")
                rows = self.until(lambda: self.two_waits(process.pid), "its next wait")
                self.assertGreaterEqual(rows[1]["fired"], 1)
                self.assertRegex(self.good("show", rows[1]["id"]), r"(?m)^Kind: +IPv4 socket$")
                # with a connection still open
                process.terminate()
                self.assertEqual(process.wait(PATIENCE), 0)
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)
        self.until(lambda: not self.json("list", "--pid", str(process.pid))["watches"],
                   "the end of its watches")

    def two_waits(self, pid):
        rows = self.json("list", "--waiting", "--pid", str(pid))["watches"]
        return rows if len(rows) == 2 else None


def drop_override():
    """In the child: root, too, is bound by file modes."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


class WaitAloneTest(Base):
    """`wait` where no daemon answers."""

    def wait(self, *arguments, **more):
        return self.run_ctl("--socket", "/nonexistent/socket", "wait", *arguments, **more)

    def ready(self, expected, *arguments, **more):
        result = self.wait(*arguments, **more)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, expected, ""))

    def test_directions(self):
        r, w = self.pipe()
        os.write(w, b"x")
        a, b = socket.socketpair()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        b.send(b"x")
        s = a.fileno()
        fds = {"pass_fds": [r, w, s]}
        self.ready("%d read\n" % r, str(r), **fds)
        self.ready("%d read\n" % r, "%d:r" % r, **fds)
        self.ready("%d write\n" % w, "%d:w" % w, **fds)
        self.ready("%d read write\n" % s, "%d:rw" % s, **fds)
        self.ready("%d read write\n" % s, "%d:w" % s, "%d:r" % s, **fds)
        self.ready("%d write\n%d read\n" % (w, r), "%d:w" % w, "%d:r" % r, **fds)

    def test_hang_up_is_readable(self):
        r, w = os.pipe()
        os.close(w)
        self.ready("%d read\n" % r, str(r), pass_fds=[r])
        os.close(r)
        w = closed_pipe()
        self.ready("%d write\n" % w, "%d:w" % w, pass_fds=[w])
        self.ready("%d read write\n" % w, "%d:rw" % w, pass_fds=[w])
        os.close(w)

    def test_a_regular_file_is_always_ready(self):
        with open(__file__, "rb") as f:
            self.ready("%d read\n" % f.fileno(), str(f.fileno()), pass_fds=[f.fileno()])
            self.ready("0 read\n", "0", stdin=f)

    def test_time_over(self):
        r, _ = self.pipe()
        for span, least in (("0", 0), ("0.05", .05), ("50ms", .05), ("1000us", .001)):
            with self.subTest(span=span):
                start = time.monotonic()
                result = self.wait("-t", span, str(r), pass_fds=[r])
                self.assertGreaterEqual(time.monotonic() - start, least)
                self.assertEqual((result.returncode, result.stdout, result.stderr), (1, "", ""))

    def test_time_is_not_over_when_something_comes(self):
        for span in ("1min", "2h", "9000000000", "60.5s"):
            r, w = self.pipe()
            process = self.popen_ctl("--socket", "/nonexistent/socket", "wait", "--timeout", span,
                                     str(r), pass_fds=[r])
            self.until(lambda: asleep(process.pid), "sleep")
            os.write(w, b"x")
            out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((out, err, process.returncode), ("%d read\n" % r, "", 0))

    def test_all(self):
        r, w = self.pipe()
        result = self.wait("--all", "-t", "0.05", str(r), "%d:w" % w, pass_fds=[r, w])
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        os.write(w, b"x")
        self.ready("%d read\n%d write\n" % (r, w), "--all", str(r), "%d:w" % w, pass_fds=[r, w])

    def test_all_sleeps_while_one_is_ready(self):
        r1, w1 = self.pipe()
        r2, w2 = self.pipe()
        os.write(w1, b"x")
        process = self.popen_ctl("--socket", "/nonexistent/socket", "wait", "--all", str(r1),
                                 str(r2), pass_fds=[r1, r2])
        self.until(lambda: asleep(process.pid), "sleep")
        ticks = cpu_ticks(process.pid)
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(.5)
        self.assertLess(cpu_ticks(process.pid) - ticks, 10)
        os.write(w2, b"x")
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(out, "%d read\n%d read\n" % (r1, r2))

    def test_json(self):
        r, w = self.pipe()
        result = self.wait("--json", "-t", "0", str(r), "%d:w" % w, pass_fds=[r, w])
        self.assertEqual((result.returncode, json.loads(result.stdout)),
                         (0, {"ready": [{"fd": w, "read": False, "write": True}]}))
        result = self.wait("--json", "-t", "0", str(r), pass_fds=[r])
        self.assertEqual((result.returncode, json.loads(result.stdout)), (1, {"ready": []}))

    def test_from_a_shell(self):
        d = self.directory()
        script = 'mkfifo a b; exec 3<>a 4<>b; echo hello >&4; "$READYCTL" wait -t 5 3:r 4:r; ' \
                 'read -r line <&4; echo "$line"'
        result = subprocess.run(["sh", "-c", script], cwd=d, capture_output=True, text=True,
                                timeout=PATIENCE, check=True,
                                env=self.environment(READYCTL=os.path.abspath(READYCTL),
                                                     READYD_SOCKET="/nonexistent/socket"))
        self.assertEqual((result.stdout, result.stderr), ("4 read\nhello\n", ""))

    def test_a_closed_fd(self):
        self.assert_line(self.wait("77:r"), 2, "fd 77 is not open")
        for fd in (0, 1, 2):
            # Also one of the first three, whose number is filled while readyctl runs.
            result = subprocess.run(["sh", "-c", '"$0" wait -t 5 %d %s' % (fd, "%d<&-" % fd),
                                     READYCTL], capture_output=True, text=True, timeout=PATIENCE,
                                    check=False, stdin=subprocess.DEVNULL)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            if fd != 2:
                self.assertRegex(result.stderr, r"\Areadyctl: fd %d is not open" % fd)


def asleep(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        state = f.read().rsplit(")", 1)[1].split()[0]
    with open("/proc/%d/cmdline" % pid, "rb") as f:
        return state == "S" and b"wait" in f.read().split(b"\0")


def cpu_ticks(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class NoDaemonTest(Base):
    def test_a_socket_that_is_not_there(self):
        for verb in (("status",), ("sessions",), ("list",), ("timers",), ("quotas",),
                     ("show", "1/1"), ("break", "1")):
            with self.subTest(verb=verb):
                result = self.run_ctl("--socket", "/nonexistent/socket", *verb)
                self.assert_line(result, 3, "no daemon answers on /nonexistent/socket; .*"
                                 "'readyd --socket /nonexistent/socket'")

    def test_a_socket_that_nobody_serves(self):
        path = os.path.join(self.directory(), "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.bind(path)
        self.assert_line(self.run_ctl("status", "--json", "--socket", path), 3,
                         "no daemon answers on " + re.escape(path))

    def test_an_abstract_address_that_nobody_has(self):
        self.assert_line(self.run_ctl("status", "--socket", "@readyctl-test-%d" % os.getpid()), 3,
                         "no daemon answers on @readyctl-test")

    def test_the_environment_names_it(self):
        result = self.run_ctl("list", env=self.environment(READYD_SOCKET="/nonexistent/x"))
        self.assert_line(result, 3, r"/nonexistent/x, which \$READYD_SOCKET names; unset it, or "
                         "start one there with 'readyd --socket /nonexistent/x'$")

    @unittest.skipIf(os.path.exists("/run/readyd/socket"), "this machine has a readyd")
    def test_all_that_were_tried_are_named(self):
        d = self.directory()
        result = self.run_ctl("list", env=self.environment(XDG_RUNTIME_DIR=d))
        self.assert_line(result, 3, "tried %s/readyd/socket and /run/readyd/socket" %
                         re.escape(d))
        self.assert_line(self.run_ctl("list"), 3, r"tried /run/readyd/socket; "
                         r"\$XDG_RUNTIME_DIR is not set\); .*'readyctl --private'$")
        for verb in (("drop", "1"), ("park",)):
            self.assert_line(self.run_ctl(*verb), 3, "; start one with 'readyd'$")

    def test_paths_are_escaped(self):
        self.assert_line(self.run_ctl("status", "--socket", "/nonexistent/\x1b[1m\nx"), 3,
                         r"/nonexistent/\\x1b\[1m\\x0ax")

    def test_somebody_else_answers(self):
        path = os.path.join(self.directory(), "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.bind(path)
            s.listen()
            process = self.popen_ctl("--socket", path, "status")
            s.settimeout(PATIENCE)
            connection, _ = s.accept()
            with connection:
                connection.recv(65536)
                connection.send(b"what?")
            out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (4, ""))
        self.assertRegex(err, r"\Areadyctl: [ -~]+\n\Z")

    def test_version_without_a_daemon(self):
        result = self.run_ctl("--socket", "/nonexistent/socket", "version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"(?m)^readyd: +none answers$")
        result = self.run_ctl("--socket", "/nonexistent/socket", "version", "--json")
        self.assertIsNone(json.loads(result.stdout)["readyd"])

    @unittest.skipIf(os.path.exists("/run/readyd/socket"), "this machine has a readyd")
    def test_private(self):
        d = self.directory()
        env = self.environment(XDG_RUNTIME_DIR=d, READYD_DAEMON=os.path.abspath(READYD))
        result = self.run_ctl("--private", "status", "--json", env=env)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        status = json.loads(result.stdout)
        pidfd = os.pidfd_open(status["pid"])
        try:
            self.assertRegex(status["socket"], r"\A@")
            again = self.run_ctl("status", "--json",
                                 env=self.environment(READYD_SOCKET=status["socket"]))
            self.assertEqual(json.loads(again.stdout)["pid"], status["pid"])
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            ended, _, _ = select.select([pidfd], [], [], PATIENCE)
            os.close(pidfd)
        self.assertTrue(ended)

    def test_private_without_a_program(self):
        d = self.directory()
        env = self.environment(XDG_RUNTIME_DIR=d, READYD_DAEMON="/nonexistent/readyd")
        result = self.run_ctl("--private", "status", env=env)
        self.assertIn(result.returncode, (3, 4))
        self.assertRegex(result.stderr, r"\Areadyctl: [ -~]+\n\Z")


class UsageTest(Base):
    def test_usage_errors(self):
        cases = (
            ((), "no verb"),
            (("frobnicate",), "unknown verb 'frobnicate'"),
            (("help", "frobnicate"), "unknown verb 'frobnicate'"),
            (("--frobnicate",), "unknown option '--frobnicate'"),
            (("-x", "status"), "unknown option '-x'"),
            (("--json=yes", "status"), "'--json=yes'"),
            (("status", "--socket"), "--socket needs a value"),
            (("status", "--socket", ""), "--socket: '' is no path"),
            (("status", "more"), "usage: readyctl status"),
            (("show",), "usage: readyctl show SESSION/ID"),
            (("show", "1/2", "3/4"), "usage: readyctl show SESSION/ID"),
            (("break",), "usage: readyctl break SESSION"),
            (("status", "--pid", "1"), "'status' takes no --pid"),
            (("sessions", "--overdue"), "'sessions' takes no --overdue"),
            (("list", "--all"), "'list' takes no --all"),
            (("wait", "0", "--private"), "'wait' takes no --private"),
            (("help", "--json"), "'help' takes no --json"),
            (("--private", "--socket", "/x", "list"), "exclude each other"),
            (("list", "--pid", "0"), "--pid: '0'"),
            (("list", "--pid", "-1"), "--pid: '-1'"),
            (("list", "--pid", "2147483648"), "--pid"),
            (("list", "--session", "x"), "--session: 'x'"),
            (("list", "--session", "18446744073709551616"), "--session"),
            (("list", "--uid", "no-such-user-x"), "no user 'no-such-user-x'"),
            (("list", "--uid", "4294967295"), "no user '4294967295'"),
            (("wait",), "usage: readyctl wait FD"),
            (("wait", "x"), "'x' is no fd"),
            (("wait", ":r"), "':r' is no fd"),
            (("wait", "99999999999999999999:r"), "is no fd"),
            (("wait", "0:x"), "directions are r, w and rw"),
            (("wait", "0:wr"), "directions are r, w and rw"),
            (("wait", "0:\x1b[1m"), r"'0:\\x1b\[1m'"),
        )
        for arguments, pattern in cases:
            with self.subTest(arguments=arguments):
                self.assert_line(self.run_ctl(*arguments), 2, pattern)

    def test_wrong_ids(self):
        for ident in ("", "3", "3/", "/3", "0/3", "3/0", "3/x", "x/3", "3/4294967296", "3/4/5",
                      "-3/4", "18446744073709551616/1", " 3/4"):
            with self.subTest(id=ident):
                self.assert_line(self.run_ctl("show", "--", ident), 2, "is no id of a watch")
        for session in ("", "0", "x", "1/2", "18446744073709551616"):
            with self.subTest(session=session):
                self.assert_line(self.run_ctl("break", "--", session), 2, "is no session")

    def test_wrong_spans(self):
        for span in ("", "x", "-1", "1x", ".", "5.", "1e3", " 1", "1 s", "99999999999h", "nan"):
            with self.subTest(span=span):
                self.assert_line(self.run_ctl("wait", "0", "--timeout=" + span), 2,
                                 "is no span of time")

    def test_help(self):
        text = self.run_ctl("--help")
        self.assertEqual((text.returncode, text.stderr), (0, ""))
        self.assertEqual(self.run_ctl("help").stdout, text.stdout)
        self.assertEqual(self.run_ctl("-h").stdout, text.stdout)
        self.assertLessEqual(max(len(line) for line in text.stdout.splitlines()), 80)
        for verb in re.findall(r"(?m)^  ([a-z]+) ", text.stdout.split("Options:")[0]):
            with self.subTest(verb=verb):
                one = self.run_ctl("help", verb)
                self.assertRegex(one.stdout, r"\AUsage: readyctl %s\b" % verb)
                self.assertEqual(self.run_ctl(verb, "--help").stdout, one.stdout)
                self.assertLessEqual(len(one.stdout.splitlines()), 24)

    def test_version_option_asks_nobody(self):
        result = self.run_ctl("--version", "--socket", "/nonexistent/socket")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"\Areadyctl \d+\.\d+\.\d+\nlibreadyd \d+\.\d+\.\d+\n\Z")


if __name__ == "__main__":
    for variable in ("READYD", "READYCTL"):
        if not os.access(os.environ.get(variable, ""), os.X_OK):
            sys.exit("%s must name a program" % variable)
    unittest.main(verbosity=2)
