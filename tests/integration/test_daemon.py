# SPDX-License-Identifier: MIT
"""The daemon as an operator meets it: start, configuration, reload, signals, quotas, access."""

import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import (ACCESS, ANSWER, ASK, QUOTA, READ, READYD, SOON, SYNC, TIMER_SET, WATCH, Client,
                    Daemon, Ended)

GET_STATUS, STATUS = 0x30, 0xb0


def run(*arguments, **options):
    return subprocess.run([READYD, *arguments], capture_output=True, text=True, timeout=30,
                          check=False, **options)


def as_nobody():
    os.setgroups([])
    os.setgid(65533)
    os.setuid(65533)


class Start(unittest.TestCase):
    def test_ready_then_sigterm_is_a_clean_end(self):
        with Daemon() as d:
            self.assertIn("READY=1\n", d.said)
            self.assertTrue(stat.S_ISSOCK(os.stat(d.socket).st_mode))
            with Client(d.socket) as c:
                c.sync()
                self.assertEqual(d.stop(), 0)
                kind, _, body = c.receive()
                self.assertEqual((kind, body[0]), (0x83, 25))  # ERROR, SHUTDOWN
                with self.assertRaises(Ended):
                    c.receive()
            self.assertFalse(os.path.exists(d.socket))

    def test_sigint_ends_it_too(self):
        with Daemon() as d:
            self.assertEqual(d.stop(signal.SIGINT), 0)

    def test_socket_mode_is_not_for_all(self):
        with Daemon() as d:
            self.assertEqual(os.stat(d.socket).st_mode & 0o007, 0)

    def test_stale_socket_is_replaced(self):
        with Daemon() as d:
            d.process.kill()
            d.process.wait()
            self.assertTrue(os.path.exists(d.socket))
            result = subprocess.Popen([READYD, "--config", d.config, "--socket", d.socket],
                                      stderr=subprocess.PIPE, text=True)
            try:
                self.assertIn("serves", result.stderr.readline())
                with Client(d.socket) as c:
                    c.sync()
            finally:
                result.terminate()
                result.wait(SOON)
                result.stderr.close()

    def test_second_daemon_names_the_first(self):
        with Daemon() as d:
            second = run("--config", d.config, "--socket", d.socket)
            self.assertEqual(second.returncode, 1)
            self.assertIn(f"process {d.process.pid} serves {d.socket}", second.stderr)
            with Client(d.socket) as c:
                c.sync()

    def test_file_in_the_way_is_left_alone(self):
        with Daemon() as d:
            path = os.path.join(d.folder, "precious")
            with open(path, "w", encoding="ascii") as f:
                f.write("keep")
            result = run("--config", d.config, "--socket", path)
            self.assertEqual(result.returncode, 1)
            self.assertIn("in the way", result.stderr)
            with open(path, encoding="ascii") as f:
                self.assertEqual(f.read(), "keep")

    def test_start_without_standard_fds(self):
        """Received fds must not land on 0 to 2."""
        def close_all():
            os.closerange(0, 2)

        with Daemon(preexec=close_all) as d, Client(d.socket) as c:
            a, b = socket.socketpair()
            with a, b:
                self.assertEqual(c.watch(1, a.fileno()), 0)
                c.wait(1)
                b.send(b"x")
                self.assertEqual(c.next_record()[0], 1)

    def test_usage(self):
        self.assertEqual(run("--nonsense").returncode, 2)
        self.assertEqual(run("--private", "--socket", "/x").returncode, 2)
        self.assertEqual(run("--help").returncode, 0)
        self.assertIn("protocol 1 to 1", run("--version").stdout)


