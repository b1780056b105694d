"""When to compress: where the link is what is slow, and the data shrinks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import zstandard

from agency.transfer.ends import UNIT

LEVEL = 1
"""What a processor can do at the pace of a gigabit: level 3 takes twice the time, for a twentieth fewer bytes."""
_SHRINKS = 0.95
"""Data that does not get smaller than that goes as it is."""
_PROBE = 16 * 1024
"""Bytes from the middle of data of which there is doubt that are tried first."""
_LITTLE = 0.5
"""Where no more than that part of what is read has to go, compressing takes no more than reading and hashing."""
_WINDOW = 0.25, 32 * UNIT
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

    data: float
    """The part of what is read that the destination does not have."""
    rate: float
    """Bytes a second of such data."""
    wire: float
    """Bytes a second that went for that."""
    waiting: float
    """The part of the time for which both ends waited for the link: what the end that waited less spent so."""


@dataclass(frozen=True)
class Choice:
    """Whether a transfer compresses, and why. It begins so: that costs little until the first look, and many transfers
    are over by then."""

    on: bool = True
    link: float = 0.0
    """Bytes a second that the link takes, as it seemed just before; 0 where that is not known."""
    left: int = 0
    """Looks until it may be reconsidered."""
    patience: int = _PATIENCE[0]
    """Looks until the next choice to compress may be."""
    new: bool = False
    """Whether what arrives may still be of the choice before."""

    def after(self, pace: Pace) -> Choice:
        """What to do now. While most is left out, compress. Else, while a link is slow, its sender finds it
        full and its receiver finds it empty: compress. While a processor is slow, one of them hardly waits: what was
        faster is right, and is found out now and then."""
        if pace.data <= _LITTLE:
            return Choice(patience=self.patience)
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
        self.choice = Choice(allowed)
        self._streams, self._allowed = streams, allowed
        self._lock = threading.Lock()
        self._begin()

    def observe(self, known: int, data: int, wire: int, waited: float, waited_there: float) -> None:
        """Some bytes have been read that the destination had already, and some of data have arrived, as so many bytes;
        each end has waited for so many seconds more."""
        with self._lock:
            self._known += known
            self._data += data
            self._wire += wire
            self._waited += waited
            self._waited_there += waited_there
            seconds, read = time.monotonic() - self._start, self._known + self._data
            if self._allowed and seconds >= _WINDOW[0] and read >= _WINDOW[1] * self._streams:
                waiting = min(self._waited, self._waited_there) / self._streams / seconds
                pace = Pace(self._data / read, self._data / seconds, self._wire / seconds, waiting)
                self.choice = self.choice.after(pace)
                self._begin()

    def _begin(self) -> None:
        self._start, self._known, self._data, self._wire = time.monotonic(), 0, 0, 0
        self._waited = self._waited_there = 0.0


class Compressor:
    """One stream's."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)
        self._doubtful = True

    def pack(self, data: bytes) -> bytes | None:
        """The data, compressed; None where it should go as it is. After data that did not shrink, only a little of the
        next is tried at first."""
        if not self._chooser.choice.on or (self._doubtful and not self._shrunk(_middle(data))):
            return None
        packed = self._shrunk(data)
        self._doubtful = packed is None
        return packed

    def _shrunk(self, data: bytes) -> bytes | None:
        packed = self._zstd.compress(data)
        return packed if len(packed) <= len(data) * _SHRINKS else None


def _middle(data: bytes) -> bytes:
    start = max(len(data) - _PROBE, 0) // 2
    return data[start : start + _PROBE]
