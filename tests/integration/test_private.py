# SPDX-License-Identifier: MIT
"""The private daemon: started by one call of the library, nobody's child, gone with its program."""

import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import READYCTL, READYD, SOON

LIBRARY = os.path.join(os.environ["READYD_BUILD"], "client-lib", "libreadyd.so")
LINGER = 10  # s that it stays when nobody is left

# A program that counts SIGCHLD and asks wait() whether it has a child.
PROGRAM = """
import ctypes, os, signal, sys
died = []
signal.signal(signal.SIGCHLD, lambda *_: died.append(1))
library = ctypes.CDLL(sys.argv[1])
options = (ctypes.c_uint64 * 8)()
options[0] = ctypes.sizeof(options)
options[2] = int(sys.argv[2])  # flags
handle, sentence = ctypes.c_void_p(), ctypes.c_char_p()
result = library.readyd_connect(ctypes.byref(options), ctypes.byref(handle), ctypes.byref(sentence))
if result < 0:
    print(result, sentence.value.decode())
    sys.exit(1)
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
library.readyd_daemon_pid.argtypes = [ctypes.c_void_p]
try:
    os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL
    child = "a child"
except ChildProcessError:
    child = "no child"
print(libc.getenv(b"READYD_SOCKET").decode(), library.readyd_daemon_pid(handle), child, len(died),
      flush=True)
sys.stdin.read()
"""
ALWAYS = 2  # READYD_PRIVATE_ALWAYS


class Private(unittest.TestCase):
    def start(self, flags=ALWAYS, **environment):
        environment = {**os.environ, "READYD_DAEMON": READYD, **environment}
        for name in [name for name, value in environment.items() if value is None]:
            del environment[name]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, LIBRARY, str(flags)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                env=environment)

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "python cannot load a sanitized library")
    def test_no_child_reached_by_readyctl_and_gone_with_its_program(self):
        program = self.start(READYD_SOCKET=None, XDG_RUNTIME_DIR="/nonexistent")
        said = program.stdout.readline()
        self.assertRegex(said, r"^@\S+ \d+ no child 0\n$")
        address, pid = said.split()[:2]
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            self.assertNotIn(f"PPid:\t{program.pid}\n", f.read())
        listed = subprocess.run([READYCTL, "--no-legend", "sessions"], text=True, timeout=SOON,
                                env=dict(os.environ, READYD_SOCKET=address), check=True,
                                capture_output=True).stdout
        self.assertIn(str(program.pid), listed)
        program.communicate(timeout=SOON)
        ended = time.monotonic()
        while os.path.exists(f"/proc/{pid}/fd/0") or os.path.exists(f"/proc/{pid}/exe"):
            self.assertLess(time.monotonic() - ended, LINGER + SOON)
            time.sleep(0.1)
        self.assertGreater(time.monotonic() - ended, LINGER - 2)

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "python cannot load a sanitized library")
    def test_a_daemon_that_cannot_start_says_why(self):
        program = self.start(READYD_SOCKET=None, READYD_DAEMON="/nonexistent/readyd")
        out, _ = program.communicate(timeout=SOON)
        self.assertEqual(program.returncode, 1)
        self.assertIn("/nonexistent/readyd", out)

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "python cannot load a sanitized library")
    def test_a_named_socket_that_fails_is_an_error(self):
        """$READYD_SOCKET that is set and fails is not worked around."""
        program = self.start(flags=0, READYD_SOCKET="/nonexistent/socket")
        out, _ = program.communicate(timeout=SOON)
        self.assertEqual(program.returncode, 1)
        self.assertIn("/nonexistent/socket", out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
