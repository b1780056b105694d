"""The ends of a transfer that tests have: content in memory, and a loopback link between two sides."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from agency.transfer.ends import BLOCK, UNIT
from agency.transfer.manifest import Manifest, digest
from agency.transfer.progress import Result
from agency.transfer.receiving import receive
from agency.transfer.sending import send


class MemorySource:
    """Content in memory; blocks of zeros are its holes."""

    def __init__(self, content: bytes, *, sequential: bool = False) -> None:
        self.content, self.size, self.sequential = content, len(content), sequential
        self.asked: list[int] = []

    def extents(self) -> Iterator[tuple[int, int]]:
        for offset in range(0, self.size, BLOCK):
            block = self.content[offset : offset + BLOCK]
            if any(block):
                yield offset, len(block)

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append(offset)
        return self.content[offset : offset + length]

    def check_unchanged(self) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class MemorySink:
    """Content in memory, of which something may be known from before."""

    def __init__(self, size: int, before: bytes | None = None, *, sequential: bool = False) -> None:
        self.size, self.sequential = size, sequential
        self.blank = before is None
        self.content = bytearray(size) if before is None else bytearray(before[:size].ljust(size, b"\0"))
        self.before = before
        self.left: list[bytes] | None = None
        self.root: bytes | None = None
        self.written = self.place = 0
        self._lock = threading.Lock()

    def known(self) -> Manifest | None:
        if self.before is None:
            return None
        manifest = Manifest(self.size)
        for block in range(manifest.blocks):
            manifest.set(block, digest(self.content[block * BLOCK : (block + 1) * BLOCK]))
        return manifest

    def write(self, offset: int, data: bytes | memoryview) -> None:
        with self._lock:
            assert len(data) <= UNIT
            self._in_order(offset, len(data))
            self.written += len(data)
            self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        with self._lock:
            self._in_order(offset, length)
            self.content[offset : offset + length] = bytes(length)

    def read(self, offset: int, length: int) -> bytes:
        assert not self.sequential
        return bytes(self.content[offset : offset + length])

    def interrupt(self) -> None: ...

    def finish(self, manifest: Manifest) -> None:
        self.root = manifest.root()

    def leave(self, manifest: Manifest | None) -> None:
        self.left = [] if manifest is None else [manifest.get(block) for block in range(manifest.blocks)]

    def _in_order(self, offset: int, length: int) -> None:
        assert not self.sequential or offset == self.place, "a sequential sink was written out of order"
        assert 0 <= offset <= self.size - length
        self.place = offset + length


@dataclass
class Outcome:
    """What the two sides of a transfer came to: results, or the errors that they raised."""

    sent: Result | BaseException
    received: Result | BaseException

    @property
    def results(self) -> tuple[Result, Result]:
        """Both results, if both sides succeeded."""
        for each in (self.sent, self.received):
            if isinstance(each, BaseException):
                raise each
        return cast(Result, self.sent), cast(Result, self.received)


def transfer(
    source: Any,
    sink: Any,
    streams: int = 2,
    *,
    link: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
    sending: dict[str, Any] | None = None,
    receiving: dict[str, Any] | None = None,
) -> Outcome:
    """Transfer it, with both sides in threads of this process."""
    pairs = [link() for _ in range(streams)]
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(send, source, [a for a, _ in pairs], **{"idle": 10, **(sending or {})})
        theirs = pool.submit(receive, sink, [b for _, b in pairs], **{"idle": 10, **(receiving or {})})
        return Outcome(*(each.exception() or each.result() for each in (ours, theirs)))
