"""What happens, as it happens: kept in the store as history, and streamed to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from agency.store.store import Store

log = structlog.get_logger("agency")

Event = dict[str, Any]
"""``{"operation", "kind", "text", …}``; progress events have ``task``, ``done`` and ``total`` (bytes), ``rate`` (bytes
per second) and ``left`` (seconds)."""


class Events:
    """Publishes events. Progress ticks are only streamed; everything else is remembered too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[str, set[asyncio.Queue[Event]]] = {}

    async def happened(self, application: str, kind: str, text: str, **data: Any) -> None:
        """Remember and stream an event of an application. History never fails the work that it tells of."""
        try:
            await self._store.record_event(kind, text, application=application, data=data)
        except Exception as error:
            log.error("event not remembered", application=application, kind=kind, exc_info=error)
        self.tick(application, {"kind": kind, "text": text, **data})

    def tick(self, application: str, event: Event) -> None:
        """Stream an event that is not worth remembering. A watcher who is too slow misses ticks, never the result."""
        for queue in self._watchers.get(application, ()):
            if not queue.full():
                queue.put_nowait(event)

    @contextmanager
    def watch(self, application: str) -> Iterator[asyncio.Queue[Event]]:
        """A queue of the application's events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=1000)
        self._watchers.setdefault(application, set()).add(queue)
        try:
            yield queue
        finally:
            self._watchers[application].discard(queue)
