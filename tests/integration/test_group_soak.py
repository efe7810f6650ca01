#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Groups while workers kill themselves and the daemon's loop is killed (tests/tools/group.c).

READYD names the program, READYD_BUILD the build folder with tests/group. READYD_KILLS and READYD_SEED,
if set, say how often the loop is killed and what the random numbers begin with.
"""

import os
import random
import select
import signal
import subprocess
import time
import unittest

from daemon import Daemon

PROGRAM = os.path.join(os.environ.get("READYD_BUILD", "build"), "tests", "group")
KILLS = int(os.environ.get("READYD_KILLS", "60"))
SEED = int(os.environ.get("READYD_SEED", str(time.time_ns())))
PATIENCE = 90  # s: the program's own is 60


class Soak(unittest.TestCase):
    def kill_loop(self, daemon):
        killed = daemon.loop()
        os.kill(killed, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while daemon.loop() in (killed, daemon.process.pid):
            self.assertLess(time.monotonic(), end, daemon.log())
            time.sleep(0.001)

    def soak(self, kills):
        """Numbers through the connections of a group. (deaths of workers, resumes)"""
        print("READYD_SEED=%d" % SEED)
        numbers = random.Random(SEED)
        with Daemon(level=None) as daemon, subprocess.Popen(
                [PROGRAM, daemon.socket, "16", "4"], stdin=subprocess.PIPE, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            try:
                self.assertTrue(select.select([program.stdout], [], [], PATIENCE)[0])
                self.assertEqual(program.stdout.readline(), "ready\n")
                for _ in range(kills):
                    time.sleep(0.01 + numbers.random() * 0.03)
                    self.kill_loop(daemon)
                time.sleep(0.2)
                said, wrong = program.communicate(timeout=PATIENCE)
            finally:
                program.kill()
        self.assertEqual((program.returncode, wrong), (0, ""))
        print(said, end="")
        words = said.split()
        self.assertGreater(int(words[0]), 16)
        return int(words[4]), int(words[6])

    def test_s125_workers_kill_themselves(self):
        self.assertEqual(self.soak(0)[1], 0)

    def test_s125_s126_the_loop_is_killed_too(self):
        self.assertGreater(self.soak(KILLS // 2)[1], KILLS // 8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
