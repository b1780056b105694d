"""The wire form of messages: XMPP stanzas (RFC 6120, RFC 6121), written as text and parsed as they come.

A message is one small stanza; `docs/messages.md` has the form. Its FIPA parameters (SC00061G) are attributes of one
element, its id says what a bounce must tell: some servers send nothing else of the message back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from xml.parsers import expat

from slixmpp import JID
from spade.message import Message

from agency.messaging.acl import BOUNCED, jid
from agency.messaging.names import ACL, ONTOLOGY
from agency.problems import refuse
from descriptors import documents
from descriptors.documents import Form
from descriptors.messages import Problem

STREAMS = "http://etherx.jabber.org/streams"
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"
MIB = 1 << 20
AT_HOME = 16 * MIB
"""The largest stanza, in bytes, between agents of one site: the servers that we set up take it from a component."""
ABROAD = MIB // 2
"""The largest stanza to another site, whose server would hang up on ours at more."""
FROM_CLIENT = MIB // 4
"""The largest stanza that a client may send."""
_DEPTH = 32

PARAMETERS = frozenset(
    {
        "performative",
        "protocol",
        "ontology",
        "language",
        "encoding",
        "conversation-id",
        "reply-with",
        "in-reply-to",
        "reply-by",
    }
)
"""FIPA's parameters (SC00061G, table 1) that travel as attributes; others, a third party's, as elements."""

_NAMES = {
    f"{space} {name}": name
    for space in ("jabber:component:accept", "jabber:client")
    for name in ("message", "iq", "presence", "thread", "body", "error", "handshake")
} | {f"{STREAMS} error": "stream-error", f"{ACL} acl": "acl", f"{ACL} parameter": "parameter"}
"""Short names of the elements that we know; all others keep their namespace: ``namespace name``."""


def short_name(name: str) -> str:
    """The short name of an element, if it is one that we know."""
    return _NAMES.get(name, name)


# what XML 1.0 cannot hold, not even as a reference
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_IN_ATTRIBUTE = bytes(range(32)) + b"&<>'"
_IN_TEXT = _IN_ATTRIBUTE.translate(None, b"\t\n'")


class BadStream(Exception):
    """What came is not a stream that RFC 6120 allows: the connection is of no more use."""


class Element:
    """An element of a stanza."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def child(self, name: str) -> Element | None:
        """The first child of that name."""
        for child in self.children:
            if child.name == name:
                return child
        return None


