"""Following the event nodes of a site (XEP-0060): each event once, also those of a moment in which we were away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aioxmpp
import aioxmpp.pubsub.xso as pubsub_xso

from agency.messaging.names import EVENTS, TOPICS, node
from agency.observer.session import Failed

REMEMBERED = 4000
"""Events of which we know that they were told."""
AGAIN_AFTER = 3.0
"""Seconds between two looks whether the agency has made its nodes."""

_NOT_ALLOWED = frozenset({"forbidden", "not-allowed", "not-authorized", "registration-required"})


@pubsub_xso.as_payload_class
class EventElement(aioxmpp.xso.XSO):  # type: ignore[misc]
    """What the agency publishes."""

    TAG = (EVENTS, "event")
    UNKNOWN_CHILD_POLICY = aioxmpp.xso.UnknownChildPolicy.DROP
    UNKNOWN_ATTR_POLICY = aioxmpp.xso.UnknownAttrPolicy.DROP
    id_ = aioxmpp.xso.Attr("id", default="")
    application = aioxmpp.xso.Attr("application", default="")
    kind = aioxmpp.xso.Attr("kind", default="")
    moment = aioxmpp.xso.Attr("moment", default="")
    text = aioxmpp.xso.ChildText((EVENTS, "text"), default="")


@dataclass(frozen=True)
class Seen:
    """An event, as it was published."""

    topic: str
    id: str
    application: str
    kind: str
    moment: str
    text: str


async def follow(client: aioxmpp.Client, service: str, say: Callable[[str], None]) -> AsyncGenerator[Seen, None]:
    """The events of a site from now on, as they come. ``service``: its PubSub service; ``say``: tells of what is
    waited for. :class:`Failed` if we may not follow them."""
    async with aclosing(_Following(client, aioxmpp.JID.fromstr(service), say).events()) as events:
        async for event in events:
            yield event


class _Following:
    def __init__(self, client: aioxmpp.Client, service: aioxmpp.JID, say: Callable[[str], None]) -> None:
        self._client = client
        self._service = service
        self._say = say
        self._pubsub = client.summon(aioxmpp.PubSubClient)
        self._told: OrderedDict[str, None] = OrderedDict()
        self._heard: asyncio.Queue[Seen | Exception] = asyncio.Queue()
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._lost = False

    async def events(self) -> AsyncGenerator[Seen, None]:
        connected = [
            (self._pubsub.on_item_published, self._published),
            (self._pubsub.on_node_deleted, self._deleted),
            (self._client.on_stream_established, self._back),
            (self._client.on_stream_suspended, self._away),
            (self._client.on_failure, self._failed),
        ]
        tokens = [(signal, signal.connect(slot)) for signal, slot in connected]
        try:
            for topic in TOPICS:
                self._join(topic, fresh=True)
            while True:
                heard = await self._heard.get()
                if isinstance(heard, Exception):
                    raise heard
                yield heard
        finally:
            for signal, token in tokens:
                signal.disconnect(token)
            for task in self._joining.values():
                task.cancel()
            await asyncio.gather(*self._joining.values(), return_exceptions=True)

    # --- what aioxmpp tells us ---

    def _published(self, sender: aioxmpp.JID, name: str, item: Any, **_: object) -> None:
        topic = (name or "").removeprefix(f"{EVENTS}:")
        if sender == self._service and topic in TOPICS:
            self._tell(topic, item.registered_payload)

    def _deleted(self, sender: aioxmpp.JID, name: str, **_: object) -> None:
        topic = (name or "").removeprefix(f"{EVENTS}:")
        if sender == self._service and topic in TOPICS:
            self._join(topic, fresh=False)

    def _away(self, reason: Exception) -> None:
        self._lost = True
        self._say("the connection is lost; waiting for the server")

    def _back(self) -> None:
        """The stream is there again: a new session, or the old one."""
        if self._lost:
            self._lost = False
            self._say("the connection is there again")
        for topic in TOPICS:
            self._join(topic, fresh=False)

    def _failed(self, error: Exception) -> None:
        self._heard.put_nowait(Failed("session-ended", f"the session has ended: {error}", "start again"))

    # --- below ---

    def _tell(self, topic: str, event: EventElement | None) -> None:
        if event is None or event.id_ in self._told:
            return
        self._remember(event.id_)
        self._heard.put_nowait(Seen(topic, event.id_, event.application, event.kind, event.moment, event.text))

    def _remember(self, id_: str) -> None:
        self._told[id_] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    def _join(self, topic: str, *, fresh: bool) -> None:
        if (before := self._joining.get(topic)) is not None and not before.done():
            before.cancel()
        self._joining[topic] = asyncio.create_task(self._subscribe(topic, fresh))

    async def _subscribe(self, topic: str, fresh: bool) -> None:
        """Subscribe, and catch up: what the node keeps was told before we came, or is told now."""
        waiting = False
        while True:
            try:
                await self._pubsub.subscribe(self._service, node(topic))
                kept = await self._pubsub.get_items(self._service, node(topic))
            except (aioxmpp.errors.XMPPError, ConnectionError) as error:
                if problem := self._problem(error):
                    self._heard.put_nowait(problem)
                    return
                if not waiting:
                    self._say(f"no events of {topic} yet: waiting for the agency ({error})")
                waiting, fresh = True, False
                await asyncio.sleep(AGAIN_AFTER)
            else:
                break
        for item in kept.payload.items if kept.payload else ():
            event = item.registered_payload
            if fresh and event is not None:
                self._remember(event.id_)
            else:
                self._tell(topic, event)

    def _problem(self, error: Exception) -> Failed | None:
        """Why we cannot follow, if time will not mend it."""
        condition = error.condition.value[1] if isinstance(error, aioxmpp.errors.XMPPError) else ""
        if condition not in _NOT_ALLOWED:
            return None
        us = self._client.local_jid.bare()
        return Failed(
            "not-allowed", f"{us} may not follow the events at {self._service}: {condition}",
            f"have the agency's operator name {us} in AGENCY_DEPLOYERS",
        )  # fmt: skip
