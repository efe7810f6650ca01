# SPDX-License-Identifier: MIT
"""Another binary takes over from the running one, or does not, and nobody notices either (S-119).

READYD_CRASHING names the other binary: a build with -Dversion_suffix, and with the mutant of
test_keeper.py. READYD_BUILD is the build folder with tests/resume. READYD_UPGRADES and READYD_SEED,
if set, say how often the soak test upgrades and what its random numbers begin with.
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon
from daemon import ACCESS, ASK, READYD, SYNC, Client, Daemon, Ended, children, readyctl
from test_keeper import connect_again, is_gone
from test_resume import Program

CRASHING = os.environ.get("READYD_CRASHING")
UPGRADES = int(os.environ.get("READYD_UPGRADES", "20"))
SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
PATIENCE = 60  # s: what should take few, on a machine that is busy
UPGRADE = 0x39
INVALID, NOT_SUPPORTED = 7, 23
needs_other = unittest.skipUnless(CRASHING, "READYD_CRASHING is not set: needs a readyd that was "
                                            "built with -Dversion_suffix")
needs_root = unittest.skipUnless(os.geteuid() == 0, "only root can be another user")


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def version_of(program):
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True,
                          timeout=PATIENCE).stdout
    return said.split()[1]


class Installed(Daemon):
    """A daemon that was started by a link, under which another program can be put."""

    def __init__(self, config="", **options):
        self.place = tempfile.mkdtemp(prefix="readyd-test-")
        self.program = os.path.join(self.place, "readyd")
        self.install(READYD)
        usual, daemon.READYD = daemon.READYD, self.program
        try:
            super().__init__(config, **options)
        finally:
            daemon.READYD = usual

    def install(self, program):
        link = os.path.join(self.place, "new")
        os.symlink(program, link)
        os.rename(link, self.program)

    def install_script(self, text, mode=0o755):
        new = os.path.join(self.place, "new")
        with open(new, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(new, mode)
        os.rename(new, self.program)

    def remove_program(self):
        os.unlink(self.program)

    def file(self, name):
        return os.path.join(self.place, name)

    def status(self):
        """What the loop says of itself; of the next one, if this one ends meanwhile."""
        def ask():
            said = readyctl(self, "--json", "status")
            return json.loads(said.stdout) if said.returncode == 0 else None
        return until(ask, "a status")

    def serving(self):
        return self.status()["pid"]

    def logs(self, text, times=1):
        until(lambda: self.log().count(text) >= times, f"{times} of {text!r} in:\n{self.log()}")

    def await_upgrades(self, times):
        self.logs("upgraded from readyd", times)

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        for name in os.listdir(self.place):
            os.unlink(self.file(name))
        os.rmdir(self.place)


def ask_upgrade(c):
    return c.ask(UPGRADE)[0]


class Passed(unittest.TestCase):
    @needs_other
    def test_readyctl_tells_both_versions(self):
        for private in (False, True):
            with Installed(private=private) as d, Client(d.socket) as c:
                old, keeper = d.status(), d.process.pid
                d.install(CRASHING)
                said = readyctl(d, "upgrade")
                self.assertEqual((said.returncode, said.stderr), (0, ""))
                new = d.status()
                self.assertEqual(said.stdout.splitlines(),
                                 [f"Old version: {version_of(READYD)}",
                                  f"New version: {version_of(CRASHING)}",
                                  f"PID:         {new['pid']}"])
                self.assertNotEqual(old["pid"], new["pid"])
                self.assertEqual(children(keeper), [new["pid"]])
                with self.assertRaises(Ended) as end:
                    c.next_record()
                self.assertEqual(end.exception.args[0], 25)  # SHUTDOWN
                d.install(READYD)
                said = json.loads(readyctl(d, "--json", "upgrade").stdout)
                self.assertEqual(said, {"old_version": version_of(CRASHING),
                                        "new_version": version_of(READYD), "pid": d.serving()})
                self.assertIn(f"keeper pid {keeper}", d.log())
                self.assertEqual(d.stop(), 0)
                if not private:
                    self.assertFalse(os.path.exists(d.socket))

    @needs_other
    def test_s119_under_load(self):
        """Counters through pairs: every byte comes, in order, whatever serves at the time."""
        print("READYD_SEED=%d" % SEED)
        numbers = random.Random(SEED)
        with Installed(level=None) as d:
            programs = []
            try:
                for mode in ["wait", "stream"] * 3 + ["threads"]:
                    programs.append(Program(d, "soak", mode))
                for program in programs:
                    self.assertEqual(program.line(), "ready")
                for i in range(UPGRADES):
                    time.sleep(numbers.random() * 0.1)
                    d.install(CRASHING if i % 2 == 0 else READYD)
                    if numbers.random() < 0.5:
                        d.process.send_signal(signal.SIGUSR2)
                    else:
                        self.assertEqual(readyctl(d, "upgrade").returncode, 0, d.log())
                    d.await_upgrades(i + 1)
                    self.assertEqual(d.status()["version"],
                                     version_of(CRASHING if i % 2 == 0 else READYD))
                for program in programs:
                    said = program.end()
                    print(said)
                    self.assertGreater(int(said.split()[0]), 0)
                    self.assertGreater(int(said.split()[4]), UPGRADES // 4)
            finally:
                for program in programs:
                    program.__exit__()
            self.assertNotIn("readyd: error", d.log())
            self.assertEqual(d.stop(), 0)

    def test_signal_that_reaches_the_loop(self):
        with Installed() as d:
            os.kill(d.serving(), signal.SIGUSR2)
            d.await_upgrades(1)
            self.assertIn("upgrading, on SIGUSR2 to the loop", d.log())
            with connect_again(d) as c:
                c.sync()

    def test_file_that_was_replaced(self):
        """/proc/PID/exe names a file that is no more; what stands in its place is run."""
        with Installed() as d:
            d.install_script(f'exec {READYD} "$@"\n')
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            self.assertEqual(os.readlink(f"/proc/{d.process.pid}/exe"), os.path.realpath(READYD))

    def test_path_by_which_it_was_started(self):
        """With a slash it is kept; else, or if it lies, it is the program's own."""
        with tempfile.TemporaryDirectory(prefix="readyd-test-") as folder:
            real = os.path.join(folder, "real")
            shutil.copy(READYD, real)
            os.symlink("real", os.path.join(folder, "link"))
            for name, path in (("./link", "link"), ("../" + os.path.basename(folder) + "/link",
                               "../" + os.path.basename(folder) + "/link"),
                               (os.path.join(folder, "link"), "link"), ("link", "real"),
                               ("/nonexistent/readyd", "real"), ("", "real")):
                log = os.path.join(folder, "log")
                with open(log, "wb") as f:
                    process = subprocess.Popen(
                        [name, "--socket", os.path.join(folder, "socket")], cwd=folder,
                        executable=os.path.join(folder, "link"), stderr=f)
                try:
                    until(lambda: "serves" in read(log), "a start")
                    process.send_signal(signal.SIGUSR2)
                    until(lambda: "upgraded from" in read(log), "the upgrade")
                    self.assertIn(f"trying {folder}/{path}\n", read(log))
                    process.terminate()
                    self.assertEqual(process.wait(PATIENCE), 0)
                finally:
                    process.kill()
                    process.wait()

    def test_no_fd_and_no_page_is_left(self):
        with Installed() as d:
            fds = d.fds()
            for _ in range(6):
                self.assertEqual(readyctl(d, "upgrade").returncode, 0)
                # the new loop may serve before the keeper has closed its end of the channel
                until(lambda: d.fds() == fds, "as many fds as before")
                self.assertEqual(read(f"/proc/{d.process.pid}/maps").count("/dev/zero"), 1)
            with connect_again(d) as c:
                c.sync()
                low = [n for n in os.listdir(f"/proc/{d.serving()}/fd") if 3 <= int(n) <= 255]
                self.assertEqual(low, [])
            self.assertNotIn("--check-upgrade", read(f"/proc/{d.process.pid}/cmdline"))

    def test_configuration_is_read_anew(self):
        with Installed("limits: {watches: 1}\n") as d:
            d.write_config("limits: {watches: 2}\n")
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            rows = json.loads(readyctl(d, "--json", "quotas").stdout)["quotas"]
            self.assertEqual([r["limit"] for r in rows if r["quota"] == "watches"], [2])

    def test_configuration_that_breaks_after_the_trial(self):
        with Installed("limits: {watches: 3}\n") as d:
            d.install_script('case "$*" in *--check-upgrade*) ;;\n'
                             f'*) echo "limits: no" >{d.config} ;; esac\nexec {READYD} "$@"\n')
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            d.logs("the configuration cannot be read any more: the former one stays")
            rows = json.loads(readyctl(d, "--json", "quotas").stdout)["quotas"]
            self.assertEqual([r["limit"] for r in rows if r["quota"] == "watches"], [3])

    def test_starter_hears_of_it_once(self):
        with Installed() as d:  # reads the ready-fd to its end
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            self.assertEqual(d.said.count("READY=1"), 1)

    def test_private_daemon_still_ends_with_its_starter(self):
        starter = subprocess.Popen(["sleep", "1000"])
        os.environ["READYD_STARTER"] = str(starter.pid)
        try:
            with Installed(private=True) as d:
                self.assertEqual(readyctl(d, "upgrade").returncode, 0)
                del os.environ["READYD_STARTER"]
                starter.kill()
                starter.wait()
                self.assertEqual(d.process.wait(PATIENCE), 0)
        finally:
            os.environ.pop("READYD_STARTER", None)
            starter.kill()
            starter.wait()

    def test_many_signals_at_once(self):
        with Installed() as d:
            for _ in range(20):
                d.process.send_signal(signal.SIGUSR2)
            d.await_upgrades(1)
            with connect_again(d) as c:
                c.sync()
            for _ in range(5):
                d.process.send_signal(signal.SIGUSR2)
                d.process.send_signal(signal.SIGUSR2)
                d.process.send_signal(signal.SIGHUP)
            with connect_again(d) as c:
                c.sync()
            self.assertEqual(d.stop(), 0)
            self.assertFalse(os.path.exists(d.socket))

    def test_sigterm_at_any_moment(self):
        print("READYD_SEED=%d" % SEED)
        numbers = random.Random(SEED)
        for _ in range(20):
            with Installed() as d:
                d.process.send_signal(signal.SIGUSR2)
                time.sleep(numbers.random() * 0.04)
                d.process.send_signal(signal.SIGTERM)
                self.assertEqual(d.process.wait(PATIENCE), 0, d.log())
                self.assertFalse(os.path.exists(d.socket))


