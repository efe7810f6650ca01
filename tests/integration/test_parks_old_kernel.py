#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Deaths of workers where the kernel has no SO_PEERPIDFD (before 6.5): the daemon opens them by pid.

READYD names the daemon. A seccomp filter makes this kernel an old one.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import unittest

from parks import Bench
from daemon import Daemon
from readyd_client import ParkState

GETSOCKOPT = {"x86_64": 55, "aarch64": 209}.get(platform.machine())
SO_PEERPIDFD = 77
ROUNDS = 8


def be_old():
    """In the child that becomes the daemon: getsockopt(SO_PEERPIDFD) is ENOPROTOOPT."""
    load, jump_equal, ret = 0x20, 0x15, 0x06
    code = b"".join(struct.pack("=HBBI", *each) for each in (
        (load, 0, 0, 0),  # the number
        (jump_equal, 0, 5, GETSOCKOPT),
        (load, 0, 0, 24),  # the second argument
        (jump_equal, 0, 3, socket.SOL_SOCKET),
        (load, 0, 0, 32),
        (jump_equal, 0, 1, SO_PEERPIDFD),
        (ret, 0, 0, 0x50000 | errno.ENOPROTOOPT),
        (ret, 0, 0, 0x7fff0000)))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
    a, b = socket.socketpair()
    with a, b:
        try:
            a.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError as error:
            assert error.errno == errno.ENOPROTOOPT
        else:
            raise AssertionError("there is SO_PEERPIDFD")


@unittest.skipUnless(GETSOCKOPT, "the number of getsockopt is not known here")
class OldKernel(Bench):
    @classmethod
    def start(cls):
        return Daemon("park-max-age: 0s\n", preexec=be_old)

    def test_a_worker_dies(self):
        for _ in range(ROUNDS):
            secret, number, peer = self.parked(self.client())
            worker = self.worker("take", secret.hex())
            self.assertEqual(worker.line(), "done")
            row = self.row(number)
            self.assertEqual((row.state, row.worker_pid), (ParkState.HANDED, worker.pid))
            worker.kill()
            self.parked_again(number)
            self.alive(peer)

    def test_who_lends_its_connection_is_dead_all_the_same(self):
        secret, number, peer = self.parked(self.client())
        worker = self.worker("lend", secret.hex())
        self.assertEqual(worker.line(), "done")
        worker.kill()
        self.parked_again(number)
        _, fd = self.taken(self.client(), token=secret)
        self.carries(fd, peer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
