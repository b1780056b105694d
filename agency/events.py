"""What happens, as it happens: kept in the store as history, streamed to whoever watches, and published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from agency.store.store import Store
from descriptors.base import new_id, utc_now

log = structlog.get_logger("agency")

Event = dict[str, Any]
"""``{"operation", "kind", "text", …}``; progress events have ``task``, ``done`` and ``total`` (bytes), ``rate`` (bytes
per second) and ``left`` (seconds)."""


_TOPICS = {
    **dict.fromkeys(("submitted", "negotiating", "offers", "late", "called-off"), "negotiation"),
    **dict.fromkeys(("agreed", "terminated"), "agreements"),
    "progress": "measurements",
}
"""What an event of a kind is about; all others: ``relocations``, which deployments are, too (from nowhere)."""


@dataclass(frozen=True)
class Published:
    """An event as others may see it."""

    id: str
    application: str
    kind: str
    moment: datetime
    text: str

    @property
    def topic(self) -> str:
        """One of :data:`agency.messaging.names.TOPICS`."""
        return _TOPICS.get(self.kind, "relocations")


class Events:
    """Tells of events. Progress ticks are not remembered; everything else is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.publish: Callable[[Published], None] | None = None
        """Tells the world; at once, and whatever happens."""
        self._watchers: dict[str, set[asyncio.Queue[Event]]] = {}

    async def happened(self, application: str, kind: str, text: str, **data: Any) -> None:
        """Remember, stream and publish an event of an application. History never fails the work that it tells of."""
        try:
            await self._store.record_event(kind, text, application=application, data=data)
        except Exception as error:
            log.error("event not remembered", application=application, kind=kind, exc_info=error)
        self._stream(application, {"kind": kind, "text": text, **data})
        self._publish(application, kind, text)

    def tick(self, application: str, event: Event) -> None:
        """Stream and publish how far a task is, which is not worth remembering."""
        self._stream(application, event)
        self._publish(application, event["kind"], "{task}: {done} of {total} bytes".format_map(event))

    def _publish(self, application: str, kind: str, text: str) -> None:
        if self.publish is not None:
            self.publish(Published(new_id("event"), application, kind, utc_now(), text))

    def _stream(self, application: str, event: Event) -> None:
        """Tell who watches. Who is too slow misses ticks, never the result."""
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