class Loops(unittest.TestCase):
    """What the loop does meanwhile."""

    def test_loop_that_is_stopped(self):
        with Installed() as d:
            old = d.serving()
            os.kill(old, signal.SIGSTOP)
            d.process.send_signal(signal.SIGUSR2)
            d.await_upgrades(1)
            self.assertNotEqual(d.serving(), old)
            self.assertTrue(is_gone(old))

    @needs_other
    def test_loop_that_spins(self):
        usual, daemon.READYD = daemon.READYD, CRASHING
        try:
            with Daemon("stuck-after: 60s\n") as d, Client(d.socket) as c:
                loop = d.loop()
                c.socket.send(struct.pack("=HHIII", SYNC, ASK, 0xdeadff00, 0, 0))
                d.process.send_signal(signal.SIGUSR2)
                until(lambda: "upgraded from" in d.log(), "the upgrade")
                self.assertTrue(is_gone(loop))
                with connect_again(d) as again:
                    again.sync()
                self.assertNotIn("kept out", d.log())
        finally:
            daemon.READYD = usual

    def test_loop_that_dies_during_the_trial(self):
        with Installed() as d:
            d.install_script(f'while [ ! -e {d.file("go")} ]; do sleep 0.01; done\n'
                             f'exec {READYD} "$@"\n')
            old = d.serving()
            with connect_again(d) as c:
                c.send(UPGRADE)
                d.logs("trying")
                os.kill(old, signal.SIGKILL)
                with self.assertRaises(Ended):
                    c.next_record()
            next_one = d.serving()
            self.assertNotEqual(next_one, old)
            with connect_again(d) as c:  # who asks meanwhile is told, too
                c.send(UPGRADE)
                d.logs("an upgrade is under way already")
                c.sync()
                with open(d.file("go"), "w", encoding="ascii"):
                    pass
                self.assertEqual(struct.unpack_from("=BBHIIIQ", c.next_record())[5:6], (UPGRADE,))
            d.await_upgrades(1)
            self.assertNotIn(d.serving(), (old, next_one))

    @needs_other
    def test_who_is_kept_out_remains_so(self):
        usual, daemon.READYD = daemon.READYD, CRASHING
        try:
            with Daemon() as d:
                pid = os.fork()
                if pid == 0:
                    os._exit(self.culprit(d))
                self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, d.log())
                with connect_again(d) as c:
                    c.sync()
        finally:
            daemon.READYD = usual

    @staticmethod
    def culprit(d):
        """0: let in nowhere, neither before nor after the upgrade."""
        try:
            for _ in range(2):
                with connect_again(d) as c:
                    c.socket.send(struct.pack("=HHIII", SYNC, ASK,
                                              0xdead0000 | signal.SIGSEGV << 8, 0, 0))
                    try:
                        c.receive()
                    except (Ended, ConnectionResetError):
                        pass
            until(lambda: "kept out" in d.log(), "kept out")
            os.kill(d.process.pid, signal.SIGUSR2)
            until(lambda: "upgraded from" in d.log(), "the upgrade")
            Client(d.socket)
        except Ended as e:
            return 0 if struct.unpack_from("=I", e.args[1])[0] == ACCESS else 2
        except BaseException:  # pylint: disable=broad-except
            return 3
        return 1


