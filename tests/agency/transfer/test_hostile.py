"""Peers that do not keep to the protocol: refused, and nothing of what they said wrongly is written."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agency.problems import AgencyError, refuse
from agency.transfer.ends import BLOCK, UNIT
from agency.transfer.manifest import Manifest, digest
from agency.transfer.receiving import receive
from agency.transfer.sending import send
from agency.transfer.wire import (
    BEGIN,
    HEADER,
    NUMBER,
    PACKED,
    PROBLEM,
    SAME_UNITS,
    Kind,
    Lost,
    hear_hello,
    say_hello,
)
from tests.agency.transfer.ends import MemorySink, MemorySource, transfer

SIZE = 3 * UNIT + 100
"""Four units: 48 blocks, and one of 100 bytes."""
BLOCK_X = b"x" * BLOCK
X = digest(BLOCK_X)
ZEROS, SAMES, COPIES, DATA = b"\0", b"\1", b"\2", b"\3"


def unit(number: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(Kind.UNIT, flags, 0, len(body), number) + body


def skip(number: int, count: int, flags: int = 0) -> bytes:
    return HEADER.pack(Kind.SKIP, flags, 0, 8, number) + NUMBER.pack(count)


GOOD = unit(0, DATA + ZEROS * 15 + X + BLOCK_X)
REST = skip(1, 3)
BEGINS = HEADER.pack(Kind.BEGIN, 0, 0, BEGIN.size, 0) + BEGIN.pack(SIZE, BLOCK)
BOMB = zstandard.ZstdCompressor(level=1).compress(bytes(512 * UNIT))
"""Half a gigabyte, in a few kilobytes."""
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(BLOCK_X)


@contextlib.contextmanager
def receiver(sink: Any, **options: Any) -> Iterator[tuple[socket.socket, Future[Any]]]:
    """A receiver of one stream, and the other end of that."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, ThreadPoolExecutor(1) as pool:
        yield ours, pool.submit(receive, sink, [theirs], **{"idle": 5, **options})


def error_of(future: Future[Any]) -> AgencyError:
    error = future.exception()
    assert isinstance(error, AgencyError)
    return error


