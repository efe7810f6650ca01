#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs in the unit in place of the daemon, tries what the daemon has no business with, and prints one
line a thing: "refused NAME" or "ALLOWED NAME"."""

import ctypes
import mmap
import os
import socket

CLONE_NEWUSER = 0x10000000
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, 250)
libc = ctypes.CDLL(None, use_errno=True)


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def write(path):
    with open(path, "w", encoding="ascii") as f:
        f.write("x")


TRIES = {
    "write to /etc": lambda: write("/etc/readyd-was-here"),
    "write to /var": lambda: write("/var/readyd-was-here"),
    "write to /run/readyd": lambda: write("/run/readyd/was-here"),
    "replace the configuration": lambda: write("/etc/readyd/readyd.yaml"),
    "look into /root": lambda: os.listdir("/root"),
    "make an internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "map memory that is written and run": lambda: mmap.mmap(
        -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "make a user namespace": lambda: call(libc.unshare(CLONE_NEWUSER)),
    "become root": lambda: os.setuid(0),
    "change an owner": lambda: os.chown("/tmp", 0, 0),
    "signal PID 1": lambda: os.kill(1, 0),
    "open /dev/mem": lambda: os.open("/dev/mem", os.O_RDONLY),
    "open /dev/kmsg": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "change the kernel's settings": lambda: write("/proc/sys/kernel/hostname"),
    "make a cgroup": lambda: os.mkdir("/sys/fs/cgroup/readyd-was-here"),
    "be nicer than nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
    "use the keyring": lambda: call(libc.syscall(SYS_KEYCTL, 0, -3, 1)),
}

for name, attempt in TRIES.items():
    try:
        attempt()
        print("ALLOWED", name, flush=True)
    except OSError:
        print("refused", name, flush=True)
print("probe done", flush=True)
