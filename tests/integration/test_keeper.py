# SPDX-License-Identifier: MIT
"""The loop dies, is stopped or gets stuck; the keeper makes another. Clients only have to come back.

READYD_CRASHING names a readyd that was built with -Dmutant=CRASH_ON_SYNC, in which a SYNC with the
serial 0xdeadNN00 ends the loop by signal NN, and 0xdeadff00 makes it spin. Without it the tests that
need one are skipped.
"""

import ctypes
import errno
import json
import os
import select
import signal
import socket
import stat
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon
from daemon import (ACCESS, ASK, QUOTA, SOON, SYNC, Client, Daemon, Ended, children, readyctl)

FREEZER = "/sys/fs/cgroup/freezer"
CRASHING = os.environ.get("READYD_CRASHING")
needs_crashing = unittest.skipUnless(CRASHING, "READYD_CRASHING is not set: needs a readyd that "
                                               "was built with -Dmutant=CRASH_ON_SYNC")


def until(condition, what, seconds=SOON):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_gone(pid):
    return state(pid) in "ZX"


def next_loop(d, old, seconds=SOON):
    """The pid of the loop that comes after `old`."""
    def other():
        pids = [pid for pid in children(d.process.pid) if pid != old and not is_gone(pid)]
        return pids[0] if pids else 0
    return until(other, "another loop", seconds)


def kill_loop(d, number=signal.SIGKILL):
    old = d.loop()
    os.kill(old, number)
    return old


def connect_again(d):
    """What a client does whose connection ended. Only a loop's death in the middle may end this
    one, too; that nobody listens is never the case."""
    end = time.monotonic() + SOON
    while True:
        try:
            return Client(d.socket)
        except (Ended, ConnectionResetError):
            assert time.monotonic() < end


def rmdir(path):
    try:
        os.rmdir(path)
        return True
    except OSError:  # processes that have ended leave a group a moment later
        return False


def status(d):
    return json.loads(readyctl(d, "--json", "status").stdout)