def heard(stream: socket.socket) -> bytes:
    """All that comes until the end; then hang up."""
    said = bytearray()
    with contextlib.suppress(ConnectionError):
        while some := stream.recv(65536):
            said += some
    stream.close()
    return bytes(said)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(HEADER.pack(Kind.END, 0, 0, 32, 0) + bytes(32), id="ended without all"),
        pytest.param(GOOD + GOOD, id="a unit twice"),
        pytest.param(GOOD + skip(0, 4), id="a unit twice, in a run"),
        pytest.param(unit(4, DATA + X + BLOCK_X), id="a unit past the end"),
        pytest.param(unit(2**63, DATA + X + BLOCK_X), id="a unit far past the end"),
        pytest.param(skip(0, 5), id="a run past the end"),
        pytest.param(skip(2**64 - 1, 2), id="a run that wraps round"),
        pytest.param(skip(0, 0), id="a run of nothing"),
        pytest.param(skip(0, 1, SAME_UNITS), id="same as what is not known"),
        pytest.param(unit(0, SAMES + ZEROS * 15), id="a block that is the same as what is not known"),
        pytest.param(unit(0, DATA + ZEROS * 15 + digest(b"y") + BLOCK_X), id="a wrong digest"),
        pytest.param(
            unit(0, DATA * 2 + ZEROS * 14 + X * 2 + BLOCK_X + b"y" * BLOCK), id="a second block's wrong digest"
        ),
        pytest.param(unit(0, DATA + ZEROS * 15 + X + BLOCK_X + b"x"), id="more data than blocks"),
        pytest.param(unit(0, DATA + ZEROS * 15 + X + BLOCK_X[1:]), id="less data than blocks"),
        pytest.param(unit(0, DATA + ZEROS * 14), id="too few kinds"),
        pytest.param(unit(0, DATA * 16 + X), id="too few digests"),
        pytest.param(unit(0, b"\4" + ZEROS * 15), id="an unknown kind of block"),
        pytest.param(unit(0, b""), id="an empty unit"),
        pytest.param(unit(0, DATA + ZEROS * 15 + X + BLOCK_X, flags=2), id="an unknown flag"),
        pytest.param(skip(0, 1, flags=2), id="an unknown flag of a run"),
        pytest.param(unit(0, COPIES + ZEROS * 15 + X + NUMBER.pack(20)), id="a copy of what was not written"),
        pytest.param(unit(0, COPIES + ZEROS * 15 + bytes(32) + NUMBER.pack(20)), id="a copy of the unknown"),
        pytest.param(unit(0, COPIES + ZEROS * 15 + X + NUMBER.pack(2**63)), id="a copy from outside"),
        pytest.param(
            unit(0, DATA + COPIES + ZEROS * 14 + X + X + NUMBER.pack(0) + BLOCK_X), id="a copy of what is to come"
        ),
        pytest.param(unit(0, DATA + ZEROS * 15 + X + BOMB, PACKED), id="a decompression bomb"),
        pytest.param(
            unit(0, DATA + ZEROS * 15 + X + UNSIZED, PACKED), id="compressed data that does not say its length"
        ),
        pytest.param(unit(0, DATA + ZEROS * 15 + X + b"rubbish", PACKED), id="rubbish for compressed data"),
        pytest.param(unit(0, DATA + ZEROS * 15 + X, PACKED), id="no compressed data"),
        pytest.param(HEADER.pack(Kind.UNIT, 0, 0, 2**32 - 1, 0), id="a frame of 4 GiB"),
        pytest.param(HEADER.pack(Kind.UNIT, 0, 1, 8, 0), id="something reserved"),
        pytest.param(HEADER.pack(Kind.HAVE, 0, 0, 0, 0), id="a frame of the other direction"),
        pytest.param(HEADER.pack(99, 0, 0, 0, 0), id="an unknown kind of frame"),
        pytest.param(GOOD + REST + HEADER.pack(Kind.END, 0, 0, 32, 0) + bytes(32), id="a wrong root"),
        pytest.param(GOOD + REST + HEADER.pack(Kind.END, 0, 0, 0, 0), id="no root"),
        pytest.param(GOOD + REST + HEADER.pack(Kind.RESULT, 0, 0, 0, 0), id="a result from the sender"),
    ],
)
def test_a_sender_that_cheats_is_refused(frames: bytes) -> None:
    """The receiver says that the peer is bad, tells it so, finishes nothing, and wrote only what was proven before."""
    sink = MemorySink(SIZE)
    with receiver(sink) as (stream, future):
        stream.sendall(BEGINS + frames)
        stream.shutdown(socket.SHUT_WR)
        said = heard(stream)
        assert error_of(future).problem.code == "bad-peer"
    assert HEADER.pack(Kind.RESULT, PROBLEM, 0, len(said.split(b"{")[-1]) + 1, 0) in said
    assert sink.root is None
    assert sink.left is not None
    assert bytes(sink.content) in (bytes(SIZE), BLOCK_X + bytes(SIZE - BLOCK))
    assert (bytes(sink.content[:BLOCK]) == BLOCK_X) == frames.startswith(GOOD)


@pytest.mark.parametrize(("size", "block"), [(SIZE + 1, BLOCK), (SIZE, 4096)])
def test_content_of_another_size_is_refused(size: int, block: int) -> None:
    """What begins is what was agreed."""
    with receiver(MemorySink(SIZE)) as (stream, future):
        stream.sendall(HEADER.pack(Kind.BEGIN, 0, 0, BEGIN.size, 0) + BEGIN.pack(size, block))
        heard(stream)
        assert error_of(future).problem.code == "bad-peer"


@given(st.binary(max_size=200), st.sampled_from([b"", BEGINS, BEGINS + GOOD, BEGINS + GOOD[:40]]))
@settings(max_examples=60, deadline=None)
def test_rubbish_does_no_harm(rubbish: bytes, before: bytes) -> None:
    """Whatever comes, the receiver ends with a problem for people, and finishes nothing."""
    sink = MemorySink(SIZE)
    with receiver(sink) as (stream, future):
        with contextlib.suppress(ConnectionError):
            stream.sendall(before + rubbish)
            stream.shutdown(socket.SHUT_WR)
        heard(stream)
        assert error_of(future).problem.code in ("bad-peer", "link-lost", "peer-refused")
    assert sink.root is None


