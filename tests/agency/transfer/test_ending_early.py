"""Transfers that end early, and go on."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.transfer import sending
from agency.transfer.ends import BLOCK, UNIT
from agency.transfer.manifest import UNKNOWN, Manifest, digest
from agency.transfer.progress import Result
from agency.transfer.receiving import receive
from agency.transfer.sending import send
from agency.transfer.wire import BEGIN, HEADER, Kind, Lost, PeerRefused
from tests.agency.transfer.ends import MemorySink, MemorySource, transfer

CONTENT = random.Random(6).randbytes(12 * UNIT - 77)  # noqa: S311 - the same each time


def cut_after(size: int) -> Callable[[], tuple[socket.socket, socket.socket]]:
    """A link between two sockets that breaks after so many bytes."""

    def link() -> tuple[socket.socket, socket.socket]:
        (a, near), (far, b) = socket.socketpair(), socket.socketpair()

        def there() -> None:
            left = size
            with suppress(OSError):
                while left and (some := near.recv(min(left, 65536))):
                    far.sendall(some)
                    left -= len(some)
            for each in (near, far):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        def back() -> None:
            with suppress(OSError):
                while some := far.recv(65536):
                    near.sendall(some)
            near.close()

        def run() -> None:
            other = threading.Thread(target=back)
            other.start()
            there()
            other.join()
            far.close()

        threading.Thread(target=run).start()
        return a, b

    return link


class KeptSink(MemorySink):
    """A sink that goes on from what another left: as it was, with what was certain."""

    def __init__(self, left: MemorySink) -> None:
        super().__init__(left.size, bytes(left.content))
        self._certain = left.left

    def known(self) -> Manifest | None:
        assert self._certain is not None
        manifest = Manifest(self.size)
        for block, value in enumerate(self._certain):
            manifest.set(block, value)
        return manifest


@given(st.integers(0, len(CONTENT) + 1000), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_transfer_goes_on_where_the_link_broke(size: int, streams: int) -> None:
    """Wherever it breaks, what is left is what is certain, and the next transfer sends the rest alone."""
    sink = MemorySink(len(CONTENT))
    first = transfer(MemorySource(CONTENT), sink, streams, link=cut_after(size))
    if sink.left is None:
        assert sink.content == CONTENT
        return
    assert isinstance(first.sent, Lost)
    assert first.sent.problem.retryable
    certain = 0
    for block, value in enumerate(sink.left):
        there = bytes(sink.content[block * BLOCK : (block + 1) * BLOCK])
        assert value in (UNKNOWN, digest(there))
        certain += len(there) if value != UNKNOWN else 0
    assert certain == sink.written
    again = KeptSink(sink)
    sent, _ = transfer(MemorySource(CONTENT), again, streams).results
    assert again.content == CONTENT
    assert (sent.same, sent.data) == (certain, len(CONTENT) - certain)


def test_what_fails_while_it_is_written_is_not_certain() -> None:
    """A block that was being overwritten when the disk failed is neither the old one nor the new one."""

    class Failing(MemorySink):
        def write(self, offset: int, data: bytes | memoryview) -> None:
            if offset >= 5 * UNIT:
                raise OSError(5, "Input/output error")
            super().write(offset, data)

    sink = Failing(len(CONTENT), bytes(CONTENT[::-1]))
    outcome = transfer(MemorySource(CONTENT), sink, 1)
    assert isinstance(outcome.received, AgencyError)
    assert sink.left is not None
    assert sink.left[5 * 16 : 6 * 16] == [UNKNOWN] * 16
    assert UNKNOWN not in sink.left[: 5 * 16] + sink.left[6 * 16 :]


@pytest.mark.parametrize("who", [send, receive])
def test_a_cancel_is_obeyed_while_the_peer_does_not_move(who: Callable[..., Result]) -> None:
    """Both sides end when they are cancelled, though they wait for a peer that never says or takes anything; what is
    there is left for the next time."""
    ours, theirs = socket.socketpair()
    sink = MemorySink(len(CONTENT))
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    with ours:
        if who is send:
            ours.sendall(HEADER.pack(Kind.HAVE, 0, 0, 0, 0))
        else:
            ours.sendall(HEADER.pack(Kind.BEGIN, 0, 0, BEGIN.size, 0) + BEGIN.pack(len(CONTENT), BLOCK))
        with pytest.raises(AgencyError) as caught:
            who(MemorySource(CONTENT) if who is send else sink, [theirs], idle=600, cancelled=cancelled)
    assert caught.value.problem.code == "cancelled"
    assert who is send or sink.left is not None


def hang(end: Any, call: str, *, helps: bool) -> tuple[threading.Event, threading.Event]:
    """Have a call of the end's hang until it is let go, or, if that ``helps``, interrupted: when it has begun to, and
    what lets it go."""
    begun, let_go = threading.Event(), threading.Event()
    really = getattr(end, call)

    def hung(*arguments: Any) -> Any:
        begun.set()
        assert let_go.wait(60), "nobody lets it go"
        if helps:
            raise OSError(4, "Interrupted system call")
        return really(*arguments)

    setattr(end, call, hung)
    if helps:
        end.interrupt = let_go.set
    return begun, let_go


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize("call", ["read", "check_unchanged", "known", "write", "finish"])
def test_a_cancel_is_obeyed_while_an_end_hangs(call: str, helps: bool) -> None:
    """What can be interrupted is; where that cannot be, the other side need not wait for it. Then what is there is left
    for the next time, or complete if it has become so."""
    source, sink = MemorySource(CONTENT), MemorySink(len(CONTENT))
    at_source = call in ("read", "check_unchanged")
    begun, let_go = hang(source if at_source else sink, call, helps=helps)
    sockets = [socket.socketpair() for _ in range(2)]
    theirs: dict[str, Any] = {"idle": 600}
    ours = theirs | {"cancelled": begun.is_set}
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(send, source, [a for a, _ in sockets], **(ours if at_source else theirs))
        received = pool.submit(receive, sink, [b for _, b in sockets], **(theirs if at_source else ours))
        hangs, other = (sent, received) if at_source else (received, sent)
        try:
            told = other.exception(30)
            assert isinstance(told, PeerRefused | Lost)
            assert helps or not hangs.done()
            error = hangs.exception(30) if helps else None
        finally:
            let_go.set()
        if call == "finish" and not helps:
            assert hangs.result().root == sink.root
            return
        error = hangs.exception()
    assert isinstance(error, AgencyError)
    assert error.problem.code == "cancelled"
    assert sink.left is not None


@pytest.mark.parametrize("phase", ["known", "finish"])
def test_a_destination_is_not_busy_for_ever(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says again and again that it works, for longer than any disk needs for that much content, is given up. It
    gives up, too, what it then does for nobody; but what has come in full becomes complete."""
    monkeypatch.setattr("agency.transfer.session._WAIT", 0.01)
    monkeypatch.setattr(sending, "_BUSY", 0.3)
    monkeypatch.setattr(sending, "_SLOWEST_DISK", 1 << 40)
    sink = MemorySink(len(CONTENT))
    _, let_go = hang(sink, phase, helps=phase == "known")
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(send, MemorySource(CONTENT), [ours], idle=600)
        received = pool.submit(receive, sink, [theirs], idle=600)
        error = sent.exception(30)
        assert isinstance(error, AgencyError)
        assert error.problem.code == "peer-too-slow"
        if phase == "known":
            assert isinstance(received.exception(30), Lost)
            assert let_go.is_set()
        else:
            let_go.set()
            assert received.result(30).root == sink.root


