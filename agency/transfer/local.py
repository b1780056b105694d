"""Content from one end to another of this same process: what the two sides of a transfer do, without a wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import structlog

from agency.problems import refuse
from agency.transfer.blocks import plan, read_unit
from agency.transfer.ends import BLOCK, UNIT, Resumable, Sink, Source
from agency.transfer.manifest import UNIT_BLOCKS, UNKNOWN, ZERO, Manifest, digests
from agency.transfer.progress import Meter, Progress, Result, Tally
from agency.transfer.wire import BlockKind

log = structlog.get_logger("agency.transfer")

_TICK = 0.2
"""Seconds between two reports of progress."""


def copy(
    source: Source,
    sink: Sink,
    *,
    scratch: Path | None = None,
    journal: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Copy the content. Blocks; the sink is finished, or left for another attempt, when this returns or raises, and the
    source is not closed. What the sink has at its place is left alone.

    ``scratch``: where manifests are, 1/1000 of the size. ``journal``: a file that stays, and says what was read from a
    :class:`~agency.transfer.ends.Resumable` source: whoever comes again with it reads on from there, as far as the sink
    still has what was read then. ``progress`` is told a few times a second, and ``cancelled`` asked after each unit, in
    this thread.

    Raises :class:`~agency.problems.AgencyError`: ``cancelled``, ``source-short``, ``source-changed``, and whatever the
    ends say.
    """
    with ExitStack() as opened:
        manifest = None
        try:
            manifest = opened.enter_context(Manifest(source.size, scratch, journal=journal))
            result = _Copying(source, sink, manifest, progress, cancelled).copy(scratch)
            sink.finish(manifest)
        except BaseException:
            _leave(sink, manifest)
            raise
    return result


def _leave(sink: Sink, manifest: Manifest | None) -> None:
    try:
        sink.leave(manifest)
    except Exception:
        log.warning("what came of a copy that ended early could not be kept", exc_info=True)


class _Copying:
    """One copy: its ends, what was read, and what became of the bytes so far."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        manifest: Manifest,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._source, self._sink, self._manifest = source, sink, manifest
        self._progress, self._cancelled = progress, cancelled
        self._meter, self._tally = Meter(source.size), Tally()
        self._before, self._told = 0, 0.0

    def copy(self, scratch: Path | None) -> Result:
        there = self._sink.known()
        blank = there is None and self._sink.blank and not self._sink.sequential
        with there or Manifest(self._source.size, scratch) as known:
            begin = self._go_on(known)
            for run in plan(self._source):
                if run.hole and blank:
                    self._skip(run.first, run.count)
                    continue
                for unit in range(max(begin, run.first), run.first + run.count):
                    self._unit(unit, run.hole, known.unit(unit), blank)
        self._source.check_unchanged()
        self._tell()
        return Result(
            self._source.size,
            data=self._tally.data,
            copied=0,
            same=self._tally.same,
            zero=self._tally.zero,
            wire=self._wire,
            seconds=self._meter.seconds,
            root=self._manifest.root(),
            statement=b"",
        )

    def _go_on(self, known: Manifest) -> int:
        """The unit to begin with: those before it an earlier attempt has read, and the sink has them."""
        unit = 0
        while isinstance(self._source, Resumable) and unit < known.units:
            values = self._manifest.unit(unit)
            if UNKNOWN in values or values != known.unit(unit):
                break
            self._source.skip(self._sink.read(unit * UNIT, self._length(unit)))
            self._tally.same += self._length(unit)
            self._before = self._tally.same
            unit += 1
            self._tick()
        self._manifest.forget(min(unit * UNIT_BLOCKS, self._manifest.blocks))
        return unit

    def _skip(self, first: int, count: int) -> None:
        """Units of zeros, for a sink that has zeros."""
        self._manifest.fill(first * UNIT_BLOCKS, self._blocks(first, count))
        self._tally.zero += self._length(first, count)
        self._tick()

    def _unit(self, unit: int, hole: bool, before: list[bytes], blank: bool) -> None:
        data = b"" if hole else read_unit(self._source, unit)
        values = [ZERO] * self._blocks(unit) if hole else digests(data)
        kinds = [_kind(value, there) for value, there in zip(values, before, strict=True)]
        if self._sink.sequential:  # all of it goes, in one piece
            kinds = [max(kinds)] * len(kinds)
        for kind, group in groupby(range(len(kinds)), kinds.__getitem__):
            numbers = list(group)
            at, end = numbers[0] * BLOCK, min((numbers[-1] + 1) * BLOCK, self._length(unit))
            if kind is BlockKind.SAME:
                self._tally.same += end - at
            elif kind is BlockKind.ZERO:
                self._tally.zero += end - at
                if not blank:
                    self._sink.zero(unit * UNIT + at, end - at)
            else:
                self._tally.data += end - at
                self._sink.write(unit * UNIT + at, data if end - at == len(data) else memoryview(data)[at:end])
        self._manifest.set_unit(unit, values)  # only now: what is not written is not known
        self._tick()

    def _blocks(self, first: int, count: int = 1) -> int:
        """Blocks of those units."""
        return min(count * UNIT_BLOCKS, self._manifest.blocks - first * UNIT_BLOCKS)

    def _length(self, first: int, count: int = 1) -> int:
        """Bytes of those units."""
        return min(count * UNIT, self._source.size - first * UNIT)

    @property
    def _wire(self) -> int:
        """All but what was read before: no wire is between the ends, but a vendor may be at one of them."""
        return self._tally.sum - self._before

    def _tick(self) -> None:
        if self._cancelled():
            raise refuse("cancelled", "the copy was cancelled", "start it again: it goes on from here")
        if time.monotonic() - self._told > _TICK:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._progress(self._meter.read(self._tally.sum, self._wire))


def _kind(value: bytes, there: bytes) -> BlockKind:
    if value == there:
        return BlockKind.SAME
    return BlockKind.ZERO if value == ZERO else BlockKind.DATA
