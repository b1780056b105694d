"""Event nodes on real servers: who may read them, what they keep, and that they come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from agency.events import Published
from agency.messaging.event_nodes import KEPT, PUBSUB, EventNodes, _all_below, event_nodes
from agency.messaging.links.component import ComponentLink, component_link
from agency.messaging.links.stanzas import condition_of
from agency.messaging.names import node
from agency.problems import AgencyError
from descriptors.base import utc_now
from tests.labs.xmpp import XmppServer

pytestmark = pytest.mark.integration

SOON = 60.0
"""Seconds; the machine that tests run on may be busy."""
NODE = node("negotiation")


class Source:
    """What tells of events."""

    publish = None


@pytest.fixture
async def link(xmpp_server: XmppServer) -> AsyncIterator[ComponentLink]:
    """The component's link."""
    async with component_link(xmpp_server.agents, *xmpp_server.component, SecretStr(xmpp_server.secret)) as found:
        yield found


@asynccontextmanager
async def published(
    server: XmppServer, link: ComponentLink, count: int, readers: Collection[str] = ()
) -> AsyncIterator[EventNodes]:
    """The nodes, after so many events about negotiation."""
    source = Source()
    async with event_nodes(source, link.query, server.agents, server.pubsub, readers) as nodes:  # type: ignore[arg-type]
        for number in range(count):
            nodes.publish(Published(f"event-{number}", "notes", "offers", utc_now(), str(number)))
        async with asyncio.timeout(SOON):
            await nodes.all_published()
        yield nodes


async def items(server: XmppServer, link: ComponentLink) -> set[str]:
    """The ids of what the node keeps."""
    answer = await link.query(server.pubsub, "get", f"<pubsub xmlns='{PUBSUB}'><items node='{NODE}'/></pubsub>")
    return {each.attributes["id"] for each in _all_below(answer, f"{PUBSUB} item")}


async def affiliations(server: XmppServer, link: ComponentLink) -> dict[str, str]:
    """Who may do what with the node."""
    content = f"<pubsub xmlns='{PUBSUB}#owner'><affiliations node='{NODE}'/></pubsub>"
    answer = await link.query(server.pubsub, "get", content)
    found = (each.attributes for each in _all_below(answer, f"{PUBSUB}#owner affiliation"))
    return {each["jid"]: each["affiliation"] for each in found}


async def test_a_node_keeps_the_last_events(xmpp_server: XmppServer, link: ComponentLink) -> None:
    """All are published, and the node keeps the latest, as many as it is to."""
    async with published(xmpp_server, link, KEPT + 20) as nodes:
        kept = await items(xmpp_server, link)
        assert len(kept) == KEPT
        assert f"event-{KEPT + 19}" in kept
        assert "event-0" not in kept
    assert nodes.unpublished == 0


async def test_only_the_readers_named_may_subscribe(xmpp_server: XmppServer, link: ComponentLink) -> None:
    """Who is named is a member of the node; who is no longer named is not, from the next start; others of the site
    cannot subscribe."""
    ann, bob = f"ann@{xmpp_server.domain}", f"bob@{xmpp_server.domain}"
    async with published(xmpp_server, link, 0, {ann, bob}):
        pass
    async with published(xmpp_server, link, 1, {ann}):
        found = await affiliations(xmpp_server, link)
        assert found[ann] == "member"
        assert bob not in found
        configured = f"<pubsub xmlns='{PUBSUB}#owner'><configure node='{NODE}'/></pubsub>"
        form = await link.query(xmpp_server.pubsub, "get", configured)
        (model,) = [
            each
            for each in _all_below(form, "jabber:x:data field")
            if each.attributes.get("var") == "pubsub#access_model"
        ]
        assert [each.text for each in model.children if each.name == "jabber:x:data value"] == ["whitelist"]


async def test_a_node_that_somebody_removed_is_made_again(xmpp_server: XmppServer, link: ComponentLink) -> None:
    """What is published after its node has gone is on a new node."""
    async with published(xmpp_server, link, 1) as nodes:
        await link.query(xmpp_server.pubsub, "set", f"<pubsub xmlns='{PUBSUB}#owner'><delete node='{NODE}'/></pubsub>")
        nodes.publish(Published("event-new", "notes", "offers", utc_now(), "new"))
        async with asyncio.timeout(SOON):
            await nodes.all_published()
        assert await items(xmpp_server, link) == {"event-new"}
    assert nodes.unpublished == 0


async def test_a_query_gets_its_answer(xmpp_server: XmppServer, link: ComponentLink) -> None:
    """A query of the component's gets the answer of whom it asked, also where that is an error; without a connection
    it fails at once."""
    ping = "<ping xmlns='urn:xmpp:ping'/>"
    answers = await asyncio.gather(*(link.query(xmpp_server.domain, "get", ping) for _ in range(20)))
    assert {each.attributes["type"] for each in answers} == {"result"}
    nowhere = f"<pubsub xmlns='{PUBSUB}'><items node='nowhere'/></pubsub>"
    refused = await link.query(xmpp_server.pubsub, "get", nowhere)
    assert refused.attributes["type"] == "error"
    assert condition_of(refused) == "item-not-found"
    await link.close()
    with pytest.raises(AgencyError, match="connection"):
        await link.query(xmpp_server.domain, "get", ping)
