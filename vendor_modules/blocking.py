"""A bounded pool of threads for provider libraries that block: the event loop never waits on one.

Each thread has a client of its own, because such libraries are seldom safe to share between threads. A call whose
caller has stopped waiting goes on in its thread until the library ends it: give the library a time limit of its own, a
little above :attr:`~vendor_modules.module.VendorModule.call_timeout`, and no thread is lost for long.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")

WORKERS = 8


class Pool(Generic[C]):
    """Runs calls on clients, at most ``workers`` at once; ``connect`` makes one, ``disconnect`` closes one.

    A module has one pool, whatever becomes of its login: a creation is known to be under way in no other.
    """

    def __init__(
        self,
        connect: Callable[[], C] | None = None,
        disconnect: Callable[[C], object] = lambda _: None,
        *,
        workers: int = WORKERS,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="vendor-call")
        self._own = threading.local()
        self._clients: list[C] = []
        self._under_way: dict[str, Future[object]] = {}
        self._turn = asyncio.Lock()

    async def run(self, call: Callable[[C], T], *, key: str | None = None, connect: Callable[[], C] | None = None) -> T:
        """The result of ``call`` on a client, from a thread of the pool. The client is one that ``connect`` made: give
        another one after a new login, and the thread's client is replaced.

        Calls with the same ``key`` follow one another: one that the caller has given up, but the library not yet, is
        waited for, so that what it creates is there to be found before it is created again.
        """
        async with self._turn:  # to start a thread holds up the loop: of many calls at once, one begins a round
            await asyncio.sleep(0)
        while key is not None and (earlier := self._under_way.get(key)) is not None:
            with suppress(Exception):  # it is its own caller's
                await asyncio.wrap_future(_watched(earlier))
        future = self._executor.submit(self._with_client, call, connect or self._connect)
        if key is not None:
            self._under_way[key] = future  # type: ignore[assignment]  # only its end matters
            loop = asyncio.get_running_loop()
            future.add_done_callback(lambda _: _soon(loop, lambda: self._under_way.pop(key, None)))
        return await asyncio.wrap_future(future)

    def _with_client(self, call: Callable[[C], T], connect: Callable[[], C] | None) -> T:
        assert connect is not None  # noqa: S101 - given to the pool, or with the call
        if getattr(self._own, "connect", None) is not connect:
            self._part()
            self._own.client = connect()
            self._own.connect = connect
            self._clients.append(self._own.client)
        return call(self._own.client)

    def _part(self) -> None:
        """Close the thread's client, if it has one."""
        if hasattr(self._own, "connect"):
            del self._own.connect
            with suppress(ValueError):  # the pool has been closed meanwhile
                self._clients.remove(self._own.client)
            self._disconnect(self._own.client)

    async def close(self) -> None:
        """Take no more calls; drop those that have not begun, and close the clients."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        clients, self._clients = self._clients, []
        for client in clients:
            await asyncio.to_thread(self._disconnect, client)


def _watched(future: Future[object]) -> Future[object]:
    """A future that ends with the other one, and can be cancelled without it."""
    mirror: Future[object] = Future()

    def ended(_: Future[object]) -> None:
        if mirror.set_running_or_notify_cancel():
            mirror.set_result(None)

    future.add_done_callback(ended)
    return mirror


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has closed: nobody waits any more
        loop.call_soon_threadsafe(call)