class Failed(unittest.TestCase):
    """The old one goes on, says why, and can still be upgraded."""

    def refused(self, d, because, status=1):
        old, before = d.serving(), d.fds()
        with connect_again(d) as c:
            said = readyctl(d, "upgrade")
            self.assertEqual((said.returncode, said.stdout), (status, ""), d.log())
            self.assertIn("the new program failed its trial", said.stderr)
            d.logs(because)
            d.logs("no upgrade: readyd ")
            c.sync()  # on the same connection
            self.assertEqual(ask_upgrade(c), INVALID)
        d.process.send_signal(signal.SIGUSR2)
        d.logs("no upgrade: readyd ", 3)
        self.assertEqual((d.serving(), children(d.process.pid)), (old, [old]))
        until(lambda: d.fds() == before, "as many fds as before")
        d.install(READYD)
        d.write_config("")
        self.assertEqual(readyctl(d, "upgrade").returncode, 0, d.log())
        until(lambda: d.fds() == before, "as many fds as before")

    def test_exit_status(self):
        with Installed() as d:
            d.install_script("echo out of order >&2\nexit 1\n")
            self.refused(d, "failed its trial: exit status 1")
            self.assertIn("out of order", d.log())

    def test_signal(self):
        with Installed() as d:
            d.install_script("kill -SEGV $$\n")
            self.refused(d, "failed its trial: it died by SIGSEGV")

    def test_another_program(self):
        for text in ("", "echo readyd-upgrade 2\n", "echo readyd-upgrade 1 0.1.0\n",
                     "printf 'readyd-upgrade 2 0.1.0'\n", "head -c 1000 /dev/zero\n"):
            with Installed() as d:
                d.install_script(text)
                self.refused(d, "it is no readyd that could take over from this one")

    def test_not_executable(self):
        with Installed() as d:
            d.install_script("exit 0\n", 0o644)
            self.refused(d, f"cannot run {d.program}: Permission denied")

    def test_missing(self):
        with Installed() as d:
            d.remove_program()
            self.refused(d, f"cannot run {d.program}: No such file or directory")

    def test_no_program_at_all(self):
        with Installed() as d:
            os.unlink(d.program)
            with open(d.program, "wb") as f:
                f.write(bytes(range(256)))
            os.chmod(d.program, 0o755)
            self.refused(d, f"cannot run {d.program}: Exec format error")

    def test_configuration(self):
        with Installed() as d:
            d.write_config("limits: {watches: many}\n")
            self.refused(d, "readyd.yaml:1:")
            self.assertIn("failed its trial: exit status 78", d.log())

    def test_configuration_that_is_missing(self):
        with Installed() as d:
            os.unlink(d.config)
            self.refused(d, "there is no such file")

    def test_trial_that_never_ends(self):
        """Killed after 10 s, with what it started."""
        with Installed() as d:
            d.install_script(f"echo $$ >>{d.file('pids')}\n"
                             f"sleep 1000 & echo $! >>{d.file('pids')}\nwait\n")
            old = d.serving()
            said = readyctl(d, "upgrade")
            self.assertEqual(said.returncode, 1)
            self.assertIn("failed its trial: it did not end within 10 s", d.log())
            for pid in read(d.file("pids")).split():
                until(lambda p=int(pid): is_gone(p), "the end of the trial")
            self.assertEqual(d.serving(), old)
            until(lambda: children(d.process.pid) == [old], "nothing but the loop")
            d.install(READYD)
            self.assertEqual(readyctl(d, "upgrade").returncode, 0, d.log())

    def test_daemon_that_ends_during_a_trial(self):
        with Installed() as d:
            d.install_script(f"echo $$ >{d.file('pids')}\nexec sleep 1000\n")
            d.process.send_signal(signal.SIGUSR2)
            pid = int(until(lambda: os.path.exists(d.file("pids")) and read(d.file("pids")),
                            "the trial"))
            self.assertEqual(d.stop(), 0)
            until(lambda: is_gone(pid), "the end of the trial")

    def test_trial_that_is_stopped_is_no_loop(self):
        with Installed() as d:
            d.install_script(f"kill -STOP $$\nexec {READYD} \"$@\"\n")
            old = d.serving()
            d.process.send_signal(signal.SIGUSR2)
            trial = until(lambda: [p for p in children(d.process.pid) if p != old], "a trial")[0]
            until(lambda: read(f"/proc/{trial}/stat").split()[2] == "T", "its stop")
            d.install(READYD)
            self.assertEqual(d.serving(), old)
            os.kill(trial, signal.SIGCONT)
            d.await_upgrades(1)

    def test_program_that_is_gone_after_its_trial(self):
        with Installed() as d:
            d.install_script(f'rm "$0"\nexec {READYD} "$@"\n')
            old, fds = d.serving(), d.fds()
            d.process.send_signal(signal.SIGUSR2)
            d.logs(f"cannot run {d.program}: No such file or directory")
            self.assertNotEqual(d.serving(), old)  # the old program has made another loop
            until(lambda: d.fds() == fds, "as many fds as before")
            self.assertNotIn("upgraded from", d.log())
            d.install(READYD)
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            self.assertEqual(d.stop(), 0)
            self.assertFalse(os.path.exists(d.socket))

    def test_asker_that_does_not_read(self):
        """There is no room for its answer: it is disconnected, and nobody else."""
        with Installed() as d, Client(d.socket) as other, Client(d.socket) as c:
            d.install_script(f'while [ ! -e {d.file("go")} ]; do sleep 0.01; done\nexit 1\n')
            c.send(UPGRADE)
            d.logs("trying")
            c.socket.setblocking(False)
            full = False
            while not full:
                try:
                    while True:
                        c.socket.send(struct.pack("=HHIII", SYNC, ASK, 1, 0, 0))
                except BlockingIOError:
                    other.sync()  # a turn, in which the loop may read more of them
                    full = not select.select([], [c.socket], [], 0.2)[1]
            with open(d.file("go"), "w", encoding="ascii"):
                pass
            d.logs("no upgrade: readyd ")
            other.sync()
            c.socket.settimeout(PATIENCE)
            with self.assertRaises(Ended):
                while True:
                    record = c.next_record()
                    self.assertNotEqual(struct.unpack_from("=I", record, 12)[0], UPGRADE)
            other.sync()

    def test_trial_for_which_there_are_no_fds(self):
        with Installed() as d:
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (259, 20000))
            old = d.serving()
            said = readyctl(d, "upgrade")
            self.assertEqual(said.returncode, 4)
            self.assertIn("the new program could not be tried", said.stderr)
            d.logs("the new program cannot be tried: Too many open files")
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (4096, 20000))
            self.assertEqual(d.serving(), old)
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)

    def test_no_keeper(self):
        with Installed(arguments=["--no-keeper"]) as d, Client(d.socket) as c:
            self.assertEqual(ask_upgrade(c), NOT_SUPPORTED)
            said = readyctl(d, "upgrade")
            self.assertEqual(said.returncode, 1)
            self.assertIn("without a keeper (--no-keeper): restart it instead", said.stderr)
            d.process.send_signal(signal.SIGUSR2)
            d.logs("no upgrade without a keeper: restart readyd")
            c.sync()

    def test_no_daemon(self):
        with Installed() as d:
            d.stop()
            self.assertEqual(readyctl(d, "upgrade").returncode, 3)