WHOLE = BEGINS + GOOD + unit(1, DATA * 16 + X * 16 + zstandard.compress(BLOCK_X * 16), PACKED) + skip(2, 2)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_is_never_written(at: int, change: int) -> None:
    """Whichever byte changes on the way: what is written is what was sent, or the transfer fails."""
    changed = bytearray(WHOLE)
    changed[at] ^= change
    sink = MemorySink(SIZE)
    whole = (BLOCK_X + bytes(15 * BLOCK) + BLOCK_X * 16).ljust(SIZE, b"\0")
    with Manifest(SIZE) as manifest:
        for each in range(manifest.blocks):
            manifest.set(each, digest(whole[each * BLOCK : (each + 1) * BLOCK]))
        end = HEADER.pack(Kind.END, 0, 0, 32, 0) + manifest.root()
    with receiver(sink) as (stream, future):
        with contextlib.suppress(ConnectionError):
            stream.sendall(changed + end)
            stream.shutdown(socket.SHUT_WR)
        heard(stream)
        assert future.exception() is not None or sink.content == whole


@contextlib.contextmanager
def sender(**options: Any) -> Iterator[tuple[socket.socket, Future[Any]]]:
    """A sender of one stream, and the other end of that."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    source = MemorySource(random.Random(5).randbytes(SIZE))  # noqa: S311 - the same each time
    with ours, ThreadPoolExecutor(1) as pool:
        yield ours, pool.submit(send, source, [theirs], **{"idle": 5, **options})


def have(first: int, digests: bytes) -> bytes:
    packed = zstandard.compress(digests)
    return HEADER.pack(Kind.HAVE, 0, 0, len(packed), first) + packed


LAST_HAVE = HEADER.pack(Kind.HAVE, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(have(4, X), id="to have what is past the end"),
        pytest.param(have(3, X * 2), id="to have more than there is"),
        pytest.param(have(0, X) * 2, id="to have it twice"),
        pytest.param(have(0, X[1:]), id="half a digest"),
        pytest.param(have(0, b""), id="no digest"),
        pytest.param(HEADER.pack(Kind.HAVE, 0, 0, len(BOMB), 0) + BOMB, id="a decompression bomb"),
        pytest.param(HEADER.pack(Kind.HAVE, 0, 0, 2**31, 0), id="a frame of 2 GiB"),
        pytest.param(LAST_HAVE + HEADER.pack(Kind.DONE, 0, 0, 8, 5) + bytes(8), id="more done than sent"),
        pytest.param(LAST_HAVE + HEADER.pack(Kind.DONE, 0, 0, 8, 0) + bytes(8), id="nothing done"),
        pytest.param(LAST_HAVE + HEADER.pack(Kind.DONE, 0, 0, 0, 1), id="done, without how long"),
        pytest.param(LAST_HAVE + HEADER.pack(Kind.RESULT, 0, 0, 0, 0), id="success at once"),
        pytest.param(HEADER.pack(Kind.RESULT, PROBLEM, 0, 3, 0) + b"???", id="a problem that is none"),
        pytest.param(BEGINS, id="a frame of the other direction"),
    ],
)
def test_a_receiver_that_cheats_is_refused(frames: bytes) -> None:
    """The sender says that the peer is bad, and does not claim that anything arrived."""
    with sender() as (stream, future):
        stream.sendall(frames)
        heard(stream)
        assert error_of(future).problem.code == "bad-peer"


def test_a_peer_that_sends_a_byte_now_and_then_is_hung_up_on() -> None:
    """A slow-loris does not hold a transfer: what it sends does not buy it the time that a byte takes it."""
    with receiver(MemorySink(SIZE), idle=0.5) as (stream, ended_by):
        with contextlib.suppress(TimeoutError, OSError):
            for byte in BEGINS * 100:
                stream.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    ended_by.exception(0.05)
                    break
        assert isinstance(error_of(ended_by), Lost)


def test_a_peer_that_says_nothing_is_hung_up_on() -> None:
    """Idle streams end."""
    with receiver(MemorySink(SIZE), idle=0.3) as (_, future):
        assert isinstance(error_of(future), Lost)
    with sender(idle=0.3) as (_, future):
        assert isinstance(error_of(future), Lost)


def test_hellos_are_heard_and_rubbish_is_not() -> None:
    """A stream begins with what it is for; anything else, or nothing in time, is refused."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        token = os.urandom(32)
        say_hello(ours, token, 1, 3)
        assert hear_hello(theirs, 5) == (token, 1, 3)
        say_hello(ours, token, 3, 3)
        with pytest.raises(AgencyError, match="hello"):
            hear_hello(theirs, 5)
        ours.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n\r\n")
        with pytest.raises(AgencyError, match="hello"):
            hear_hello(theirs, 5)
        ours.sendall(b"CATP")
        with pytest.raises(Lost):
            hear_hello(theirs, 0.2)


