"""Event nodes: what waits to be published, and for how long."""

from __future__ import annotations

import asyncio

import pytest
from lxml import etree

from agency import logs
from agency.events import Published
from agency.messaging import event_nodes as nodes
from agency.messaging.event_nodes import WAITING, EventNodes, event_nodes, written
from agency.messaging.links import unreachable
from agency.messaging.links.stanzas import Element
from agency.messaging.names import EVENTS, TOPICS, node, pubsub_of
from agency.settings import Settings
from descriptors.base import utc_now


def event(kind: str = "planned", text: str = "a to b") -> Published:
    """An event."""
    return Published("event-1", "notes", kind, utc_now(), text)


class Away:
    """A link whose server is not there; it says when it was asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def query(self, to: str, kind: str, content: str) -> Element:
        """Fail as a link does."""
        self.asked.set()
        raise unreachable(to, "it is away")


def test_every_kind_has_a_node() -> None:
    """Whatever happens has one of the four topics; what is not known is about a relocation."""
    kinds = {"offers": "negotiation", "agreed": "agreements", "progress": "measurements", "undone": "relocations"}
    for kind, topic in kinds.items():
        assert event(kind).topic == topic
        assert topic in TOPICS
    assert node("agreements") == "urn:cloud-agency:events:1:agreements"
    assert pubsub_of("a.example") == "pubsub.a.example"


def test_an_event_is_one_element_without_secrets() -> None:
    """Any text is carried, what XML cannot hold as blanks, and what is secret as asterisks."""
    logs.hide("s3cr3t-p4ssw0rd")
    try:
        found = etree.fromstring(written(event(text="<a> & 'b'\x00 s3cr3t-p4ssw0rd")))
    finally:
        logs.forget_hidden()
    assert found.tag == f"{{{EVENTS}}}event"
    assert found.get("kind") == "planned"
    text = found.findtext(f"{{{EVENTS}}}text") or ""
    assert text.startswith("<a> & 'b'  ")
    assert "s3cr3t" not in text


async def test_no_more_wait_than_may() -> None:
    """A full queue takes no more; what is only measured may fill half of it. What is left out is counted."""
    waiting = EventNodes(Away().query, "agency.a.test", "pubsub.a.test", ())
    for _ in range(WAITING):
        waiting.publish(event("progress"))
    assert waiting.unpublished == WAITING // 2
    for _ in range(WAITING):
        waiting.publish(event())
    assert waiting.unpublished == WAITING
    waiting.give_up()
    assert waiting.unpublished == 2 * WAITING


async def test_a_server_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are taken at once while nobody can be told; an agency that stops then counts them, and stops."""
    monkeypatch.setattr(nodes, "LAST_WORDS", 0.01)
    monkeypatch.setattr(nodes, "FIRST_PAUSE", 0.01)

    class Source:
        publish = None

    source, link = Source(), Away()
    async with event_nodes(source, link.query, "agency.a.test", "pubsub.a.test", ()) as made:  # type: ignore[arg-type]
        await link.asked.wait()
        for _ in range(3):
            source.publish(event())  # type: ignore[misc]
    assert made.unpublished == 3
    assert source.publish is None


def test_deployers_are_a_list_of_jids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is JIDs with commas between them; what is no JID is refused with its name."""
    monkeypatch.setenv("AGENCY_DEPLOYERS", "Ann@a.example, bob@b.example,")
    assert Settings().deployers == {"ann@a.example", "bob@b.example"}
    monkeypatch.setenv("AGENCY_DEPLOYERS", "ann")
    with pytest.raises(ValueError, match="'ann' is no JID"):
        Settings()