class Rights(unittest.TestCase):
    NOBODY = 12345

    def as_user(self, d, group=None):
        os.chmod(d.folder, 0o755)
        os.chmod(d.socket, 0o666)
        return readyctl(d, "upgrade", user=self.NOBODY, group=group or self.NOBODY, extra_groups=[])

    @needs_root
    def test_by_configuration(self):
        with Installed(f"trusted: [{self.NOBODY}]\n") as d:
            old = d.serving()
            said = self.as_user(d)
            self.assertEqual((said.returncode, said.stdout), (1, ""))
            self.assertIn("this user may not upgrade the daemon", said.stderr)
            self.assertNotIn("trying", d.log())
            d.write_config(f"trusted: [{self.NOBODY}]\nupgrade: [{self.NOBODY}]\n")
            d.process.send_signal(signal.SIGHUP)
            d.logs("configuration read anew")
            self.assertEqual(self.as_user(d).returncode, 0, d.log())
            self.assertIn(f"uid {self.NOBODY} pid", d.log())
            d.write_config(f"trusted: [{self.NOBODY}]\nupgrade: ['@{self.NOBODY + 1}']\n")
            self.assertEqual(readyctl(d, "upgrade").returncode, 0)
            self.assertEqual(self.as_user(d).returncode, 1)
            self.assertEqual(self.as_user(d, self.NOBODY + 1).returncode, 0, d.log())
            self.assertNotEqual(d.serving(), old)