class Death(unittest.TestCase):
    def test_fifty_deaths_with_clients_that_reconnect(self):
        """Each sees the end of its connection and has a new one; connecting never fails."""
        stop, errors, counts = threading.Event(), [], [0] * 4

        def client(d, n):
            try:
                while not stop.is_set():
                    with connect_again(d) as c:
                        counts[n] += 1
                        a, b = socket.socketpair()
                        with a, b:
                            try:
                                c.watch(1, a.fileno())
                                while not stop.is_set():
                                    c.sync()
                            except (Ended, ConnectionResetError):
                                pass
            except BaseException as e:  # FileNotFoundError, ConnectionRefusedError
                errors.append(repr(e))

        with Daemon() as d:
            threads = [threading.Thread(target=client, args=(d, n)) for n in range(4)]
            for t in threads:
                t.start()
            try:
                for _ in range(50):
                    before = list(counts)
                    old = kill_loop(d)
                    next_loop(d, old)
                    until(lambda: errors or all(c > b for c, b in zip(counts, before)),
                          "all clients again")
                    self.assertEqual(errors, [])
            finally:
                stop.set()
                for t in threads:
                    t.join(SOON)
            self.assertEqual(errors, [])
            self.assertEqual(d.stop(), 0)

    def test_status_tells_of_former_loops(self):
        with Daemon() as d:
            first = status(d)
            self.assertEqual((first["restarts"], first["left_behind"]), (0, 0))
            self.assertLessEqual(first["began"], first["started"])
            for n in (1, 2):
                next_loop(d, kill_loop(d))
                now = status(d)
                self.assertEqual((now["restarts"], now["left_behind"]), (n, 0))
                self.assertEqual(now["began"], first["began"])
                self.assertGreater(now["started"], first["started"])
                self.assertEqual(now["pid"], d.loop())

    @unittest.skipUnless(os.access(FREEZER, os.W_OK), f"needs root and {FREEZER}: what is frozen "
                                                      "there does not even die by SIGKILL")
    def test_a_loop_that_does_not_die_is_left_behind(self):
        group = tempfile.mkdtemp(prefix="readyd-test-", dir=FREEZER)

        def put(name, text):
            with open(os.path.join(group, name), "w", encoding="ascii") as f:
                f.write(text)

        with Daemon() as d:
            old = d.loop()
            put("cgroup.procs", str(old))
            try:
                # stopped, or it would count as idle; and before the keeper kills it, frozen
                for pid in (d.process.pid, old):
                    os.kill(pid, signal.SIGSTOP)
                    until(lambda: state(pid) == "T", "a process that is stopped")
                put("freezer.state", "FROZEN")
                os.kill(d.process.pid, signal.SIGCONT)
                d.wait_for_log("does not even die by SIGKILL: it is left behind (1 are now)")
                new = next_loop(d, old)
                now = status(d)
                self.assertEqual((now["pid"], now["restarts"], now["left_behind"]), (new, 1, 1))
                self.assertFalse(is_gone(old))
            finally:
                put("freezer.state", "THAWED")
                until(lambda: is_gone(old), "the end of the loop that was left behind")
                until(lambda: rmdir(group), "an empty group")
            d.wait_for_log(f"a loop that was left behind (pid {old}) has ended")
            next_loop(d, kill_loop(d))
            now = status(d)
            self.assertEqual((now["restarts"], now["left_behind"]), (2, 0))

    def test_time_to_serve_again(self):
        times = []
        with Daemon() as d:
            for _ in range(50):
                with Client(d.socket) as c:
                    c.sync()
                    start = time.monotonic()
                    os.kill(d.loop(), signal.SIGKILL)
                    with self.assertRaises(Ended):
                        c.receive()
                with connect_again(d):
                    times.append((time.monotonic() - start) * 1000)
        print(f"SIGKILL to WELCOME: median {statistics.median(times):.2f} ms, "
              f"longest {max(times):.2f} ms of {len(times)}", file=sys.stderr)
        self.assertLess(statistics.median(times), 100)

    def test_keeper_keeps_no_fd_of_dead_loops(self):
        with Daemon() as d:
            def fds():
                return len(os.listdir(f"/proc/{d.process.pid}/fd"))

            before = fds()
            for _ in range(100):
                next_loop(d, kill_loop(d))
                with connect_again(d) as c:
                    c.sync()
            self.assertEqual(fds(), before)
            with open(f"/proc/{d.process.pid}/maps", encoding="ascii") as f:
                shared = [line for line in f if "/dev/zero" in line]
            self.assertEqual(len(shared), 1)

    def test_loop_has_nothing_of_its_keeper_in_the_landing_zone(self):
        with Daemon() as d:
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                c.sync()
                low = [int(n) for n in os.listdir(f"/proc/{d.loop()}/fd")]
                self.assertEqual([n for n in low if 3 <= n <= 255], [])
                a, b = socket.socketpair()
                with a, b:
                    self.assertEqual(c.watch(1, a.fileno()), 0)

    def test_starter_sees_the_end_of_the_ready_fd(self):
        with Daemon() as d:  # its constructor reads to the end
            self.assertEqual(d.said.count("READY=1"), 1)

    def test_log_names_signal_and_successor(self):
        with Daemon() as d:
            old = kill_loop(d)
            new = next_loop(d, old)
            d.wait_for_log(f"the loop (pid {old}) died by SIGKILL")
            d.wait_for_log(f"a new loop (pid {new}) serves, ")
            self.assertIn(f"keeper pid {d.process.pid}, loop pid {old}", d.log())

    def test_status_names_the_loop(self):
        with Daemon() as d:
            c = Client(d.socket, hello=False)
            with c:
                c.send(daemon.HELLO, struct.pack("=IHH16sQ", 0x52454459, 1, 1, bytes(16), 0))
                _, _, body = c.receive()
                self.assertIn(struct.pack("=I", d.loop()), body)

    def test_private_daemon_keeps_its_address(self):
        with Daemon(private=True) as d:
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)

    def test_private_daemon_ends_with_its_starter(self):
        """Also when its loop died meanwhile: 10 s after the last connection."""
        starter = subprocess.Popen(["sleep", "1000"])
        os.environ["READYD_STARTER"] = str(starter.pid)
        try:
            with Daemon(private=True) as d:
                next_loop(d, kill_loop(d))
                starter.kill()
                starter.wait()
                self.assertEqual(d.process.wait(20), 0)
                self.assertRegex(d.log(), r"(?m)^readyd: debug: the loop .* ended with status 0$")
        finally:
            del os.environ["READYD_STARTER"]
            starter.kill()
            starter.wait()


