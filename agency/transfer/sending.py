"""The sending side of a transfer."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import zstandard

from agency.problems import refuse
from agency.transfer.blocks import Places, Run, plan, read_unit
from agency.transfer.compression import Chooser, Compressor
from agency.transfer.ends import BLOCK, UNIT, Source
from agency.transfer.manifest import DIGEST, UNIT_BLOCKS, ZERO, Manifest, digests
from agency.transfer.pace import Bandwidth
from agency.transfer.progress import Progress, Result, Tally
from agency.transfer.session import Session
from agency.transfer.wire import (
    BEGIN,
    NUMBER,
    PACKED,
    SAME_UNITS,
    UNREADABLE,
    BlockKind,
    Frame,
    Kind,
    Stream,
    bad_peer,
    unpack,
)

_UNDER_WAY = 56
"""Units, on all streams, that the destination need not have confirmed before another one is sent on each (of at most
8): so at most 64 MiB are lost, and sent again, when it is killed."""
_BUSY = 600.0
"""Seconds that the destination may say to be busy, before the first unit and again after the last one: its slowest
flush, or a provider's work."""
_SLOWEST_DISK = 8 << 20
"""Bytes a second: it may be busy for as long as reading the content takes at that pace, too."""


def send(
    source: Source,
    streams: Sequence[socket.socket],
    *,
    compress: bool = True,
    bandwidth: Bandwidth | None = None,
    idle: float = 60,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Send the content over these streams: connected sockets, TLS or plain, on which the hello has been said, in the
    order of their numbers. They are closed when this returns; the source is not.

    ``compress``: whether it may be tried. ``bandwidth``: shared with other transfers. ``idle``: seconds without a byte
    after which the peer counts as gone. ``scratch``: where manifests are, 1/1000 of the size. ``progress`` and
    ``cancelled`` are called in this thread, a few times a second.

    Raises :class:`~agency.problems.AgencyError`: ``cancelled``, ``link-lost`` (worth another attempt),
    ``peer-refused``, ``bad-peer``, whatever the source says, or ``source-changed``.
    """
    session = Session(streams, source, idle=idle, bandwidth=bandwidth, progress=progress, cancelled=cancelled)
    with session, Manifest(source.size, scratch) as mine, Manifest(source.size, scratch) as theirs:
        return _Sending(source, session, compress, mine, theirs).send()


class _Sending:
    """The state that the threads share: what is next, and what is known of both sides' content."""

    def __init__(self, source: Source, session: Session, compress: bool, mine: Manifest, theirs: Manifest) -> None:
        self._source, self._session = source, session
        self.chooser = Chooser(len(session.streams), compress)
        self.under_way = _UNDER_WAY // len(session.streams)
        self.mine, self.theirs = mine, theirs
        self.places: Places | None = Places(mine)
        self._plan = plan(source)
        self._lock = threading.Lock()

    def send(self) -> Result:
        first = self._session.streams[0]
        first.write(Kind.BEGIN, BEGIN.pack(self._source.size, BLOCK))
        self._hear_what_is_there()
        self._session.run(self._work)
        self._session.aside(self._source.check_unchanged)
        root = self.mine.root()
        for each in self._session.streams:
            each.write(Kind.END, root)
        return self._session.result(root, self._hear_the_end())

    def _hear_what_is_there(self) -> None:
        """The destination's manifest, as far as it has one."""
        stream, zstd, after = self._session.streams[0], zstandard.ZstdDecompressor(), 0
        answer = self._patiently(Kind.HAVE)
        while (frame := next(answer)).length:
            values = unpack(zstd, stream.read(frame.length), UNIT)
            first, count = frame.unit * UNIT_BLOCKS, len(values) // DIGEST
            if frame.unit < after or not count or len(values) % DIGEST or first + count > self.theirs.blocks:
                raise bad_peer("says to have what is not in the content")
            self.theirs.put(first, values)
            after = -(-(first + count) // UNIT_BLOCKS)
        if frame.flags & UNREADABLE:
            self.places = None

    def _hear_the_end(self) -> bytes:
        return self._session.streams[0].read(next(self._patiently(Kind.RESULT)).length)

    def _patiently(self, kind: Kind) -> Iterator[Frame]:
        """The frames of that kind that come, though the destination may say that it is busy; not for ever."""
        most = _BUSY + self._source.size / _SLOWEST_DISK
        end = time.monotonic() + most
        while True:
            frame = self._session.streams[0].next(kind, Kind.WAIT)
            if frame.kind is not Kind.WAIT:
                yield frame
            elif time.monotonic() > end:
                what = f"the other transfer proxy has been busy with what is there for {most:.0f} seconds"
                raise refuse("peer-too-slow", what, "see what its disk is busy with; then start it again: it goes on")
            else:
                self._session.check()

    def _work(self, number: int) -> None:
        _Courier(self, self._session.streams[number], self._session.tallies[number]).work()

    def take(self) -> tuple[Run, bytes] | None:
        """What is to be sent next, with its bytes unless it is a hole; None if that was all."""
        with self._lock:
            run = next(self._plan, None)
            if run and not run.hole and self._source.sequential:
                return run, read_unit(self._source, run.first)
        return None if run is None else (run, b"" if run.hole else read_unit(self._source, run.first))


class _UnderWay(NamedTuple):
    """A frame that the destination has not confirmed yet."""

    tally: Tally
    there: list[tuple[bytes, int]]
    """Blocks that it will have then: digests and numbers."""
    payload: int
    """Bytes of data, as they were sent."""


class _Courier:
    """What one thread does: all that is to be done with a unit, then the next."""

    def __init__(self, sending: _Sending, stream: Stream, tally: Tally) -> None:
        self._sending, self._stream, self._tally = sending, stream, tally
        self._compressor = Compressor(sending.chooser)
        self._under_way: deque[_UnderWay] = deque()
        self._confirmed = 0
        self._waited = self._waited_there = 0.0

    def work(self) -> None:
        while self._next():
            self._hear(self._sending.under_way)
        self._hear(0)

    def _next(self) -> bool:
        """Send what is next; False if that was all. Its bytes are let go of before others are read: then they have the
        same place in memory, and in the processor's caches."""
        taken = self._sending.take()
        if taken is None:
            return False
        run, data = taken
        if run.hole:
            self._skip(run)
        else:
            self._unit(run.first, data)
        return True

    def _skip(self, run: Run) -> None:
        mine = self._sending.mine
        first = run.first * UNIT_BLOCKS
        mine.fill(first, min(run.count * UNIT_BLOCKS, mine.blocks - first))
        length = min((run.first + run.count) * UNIT, mine.size) - run.first * UNIT
        self._stream.write(Kind.SKIP, NUMBER.pack(run.count), unit=run.first)
        self._under_way.append(_UnderWay(Tally(zero=length), [], 0))

    def _unit(self, unit: int, data: bytes) -> None:
        first, values = unit * UNIT_BLOCKS, digests(data)
        self._sending.mine.set_unit(unit, values)
        kinds, head, parts, tally = self._sort(unit, values, memoryview(data))
        payload = b""
        if kinds.count(kinds[0]) == len(kinds) and kinds[0] in (BlockKind.ZERO, BlockKind.SAME):
            self._stream.write(
                Kind.SKIP, NUMBER.pack(1), unit=unit, flags=SAME_UNITS if kinds[0] == BlockKind.SAME else 0
            )
        else:
            payload = data if len(parts) == len(values) else b"".join(parts)
            packed = self._compressor.pack(payload) if payload else None
            flags, payload = (PACKED, packed) if packed else (0, payload)
            self._stream.write(Kind.UNIT, kinds + head, payload, unit=unit, flags=flags)
        there = [(value, first + each) for each, value in enumerate(values) if value != ZERO]
        self._under_way.append(_UnderWay(tally, there, len(payload)))

    def _sort(self, unit: int, values: list[bytes], data: memoryview) -> tuple[bytes, bytes, list[memoryview], Tally]:
        """What is said of each block, the digests and places that go with that, and the data that has to go."""
        places, known = self._sending.places, self._sending.theirs.unit(unit)
        kinds, head, parts, tally = bytearray(), bytearray(), list[memoryview](), Tally()
        for number, value in enumerate(values):
            block = data[number * BLOCK : (number + 1) * BLOCK]
            if value == known[number]:
                kinds.append(BlockKind.SAME)
                tally.same += len(block)
            elif value == ZERO:
                kinds.append(BlockKind.ZERO)
                tally.zero += len(block)
            elif places and (place := places.find(value)) is not None:
                kinds.append(BlockKind.COPY)
                head += value + NUMBER.pack(place)
                tally.copied += len(block)
            else:
                kinds.append(BlockKind.DATA)
                head += value
                parts.append(block)
                tally.data += len(block)
        return bytes(kinds), bytes(head), parts, tally

    def _hear(self, under_way: int) -> None:
        """Hear what is written by now; wait where more than so many frames are not."""
        while self._under_way:
            wait = len(self._under_way) > under_way
            frame = self._stream.next(Kind.DONE) if wait else self._stream.next_if_any(Kind.DONE)
            if frame is None:
                return
            count = frame.unit - self._confirmed
            if frame.length != NUMBER.size or not 0 < count <= len(self._under_way):
                raise bad_peer("says to have written what was not sent")
            (waited,) = NUMBER.unpack(self._stream.read(frame.length))
            self._confirmed = frame.unit
            self._written([self._under_way.popleft() for _ in range(count)], waited / 1e6)

    def _written(self, frames: list[_UnderWay], waited_there: float) -> None:
        for frame in frames:
            self._tally.add(frame.tally)
            if places := self._sending.places:
                for digest, block in frame.there:
                    places.add(digest, block)
        self._sending.chooser.observe(
            sum(frame.tally.same + frame.tally.copied for frame in frames),
            sum(frame.tally.data for frame in frames),
            sum(frame.payload for frame in frames),
            self._stream.waited - self._waited,
            waited_there - self._waited_there,
        )
        self._waited, self._waited_there = self._stream.waited, waited_there
