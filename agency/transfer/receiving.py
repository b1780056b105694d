"""The receiving side of a transfer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import structlog
import zstandard

from agency.problems import refuse
from agency.transfer.ends import BLOCK, UNIT, Sink
from agency.transfer.manifest import DIGEST, UNIT_BLOCKS, UNKNOWN, ZERO, Manifest, digest, digests
from agency.transfer.pace import Bandwidth
from agency.transfer.progress import Progress, Result, Tally
from agency.transfer.session import Session
from agency.transfer.wire import (
    BEGIN,
    LONGEST,
    NUMBER,
    PACKED,
    SAME_UNITS,
    UNREADABLE,
    BlockKind,
    Frame,
    Kind,
    Lost,
    Stream,
    bad_peer,
    unpack,
)

log = structlog.get_logger("agency.transfer")

_TICK = 0.2
"""Seconds, at most, until a thread that waits for its turn notices that it should not any more."""


def receive(
    sink: Sink,
    streams: Sequence[socket.socket],
    *,
    testify: Callable[[Manifest], bytes] = lambda _: b"",
    bandwidth: Bandwidth | None = None,
    idle: float = 60,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Receive content over these streams, whose hellos have been heard, and write it. They are closed when this
    returns.

    The sink is finished, or left for another attempt, when this returns or raises. ``testify``: makes the signed
    statement that the sender gets (up to 64 KiB) from the manifest, after the sink is finished. All else is as in
    :func:`agency.transfer.sending.send`.
    """
    session = Session(streams, sink, idle=idle, bandwidth=bandwidth, progress=progress, cancelled=cancelled)
    receiving = _Receiving(sink, session, idle)
    try:
        with session:
            return receiving.receive(testify, scratch)
    finally:
        receiving.close()


