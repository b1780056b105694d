"""Which units there are to send, and which blocks the destination has already."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from agency.problems import refuse
from agency.transfer.ends import UNIT, Source
from agency.transfer.manifest import Manifest

_LONGEST_RUN = 1024
"""Units of a hole that are dealt with at once: making a gigabyte of zeros is soon done anywhere."""
_MOST_PLACES = 1 << 20
"""Blocks that are remembered: 64 GiB of content, in 8 MiB of memory."""


@dataclass(frozen=True)
class Run:
    """Units that follow each other: all in a hole, or one that is to be read."""

    first: int
    count: int
    hole: bool


def plan(source: Source) -> Iterator[Run]:
    """All units, in order."""
    at = 0
    for offset, length in source.extents():
        if offset < 0 or length < 0 or offset + length > source.size:
            raise refuse("source-damaged", "the source says of places outside it that they are its", "check the file")
        if not length:
            continue
        first, end = max(at, offset // UNIT), -(-(offset + length) // UNIT)
        yield from _hole(at, first if first < end else at)
        yield from (Run(unit, 1, hole=False) for unit in range(first, end))
        at = max(at, end)
    yield from _hole(at, -(-source.size // UNIT))


def read_unit(source: Source, unit: int) -> bytes:
    """The unit; refused (``source-short``) where the source ends within it."""
    length = min(UNIT, source.size - unit * UNIT)
    data = source.read(unit * UNIT, length)
    if len(data) != length:
        what = f"the source ends at byte {unit * UNIT + len(data)}, and should have {source.size}"
        raise refuse("source-short", what, "see whether it was cut, or is still written, and transfer it again")
    return data


def _hole(at: int, end: int) -> Iterator[Run]:
    for first in range(at, end, _LONGEST_RUN):
        yield Run(first, min(_LONGEST_RUN, end - first), hole=True)


class Places:
    """Where the destination has a block of some digest: bounded, so it forgets. One table, with a place for each digest
    that the newest of them has; what stands there is checked against the manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        size = 1 << min(_MOST_PLACES, max(manifest.blocks, 1)).bit_length()
        self._mask = size - 1
        self._table = array("Q", bytes(8 * size))

    def add(self, digest: bytes, block: int) -> None:
        """The destination has this block, and will not overwrite it."""
        self._table[int.from_bytes(digest[:8], "big") & self._mask] = block + 1

    def find(self, digest: bytes) -> int | None:
        """A block of this digest that the destination has, if one is remembered."""
        block = self._table[int.from_bytes(digest[:8], "big") & self._mask] - 1
        return block if block >= 0 and self._manifest.get(block) == digest else None
