# SPDX-License-Identifier: MIT
"""A client for readyd, in nothing but the standard library.

    with Client() as client:
        client.watch(sock, id=1)
        client.send(wait(1, READ))
        entry = client.next_event(timeout=5)
        if entry and entry.read & Code.READY:
            drain(sock)
        client.unwatch(1, fd=sock)

Three layers, each usable alone: `encode` and `parse_message` turn messages into bytes and back,
`Connection` moves them with their fds, `Client` counts serials and sorts what comes in.
Chapters and sections named here are those of protocol/PROTOCOL.md.
"""

import array
import collections
import enum
import os
import select
import socket
import struct
import time
from typing import NamedTuple, Optional

# Sections 6.17 and 7.
MAGIC = 0x52454459
PROTOCOL_LOWEST = 1
PROTOCOL_HIGHEST = 1
MESSAGE_MAX = 65536
RECORDS_MAX = 1024
FDS_MAX = 253
NAME_MAX = 255
NOTE_MAX = 2048
ADDRESS_MAX = 128
TEXT_MAX = 1024
TOKEN_SIZE = 16

ALL_UIDS = 0xFFFFFFFF
FOREVER = 2**63 - 1
EXPIRED = -1
FEATURES = ("weak", "edge", "stream", "ns")


class Mask(enum.IntFlag, boundary=enum.STRICT):
    """A mask of the wire: an unknown bit is a ValueError."""


class Type(enum.IntEnum):
    """Message types, section 6.1."""

    HELLO = 0x01
    SYNC = 0x02
    BREAK = 0x03
    IS_POLL_DESCRIPTOR = 0x04
    WATCH = 0x10
    UNWATCH = 0x11
    WAIT = 0x12
    UNWAIT = 0x13
    RESET = 0x14
    DEADLINE = 0x15
    EVICT = 0x16
    TIMER_SET = 0x18
    TIMER_STOP = 0x19
    PARK = 0x20
    CLAIM = 0x21
    TAKE = 0x22
    DROP = 0x23
    ACKNOWLEDGE = 0x24
    HELD = 0x25
    ATTACH = 0x28
    DETACH = 0x29
    GET_STATUS = 0x30
    LIST_SESSIONS = 0x31
    LIST_WATCHES = 0x32
    LIST_TIMERS = 0x33
    LIST_QUOTAS = 0x34
    LIST_PARKS = 0x35
    LIST_GROUPS = 0x36
    MONITOR = 0x38
    UPGRADE = 0x39
    WELCOME = 0x81
    READY = 0x82
    ERROR = 0x83
    HANDOUT = 0x84
    STATUS = 0xB0
    SESSIONS = 0xB1
    WATCHES = 0xB2
    TIMERS = 0xB3
    QUOTAS = 0xB4
    PARKS = 0xB5
    GROUPS = 0xB6


class Flag(Mask):
    """Header flags, section 6.2."""

    ANSWER = 0x0001
    MORE = 0x0002


class Error(enum.IntEnum):
    """Errors, section 6.3."""

    OK = 0
    PROTOCOL = 1
    VERSION = 2
    BYTE_ORDER = 3
    NOT_FOUND = 4
    EXISTS = 5
    STALE = 6
    INVALID = 7
    BUSY = 8
    ALREADY = 9
    CLOSING = 10
    TIMEOUT = 11
    NOT_POLLABLE = 12
    BAD_FD = 13
    TOO_MANY_FDS = 14
    SURPLUS_FDS = 15
    NO_RESOURCES = 16
    QUOTA = 17
    ACCESS = 18
    KIND = 19
    POLL_DESCRIPTOR = 20
    NO_LANE = 21
    SHARED = 22
    NOT_SUPPORTED = 23
    NOT_IMPLEMENTED = 24
    SHUTDOWN = 25
    INTERNAL = 26


class Quota(enum.IntEnum):
    """What is bounded for each uid, section 6.4."""

    CONNECTIONS = 0
    WATCHES = 1
    TIMERS = 2
    PARKS = 3
    NOTE_BYTES = 4
    FDS_RECEIVED = 5
    FDS_UNREAD = 6


class Direction(Mask):
    """Directions, section 6.5."""

    READ = 0x1
    WRITE = 0x2


READ = Direction.READ
WRITE = Direction.WRITE
BOTH = READ | WRITE


class Mode(enum.IntEnum):
    """Modes of a watch, section 6.6."""

    WAIT = 0
    STREAM = 1


class UnwatchFlag(Mask):
    """Flags of UNWATCH, section 6.7."""

    FD = 0x1


class TimeFlag(Mask):
    """Flags of DEADLINE and TIMER_SET, section 6.7."""

    RELATIVE = 0x1


class ParkFlag(Mask):
    """Flags of PARK, section 6.8."""

    DURABLE = 0x1
    HOLD_ONLY = 0x2
    RELATIVE = 0x4
    DEADLINE_HAND = 0x8


class By(enum.IntEnum):
    """How TAKE and DROP name a park, section 6.9."""

    NAME = 0
    ID = 1
    TOKEN = 2


class Happened(enum.IntEnum):
    """Records of READY, section 6.10."""

    ENTRY = 1
    TIMER = 2
    BREAK = 3
    ANSWER = 4
    FAILURE = 5
    PARK = 6


