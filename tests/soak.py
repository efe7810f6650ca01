#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs on libreadyd for a long time, while at random moments the loop is killed, is stopped,
or is given another configuration.

usage: soak.py [SECONDS]

No program may see an error; bytes come in order, deadlines and timers at their time; no process
collects fds or memory. READYD names the daemon, READYD_BUILD the build folder; READYD_SEED, if set,
what the random numbers begin with. Prints a line a minute and a summary; exit status 1, with a
sentence, if anything is wrong.
"""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "integration"))
from daemon import Client
from test_resume import Program, Restarted

SETTLE = 60.0  # s that anything may take
KEEPER_MAY_GROW, PROGRAM_MAY_GROW = 1024, 2048  # KiB, after the first tenth of the time
LOOP_MAY_HAVE = 65536  # KiB


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    """KiB that belong to this process alone; what it shares with its parent is not its own."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


# ---- Programs: each is told to end, and says what it did ----

class Numbers:
    """Counters through pairs, by one way to wait; it runs from the first moment to the last."""

    def __init__(self, daemon, mode):
        self.program = Program(daemon, "soak", mode)
        assert self.program.line() == "ready"
        self.pid = self.program.process.pid
        self.fds, self.memory = fds(self.pid), None

    def look(self, warm):
        """Now and then. `warm`: what it needs it has by now."""
        assert self.program.process.poll() is None, self.program.end()
        now = memory(self.pid)
        if warm and self.memory is None:
            self.memory = now
        if self.memory is not None:
            assert now <= self.memory + PROGRAM_MAY_GROW, \
                f"a program has grown from {self.memory} to {now} KiB"

    def end(self):
        # one socket may be just being opened
        assert fds(self.pid) <= self.fds + 2, f"{self.fds} fds became {fds(self.pid)}"
        said = self.program.end().split()
        assert int(said[0]) > 0, said
        return int(said[0]), int(said[4])

    def abandon(self):
        self.program.__exit__()


class Times:
    """Deadlines and timers, of which none may be lost or early: 3 s, and again."""

    def __init__(self, daemon):
        self.daemon, self.runs, self.resumes = daemon, 0, 0
        self.begin()

    def begin(self):
        self.program = Program(self.daemon, "times")
        assert self.program.line() == "ready"

    def finish(self):
        said = self.program.end().split()
        assert said[:1] + said[2:3] == ["20", "20"], said
        self.runs += 1
        self.resumes += int(said[-2])
        self.program.__exit__()

    def look(self, _warm):
        if self.program.process.poll() is not None:
            self.finish()
            self.begin()

    def end(self):
        self.finish()
        return self.runs, self.resumes

    def abandon(self):
        self.program.__exit__()


# Whatever else is to survive joins here: a class like those above.
PROGRAMS = {
    "by wait": lambda daemon: Numbers(daemon, "wait"),
    "by stream": lambda daemon: Numbers(daemon, "stream"),
    "threads": lambda daemon: Numbers(daemon, "threads"),
    "times": Times,
}


# ---- What is done to the daemon ----

def kill(daemon, _numbers):
    os.kill(daemon.loop(), signal.SIGKILL)


def terminate(daemon, _numbers):
    os.kill(daemon.loop(), signal.SIGTERM)


def stop(daemon, numbers):
    """For as long as the keeper bears it, or shorter."""
    pid = daemon.loop()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(numbers.random() * 0.2)
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def reload(daemon, numbers):
    daemon.write_config(numbers.choice([
        "", "stuck-after: 5s\n", "limits:\n  watches: 100k\n", "connect: [root, nobody]\n",
        "this is no configuration\n"]))
    daemon.process.send_signal(signal.SIGHUP)


DEEDS = {kill: 10, terminate: 2, stop: 2, reload: 2}


class Soak:
    def __init__(self, daemon, seconds, numbers):
        self.daemon, self.numbers = daemon, numbers
        self.begin, self.seconds = time.monotonic(), seconds
        self.done = {deed: 0 for deed in DEEDS}
        self.keeper_fds = self.keeper_memory = None
        self.programs = []

    def loop_is_there(self):
        end = time.monotonic() + SETTLE
        while self.daemon.loop() == self.daemon.process.pid:
            assert self.daemon.process.poll() is None, f"the keeper has ended\n{self.daemon.log()}"
            assert time.monotonic() < end, f"there is no loop\n{self.daemon.log()}"
            time.sleep(0.002)

    def do_something(self):
        deed = self.numbers.choices(list(DEEDS), list(DEEDS.values()))[0]
        self.loop_is_there()
        try:
            deed(self.daemon, self.numbers)
            self.done[deed] += 1
        except ProcessLookupError:
            pass  # it has just ended of the deed before

    def look(self):
        warm = time.monotonic() > self.begin + self.seconds / 10
        for _, program in self.programs:
            program.look(warm)
        self.loop_is_there()
        keeper = self.daemon.process.pid
        if warm and self.keeper_memory is None:
            self.keeper_memory = memory(keeper)
        if self.keeper_memory is not None:
            assert memory(keeper) <= self.keeper_memory + KEEPER_MAY_GROW, \
                f"the keeper has grown from {self.keeper_memory} to {memory(keeper)} KiB"
        try:
            assert memory(self.daemon.loop()) < LOOP_MAY_HAVE, "the loop has grown"
        except OSError:
            pass  # it was just killed

    def quiet_fds(self):
        """What keeper and loop have open while nobody is connected."""
        with Client(self.daemon.socket) as c:  # it has come through its first turn
            c.sync()
        end, seen = time.monotonic() + SETTLE, None
        while True:
            now = fds(self.daemon.process.pid), fds(self.daemon.loop())
            if now == seen or time.monotonic() > end:
                return now
            seen = now
            time.sleep(0.2)

    def line(self, what):
        deeds = ", ".join(f"{n} {deed.__name__}" for deed, n in self.done.items())
        print(f"{what}: {time.monotonic() - self.begin:.0f} s, {deeds}", flush=True)

    def run(self):
        before = self.quiet_fds()
        for name, make in PROGRAMS.items():
            self.programs.append((name, make(self.daemon)))
        said = self.begin
        while time.monotonic() < self.begin + self.seconds:
            self.do_something()
            time.sleep(self.numbers.choice([0.0, 0.01, 0.1, 1.0]) * self.numbers.random())
            self.look()
            if time.monotonic() > said + 60:
                said = time.monotonic()
                self.line("so far")
        self.daemon.write_config("")
        figures = []
        for name, program in self.programs:
            count, resumes = program.end()
            figures.append(f"{name} {count} in {resumes + 1} sessions")
        after = self.quiet_fds()
        assert after == before, f"fds of keeper and loop: {before} became {after}"
        assert self.daemon.stop() == 0, "the daemon did not end well"
        self.line("summary: no error")
        print("summary: " + "; ".join(figures))

    def abandon(self):
        for _, program in self.programs:
            program.abandon()


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(os.environ.get("READYD_SEED", str(time.time_ns())))
    print(f"READYD_SEED={seed}", flush=True)
    with Restarted(loop_only=True, level=None) as daemon:
        soak = Soak(daemon, seconds, random.Random(seed))
        try:
            soak.run()
        except AssertionError as e:
            sys.exit(f"soak: {e}")
        finally:
            soak.abandon()


if __name__ == "__main__":
    main()
