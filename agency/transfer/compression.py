"""When to compress: where the link is what is slow, and the data shrinks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import zstandard

from agency.transfer.ends import BLOCK, UNIT

LEVEL = 1
"""What a processor can do at the pace of a gigabit: level 3 takes twice the time, for a tenth fewer bytes."""
_SHRINKS = 0.95
"""Data that does not get smaller than that goes as it is."""
_WINDOW = 0.25, UNIT
"""Seconds, and bytes a stream, at least, that one look at the pace takes."""
_WAITING = 0.3
"""The link is slow when both ends spend more than this part of their time in waiting for it."""
_BUSY = 0.1
"""The link is not what is slow when one end spends less than this part of its time in waiting for it."""
_SLOWER = 0.9
_PATIENCE = 8, 128
"""Looks after which it is tried whether the link is still slow: at first, and at last."""
_REST = 16
"""Looks after which compression is tried again that has made it slower."""


@dataclass(frozen=True)
class Pace:
    """One look at a transfer."""

    rate: float
    """Bytes of content a second."""
    wire: float
    """Bytes a second that went for that."""
    waiting: float
    """The part of the time for which both ends waited for the link: what the end that waited less spent so."""


@dataclass(frozen=True)
class Choice:
    """Whether a transfer compresses, and why."""

    on: bool = False
    link: float = 0.0
    """Bytes a second that the link takes, as it seemed just before."""
    left: int = 0
    """Looks until it may be reconsidered."""
    patience: int = _PATIENCE[0]
    """Looks until the next choice to compress may be."""
    new: bool = False
    """Whether what arrives may still be of the choice before."""

    def after(self, pace: Pace) -> Choice:
        """What to do now. While a link is slow, its sender finds it full and its receiver finds it empty: compress.
        While a processor is slow, one of them hardly waits: what was faster is right, and is found out now and then."""
        if self.new:
            return replace(self, new=False)
        if not self.on:
            if pace.waiting > _WAITING and not self.left:
                return Choice(True, pace.wire, self.patience, self.patience, new=True)
        elif pace.rate < _SLOWER * self.link and pace.waiting < _WAITING:
            return Choice(False, left=_REST, patience=self.patience)
        elif pace.waiting < _BUSY and not self.left:
            return Choice(False, patience=min(4 * self.patience, _PATIENCE[1]))
        return replace(self, left=max(self.left - 1, 0))


class Chooser:
    """One transfer's: its threads tell it what happens, and hear whether to compress."""

    def __init__(self, streams: int, allowed: bool) -> None:
        self.choice = Choice()
        self._streams, self._allowed = streams, allowed
        self._lock = threading.Lock()
        self._begin()

    def observe(self, content: int, wire: int, waited: float, waited_there: float) -> None:
        """Some bytes of content have arrived, as so many bytes, and each end has waited for so many seconds more."""
        with self._lock:
            self._content += content
            self._wire += wire
            self._waited += waited
            self._waited_there += waited_there
            seconds = time.monotonic() - self._start
            if self._allowed and seconds >= _WINDOW[0] and self._content >= _WINDOW[1] * self._streams:
                waiting = min(self._waited, self._waited_there) / self._streams / seconds
                self.choice = self.choice.after(Pace(self._content / seconds, self._wire / seconds, waiting))
                self._begin()

    def _begin(self) -> None:
        self._start, self._content, self._wire = time.monotonic(), 0, 0
        self._waited = self._waited_there = 0.0


class Compressor:
    """One stream's."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)
        self._doubtful = True

    def pack(self, data: bytes) -> bytes | None:
        """The data, compressed; None where it should go as it is. After data that did not shrink, only the first block
        of the next is tried at first."""
        if not self._chooser.choice.on or (self._doubtful and not _shrinks(self._zstd, data[:BLOCK])):
            return None
        packed = self._zstd.compress(data)
        self._doubtful = len(packed) > len(data) * _SHRINKS
        return None if self._doubtful else packed


def _shrinks(zstd: zstandard.ZstdCompressor, data: bytes) -> bool:
    return len(zstd.compress(data)) <= len(data) * _SHRINKS