class Code(Mask):
    """Codes of an entry, section 6.11."""

    READY = 0x01
    CLOSING = 0x02
    TIMEOUT = 0x04
    NOT_POLLABLE = 0x08


class Kind(enum.IntEnum):
    """Kinds of fd, section 6.12."""

    UNKNOWN = 0
    UNIX = 1
    INET = 2
    INET6 = 3
    NETLINK = 4
    PIPE = 5
    EVENTFD = 6
    TIMERFD = 7
    PIDFD = 8
    INOTIFY = 9
    TTY = 10
    SOCKET = 11
    CHARACTER = 12
    FILE = 13
    EPOLL = 14
    SIGNALFD = 15


class SessionFlag(Mask):
    """Flags of a session row, section 6.13."""

    BLOCKED = 0x1
    SELF = 0x2


class SlotState(enum.IntEnum):
    """States of a slot, section 6.14."""

    IDLE = 0
    READY = 1
    WAITING = 2
    DONE = 3


class WatchFlag(Mask):
    """Flags of a watch row, section 6.15."""

    CLOSING = 0x1
    ERROR = 0x2


class ParkState(enum.IntEnum):
    """States of a park, section 6.16."""

    HELD = 0
    HANDED = 1


# Records, chapter 5. Each is a NamedTuple; its fields stand in the order of the wire, `x` in the
# layout is a reserved byte. Records of READY begin with their kind, which is no field here.

HEADER = struct.Struct("=HHIII")


def record(layout, happened=None):
    """Class decorator: gives a NamedTuple its layout, and methods to pack and unpack it."""

    def decorate(cls):
        cls.happened = happened
        cls.struct = struct.Struct("=" + ("" if happened is None else "B") + layout)
        prefix = () if happened is None else (happened,)
        enums = [(number, type_) for number, type_ in enumerate(cls.__annotations__.values())
                 if isinstance(type_, enum.EnumMeta)]

        def pack(self):
            return cls.struct.pack(*prefix, *self)

        def unpack(data):
            fields = list(cls.struct.unpack(data)[len(prefix):])
            if cls.struct.pack(*prefix, *fields) != data:
                raise ValueError(f"{cls.__name__}: a reserved field is not zero")
            for number, type_ in enums:
                if type_ is Error and fields[number] > max(Error):  # a later daemon's
                    fields[number] = Error.INTERNAL if cls is ErrorRecord else Error.INVALID
                fields[number] = type_(fields[number])
            return cls(*fields)

        cls.pack = pack
        cls.unpack = staticmethod(unpack)
        return cls

    return decorate


@record("IHH16s8x")
class Hello(NamedTuple):
    magic: int = MAGIC
    lowest: int = PROTOCOL_LOWEST
    highest: int = PROTOCOL_HIGHEST
    handle: bytes = bytes(TOKEN_SIZE)


@record("Q")
class Break(NamedTuple):
    session: int = 0


@record("8x")
class IsPollDescriptor(NamedTuple):
    pass


@record("QIIiBB2x")
class Watch(NamedTuple):
    cookie: int
    id: int
    gen: int
    fd: int = -1
    interest: int = BOTH
    mode: int = Mode.WAIT


@record("III4x")
class Unwatch(NamedTuple):
    id: int
    gen: int
    flags: UnwatchFlag = UnwatchFlag(0)


@record("III4x")
class Slots(NamedTuple):
    """Of WAIT, UNWAIT, RESET and EVICT."""

    id: int
    gen: int
    directions: int = BOTH


@record("qIIHHH2x")
class Deadline(NamedTuple):
    when: int
    id: int
    gen: int
    directions: int = BOTH
    flags: TimeFlag = TimeFlag(0)
    stamp: int = 0


@record("QqqIII4x")
class TimerSet(NamedTuple):
    cookie: int
    when: int
    period: int
    id: int
    gen: int
    flags: TimeFlag = TimeFlag(0)


@record("II")
class TimerStop(NamedTuple):
    id: int
    gen: int


@record("16sQqIiHBBBBBx")
class Park(NamedTuple):
    token: bytes
    cookie: int = 0
    deadline: int = 0
    flags: ParkFlag = ParkFlag(0)
    fd: int = -1
    note_length: int = 0
    name_length: int = 0
    group_length: int = 0
    local_length: int = 0
    peer_length: int = 0
    interest: int = READ


@record("16s")
class Token(NamedTuple):
    token: bytes


@record("16sQIBB2x")
class Take(NamedTuple):
    token: bytes = bytes(TOKEN_SIZE)
    park: int = 0
    by: int = By.NAME
    name_length: int = 0
    group_length: int = 0


@record("16sI4x")
class Held(NamedTuple):
    token: bytes
    held: int = 1


@record("III4x")
class Attach(NamedTuple):
    more: int
    capacity: int
    group_length: int


@record("QQIIII")
class List(NamedTuple):
    cursor: int = 0
    session: int = 0
    uid: int = ALL_UIDS
    pid: int = 0
    id: int = 0
    limit: int = 0


@record("QQII")
class Monitor(NamedTuple):
    events: int = 0
    session: int = 0
    uid: int = ALL_UIDS
    pid: int = 0


@record("IH2xqQIIII")
class Welcome(NamedTuple):
    magic: int
    protocol: int
    now: int
    session: int
    message_max: int
    records_max: int
    fds_max: int
    pid: int