class BrokenSink(MemorySink):
    """Its disk is full."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        raise OSError(28, "No space left on device", "/secret/place/.disk.part")


def test_the_peer_hears_why_without_our_paths() -> None:
    """The side whose disk is full says all that it knows to its own user, and to the peer only that."""
    outcome = transfer(MemorySource(b"x" * SIZE), BrokenSink(SIZE))
    assert isinstance(outcome.received, AgencyError)
    assert outcome.received.problem.code == "disk-full"
    assert "/secret" in outcome.received.problem.message
    assert isinstance(outcome.sent, AgencyError)
    assert outcome.sent.problem.code == "peer-refused"
    assert "disk there is full" in outcome.sent.problem.message
    assert "secret" not in outcome.sent.problem.model_dump_json()
    assert outcome.sent.problem.retryable


class BadSource(MemorySource):
    """A source that fails in some way."""

    def __init__(self, how: Callable[[int], bytes]) -> None:
        super().__init__(b"x" * SIZE)
        self._how = how

    def read(self, offset: int, length: int) -> bytes:
        return self._how(length)


def unreadable(_: int) -> bytes:
    raise OSError(5, "Input/output error", "/secret/disk")


@pytest.mark.parametrize(("how", "code"), [(unreadable, "system-refused"), (lambda n: b"x" * (n - 1), "source-short")])
def test_a_source_that_cannot_be_read_ends_the_transfer(how: Callable[[int], bytes], code: str) -> None:
    """Errors of the disk, and fewer bytes than there should be, end it on both sides with words."""
    outcome = transfer(BadSource(how), MemorySink(SIZE))
    assert isinstance(outcome.sent, AgencyError)
    assert isinstance(outcome.received, AgencyError)
    assert outcome.sent.problem.code == code
    assert outcome.received.problem.code == "peer-refused"
    assert "secret" not in outcome.received.problem.message


def test_a_source_that_changed_is_not_passed_off_as_whole() -> None:
    """Whether the source stayed the same is asked before the end is said: the destination finishes nothing."""

    class Changed(MemorySource):
        def check_unchanged(self) -> None:
            raise refuse("source-changed", "it changed", "try again")

    sink = MemorySink(SIZE)
    outcome = transfer(Changed(b"x" * SIZE), sink)
    assert isinstance(outcome.sent, AgencyError)
    assert isinstance(outcome.received, AgencyError)
    assert outcome.sent.problem.code == "source-changed"
    assert "changed while it was read" in outcome.received.problem.message
    assert sink.root is None


@given(
    st.binary(max_size=300) | st.builds(lambda x: json.dumps(x).encode(), st.recursive(st.none() | st.text(), st.lists))
)
@settings(max_examples=30, deadline=None)
def test_what_a_peer_says_of_its_problem_is_not_trusted(said: bytes) -> None:
    """Whatever a peer says of why it gave up, it becomes a problem with words."""
    with sender() as (stream, future):
        stream.sendall(HEADER.pack(Kind.RESULT, PROBLEM, 0, len(said), 0) + said)
        heard(stream)
        assert error_of(future).problem.code in ("bad-peer", "peer-refused")
