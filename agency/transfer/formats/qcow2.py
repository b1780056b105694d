"""The layout of qcow2 files, versions 2 and 3, from QEMU's ``docs/interop/qcow2.txt``; tables are read where they are
needed.

Whoever made the file is not believed: every number is held against the file before it is used, and nothing that the
file says makes us hold more than one table (2 MiB).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agency.problems import AgencyError, refuse

MAGIC = b"QFI\xfb"
_FIELDS = struct.Struct(">4sIQIIQIIQQIIQ")
_FIELDS_3 = struct.Struct(">QQQII")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION_TYPE, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION_TYPE | _EXTENDED_L2
_LARGEST_L1 = 32 << 20  # bytes; QEMU's own bound
_BACKING_FORMAT = 0xE2792ACA

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_L1_RESERVED = 0x7F00_0000_0000_01FF
_L2_RESERVED = 0x3F00_0000_0000_01FE
_COMPRESSED = 1 << 62
_ZERO = 1


class Header(NamedTuple):
    """What the header says that matters to a reader."""

    version: int
    cluster_bits: int
    size: int
    """Bytes of content."""
    l1_entries: int
    l1_offset: int
    features: int
    backing: str | None
    """The name of the image that this one is a difference to."""
    backing_format: str | None


def read_header(file: int) -> Header:
    """The header, held against the file; ``image-damaged`` and ``image-unsupported``."""
    raw = _exactly(file, _FIELDS.size, 0, "its header")
    magic, version, backing_at, backing_length, bits, size, crypt, l1_entries, l1_offset, _, _, _, _ = _FIELDS.unpack(
        raw
    )
    if magic != MAGIC:
        raise refuse("image-format-wrong", "the file is no qcow2 image", "say the format that it has")
    if version not in (2, 3):
        raise _unsupported(f"version {version}", "convert it: qemu-img convert -O qcow2")
    if not 9 <= bits <= 21:
        raise damaged(f"clusters of 2^{bits} bytes")
    features, length = 0, _FIELDS.size
    if version == 3:
        features, _, _, _, length = _FIELDS_3.unpack(_exactly(file, _FIELDS_3.size, _FIELDS.size, "its header"))
    if length < _FIELDS.size or length > 1 << bits or (version == 3 and length < _FIELDS.size + _FIELDS_3.size):
        raise damaged(f"a header of {length} bytes")
    if crypt:
        raise _unsupported("encrypted content", "convert it: qemu-img convert, which asks for its secret")
    _check_features(features)
    _check_l1(file, bits, size, l1_entries, l1_offset)
    backing = backing_format = None
    if backing_at:
        if backing_length > 1023 or backing_at < length or backing_at + backing_length > 1 << bits:
            raise damaged("the name of its backing file is outside of the first cluster")
        backing = os.fsdecode(_exactly(file, backing_length, backing_at, "the name of its backing file"))
        backing_format = _extension(file, length, backing_at, _BACKING_FORMAT)
    return Header(version, bits, size, l1_entries, l1_offset, features, backing, backing_format)


def _check_features(features: int) -> None:
    if features & ~_KNOWN:
        raise _unsupported(f"features {features & ~_KNOWN:#x}", "convert it with a QEMU that knows them")
    if features & _DATA_FILE:
        raise _unsupported("an external data file", "convert it: qemu-img convert -O qcow2")
    if features & (_DIRTY | _CORRUPT):
        raise damaged("it is marked as " + ("corrupt" if features & _CORRUPT else "in use, or not closed in order"))


def _check_l1(file: int, bits: int, size: int, entries: int, offset: int) -> None:
    covered = 1 << (2 * bits - 3)  # by one entry
    if size % 512 or size >= 1 << 63:
        raise damaged(f"a content of {size} bytes")
    if entries < -(-size // covered) or entries * 8 > _LARGEST_L1:
        raise damaged(f"a first table of {entries} entries for {size} bytes")
    if entries and (offset % (1 << bits) or not offset or offset + entries * 8 > os.fstat(file).st_size):
        raise damaged("its first table is outside of the file")


def _extension(file: int, begin: int, end: int, wanted: int) -> str | None:
    """The header extension of that kind."""
    while begin + 8 <= end:
        kind, length = struct.unpack(">II", _exactly(file, 8, begin, "its header"))
        if not kind or begin + 8 + length > end:
            return None
        if kind == wanted:
            return os.fsdecode(_exactly(file, length, begin + 8, "its header"))
        begin += 8 + -(-length // 8) * 8
    return None


class Qcow2Layout:
    """A :class:`~agency.transfer.formats.disks.Layout`: of an image without a backing file, nothing in it
    compressed."""

    def __init__(self, file: int, header: Header) -> None:
        self.size = header.size
        self._file, self._header = file, header
        self._cluster = 1 << header.cluster_bits
        self._entries = self._cluster // 8  # of a second table
        self._end = os.fstat(file).st_size

    def is_plain(self) -> bool:
        """Whether this layout can say where all the content is; ``image-damaged`` if there is more of tables than of
        file."""
        if self._header.features & (_EXTENDED_L2 | _COMPRESSION_TYPE) or self._header.backing is not None:
            return False
        tables = 0
        for index in range(-(-self.size // (self._entries * self._cluster))):
            if table := self._table(index, 0, self._entries):
                tables += 1
                if tables * self._cluster > self._end:
                    raise damaged("its tables overlap")
                if any(flags & _COMPRESSED >> 56 for flags in set(table[::8])):
                    return False
        return True

    def runs(self, offset: int, length: int) -> Iterator[tuple[int | None, int]]:
        """Clusters that follow one another in the file are one run."""
        start: int | None = None
        run = 0
        for place, step in self._clusters(offset, offset + length):
            if run and place == (None if start is None else start + run):
                run += step
                continue
            if run:
                yield start, run
            start, run = place, step
        if run:
            yield start, run

    def _clusters(self, offset: int, end: int) -> Iterator[tuple[int | None, int]]:
        bits, within = self._header.cluster_bits, self._cluster - 1
        while offset < end:
            index, first = divmod(offset >> bits, self._entries)
            count = min(self._entries - first, ((end - 1) >> bits) - (offset >> bits) + 1)
            table = self._table(index, first, count)
            if table is None:
                step = min(end, (index + 1) * self._entries << bits) - offset
                yield None, step
                offset += step
                continue
            for entry, clusters in self._joined(table):
                step = min(end, ((offset >> bits) + clusters) << bits) - offset
                place = self._place(entry, clusters)
                yield None if place is None else place + (offset & within), step
                offset += step

    def _joined(self, table: bytes) -> Iterator[tuple[int, int]]:
        """Entries, and how many clusters each with those that follow it stands for."""
        entry, clusters, following = 0, 0, 0
        for (each,) in struct.iter_unpack(">Q", table):
            if each == following:
                clusters += 1
            else:
                if clusters:
                    yield entry, clusters
                entry = following = each
                clusters = 1
            if entry & _OFFSET:
                following += self._cluster
        if clusters:
            yield entry, clusters

    def _table(self, index: int, first: int, count: int) -> bytes | None:
        """Some entries of a second table; None if it is not there."""
        (entry,) = struct.unpack(">Q", _exactly(self._file, 8, self._header.l1_offset + index * 8, "its first table"))
        place = entry & _OFFSET
        if entry & _L1_RESERVED or place % self._cluster:
            raise damaged("an entry of its first table is none")
        return _exactly(self._file, count * 8, place + first * 8, "a second table") if place else None

    def _place(self, entry: int, clusters: int) -> int | None:
        """Where so many clusters begin; None if they are all zeros."""
        if entry & _COMPRESSED:
            raise damaged("it was changed meanwhile: it has compressed content now")
        place, zero = entry & _OFFSET, entry & _ZERO
        wrong = entry & _L2_RESERVED or place % self._cluster or (zero and self._header.version == 2)
        if wrong or place + (clusters - 1) * self._cluster * bool(place) >= self._end:
            raise damaged("an entry of a second table is none")
        return None if zero or not place else place


def damaged(what: str) -> AgencyError:
    """The error for an image that contradicts itself."""
    return refuse(
        "image-damaged",
        f"the qcow2 image cannot be read: {what}",
        "see that nothing uses the image, then see what `qemu-img check` says and repairs (-r all)",
    )


def _unsupported(what: str, remedy: str) -> AgencyError:
    return refuse("image-unsupported", f"the qcow2 image has what is not read here: {what}", remedy)


def _exactly(file: int, length: int, place: int, what: str) -> bytes:
    data = os.pread(file, length, place)
    if len(data) < length:
        raise damaged(f"{what} is outside of the file")
    return data