@record("BBBHHIIQ", Happened.ENTRY)
class Entry(NamedTuple):
    mode: Mode
    read: Code
    write: Code
    read_stamp: int
    write_stamp: int
    id: int
    gen: int
    cookie: int


@record("3xIIIQ", Happened.TIMER)
class TimerEntry(NamedTuple):
    count: int
    id: int
    gen: int
    cookie: int


@record("23x", Happened.BREAK)
class BreakEntry(NamedTuple):
    pass


@record("xBB4xQQ", Happened.PARK)
class ParkEntry(NamedTuple):
    read: Code
    write: Code
    park: int
    cookie: int


@record("xHIIIQ", Happened.ANSWER)
class Answer(NamedTuple):
    error: Error
    serial: int
    failed: int
    request: Type
    value: int


@record("BHIIIHHI", Happened.FAILURE)
class Failure(NamedTuple):
    direction: Direction
    error: Error
    serial: int
    id: int
    gen: int
    index: int
    detail: int
    value: int


@record("IIII")
class ErrorRecord(NamedTuple):
    error: Error
    serial: int
    detail: int
    value: int


@record("16sQQqIBBHBBBB4x")
class Handout(NamedTuple):
    token: bytes
    park: int
    cookie: int
    parked: int
    flags: ParkFlag
    read: Code
    write: Code
    note_length: int
    name_length: int
    group_length: int
    local_length: int
    peer_length: int


@record("qqII19Qq7Q")
class Status(NamedTuple):
    now: int
    started: int
    pid: int
    protocol: int
    connections: int
    watches: int
    waiting: int
    timers: int
    deadlines: int
    overdue: int
    fds: int
    fds_max: int
    turns: int
    events: int
    entries: int
    messages: int
    coalesced: int
    stale: int
    breaks: int
    accepted: int
    refused: int
    failures: int
    turn_longest: int
    began: int
    restarts: int
    left_behind: int
    parks: int
    parks_handed: int
    parks_ready: int
    holders: int
    holders_left: int


@record("QQqIIII10Q")
class SessionRow(NamedTuple):
    cursor: int
    session: int
    since: int
    pid: int
    uid: int
    gid: int
    flags: SessionFlag
    watches: int
    waiting: int
    timers: int
    ready: int
    requests: int
    events: int
    entries: int
    messages: int
    coalesced: int
    stale: int


@record("QQQqqqqqQIIIIiBBBBBBBBI")
class WatchRow(NamedTuple):
    cursor: int
    session: int
    cookie: int
    since: int
    read_since: int
    write_since: int
    read_deadline: int
    write_deadline: int
    fired: int
    id: int
    gen: int
    pid: int
    uid: int
    fd: int
    kind: Kind
    interest: Direction
    mode: Mode
    lane: int
    read_state: SlotState
    write_state: SlotState
    read_code: Code
    write_code: Code
    flags: WatchFlag


@record("QQQqqIIIII4x")
class TimerRow(NamedTuple):
    cursor: int
    session: int
    cookie: int
    when: int
    period: int
    id: int
    gen: int
    pid: int
    uid: int
    count: int


@record("QQQII")
class QuotaRow(NamedTuple):
    cursor: int
    used: int
    limit: int
    uid: int
    quota: Quota


@record("QQQqqIIIIBBBBHBBBBBBi")
class ParkRow(NamedTuple):
    cursor: int
    park: int
    cookie: int
    parked: int
    deadline: int
    uid: int
    flags: ParkFlag
    pid: int
    worker_pid: int
    state: ParkState
    ready: Direction
    timed_out: int
    kind: Kind
    note_length: int
    name_length: int
    group_length: int
    local_length: int
    peer_length: int
    interest: Direction
    shared: int
    fd: int

    @property
    def tail_lengths(self):
        """Of name, group and the two addresses: notes are not shown."""
        return self.name_length, self.group_length, self.local_length, self.peer_length


@record("QQQQqQQIII4x")
class GroupRow(NamedTuple):
    cursor: int
    parks: int
    ready: int
    handed: int
    oldest: int
    credit: int
    capacity: int
    uid: int
    workers: int
    group_length: int


class Layout(NamedTuple):
    """What section 6.1 says of one type."""

    record: Optional[type]
    least: int
    most: int
    tail_max: int = 0


NAMES_MAX = 2 * NAME_MAX
PARK_MAX = NAMES_MAX + NOTE_MAX + 2 * ADDRESS_MAX

