# SPDX-License-Identifier: MIT
"""A real readyd for the integration tests, and the few messages that they need."""

import array
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

READYD = os.environ["READYD"]
READYCTL = os.environ.get("READYCTL")
SOON = 10.0

HELLO, SYNC, WATCH, UNWATCH, WAIT, TIMER_SET = 0x01, 0x02, 0x10, 0x11, 0x12, 0x18
WELCOME, READY, ERROR = 0x81, 0x82, 0x83
ENTRY, TIMER, BREAK, ANSWER, FAILURE = 1, 2, 3, 4, 5
ASK = 0x0001
READ, WRITE = 1, 2
QUOTA, ACCESS = 17, 18


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


def name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            return f.read().rstrip()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has just ended


class Daemon:
    """readyd on a socket in a folder of its own; killed and removed at the end of a `with`."""

    def __init__(self, config="", arguments=(), private=False, preexec=None, level="debug"):
        self.folder = tempfile.mkdtemp(prefix="readyd-test-")
        self.config = os.path.join(self.folder, "readyd.yaml")
        self.log_path = os.path.join(self.folder, "log")
        self.socket = os.path.join(self.folder, "socket")
        self.write_config(config)
        ready, writer = os.pipe()
        command = [READYD, "--config", self.config, "--ready-fd", str(writer)]
        command += ["--private"] if private else ["--socket", self.socket]
        if level:
            command += ["--log-level", level]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command + list(arguments), stderr=log, pass_fds=[writer], preexec_fn=preexec)
        os.close(writer)
        with os.fdopen(ready) as lines:
            self.said = lines.read()
        for line in self.said.splitlines():
            if line.startswith("READYD_SOCKET="):
                self.socket = line.partition("=")[2]

    def write_config(self, text):
        with open(self.config, "w", encoding="ascii") as f:
            f.write(text)

    def log(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def wait_for_log(self, text):
        end = time.monotonic() + SOON
        while text not in self.log():
            assert time.monotonic() < end, f"the log never said {text!r}:\n{self.log()}"
            time.sleep(0.01)

    def loop(self):
        """The pid of the process that serves: a child of the keeper, or, without one, itself."""
        pids = [pid for pid in children(self.process.pid) if name(pid) != "readyd-holder"]
        return pids[0] if pids else self.process.pid

    def fds(self):
        return len(os.listdir(f"/proc/{self.loop()}/fd"))

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(SOON)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


class Ended(Exception):
    """The connection is at its end."""


class Client:
    """One connection, greeted. Ids are the caller's; generations are all 1."""

    def __init__(self, address, hello=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(SOON)
        if address.startswith("@"):
            address = "\0" + address[1:]
        self.socket.connect(address)
        self.serial = 0
        self.records = []
        if hello:
            self.greet()

    def greet(self):
        self.send(HELLO, struct.pack("=IHH16sQ", 0x52454459, 1, 1, os.urandom(16), 0))
        kind, _, body = self.receive()
        if kind != WELCOME:
            self.close()
            raise Ended(kind, body)
        self.session = struct.unpack_from("=Q", body, 16)[0]
        self.daemon_pid = struct.unpack_from("=I", body, 36)[0]  # of the loop that serves it

    def send(self, kind, *records, flags=0, fds=()):
        self.serial += 1
        message = struct.pack("=HHIII", kind, flags, self.serial, len(records), 0)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.socket.sendmsg([message + b"".join(records)], control)
        except BrokenPipeError:
            pass  # why is in what the daemon sent before it closed
        return self.serial

    def receive(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = self.socket.recv(65536)  # said once; what the daemon sent comes next
        if not data:
            raise Ended
        kind, _, serial, count, tail = struct.unpack_from("=HHIII", data)
        return kind, serial, data[16:]

    def next_record(self):
        """(kind, error or codes, serial or cookie, raw)"""
        while not self.records:
            kind, _, body = self.receive()
            if kind == ERROR:
                raise Ended(struct.unpack_from("=I", body)[0], body[16:].rstrip(b"\0").decode())
            assert kind == READY, kind
            self.records = [body[i:i + 24] for i in range(0, len(body), 24)]
        return self.records.pop(0)

    def ask(self, kind, *records, fds=()):
        """Sends, waits for the answer; returns (answer's error, failures' errors, entries)."""
        serial = self.send(kind, *records, flags=ASK, fds=fds)
        failures, entries = [], []
        while True:
            record = self.next_record()
            if record[0] in (ENTRY, TIMER, BREAK):
                entries.append(record)
                continue
            error, whose = struct.unpack_from("=HI", record, 2)
            if whose == serial and record[0] == FAILURE:
                failures.append(error)
            if whose == serial and record[0] == ANSWER:
                return error, failures, entries

    def watch(self, number, fd, interest=READ | WRITE, mode=0):
        record = struct.pack("=QIIiBBH", number, number, 1, fd, interest, mode, 0)
        return self.ask(WATCH, record, fds=[fd])[0]

    def wait(self, number, directions=READ):
        self.send(WAIT, struct.pack("=IIII", number, 1, directions, 0))

    def sync(self):
        assert self.ask(SYNC)[0] == 0

    def readable(self, seconds=SOON):
        return bool(self.records) or bool(select.select([self.socket], [], [], seconds)[0])

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def readyctl(daemon, *arguments, **options):
    environment = dict(os.environ, READYD_SOCKET=daemon.socket)
    return subprocess.run([READYCTL, *arguments], env=environment, capture_output=True, text=True,
                          timeout=30, check=False, **options)
