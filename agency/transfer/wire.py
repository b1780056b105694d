"""Frames on a stream (docs/transfer.md): how they are laid out, and go through a socket without ever hanging."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, cast

import zstandard

from agency.problems import AgencyError, refuse
from agency.transfer.ends import UNIT
from agency.transfer.manifest import DIGEST, UNIT_BLOCKS
from agency.transfer.pace import Share

if TYPE_CHECKING:
    from descriptors.messages import Problem

TOKEN = 32
"""Bytes of a transfer token."""
MAX_STREAMS = 8
MAX_STATEMENT = 64 * 1024
"""Bytes that the destination's signed statement, or a problem, may have."""
UNIT_HEAD = UNIT_BLOCKS * (1 + DIGEST + 8)
"""Bytes that may stand before a unit's data."""

_HELLO = struct.Struct(f">4sB{TOKEN}sBB")
_MAGIC, _VERSION = b"CATP", 1
HEADER = struct.Struct(">BBHIQ")
_CHUNK = 256 * 1024
"""Bytes that are given to a socket at once: TLS tells only when all of them are gone."""
_MOST_WINDOW = 8 * UNIT
_TICK = 200
"""Milliseconds, at most, until a thread that waits for a socket notices that it should not any more."""
_SLOWEST = 1024
"""Bytes a second: who is slower than that counts as gone."""


BEGIN = struct.Struct(">QI")
"""What a BEGIN says: bytes of the content, and of a block."""
NUMBER = struct.Struct(">Q")
"""What a SKIP says (how many units), and a DONE (microseconds that its thread has waited for the socket)."""


class Kind(IntEnum):
    """What a frame is."""

    HAVE = 1
    BEGIN = 2
    UNIT = 3
    SKIP = 4
    DONE = 5
    END = 6
    RESULT = 7
    WAIT = 8


LONGEST = {
    Kind.HAVE: UNIT + UNIT // 64,
    Kind.BEGIN: BEGIN.size,
    Kind.UNIT: UNIT_HEAD + UNIT,
    Kind.SKIP: NUMBER.size,
    Kind.DONE: NUMBER.size,
    Kind.END: DIGEST,
    Kind.RESULT: MAX_STATEMENT,
    Kind.WAIT: 0,
}
"""Bytes that may follow a frame's header."""


class BlockKind(IntEnum):
    """What the sender says of a block."""

    ZERO = 0
    SAME = 1
    COPY = 2
    DATA = 3


PACKED = 1
"""Flag of a unit: its data is compressed."""
UNREADABLE = 1
"""Flag of the last, empty HAVE: nothing may be sent as a copy."""
PROBLEM = 1
"""Flag of a result: it is a problem."""
SAME_UNITS = 1
"""Flag of a SKIP: the units are what the destination has; without it they are zeros."""


class Frame(NamedTuple):
    """A frame's header."""

    kind: Kind
    flags: int
    length: int
    unit: int


class Stopped(Exception):
    """Another thread has ended the transfer."""


class Lost(AgencyError):
    """The other side is gone, or as good as gone."""

    def __init__(self, how: str) -> None:
        remedy = "see that the network and the other transfer proxy are up, and start it again: it goes on from here"
        super().__init__(refuse("link-lost", how, remedy, retryable=True).problem)


class PeerRefused(AgencyError):
    """The other side has given up, and says why."""


def bad_peer(what: str) -> AgencyError:
    """The other side does not keep to the protocol."""
    return refuse(
        "bad-peer",
        f"the other transfer proxy {what}",
        "see that both proxies are of the same version, and whose they are",
    )


def say_hello(stream: socket.socket, token: bytes, number: int, of: int) -> None:
    """Begin a stream: which transfer it belongs to, and which of its streams it is. The socket has a timeout."""
    stream.sendall(_HELLO.pack(_MAGIC, _VERSION, token, number, of))