LAYOUTS = {
    Type.HELLO: Layout(Hello, 1, 1, TEXT_MAX),
    Type.SYNC: Layout(None, 0, 0),
    Type.BREAK: Layout(Break, 1, RECORDS_MAX),
    Type.IS_POLL_DESCRIPTOR: Layout(IsPollDescriptor, 1, RECORDS_MAX),
    Type.WATCH: Layout(Watch, 1, RECORDS_MAX),
    Type.UNWATCH: Layout(Unwatch, 1, RECORDS_MAX),
    Type.WAIT: Layout(Slots, 1, RECORDS_MAX),
    Type.UNWAIT: Layout(Slots, 1, RECORDS_MAX),
    Type.RESET: Layout(Slots, 1, RECORDS_MAX),
    Type.DEADLINE: Layout(Deadline, 1, RECORDS_MAX),
    Type.EVICT: Layout(Slots, 1, RECORDS_MAX),
    Type.TIMER_SET: Layout(TimerSet, 1, RECORDS_MAX),
    Type.TIMER_STOP: Layout(TimerStop, 1, RECORDS_MAX),
    Type.PARK: Layout(Park, 1, 1, PARK_MAX),
    Type.CLAIM: Layout(Token, 1, RECORDS_MAX),
    Type.TAKE: Layout(Take, 1, 1, NAMES_MAX),
    Type.DROP: Layout(Take, 1, 1, NAMES_MAX),
    Type.ACKNOWLEDGE: Layout(Held, 1, RECORDS_MAX),
    Type.HELD: Layout(Held, 1, RECORDS_MAX),
    Type.ATTACH: Layout(Attach, 1, 1, NAME_MAX),
    Type.DETACH: Layout(Attach, 1, 1, NAME_MAX),
    Type.GET_STATUS: Layout(None, 0, 0),
    Type.LIST_SESSIONS: Layout(List, 1, 1),
    Type.LIST_WATCHES: Layout(List, 1, 1),
    Type.LIST_TIMERS: Layout(List, 1, 1),
    Type.LIST_QUOTAS: Layout(List, 1, 1),
    Type.LIST_PARKS: Layout(List, 1, 1),
    Type.LIST_GROUPS: Layout(List, 1, 1),
    Type.MONITOR: Layout(Monitor, 1, 1),
    Type.UPGRADE: Layout(None, 0, 0),
    Type.WELCOME: Layout(Welcome, 1, 1, TEXT_MAX),
    Type.READY: Layout(Entry, 1, RECORDS_MAX),
    Type.ERROR: Layout(ErrorRecord, 1, 1, TEXT_MAX),
    Type.HANDOUT: Layout(Handout, 1, 1, PARK_MAX),
    Type.STATUS: Layout(Status, 1, 1, TEXT_MAX),
    Type.SESSIONS: Layout(SessionRow, 0, RECORDS_MAX),
    Type.WATCHES: Layout(WatchRow, 0, RECORDS_MAX),
    Type.TIMERS: Layout(TimerRow, 0, RECORDS_MAX),
    Type.QUOTAS: Layout(QuotaRow, 0, RECORDS_MAX),
    Type.PARKS: Layout(ParkRow, 0, RECORDS_MAX, MESSAGE_MAX),
    Type.GROUPS: Layout(GroupRow, 0, RECORDS_MAX, MESSAGE_MAX),
}

READY_RECORDS = {cls.happened: cls
                 for cls in (Entry, TimerEntry, BreakEntry, ParkEntry, Answer, Failure)}
ROWS = (Type.SESSIONS, Type.WATCHES, Type.TIMERS, Type.QUOTAS, Type.PARKS, Type.GROUPS)
REPLIES = {
    Type.HELLO: Type.WELCOME,
    Type.GET_STATUS: Type.STATUS,
    Type.LIST_SESSIONS: Type.SESSIONS,
    Type.LIST_WATCHES: Type.WATCHES,
    Type.LIST_TIMERS: Type.TIMERS,
    Type.LIST_QUOTAS: Type.QUOTAS,
    Type.LIST_PARKS: Type.PARKS,
    Type.LIST_GROUPS: Type.GROUPS,
}
ALWAYS_ANSWERED = (Type.IS_POLL_DESCRIPTOR, Type.UPGRADE)
MUST_ASK = (Type.RESET, Type.PARK, Type.TAKE, Type.ACKNOWLEDGE)


class Message(NamedTuple):
    """A message of either side."""

    type: Type
    records: tuple = ()
    tail: bytes = b""
    flags: Flag = Flag(0)
    serial: int = 0
    fds: tuple = ()

    @property
    def answered(self):
        """Whether an ANSWER or a reply follows."""
        return bool(self.flags & Flag.ANSWER or self.type in REPLIES
                    or self.type in ALWAYS_ANSWERED)

    @property
    def texts(self):
        """The names of features in HELLO and WELCOME, the three texts of STATUS."""
        text = self.tail.decode("utf-8", "replace")
        return text.split("\0")[:-1] if self.type is Type.STATUS else text.split()

    @property
    def parts(self):
        """The tail of PARK, TAKE or HANDOUT: bytes by name of what they are."""
        item, = self.records
        names = [name for name in ("name", "group", "note", "local", "peer")
                 if hasattr(item, name + "_length")]
        return dict(zip(names, _cut(self.tail, [getattr(item, name + "_length")
                                                for name in names])))


def _cut(tail, lengths):
    found, start = [], 0
    for length in lengths:
        found.append(tail[start:start + length])
        start += length
    return found


def encode(*messages):
    """The bytes of one datagram."""
    parts = []
    for message in messages:
        parts.append(HEADER.pack(message.type, message.flags, message.serial,
                                 len(message.records), len(message.tail)))
        parts.extend(item.pack() for item in message.records)
        parts.append(message.tail + bytes(-len(message.tail) % 8))
    return b"".join(parts)


def parse_requests(data):
    """The requests of a client's datagram; ValueError if it is malformed (section 5.1)."""
    messages = []
    while data:
        message, size = _parse_one(data)
        if message.type >= 0x80:
            raise ValueError(f"{message.type.name} came from a client")
        messages.append(message)
        data = data[size:]
    if not messages:
        raise ValueError("an empty datagram")
    return messages


