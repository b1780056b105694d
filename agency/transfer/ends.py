"""The two ends of a transfer: where content is read and where it is written; made in :mod:`agency.transfer.formats`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from agency.transfer.manifest import Manifest

BLOCK = 64 * 1024
"""Bytes that have one digest."""
UNIT = 1024 * 1024
"""Bytes that are read, sent and written at once."""


class Source(Protocol):
    """Content that is read. Everything blocks, and may be called from several threads at once."""

    size: int
    """Bytes, holes included."""
    sequential: bool
    """Whether it can only be read in order: then units are asked for one at a time, in order, each of
    :meth:`extents` once."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """Where there may be something else than zeros: offsets and lengths, in order, not overlapping."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly the bytes from there: one unit, the content's last one may be shorter. Offsets are multiples of
        :data:`UNIT`, also where an extent begins within one."""

    def check_unchanged(self) -> None:
        """Refuse (``source-changed``) if the content is not any more what it was when it was opened."""

    def interrupt(self) -> None:
        """Have whoever waits in another call give up soon, by an error, where what he waits for can be ended (another
        process, a provider; not a disk). It is of no more use; :meth:`close` follows."""

    def close(self) -> None:
        """Let go of it."""


@runtime_checkable
class Resumable(Source, Protocol):
    """A source that is read in order, and can begin where another attempt broke off."""

    def skip(self, data: bytes) -> None:
        """What comes next has been read before, and is this: it counts as read."""


class Sink(Protocol):
    """Content that is written. Everything blocks, and may be called from several threads at once."""

    size: int
    """Bytes that the content will have."""
    blank: bool
    """Whether all that was not written reads as zeros."""
    sequential: bool
    """Whether it can only be written in order: then each byte is written, or zeroed, once, in order and one call at a
    time; nothing is known of it from before, and it is never read: what was written is gone."""

    def known(self) -> Manifest | None:
        """What is there from before, by place; None if nothing is known. Hashed where only the bytes can tell."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put it there: blocks in a row, of one unit."""

    def zero(self, offset: int, length: int) -> None:
        """Make it read as zeros there, and take no room where that can be."""

    def read(self, offset: int, length: int) -> bytes:
        """A block that was written there in this transfer, or is known from before."""

    def interrupt(self) -> None:
        """Have whoever waits in another call give up soon, by an error, where what he waits for can be ended (another
        process, a provider; not a disk); what is not complete by then gets no name. :meth:`leave` follows, unless it is
        complete."""

    def finish(self, manifest: Manifest) -> None:
        """The content is complete: make it durable, give it its name, then save its manifest, and close. Where that
        fails, :meth:`leave` follows."""

    def leave(self, manifest: Manifest | None) -> None:
        """The transfer ended early: keep what is there for the next attempt, with what is known of it for certain, and
        close."""
