"""How far a transfer is, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

_RECENT = 5.0
"""Seconds that the rate is an average of."""


@dataclass(frozen=True)
class Progress:
    """How far a transfer is."""

    done: int
    """Bytes of the content that are at the destination."""
    total: int
    """Bytes of the content."""
    wire: int
    """Bytes that went over the streams, in both directions, before encryption."""
    rate: float
    """Bytes of the content per second, lately."""
    left: float | None
    """Seconds until the end at this rate; None where nothing can be said."""


class Meter:
    """Makes progress of counts, for content of that many bytes; made when the transfer begins."""

    def __init__(self, total: int) -> None:
        self.total, self.start = total, time.monotonic()
        self._recently = [(self.start, 0)]

    def read(self, done: int, wire: int) -> Progress:
        """How far it is now that so many bytes of the content are there, and so many went over the wire."""
        now = time.monotonic()
        self._recently = [each for each in self._recently if now - each[0] < _RECENT] or self._recently[-1:]
        since, before = self._recently[0]
        self._recently.append((now, done))
        rate = (done - before) / max(now - since, 1e-6)
        return Progress(done, self.total, wire, rate, (self.total - done) / rate if rate else None)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.start


@dataclass
class Tally:
    """Bytes of content, by what became of them; one thread's."""

    data: int = 0
    copied: int = 0
    same: int = 0
    zero: int = 0

    def add(self, other: Tally) -> None:
        """Add up."""
        self.data += other.data
        self.copied += other.copied
        self.same += other.same
        self.zero += other.zero

    @property
    def sum(self) -> int:
        return self.data + self.copied + self.same + self.zero


@dataclass(frozen=True)
class Result:
    """What came of a transfer that is complete, and durable at the destination."""

    size: int
    """Bytes of the content: the sum of the four that follow, which say what happened to how many."""
    data: int
    copied: int
    same: int
    zero: int
    wire: int
    """Bytes that went over the streams, in both directions, before encryption."""
    seconds: float
    root: bytes
    """The BLAKE3 root of the content, on which both sides agree."""
    statement: bytes
    """What the destination signed (the ``testify`` of :func:`agency.transfer.receiving.receive`); nothing of a copy."""
