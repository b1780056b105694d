"""The agency's events on PubSub nodes (XEP-0060) of its site's XMPP server: one node a topic; `docs/messages.md`.

Only the readers that the deployer's settings name may subscribe (a whitelist). Publishing holds nothing up: events wait
in a queue of bounded length, while the server is away, too. What could not be published is logged and counted; it is in
the agency's history all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress

import structlog

from agency.events import Events, Published
from agency.logs import masked
from agency.messaging.links.stanzas import Element, attribute, condition_of, printable, text
from agency.messaging.names import EVENTS, TOPICS, node
from agency.problems import AgencyError

PUBSUB = "http://jabber.org/protocol/pubsub"
KEPT = 100
"""Events that a node keeps, for readers that were away for a moment."""
WAITING = 1000
"""Events that wait to be published, at most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two attempts to reach the server."""
ATTEMPTS = 3
"""Times that an event is offered to a server that answers, and refuses."""
LAST_WORDS = 2.0
"""Seconds in which what waits may still be published when the agency stops."""

log = structlog.get_logger("agency")


Query = Callable[[str, str, str], Awaitable[Element]]
"""Asks an address with an IQ stanza (get or set, with that content) and waits for its answer;
:class:`~agency.problems.AgencyError` if none comes."""


class Refused(Exception):
    """The PubSub service says no; the text is the condition that it names."""


@asynccontextmanager
async def event_nodes(
    events: Events, query: Query, owner: str, service: str, readers: Collection[str]
) -> AsyncIterator[EventNodes]:
    """Publish events on the nodes of ``service`` until the block ends. ``owner``: whom the service takes us for
    when we ask it with ``query``; ``readers``: JIDs that may subscribe."""
    nodes = EventNodes(query, owner, service, readers)
    work = asyncio.create_task(nodes.work())
    events.publish = nodes.publish
    try:
        yield nodes
    finally:
        events.publish = None
        with suppress(TimeoutError):
            await asyncio.wait_for(nodes.all_published(), LAST_WORDS)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        nodes.give_up()


class EventNodes:
    """The four nodes, and the queue of what is to be published there."""

    def __init__(self, query: Query, owner: str, service: str, readers: Collection[str]) -> None:
        """See :func:`event_nodes`."""
        self._query = query
        self._owner = owner
        self._service = service
        self._readers = frozenset(readers)
        self._queue: asyncio.Queue[Published] = asyncio.Queue(maxsize=WAITING)
        self.unpublished = 0
        """Events that were not published, and will not be."""

    def publish(self, event: Published) -> None:
        """Have an event published as soon as may be; never waits, never raises. What is only measured does not take
        the place of what happened: it may use half of the queue."""
        room = WAITING // 2 if event.topic == "measurements" else WAITING
        if self._queue.qsize() < room:
            self._queue.put_nowait(event)
        else:
            self._lose(event, "too many wait")

    async def all_published(self) -> None:
        """Wait until nothing waits to be published."""
        await self._queue.join()

    def give_up(self) -> None:
        """Count what still waits as unpublished."""
        while not self._queue.empty():
            self._lose(self._queue.get_nowait(), "the agency stops")

    async def work(self) -> None:
        """Make the nodes, then publish what comes; until it is cancelled."""
        await self._made()
        while True:
            event = await self._queue.get()
            try:
                await self._publish(event)
            except asyncio.CancelledError:
                self._lose(event, "the agency stops")
                raise
            except Refused as refused:
                self._lose(event, str(refused))
            finally:
                self._queue.task_done()

    def _lose(self, event: Published, why: str) -> None:
        self.unpublished += 1
        log.warning("event not published", id=event.id, kind=event.kind, reason=why, unpublished=self.unpublished)

    async def _publish(self, event: Published) -> None:
        item = f"<publish node='{node(event.topic)}'><item id='{attribute(event.id)}'>{written(event)}</item></publish>"
        for _ in range(ATTEMPTS):
            try:
                await self._ask_until_answered(_pubsub(item))
            except Refused as refused:
                if str(refused) != "item-not-found":
                    raise
                await self._made()  # somebody has removed the node, or the server has lost its data
            else:
                return
        raise Refused("item-not-found")

    # --- the nodes ---

    async def _made(self) -> None:
        """See that the nodes are there, and that the readers and nobody else may read them; keeps on trying."""
        pause = FIRST_PAUSE
        while True:
            try:
                for topic in TOPICS:
                    await self._make(node(topic))
            except Refused as refused:
                remedy = "see that the server's configuration lets the agency make nodes, as `agency server init` does"
                log.error("event nodes not made", service=self._service, refused=str(refused), remedy=remedy)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _make(self, name: str) -> None:
        if not await self._create(name):
            if await self._has_other_readers(name):
                # servers differ in what becomes of the subscriptions of one who may no longer read: none is left so
                await self._ask_until_answered(_pubsub(f"<delete node='{name}'/>", owner=True), kind="set")
                await self._create(name)
            else:
                form = f"<configure node='{name}'>{_FORM}</configure>"
                await self._ask_until_answered(_pubsub(form, owner=True), kind="set")
        if self._readers:
            members = "".join(
                f"<affiliation jid='{attribute(j)}' affiliation='member'/>" for j in sorted(self._readers)
            )
            form = f"<affiliations node='{name}'>{members}</affiliations>"
            await self._ask_until_answered(_pubsub(form, owner=True), kind="set")

    async def _create(self, name: str) -> bool:
        """Create the node; False if it is there already."""
        try:
            await self._ask_until_answered(_pubsub(f"<create node='{name}'/><configure>{_FORM}</configure>"))
        except Refused as refused:
            if str(refused) != "conflict":
                raise
            return False
        return True

    async def _has_other_readers(self, name: str) -> bool:
        answer = await self._ask_until_answered(_pubsub(f"<affiliations node='{name}'/>", owner=True), kind="get")
        found = {
            each.attributes.get("jid", "")
            for each in _all_below(answer, f"{PUBSUB}#owner affiliation")
            if each.attributes.get("affiliation") not in ("none", "outcast")
        }
        return bool(found - self._readers - {self._owner})

    async def _ask_until_answered(self, content: str, *, kind: str = "set") -> Element:
        """The service's answer, however long it is away; :class:`Refused` if that is an error."""
        pause = FIRST_PAUSE
        while True:
            try:
                answer = await self._query(self._service, kind, content)
            except AgencyError as error:
                log.info("event nodes not reached", service=self._service, problem=error.problem.message)
                condition = ""
            else:
                if answer.attributes.get("type") == "result":
                    return answer
                condition = condition_of(answer)
                if condition not in _MAY_PASS:
                    raise Refused(condition or "no reason given")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


