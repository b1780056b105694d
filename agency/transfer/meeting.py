"""How two proxies meet: connections of the data port, and what is said on each before the first frame.

Who connects says, on each stream, the hello (:mod:`agency.transfer.wire`) and the size of its content (8 bytes; 0 if it
is to receive). It is answered with 0, 0 and the other's size (1 + 4 + 8 bytes), or with 1 and the length of a problem,
which follows as JSON.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agency.problems import refused
from agency.transfer.identity import Peer, peer_of
from agency.transfer.wire import Lost, bad_peer, hear_hello, say_hello

if TYPE_CHECKING:
    from descriptors.messages import Problem

PATIENCE = 10.0
"""Seconds for a handshake, and to say what a stream is for."""
ANSWERED_WITHIN = 60.0
"""Seconds for the other proxy to open its end: a disk image may need some."""
MAX_SIZE = 2**60
_LINGER = 1.0
_SIZE = struct.Struct(">Q")
_ANSWER = struct.Struct(">BIQ")
_MAX_PROBLEM = 64 * 1024


@dataclass(frozen=True)
class Hello:
    """What a stream is for."""

    stream: ssl.SSLSocket
    peer: Peer
    token: bytes
    number: int
    of: int
    size: int

    def __repr__(self) -> str:
        return f"Hello({self.peer!r}, {self.number} of {self.of})"


def hear(connection: socket.socket, context: ssl.SSLContext) -> Hello:
    """What a new connection is for; it has :data:`PATIENCE` for the handshake, and as long to say it."""
    connection.settimeout(PATIENCE)
    stream = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        _shake_hands(stream)
        token, number, of = hear_hello(stream, PATIENCE)
        (size,) = _SIZE.unpack(_read(stream, _SIZE.size, PATIENCE))
        if size > MAX_SIZE:
            raise bad_peer("has content of an impossible size")
        return Hello(stream, peer_of(stream), token, number, of, size)
    except BaseException:
        stream.close()
        raise


def _shake_hands(stream: ssl.SSLSocket) -> None:
    """Where it fails, the other side is given time to read why, which it would not if we hung up on what it says."""
    try:
        stream.do_handshake()
    except ssl.SSLError:
        with suppress(OSError):
            socket.socket.shutdown(stream, socket.SHUT_WR)
            end = time.monotonic() + _LINGER
            while (left := end - time.monotonic()) > 0:
                stream.settimeout(left)
                if not socket.socket.recv(stream, 4096):
                    break
        raise


class Called:
    """The other proxy has connected: all its streams are here."""

    def __init__(self, hellos: list[Hello]) -> None:
        first = hellos[0]
        self.peer = first.peer
        self._size = first.size
        self._agreed = False
        self._streams = [each.stream for each in sorted(hellos, key=lambda each: each.number)]

    @property
    def streams(self) -> int:
        """How many there are."""
        return len(self._streams)

    def size(self) -> int:
        """Of the other's content."""
        return self._size

    def open(self, size: int) -> list[ssl.SSLSocket]:
        """Agree, saying the size of our content; gives the streams."""
        self._agreed = True
        for stream in self._streams:
            stream.settimeout(PATIENCE)
            stream.sendall(_ANSWER.pack(0, 0, size))
        return self._streams

    def refuse(self, problem: Problem) -> None:
        """Say why not, unless we have agreed already."""
        if self._agreed:
            return
        said = json.dumps(problem.model_dump(mode="json")).encode()
        for stream in self._streams:
            with suppress(OSError):
                stream.settimeout(PATIENCE)
                stream.sendall(_ANSWER.pack(1, len(said), 0) + said)

    def close(self) -> None:
        """Hang up."""
        for stream in self._streams:
            stream.close()


class Calling:
    """We connect to the other proxy."""

    def __init__(
        self,
        address: tuple[str, int],
        token: bytes,
        context: ssl.SSLContext,
        count: int,
        allowed: Callable[[Peer], None] | None = None,
    ) -> None:
        """``address``: host and data port. ``allowed`` raises for a proxy that it is not to be."""
        self._address, self._token, self._context, self._count = address, token, context, count
        self._allowed = allowed
        self._streams: list[ssl.SSLSocket] = []
        self._size = 0

    @property
    def peer(self) -> Peer:
        """Who answers there, once we have connected."""
        return peer_of(self._streams[0])

    def size(self) -> int:
        """Connect to receive: gives the size of the other's content."""
        self.open(0)
        return self._size

    def open(self, size: int) -> list[ssl.SSLSocket]:
        """Connect, if we have not, saying the size of our content; gives the streams."""
        if not self._streams:
            try:
                for number in range(self._count):
                    self._connect(number, size)
                for stream in self._streams:
                    self._size = _answer(stream)
            except BaseException:
                self.close()
                raise
        return self._streams

    def refuse(self, problem: Problem) -> None:
        """Nothing: who is called does not wait for an answer."""

    def close(self) -> None:
        """Hang up."""
        for stream in self._streams:
            stream.close()

    def _connect(self, number: int, size: int) -> None:
        host, port = self._address
        try:
            connection = socket.create_connection(self._address, PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the hello's end waits 40 ms
            stream = self._context.wrap_socket(connection, server_hostname=host)
            self._streams.append(stream)
            if self._allowed:
                self._allowed(peer_of(stream))
            say_hello(stream, self._token, number, self._count)
            stream.sendall(_SIZE.pack(size))
        except ssl.SSLCertVerificationError as error:
            raise bad_peer(f"at {host}:{port} is not to be believed: {error.verify_message}") from None
        except OSError as error:
            raise Lost(f"no stream to {host}:{port}: {error.strerror or error}") from error


def _answer(stream: ssl.SSLSocket) -> int:
    """The size that the other proxy answers with; its problem, if it has one, is raised."""
    code, length, size = _ANSWER.unpack(_read(stream, _ANSWER.size, ANSWERED_WITHIN))
    if code == 0 and size <= MAX_SIZE:
        return int(size)
    if code != 1 or length > _MAX_PROBLEM:
        raise bad_peer("answered with something else than this version's answer")
    try:
        raise refused(json.loads(_read(stream, length, PATIENCE)))
    except (ValueError, RecursionError):
        raise bad_peer("answered with a problem that is none") from None


def _read(stream: ssl.SSLSocket, length: int, seconds: float) -> bytes:
    """Just so many bytes, in so many seconds."""
    end = time.monotonic() + seconds
    data = b""
    try:
        while len(data) < length:
            stream.settimeout(max(end - time.monotonic(), 0.001))
            some = stream.recv(length - len(data))
            if not some:
                raise Lost("the other transfer proxy hung up")
            data += some
    except ssl.SSLError as error:
        raise bad_peer(f"ended the conversation: {error.reason or error}") from error
    except OSError as error:
        raise Lost(f"the other transfer proxy does not answer: {error.strerror or error}") from error
    return data
