# SPDX-License-Identifier: MIT
"""Memory runs out: the kernel ends the loop, and nobody notices but the log."""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import SOON, TIMER_SET, Client, Daemon, Ended
from test_resume import Program

MEMORY = "/sys/fs/cgroup/memory"  # cgroups of version 1; of version 2, all is in the folder above
LIMIT = 12 << 20
HIGHEST = 1000


def score(pid):
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as f:
        return int(f.read())


def may_lower():
    return subprocess.run("echo -900 > /proc/self/oom_score_adj", shell=True, check=False,
                          stderr=subprocess.DEVNULL).returncode == 0


def read(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except OSError:
        return ""


class Group:
    """A cgroup with little memory, for one process; removed at the end of a `with`."""

    def __init__(self):
        self.path, self.files = "", {}
        if os.access(os.path.join(MEMORY, "cgroup.procs"), os.W_OK):
            self.parent = MEMORY
            self.files = {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT}
        elif "memory" in read("/sys/fs/cgroup/cgroup.subtree_control").split() and \
                os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK):
            self.parent = "/sys/fs/cgroup"
            self.files = {"memory.max": LIMIT, "memory.swap.max": 0}
        else:
            raise unittest.SkipTest("no cgroup with a limit of memory can be made here: needs root "
                                    "and the memory controller")

    def put(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
            f.write(str(value))

    def add(self, pid):
        self.put("cgroup.procs", pid)

    def __enter__(self):
        try:
            self.path = tempfile.mkdtemp(prefix="readyd-test-", dir=self.parent)
        except OSError as e:
            raise unittest.SkipTest(f"no cgroup can be made in {self.parent}: {e}")
        for name, value in self.files.items():
            if os.path.exists(os.path.join(self.path, name)):  # without swap there is one only
                self.put(name, value)
        return self

    def __exit__(self, *_):
        for pid in read(os.path.join(self.path, "cgroup.procs")).split():  # a test that failed
            with open(os.path.join(self.parent, "cgroup.procs"), "w", encoding="ascii") as f:
                f.write(pid)
        end = time.monotonic() + SOON
        while True:
            try:
                os.rmdir(self.path)
                return
            except OSError:  # its process has ended, but is not gone
                assert time.monotonic() < end, f"{self.path} cannot be removed"
                time.sleep(0.02)


class Scores(unittest.TestCase):
    def scores(self, start):
        def set_score():
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as f:
                f.write(str(start))

        with Daemon(preexec=set_score) as d:
            for _ in range(2):  # the second loop is like the first
                first = d.loop()
                yield score(d.process.pid), score(first)
                os.kill(first, signal.SIGKILL)
                end = time.monotonic() + SOON
                while d.loop() in (first, d.process.pid):
                    assert time.monotonic() < end
                    time.sleep(0.005)
                with Client(d.socket) as c:  # it serves, so it has set its score
                    c.sync()

    def test_the_loop_goes_before_the_keeper(self):
        base = score(os.getpid())
        for start in (base, max(base, 300), 950):
            if may_lower():
                keeper, loop = -900, 100
            else:
                keeper, loop = start, min(max(start, 0) + 100, HIGHEST)
            for seen in self.scores(start):
                self.assertEqual(seen, (keeper, loop))


class Oom(unittest.TestCase):
    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "a sanitizer's memory is mostly its own")
    def test_a_loop_that_is_ended_for_want_of_memory(self):
        """Nobody is blamed, although twice the same client had it grow."""
        with Daemon("limits:\n  timers: 4M\n", level=None) as d, \
                Program(d, "soak", "wait") as program:
            self.assertEqual(program.line(), "ready")
            for _ in range(2):
                with Group() as group, Client(d.socket) as c:
                    loop = c.daemon_pid
                    group.add(loop)
                    with self.assertRaises((Ended, ConnectionResetError)):
                        self.grow(c)
                    d.wait_for_log(f"the loop (pid {loop}) died by SIGKILL")
            with Client(d.socket) as c:  # neither is kept out
                c.sync()
            count, _, _, _, resumes, _ = program.end().split()
            self.assertGreater(int(count), 0)
            self.assertGreaterEqual(int(resumes), 2)
            self.assertNotIn("kept out", d.log())
            self.assertEqual(d.stop(), 0)

    @staticmethod
    def grow(c):
        far = time.monotonic_ns() + 3600 * 10**9
        for first in range(1, 1 << 20, 1000):
            c.ask(TIMER_SET, *[struct.pack("=QqqIIII", n, far + n, 0, n, 1, 0, 0)
                               for n in range(first, first + 1000)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