@pytest.mark.parametrize("phase", ["known", "finish"])
def test_a_destination_may_be_busy(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is only as slow as a disk can be with that much content is waited for."""
    monkeypatch.setattr("agency.transfer.session._WAIT", 0.01)
    monkeypatch.setattr(sending, "_BUSY", 0)
    monkeypatch.setattr(sending, "_SLOWEST_DISK", len(CONTENT) / 60)
    sink = MemorySink(len(CONTENT))
    _, let_go = hang(sink, phase, helps=False)
    threading.Timer(0.5, let_go.set).start()
    transfer(MemorySource(CONTENT), sink).results  # noqa: B018 - or it raises
    assert sink.content == CONTENT


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_no_more_is_under_way_than_may_be_sent_again(streams: int) -> None:
    """A destination that is killed loses what it has not confirmed: that is never more than 64 MiB, on however many
    streams."""
    pairs = [socket.socketpair() for _ in range(streams)]
    pairs[0][1].sendall(HEADER.pack(Kind.HAVE, 0, 0, 0, 0))

    def heard(stream: socket.socket) -> int:
        """Bytes that come, of which nothing is confirmed."""
        into, size = bytearray(UNIT), 0
        with stream, suppress(ConnectionError):
            while some := stream.recv_into(into):
                size += some
        return size

    with ThreadPoolExecutor(streams) as pool:
        sizes = [pool.submit(heard, b) for _, b in pairs]
        with pytest.raises(Lost):
            send(MemorySource(b"x" * (80 * UNIT)), [a for a, _ in pairs], compress=False, idle=1)
        heads = 16 * (1 + 32) + HEADER.size
        assert 32 * UNIT < sum(each.result() for each in sizes) <= 64 * (UNIT + heads) + 100
