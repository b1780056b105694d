"""Sources and sinks in files and devices: what is read stays the same, and what is written is kept until it is
complete."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from agency.problems import refuse
from agency.transfer.ends import BLOCK, UNIT, Source
from agency.transfer.formats.disks import Disk, size_of
from agency.transfer.formats.parts import Part
from agency.transfer.manifest import UNIT_BLOCKS, UNKNOWN, ZERO, Manifest, digests, identity_of

Hashing = Callable[[int, int], None]
"""Told how many bytes of how many have been hashed, by any thread; what it raises ends that."""

_HASHERS = 4


class DiskSource:
    """A disk that is read, in files that must stay what they are. See :class:`agency.transfer.ends.Source`."""

    sequential = False

    def __init__(self, disk: Disk, files: Sequence[int], name: str) -> None:
        """``files``: all that the disk is made from; they are closed with it."""
        self.size = disk.size
        self._disk, self._files, self._name = disk, files, name
        self._as_opened = [_identity(file) for file in files]

    def extents(self) -> Iterator[tuple[int, int]]:
        """What the disk says."""
        return self._disk.extents()

    def read(self, offset: int, length: int) -> bytes:
        """What the disk says."""
        return self._disk.read(offset, length)

    def check_unchanged(self) -> None:
        """Whether files are as they were is seen from their identity; of devices, only that they are the same."""
        if [_identity(file) for file in self._files] != self._as_opened:
            raise refuse(
                "source-changed",
                f"{self._name} was changed while it was read",
                "stop what writes to it, or take a snapshot of it; then transfer it again",
            )

    def interrupt(self) -> None:
        """As far as the disk can be."""
        self._disk.interrupt()

    def close(self) -> None:
        """Close everything."""
        self._disk.close()
        for file in self._files:
            os.close(file)


class PartSink:
    """A disk in a :class:`~agency.transfer.formats.parts.Part`. See :class:`agency.transfer.ends.Sink`."""

    sequential = False

    def __init__(self, part: Part, disk: Disk, scratch: Path, hashing: Hashing, base: Source | None) -> None:
        """``base``: content that a part of which nothing is known has where it has nothing else."""
        self.size, self.blank = disk.size, part.is_new
        self._part, self._disk = part, disk
        self._scratch, self._hashing, self._base = scratch, hashing, base

    def known(self) -> Manifest | None:
        """Of a part from before its manifest, or else what hashing it says; and then what it is filled with."""
        if (manifest := self._part.manifest) is not None:
            self._part.manifest = None  # it is the caller's now
            return manifest if manifest.size == self.size else _resized(manifest, self.size, self._scratch)
        if self._part.is_new and self._base is None:
            return None
        manifest = hashed(self._disk, self._scratch, self._hashing)
        if self._base is not None:
            self._fill(manifest, self._base)
        return manifest

    def _fill(self, manifest: Manifest, base: Source) -> None:
        """Put units of the base where there are none but zeros: also where an attempt before has ended while it did
        so."""

        def fill(unit: int, data: bytes, values: list[bytes]) -> None:
            if unit >= manifest.units or set(manifest.unit(unit)) != {ZERO}:
                return
            if len(data) > (room := self.size - unit * UNIT):
                data, values = data[:room], digests(data[:room])
            for is_zero, group in groupby(range(len(values)), lambda each: values[each] == ZERO):
                blocks = list(group)
                if not is_zero:
                    begin, end = blocks[0] * BLOCK, (blocks[-1] + 1) * BLOCK
                    self.write(unit * UNIT + begin, memoryview(data)[begin:end])
            manifest.set_unit(unit, (values + [ZERO] * UNIT_BLOCKS)[: len(manifest.unit(unit))])

        try:
            hashed(base, self._scratch, self._hashing, fill).close()
            base.check_unchanged()
        except BaseException:
            manifest.close()
            raise

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """What the disk says."""
        self._part.begin()
        self._disk.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """What the disk says."""
        self._part.begin()
        self._disk.zero(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """What the disk says."""
        return self._disk.read(offset, length)

    def interrupt(self) -> None:
        """As far as the disk can be; and the part gets no name any more."""
        self._part.give_up()
        self._disk.interrupt()
        if self._base is not None:
            self._base.interrupt()

    def finish(self, manifest: Manifest) -> None:
        """It has its name, and its manifest, when this returns. If it cannot, it is to be left."""
        self._part.begin()
        self._disk.settle()
        self._part.deliver(manifest)
        self._close()

    def leave(self, manifest: Manifest | None) -> None:
        """The part stays; without a manifest, or where the disk cannot be closed in order, it is hashed another
        time."""
        try:
            self._disk.settle()
            self._part.keep(manifest)
        finally:
            self._close()

    def _close(self) -> None:
        self._disk.close()
        if self._part.manifest is not None:
            self._part.manifest.close()
        self._part.close()


class DeviceSink:
    """A disk that is a device: what is written is there at once, and has no other name. See
    :class:`agency.transfer.ends.Sink`.

    Nothing tells whether a device is still what it was, so there is no manifest. A file beside it, ``.NAME.part``, says
    that a transfer wrote to it: then what is there is worth hashing.
    """

    blank = False
    sequential = False

    def __init__(self, file: int, disk: Disk, mark: Path, hashing: Hashing) -> None:
        self.size = disk.size
        self._file, self._disk, self._mark, self._hashing = file, disk, mark, hashing

    def known(self) -> Manifest | None:
        """What hashing a device says that was written to before."""
        if self._mark.exists():
            return hashed(self._disk, None, self._hashing)
        with suppress(PermissionError):  # then the next transfer knows nothing, and sends all
            self._mark.touch(mode=0o600)
        return None

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """What the disk says."""
        self._disk.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """What the disk says."""
        self._disk.zero(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """What the disk says."""
        return self._disk.read(offset, length)

    def interrupt(self) -> None:
        """As far as the disk can be."""
        self._disk.interrupt()

    def finish(self, manifest: Manifest) -> None:
        """It is durable when this returns. If it cannot, it is to be left."""
        os.fsync(self._file)
        self._close()

    def leave(self, manifest: Manifest | None) -> None:
        """It is durable, as far as it goes, when this returns."""
        try:
            os.fsync(self._file)
        finally:
            self._close()

    def _close(self) -> None:
        self._disk.close()
        os.close(self._file)


def hashed(
    disk: Disk | Source,
    scratch: Path | None,
    hashing: Hashing,
    fill: Callable[[int, bytes, list[bytes]], None] = lambda _unit, _data, _digests: None,
) -> Manifest:
    """The manifest of what is on a disk. Only what may be something else than zeros is read, by several threads;
    ``fill`` is given it, with its digests."""
    manifest = Manifest(disk.size, scratch)
    try:
        manifest.fill(0, manifest.blocks)
        units, turn = _units(disk.extents()), threading.Lock()
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                with turn:
                    unit = next(units, None)
                if unit is None:
                    return
                length = min(UNIT, disk.size - unit * UNIT)
                data = disk.read(unit * UNIT, length)
                values = digests(data)
                fill(unit, data, values)
                manifest.set_unit(unit, values)
                hashing(unit * UNIT + length, disk.size)

        with ThreadPoolExecutor(_HASHERS) as threads:
            works = [threads.submit(work) for _ in range(_HASHERS)]
            try:
                for each in as_completed(works):
                    each.result()
            finally:
                ended.set()
    except BaseException:
        manifest.close()
        raise
    return manifest


def _units(extents: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The units that have a part in an extent, each once."""
    following = 0
    for offset, length in extents:
        end = -(-(offset + length) // UNIT)
        yield from range(max(following, offset // UNIT), end)
        following = max(following, end)


def _resized(manifest: Manifest, size: int, scratch: Path) -> Manifest:
    """The manifest of the content once it has another size: zeros are added, or its end is cut off."""
    other = Manifest(size, scratch)
    with manifest:
        other.fill(0, other.blocks)
        for unit in range(min(manifest.units, other.units)):
            other.set_unit(unit, manifest.unit(unit)[: other.blocks - unit * (UNIT // BLOCK)])
    if size < manifest.size and size % BLOCK:
        other.set(other.blocks - 1, UNKNOWN)
    return other


def _identity(file: int) -> bytes:
    found = os.fstat(file)
    return b"%d %d" % (found.st_rdev, size_of(file)) if stat.S_ISBLK(found.st_mode) else identity_of(file)
