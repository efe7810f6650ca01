#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""readyd as a service of a real systemd, beside which this runs (run.sh, systemd-ns.sh).

Everything here is the namespace's own: /etc, /run, the users and the units. READYD_PREFIX is where
readyd is installed; READYD_SKIP_SYSTEM, if set, is why no systemd could be booted: then every test
is skipped for that reason.
"""

import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "integration")]
from daemon import READYCTL, READYD, WATCH, Client, Ended, children, name as name_of
import readyd_client as wire

SKIP = os.environ.get("READYD_SKIP_SYSTEM")
PREFIX = os.environ.get("READYD_PREFIX", "")
PATIENCE = 60
SCORE = 0.7  # of `systemd-analyze security`, at most; readyd(8) says what is left open, and why

SOCKET = "/run/readyd/socket"
CONFIG = "/etc/readyd/readyd.yaml"
UNITS = "/run/units"


def run(*command, check=True, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False,
                          **options)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def systemctl(*arguments, **options):
    return run("systemctl", *arguments, **options)


def show(name, unit="readyd.service"):
    return systemctl("show", "-p", name, "--value", unit).stdout.strip()


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}\n{journal_text()}"
        time.sleep(0.01)


def keeper():
    return int(show("MainPID"))


def loop():
    pids = [pid for pid in children(keeper()) if name_of(pid) != "readyd-holder"]
    return pids[0] if len(pids) == 1 else 0


def answers():
    return run(READYCTL, "status", check=False).returncode == 0


def status(row):
    for line in run(READYCTL, "status").stdout.splitlines():
        key, _, value = line.partition(":")
        if key == row:
            return value.strip()
    raise KeyError(row)


def journal(*matches):
    """The lines of this test, as dicts of their fields."""
    run("journalctl", "--sync")
    lines = run("journalctl", "--no-pager", "-o", "json", "--since", f"@{System.begin:.6f}",
                *matches, check=False).stdout
    return [json.loads(line) for line in lines.splitlines()]


def journal_text():
    return run("journalctl", "--no-pager", "-n", "60", check=False).stdout


def in_journal(text, after=""):
    """Whether readyd has said this, after it said that."""
    said = "\n".join(line["MESSAGE"] for line in journal("SYSLOG_IDENTIFIER=readyd"))
    return text in said.rpartition(after)[2] if after else text in said


def configure(text):
    os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
    with open(CONFIG, "w", encoding="ascii") as f:
        f.write(text)


def drop_in(text):
    folder = f"{UNITS}/readyd.service.d"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/test.conf", "w", encoding="ascii") as f:
        f.write(text)
    systemctl("daemon-reload")


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


class Program:
    """A program of libreadyd's (tests/tools/resume.c) that must see nothing of what happens."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [os.path.join(HERE, "resume"), arguments[0], SOCKET, *arguments[1:]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert readable, "the program says nothing"
        said = self.process.stdout.readline()
        assert said == "ready\n", said + self.process.communicate()[1]

    def end(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0 and not err, f"{self.process.returncode}: {out}{err}"
        return out.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


def setUpModule():
    if SKIP:
        return
    run("systemd-sysusers", f"{PREFIX}/lib/sysusers.d/readyd.conf")
    run("systemd-tmpfiles", "--create", f"{PREFIX}/lib/tmpfiles.d/readyd.conf")


@unittest.skipIf(SKIP, SKIP)
class System(unittest.TestCase):
    begin = 0.0  # of this test, CLOCK_REALTIME

    def setUp(self):
        """The socket listens, the service has never run, nothing is configured."""
        systemctl("stop", "readyd.socket", "readyd.service")
        remove(CONFIG)
        if os.path.exists(f"{UNITS}/readyd.service.d/test.conf"):
            os.unlink(f"{UNITS}/readyd.service.d/test.conf")
            systemctl("daemon-reload")
        systemctl("reset-failed", check=False)
        System.begin = time.time()
        systemctl("start", "readyd.socket")

    def start(self):
        systemctl("start", "readyd.service")
        self.assertEqual(show("ActiveState"), "active")


class Activation(System):
    def test_the_socket_is_for_root_and_the_group(self):
        st = os.stat(SOCKET)
        gid = int(run("getent", "group", "readyd").stdout.split(":")[2])
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o777), (0, gid, 0o660))
        st = os.stat("/run/readyd")
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o777), (0, gid, 0o755))

    def test_the_first_client_starts_it(self):
        self.assertEqual(show("ActiveState"), "inactive")
        self.assertEqual(show("ActiveState", "readyd.socket"), "active")
        begin = time.monotonic()
        with Client(SOCKET, hello=False) as c:
            c.socket.settimeout(PATIENCE)
            c.greet()
            print(f"the first answer came after {(time.monotonic() - begin) * 1000:.0f} ms")
        until(lambda: show("ActiveState") == "active", "active")
        self.assertEqual(status("Socket"), SOCKET)

    def test_not_ready_before_it_serves_and_messages_wait(self):
        """A start that is held up between fork and exec: activating, and what a client sent is
        answered later."""
        drop_in("[Service]\nExecStart=\nExecStart=/bin/sh -c 'until [ -e /run/readyd/go ]; do "
                f"sleep 0.05; done; exec {READYD}'\n")
        with Client(SOCKET, hello=False) as c:
            c.socket.settimeout(PATIENCE)
            c.send(0x01, struct.pack("=IHH16sQ", 0x52454459, 1, 1, os.urandom(16), 0))
            until(keeper, "a process")
            self.assertEqual(show("ActiveState"), "activating")
            self.assertEqual(show("SubState"), "start")
            try:
                with open("/run/readyd/go", "w", encoding="ascii"):
                    pass
                self.assertEqual(c.receive()[0], 0x81)
                until(lambda: show("ActiveState") == "active", "active")
            finally:
                remove("/run/readyd/go")

    def test_stop_is_clean_and_removes_the_path(self):
        self.start()
        self.assertTrue(answers())
        systemctl("stop", "readyd.socket", "readyd.service")
        self.assertEqual(show("Result"), "success")
        self.assertEqual(show("ExecMainStatus"), "0")
        self.assertFalse(os.path.exists(SOCKET))
        self.assertEqual(run(READYCTL, "status", check=False).returncode, 3)

    def test_a_wrong_configuration_is_not_tried_again(self):
        configure("watches: none\n")
        self.assertNotEqual(systemctl("start", "readyd.service", check=False).returncode, 0)
        self.assertEqual(show("ActiveState"), "failed")
        self.assertEqual(show("Result"), "exit-code")
        self.assertEqual(show("ExecMainStatus"), "78")
        self.assertEqual(show("NRestarts"), "0")
        self.assertTrue(in_journal(f"{CONFIG}:1:1: "))
        remove(CONFIG)
        systemctl("reset-failed")
        self.start()
        self.assertTrue(answers())

    def test_a_user_of_the_group(self):
        run("useradd", "--system", "--groups", "readyd", "member")
        self.addCleanup(run, "userdel", "member")
        configure("trusted: [member]\n")
        self.start()
        command = ["setpriv", "--reuid=member", "--regid=member"]
        self.assertEqual(run(*command, "--init-groups", READYCTL, "status").returncode, 0)
        refused = run(*command, "--clear-groups", READYCTL, "status", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("it is for members of group readyd", refused.stderr)


class Reload(System):
    def test_status_has_live_counts(self):
        self.start()
        with Client(SOCKET) as c:
            a, b = socket.socketpair()
            with a, b:
                self.assertEqual(c.watch(1, a.fileno()), 0)
                c.wait(1)
                c.sync()
                systemctl("reload", "readyd.service")
                until(lambda: show("StatusText") ==
                      "1 connection, 1 watch, 1 waiting, 0 timers", "the counts")

    def reload_by(self, ask):
        """Each is seen as a change of state, and takes effect; a bad file changes nothing."""
        self.start()
        for level, text in ((True, "log-level: debug\n"), (True, "log-level: nonsense\n"),
                            (False, "")):
            configure(text)
            before = show("StateChangeTimestampMonotonic")
            mark = f"mark {time.monotonic_ns()}"
            run("systemd-cat", "-t", "readyd", "echo", mark)
            ask()
            until(lambda: show("StateChangeTimestampMonotonic") != before, "a change of state")
            until(lambda: show("ActiveState") == "active", "active again")
            until(lambda: in_journal("reload failed" if "nonsense" in text else "read anew", mark),
                  "a line about the reload")
            with Client(SOCKET):
                pass
            # a second one: when it is let in, what the first had to say was said
            with Client(SOCKET):
                self.assertEqual(in_journal(f"pid {os.getpid()} connected", mark), level, text)
        self.assertTrue(in_journal(f"{CONFIG}:1:12: "))
        self.assertEqual(show("NRestarts"), "0")

    def test_systemctl_reload(self):
        self.reload_by(lambda: systemctl("reload", "readyd.service"))

    def test_a_bare_sighup(self):
        self.reload_by(lambda: os.kill(keeper(), signal.SIGHUP))


class Death(System):
    """A client goes on all the while, and every byte comes, in order."""

    def setUp(self):
        super().setUp()
        self.start()
        self.programs = [Program("soak", mode) for mode in ("wait", "stream", "threads")]
        self.addCleanup(lambda: [p.__exit__() for p in self.programs])
        self.keeper, self.loop = keeper(), loop()

    def finish(self, service_died, restarts=None):
        until(answers, "an answer")
        until(lambda: int(status("Connections")) > len(self.programs), "all are back")
        for program in self.programs:
            said = program.end()
            resumes = int(said.rpartition(", ")[2].split()[0])
            self.assertGreater(resumes, 0, said)
        if restarts is None:
            restarts = 1 if service_died else 0
        self.assertEqual(show("NRestarts"), str(restarts))
        self.assertEqual(keeper() != self.keeper, service_died)
        self.assertEqual(show("ActiveState"), "active")

    def replaced(self):
        until(lambda: loop() not in (0, self.loop), "another loop")

    def test_sigkill_of_the_loop(self):
        os.kill(self.loop, signal.SIGKILL)
        self.replaced()
        self.finish(False)

    def test_sigstop_of_the_loop(self):
        """K-085"""
        os.kill(self.loop, signal.SIGSTOP)
        self.replaced()
        self.finish(False)

    def test_sigkill_of_the_keeper(self):
        os.kill(self.keeper, signal.SIGKILL)
        until(lambda: keeper() not in (0, self.keeper), "another keeper")
        self.finish(True)

    def test_sigkill_of_all(self):
        systemctl("kill", "-s", "KILL", "readyd.service")
        until(lambda: keeper() not in (0, self.keeper), "another keeper")
        self.finish(True)

    def test_restart_ten_times_under_load(self):
        for _ in range(10):
            systemctl("restart", "readyd.service")
        self.finish(True, restarts=0)

    def test_an_upgrade_in_place(self):
        """The main process runs the new program: it keeps its pid, systemd's socket, and whom it
        tells its state."""
        self.assertEqual(run(READYCTL, "upgrade").returncode, 0)
        self.replaced()
        self.finish(False)
        self.assertTrue(os.path.exists(SOCKET))
        before = show("StateChangeTimestampMonotonic")
        systemctl("reload", "readyd.service")
        until(lambda: show("StateChangeTimestampMonotonic") != before, "a change of state")
        until(lambda: show("ActiveState") == "active", "active again")

    def test_a_stopped_keeper_is_replaced_by_the_watchdog(self):
        drop_in("[Service]\nWatchdogSec=4\n")
        systemctl("restart", "readyd.service")
        self.keeper = keeper()
        time.sleep(5)  # it lives: signs were due
        self.assertEqual((keeper(), show("NRestarts")), (self.keeper, "0"))
        self.assertRegex(show("StatusText"), r"^3 connections, [1-9]\d* watch(es)?, ")
        os.kill(self.keeper, signal.SIGSTOP)
        until(lambda: keeper() not in (0, self.keeper), "another keeper")
        self.finish(True)

    def test_out_of_memory_in_the_loop(self):
        """K-083: the kernel's own choice, within a group that has no memory left."""
        self.assertEqual(show("OOMPolicy"), "continue")
        group = MemoryGroup()
        if group.reason:
            self.skipTest(group.reason)
        with group:
            group.starve(self.loop)
            self.replaced()
            self.assertGreater(group.kills(), 0)
        until(lambda: in_journal(f"the loop (pid {self.loop}) died by SIGKILL"), "the death")
        self.finish(False)


class MemoryGroup:
    """A memory cgroup of the first version, which can be had beside the second one's tree."""

    def __init__(self):
        self.tree, self.reason = "/tmp/memory", None
        os.makedirs(self.tree, exist_ok=True)
        if run("mount", "-t", "cgroup", "-o", "memory", "memory", self.tree,
               check=False).returncode != 0:
            self.reason = "no memory controller of cgroup v1 can be mounted here, and no process " \
                          "of a systemd unit be moved out of the unit's own cgroup"
            return
        self.path = f"{self.tree}/readyd-systemd-{os.getpid()}-{time.monotonic_ns()}"
        try:
            os.mkdir(self.path)
        except OSError as e:
            self.reason = f"no memory cgroup can be made: {e.strerror}"

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w", encoding="ascii") as f:
            f.write(str(value))

    def starve(self, pid):
        """What the process has stays with its former group; what it takes from now on is too
        much."""
        self.write("memory.limit_in_bytes", 64 * 1024)
        self.write("cgroup.procs", pid)
        clients = []
        parent = keeper()
        while pid in children(parent):
            try:
                clients.append(Client(SOCKET))
                clients[-1].socket.settimeout(1)
                clients[-1].sync()
            except (OSError, Ended):
                pass  # it is gone, or about to be
            assert len(clients) < 5000, "5000 connections take no memory?"
        for c in clients:
            c.close()

    def kills(self):
        with open(f"{self.path}/memory.oom_control", encoding="ascii") as f:
            return int(re.search(r"^oom_kill (\d+)$", f.read(), re.MULTILINE)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        until(self.removed, "the memory cgroup is removed")
        run("umount", self.tree)

    def removed(self):
        try:
            os.rmdir(self.path)
            return True
        except OSError:
            return False


class Store(System):
    """Parks are in systemd's fd store while there is no daemon, and at no other time."""

    def setUp(self):
        super().setUp()
        self.peers = {}
        self.addCleanup(lambda: [peer.close() for _, peer in self.peers.values()])
        # the unit asks for more descriptors than some machines let PID 1 give
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self.most = min(10000, limit // 2)
        configure(f"limits:\n  parks: {self.most}\n")
        self.start()

    def client(self):
        return wire.Client(SOCKET, timeout=PATIENCE)

    def park(self, n, flags=0):
        with self.client() as c:
            while n > 0:
                some, n = min(n, 100), n - 100
                pairs = [socket.socketpair() for _ in range(some)]
                secrets = [os.urandom(16) for _ in range(some)]
                outcomes = c.call(*(wire.park(a, secret, note=b"a note of park", flags=flags)
                                    for (a, _), secret in zip(pairs, secrets)), wire.sync())
                for outcome, secret, (a, b) in zip(outcomes, secrets, pairs):
                    self.peers[outcome.check().value] = secret, b
                    a.close()

    def numbers(self):
        with self.client() as c:
            return {item.row.park for item in c.parks()}

    def take(self, number):
        """It is as it was, and ends with who took it."""
        secret, peer = self.peers.pop(number)
        with self.client() as c, peer:
            outcome = c.call(wire.take(number=number)).check()
            handout = c.handout(outcome.answer.serial)
            self.assertEqual(handout.parts["note"], b"a note of park")
            c.call(wire.acknowledge(secret)).check()
            peer.settimeout(PATIENCE)
            peer.send(b"x")
            self.assertEqual(os.read(handout.fds[0], 10), b"x")
            os.close(handout.fds[0])
            self.assertEqual(peer.recv(1), b"")

    def all_open(self):
        poll = select.poll()
        for _, peer in self.peers.values():
            poll.register(peer, select.POLLIN)
        return poll.poll(0) == []

    def test_restart_with_many_parks_under_load(self):
        """S-115, K-013"""
        with Program("soak", "wait") as program:
            self.park(self.most)
            for turn in range(3):
                begin = time.monotonic()
                systemctl("restart", "readyd.service")
                self.assertEqual(self.numbers(), set(self.peers), turn)
                print(f"{len(self.peers)} parks: serves again after "
                      f"{time.monotonic() - begin:.2f} s")
                self.assertTrue(self.all_open())
                self.assertEqual(show("NFileDescriptorStore"), "0")
                self.take(min(self.peers))
                self.take(max(self.peers))
            program.end()
        entries = (self.most - 4 + 252) // 253
        self.assertTrue(in_journal(f"systemd keeps {self.most - 4} parks, in {entries} entries"))

    def test_the_keeper_is_killed(self):
        self.park(300)
        old = keeper()
        os.kill(old, signal.SIGKILL)
        until(lambda: keeper() not in (0, old), "another keeper")
        until(lambda: self.numbers() == set(self.peers), "all parks are back")
        self.assertTrue(self.all_open())
        self.take(min(self.peers))
        self.assertEqual(show("NFileDescriptorStore"), "0")
        self.assertIn("uid 0: 300 parks come back from systemd's store",
                      [line["MESSAGE"] for line in journal("READYD_UID=0")])

    def test_while_it_is_down_and_with_a_wrong_file(self):
        self.park(300)
        drop_in("[Service]\nExecStartPre=/bin/sh -c 'until [ -e /run/readyd/go ]; do sleep 0.05; "
                "done'\n")
        systemctl("restart", "--no-block", "readyd.service")
        until(lambda: show("NFileDescriptorStore") == "2", "the entries")
        self.assertTrue(self.all_open())
        configure("nonsense: 1\n")
        try:
            with open("/run/readyd/go", "w", encoding="ascii"):
                pass
            self.assertEqual(self.numbers(), set(self.peers))
        finally:
            remove("/run/readyd/go")
        self.assertTrue(in_journal("it starts with the default settings"))
        self.assertEqual(show("NFileDescriptorStore"), "0")

    def test_durable_parks_and_all_are_killed(self):
        """S-115. They come back; what is not durable, or was taken, does not, and has no copy."""
        self.park(10)
        lost, self.peers = self.peers, {}
        self.park(300, wire.ParkFlag.DURABLE)
        self.assertEqual(show("NFileDescriptorStore"), "2")
        for _ in range(2):
            self.take(min(self.peers))
            self.take(max(self.peers))
            old = keeper()
            for number in ("STOP", "KILL"):  # so that no holder sees that the others are dead
                systemctl("kill", "-s", number, "readyd.service")
            until(lambda old=old: keeper() not in (0, old), "another keeper")
            self.assertEqual(self.numbers(), set(self.peers))
            self.assertTrue(self.all_open())
            with self.client() as c:
                c.call(wire.claim(*(secret for secret, _ in self.peers.values()))).check()
        for _, peer in lost.values():
            with peer:
                peer.settimeout(PATIENCE)
                self.assertEqual(peer.recv(1), b"")
        for number in sorted(self.peers):
            self.take(number)
        self.assertEqual(show("NFileDescriptorStore"), "0")
        self.assertFalse(in_journal("systemd may still have copies"))

    def test_what_a_durable_park_takes(self):
        """A figure; and that PID 1 answers as readyd asks it to."""
        with self.client() as c:
            for n in (1, 8, 253):
                times = []
                for _ in range(10):
                    pairs = [socket.socketpair() for _ in range(n)]
                    begin = time.monotonic()
                    found = c.call(*(wire.park(a, os.urandom(16), flags=wire.ParkFlag.DURABLE)
                                     for a, _ in pairs), wire.sync())
                    times.append(time.monotonic() - begin)
                    numbers = [outcome.check().value for outcome in found[:n]]
                    c.call(*(wire.drop(number=number) for number in numbers), wire.sync())
                    for a, b in pairs:
                        a.close()
                        b.settimeout(PATIENCE)
                        self.assertEqual(b.recv(1), b"")
                        b.close()
                print(f"durable PARK, {n} at once: median {sorted(times)[5] * 1e3:.2f} ms, "
                      f"longest {max(times) * 1e3:.2f} ms")
        self.assertEqual(show("NFileDescriptorStore"), "0")

    def test_stop_gives_them_up(self):
        self.park(10)
        systemctl("stop", "readyd.service")
        for _, peer in self.peers.values():
            peer.settimeout(PATIENCE)
            self.assertEqual(peer.recv(1), b"")

    def test_nothing_is_wrong_with_a_stop(self):
        self.park(10)
        for number in list(self.peers):
            self.take(number)
        systemctl("stop", "readyd.service")
        self.assertTrue(in_journal("ending on SIGTERM"))
        self.assertEqual([line["MESSAGE"] for level in "34"
                          for line in journal("SYSLOG_IDENTIFIER=readyd", f"PRIORITY={level}")], [])

    def test_a_store_that_is_too_small_is_told(self):
        """K-006"""
        drop_in("[Service]\nFileDescriptorStoreMax=1\nEnvironment=READYD_STORE_MAX=1\n")
        systemctl("restart", "readyd.service")
        self.park(300)
        systemctl("restart", "readyd.service")
        self.assertEqual(len(self.numbers()), 253)
        self.assertTrue(in_journal("47 of its parks are lost, systemd's store being full"))

    def test_the_unit_has_room(self):
        """K-007, K-008"""
        with open(f"{UNITS}/readyd.service", encoding="ascii") as f:
            values = dict(line.strip().split("=", 1) for line in f if "=" in line)
        most = int(values["FileDescriptorStoreMax"])
        self.assertEqual(values["Environment"], f"READYD_STORE_MAX={most}")
        self.assertEqual(show("FileDescriptorStoreMax"), str(most))
        self.assertGreater(int(values["LimitNOFILE"]), 2 * 253 * most)


class Journal(System):
    def test_lines_are_found_by_their_fields(self):
        configure("log-level: info\n")
        self.start()
        with Client(SOCKET) as c, open("/etc/passwd", "rb") as f:
            session, pid = c.session, os.getpid()
            record = struct.pack("=QIIiBBH", 7, 4711, 1, f.fileno(), 1, 0, 0)
            _, failures, _ = c.ask(WATCH, record, fds=[f.fileno()])
            self.assertEqual(len(failures), 1)
            c.send(0x7777)
            with self.assertRaises(Ended):
                c.sync()
        lines = until(lambda: journal("READYD_UID=0", f"READYD_PID={pid}", "READYD_WATCH=4711"),
                      "the line about the watch")
        self.assertIn("watch 4711 is refused", lines[-1]["MESSAGE"])
        self.assertEqual((lines[-1]["PRIORITY"], lines[-1]["_PID"]), ("6", str(loop())))
        lines = until(lambda: journal(f"READYD_SESSION={session}", f"READYD_PID={pid}",
                                      "PRIORITY=4"), "the line about the session")
        self.assertIn("the connection is closed", lines[-1]["MESSAGE"])
        self.assertEqual(lines[-1]["_SYSTEMD_UNIT"], "readyd.service")
        self.assertEqual(journal("READYD_UID=1"), [])

    def test_events_have_the_ids_of_the_manual(self):
        with open(os.path.join(HERE, "readyd.8"), encoding="ascii") as f:
            ids = re.findall(r"^\.It Li ([0-9a-f]{32})$", f.read(), re.MULTILINE)
        self.assertEqual(len(ids), 7)
        self.start()
        old = loop()
        os.kill(old, signal.SIGKILL)
        until(lambda: loop() not in (0, old), "another loop")
        with Client(SOCKET, hello=False) as c:
            c.send(0x7777)
            with self.assertRaises(Ended):
                while True:
                    c.next_record()
        for n, text in ((0, "serves /run/readyd/socket"), (1, f"(pid {old}) died by SIGKILL"),
                        (3, "a new loop"), (6, "the connection is closed")):
            lines = until(lambda n=n: journal(f"MESSAGE_ID={ids[n]}", "_SYSTEMD_UNIT=readyd.service"),
                          text)
            self.assertIn(text, lines[-1]["MESSAGE"])

    def test_a_stopped_journal_holds_up_nobody(self):
        configure("log-level: debug\n")
        self.start()
        journald = int(show("MainPID", "systemd-journald.service"))
        os.kill(journald, signal.SIGSTOP)
        try:
            for _ in range(20000):  # two lines each; its sockets take 8 MiB
                with Client(SOCKET):
                    pass
        finally:
            os.kill(journald, signal.SIGCONT)

        def gap_is_told():
            with Client(SOCKET):  # a line more, behind the gap
                pass
            return any("lines were lost here" in line["MESSAGE"]
                       for line in journal("SYSLOG_IDENTIFIER=readyd", "PRIORITY=4"))
        until(gap_is_told, "the gap")


class Sandbox(System):
    def test_both_processes_are_confined(self):
        self.start()
        uid = int(run("id", "-u", "readyd").stdout)
        self.assertNotEqual(uid, 0)
        for pid in (keeper(), loop()):
            with open(f"/proc/{pid}/status", encoding="ascii") as f:
                rows = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
            self.assertEqual(rows["Uid"].split(), [str(uid)] * 4)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(rows[name], 16), 0, name)
            self.assertEqual((rows["NoNewPrivs"], rows["Seccomp"]), ("1", "2"))
            with open(f"/proc/{pid}/limits", encoding="ascii") as f:
                self.assertRegex(f.read(), r"Max core file size +0 +0")
        scores = []
        for pid in (keeper(), loop()):
            with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as f:
                scores.append(int(f.read()))
        # where this machine does not let PID 1 lower a score, it stays what it was
        self.assertIn(scores[0], (-900, 0))
        self.assertGreaterEqual(scores[1], scores[0])

    def test_what_it_has_no_business_with_is_refused(self):
        """probe.py runs in the daemon's place. The same tries succeed without the sandbox, so they
        do try something."""
        probe = os.path.join(HERE, "probe.py")
        drop_in(f"[Service]\nExecStart=\nExecStart=/usr/bin/python3 {probe}\nType=exec\nRestart=no\n")
        os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
        systemctl("start", "readyd.service")

        def lines():
            return [line["MESSAGE"] for line in journal("_COMM=python3", "SYSLOG_IDENTIFIER=python3")]
        until(lambda: "probe done" in lines(), "the end of the probe")
        said = lines()
        self.assertEqual([line for line in said if line.startswith("ALLOWED")], [])
        self.assertGreater(len(said), 15)
        outside = run("python3", probe).stdout.splitlines()
        allowed = [line for line in outside if line.startswith("ALLOWED")]
        self.assertGreater(len(allowed), len(outside) // 2, outside)
        for path in ("/etc/readyd-was-here", "/var/readyd-was-here", "/run/readyd/was-here", CONFIG):
            remove(path)

    def test_the_score(self):
        said = run("systemd-analyze", "security", "--no-pager", "readyd.service").stdout
        score = float(re.search(r"exposure level for readyd.service: ([0-9.]+)", said)[1])
        self.assertLessEqual(score, SCORE, said)
        with open(os.path.join(HERE, "readyd.8"), encoding="ascii") as f:
            manual = f.read()
        self.assertTrue(f"exposure level {score}" in manual, f"the manual does not say {score}")
        for line in said.splitlines():
            if line.startswith("\u2717"):
                name = line.split()[1].split("=")[0]
                self.assertTrue(f"Cm {name}" in manual, f"the manual does not say why {name} is "
                                                        "left open")

    def test_systemd_finds_nothing_wrong_with_the_units(self):
        done = run("systemd-analyze", "verify", "--man=no", f"{UNITS}/readyd.service",
                   f"{UNITS}/readyd.socket", check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
