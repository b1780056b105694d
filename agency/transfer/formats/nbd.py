"""A disk that ``qemu-nbd`` opens for us: the formats that we do not read ourselves.

The NBD protocol, fixed newstyle with structured replies and ``base:allocation``, from its ``doc/proto.md``. No client
library is on PyPI (libnbd is not), and what is needed of the protocol is small: one request at a time over each of a
few connections.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from agency.problems import AgencyError, refuse
from agency.transfer.formats.qemu import Node, path, require, told

_CONNECTIONS = 4
_PATIENCE = 120
"""Seconds that one answer may take."""

_GREETING = b"NBDMAGICIHAVEOPT"
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPTION_REPLY = 0x3E889045565A9
_GO, _STRUCTURED_REPLY, _SET_META_CONTEXT = 7, 8, 10
_ACK, _INFO, _META_CONTEXT = 1, 3, 4
_INFO_EXPORT = 0

_REQUEST, _SIMPLE, _STRUCTURED = 0x25609513, 0x67446698, 0x668E33EF
_READ, _WRITE, _DISCONNECT, _FLUSH, _WRITE_ZEROES, _BLOCK_STATUS = 0, 1, 2, 3, 6, 7
_DATA, _HOLE, _STATUS, _FAILED = 1, 2, 5, 1 << 15
_LAST = 1
_READS_ZERO = 2
_ASKED_AT_ONCE = 1 << 30
"""Bytes whose allocation is asked for in one request."""
_LONGEST_ANSWER = 8 << 20


class NbdDisk:
    """A :class:`~agency.transfer.formats.disks.Disk` in an image that a ``qemu-nbd`` of its own has open."""

    def __init__(self, node: Node, files: Sequence[int], name: str, *, writing: bool = False) -> None:
        """``node``: the image as QEMU's block layer names it, its files being these open ones (``/proc/self/fd/…``).
        ``name``: what people know it as. Errors: ``tool-missing``, ``image-unreadable``."""
        self._server = _Server(node, files, name, writing=writing)
        try:
            self._lines = [_Line(connection) for connection in self._server.connections]
        except (OSError, _Broken) as error:
            failed = self._server.failed(error)
            self._server.close()
            raise failed from error
        self._idle: queue.LifoQueue[_Line] = queue.LifoQueue()
        for line in self._lines:
            self._idle.put(line)
        self.size = self._lines[0].size
        self._settled = False

    def extents(self) -> Iterator[tuple[int, int]]:
        """What ``base:allocation`` does not say to read as zeros."""
        start, end, offset = 0, 0, 0
        while offset < self.size:
            with self._line() as line:
                found = line.statuses(offset, min(_ASKED_AT_ONCE, self.size - offset))
            for length, flags in found:
                length = min(length, self.size - offset)
                if not flags & _READS_ZERO:
                    if offset > end and end > start:
                        yield start, end - start
                    start, end = (offset if offset > end else start), offset + length
                offset += length
        if end > start:
            yield start, end - start

    def read(self, offset: int, length: int) -> bytes:
        """:class:`~agency.transfer.formats.disks.Disk`."""
        with self._line() as line:
            return line.read(offset, length)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """:class:`~agency.transfer.formats.disks.Disk`."""
        with self._line() as line:
            line.order(_WRITE, offset, len(data), data)

    def zero(self, offset: int, length: int) -> None:
        """:class:`~agency.transfer.formats.disks.Disk`."""
        with self._line() as line:
            line.order(_WRITE_ZEROES, offset, length)

    def settle(self) -> None:
        """The image is flushed, and closed as its format wants it: its server ends."""
        if self._settled:
            return
        with self._line() as line:
            line.order(_FLUSH, 0, 0)
        self._hang_up()
        self._server.end()
        self._settled = True

    def interrupt(self) -> None:
        """End the server at once, in whatever order its image then is."""
        self._server.interrupt()

    def close(self) -> None:
        """End the server."""
        self._hang_up()
        self._server.close()

    def _hang_up(self) -> None:
        for line in self._lines:
            line.close()

    @contextmanager
    def _line(self) -> Iterator[_Line]:
        line = self._idle.get()
        try:
            yield line
        except _Refused as error:
            if error.code == errno.ENOSPC:
                raise OSError(error.code, os.strerror(error.code)) from error
            raise self._server.failed(error) from error
        except (OSError, _Broken) as error:
            raise self._server.failed(error) from error
        finally:
            self._idle.put(line)


class _Server:
    """A ``qemu-nbd`` that we alone can reach, and that ends when we do.

    It is given a listening socket (systemd's way), to which all connections are made before it starts: the socket's
    name is gone before anything can be had there, and once the last connection is closed, whatever closed it, the
    server ends in order. Not so while a connection has said nothing yet: therefore it is asked to end when the thread
    that starts it does, which lives as long as the transfer; a process that was gone before it could ask for that
    starts none.
    """

    def __init__(self, node: Node, files: Sequence[int], name: str, *, writing: bool) -> None:
        require("qemu-nbd")
        require("setpriv", "util-linux")
        self._name, self._files = name, files
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server
        listener, self.connections = _connected()
        access = ["--discard=unmap"] if writing else ["--read-only"]
        order = ["qemu-nbd", f"--shared={_CONNECTIONS}", *access, f"json:{json.dumps(node)}"]
        order, spare = _without_3(order, files)
        wrapper = '[ "$PPID" = "$0" ] && LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
        with listener:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "sh", "-c", wrapper, str(os.getpid()), *order],
                stdin=listener.fileno(),
                stdout=self._words,
                stderr=self._words,
                pass_fds=[*files, *spare],
            )
        for file in spare:
            os.close(file)

    def end(self) -> None:
        """It has nobody any more: see that it ends, having closed the image."""
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            self._kill()
            raise refuse("image-unusable", f"qemu-nbd does not let go of {self._name}", "transfer it again") from error
        if code:
            raise self.failed(f"qemu-nbd ended with {code}")

    def interrupt(self) -> None:
        """Whoever waits for an answer, or for its end, waits no more; any thread may call this."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._process.kill()

    def failed(self, why: object) -> AgencyError:
        """The error for a server that does not do as it should: in its own words if it said any. It is ended."""
        for connection in self.connections:
            connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._kill()
        said = ""
        with suppress(ValueError):  # it was closed
            self._words.seek(0)
            said = self._words.read(64 * 1024).decode(errors="replace").strip()
        return refuse(
            "image-unreadable",
            f"QEMU cannot use the image {self._name}: {told(said, self._files, self._name) or why}",
            "see that it is whole, that nothing else uses it, and that there is room; then try again",
        )

    def close(self) -> None:
        """End it, whatever it does."""
        with suppress(AgencyError):
            self.end()
        self._words.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _without_3(order: list[str], files: Sequence[int]) -> tuple[list[str], list[int]]:
    """The order with another number for the file that has 3 here: there it is the listening socket's, by that
    convention. The other number is to be closed."""
    if 3 not in files:
        return order, []
    other = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 4)
    return [word.replace(json.dumps(path(3)), json.dumps(path(other))) for word in order], [other]


