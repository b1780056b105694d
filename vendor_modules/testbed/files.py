"""Work on big files: sparse where it can be, durable where it must be, in threads so that the cloud keeps answering."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from blake3 import blake3

from descriptors.base import MIB

P = ParamSpec("P")
T = TypeVar("T")
_ZEROS = bytes(MIB)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread. When cancelled, wait until the thread is done: it must not write where somebody cleans up."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with suppress(Exception):
            await work
        raise


def write_sparsely(file: IO[bytes], chunk: bytes) -> None:
    """Write at most a MiB, or leave a hole if it is all zeros; the caller truncates the file to its size in the end."""
    if chunk == _ZEROS[: len(chunk)]:
        file.seek(len(chunk), os.SEEK_CUR)
    else:
        file.write(chunk)


def copy_sparsely(source: Path, into: Path, size: int) -> None:
    """Copy the source's data, but not its holes, to a new durable file of ``size`` bytes."""
    with source.open("rb") as src, into.open("wb") as dst:
        end, at = src.seek(0, os.SEEK_END), 0
        dst.truncate(size)
        while at < end:
            try:
                at = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                break
            hole = os.lseek(src.fileno(), at, os.SEEK_HOLE)
            os.lseek(dst.fileno(), at, os.SEEK_SET)
            os.lseek(src.fileno(), at, os.SEEK_SET)
            while at < hole:
                at += os.sendfile(dst.fileno(), src.fileno(), None, hole - at)
        os.fsync(dst.fileno())


def digest_of(path: Path) -> str:
    """``blake3:…`` of the file's content."""
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return f"blake3:{hasher.hexdigest()}"


def publish(finished: Path, name: Path) -> None:
    """Give a finished file its name so that after a crash it is there whole or not at all."""
    with finished.open("rb") as file:
        os.fsync(file.fileno())
    finished.replace(name)
    directory = os.open(name.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Pace:
    """A line of limited bandwidth, shared by all who send on it; None is no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def __call__(self, size: int) -> None:
        """Return when so many bytes have had their time on the line."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / self._rate
        await asyncio.sleep(self._free_at - now)