class Mad(unittest.TestCase):
    def channel(self, d):
        """A copy of the loop's end of its channel to the keeper."""
        libc, pidfd = ctypes.CDLL(None, use_errno=True), os.pidfd_open(d.loop())
        self.addCleanup(os.close, pidfd)
        for number in os.listdir(f"/proc/{d.loop()}/fd"):
            fd = libc.syscall(438, pidfd, int(number), 0)  # pidfd_getfd
            if fd < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                self.skipTest("no fd of another process can be had here")
            self.assertGreaterEqual(fd, 0, os.strerror(ctypes.get_errno()))
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            s = socket.socket(fileno=fd)
            self.addCleanup(s.close)
            peer = s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4)
            if (s.type == socket.SOCK_SEQPACKET and not s.getsockname()
                    and struct.unpack("=i", peer)[0] == d.process.pid):
                return s
        self.fail("the loop has no channel")

    def test_a_loop_that_talks_nonsense_fills_no_log(self):
        with Daemon() as d:
            channel = self.channel(d)
            for i in range(2000):
                select.select([], [channel], [], SOON)
                channel.send(bytes([255, i & 255]) * 4)
            d.process.send_signal(signal.SIGHUP)
            d.wait_for_log("configuration read anew")
            with Client(d.socket) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)
            self.assertIn("said what the keeper does not know", d.log())
            self.assertLess(d.log().count("said what the keeper does not know"), 200)


class Stopped(unittest.TestCase):
    """S-117"""

    def test_idle_loop_that_is_stopped(self):
        with Daemon("stuck-after: 1s\n") as d, Client(d.socket) as c:
            c.sync()
            start = time.monotonic()
            old = kill_loop(d, signal.SIGSTOP)
            next_loop(d, old)
            with connect_again(d) as again:
                again.sync()
            self.assertLess(time.monotonic() - start, 2)
            with self.assertRaises(Ended):
                c.receive()

    def test_loop_that_is_stopped_under_load(self):
        with Daemon("stuck-after: 1s\n") as d:
            for _ in range(5):
                clients = [connect_again(d) for _ in range(4)]
                for c in clients:
                    c.socket.setblocking(False)
                    try:
                        while True:
                            c.socket.send(struct.pack("=HHIII", SYNC, ASK, 1, 0, 0))
                    except BlockingIOError:
                        pass
                start = time.monotonic()
                old = kill_loop(d, signal.SIGSTOP)
                next_loop(d, old)
                with connect_again(d) as again:
                    again.sync()
                self.assertLess(time.monotonic() - start, 2)
                for c in clients:
                    c.close()

    def test_loop_that_is_continued_at_once_goes_on(self):
        with Daemon() as d, Client(d.socket) as c:
            loop = kill_loop(d, signal.SIGSTOP)
            os.kill(loop, signal.SIGCONT)
            time.sleep(0.3)
            c.sync()
            self.assertEqual(d.loop(), loop)

    def test_stopped_client_is_not_blamed(self):
        with Daemon() as d:
            for _ in range(3):
                old = kill_loop(d, signal.SIGSTOP)
                next_loop(d, old)
                with connect_again(d) as c:
                    c.sync()
            self.assertNotIn("kept out", d.log())