def parse_message(data, fds=()):
    """The message of a daemon's datagram; ValueError if it is malformed."""
    message, size = _parse_one(data)
    if message.type < 0x80:
        raise ValueError(f"{message.type.name} came from the daemon")
    if size != len(data):
        raise ValueError(f"bytes after {message.type.name}")
    if len(fds) != (message.type is Type.HANDOUT):
        raise ValueError(f"{message.type.name} came with {len(fds)} fds")
    return message._replace(fds=tuple(fds))


def _parse_one(data):
    if len(data) < HEADER.size:
        raise ValueError("a header is cut short")
    number, flags, serial, count, tail_size = HEADER.unpack_from(data)
    type_, flags = Type(number), Flag(flags)
    layout = LAYOUTS[type_]
    if not layout.least <= count <= layout.most:
        raise ValueError(f"{type_.name} with {count} records")
    if tail_size > layout.tail_max:
        raise ValueError(f"{type_.name} with a tail of {tail_size} bytes")
    allowed = Flag.ANSWER if type_ < 0x80 else Flag.MORE if type_ in ROWS else Flag(0)
    if flags & ~allowed:
        raise ValueError(f"{type_.name} with flags {flags!r}")
    width = layout.record.struct.size if layout.record else 0
    end = HEADER.size + count * width
    size = end + tail_size + -tail_size % 8
    if len(data) < size:
        raise ValueError(f"{type_.name} is cut short")
    if any(data[end + tail_size:size]):
        raise ValueError("padding that is not zero")
    records = []
    for offset in range(HEADER.size, end, width or 1):
        cls = layout.record
        if type_ is Type.READY:
            cls = READY_RECORDS.get(data[offset])
            if cls is None:
                raise ValueError(f"an unknown record of READY, kind {data[offset]}")
        records.append(cls.unpack(data[offset:offset + width]))
    tail = data[end:end + tail_size]
    for item in records:
        _check(item, tail)
    if type_ is Type.PARKS and sum(sum(row.tail_lengths) for row in records) != len(tail):
        raise ValueError("PARKS: lengths that do not add up to the tail")
    if type_ is Type.GROUPS and sum(row.group_length for row in records) != len(tail):
        raise ValueError("GROUPS: lengths that do not add up to the tail")
    if type_ in (Type.HELLO, Type.ERROR) and b"\0" in tail:
        raise ValueError("a zero byte in the text")
    if type_ is Type.STATUS and (tail.count(b"\0") != 3 or not tail.endswith(b"\0")):
        raise ValueError("STATUS has other than three texts")
    if type_ in MUST_ASK and not flags & Flag.ANSWER:
        raise ValueError(f"{type_.name} asks for no answer")
    return Message(type_, tuple(records), tail, flags, serial), size


def _check(item, tail):
    """What a layout cannot express."""
    lengths = [value for name, value in zip(item._fields, item) if name.endswith("_length")]
    if lengths and sum(lengths) != len(tail) and not isinstance(item, (ParkRow, GroupRow)):
        raise ValueError(f"{type(item).__name__}: lengths that do not add up to the tail")
    for name in ("note", "local", "peer"):
        limit = NOTE_MAX if name == "note" else ADDRESS_MAX
        if getattr(item, name + "_length", 0) > limit:
            raise ValueError(f"{type(item).__name__}: {name} is too long")
    if isinstance(item, (Hello, Welcome)) and item.magic != MAGIC:
        raise ValueError("another magic")
    if isinstance(item, TimerEntry) and not item.count:
        raise ValueError("a timer entry without an expiration")
    if isinstance(item, ParkRow) and item.timed_out > 1:
        raise ValueError("a row of PARKS that timed out more than once")
    if isinstance(item, ParkRow) and item.shared > 1:
        raise ValueError("a row of PARKS that is shared more than once")
    if isinstance(item, ParkEntry):
        if not item.read and not item.write:
            raise ValueError("a park's entry that says nothing")
        if (item.read | item.write) & ~(Code.READY | Code.TIMEOUT):
            raise ValueError("a park's entry with a code that it cannot have")
    if isinstance(item, Entry):
        if not item.read and not item.write:
            raise ValueError("an entry that says nothing")
        if item.mode is Mode.WAIT and max(item.read.bit_count(), item.write.bit_count()) > 1:
            raise ValueError("an entry in wait mode with two codes in a direction")
        if item.write & Code.NOT_POLLABLE:
            raise ValueError("not-pollable for writing")


# Requests. Those with several records are made with Message itself.

def sync():
    return Message(Type.SYNC, flags=Flag.ANSWER)


def break_(session=0):
    return Message(Type.BREAK, (Break(session),))


def is_poll_descriptor(*fds):
    return Message(Type.IS_POLL_DESCRIPTOR, (IsPollDescriptor(),) * len(fds), fds=fds)


def watch(fd, id, gen=1, interest=BOTH, mode=Mode.WAIT, cookie=0):
    return Message(Type.WATCH, (Watch(cookie, id, gen, _fileno(fd), interest, mode),), fds=(fd,))


def unwatch(id, gen=1, fd=None):
    if fd is None:
        return Message(Type.UNWATCH, (Unwatch(id, gen),))
    return Message(Type.UNWATCH, (Unwatch(id, gen, UnwatchFlag.FD),), fds=(fd,))