_MAY_PASS = frozenset(
    {"internal-server-error", "remote-server-not-found", "remote-server-timeout", "resource-constraint"}
)
"""Conditions of a service that is not ready, yet or any more."""


def written(event: Published) -> str:
    """The event as an element; what is secret in its text is masked."""
    return (
        f"<event xmlns='{EVENTS}' id='{attribute(event.id)}' application='{attribute(event.application)}' "
        f"kind='{attribute(event.kind)}' moment='{event.moment.isoformat()}'>"
        f"<text>{text(printable(masked(event.text)))}</text></event>"
    )


def _pubsub(content: str, *, owner: bool = False) -> str:
    return f"<pubsub xmlns='{PUBSUB}{'#owner' if owner else ''}'>{content}</pubsub>"


def _field(name: str, value: object) -> str:
    return f"<field var='pubsub#{name}'><value>{value}</value></field>"


_FORM = (
    "<x xmlns='jabber:x:data' type='submit'>"
    f"<field var='FORM_TYPE' type='hidden'><value>{PUBSUB}#node_config</value></field>"
    + _field("access_model", "whitelist")
    + _field("publish_model", "publishers")
    + _field("persist_items", 1)
    + _field("max_items", KEPT)
    + _field("send_last_published_item", "never")
    + "</x>"
)


def _all_below(element: Element, name: str) -> list[Element]:
    found = [child for child in element.children if child.name == name]
    return found + [each for child in element.children for each in _all_below(child, name)]