class Signals(unittest.TestCase):
    def test_loop_ends_with_its_keeper(self):
        for number in (None, signal.SIGSTOP):
            with Daemon() as d, Client(d.socket) as c:
                loop = d.loop()
                if number:
                    os.kill(d.process.pid, number)
                    os.kill(loop, number)
                d.process.kill()
                d.process.wait()
                until(lambda: is_gone(loop), "the loop's end")
                with self.assertRaises(Ended):
                    c.receive()
                    c.receive()  # the first was a farewell: it saw the end before it was killed

    def test_sigterm_under_load_leaves_nothing(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Daemon() as d:
                stop = threading.Event()

                def load():
                    while not stop.is_set():
                        try:
                            with Client(d.socket) as c:
                                while not stop.is_set():
                                    c.sync()
                        except (Ended, OSError):
                            pass

                threads = [threading.Thread(target=load) for _ in range(4)]
                for t in threads:
                    t.start()
                try:
                    time.sleep(0.2)
                    loop = d.loop()
                    self.assertEqual(d.stop(number), 0)
                finally:
                    stop.set()
                    for t in threads:
                        t.join(SOON)
                self.assertTrue(is_gone(loop))
                self.assertFalse(os.path.exists(d.socket))

    def test_sigterm_while_loops_die(self):
        for i in range(20):
            with Daemon() as d:
                loop = kill_loop(d)
                time.sleep(i * 0.0001)
                self.assertEqual(d.stop(), 0)
                self.assertTrue(is_gone(loop))
                self.assertFalse(os.path.exists(d.socket))

    def test_sigterm_to_the_loop_makes_another(self):
        with Daemon() as d:
            old = kill_loop(d, signal.SIGTERM)
            next_loop(d, old)
            with connect_again(d) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)

    def test_socket_of_another_daemon_is_left_alone(self):
        with Daemon() as d:
            os.unlink(d.socket)
            other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with other:
                other.bind(d.socket)
                self.assertEqual(d.stop(), 0)
                self.assertTrue(os.path.exists(d.socket))

    def test_sighup_to_the_loop_reaches_the_keeper(self):
        with Daemon("limits: {watches: 1}\n") as d:
            d.write_config("limits: {watches: 2}\n")
            os.kill(d.loop(), signal.SIGHUP)
            d.wait_for_log("configuration read anew")
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                self.assertEqual(self.watches(c), 2)

    @staticmethod
    def watches(c):
        """How many this client may have."""
        pairs = [socket.socketpair() for _ in range(4)]
        n = 0
        while c.watch(n + 1, pairs[n][0].fileno()) != QUOTA:
            n += 1
        for a, b in pairs:
            a.close()
            b.close()
        return n

    def test_new_loop_has_the_last_good_settings(self):
        with Daemon("limits: {watches: 1}\n") as d:
            d.write_config("limits: {watches: 3}\n")
            d.process.send_signal(signal.SIGHUP)
            d.wait_for_log("configuration read anew")
            d.write_config("limits: {watches: no}\n")
            d.process.send_signal(signal.SIGHUP)
            d.wait_for_log("reload failed")
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                self.assertEqual(self.watches(c), 3)
            os.unlink(d.config)
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                self.assertEqual(self.watches(c), 3)

    def test_sighup_while_the_loop_is_dead(self):
        """Keeper stopped, loop killed, file changed: the keeper finds both when it goes on."""
        for i in range(10):
            with Daemon("limits: {watches: 1}\n") as d:
                os.kill(d.process.pid, signal.SIGSTOP)
                old = kill_loop(d)
                until(lambda pid=old: is_gone(pid), "the loop's end")
                d.write_config("limits: {watches: 2}\n")
                d.process.send_signal(signal.SIGHUP)
                if i % 2:
                    os.kill(d.process.pid, signal.SIGCONT)
                else:
                    d.process.send_signal(signal.SIGCONT)
                next_loop(d, old)
                with connect_again(d) as c:
                    d.wait_for_log("configuration read anew")
                    c.sync()
                    self.assertEqual(self.watches(c), 2)

    def test_ctrl_c_ends_both(self):
        with Daemon(preexec=os.setsid) as d:
            loop = d.loop()
            os.killpg(d.process.pid, signal.SIGINT)
            self.assertEqual(d.process.wait(SOON), 0)
            self.assertTrue(is_gone(loop))


class Start(unittest.TestCase):
    def test_no_keeper_is_one_process(self):
        with Daemon(arguments=["--no-keeper"]) as d:
            self.assertEqual(children(d.process.pid), [])
            with Client(d.socket) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)
            self.assertFalse(os.path.exists(d.socket))

    def test_sigchld_that_was_ignored_by_the_starter(self):
        def ignore():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})

        with Daemon(preexec=ignore) as d:
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)

    def test_loops_that_cannot_start_are_tried_again_ever_more_slowly(self):
        """Of all that a loop needs, fds are taken away."""
        import resource
        with Daemon() as d:
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (259, 20000))
            kill_loop(d)
            d.wait_for_log("the next try is in 80 ms")
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (4096, 20000))
            with connect_again(d) as c:
                c.sync()
            self.assertLess(d.log().count("\n"), 60)


