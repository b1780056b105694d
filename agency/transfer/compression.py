"""When to compress: where the link is what is slow, and the data shrinks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import zstandard

from agency.transfer.ends import BLOCK

LEVEL = 1
"""What a processor can do at the pace of a gigabit: level 3 takes twice the time, for a tenth fewer bytes."""
_SHRINKS = 0.95
"""Data that does not get smaller than that goes as it is."""
_WINDOW = 0.25
"""Seconds, at least, that one look at the pace takes."""
_WAITING = 0.3
"""The link is slow when both ends spend more than this part of their time in waiting for it."""
_BUSY = 0.1
"""The link is not what is slow when one end spends less than this part of its time in waiting for it."""
_PATIENCE = 4, 64
"""Looks after which a choice is reconsidered: at first, and at last."""


@dataclass(frozen=True)
class Pace:
    """One look at a stream."""

    rate: float
    """Bytes of content a second."""
    waiting: float
    """The part of the time for which both ends waited for the socket: what the end that waited less spent so."""


@dataclass(frozen=True)
class Choice:
    """Whether a stream compresses, and why."""

    on: bool = False
    plain: float = 0.0
    """Bytes a second, just before it began to."""
    left: int = 0
    """Looks until it may be reconsidered."""
    patience: int = _PATIENCE[0]
    """Looks until the next choice may be."""

    def after(self, pace: Pace) -> Choice:
        """What to do now. While a link is slow, its sender finds it full and its receiver finds it empty: compress.
        While a processor is slow, one of them hardly waits: what was faster is right, and is found out now and then."""
        left = max(self.left - 1, 0)
        longer = min(2 * self.patience, _PATIENCE[1])
        if not self.on:
            if pace.waiting > _WAITING and not self.left:
                return Choice(True, pace.rate, self.patience, self.patience)
            return replace(self, left=left)
        if pace.rate < self.plain and pace.waiting < _WAITING:
            return Choice(False, left=self.patience, patience=longer)
        if pace.waiting < _BUSY and not self.left:
            return Choice(False, patience=longer)
        return replace(self, left=left)


class Compressor:
    """One stream's."""

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed
        self.choice = Choice()
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)
        self._doubtful = True
        self._start, self._content, self._waited, self._waited_there = time.monotonic(), 0, 0.0, 0.0

    def pack(self, data: bytes) -> bytes | None:
        """The data, compressed; None where it should go as it is. After data that did not shrink, only the first block
        of the next is tried at first."""
        if not self.choice.on or (self._doubtful and not _shrinks(self._zstd, data[:BLOCK])):
            return None
        packed = self._zstd.compress(data)
        self._doubtful = len(packed) > len(data) * _SHRINKS
        return None if self._doubtful else packed

    def observe(self, content: int, waited: float, waited_there: float) -> None:
        """What has happened: bytes of content that went, and seconds that this end, and the other, ever waited."""
        self._content += content
        seconds = time.monotonic() - self._start
        if not self._allowed or seconds < _WINDOW:
            return
        waiting = min(waited - self._waited, waited_there - self._waited_there) / seconds
        self.choice = self.choice.after(Pace(self._content / seconds, waiting))
        self._start, self._content = time.monotonic(), 0
        self._waited, self._waited_there = waited, waited_there


def _shrinks(zstd: zstandard.ZstdCompressor, data: bytes) -> bool:
    return len(zstd.compress(data)) <= len(data) * _SHRINKS
