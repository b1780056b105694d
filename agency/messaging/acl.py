"""FIPA-ACL messages (SC00061G) on SPADE: the parameters travel as metadata, the content is one of our documents.

What an initiator says has a ``reply-with``, and the answers to it have that as their ``in-reply-to``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypeVar, overload

from slixmpp import JID
from spade.message import Message

from agency.messaging.names import ONTOLOGY, PROTOCOL_REQUEST
from descriptors import documents
from descriptors.base import Document
from descriptors.documents import DocumentError, Form

jid = lru_cache(maxsize=16384)(JID)
"""A JID from text: parsing one is slow, and slixmpp itself remembers only a thousand."""

BOUNCED = "bounced"
"""The parameter that a link, and nobody else, sets on the ``failure`` that says that a message did not arrive."""

D = TypeVar("D", bound=Document)
E = TypeVar("E", bound=Document)


class Performative(StrEnum):
    """The communicative acts (SC00037J) that our protocols use."""

    CFP = "cfp"
    PROPOSE = "propose"
    REFUSE = "refuse"
    ACCEPT_PROPOSAL = "accept-proposal"
    REJECT_PROPOSAL = "reject-proposal"
    CANCEL = "cancel"
    REQUEST = "request"
    AGREE = "agree"
    INFORM = "inform"
    FAILURE = "failure"
    NOT_UNDERSTOOD = "not-understood"


class Protocol(StrEnum):
    """The interaction protocols we speak."""

    CONTRACT_NET = "fipa-iterated-contract-net"
    REQUEST = PROTOCOL_REQUEST


class NotUnderstood(Exception):
    """The message is not one that this agent can act on; the text says why."""


class Said(NamedTuple):
    """The part of a message that is the same each time it is said."""

    performative: Performative
    language: str
    """``json``: the body is a document; ``jose``: a signed one (JWS, compact)."""
    body: str


def saying(performative: Performative, content: Document | None = None) -> Said:
    """A document as it is said unsigned; nothing, if there is none."""
    return Said(performative, "json", "" if content is None else documents.dump(content, Form.JSON))


def message_of(
    said: Said,
    to: str,
    protocol: Protocol,
    conversation: str,
    *,
    reply_by: datetime | None = None,
    reply_with: str | None = None,
    in_reply_to: str | None = None,
) -> Message:
    """A message ready to send; the sender is filled in by the agent that sends it."""
    metadata = {
        "performative": said.performative.value,
        "protocol": protocol.value,
        "ontology": ONTOLOGY,
        "language": said.language,
        "conversation-id": conversation,
    }
    if reply_by is not None:
        metadata["reply-by"] = reply_by.isoformat()
    if reply_with is not None:
        metadata["reply-with"] = reply_with
    if in_reply_to is not None:
        metadata["in-reply-to"] = in_reply_to
    return Message(to=jid(to), body=said.body, thread=conversation, metadata=metadata)


def reply_to(message: Message, said: Said) -> Message:
    """A reply in the same conversation."""
    protocol, asked = Protocol(message.get_metadata("protocol")), message.get_metadata("reply-with")
    return message_of(said, str(message.sender), protocol, message.thread, in_reply_to=asked)


def compose(
    to: str,
    performative: Performative,
    protocol: Protocol,
    conversation: str,
    content: Document | None = None,
    reply_by: datetime | None = None,
) -> Message:
    """A message with an unsigned document, or without any."""
    return message_of(saying(performative, content), to, protocol, conversation, reply_by=reply_by)


def answer(message: Message, performative: Performative, content: Document | None = None) -> Message:
    """A reply with an unsigned document, or without any."""
    return reply_to(message, saying(performative, content))


def said_in(message: Message) -> Said:
    """What a message says, to be kept; :class:`NotUnderstood` if its performative is none of ours."""
    return Said(performative_of(message), message.get_metadata("language") or "", message.body or "")


def performative_of(message: Message) -> Performative:
    """The message's performative; :class:`NotUnderstood` if it is none of ours."""
    try:
        return Performative(message.get_metadata("performative"))
    except ValueError:
        raise NotUnderstood(f"performative {message.get_metadata('performative')!r} is not spoken here") from None


@overload
def content_of(message: Message, expect: type[D], /) -> D: ...
@overload
def content_of(message: Message, expect: type[D], other: type[E], /) -> D | E: ...
@overload
def content_of(message: Message, *expect: type[Document]) -> Document: ...
def content_of(message: Message, *expect: type[Document]) -> Document:
    """The document in the message, of one of the types expected; :class:`NotUnderstood` otherwise."""
    if message.get_metadata("ontology") != ONTOLOGY:
        raise NotUnderstood(f"ontology {message.get_metadata('ontology')!r}: expected {ONTOLOGY!r}")
    try:
        document = documents.load(message.body or "", form=Form.JSON, name=f"message from {message.sender}")
    except DocumentError as error:
        raise NotUnderstood(str(error)) from None
    if type(document) not in expect:
        raise NotUnderstood(f"content is a {document.tag}: expected {' or '.join(each.tag for each in expect)}")
    return document


def is_bounce(message: Message) -> bool:
    """Whether this is the link's word that a message did not reach the agent that this seems to come from."""
    return message.get_metadata(BOUNCED) is not None
