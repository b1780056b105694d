"""The pool of threads for libraries that block."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from vendor_modules.blocking import Pool


class Client:
    """A client that must not be shared: it knows its thread."""

    made: int = 0

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.closed = False

    def ask(self, wait: threading.Event | None = None) -> int:
        """Answer, after a while."""
        assert threading.get_ident() == self.thread, "a client was used by another thread"
        if wait is not None:
            assert wait.wait(20)
        return self.thread


async def test_each_thread_has_a_client_of_its_own() -> None:
    """However many calls there are, no client is used by two threads, and there are no more than workers."""
    clients: list[Client] = []

    def connect() -> Client:
        clients.append(Client())
        return clients[-1]

    pool: Pool[Client] = Pool(connect, lambda client: setattr(client, "closed", True), workers=3)
    await asyncio.gather(*(pool.run(lambda client: client.ask()) for _ in range(50)))
    await pool.close()
    assert 1 <= len(clients) <= 3
    assert all(client.closed for client in clients)


async def test_it_is_bounded() -> None:
    """No more calls run at once than there are workers; the loop goes on meanwhile."""
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()
    loop, both = asyncio.get_running_loop(), asyncio.Event()

    def call(_: object) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                loop.call_soon_threadsafe(both.set)
        assert go.wait(20)
        with lock:
            running -= 1

    pool: Pool[None] = Pool(lambda: None, workers=2)
    calls = [asyncio.ensure_future(pool.run(call)) for _ in range(6)]
    await both.wait()
    await asyncio.sleep(0.1)
    assert running == 2
    go.set()
    await asyncio.gather(*calls)
    await pool.close()
    assert most == 2


async def test_a_call_that_was_given_up_is_waited_for() -> None:
    """A creation whose caller has gone still ends before the next one with its key begins."""
    go, order = threading.Event(), list[str]()
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def first(_: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(20)
        order.append("first")

    pool: Pool[None] = Pool(lambda: None)
    given_up = asyncio.ensure_future(pool.run(first, key="k"))
    await begun.wait()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    again = asyncio.ensure_future(pool.run(lambda _: order.append("second"), key="k"))
    await asyncio.sleep(0.05)
    assert order == []
    await pool.run(lambda _: order.append("another key"), key="other")
    go.set()
    await again
    assert order == ["another key", "first", "second"]
    await pool.close()


async def test_what_had_not_begun_never_happens() -> None:
    """A call that was given up while it waited for a thread is not made."""
    go, made = threading.Event(), list[int]()
    pool: Pool[None] = Pool(lambda: None, workers=1)
    holding = asyncio.ensure_future(pool.run(lambda _: go.wait(20)))
    waiting = asyncio.ensure_future(pool.run(lambda _: made.append(1)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await holding
    await pool.run(lambda _: None)
    await pool.close()
    assert made == []


async def test_an_error_is_the_callers() -> None:
    """What the call raises reaches its caller, and the thread goes on to serve."""
    pool: Pool[None] = Pool(lambda: None, workers=1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda _: 1 // 0, key="k")
    assert await pool.run(lambda _: 5, key="k") == 5
    await pool.close()


async def test_a_new_login_replaces_the_clients() -> None:
    """With another way to connect, a thread's client is closed and replaced; calls that wait for a thread are made, and
    those with one key still follow one another."""
    closed, go = list[str](), threading.Event()
    pool: Pool[str] = Pool(disconnect=closed.append, workers=1)

    def old() -> str:
        return "old"

    def new() -> str:
        return "new"

    def first(client: str) -> str:
        assert go.wait(20)
        return client

    one = asyncio.ensure_future(pool.run(first, key="k", connect=old))
    rest = [asyncio.ensure_future(pool.run(lambda client: client, key="k", connect=new)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(call.done() for call in (one, *rest))
    go.set()
    assert [await one, *(await asyncio.gather(*rest))] == ["old", "new", "new", "new"]
    assert closed == ["old"]
    await pool.close()
    assert closed == ["old", "new"]


async def test_many_calls_at_once_leave_the_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that come together begin one after another, with a turn of the event loop between any two."""
    pool: Pool[None] = Pool(lambda: None, workers=4)
    turn, began_in = 0, []
    submit = pool._executor.submit

    def counted(*work: Any) -> Future[Any]:
        began_in.append(turn)
        return submit(*work)

    monkeypatch.setattr(pool._executor, "submit", counted)
    calls = asyncio.gather(*(pool.run(lambda _: None) for _ in range(20)))
    while not calls.done():
        await asyncio.sleep(0)
        turn += 1
    await pool.close()
    assert len(set(began_in)) == 20
