"""Whole transfers, between ends in memory."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agency.certificates import certify, new_authority
from agency.transfer.blocks import plan
from agency.transfer.ends import BLOCK, UNIT
from agency.transfer.manifest import Manifest
from tests.agency.transfer.ends import MemorySink, MemorySource, transfer

KINDS = st.lists(st.tuples(st.sampled_from("0Adr"), st.integers(1, 24)), max_size=8)
"""Runs of blocks: zeros, always the same, one of a few, random."""


def content(runs: list[tuple[str, int]], tail: int, seed: int) -> bytes:
    """Content of such runs of blocks, and a short block."""
    some = random.Random(seed)  # noqa: S311 - the same each time
    makers = {
        "0": lambda: bytes(BLOCK),
        "A": lambda: b"A" * BLOCK,
        "d": lambda: some.choice(b"wxyz").to_bytes() * BLOCK,
        "r": lambda: some.randbytes(BLOCK),
    }
    return b"".join(makers[kind]() for kind, count in runs for _ in range(count)) + some.randbytes(tail)


@given(
    KINDS,
    st.sampled_from([0, 1, 512, BLOCK - 1]),
    KINDS,
    st.booleans(),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_content_arrives(
    runs: list[tuple[str, int]],
    tail: int,
    old: list[tuple[str, int]],
    begun: bool,
    streams: int,
    in_order: bool,
    compress: bool,
) -> None:
    """Whatever the content consists of, whatever was there before, and by however many streams: it arrives, and what
    both sides say of it is the same."""
    new = content(runs, tail, 1)
    source = MemorySource(new, sequential=in_order)
    sink = MemorySink(len(new), content(old, 7, 1) if begun else None)
    sent, received = transfer(source, sink, streams, sending={"compress": compress}).results
    assert sink.content == new
    assert sent.root == received.root == sink.root
    assert (sent.data, sent.copied, sent.same, sent.zero) == (
        received.data,
        received.copied,
        received.same,
        received.zero,
    )
    assert sent.data + sent.copied + sent.same + sent.zero == len(new)
    assert sent.wire == received.wire


@given(KINDS, st.sampled_from([0, 1, 512, BLOCK - 1]), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_ends_in_order_are_served_in_order(runs: list[tuple[str, int]], tail: int, streams: int) -> None:
    """A sequential sink gets each byte once and in order, whatever the number of streams, and nothing as a copy."""
    new = content(runs, tail, 2)
    source, sink = MemorySource(new, sequential=True), MemorySink(len(new), sequential=True)
    sent, _ = transfer(source, sink, streams).results
    assert (sink.content, sink.place) == (new, len(new))
    assert source.asked == sorted(set(source.asked))
    assert sent.copied == 0


@given(
    st.integers(0, 3000 * UNIT), st.lists(st.tuples(st.integers(0, 3000 * UNIT), st.integers(0, 9 * BLOCK)), max_size=9)
)
@settings(max_examples=50, deadline=None)
def test_each_unit_is_planned_once(size: int, places: list[tuple[int, int]]) -> None:
    """All units come once, in order; those that an extent touches are read, all others are holes, in runs that end."""
    ends, extents = 0, list[tuple[int, int]]()
    for offset, length in sorted(places):
        begin, end = max(offset, ends), min(offset + length, size)
        if begin < end:
            extents.append((begin, end - begin))
            ends = end

    class Extents(MemorySource):
        def extents(self) -> Iterator[tuple[int, int]]:
            return iter(extents)

    source = Extents(b"")
    source.size = size
    runs = list(plan(source))
    assert [unit for run in runs for unit in range(run.first, run.first + run.count)] == list(range(-(-size // UNIT)))
    touched = {unit for offset, length in extents for unit in range(offset // UNIT, -(-(offset + length) // UNIT))}
    assert {run.first for run in runs if not run.hole} == touched
    assert all(run.count <= 1024 for run in runs)


def test_only_what_changed_goes() -> None:
    """A second transfer sends the changed blocks, and neither reads nor writes the others at the destination."""
    some = random.Random(3)  # noqa: S311 - the same each time
    old = some.randbytes(64 * BLOCK)
    new = bytearray(old)
    new[20 * BLOCK : 21 * BLOCK] = some.randbytes(BLOCK)
    new[40 * BLOCK : 42 * BLOCK] = bytes(2 * BLOCK)
    sink = MemorySink(len(new), old)
    sent, _ = transfer(MemorySource(bytes(new)), sink).results
    assert sink.content == new
    assert (sent.data, sent.zero, sent.copied) == (BLOCK, 2 * BLOCK, 0)
    assert sink.written == BLOCK
    assert sent.wire < BLOCK + 64 * 32 + 4096


def test_blocks_that_are_there_are_not_sent_again() -> None:
    """What was written once is copied at the destination, once it is confirmed: less than one in 64 frames twice."""
    unit = random.Random(4).randbytes(UNIT)  # noqa: S311 - the same each time
    sink = MemorySink(200 * UNIT)
    sent, _ = transfer(MemorySource(unit * 200), sink, 1).results
    assert sink.content == unit * 200
    assert sent.data <= 64 * UNIT


def test_the_destinations_statement_reaches_the_sender() -> None:
    """What the destination testifies is what the sender's result has."""

    def testify(manifest: Manifest) -> bytes:
        return b"I have " + manifest.root()

    sent, received = transfer(MemorySource(b"x" * 100), MemorySink(100), receiving={"testify": testify}).results
    assert sent.statement == received.statement == b"I have " + sent.root


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[socket.socket, socket.socket]]:
    """Makes links of TLS 1.3 over loopback, whose two ends show certificates."""
    authority = new_authority("one.example")
    identity = certify(authority, ["localhost"])
    files = tmp_path_factory.mktemp("tls")
    (files / "identity").write_bytes(identity.certificate + identity.key)
    sides = [ssl.SSLContext(each) for each in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]
    for side in sides:
        side.minimum_version = ssl.TLSVersion.TLSv1_3
        side.load_cert_chain(files / "identity")
        side.load_verify_locations(cadata=authority.certificate.decode())
        side.verify_mode = ssl.CERT_REQUIRED

    def link() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(lambda: sides[1].wrap_socket(listener.accept()[0], server_side=True))
            plain = socket.create_connection(listener.getsockname())
            return sides[0].wrap_socket(plain, server_hostname="localhost"), accepting.result()

    return link


@pytest.mark.parametrize("swapped", [False, True])
def test_content_arrives_over_tls(swapped: bool, tls: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    """Over TLS, whichever side connected: blocks of all kinds arrive, and those that are there already are left out."""
    new = content([("r", 40), ("0", 20), ("A", 20), ("r", 40)], 5, 8)
    old = content([("r", 40)], 0, 8)
    sink = MemorySink(len(new), old)
    sent, received = transfer(MemorySource(new), sink, 3, link=lambda: tls()[::-1] if swapped else tls()).results
    assert sink.content == new
    assert sent.root == received.root
    assert sent.same == len(old) + 20 * BLOCK