def hear_hello(stream: socket.socket, seconds: float) -> tuple[bytes, int, int]:
    """What a new stream says: token, its number and how many there are. It has so many seconds to say it.

    Raises :class:`~agency.problems.AgencyError` ``bad-peer`` or ``link-lost``.
    """
    end = time.monotonic() + seconds
    said = bytearray()
    try:
        while len(said) < _HELLO.size:
            stream.settimeout(max(end - time.monotonic(), 0.001))
            some = stream.recv(_HELLO.size - len(said))
            if not some:
                raise Lost("a stream ended before it said what it is for")
            said += some
    except OSError as error:
        raise Lost("a stream did not say what it is for") from error
    magic, version, token, number, of = _HELLO.unpack(said)
    if (magic, version) != (_MAGIC, _VERSION) or not number < of <= MAX_STREAMS:
        raise bad_peer("began a stream with something else than a hello of this version")
    return token, number, of


class Stream:
    """One socket, used by one thread at a time. Whatever waits for the socket gives up when ``check`` raises, and, with
    :class:`Lost`, when the other side has not moved for ``idle`` seconds or is slower than 1 KiB/s."""

    def __init__(self, sock: socket.socket, *, idle: float, share: Share | None, check: Callable[[], None]) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = 0
        """Bytes that went through it, both ways."""
        self.waited = 0.0
        """Seconds spent in waiting for the socket, or for a share of the bandwidth, both ways."""
        self.clean = True
        """Whether what was written last is a whole frame."""
        self._sock = sock
        self._receive = _receiver(sock)
        self._idle = self._patience = idle
        self._share = share
        self._chunk = _CHUNK if share is None else share.chunk
        self._check = check
        self._header = memoryview(bytearray(HEADER.size))
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)

    def write(self, kind: Kind, *parts: bytes | memoryview, flags: int = 0, unit: int = 0) -> None:
        """Send a frame."""
        self.clean = False
        self._patience = self._idle
        self._write(HEADER.pack(kind, flags, 0, sum(map(len, parts)), unit) + (parts[0] if parts else b""))
        for part in parts[1:]:
            self._write(part)
        self.clean = True

    def next(self, *expected: Kind) -> Frame:
        """The header of the next frame, which is one of these kinds and not longer than it may be. Instead of any, the
        other side may say that it gives up (:class:`PeerRefused`)."""
        self._patience = self._idle
        self._read(self._header)
        return self._frame(expected)

    def next_if_any(self, *expected: Kind) -> Frame | None:
        """The same, if a frame has come."""
        if not self._anything():
            return None
        self._patience = self._idle
        return self._frame(expected) if self._read(self._header, if_any=True) else None

    def read(self, length: int) -> bytes:
        """What follows a header: at most 1 MiB and a little."""
        data = bytearray(length)
        self._read(memoryview(data))
        return bytes(data)

    def read_into(self, view: memoryview) -> None:
        """The same, into place."""
        self._read(view)

    def hurry(self, seconds: float) -> None:
        """Have no more patience than that from now on."""
        self._idle = seconds

    def cut(self) -> None:
        """End it for the other side, and for the thread that has it: any other may do so."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self, end: float) -> None:
        """End the stream; wait until then (:func:`time.monotonic`) for the other side to hear what was said last."""
        scrap = bytearray(65536)
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0 and self._readable.poll(left * 1000):
                if not socket.socket.recv_into(self._sock, scrap):
                    break
        except OSError:
            pass
        self._sock.close()

    def _anything(self) -> bool:
        """Whether something may have come: asking costs less than an error of TLS that says no, once a unit."""
        return bool(self._readable.poll(0)) or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    def _frame(self, expected: tuple[Kind, ...]) -> Frame:
        kind, flags, reserved, length, unit = HEADER.unpack(self._header)
        if kind == Kind.RESULT and flags == PROBLEM and length <= LONGEST[Kind.RESULT]:
            raise problem_of_peer(self.read(length))
        if reserved or kind not in expected:
            raise bad_peer("sent a frame that does not belong there")
        if length > LONGEST[Kind(kind)]:
            raise bad_peer("sent a frame that is longer than its kind allows")
        return Frame(Kind(kind), flags, length, unit)

    def _read(self, view: memoryview, *, if_any: bool = False) -> bool:
        """Fill it; or, if nothing is there and ``if_any``, do not, and say so."""
        at = counted = 0
        receive, chunk, size = self._receive, self._chunk, len(view)
        while at < size:
            try:
                got = receive(chunk, view[at:])
            except (BlockingIOError, ssl.SSLWantReadError):
                if if_any and not at:
                    return False
                self._moved(at - counted)
                counted = at
                self._wait(self._readable)
                continue
            except ssl.SSLWantWriteError:
                self._wait(self._writable)
                continue
            except OSError as error:
                raise Lost("the connection to the other transfer proxy broke") from error
            if not got:
                raise Lost("the other transfer proxy hung up")
            at += got
            if self._share is not None:
                self._moved(got)
                counted = at
        self._moved(at - counted)
        return True

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = self._sock.send(view[: self._chunk])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._writable)  # what is tried again then is the same, as TLS demands
                continue
            except ssl.SSLWantReadError:
                self._wait(self._readable)
                continue
            except OSError as error:
                raise Lost("the connection to the other transfer proxy broke") from error
            self._moved(sent)
            view = view[sent:]

    def _moved(self, size: int) -> None:
        self.wire += size
        self._patience = min(self._idle, self._patience + size / _SLOWEST)
        if self._share is not None and size:
            start = time.monotonic()
            self._share.take(size, self._check)
            self.waited += time.monotonic() - start

    def _wait(self, ready: select.poll) -> None:
        start = time.monotonic()
        ready.poll(min(_TICK, self._idle * 1000))
        waited = time.monotonic() - start
        self.waited += waited
        self._patience -= waited
        self._check()
        if self._patience <= 0:
            raise Lost(f"the other transfer proxy has not moved for {self._idle:g} seconds")


def _receiver(sock: socket.socket) -> Callable[[int, memoryview], int]:
    """What reads at most so many bytes into a buffer. TLS gives at most 16 KiB at once: that is done 64 times a unit,
    and ``read`` is a call less than ``recv_into``."""
    if isinstance(sock, ssl.SSLSocket):
        return cast("Callable[[int, memoryview], int]", sock.read)
    return lambda most, view: sock.recv_into(view[:most])


def unpack(zstd: zstandard.ZstdDecompressor, data: bytes | memoryview, most: int) -> bytes:
    """What was compressed, if that is one whole frame that says itself how long it is, and it is not more than ``most``
    bytes. Nothing is set aside before that is known."""
    try:
        says = zstandard.get_frame_parameters(data)
        if says.content_size > most or says.window_size > _MOST_WINDOW:
            raise bad_peer("sent compressed data that is longer than it may be")
        return zstd.decompress(data, max_output_size=most, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise bad_peer("sent compressed data that is damaged") from error


_UNKNOWN = "something went wrong there"
_IN_PUBLIC = {
    "cancelled": "the transfer was cancelled there",
    "disk-full": "the disk there is full",
    "source-changed": "the source changed while it was read",
    "link-lost": "it lost the connection",
    "peer-too-slow": "it has waited for too long",
    "system-refused": "the system there could not read or write",
}
"""What a peer is told of our problems: nothing of what is ours, as paths or names."""


def problem_for_peer(problem: Problem) -> bytes:
    """A problem, in a form that the other side may see."""
    message = problem.message if problem.code == "bad-peer" else _IN_PUBLIC.get(problem.code, _UNKNOWN)
    return json.dumps({"code": problem.code, "message": message, "retryable": problem.retryable}).encode()


def problem_of_peer(said: bytes) -> AgencyError:
    """The error to raise for what the other side says that went wrong with it."""
    try:
        told = json.loads(said)
        code, message, retryable = str(told["code"]), str(told["message"]), told["retryable"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return bad_peer("gave up, and said nothing that can be understood of why")
    words = "".join(each if each.isprintable() else " " for each in f"{message[:400]} ({code[:40]})")
    error = refuse(
        "peer-refused",
        f"the other transfer proxy gave up: {words}",
        "put right there what it says, and start the transfer again: it goes on from here",
        retryable=retryable,
    )
    return PeerRefused(error.problem)