def wait(id, directions=READ, gen=1):
    return Message(Type.WAIT, (Slots(id, gen, directions),))


def unwait(id, directions=READ, gen=1):
    return Message(Type.UNWAIT, (Slots(id, gen, directions),))


def reset(id, directions=READ, gen=1):
    """To be answered before the fd is read (section 11.5, rule 4)."""
    return Message(Type.RESET, (Slots(id, gen, directions),), flags=Flag.ANSWER)


def evict(id, gen=1):
    return Message(Type.EVICT, (Slots(id, gen, BOTH),))


def deadline(id, when, directions=BOTH, gen=1, stamp=0, relative=False):
    flags = TimeFlag.RELATIVE if relative else TimeFlag(0)
    return Message(Type.DEADLINE, (Deadline(when, id, gen, directions, flags, stamp),))


def timer_set(id, when, period=0, gen=1, cookie=0, relative=False):
    flags = TimeFlag.RELATIVE if relative else TimeFlag(0)
    return Message(Type.TIMER_SET, (TimerSet(cookie, when, period, id, gen, flags),))


def timer_stop(id, gen=1):
    return Message(Type.TIMER_STOP, (TimerStop(id, gen),))


def park(fd, token, *, name=b"", group=b"", note=b"", local=b"", peer=b"", interest=READ,
         cookie=0, deadline=0, flags=ParkFlag(0)):
    """To be answered before the fd is closed (section 11.9, rule 2). Without an fd: None."""
    item = Park(token, cookie, deadline, flags, -1 if fd is None else _fileno(fd), len(note),
                len(name), len(group), len(local), len(peer), interest)
    return Message(Type.PARK, (item,), name + group + note + local + peer, flags=Flag.ANSWER,
                   fds=() if fd is None else (fd,))


def claim(*tokens):
    return Message(Type.CLAIM, tuple(map(Token, tokens)))


def take(*, name=None, group=b"", token=None, number=None):
    """By name and group, by token, or by number."""
    return _by(Type.TAKE, name, group, token, number)


def drop(*, name=None, group=b"", token=None, number=None):
    return _by(Type.DROP, name, group, token, number)


def _by(type_, name, group, token, number):
    if name is not None:
        item, tail = Take(name_length=len(name), group_length=len(group)), name + group
    elif token is not None:
        item, tail = Take(token, by=By.TOKEN), b""
    else:
        item, tail = Take(park=number, by=By.ID), b""
    return Message(type_, (item,), tail, flags=Flag.ANSWER)


def acknowledge(*tokens):
    return Message(Type.ACKNOWLEDGE, tuple(map(Held, tokens)), flags=Flag.ANSWER)


def held(*statements):
    """Of pairs: a token, and whether it is held (section 12.6)."""
    return Message(Type.HELD, tuple(Held(token, int(has)) for token, has in statements),
                   flags=Flag.ANSWER)


NO_TOKEN = bytes(TOKEN_SIZE)


def attach(group, more, capacity=None):
    """Their HANDOUTs come at any time, with serial 0. Without a capacity: no more than `more`."""
    item = Attach(more, more if capacity is None else capacity, len(group))
    return Message(Type.ATTACH, (item,), group, flags=Flag.ANSWER)


def detach(group):
    return Message(Type.DETACH, (Attach(0, 0, len(group)),), group, flags=Flag.ANSWER)


def get_status():
    return Message(Type.GET_STATUS)


def list_rows(type_, **filters):
    """LIST_SESSIONS and its like; filters are the fields of List."""
    return Message(type_, (List(**filters),))


def _fileno(fd):
    return fd if isinstance(fd, int) else fd.fileno()


class ConnectionEnded(Exception):
    """The daemon is gone, or has ended the connection."""


class Fatal(ConnectionEnded):
    """The daemon sent ERROR."""

    def __init__(self, message):
        self.record = message.records[0]
        self.error = self.record.error
        self.text = message.tail.decode("utf-8", "replace")
        super().__init__(f"{self.error.name}: {self.text!a}")


class Parked(NamedTuple):
    """A row of PARKS with its part of the tail."""

    row: ParkRow
    name: bytes
    group: bytes
    local: bytes
    peer: bytes


class Group(NamedTuple):
    """A row of GROUPS with its name."""

    row: GroupRow
    name: bytes