class Reader:
    """Parses a stream as it comes, in pieces of any size.

    There are no entities, comments and processing instructions in a stream of XMPP (RFC 6120, 11.1), and no stanza is
    larger or deeper than the limits: all else is a :class:`BadStream`.
    """

    def __init__(self, opened: Callable[[dict[str, str]], None], stanza: Callable[[Element], None]) -> None:
        """``opened`` gets the attributes of the stream's header, ``stanza`` each stanza when it is whole."""
        self._opened = opened
        self._stanza = stanza
        self._open: list[Element] = []
        self._depth = 0
        self._fed = 0
        self._whole_until = 0
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        for handler in (
            "StartDoctypeDeclHandler",
            "EntityDeclHandler",
            "CommentHandler",
            "ProcessingInstructionHandler",
        ):
            setattr(parser, handler, _restricted)

    def feed(self, data: bytes) -> None:
        """Parse what has come; calls what the reader was made with. :class:`BadStream` if it is none."""
        self._fed += len(data)
        try:
            self._parser.Parse(data)
        except expat.ExpatError as error:
            raise BadStream(f"not well-formed: {error}") from None
        if self._fed - self._whole_until > AT_HOME:
            raise BadStream(f"a stanza of more than {AT_HOME} bytes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self._opened(attributes)
            return
        if self._depth > _DEPTH:
            raise BadStream(f"elements in each other more than {_DEPTH} deep")
        element = Element(short_name(name), attributes)
        if self._open:
            self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth == 0:
            raise BadStream("the server has ended the stream")
        element = self._open.pop()
        if self._depth == 1:
            self._whole_until = self._parser.CurrentByteIndex
            self._stanza(element)

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text


def _restricted(*_: object) -> None:
    raise BadStream("a document type, entity, comment or processing instruction")


# --- writing ---

_numbers = count()


def written(message: Message, limit: int) -> str:
    """The message as a stanza, of at most ``limit`` bytes.

    :class:`~agency.problems.AgencyError` for what XML cannot hold, and for what is too large.
    """
    parameters = message._metadata  # SPADE has no way to see them all
    thread, known, others = message.thread or "", "", ""
    for name, value in parameters.items():
        if name in PARAMETERS:
            known += f" {name}='{attribute(value)}'"
        else:
            others += f"<parameter name='{attribute(name)}'>{text(value)}</parameter>"
    number = f"{attribute(parameters.get('protocol', ''))}/{next(_numbers)}/{attribute(thread)}"
    stanza = (
        f"<message from='{attribute(message.sender.full)}' to='{attribute(message.to.full)}' id='{number}'>"
        f"<thread>{text(thread)}</thread><body>{text(message.body or '')}</body>"
        f"<acl xmlns='{ACL}'{known}>{others}</acl></message>"
    )
    if len(stanza) * 4 > limit and len(stanza.encode()) > limit:
        remedy = "ask fewer vendors at once, or about less"
        raise refuse(
            "message-too-large", f"a message to {message.to} is larger than the {limit} bytes that may be", remedy
        )
    return stanza


def printable(value: str) -> str:
    """The text with a blank for each character that cannot be printed."""
    return "".join(each if each.isprintable() else " " for each in value)


def _has_none(value: str, special: bytes) -> bool:
    """Whether all of it can be written as it is: mostly so, and quick to find out, even of a long token."""
    return value.isascii() and len(value.encode().translate(None, special)) == len(value)


def text(value: str) -> str:
    """Text between tags."""
    if _has_none(value, _IN_TEXT):
        return value
    if _ILLEGAL.search(value):
        raise refuse(
            "bad-message", "a text has characters that XML cannot hold", "leave control characters out of texts"
        )
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def attribute(value: str) -> str:
    """An attribute's value, between single quotes."""
    if _has_none(value, _IN_ATTRIBUTE):
        return value
    return text(value).replace("'", "&apos;").replace("\n", "&#10;").replace("\t", "&#9;")


# --- reading ---


def message_from(stanza: Element, to: JID) -> Message:
    """The message that a stanza brings to an agent; slixmpp's ``InvalidJID`` if its sender is no address."""
    body = thread = None
    parameters: dict[str, str] = {}
    for child in stanza.children:
        if child.name == "body":
            body = child.text
        elif child.name == "thread":
            thread = child.text
        elif child.name == "acl":
            parameters = {name: value for name, value in child.attributes.items() if name in PARAMETERS}
            for each in child.children:
                if each.name == "parameter" and each.attributes.get("name", "") not in ("", BOUNCED, *PARAMETERS):
                    parameters[each.attributes["name"]] = each.text
    return Message(to, jid(stanza.attributes.get("from", "")), body or "", thread or None, parameters)


_NOT_THERE = frozenset({"item-not-found", "service-unavailable", "recipient-unavailable", "gone", "jid-malformed"})
_NOT_REACHED = frozenset(
    {"remote-server-not-found", "remote-server-timeout", "internal-server-error", "undefined-condition"}
)
_ERROR = f"{STANZA_ERRORS} "


def bounced(stanza: Element, to: JID) -> Message:
    """What a stanza of type ``error`` tells the agent whose message it was: a FIPA ``failure`` in the same conversation
    from whom it could not be brought to, with the problem. It is no answer of theirs, and in reply to nothing."""
    protocol, _, thread = (stanza.attributes.get("id", "").split("/", 2) + [""] * 3)[:3]
    sender = jid(stanza.attributes.get("from", ""))
    message = Message(to, sender, documents.dump(_problem_of(stanza, sender), Form.JSON), thread or None)
    parameters = {
        "performative": "failure", "protocol": protocol, "ontology": ONTOLOGY, "language": "json",
        "conversation-id": thread, BOUNCED: "yes",
    }  # fmt: skip
    for name, value in parameters.items():
        if value:
            message.set_metadata(name, value)
    return message


def _problem_of(stanza: Element, sender: JID) -> Problem:
    error = stanza.child("error") or Element("error", {})
    condition = said = ""
    for child in error.children:
        if child.name == f"{_ERROR}text":
            said = child.text
        elif child.name.startswith(_ERROR):
            condition = child.name.removeprefix(_ERROR)
    retryable = error.attributes.get("type") == "wait" or condition in _NOT_REACHED
    words = printable(f"{sender} was not reached: {condition or 'no reason given'} {said}")[:1000].strip()
    if condition in _NOT_THERE:
        remedy = "check that the agent runs, and its address"
        return Problem(code="no-such-agent", message=words, remedy=remedy, retryable=retryable)
    if condition in _NOT_REACHED:
        remedy = "check that its server runs, and that ours may reach it"
        return Problem(code="server-unreachable", message=words, remedy=remedy, retryable=True)
    return Problem(code="not-delivered", message=words, remedy="see what the server says", retryable=retryable)


# --- who is there ---


def presence(sender: JID, to: str, *, there: bool) -> str:
    """The stanza that tells whether an agent is there: directed presence (RFC 6121, 4.6)."""
    kind = "" if there else " type='unavailable'"
    return f"<presence from='{attribute(sender.full)}' to='{attribute(to)}'{kind}/>"


def is_there(stanza: Element) -> bool | None:
    """Whether a presence says that its sender is there; None if it says something else (RFC 6121, 4.7.1)."""
    return {"": True, "unavailable": False}.get(stanza.attributes.get("type", ""))


# --- what agents answer besides messages ---

DISCO = "http://jabber.org/protocol/disco#info"
PING = "urn:xmpp:ping"
_FEATURES = "".join(f"<feature var='{feature}'/>" for feature in (DISCO, PING, ACL))


def answer_to(stanza: Element, *, there: bool, component: bool) -> str | None:
    """The answer to an IQ or a presence (RFC 6120, 8.2.3; RFC 6121, 3 and 4.3; XEP-0030, XEP-0199), if any is due.

    ``there``: whether whom it is for is here; ``component``: whether that is the component itself and no agent.
    """
    kind = stanza.attributes.get("type", "")
    if stanza.name == "presence":
        if kind == "probe":
            return _back(stanza, "" if there else " type='unavailable'")
        return _back(stanza, " type='unsubscribed'") if kind == "subscribe" else None
    if stanza.name != "iq" or kind not in ("get", "set"):
        return None
    if not there:
        return refusal_of(stanza, "item-not-found")
    asked = stanza.children[0].name if len(stanza.children) == 1 and kind == "get" else ""
    if asked == f"{PING} ping":
        return _back(stanza, " type='result'")
    if asked == f"{DISCO} query" and "node" not in stanza.children[0].attributes:
        identity = "category='component' type='generic'" if component else "category='client' type='bot'"
        return _back(stanza, " type='result'", f"<query xmlns='{DISCO}'><identity {identity}/>{_FEATURES}</query>")
    return refusal_of(stanza, "service-unavailable")


def condition_of(stanza: Element) -> str:
    """The condition that an error stanza names (RFC 6120, 8.3.3); empty where it names none, or is no error."""
    error = stanza.child("error") or Element("error", {})
    found = (child.name for child in error.children if child.name.startswith(_ERROR))
    return next((name.removeprefix(_ERROR) for name in found if name != f"{_ERROR}text"), "")


def refusal_of(stanza: Element, condition: str) -> str:
    """The stanza's return to its sender as an error (RFC 6120, 8.3)."""
    error = f"<error type='cancel'><{condition} xmlns='{STANZA_ERRORS}'/></error>"
    return _back(stanza, " type='error'", error)


def _back(stanza: Element, kind: str, content: str = "") -> str:
    ends = {"to": "from", "from": "to", "id": "id"}
    given = {ours: stanza.attributes[theirs] for ours, theirs in ends.items() if theirs in stanza.attributes}
    attributes = "".join(f" {name}='{attribute(value)}'" for name, value in given.items())
    return f"<{stanza.name}{attributes}{kind}>{content}</{stanza.name}>"
