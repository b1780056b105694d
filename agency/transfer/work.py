"""A transfer from one end's view: open the content, meet the other proxy, send or receive, and say what came of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from agency.problems import refuse
from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import open_sink, open_source
from agency.transfer.identity import Peer
from agency.transfer.manifest import ZERO, Manifest, digests, root_text
from agency.transfer.pace import Bandwidth
from agency.transfer.progress import Progress, Result
from agency.transfer.receiving import receive
from agency.transfer.sending import send
from agency.transfer.wire import bad_peer
from agency.trust.claims import claimed
from agency.trust.untrusted import Untrusted

if TYPE_CHECKING:
    from agency.transfer.witness import Witness
    from descriptors.messages import Problem


class Meeting(Protocol):
    """How we meet the other proxy: see :mod:`agency.transfer.meeting`."""

    @property
    def peer(self) -> Peer:
        """Who it is, once we have met."""

    def size(self) -> int:
        """Of the other's content."""

    def open(self, size: int) -> list[ssl.SSLSocket]:
        """The streams, the other being told the size of our content."""

    def refuse(self, problem: Problem) -> None:
        """Say why nothing comes of it, if the other waits for an answer."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True)
class End:
    """Content at this end."""

    direction: Literal["read", "write"]
    directory: Path
    name: str
    format: str
    limit: int | None = None
    """Most bytes that it may have."""
    base: Path | None = None
    """What a file that is written, and not there yet, is filled with to begin from: content in the same format."""


@dataclass(frozen=True)
class Terms:
    """How to go about it. ``cancelled`` is asked, and ``progress`` told, a few times a second."""

    scratch: Path = Path()
    """Where manifests are while it goes on: 1/2000 of the content."""
    compress: bool = True
    bandwidth: Bandwidth | None = None
    progress: Callable[[Progress], None] = lambda _: None
    cancelled: Callable[[], bool] = lambda: False


def carry(id_: str, end: End, meeting: Meeting, witness: Witness, terms: Terms) -> tuple[Result, str]:
    """Carry out the transfer; gives what came of it, and the destination's signed statement. Blocks."""
    if end.direction == "read":
        return send_content(end, meeting, terms)
    return receive_content(id_, end, meeting, witness, terms)


def send_content(end: End, meeting: Meeting, terms: Terms) -> tuple[Result, str]:
    """Carry out a transfer from here."""
    with closing(open_source(end.directory / end.name, end.format)) as source:
        _check_limit(end, source.size)
        result = send(
            source,
            meeting.open(source.size),
            compress=terms.compress,
            bandwidth=terms.bandwidth,
            scratch=terms.scratch,
            progress=terms.progress,
            cancelled=terms.cancelled,
        )
    return result, _checked(result)


def receive_content(id_: str, end: End, meeting: Meeting, witness: Witness, terms: Terms) -> tuple[Result, str]:
    """Carry out a transfer to here."""
    started, wire = datetime.now(UTC), 0

    def progress(now: Progress) -> None:
        nonlocal wire
        wire = now.wire
        terms.progress(now)

    def hashing(_done: int, _size: int) -> None:
        if terms.cancelled():
            raise refuse("cancelled", "the transfer was cancelled", "start it again")

    size = meeting.size()
    _check_limit(end, size)

    def testify(manifest: Manifest) -> bytes:
        sender, root = meeting.peer.name, manifest.root()
        return witness.testify(id_, end.name, sender, manifest.size, root, wire, started).encode()

    with ExitStack() as opened:
        base = opened.enter_context(closing(open_source(end.base, end.format))) if end.base else None
        sink = open_sink(end.directory, end.name, size, end.format, hashing, base)
        try:
            streams = meeting.open(size)
        except BaseException:
            sink.leave(None)
            raise
        result = receive(
            sink,
            streams,
            testify=testify,
            bandwidth=terms.bandwidth,
            scratch=terms.scratch,
            progress=progress,
            cancelled=terms.cancelled,
        )
    return result, result.statement.decode()


def _check_limit(end: End, size: int) -> None:
    if end.limit is not None and size > end.limit:
        raise refuse(
            "too-large",
            f"the content has {size} bytes, and the token is good for {end.limit}",
            "ask for a token that is good for more",
        )


def _checked(result: Result) -> str:
    """The destination's statement, if it says what we sent. Whose it is, `agency verify` checks."""
    try:
        statement = result.statement.decode("ascii")
        said = claimed(statement, "transfer-manifest")
    except (UnicodeDecodeError, Untrusted):
        raise bad_peer("does not say in due form what it has received") from None
    if (said.get("size"), said.get("root")) != (result.size, root_text(result.root)):
        raise bad_peer("says that it has received something else than was sent")
    return statement


def root_of(end: End, scratch: Path, cancelled: Callable[[], bool]) -> tuple[int, str]:
    """The size and root of the content as it is on the disk now: everything is read again. Blocks, until ``cancelled``
    says so."""
    with closing(open_source(end.directory / end.name, end.format)) as source, Manifest(source.size, scratch) as whole:
        whole.fill(0, whole.blocks, ZERO)
        after = 0  # the unit after the one that was read last
        for offset, length in source.extents():
            for unit in range(max(after, offset // UNIT), -(-(offset + length) // UNIT)):
                if cancelled():
                    raise refuse("cancelled", "the content was not read to its end", "ask again")
                whole.set_unit(unit, digests(source.read(unit * UNIT, min(UNIT, source.size - unit * UNIT))))
                after = unit + 1
        source.check_unchanged()
        return source.size, root_text(whole.root())
