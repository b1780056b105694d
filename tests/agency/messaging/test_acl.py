"""FIPA-ACL messages: what is composed is read back, and what is not ours is not understood."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spade.message import Message

from agency.messaging.acl import (
    ONTOLOGY,
    NotUnderstood,
    Performative,
    Protocol,
    answer,
    compose,
    content_of,
    performative_of,
)
from agency.messaging.contract_net import read
from agency.messaging.speech import Speech
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from descriptors.base import Document
from descriptors.messages import Problem, Request
from descriptors.resources import Reason
from tests.descriptors.strategies import DOCUMENTS

REQUEST = Request(action="deploy", subject="notes")
SPEECH = Speech("anna@test", Site(SiteKey.generate("test"), TrustedKeys(), Replays(), store=None))
"""Of an agent that nobody has sent anything to believe."""


def request(**changes: str) -> Message:
    """A request, with some of its parameters changed."""
    message = compose("bob@test", Performative.REQUEST, Protocol.REQUEST, "talk-1", REQUEST)
    message.sender = "anna@test"
    for name, value in changes.items():
        message.set_metadata(name, value)
    return message


@given(st.sampled_from(Performative), st.sampled_from(Protocol), st.sampled_from(list(DOCUMENTS)), st.data())
def test_what_is_composed_is_read_back(
    performative: Performative, protocol: Protocol, kind: type[Document], data: st.DataObject
) -> None:
    """Every performative, in every protocol, carries every kind of document through unchanged."""
    document = data.draw(DOCUMENTS[kind])
    message = compose("bob@test", performative, protocol, "talk-1", document)
    assert performative_of(message) is performative
    assert content_of(message, kind) == document
    assert (str(message.to), message.thread, message.get_metadata("protocol")) == ("bob@test", "talk-1", protocol.value)


def test_the_deadline_travels_with_its_offset() -> None:
    """``reply-by`` is an aware moment in ISO 8601, and is left out where there is none."""
    by = datetime(2026, 11, 20, 12, tzinfo=UTC)
    message = compose("bob@test", Performative.CFP, Protocol.CONTRACT_NET, "call-1", REQUEST, by)
    assert datetime.fromisoformat(message.get_metadata("reply-by")) == by
    assert request().get_metadata("reply-by") is None


@pytest.mark.parametrize("performative", Performative)
def test_an_answer_goes_back_in_the_same_conversation(performative: Performative) -> None:
    """An answer is addressed to who asked, in the same thread and protocol, in our ontology."""
    reply = answer(request(), performative, REQUEST)
    assert (str(reply.to), reply.thread) == ("anna@test", "talk-1")
    assert reply.get_metadata("protocol") == Protocol.REQUEST.value
    assert reply.get_metadata("conversation-id") == "talk-1"
    assert reply.get_metadata("ontology") == ONTOLOGY
    assert performative_of(reply) is performative


@pytest.mark.parametrize("word", ["", "shout", "CFP", "accept_proposal"])
def test_a_performative_that_is_not_ours(word: str) -> None:
    """Words that we do not speak are refused, and named."""
    with pytest.raises(NotUnderstood, match=repr(word)):
        performative_of(request(performative=word))


def test_no_performative_at_all() -> None:
    """A message without a performative is not understood."""
    with pytest.raises(NotUnderstood):
        performative_of(Message(to="bob@test", body="hello"))


@pytest.mark.parametrize("ontology", ["", "cloud-agency-2", "weather"])
def test_another_ontology(ontology: str) -> None:
    """A message in other terms is not understood, even if its content would be a document."""
    with pytest.raises(NotUnderstood, match="expected 'cloud-agency-1'"):
        content_of(request(ontology=ontology), Request)


@pytest.mark.parametrize("body", ["", "hello", "{}", "[]", "null", '{"document": "request"}', "<request/>", "{" * 500])
def test_content_that_is_no_document(body: str) -> None:
    """Whatever is not one of our documents is not understood."""
    message = request()
    message.body = body
    with pytest.raises(NotUnderstood):
        content_of(message, Request)


def test_the_wrong_document() -> None:
    """A valid document of another kind is not understood; the text names what came and what was expected."""
    with pytest.raises(NotUnderstood, match="is a request: expected problem"):
        content_of(request(), Problem)
    assert content_of(request(), Problem, Request) == REQUEST


@given(
    st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(["\x00\x07", "{\x01}", '{"document": "\x0b"}'])
)
def test_any_text_is_not_understood_in_words_that_can_be_sent(body: str) -> None:
    """Whatever nonsense comes in, what we say about it fits into a document: a vendor cannot silence us with it."""
    message = request()
    message.body = body
    message.set_metadata("performative", "propose")
    assert read(message, SPEECH, "blake3:").code == "not-understood"
    message.set_metadata("language", "jose")
    assert read(message, SPEECH, "blake3:").code == "malformed"


@given(st.text(st.characters(codec="utf-8"), max_size=5000))
def test_any_performative_gives_a_reason(word: str) -> None:
    """A performative that nobody knows, of any length and characters, becomes a reason for the comparison."""
    found = read(request(performative=f"x{word}"), SPEECH, "blake3:")
    assert isinstance(found, Reason)
    assert found.code == "not-understood"