@needs_crashing
class Blame(unittest.TestCase):
    """S-116"""

    def setUp(self):
        self.usual, daemon.READYD = daemon.READYD, CRASHING

    def tearDown(self):
        daemon.READYD = self.usual

    @staticmethod
    def crash(d, serial):
        """Connects, asks for the end of the loop, and waits for it."""
        old = d.loop()
        with connect_again(d) as c:
            try:
                c.socket.send(struct.pack("=HHIII", SYNC, ASK, serial, 0, 0))
                c.receive()
            except (Ended, ConnectionResetError):
                pass
        next_loop(d, old, 20)

    def in_child(self, d, work):
        """Runs work(d) in a process of its own; its exit status."""
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(work(d) or 0)
            except Ended as e:
                body = e.args[1] if len(e.args) == 2 else b""
                code = struct.unpack_from("=I", body)[0] if isinstance(body, bytes) else e.args[0]
                os._exit(1 if code == ACCESS else 2)
            except BaseException:
                os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_client_that_ends_two_loops_is_kept_out(self):
        with Daemon() as d:
            def culprit(d):
                self.crash(d, 0xdead0000 | signal.SIGSEGV << 8)
                self.crash(d, 0xdead0000 | signal.SIGSEGV << 8)
                d.wait_for_log("kept out")
                Client(d.socket)

            self.assertEqual(self.in_child(d, culprit), 1)
            self.assertRegex(d.log(), r"died by SIGSEGV while it applied a request of uid \d+ pid")
            self.assertRegex(d.log(), rf"request of uid {os.getuid()} pid \d+: this process is")
            with Client(d.socket) as c:  # all others go on
                c.sync()
            next_loop(d, kill_loop(d))
            with connect_again(d) as c:
                c.sync()

    def test_each_signal_of_a_fault_counts(self):
        for number in (signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
            with Daemon() as d:
                def culprit(d, n=number):
                    self.crash(d, 0xdead0000 | n << 8)
                    self.crash(d, 0xdead0000 | n << 8)
                    d.wait_for_log("kept out")
                    Client(d.socket)

                self.assertEqual(self.in_child(d, culprit), 1, number)

    def test_sigkill_never_counts(self):
        with Daemon() as d:
            for _ in range(4):
                self.crash(d, 0xdead0000 | signal.SIGKILL << 8)
            with connect_again(d) as c:
                c.sync()
            self.assertNotIn("kept out", d.log())

    def test_one_death_each_of_two_clients_is_nobodys_fault(self):
        with Daemon() as d:
            for _ in range(2):
                self.assertEqual(self.in_child(
                    d, lambda d: self.crash(d, 0xdead0000 | signal.SIGSEGV << 8)), 0)
            self.assertNotIn("kept out", d.log())

    def test_spinning_loop_is_replaced_and_its_client_kept_out(self):
        """S-117"""
        with Daemon("stuck-after: 300ms\n") as d:
            def culprit(d):
                start = time.monotonic()
                self.crash(d, 0xdeadff00)
                took = time.monotonic() - start
                if not 0.3 <= took < 1.5:
                    return 4
                self.crash(d, 0xdeadff00)
                d.wait_for_log("kept out")
                Client(d.socket)

            self.assertEqual(self.in_child(d, culprit), 1)
            self.assertIn("is stuck for more than 300 ms while it applied a request of", d.log())
            with Client(d.socket) as c:
                c.sync()

    def test_spinning_loop_that_is_told_to_end(self):
        with Daemon() as d, Client(d.socket) as c:
            c.socket.send(struct.pack("=HHIII", SYNC, ASK, 0xdeadff00, 0, 0))
            loop = d.loop()
            d.process.send_signal(signal.SIGTERM)
            self.assertEqual(d.process.wait(20), 0)
            self.assertTrue(is_gone(loop))
            self.assertFalse(os.path.exists(d.socket))


if __name__ == "__main__":
    unittest.main(verbosity=2)