class _Receiving:
    """The state that the threads share: what is there by now, and which units have been heard of."""

    def __init__(self, sink: Sink, session: Session, idle: float) -> None:
        self.sink, self._session, self._idle = sink, session, idle
        self._roots = [b""] * len(session.streams)
        self._seen = bytearray(-(-sink.size // (8 * UNIT)))
        self._left = -(-sink.size // UNIT)
        self._lock = threading.Condition()
        self._turn = 0
        self.blank = self._finished = False
        self._known: Manifest | None = None
        self.manifest: Manifest

    def receive(self, testify: Callable[[Manifest], bytes], scratch: Path | None) -> Result:
        self._hear_what_comes()
        self._session.aside(self._learn, self._is_busy)
        self.manifest = self._known or Manifest(self.sink.size, scratch)
        self.blank = self.sink.blank and self._known is None
        self._say_what_is_there(self._known)
        self._session.run(self._work)
        root = self._check_whole()
        self._session.aside(self._finish, self._is_busy_if_heard)
        return self._end(root, testify)

    def _is_busy(self) -> None:
        self._session.streams[0].write(Kind.WAIT)

    def _is_busy_if_heard(self) -> None:
        with contextlib.suppress(Lost):  # all has come: it becomes complete though nobody waits for that
            self._is_busy()

    def _learn(self) -> None:
        self._known = self.sink.known()

    def _finish(self) -> None:
        self.sink.finish(self.manifest)
        self._finished = True
        self._session.complete()

    def _hear_what_comes(self) -> None:
        stream = self._session.streams[0]
        frame = stream.next(Kind.BEGIN)
        if frame.length != BEGIN.size:
            raise bad_peer("began in a way that cannot be understood")
        size, block = BEGIN.unpack(stream.read(frame.length))
        if (size, block) != (self.sink.size, BLOCK):
            raise bad_peer(
                f"has {size} bytes in blocks of {block} where {self.sink.size} in blocks of {BLOCK} were agreed"
            )

    def _say_what_is_there(self, known: Manifest | None) -> None:
        """The manifest, without what is unknown; runs of zeros nearly vanish when it is compressed."""
        stream, zstd = self._session.streams[0], zstandard.ZstdCompressor(level=1)
        for first, values in known.runs() if known else ():
            if values.count(0) < len(values):
                stream.write(Kind.HAVE, zstd.compress(values), unit=first // UNIT_BLOCKS)
        stream.write(Kind.HAVE, flags=UNREADABLE if self.sink.sequential else 0)

    def _check_whole(self) -> bytes:
        if self._left:
            raise bad_peer(f"ended without {self._left} of the content's units")
        root = self.manifest.root()
        if any(each != root for each in self._roots):
            raise bad_peer("sent content whose root is not the one that it says")
        return root

    def _end(self, root: bytes, testify: Callable[[Manifest], bytes]) -> Result:
        self._session.report()  # the statement says how much went over the wire
        statement = self._session.aside(lambda: testify(self.manifest), self._is_busy_if_heard)
        with contextlib.suppress(Lost):  # the content is there all the same
            self._session.streams[0].write(Kind.RESULT, statement)
        return self._session.result(root, statement)

    def close(self) -> None:
        """Leave what is not complete for another attempt, once the other side knows that this one is over."""
        manifest = getattr(self, "manifest", self._known)
        try:
            if not self._finished:
                self.sink.leave(manifest)
        except Exception:
            log.warning("what came of a transfer that ended early could not be kept", exc_info=True)
        finally:
            if manifest:
                manifest.close()

    def _work(self, number: int) -> None:
        self._roots[number] = _Hand(self, self._session.streams[number], self._session.tallies[number]).work()

    def claim(self, first: int, count: int) -> None:
        """These units are dealt with now, for the first and last time."""
        if not count or first + count > -(-self.sink.size // UNIT):
            raise bad_peer("sent units that are not in the content")
        with self._lock:
            for unit in range(first, first + count):
                if self._seen[unit >> 3] & 1 << (unit & 7):
                    raise bad_peer("sent a unit twice")
                self._seen[unit >> 3] |= 1 << (unit & 7)
            self._left -= count

    @contextlib.contextmanager
    def turn(self, first: int, count: int) -> Iterator[None]:
        """Write these units now: to a sequential sink, once all units before are written."""
        if not self.sink.sequential:
            yield
            return
        end = time.monotonic() + 2 * self._idle
        with self._lock:
            while self._turn != first:
                self._lock.wait(_TICK)
                self._session.check()
                if time.monotonic() > end:
                    raise bad_peer("does not send the units in order")
        yield
        with self._lock:
            self._turn = first + count
            self._lock.notify_all()

    def zero(self, first: int, count: int) -> None:
        """Make these blocks zeros, unless they are known to be."""
        for start, length in self._not_zero(first, count):
            self._session.check()
            self.manifest.fill(start, length, UNKNOWN)
            self.sink.zero(start * BLOCK, min(length * BLOCK, self.sink.size - start * BLOCK))
        self.manifest.fill(first, count)

    def _not_zero(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        if self.sink.sequential:
            yield first, count
        elif not self.blank:
            known = (each == ZERO for each in self.manifest.some(first, count))
            for is_zero, group in groupby(enumerate(known, first), lambda each: each[1]):
                blocks = [block for block, _ in group]
                if not is_zero:
                    yield blocks[0], len(blocks)


_Piece = tuple[int, int, memoryview | bytes | None]
"""Blocks to write: the first one's number, how many, and what; None for zeros."""


class _Hand:
    """What one thread does: all that is to be done with a frame, then the next."""

    def __init__(self, receiving: _Receiving, stream: Stream, tally: Tally) -> None:
        self._receiving, self._stream, self._tally = receiving, stream, tally
        self._sink, self._manifest = receiving.sink, receiving.manifest
        self._buffer = memoryview(bytearray(LONGEST[Kind.UNIT]))
        self._zstd = zstandard.ZstdDecompressor()

    def work(self) -> bytes:
        """Write what comes until it ends; what the sender then says that the root is."""
        done = 0
        while (frame := self._stream.next(Kind.UNIT, Kind.SKIP, Kind.END)).kind is not Kind.END:
            if frame.kind is Kind.UNIT:
                self._unit(frame)
            else:
                self._skip(frame)
            done += 1
            self._stream.write(Kind.DONE, NUMBER.pack(int(self._stream.waited * 1e6)), unit=done)
        return self._stream.read(frame.length)

    def _skip(self, frame: Frame) -> None:
        if frame.length != NUMBER.size or frame.flags & ~SAME_UNITS:
            raise bad_peer("sent a frame that cannot be understood")
        (units,) = NUMBER.unpack(self._stream.read(frame.length))
        self._receiving.claim(frame.unit, units)
        first = frame.unit * UNIT_BLOCKS
        count = min(units * UNIT_BLOCKS, self._manifest.blocks - first)
        length = min(units * UNIT, self._sink.size - frame.unit * UNIT)
        if frame.flags:
            if UNKNOWN in self._manifest.some(first, count):
                raise bad_peer("takes for known what is not")
            self._tally.same += length
            return
        with self._receiving.turn(frame.unit, units):
            self._receiving.zero(first, count)
        self._tally.zero += length

    def _unit(self, frame: Frame) -> None:
        view = self._buffer[: frame.length]
        self._stream.read_into(view)
        self._receiving.claim(frame.unit, 1)
        pieces, values, tally = self._understood(frame, view)
        known = self._manifest.unit(frame.unit)
        with self._receiving.turn(frame.unit, 1):
            self._manifest.set_unit(frame.unit, [a if a == b else UNKNOWN for a, b in zip(known, values, strict=True)])
            for first, count, data in pieces:
                if data is None:
                    self._receiving.zero(first, count)
                else:
                    self._sink.write(first * BLOCK, data)
            self._manifest.set_unit(frame.unit, values)
        self._tally.add(tally)

    def _understood(self, frame: Frame, view: memoryview) -> tuple[list[_Piece], list[bytes], Tally]:
        """What is to be written, in order, and the unit's digests. All is proven before anything is written."""
        first, known, tally = frame.unit * UNIT_BLOCKS, self._manifest.unit(frame.unit), Tally()
        ends = [min((first + each) * BLOCK, self._sink.size) for each in range(len(known) + 1)]
        kinds, values, places, payload = _split(view, known)
        length = sum(ends[each + 1] - ends[each] for each, kind in enumerate(kinds) if kind == BlockKind.DATA)
        payload, at = self._payload(frame, payload, length), 0
        pieces = list[_Piece]()
        for kind, group in groupby(range(len(kinds)), kinds.__getitem__):
            run = list(group)
            length = ends[run[-1] + 1] - ends[run[0]]
            if kind == BlockKind.SAME:
                tally.same += length
            elif kind == BlockKind.ZERO:
                tally.zero += length
                pieces.append((first + run[0], len(run), None))
            elif kind == BlockKind.COPY:
                tally.copied += length
                pieces += [(first + each, 1, self._copy(*places[each], ends[each + 1] - ends[each])) for each in run]
            else:
                tally.data += length
                data, at = payload[at : at + length], at + length
                if digests(data) != values[run[0] : run[-1] + 1]:
                    raise bad_peer("sent data that is not what its digest says")
                pieces.append((first + run[0], len(run), data))
        return pieces, values, tally

    def _payload(self, frame: Frame, payload: memoryview, length: int) -> memoryview:
        if frame.flags & ~PACKED:
            raise bad_peer("sent a frame that cannot be understood")
        if frame.flags:
            payload = memoryview(unpack(self._zstd, payload, length))
        if len(payload) != length:
            raise bad_peer("sent data of another length than it says")
        return payload

    def _copy(self, value: bytes, place: int, length: int) -> bytes:
        there = value != UNKNOWN and place < self._manifest.blocks and self._manifest.get(place) == value
        if self._sink.sequential or not there:
            raise bad_peer("takes for written what is not")
        data = self._sink.read(place * BLOCK, min(BLOCK, self._sink.size - place * BLOCK))
        data = data[:length] + bytes(max(length - len(data), 0))
        if digest(data) != value:
            raise refuse("sink-changed", "what was written is not there any more", "see what else writes there")
        return data


def _split(view: memoryview, known: list[bytes]) -> tuple[bytes, list[bytes], dict[int, tuple[bytes, int]], memoryview]:
    """A unit's parts: what its blocks are, their digests, the digests and places of those to copy, and the data."""
    kinds, at = bytes(view[: len(known)]), len(known)
    values, places = list[bytes](), dict[int, tuple[bytes, int]]()
    for number, kind in enumerate(kinds):
        if kind == BlockKind.ZERO:
            values.append(ZERO)
        elif kind == BlockKind.SAME and known[number] != UNKNOWN:
            values.append(known[number])
        elif kind in (BlockKind.COPY, BlockKind.DATA):
            values.append(bytes(view[at : at + DIGEST]))
            at += DIGEST
            if kind == BlockKind.COPY:
                places[number] = values[-1], int.from_bytes(view[at : at + NUMBER.size], "big")
                at += NUMBER.size
        else:
            raise bad_peer("sent a frame that cannot be understood, or takes for known what is not")
    if len(kinds) < len(known) or at > len(view):
        raise bad_peer("sent a frame that is cut short")
    return kinds, values, places, view[at:]
