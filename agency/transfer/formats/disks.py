"""Content in a file or device that is read and written at any place, whatever the layout of the file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Protocol

from agency.problems import refuse

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_WRITE_BACK = 0x02  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_SIZE_OF_DEVICE = 0x80081272  # BLKGETSIZE64, linux/fs.h
_PIECE = 128 << 10
"""Bytes that are written at once. What is larger the system keeps in memory in one piece, and in a virtual machine such
pieces are often memory that its host has yet to find: measured, five times the time and the processor."""
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_libc = ctypes.CDLL(None, use_errno=True)


class Disk(Protocol):
    """Content at any place. Everything blocks, and may be called from several threads at once."""

    size: int

    def extents(self) -> Iterator[tuple[int, int]]:
        """Where there may be something else than zeros: offsets and lengths, in order, not overlapping."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly the bytes from there."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put it there."""

    def zero(self, offset: int, length: int) -> None:
        """Make it read as zeros there, and take no room where that can be."""

    def settle(self) -> None:
        """See that all that was written is in the file, which is then whole; nothing is written after that."""

    def interrupt(self) -> None:
        """Have whoever waits in another call give up soon, by an error, if that can be."""

    def close(self) -> None:
        """Let go of it."""


class Layout(Protocol):
    """Where in a file the content is."""

    size: int
    """Bytes of content."""

    def runs(self, offset: int, length: int) -> Iterator[tuple[int | None, int]]:
        """The places in the file of that content, in order: offset (None: it is zeros, and nowhere) and length."""


class Flat:
    """The layout of a raw file or device: content is where it is."""

    def __init__(self, size: int) -> None:
        self.size = size

    def runs(self, offset: int, length: int) -> Iterator[tuple[int | None, int]]:
        """One run."""
        if length:
            yield offset, length


class FileDisk:
    """A :class:`Disk` in an open file or device, read and written in place. Closes the file."""

    def __init__(self, file: int, layout: Layout) -> None:
        self.size = layout.size
        self._file, self._layout = file, layout

    def extents(self) -> Iterator[tuple[int, int]]:
        """What the layout has somewhere and the file system holds data for (SEEK_DATA), neighbours joined."""
        start, end = 0, 0
        for offset, length in self._extents():
            if offset > end:
                if end > start:
                    yield start, end - start
                start = offset
            end = offset + length
        if end > start:
            yield start, end - start

    def _extents(self) -> Iterator[tuple[int, int]]:
        offset = 0
        for place, length in self._layout.runs(0, self.size):
            if place is not None:
                for begin, end in _data(self._file, place, place + length):
                    yield offset + begin - place, end - begin
            offset += length

    def read(self, offset: int, length: int) -> bytes:
        """What is past the end of the file reads as zeros: a qcow2 file need not have its last cluster in full."""
        parts = [
            bytes(run) if place is None else _read(self._file, run, place)
            for place, run in self._layout.runs(offset, length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """:class:`Disk`."""
        rest = memoryview(data)
        for place, length in self._placed(offset, len(rest)):
            _write(self._file, rest[:length], place)
            # the system begins to write at once, or all would be waited for at the end; it says no where it cannot
            _libc.sync_file_range(self._file, ctypes.c_int64(place), ctypes.c_int64(length), _WRITE_BACK)
            rest = rest[length:]

    def zero(self, offset: int, length: int) -> None:
        """A hole is punched; where that cannot be, zeros are written."""
        for place, run in self._placed(offset, length):
            if _libc.fallocate64(self._file, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(place), ctypes.c_int64(run)):
                if (code := ctypes.get_errno()) not in _CANNOT:
                    raise OSError(code, os.strerror(code))
                _write_zeros(self._file, place, run)

    def _placed(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for place, run in self._layout.runs(offset, length):
            if place is None:
                raise refuse(
                    "image-unusable",
                    "the image has no room of its own at some place that is written",
                    "remove the unfinished image and transfer it again",
                )
            yield place, run

    def settle(self) -> None:
        """It is in the file at once."""

    def interrupt(self) -> None:
        """The system's own calls cannot be."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def size_of(file: int) -> int:
    """Bytes of a file or block device."""
    found = os.fstat(file)
    if not stat.S_ISBLK(found.st_mode):
        return found.st_size
    answer = fcntl.ioctl(file, _SIZE_OF_DEVICE, bytes(8))
    return int(struct.unpack("=Q", answer)[0])


def _data(file: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the file has data between two places; all of it where its system, or a device, cannot tell."""
    while begin < end:
        try:
            start = os.lseek(file, begin, os.SEEK_DATA)
            stop = min(os.lseek(file, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from there on
                return
            if error.errno != errno.EINVAL:
                raise
            start, stop = begin, end
        if start >= end:
            return
        yield start, stop
        begin = stop


def _read(file: int, length: int, place: int) -> bytes:
    data = os.pread(file, length, place)
    while len(data) < length:
        more = os.pread(file, length - len(data), place + len(data))
        if not more:
            return data + bytes(length - len(data))
        data += more
    return data


def _write(file: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(file, data[:_PIECE], place)
        data, place = data[written:], place + written


def _write_zeros(file: int, place: int, length: int) -> None:
    zeros = memoryview(bytes(min(length, 1 << 20)))
    while length:
        step = min(length, len(zeros))
        _write(file, zeros[:step], place)
        place, length = place + step, length - step
