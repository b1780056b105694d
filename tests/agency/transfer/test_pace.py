"""Limits: of bandwidth, of memory; and when compression pays."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
import zstandard

from agency.transfer.compression import Choice, Chooser, Compressor, Pace
from agency.transfer.ends import UNIT
from agency.transfer.pace import Bandwidth, Share
from tests.agency.transfer.ends import MemorySink, MemorySource, transfer

RANDOM = random.Random(7).randbytes(UNIT)  # noqa: S311 - the same each time
TEXT = b"".join(b"%d bottles of beer on the wall\n" % each for each in range(40_000))[:UNIT]


def test_bytes_go_no_faster_than_the_bandwidth() -> None:
    """However the bytes are asked for, so many a second may go, first come, first served."""
    bandwidth = Bandwidth(1000)
    starts = [bandwidth.reserve(size) for size in (100, 1, 899, 1000, 0)]
    assert [round(each - starts[0], 6) for each in starts] == [0, 0.1, 0.101, 1, 2]


@pytest.mark.parametrize("side", ["sending", "receiving"])
def test_a_transfer_keeps_to_its_bandwidth(side: str) -> None:
    """A limit on either side holds for all that goes through the streams, all of them together."""
    rate = 4 * UNIT
    limit = {"bandwidth": Bandwidth(rate)}
    sent, _ = transfer(MemorySource(RANDOM * 2), MemorySink(2 * UNIT), 3, **{side: limit}).results
    assert sent.wire >= UNIT
    assert sent.seconds > sent.wire / rate - 0.1


def test_transfers_that_share_a_bandwidth_take_turns() -> None:
    """Who has more streams does not get more: one with four threads and one with one get as much in the same time."""
    bandwidth, order = Bandwidth(200_000), list[str]()

    def take(name: str, share: Share) -> None:
        while len(order) < 60:
            share.take(1000, lambda: None)
            order.append(name)

    many, one = Share(bandwidth), Share(bandwidth)
    threads = [threading.Thread(target=take, args=args) for args in (*[("many", many)] * 4, ("one", one))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert order.count("one") > len(order) / 3


def test_who_waits_for_bandwidth_can_be_stopped() -> None:
    """A thread that waits for its share gives up when it is told to."""

    def check() -> None:
        raise InterruptedError

    share = Share(Bandwidth(1))
    share.take(1, check)
    with pytest.raises(InterruptedError):
        share.take(1000, check)
    with pytest.raises(InterruptedError):
        share.take(1, check)


SLOW_LINK, BUSY = 0.8, 0.0
"""Parts of the time that both ends wait for the link."""


def looks(choice: Choice, *paces: Pace) -> list[bool]:
    """Whether it compresses, after each look."""
    found = []
    for pace in paces:
        choice = choice.after(pace)
        found.append(choice.on)
    return found


def test_a_slow_link_is_compressed_for() -> None:
    """A transfer begins with compressing, and goes on while both ends wait for the link."""
    assert Choice().on
    assert looks(Choice(), *[Pace(1, 220, 100, SLOW_LINK)] * 100) == [True] * 100


def test_a_link_that_becomes_slow_is_compressed_for() -> None:
    """Where both ends begin to wait for the link, the sender begins to compress."""
    fast, slow = Pace(1, 500, 500, BUSY), Pace(1, 100, 100, SLOW_LINK)
    assert looks(Choice(on=False), fast, slow, *[Pace(1, 220, 100, SLOW_LINK)] * 100) == [False, *[True] * 101]


def test_a_slow_processor_is_spared() -> None:
    """Where the processor is what is slow, the sender does not compress any more after the first look."""
    assert looks(Choice(), *[Pace(1, 500, 500, BUSY)] * 100) == [False] * 100


def test_what_little_changed_is_compressed() -> None:
    """Where most is known to the destination, the sender compresses, however busy it is; when that
    is over, the pace says whether it goes on."""
    delta, rest = Pace(0.06, 60, 25, BUSY), Pace(1, 300, 120, BUSY)
    assert looks(Choice(), *[delta] * 100, rest, rest, delta) == [*[True] * 100, False, False, True]


def test_compression_that_makes_it_slower_ends() -> None:
    """Where it went faster without compression, the sender stops, and does not try again at once."""
    plain, packed = Pace(1, 300, 300, SLOW_LINK), Pace(1, 150, 70, BUSY)
    assert looks(Choice(on=False), plain, packed, packed, *[plain] * 17) == [True, True, *[False] * 17, True]


def test_what_was_found_out_is_found_out_again_ever_more_rarely() -> None:
    """While compression leaves nothing to wait for, whether the link is still slow is looked at now and then."""
    choice, off = Choice(), []
    for look in range(500):
        choice = choice.after(Pace(1, 220, 90, BUSY) if choice.on else Pace(1, 100, 100, SLOW_LINK))
        if not choice.on:
            off.append(look)
    gaps = [b - a for a, b in pairwise(off)]
    assert gaps == sorted(gaps)
    assert 3 < len(off) < 10


def test_who_may_not_compress_does_not() -> None:
    """A sender that is told not to compress does not, from the first unit on."""
    assert Compressor(Chooser(1, allowed=False)).pack(TEXT) is None


def test_data_that_does_not_shrink_goes_as_it_is() -> None:
    """A sender that compresses looks at each unit: what does not shrink is not compressed, what follows may be."""
    compressor = Compressor(Chooser(1, allowed=True))
    packed = compressor.pack(TEXT)
    assert packed is not None
    assert zstandard.decompress(packed) == TEXT
    assert compressor.pack(RANDOM) is None
    assert compressor.pack(RANDOM + TEXT[:1000]) is None
    assert compressor.pack(TEXT) == packed


class Endless(MemorySource):
    """Much content that is nowhere, and is never the same."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self.size = size

    def extents(self) -> Iterator[tuple[int, int]]:
        yield 0, self.size

    def read(self, offset: int, length: int) -> bytes:
        return os.urandom(length)


class Nowhere(MemorySink):
    """Keeps nothing."""

    def __init__(self, size: int) -> None:
        super().__init__(0)
        self.size = size

    def write(self, offset: int, data: bytes | memoryview) -> None: ...


def test_memory_does_not_depend_on_the_size() -> None:
    """Both sides together, with four streams, hold a few units a stream, whatever the size of the content."""
    tracemalloc.start()
    try:
        transfer(Endless(160 * UNIT), Nowhere(160 * UNIT), 4).results  # noqa: B018
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 * UNIT
