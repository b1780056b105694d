"""Content from one end to another of one process: whole, resumed where it broke, and nothing written that is there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agency.problems import AgencyError, refuse
from agency.transfer.ends import BLOCK, UNIT, Sink
from agency.transfer.formats.files import PartSink
from agency.transfer.formats.opening import open_sink, open_source
from agency.transfer.local import copy
from agency.transfer.progress import Progress
from tests.agency.transfer.ends import MemorySink, MemorySource
from tests.agency.transfer.formats.copying import manifest_of, room_taken, sparse_file

blocks = st.lists(st.sampled_from([0, 0, 1, 2, 3]), max_size=70)
tails = st.sampled_from([0, 1, BLOCK - 1])


def content_of(kinds: list[int], tail: int) -> bytes:
    """Blocks of zeros (0), and of three kinds of data, and something short at the end."""
    chance = [bytes(BLOCK), *(random.Random(seed).randbytes(BLOCK) for seed in (1, 2, 3))]  # noqa: S311 - the same
    return b"".join(chance[kind] for kind in kinds) + chance[1][:tail]


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


class Stream:
    """Content that comes in order, and can be begun anywhere; breaks at a unit, if it is told."""

    sequential = True

    def __init__(self, content: bytes, broken_at: int | None = None, breaks: BaseException | None = None) -> None:
        self.content, self.size = content, len(content)
        self.asked: list[int] = []
        self._position, self._broken_at, self._breaks = 0, broken_at, breaks

    def extents(self) -> Any:
        if self.size:
            yield 0, self.size

    def skip(self, data: bytes) -> None:
        assert data == self.content[self._position : self._position + len(data)]
        self._position += len(data)

    def read(self, offset: int, length: int) -> bytes:
        assert offset == self._position
        if offset // UNIT == self._broken_at:
            raise self._breaks or AssertionError
        self.asked.append(offset)
        self._position += length
        return self.content[offset : offset + length]

    def check_unchanged(self) -> None:
        assert self._position == self.size

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def sink_in(directory: Path, size: int, *, killed: bool = False) -> Sink:
    """The file; where the process is killed, what came is not put in order."""
    sink = open_sink(directory, "content", size, "raw")
    assert isinstance(sink, PartSink)
    if killed:
        sink.leave = lambda _: sink._close()  # type: ignore[method-assign]
    return sink


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks, tails, st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=3))
def test_whatever_breaks_the_content_is_whole(
    tmp_path: Path, kinds: list[int], tail: int, breaks: list[tuple[int, bool]]
) -> None:
    """A stream that breaks, or whose process is killed, is gone on with at the unit where it broke: nothing that came
    is read again, zeros included; and the file is the content, with its root."""
    directory, content = tmp_path / str(uuid4()), content_of(kinds, tail)
    directory.mkdir()
    journal, reached = directory / ".journal", 0
    units = -(-len(content) // UNIT)
    for at, killed in breaks:
        if not reached <= at < units:
            continue
        stream = Stream(content, at, Killed() if killed else refuse("broken", "it broke", "again"))
        with pytest.raises((Killed, AgencyError)):
            copy(stream, sink_in(directory, len(content), killed=killed), scratch=directory, journal=journal)
        assert stream.asked == [unit * UNIT for unit in range(reached, at)]
        reached = at
    stream = Stream(content)
    result = copy(stream, sink_in(directory, len(content)), scratch=directory, journal=journal)
    assert stream.asked == [unit * UNIT for unit in range(reached, units)]
    assert (directory / "content").read_bytes() == content
    assert (result.size, result.wire) == (len(content), len(content) - reached * UNIT)
    assert result.data + result.same + result.zero == len(content)
    with manifest_of(MemorySource(content)) as manifest:  # type: ignore[arg-type]
        assert result.root == manifest.root()


@given(blocks, blocks, tails, st.booleans())
def test_what_is_there_is_left_alone(kinds: list[int], before: list[int], tail: int, known: bool) -> None:
    """Of content that the sink has, or nearly has, only the blocks that differ are written; to one that is written in
    order, all of it is."""
    content = content_of(kinds, tail)
    old = content_of(before, 0)[: len(content)].ljust(len(content), b"\0")
    sink = MemorySink(len(content), old if known else None)
    result = copy(MemorySource(content), sink)  # type: ignore[arg-type]
    assert (sink.content, sink.root) == (content, result.root)
    differ = [
        at for at in range(0, len(content), BLOCK)
        if any(content[at : at + BLOCK]) and not (known and content[at : at + BLOCK] == old[at : at + BLOCK])
    ]  # fmt: skip
    assert sink.written == sum(len(content[at : at + BLOCK]) for at in differ)
    assert result.data + result.same + result.zero == len(content)
    sequential = MemorySink(len(content), sequential=True)
    copy(MemorySource(content), sequential)  # type: ignore[arg-type]
    assert (sequential.content, sequential.place) == (content, len(content))


def test_a_file_stays_sparse(tmp_path: Path) -> None:
    """Holes and zeros of the source take no room in the copy, whether they are read or not."""
    size = 64 * UNIT + 5
    path = sparse_file(tmp_path / "disk", size)
    source = open_source(path, "raw")
    copy(source, open_sink(tmp_path, "copy", size, "raw"), scratch=tmp_path)
    source.close()
    stream = Stream(path.read_bytes())
    copy(stream, open_sink(tmp_path, "streamed", size, "raw"), scratch=tmp_path)
    for name in ("copy", "streamed"):
        assert (tmp_path / name).read_bytes() == path.read_bytes()
        assert room_taken(tmp_path / name) < size // 8


def test_what_somebody_changed_in_the_part_is_read_again(tmp_path: Path) -> None:
    """What the journal says was read counts only while the part has it: what differs, and all after it, is read."""
    content = random.Random(6).randbytes(6 * UNIT)  # noqa: S311 - the same each time
    journal = tmp_path / ".journal"
    with pytest.raises(Killed):
        copy(Stream(content, 5, Killed()), sink_in(tmp_path, len(content), killed=True), journal=journal)
    with (tmp_path / ".content.part").open("r+b") as part:
        part.seek(2 * UNIT + 7)
        part.write(b"other")
    stream = Stream(content)
    copy(stream, sink_in(tmp_path, len(content)), journal=journal)
    assert stream.asked[0] == 2 * UNIT
    assert (tmp_path / "content").read_bytes() == content


def refused(call: Callable[[], object]) -> str:
    """The code that it is refused with."""
    with pytest.raises(AgencyError) as caught:
        call()
    return caught.value.problem.code


def test_a_cancelled_copy_goes_on(tmp_path: Path) -> None:
    """A cancel is obeyed after the unit at hand, leaves a part and no file, and the next attempt goes on from there."""
    content, asked = content_of([1, 0, 2] * 40, 9), list[int]()

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    where = {"scratch": tmp_path, "journal": tmp_path / ".journal"}
    stream = Stream(content)
    code = refused(lambda: copy(stream, sink_in(tmp_path, len(content)), cancelled=cancelled, **where))
    assert (code, len(stream.asked), (tmp_path / "content").exists()) == ("cancelled", 3, False)
    stream = Stream(content)
    copy(stream, sink_in(tmp_path, len(content)), **where)
    assert stream.asked[0] == 3 * UNIT
    assert (tmp_path / "content").read_bytes() == content


def test_a_source_that_lies_is_refused(tmp_path: Path) -> None:
    """Content that ends early, or is not what it was said to be, gets no name; the sink is left, whoever fails."""

    class Other(MemorySource):
        def check_unchanged(self) -> None:
            raise refuse("source-changed", "it is another", "again")

    short = MemorySource(b"x" * UNIT)
    short.size = 2 * UNIT
    short.extents = lambda: iter([(0, 2 * UNIT)])  # type: ignore[method-assign]
    assert refused(lambda: copy(short, sink_in(tmp_path, 2 * UNIT))) == "source-short"  # type: ignore[arg-type]
    assert refused(lambda: copy(Other(b"x"), sink_in(tmp_path, 1))) == "source-changed"  # type: ignore[arg-type]
    assert not (tmp_path / "content").exists()

    class Full(MemorySink):
        def finish(self, manifest: Any) -> None:
            raise refuse("disk-full", "no room", "make some")

    full = Full(5)
    assert refused(lambda: copy(MemorySource(b"hello"), full)) == "disk-full"  # type: ignore[arg-type]
    assert full.left is not None


def test_how_far_it_is_is_told() -> None:
    """Progress grows to the whole, with a rate."""
    told: list[Progress] = []
    copy(MemorySource(b"x" * (5 * UNIT + 1)), MemorySink(5 * UNIT + 1), progress=told.append)  # type: ignore[arg-type]
    done = [each.done for each in told]
    assert done == sorted(done)
    assert (told[-1].done, told[-1].total, told[-1].wire) == (5 * UNIT + 1,) * 3
    assert told[-1].rate > 0
