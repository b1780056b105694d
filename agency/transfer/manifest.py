"""What content consists of: the digest of each block, by place, in a file, so that no size fills the memory."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import structlog
from blake3 import blake3

from agency.transfer.ends import BLOCK, UNIT

log = structlog.get_logger("agency.transfer")

DIGEST = 32
"""Bytes of a digest (BLAKE3's own length)."""
UNIT_BLOCKS = UNIT // BLOCK
UNKNOWN = bytes(DIGEST)
"""Stands where nothing is known of a block."""
ZERO = blake3(bytes(BLOCK)).digest()
"""The digest of a block of zeros."""

_CHUNK = 32 * 1024
"""Digests that are looked at, at once: 1 MiB."""
_MAGIC = b"CATM\0\0\0\1"
_HEADER = struct.Struct(">8sQ40s32s")
_LENGTH = _HEADER.size + DIGEST
"""The header is followed by its own digest."""
_IDENTITY = struct.Struct(">5Q")
_TICK = 0.02
"""Seconds: longer than the tick that files' times are rounded to, which is 0.01 at most."""


def digest(block: bytes | memoryview) -> bytes:
    """The digest of a block. The content's last block, where it is short, counts as filled up with zeros: so zeros are
    zeros at any length, and content may grow without its last block becoming another."""
    if len(block) == BLOCK:
        return blake3(block).digest()
    return blake3(block).update(bytes(BLOCK - len(block))).digest()


def digests(data: bytes | memoryview) -> list[bytes]:
    """The digests of the blocks that this data, which begins where a block does, consists of."""
    view = memoryview(data)
    return [digest(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK)]


def root_text(root: bytes) -> str:
    """A root as documents have it."""
    return f"blake3:{root.hex()}"


def identity_of(file: int) -> bytes:
    """Which file this is, and as of when (device, inode, size, mtime, ctime): a descriptor's; 40 bytes. Waits for the
    clock's next tick, so that whatever is written later shows. Renaming a file changes it."""
    while True:
        it = os.fstat(file)
        age = time.time() - it.st_ctime  # every change sets it; mtime may be any, of the future too
        if not 0 <= age <= _TICK:
            return _IDENTITY.pack(it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns)
        time.sleep(_TICK - age)


class Manifest:
    """The digests of content of this many bytes, all :data:`UNKNOWN` at first. They are in a file without a name in the
    directory ``scratch`` (the system's for temporary files if None), 32 bytes for each 64 KiB. Threads may share it.

    With ``journal``, they are in that file, and begin as what an earlier one of that size left there: it survives a
    crash, and proves nothing by itself.
    """

    def __init__(self, size: int, scratch: Path | None = None, *, journal: Path | None = None) -> None:
        self.size = size
        self.blocks = -(-size // BLOCK)
        self.units = -(-size // UNIT)
        if journal is None:
            self._file: BinaryIO = tempfile.TemporaryFile(buffering=0, dir=scratch)  # noqa: SIM115
        else:
            journal.touch(mode=0o600)
            self._file = journal.open("r+b", buffering=0)
        found = os.fstat(self._file.fileno()).st_size
        self.forget(0 if found != self.blocks * DIGEST else self.blocks)

    def get(self, block: int) -> bytes:
        """The digest of the block."""
        self._within(block, 1)
        return os.pread(self._file.fileno(), DIGEST, block * DIGEST)

    def set(self, block: int, value: bytes) -> None:
        """This is the block's digest."""
        self.put(block, value)

    def unit(self, unit: int) -> list[bytes]:
        """The digests of the unit's blocks: sixteen, fewer in the last one."""
        first = unit * UNIT_BLOCKS
        return list(self.some(first, min(UNIT_BLOCKS, self.blocks - first)))

    def some(self, first: int, count: int) -> Iterator[bytes]:
        """The digests of that many blocks, read 1 MiB at a time."""
        self._within(first, count)
        for begin in range(first, first + count, _CHUNK):
            length = min(_CHUNK, first + count - begin) * DIGEST
            found = os.pread(self._file.fileno(), length, begin * DIGEST)
            yield from (found[at : at + DIGEST] for at in range(0, length, DIGEST))

    def set_unit(self, unit: int, values: list[bytes]) -> None:
        """These are the digests of the unit's blocks."""
        self.put(unit * UNIT_BLOCKS, b"".join(values))

    def put(self, first: int, values: bytes) -> None:
        """These are the digests of the blocks from there on, one after the other."""
        self._within(first, len(values) // DIGEST)
        left, at = memoryview(values), first * DIGEST
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            left, at = left[written:], at + written

    def fill(self, first: int, count: int, value: bytes = ZERO) -> None:
        """All these blocks have that digest."""
        for at in range(first, first + count, _CHUNK):
            self.put(at, value * min(_CHUNK, first + count - at))

    def forget(self, first: int) -> None:
        """Nothing is known of the blocks from there on."""
        os.ftruncate(self._file.fileno(), first * DIGEST)
        os.ftruncate(self._file.fileno(), self.blocks * DIGEST)

    def runs(self) -> Iterator[tuple[int, bytes]]:
        """All digests, in order: the first block's number, and up to 1 MiB of them, one after the other."""
        for first in range(0, self.blocks, _CHUNK):
            yield first, os.pread(self._file.fileno(), _CHUNK * DIGEST, first * DIGEST)

    def root(self) -> bytes:
        """What stands for the whole content: the BLAKE3 of its size (8 bytes) and all digests."""
        whole = blake3(self.size.to_bytes(8, "big"))
        for _, run in self.runs():
            whole.update(run)
        return whole.digest()

    def save(self, path: Path, identity: bytes) -> None:
        """Write it there, in place of its forerunner, as what is known of the file with that identity
        (:func:`identity_of`, taken once the file is durable and has its name). It is durable when this returns."""
        header = _HEADER.pack(_MAGIC, self.size, identity, self.root())
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as new:
            try:
                new.write(header + blake3(header).digest())
                for _, run in self.runs():
                    new.write(run)
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).replace(path)
            except BaseException:
                Path(new.name).unlink()
                raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @classmethod
    def load(cls, path: Path, identity: bytes, scratch: Path | None = None) -> Manifest | None:
        """A copy of what was saved there. None if there is nothing, or it is damaged, or is of a file other than the
        one with that identity."""
        try:
            saved = path.open("rb", buffering=0)
        except FileNotFoundError:
            return None
        with saved:
            header = saved.read(_LENGTH)
            if len(header) < _LENGTH or blake3(header[:-DIGEST]).digest() != header[-DIGEST:]:
                log.warning("a damaged manifest counts for nothing", file=path.name)
                return None
            magic, size, whose, root = _HEADER.unpack(header[:-DIGEST])
            if magic != _MAGIC or whose != identity:
                return None
            return cls._copy(saved, size, root, path, scratch)

    @classmethod
    def _copy(cls, saved: BinaryIO, size: int, root: bytes, path: Path, scratch: Path | None) -> Manifest | None:
        manifest = cls(size, scratch)
        try:
            whole = os.fstat(saved.fileno()).st_size == _LENGTH + manifest.blocks * DIGEST
            for first in range(0, manifest.blocks if whole else 0, _CHUNK):
                manifest.put(first, os.pread(saved.fileno(), _CHUNK * DIGEST, _LENGTH + first * DIGEST))
            if whole and manifest.root() == root:
                return manifest
        except BaseException:
            manifest.close()
            raise
        log.warning("a damaged manifest counts for nothing", file=path.name)
        manifest.close()
        return None

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _within(self, first: int, count: int) -> None:
        if first < 0 or count < 0 or first + count > self.blocks:
            raise IndexError(f"blocks {first} to {first + count} of {self.blocks}")
