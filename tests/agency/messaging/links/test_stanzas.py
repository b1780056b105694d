"""The wire form: what is written is read back whatever it holds, and nothing hostile comes through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID
from spade.message import Message

from agency.messaging.acl import Performative, content_of, is_bounce, performative_of
from agency.messaging.links import stanzas
from agency.messaging.links.stanzas import BadStream, Element, Reader, answer_to, bounced, message_from, written
from agency.problems import AgencyError
from descriptors.messages import Problem

HEADER = f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='{stanzas.STREAMS}' id='1'>"
ANNA, BOB = JID("anna@a.test"), JID("bob@a.test")

letters = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
legal = st.text(letters | st.sampled_from("\t\n\r<>&'\"]"), max_size=80)


def read(*pieces: bytes) -> list[Element]:
    """The stanzas in a stream that comes in these pieces."""
    found: list[Element] = []
    reader = Reader(lambda _: None, found.append)
    reader.feed(HEADER.encode())
    for piece in pieces:
        reader.feed(piece)
    return found


def message(**changes: object) -> Message:
    """A message, with some parts changed."""
    given = {"to": BOB, "sender": ANNA, "body": "hello", "thread": "t", "metadata": {}} | changes
    return Message(**given)


def refused(**changes: object) -> str:
    """The code of the problem that writing this message raises."""
    with pytest.raises(AgencyError) as error:
        written(message(**changes), stanzas.ABROAD)
    return error.value.problem.code


@given(
    legal,
    legal,
    st.dictionaries(st.sampled_from(sorted(stanzas.PARAMETERS)) | legal.filter(bool), legal),
    st.integers(1, 50),
)
def test_what_is_written_is_read_back(body: str, thread: str, parameters: dict[str, str], piece: int) -> None:
    """Any text in any part of a message comes through unchanged, in pieces of whatever size it is read."""
    parameters.pop("bounced", None)
    data = written(message(body=body, thread=thread, metadata=parameters), stanzas.AT_HOME).encode()
    (stanza,) = read(*(data[at : at + piece] for at in range(0, len(data), piece)))
    found = message_from(stanza, BOB)
    assert (found.body, found.thread or "", found._metadata) == (body, thread, parameters)
    assert (found.sender, found.to) == (ANNA, BOB)


@pytest.mark.parametrize("bad", ["\x00", "a\x0bb", "\x1f", "\ud800", "\ufffe"])
@pytest.mark.parametrize("where", ["body", "thread", "metadata"])
def test_what_xml_cannot_hold_is_refused(bad: str, where: str) -> None:
    """Control characters and lone surrogates are refused before they are sent: they would end the stream for all."""
    assert refused(**{where: {"performative": bad} if where == "metadata" else bad}) == "bad-message"


def test_what_is_too_large_is_refused() -> None:
    """A message that a server would hang up on is refused; it is bytes that count."""
    large = "ä" * (stanzas.ABROAD // 2)
    assert refused(body=large) == "message-too-large"
    assert large in written(message(body=large), stanzas.AT_HOME)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"<message><body>\x01</body></message>", id="control-character"),
        pytest.param(b"<message><body>&lol;</body></message>", id="unknown-entity"),
        pytest.param(b"<message><body>", id="never-ends"),
        pytest.param(b"<message attribute='", id="attribute-never-ends"),
        pytest.param(b"<message></iq>", id="not-well-formed"),
        pytest.param(b"<!-- hello -->", id="comment"),
        pytest.param(b"<?php echo ?>", id="processing-instruction"),
        pytest.param(b"<a>" * 100, id="deep"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b"</stream:stream>", id="end"),
    ],
)
def test_a_stream_that_is_none_ends(hostile: bytes) -> None:
    """What RFC 6120 does not allow in a stream, and what never ends, is a bad stream."""
    with pytest.raises(BadStream):  # noqa: PT012 - a stanza that never ends is fed for long
        reader = Reader(lambda _: None, lambda _: None)
        reader.feed(HEADER.encode())
        reader.feed(hostile)
        for _ in range(20):
            reader.feed(b"x" * stanzas.MIB)


@pytest.mark.parametrize(
    "dtd", ["<!DOCTYPE x [<!ENTITY a 'b'>]>", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>", "<!DOCTYPE x>"]
)
def test_a_document_type_ends_the_stream(dtd: str) -> None:
    """No document type, so no entity, gets as far as being declared."""
    reader = Reader(lambda _: None, lambda _: None)
    with pytest.raises(BadStream, match="document type"):
        reader.feed((dtd + HEADER).encode())


def test_many_stanzas_are_not_one_large_one() -> None:
    """The limit is one stanza's, however long the stream is."""
    count = 0

    def one(_: Element) -> None:
        nonlocal count
        count += 1

    reader = Reader(lambda _: None, one)
    reader.feed(HEADER.encode())
    for _ in range(20):
        reader.feed(b"<message><body>" + b"x" * stanzas.MIB + b"</body></message>")
    assert count == 20