def _connected() -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket without a name, and connections to it that wait for whoever accepts them."""
    directory = tempfile.mkdtemp(prefix="agency-nbd-")  # for the owner only
    listener = socket.socket(socket.AF_UNIX)
    connections = []
    try:
        listener.bind(f"{directory}/socket")
        listener.listen(_CONNECTIONS)
        for _ in range(_CONNECTIONS):
            connection = socket.socket(socket.AF_UNIX)
            connections.append(connection)
            connection.connect(f"{directory}/socket")
            timeout = struct.pack("@ll", _PATIENCE, 0)  # the system's own: Python's would make the socket non-blocking
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    except BaseException:
        for opened in (listener, *connections):
            opened.close()
        raise
    finally:
        shutil.rmtree(directory)
    return listener, connections


class _Broken(Exception):
    """The server does not speak as the protocol says, or not any more."""


class _Refused(Exception):
    """The server says that it cannot."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words or os.strerror(code))
        self.code = code


class _Line:
    """One connection: one request at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._cookie = 0
        self.size = 0
        self._context: int | None = None
        self._greet()

    def close(self) -> None:
        """Say so, and hang up."""
        with suppress(OSError):
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever waits for an answer is told
        self._socket.close()

    # --- the handshake

    def _greet(self) -> None:
        greeting, flags = struct.unpack(">16sH", self._take(18))
        if greeting != _GREETING or not flags & _FIXED_NEWSTYLE:
            raise _Broken("it is no NBD server of our kind")
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE | flags & _NO_ZEROES))
        self._option(_STRUCTURED_REPLY, b"")
        query = b"base:allocation"
        for kind, content in self._option(_SET_META_CONTEXT, struct.pack(">III", 0, 1, len(query)) + query):
            if kind == _META_CONTEXT:
                (self._context,) = struct.unpack_from(">I", content)
        for kind, content in self._option(_GO, struct.pack(">IH", 0, 0)):
            if kind == _INFO and struct.unpack_from(">H", content) == (_INFO_EXPORT,):
                (self.size,) = struct.unpack_from(">Q", content, 2)

    def _option(self, option: int, content: bytes) -> list[tuple[int, bytes]]:
        self._socket.sendall(struct.pack(">8sII", b"IHAVEOPT", option, len(content)) + content)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, about, kind, length = struct.unpack(">QIII", self._take(20))
            if magic != _OPTION_REPLY or about != option or length > _LONGEST_ANSWER:
                raise _Broken("it answers what was not asked")
            said = self._take(length)
            if kind == _ACK:
                return replies
            if kind >> 31:
                raise _Broken(f"it refuses option {option}: {said.decode(errors='replace')}")
            replies.append((kind, said))

    # --- requests

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from there."""
        self._ask(_READ, offset, length)
        pieces: list[tuple[int, bytes]] = []
        missing = length
        for kind, size in self._chunks():
            if kind not in (_DATA, _HOLE) or size < 8:
                raise _Broken("it answers a read with something else")
            place = struct.unpack(">Q", self._take(8))[0] - offset
            run = size - 8 if kind == _DATA else struct.unpack(">I", self._take(4))[0]
            if place < 0 or place + run > length or run > missing:
                raise _Broken("it answers with what was not asked for")
            missing -= run
            pieces.append((place, self._take(run) if kind == _DATA else bytes(run)))
        if missing:
            raise _Broken("it answers with less than was asked for")
        if len(pieces) == 1:
            return pieces[0][1]
        return b"".join(data for _, data in sorted(pieces))  # they cover it, and none is in two

    def statuses(self, offset: int, length: int) -> list[tuple[int, int]]:
        """What base:allocation says from there on, of at least something: lengths and flags."""
        if self._context is None:
            return [(length, 0)]
        self._ask(_BLOCK_STATUS, offset, length)
        found: list[tuple[int, int]] = []
        for kind, size in self._chunks():
            if kind != _STATUS or size % 8 != 4 or size > _LONGEST_ANSWER:
                raise _Broken("it answers a question for allocation with something else")
            found += struct.iter_unpack(">II", self._take(size)[4:])
        if not all(run for run, _ in found) or not found:
            raise _Broken("it says nothing about allocation")
        return found

    def order(self, command: int, offset: int, length: int, data: bytes | memoryview = b"") -> None:
        """Have it done."""
        self._ask(command, offset, length, data)
        for _ in self._chunks():
            raise _Broken("it answers an order with content")

    def _ask(self, command: int, offset: int, length: int, data: bytes | memoryview = b"") -> None:
        self._cookie += 1
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, self._cookie, offset, length))
        self._socket.sendall(data)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """The kinds and lengths of an answer's chunks, whose content is to be taken; errors are raised."""
        while True:
            (magic,) = struct.unpack(">I", self._take(4))
            if magic == _SIMPLE:
                code, cookie = struct.unpack(">IQ", self._take(12))
                self._check(cookie)
                if code:
                    raise _Refused(code, "")
                return
            flags, kind, cookie, length = struct.unpack(">HHQI", self._take(16))
            if magic != _STRUCTURED or length > 64 << 20:
                raise _Broken("it does not answer as the protocol says")
            self._check(cookie)
            if kind & _FAILED:
                content = self._take(length)
                code, size = struct.unpack_from(">IH", content)
                raise _Refused(code, content[6 : 6 + size].decode(errors="replace"))
            if length or kind:
                yield kind, length
            if flags & _LAST:
                return

    def _check(self, cookie: int) -> None:
        if cookie != self._cookie:
            raise _Broken("it answers what was not asked")

    def _take(self, length: int) -> bytes:
        data = self._socket.recv(length, socket.MSG_WAITALL) if length else b""
        while len(data) < length:  # a signal came between
            more = self._socket.recv(length - len(data), socket.MSG_WAITALL)
            if not more:
                raise _Broken("it hung up")
            data += more
        return data