class Refused(Exception):
    """A request was refused, at least in part."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.error = outcome.error
        super().__init__(f"{outcome.answer.request.name}: {outcome.error.name}")


class Outcome(NamedTuple):
    """The answer to a request, and its refused records."""

    answer: Answer
    failures: tuple

    @property
    def error(self):
        return self.answer.error

    @property
    def value(self):
        return self.answer.value

    def check(self):
        if self.error is not Error.OK:
            raise Refused(self)
        return self


def addresses():
    """Where a daemon may be, best first (section 3.1)."""
    safe = os.getuid() == os.geteuid() and os.getgid() == os.getegid()
    if safe and os.environ.get("READYD_SOCKET"):
        return [os.environ["READYD_SOCKET"]]
    found = ["/run/readyd/socket"]
    if safe and os.environ.get("XDG_RUNTIME_DIR"):
        found.insert(0, os.environ["XDG_RUNTIME_DIR"] + "/readyd/socket")
    return found


class Connection:
    """A socket to the daemon: whole datagrams, with their fds, never blocking in send."""

    def __init__(self, address=None, daemon_uids=()):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._connect([address] if address else addresses())
            uid = struct.unpack("3i", self.socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in (0, os.getuid(), *daemon_uids):
                raise PermissionError(f"the daemon runs as uid {uid}")
        except BaseException:
            self.close()
            raise
        self.socket.setblocking(False)

    def _connect(self, candidates):
        for number, address in enumerate(candidates, 1):
            name = "\0" + address[1:] if address.startswith("@") else address
            try:
                return self.socket.connect(name)
            except (FileNotFoundError, ConnectionRefusedError):
                if number == len(candidates):
                    raise

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.socket.fileno()

    def post(self, data, fds=()):
        """Sends one datagram; BlockingIOError if there is no room."""
        numbers = array.array("i", [_fileno(fd) for fd in fds])
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if fds else []
        self.socket.sendmsg([data], control, socket.MSG_NOSIGNAL)

    def take(self, timeout=None):
        """The next message; None when the time is up. Raises Fatal, or ConnectionEnded."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        if not poller.poll(None if timeout is None else max(0, timeout) * 1000):
            return None
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            data, control, _, _ = self.socket.recvmsg(MESSAGE_MAX, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # once, if the daemon left something unread: go on
            return self.take(timeout)
        fds = array.array("i")
        for level, type_, payload in control:
            if (level, type_) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[:len(payload) // fds.itemsize * fds.itemsize])
        if not data:
            raise ConnectionEnded("the daemon ended the connection")
        try:
            message = parse_message(data, fds)
        except ValueError:
            for fd in fds:
                os.close(fd)
            raise
        if message.type is Type.ERROR:
            raise Fatal(message)
        return message


class Client(Connection):
    """A session: sends requests, collects answers by serial, and events in their order.

    `events` holds entries, timers, breaks and parks; `failures` those of requests that asked for
    no answer; `handouts` the HANDOUTs as they come, whose fds are the caller's to close. If `trace`
    is a list, every record of READY and every reply is appended to it as it comes.
    """

    def __init__(self, address=None, *, features=FEATURES, timeout=5.0, daemon_uids=(),
                 versions=(PROTOCOL_LOWEST, PROTOCOL_HIGHEST), pipeline=(), handle=None):
        super().__init__(address, daemon_uids)
        self.timeout = timeout
        self.events = collections.deque()
        self.failures = []
        self.handouts = []
        self.trace = None
        self.records_max, self.fds_max, self.message_max = RECORDS_MAX, FDS_MAX, MESSAGE_MAX
        self._serial = 0
        self._expected = collections.deque()
        self._late = set()  # UPGRADE's, answered when it is known
        self._refused = collections.defaultdict(list)
        self._done = {}
        self.handle = os.urandom(TOKEN_SIZE) if handle is None else handle
        try:
            hello = Message(Type.HELLO, (Hello(MAGIC, *versions, self.handle),),
                            " ".join(features).encode())
            self.pipelined = self.send(hello, *pipeline)
            reply = self.reply(self.pipelined.pop(0))
        except BaseException:
            self.close()
            raise
        self.welcome, = reply.records
        self.features = frozenset(reply.texts)
        self.session = self.welcome.session
        self.clock_offset = self.welcome.now - time.monotonic_ns()
        self.records_max = min(RECORDS_MAX, self.welcome.records_max)
        self.fds_max = min(FDS_MAX, self.welcome.fds_max)
        self.message_max = min(MESSAGE_MAX, self.welcome.message_max)

    # Sending.

    def send(self, *requests, block=True):
        """Sends requests in one datagram, and returns their serials.

        Without `block` it is a BlockingIOError if there is no room; with it, messages are
        received until there is.
        """
        fds = [fd for request in requests for fd in request.fds]
        if len(fds) > self.fds_max or any(len(r.records) > self.records_max for r in requests):
            raise ValueError("more fds or records than the daemon takes at once")
        numbered = []
        for request in requests:
            self._serial = self._serial % 0xFFFFFFFF + 1
            numbered.append(request._replace(serial=self._serial))
        data = encode(*numbered)
        if len(data) > self.message_max:
            raise ValueError("a datagram that is too long")
        self._post(data, fds, block)
        for request in numbered:
            if request.type is Type.UPGRADE:
                self._late.add(request.serial)
            elif request.answered:
                self._expected.append(request.serial)
        return [request.serial for request in numbered]

    def _post(self, data, fds, block):
        while True:
            try:
                return self.post(data, fds)
            except BlockingIOError:
                if not block:
                    raise
            except (BrokenPipeError, ConnectionResetError):
                while True:  # the reason may be there to read
                    self.receive(self.timeout)
            poller = select.poll()
            poller.register(self.socket, select.POLLIN | select.POLLOUT)
            if not poller.poll(self.timeout * 1000):
                raise TimeoutError("the daemon neither reads nor writes")
            self.receive(0)

    def call(self, *requests):
        """Sends requests in one datagram, and awaits their outcomes: one, or a list of them."""
        serials = self.send(*(r._replace(flags=r.flags | Flag.ANSWER) for r in requests))
        outcomes = [self.outcome(serial) for serial in serials]
        return outcomes[0] if len(outcomes) == 1 else outcomes

    # Receiving.

    def receive(self, timeout=None):
        """Receives one message and sorts it; None when the time is up."""
        message = self.take(timeout)
        if message is None:
            return None
        if message.type is Type.READY:
            for item in message.records:
                self._sort(item)
        elif message.type is Type.HANDOUT:
            self.handouts.append(message)
        else:
            self._finish(message.serial, message)
        return message

    def _sort(self, item):
        if self.trace is not None:
            self.trace.append(item)
        if isinstance(item, Answer):
            self._finish(item.serial, Outcome(item, tuple(self._refused.pop(item.serial, ()))))
        elif not isinstance(item, Failure):
            self.events.append(item)
        elif item.serial in self._expected:
            self._refused[item.serial].append(item)
        else:
            self.failures.append(item)

    def _finish(self, serial, result):
        if self.trace is not None and isinstance(result, Message):
            self.trace.append(result)
        if serial in self._late:
            self._late.remove(serial)
        elif not self._expected or self._expected.popleft() != serial:
            raise ValueError(f"an answer to {serial}, out of order (section 3.5, O2)")
        self._done[serial] = result

    def _await(self, serial):
        limit = time.monotonic() + self.timeout
        while serial not in self._done:
            if not self.receive(limit - time.monotonic()) and time.monotonic() >= limit:
                raise TimeoutError("no answer")
        return self._done.pop(serial)

    def outcome(self, serial):
        """Awaits the ANSWER to a request."""
        result = self._await(serial)
        if not isinstance(result, Outcome):
            raise ValueError(f"{result.type.name} where an ANSWER was due")
        return result

    def reply(self, serial):
        """Awaits the reply to a request that has one of its own."""
        result = self._await(serial)
        return result if isinstance(result, Message) else result.check()

    def next_event(self, timeout=None):
        """The next entry, timer or break; None when the time is up."""
        limit = None if timeout is None else time.monotonic() + timeout
        while not self.events:
            left = None if limit is None else limit - time.monotonic()
            if not self.receive(left) and left is not None and left <= 0:
                return None
        return self.events.popleft()

    def handout(self, serial):
        """Awaits the HANDOUT of a TAKE that was answered with OK, or, with 0, the next one of an
        ATTACH: the message, with its fd."""
        limit = time.monotonic() + self.timeout
        while True:
            for message in self.handouts:
                if message.serial == serial:
                    self.handouts.remove(message)
                    return message
            if not self.receive(limit - time.monotonic()) and time.monotonic() >= limit:
                raise TimeoutError("no HANDOUT")

    def read_to_the_end(self):
        """What an ended connection still has (section 12.2): sorted as ever, until its end."""
        try:
            while self.receive(self.timeout):
                pass
        except ConnectionEnded:
            return
        raise TimeoutError("the connection does not end")

    def now(self):
        """The daemon's clock, in ns."""
        return time.monotonic_ns() + self.clock_offset

    # What most clients need: sent alone, awaited, and an exception if refused.

    def sync(self):
        self.call(sync()).check()

    def watch(self, fd, id, gen=1, interest=BOTH, mode=Mode.WAIT, cookie=0):
        self.call(watch(fd, id, gen, interest, mode, cookie)).check()

    def unwatch(self, id, gen=1, fd=None):
        self.call(unwatch(id, gen, fd)).check()

    def status(self):
        """Status, and the texts: version, backend, socket."""
        reply = self.reply(self.send(get_status())[0])
        return reply.records[0], reply.texts

    def rows(self, type_, **filters):
        """All rows of LIST_SESSIONS or its like, request after request."""
        cursor, more = 0, True
        while more:
            request = list_rows(type_, **{"cursor": cursor, **filters})
            filters.pop("cursor", None)
            reply = self.reply(self.send(request)[0])
            for row in reply.records:
                cursor = row.cursor
                if getattr(row, "session", 1):
                    yield row
            more = bool(reply.flags & Flag.MORE)

    def sessions(self, **filters):
        return self.rows(Type.LIST_SESSIONS, **filters)

    def watches(self, **filters):
        return self.rows(Type.LIST_WATCHES, **filters)

    def timers(self, **filters):
        return self.rows(Type.LIST_TIMERS, **filters)

    def quotas(self, **filters):
        return self.rows(Type.LIST_QUOTAS, **filters)

    def parks(self, **filters):
        """Parked: rows, each with its name, group and addresses."""
        cursor, more = 0, True
        while more:
            reply = self.reply(self.send(list_rows(Type.LIST_PARKS, cursor=cursor, **filters))[0])
            texts = iter(_cut(reply.tail, [n for row in reply.records for n in row.tail_lengths]))
            for row in reply.records:
                cursor = row.cursor
                found = Parked(row, *(next(texts) for _ in range(4)))
                if row.park:
                    yield found
            more = bool(reply.flags & Flag.MORE)

    def groups(self, **filters):
        """Groups: rows, each with its name."""
        cursor, more = 0, True
        while more:
            reply = self.reply(self.send(list_rows(Type.LIST_GROUPS, cursor=cursor, **filters))[0])
            names = iter(_cut(reply.tail, [row.group_length for row in reply.records]))
            for row in reply.records:
                cursor = row.cursor
                found = Group(row, next(names))
                if found.name:
                    yield found
            more = bool(reply.flags & Flag.MORE)