class Configuration(unittest.TestCase):
    def test_errors_are_all_told_with_line_and_column(self):
        with Daemon() as d:
            d.write_config("backend: kqueue\nlimits:\n  watches: many\n  wotches: 3\nsocket: 5 5\n")
            result = run("--check", d.config)
            self.assertEqual(result.returncode, 78)
            for place in ("1:10", "3:12", "4:3"):
                self.assertIn(f"{d.config}:{place}: ", result.stderr)
            self.assertEqual(run("--config", d.config, "--socket", d.socket + "2").returncode, 78)

    def test_missing_file_that_was_named_is_an_error(self):
        result = run("--config", "/nonexistent/readyd.yaml", "--socket", "/tmp/unused")
        self.assertEqual(result.returncode, 78)
        self.assertIn("/nonexistent/readyd.yaml", result.stderr)

    def test_check_of_a_good_file(self):
        with Daemon() as d:
            d.write_config("log-level: info\n")
            self.assertEqual(run("--check", d.config).returncode, 0)

    def test_reload_takes_new_limits_and_a_bad_file_keeps_them(self):
        with Daemon("limits: {watches: 1}\n") as d, Client(d.socket) as c:
            a, b = socket.socketpair()
            with a, b:
                self.assertEqual(c.watch(1, a.fileno()), 0)
                self.assertEqual(c.watch(2, b.fileno()), QUOTA)
                d.write_config("limits: {watches: 2}\n")
                d.process.send_signal(signal.SIGHUP)
                d.wait_for_log("configuration read anew")
                self.assertEqual(c.watch(2, b.fileno()), 0)
                d.write_config("limits: {watches: no}\n")
                d.process.send_signal(signal.SIGHUP)
                d.wait_for_log("reload failed")
                self.assertIn(f"{d.config}:1:19", d.log())
                self.assertEqual(c.watch(3, b.fileno()), QUOTA)
                c.sync()

    def test_reload_of_the_log_level(self):
        with Daemon("log-level: error\n", level=None) as d:
            with Client(d.socket) as c:
                c.sync()
            self.assertEqual(d.log(), "")
            d.write_config("log-level: debug\n")
            d.process.send_signal(signal.SIGHUP)
            d.wait_for_log("configuration read anew")
            with Client(d.socket) as c:
                c.sync()
            d.wait_for_log("connected")

    def test_reload_says_what_needs_a_restart(self):
        with Daemon() as d:
            d.write_config("backend: poll\n")
            d.process.send_signal(signal.SIGHUP)
            d.wait_for_log("`backend` has changed")

    def test_received_fds_still_land_in_the_zone_after_a_reload(self):
        with Daemon() as d, Client(d.socket) as c:
            for round_ in range(3):
                d.write_config(f"limits: {{watches: {100 + round_}}}\n")
                d.process.send_signal(signal.SIGHUP)
                end = time.monotonic() + SOON
                while d.log().count("configuration read anew") <= round_:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.01)
                a, b = socket.socketpair()
                with a, b:
                    self.assertEqual(c.watch(round_ + 1, a.fileno()), 0)
            c.sync()
            low = [int(n) for n in os.listdir(f"/proc/{d.loop()}/fd")]
            self.assertEqual([n for n in low if 3 <= n <= 255], [])


class Quotas(unittest.TestCase):
    def test_connections(self):
        with Daemon("limits: {connections: 2}\n") as d:
            first, second = Client(d.socket), Client(d.socket)
            with self.assertRaises(Ended) as refusal, Client(d.socket):
                pass
            self.assertIn(b"connections", refusal.exception.args[1])
            first.close()
            end = time.monotonic() + SOON
            while True:
                try:
                    Client(d.socket).close()
                    break
                except Ended:
                    self.assertLess(time.monotonic(), end)
            second.sync()
            second.close()

    def test_timers_are_given_back(self):
        with Daemon("limits: {timers: 3}\n") as d, Client(d.socket) as c:
            def timer(number, when):
                return struct.pack("=QqqIIII", number, when, 0, number, 1, 0, 0)

            far = time.monotonic_ns() + 10**12
            error, failures, _ = c.ask(TIMER_SET, *[timer(n, far) for n in range(1, 6)])
            self.assertEqual((error, failures), (QUOTA, [QUOTA, QUOTA]))
            # a timer that fired gives its place back
            self.assertEqual(c.ask(TIMER_SET, timer(1, 0))[0], 0)
            self.assertEqual(c.next_record()[0], 2)
            self.assertEqual(c.ask(TIMER_SET, timer(9, far))[0], 0)

    def test_fds_stay_bounded_when_clients_come_and_go(self):
        with Daemon() as d:
            with Client(d.socket) as c:
                c.sync()
                before = d.fds()
            for _ in range(50):
                with Client(d.socket) as c:
                    a, b = socket.socketpair()
                    with a, b:
                        c.watch(1, a.fileno())
            with Client(d.socket) as c:
                end = time.monotonic() + SOON
                while d.fds() != before:
                    self.assertLess(time.monotonic(), end, f"{d.fds()} fds, {before} before")
                    c.sync()

    def test_without_fds_connections_are_refused_and_nothing_spins(self):
        def few():
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (340, 340))

        with Daemon(preexec=few) as d:
            clients = []
            try:
                while True:
                    clients.append(Client(d.socket))
                    self.assertLess(len(clients), 100)
            except Ended:
                pass
            self.assertGreater(len(clients), 2)
            before = cpu(d.loop())
            time.sleep(1)
            self.assertLess(cpu(d.loop()) - before, 0.2)
            for c in clients:
                c.sync()
            self.assertLess(d.log().count("\n"), 1000)
            for c in clients:
                c.close()


def cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@unittest.skipIf(os.geteuid() != 0, "needs root to become other users")
class Access(unittest.TestCase):
    def connect_as_nobody(self, d):
        """The exit status of a child of another uid: 0 served, 1 refused with ACCESS, 2 else."""
        os.chmod(d.folder, 0o755)
        os.chmod(d.socket, 0o666)
        pid = os.fork()
        if pid == 0:
            try:
                as_nobody()
                with Client(d.socket) as c:
                    c.sync()
                os._exit(0)
            except Ended as e:
                os._exit(1 if struct.unpack_from("=I", e.args[1])[0] == ACCESS else 2)
            except BaseException:
                os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_strangers_are_refused_in_this_version(self):
        with Daemon() as d:
            self.assertEqual(self.connect_as_nobody(d), 1)
            self.assertIn("trusted", d.log())

    def test_trusted_uid_is_let_in(self):
        with Daemon("trusted: [65533]\n") as d:
            self.assertEqual(self.connect_as_nobody(d), 0)

    def test_a_reload_shuts_out_whoever_does_not_read_its_answers(self):
        with Daemon("trusted: [65533]\n") as d:
            os.chmod(d.folder, 0o755)
            os.chmod(d.socket, 0o666)
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                as_nobody()
                client = Client(d.socket)
                client.socket.settimeout(1)  # the daemon reads no more: its answers are unread
                try:
                    while True:
                        client.send(SYNC, flags=ASK)
                except TimeoutError:
                    theirs.send(b"full")
                while True:
                    signal.pause()
            try:
                ours.settimeout(SOON)
                self.assertEqual(ours.recv(4), b"full")
                loop = d.loop()
                d.write_config("")
                d.process.send_signal(signal.SIGHUP)
                d.wait_for_log("configuration read anew")
                with Client(d.socket) as c:
                    c.sync()
                self.assertEqual(d.loop(), loop)
                self.assertNotIn("SIGABRT", d.log())
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                ours.close()
                theirs.close()

    def test_connect_list_rules(self):
        with Daemon("trusted: [65533]\nconnect: [65000]\n") as d:
            self.assertEqual(self.connect_as_nobody(d), 1)

    def test_private_daemon_is_for_its_own_uid(self):
        with Daemon(private=True) as d:
            pid = os.fork()
            if pid == 0:
                try:
                    as_nobody()
                    Client(d.socket)
                    os._exit(0)
                except Ended:
                    os._exit(1)
                except BaseException:
                    os._exit(3)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1)


class Hello(unittest.TestCase):
    def test_silent_connection_is_ended(self):
        with Daemon("hello-timeout: 200ms\n") as d, Client(d.socket, hello=False) as c:
            with Client(d.socket) as other:
                kind, _, body = c.receive()
                self.assertEqual(kind, 0x83)
                self.assertIn(b"HELLO", body)
                with self.assertRaises(Ended):
                    c.receive()
                other.sync()