@given(st.recursive(legal, lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_any_message_is_a_message(content: object) -> None:
    """Whatever elements a message holds, in whatever order, it is read without an error."""

    def xml(part: object) -> str:
        if isinstance(part, str):
            return f"<body>{stanzas.text(part)}</body><thread/><acl xmlns='{stanzas.ACL}' x='1'/>"
        return f"<acl xmlns='{stanzas.ACL}'><parameter/>{''.join(map(xml, part))}</acl>"

    (stanza,) = read(f"<message from='x@y' to='bob@a.test'>{xml(content)}</message>".encode())
    assert "x" not in message_from(stanza, BOB)._metadata


def test_nobody_can_pretend_that_a_message_bounced() -> None:
    """The mark of a bounce is the link's own: one that comes over the wire is left out."""
    (stanza,) = read(written(message(metadata={"bounced": "yes", "performative": "failure"}), stanzas.AT_HOME).encode())
    assert not is_bounce(message_from(stanza, BOB))


# --- bounces ---


@pytest.mark.parametrize(
    ("condition", "kind", "code", "retryable"),
    [
        ("item-not-found", "cancel", "no-such-agent", False),
        ("service-unavailable", "cancel", "no-such-agent", False),
        ("service-unavailable", "wait", "no-such-agent", True),
        ("remote-server-not-found", "cancel", "server-unreachable", True),
        ("remote-server-timeout", "wait", "server-unreachable", True),
        ("policy-violation", "modify", "not-delivered", False),
        ("resource-constraint", "wait", "not-delivered", True),
    ],
)
def test_a_bounce_is_a_failure_in_its_conversation(condition: str, kind: str, code: str, retryable: bool) -> None:
    """A stanza that comes back tells its sender what was not reached and why, in the conversation, even from a server
    that sends nothing of it back but its id. It is in reply to nothing: whom it was for has not answered."""
    sent = message(thread="call/1", metadata={"protocol": "fipa-contract-net", "reply-with": "cfp.1"})
    (away,) = read(written(sent, stanzas.AT_HOME).encode())
    error = f"<error type='{kind}'><{condition} xmlns='{stanzas.STANZA_ERRORS}'/></error>"
    number = stanzas.attribute(away.attributes["id"])
    (back,) = read(f"<message type='error' from='bob@a.test' to='anna@a.test' id='{number}'>{error}</message>".encode())
    found = bounced(back, ANNA)
    assert is_bounce(found)
    assert performative_of(found) is Performative.FAILURE
    assert (found.thread, str(found.sender)) == ("call/1", "bob@a.test")
    assert (found.get_metadata("protocol"), found.get_metadata("in-reply-to")) == ("fipa-contract-net", None)
    problem = content_of(found, Problem)
    assert (problem.code, problem.retryable) == (code, retryable)
    assert "bob@a.test" in problem.message
    assert condition in problem.message


@given(legal, legal)
def test_any_error_is_a_failure(number: str, words: str) -> None:
    """Whatever id and words an error stanza has, it becomes a failure that can be read."""
    error = f"<error><text xmlns='{stanzas.STANZA_ERRORS}'>{stanzas.text(words)}</text></error>"
    (back,) = read(f"<message type='error' from='b@a' id='{stanzas.attribute(number)}'>{error}</message>".encode())
    assert json.loads(bounced(back, ANNA).body)["code"] == "not-delivered"


# --- what is answered besides messages ---


def answered(xml: str, *, there: bool = True, component: bool = False) -> Element | None:
    """What is answered to a stanza."""
    (stanza,) = read(xml.encode())
    answer = answer_to(stanza, there=there, component=component)
    return read(answer.encode())[0] if answer else None


def iq(content: str, kind: str = "get") -> str:
    """A question."""
    return f"<iq type='{kind}' from='x@b.test/&apos;r&amp;' to='bob@a.test' id='&lt;7>'>{content}</iq>"


def test_a_ping_is_answered() -> None:
    """A ping comes back as a result, to whom it is from, with its id, whatever characters these have."""
    found = answered(iq("<ping xmlns='urn:xmpp:ping'/>"))
    assert found is not None
    assert found.attributes == {"from": "bob@a.test", "to": "x@b.test/'r&", "id": "<7>", "type": "result"}


@pytest.mark.parametrize(("component", "category"), [(False, "client"), (True, "component")])
def test_an_agent_tells_what_it_can_do(component: bool, category: str) -> None:
    """Service discovery finds our form of messages, and whether it is an agent that answers or the component."""
    found = answered(iq(f"<query xmlns='{stanzas.DISCO}'/>"), component=component)
    assert found is not None
    (query,) = found.children
    identity, *features = query.children
    assert identity.attributes["category"] == category
    assert {each.attributes["var"] for each in features} == {stanzas.DISCO, stanzas.PING, stanzas.ACL}


@pytest.mark.parametrize(
    ("xml", "there", "condition"),
    [
        (iq("<ping xmlns='urn:xmpp:ping'/>"), False, "item-not-found"),
        (iq(f"<query xmlns='{stanzas.DISCO}' node='x'/>"), True, "service-unavailable"),
        (iq("<query xmlns='jabber:iq:roster'/>", "set"), True, "service-unavailable"),
        (iq("<ping xmlns='urn:xmpp:ping'/>", "set"), True, "service-unavailable"),
        (iq(""), True, "service-unavailable"),
    ],
)
def test_other_questions_are_refused(xml: str, there: bool, condition: str) -> None:
    """Every question that is not answered comes back as an error: nobody waits for nothing."""
    found = answered(xml, there=there)
    assert found is not None
    assert found.attributes["type"] == "error"
    assert found.children[0].children[0].name == f"{stanzas.STANZA_ERRORS} {condition}"


@pytest.mark.parametrize("kind", ["result", "error"])
def test_answers_are_not_answered(kind: str) -> None:
    """A result or an error is the end of a question: two sides would go on for ever."""
    assert answered(iq("<x/>", kind)) is None


@pytest.mark.parametrize(("there", "kind"), [(True, None), (False, "unavailable")])
def test_presence_says_who_is_there(there: bool, kind: str | None) -> None:
    """A probe is answered with whether the agent is there."""
    found = answered("<presence type='probe' from='x@b.test' to='bob@a.test'/>", there=there)
    assert found is not None
    assert (found.name, found.attributes.get("type")) == ("presence", kind)


def test_nobody_subscribes() -> None:
    """A subscription is declined, and other presence needs no answer."""
    found = answered("<presence type='subscribe' from='x@b.test' to='bob@a.test'/>")
    assert found is not None
    assert found.attributes["type"] == "unsubscribed"
    assert answered("<presence from='x@b.test' to='bob@a.test'/>") is None
