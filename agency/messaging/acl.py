"""FIPA-ACL messages (SC00061G) on SPADE: the parameters travel as metadata, the content is one of our documents."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypeVar, overload

from spade.message import Message

from descriptors import documents
from descriptors.base import Document
from descriptors.documents import DocumentError, Form

ONTOLOGY = "cloud-agency-1"

D = TypeVar("D", bound=Document)
E = TypeVar("E", bound=Document)


class Performative(StrEnum):
    """The communicative acts (SC00037J) that our protocols use."""

    CFP = "cfp"
    PROPOSE = "propose"
    REFUSE = "refuse"
    ACCEPT_PROPOSAL = "accept-proposal"
    REJECT_PROPOSAL = "reject-proposal"
    REQUEST = "request"
    AGREE = "agree"
    INFORM = "inform"
    FAILURE = "failure"
    NOT_UNDERSTOOD = "not-understood"


class Protocol(StrEnum):
    """The interaction protocols we speak."""

    CONTRACT_NET = "fipa-contract-net"
    REQUEST = "fipa-request"


class NotUnderstood(Exception):
    """The message is not one that this agent can act on; the text says why."""


def compose(
    to: str,
    performative: Performative,
    protocol: Protocol,
    conversation: str,
    content: Document | None = None,
    reply_by: datetime | None = None,
) -> Message:
    """A message ready to send; the sender is filled in by the agent that sends it."""
    metadata = {
        "performative": performative.value,
        "protocol": protocol.value,
        "ontology": ONTOLOGY,
        "language": "json",
        "conversation-id": conversation,
    }
    if reply_by is not None:
        metadata["reply-by"] = reply_by.isoformat()
    body = "" if content is None else documents.dump(content, Form.JSON)
    return Message(to=to, body=body, thread=conversation, metadata=metadata)


def answer(message: Message, performative: Performative, content: Document | None = None) -> Message:
    """A reply in the same conversation."""
    protocol = Protocol(message.get_metadata("protocol"))
    return compose(str(message.sender), performative, protocol, message.thread, content)


def performative_of(message: Message) -> Performative:
    """The message's performative; :class:`NotUnderstood` if it is none of ours."""
    try:
        return Performative(message.get_metadata("performative"))
    except ValueError:
        raise NotUnderstood(f"performative {message.get_metadata('performative')!r} is not spoken here") from None


@overload
def content_of(message: Message, expect: type[D]) -> D: ...
@overload
def content_of(message: Message, expect: type[D], other: type[E]) -> D | E: ...
def content_of(message: Message, expect: type[Document], other: type[Document] | None = None) -> Document:
    """The document in the message, of one of the types expected; :class:`NotUnderstood` otherwise."""
    if message.get_metadata("ontology") != ONTOLOGY:
        raise NotUnderstood(f"ontology {message.get_metadata('ontology')!r}: expected {ONTOLOGY!r}")
    try:
        document = documents.load(message.body or "", form=Form.JSON, name=f"message from {message.sender}")
    except DocumentError as error:
        raise NotUnderstood(str(error)) from None
    expected = [each for each in (expect, other) if each is not None]
    if type(document) not in expected:
        raise NotUnderstood(f"content is a {document.tag}: expected {' or '.join(each.tag for each in expected)}")
    return document