class State(unittest.TestCase):
    """What the new program is given is not trusted."""

    def start(self, data, *arguments, number=300):
        """readyd with a state of these bytes; (exit status, stdout, stderr)."""
        fd = os.memfd_create("state", 0)
        os.write(fd, data)
        os.dup2(fd, number)
        os.close(fd)
        try:
            with tempfile.TemporaryDirectory(prefix="readyd-test-") as folder:
                done = subprocess.run(
                    [READYD, "--socket", os.path.join(folder, "socket"), *arguments],
                    env=dict(os.environ, READYD_UPGRADE_STATE=str(number)), pass_fds=[number],
                    capture_output=True, text=True, timeout=PATIENCE, check=False)
                return done.returncode, done.stdout, done.stderr
        finally:
            os.close(number)

    def test_bytes_that_are_none(self):
        for data in (b"", b"x", bytes(1000), os.urandom(4096)):
            for arguments in ((), ("--check-upgrade",)):
                status, out, err = self.start(data, *arguments)
                self.assertEqual((status, out), (1, ""), err)
                self.assertIn("take", err)

    def test_state_of_another_process(self):
        """What a trial is given, given to somebody else."""
        with Installed() as d:
            d.install_script(f'cat /proc/self/fd/$READYD_UPGRADE_STATE >{d.file("state")}\n'
                             f'exec {READYD} "$@"\n')
            self.assertEqual(readyctl(d, "upgrade").returncode, 0, d.log())
            with open(d.file("state"), "rb") as f:
                data = f.read()
            self.assertGreater(len(data), 600)
            status, _, err = self.start(data)
            self.assertEqual(status, 1)
            self.assertIn("it is another process's", err)
            with connect_again(d) as c:
                c.sync()

    def test_fds_that_are_none(self):
        """A state that is well-formed and this process's, whose sockets are not there."""
        with Installed() as d:
            d.install_script(f'cat /proc/self/fd/$READYD_UPGRADE_STATE >{d.file("state")}\n'
                             f'exec {READYD} "$@"\n')
            self.assertEqual(readyctl(d, "upgrade").returncode, 0, d.log())
            with open(d.file("state"), "rb") as f:
                data = bytearray(f.read())
        code = ("import os, sys\n"
                "data = bytearray(sys.stdin.buffer.read())\n"
                "data[48:52] = os.getpid().to_bytes(4, sys.byteorder)\n"
                "fd = os.memfd_create('state', 0)\n"
                "os.write(fd, data)\n"
                "os.dup2(fd, 300)\n"
                "os.environ['READYD_UPGRADE_STATE'] = '300'\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n")
        for opened, because in ((False, "an fd that it names is not open"),
                                (True, "its listening socket is none")):
            listener = struct.unpack_from("=i", data, 208)[0]
            self.assertGreaterEqual(listener, 256)
            pair = socket.socketpair()
            with pair[0], pair[1]:
                if opened:
                    os.dup2(pair[0].fileno(), listener)
                done = subprocess.run([sys.executable, "-c", code, READYD, "--socket", "/x/y"],
                                      input=bytes(data), capture_output=True, timeout=PATIENCE,
                                      check=False, pass_fds=[listener] if opened else [])
                if opened:
                    os.close(listener)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(because, done.stderr.decode())

    def test_check_by_hand(self):
        with tempfile.TemporaryDirectory(prefix="readyd-test-") as folder:
            config = os.path.join(folder, "a.yaml")
            for text, status in (("", 0), ("limits: no\n", 78)):
                with open(config, "w", encoding="ascii") as f:
                    f.write(text)
                done = subprocess.run([READYD, "--check-upgrade", "--config", config],
                                      capture_output=True, text=True, timeout=PATIENCE, check=False)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertEqual(done.stdout, "" if status else
                                 f"readyd-upgrade 2 {version_of(READYD)}\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