class Cost(unittest.TestCase):
    @unittest.skipUnless(shutil.which("strace"), "needs strace")
    def test_an_eventfd_is_not_compared_with_every_session(self):
        """It took a call a session: a thousand clients that came back had everybody wait 1 s."""
        with Daemon() as d, Client(d.socket) as c:
            before = self.calls(d, c, 1)
            crowd = [Client(d.socket) for _ in range(100)]
            try:
                self.assertLess(self.calls(d, c, 2), before + 50)
            finally:
                for other in crowd:
                    other.close()

    def calls(self, d, c, number):
        """How many the loop makes for one watch."""
        fd = os.eventfd(0)
        out = os.path.join(d.folder, "calls")
        trace = subprocess.Popen(["strace", "-p", str(d.loop()), "-o", out],
                                 stderr=subprocess.PIPE, text=True)
        try:
            self.assertIn("attached", trace.stderr.readline())
            self.assertEqual(c.watch(number, fd, READ), 0)
        finally:
            trace.send_signal(signal.SIGINT)
            trace.wait(SOON)
            trace.stderr.close()
            os.close(fd)
        with open(out, encoding="utf-8") as f:
            lines = list(f)
        self.assertTrue(any("EPOLL_CTL_ADD" in line for line in lines))
        return len(lines)


class Fairness(unittest.TestCase):
    def test_who_works_does_not_wait_for_those_who_register_much(self):
        """Their requests lie there, and then its own: it is served before all of them are."""
        fds = [os.eventfd(0) for _ in range(253)]
        records = [struct.pack("=QIIiBBH", n, n, 1, fd, READ, 0, 0)
                   for n, fd in enumerate(fds, 1)]
        with Daemon(arguments=["--no-keeper"]) as d, Client(d.socket) as c:
            crowd = [Client(d.socket) for _ in range(40)]
            try:
                for _ in range(5):  # it is known as one that works
                    c.sync()
                d.process.send_signal(signal.SIGSTOP)
                os.waitpid(d.process.pid, os.WUNTRACED)
                for other in crowd:
                    other.send(WATCH, *records, flags=ASK, fds=fds)
                c.send(GET_STATUS)
                d.process.send_signal(signal.SIGCONT)
                watches, turns = self.status(c)
                self.assertLess(watches, 1000)
                for other in crowd:
                    self.assertEqual(other.next_record()[0], ANSWER)
                c.send(GET_STATUS)
                after = self.status(c)
                self.assertEqual(after[0], 40 * 253)
                self.assertGreater(after[1] - turns, 10)
            finally:
                d.process.send_signal(signal.SIGCONT)
                for other in crowd:
                    other.close()
                for fd in fds:
                    os.close(fd)

    def status(self, c):
        kind, _, body = c.receive()
        self.assertEqual(kind, STATUS)
        return struct.unpack_from("=Q", body, 32)[0], struct.unpack_from("=Q", body, 88)[0]


class Idle(unittest.TestCase):
    @unittest.skipUnless(shutil.which("strace"), "needs strace")
    def test_idle_daemon_makes_no_system_call(self):
        with Daemon() as d, Client(d.socket) as c:
            pairs = [socket.socketpair() for _ in range(1000)]
            for i, (a, _) in enumerate(pairs):
                self.assertEqual(c.watch(i + 1, a.fileno(), READ), 0)
                c.wait(i + 1)
            c.sync()
            out = os.path.join(d.folder, "calls")
            both = {str(d.process.pid), str(d.loop())}
            trace = subprocess.Popen(["strace", "-f", "-ttt", "-p", ",".join(both), "-o", out],
                                     stderr=subprocess.PIPE, text=True)
            try:
                for _ in both:
                    self.assertIn("attached", trace.stderr.readline())
                # being traced wakes both; the keeper looks once more before it sleeps again
                time.sleep(2)
                begin = time.time()
                time.sleep(5)
                end = time.time()
            finally:
                trace.send_signal(signal.SIGINT)
                trace.wait(SOON)
                trace.stderr.close()
            with open(out, encoding="utf-8") as f:
                calls = list(f)
            self.assertEqual({line.split()[0] for line in calls}, both)  # both were traced
            self.assertEqual([line for line in calls if begin < float(line.split()[1]) < end], [])
            c.sync()
            for a, b in pairs:
                a.close()
                b.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
