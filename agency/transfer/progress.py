"""How far a transfer is, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a transfer is."""

    done: int
    """Bytes of the content that are at the destination."""
    total: int
    """Bytes of the content."""
    wire: int
    """Bytes that went over the streams, in both directions, before encryption."""
    rate: float
    """Bytes of the content per second, lately."""
    left: float | None
    """Seconds until the end at this rate; None where nothing can be said."""


@dataclass(frozen=True)
class Result:
    """What came of a transfer that is complete, and durable at the destination."""

    size: int
    """Bytes of the content: the sum of the four that follow, which say what happened to how many."""
    data: int
    copied: int
    same: int
    zero: int
    wire: int
    """Bytes that went over the streams, in both directions, before encryption."""
    seconds: float
    root: bytes
    """The BLAKE3 root of the content, on which both sides agree."""
    statement: bytes
    """What the destination signed (the ``testify`` of :func:`agency.transfer.receiving.receive`)."""
