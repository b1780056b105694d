"""The floor of a Contract Net over XMPP: bare components with no agents, that exchange given bytes and sign and verify.

A component (XEP-0114) is a TCP connection to the server, over which all stanzas of a domain go. This one knows no
message, no document and no conversation: it writes stanzas that it was given, and counts those that come.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from types import TracebackType
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

READ_BYTES = 262_144
SIGNATURE_DIGITS = 128


class BareComponent:
    """A component's connection; hands the sender, the receiver and the body of each message to ``received``."""

    def __init__(self, domain: str, secret: str, host: str, port: int) -> None:
        self._domain, self._secret, self._address = domain, secret, (host, port)
        self.received: Callable[[str, str, str], None] = lambda sender, receiver, body: None
        self._ready = asyncio.Event()
        self._depth = 0
        self._message: tuple[str, str] | None = None
        self._text: list[str] | None = None
        self._body = ""

    async def __aenter__(self) -> BareComponent:
        """Connect, and come back when the server has accepted the secret."""
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=READ_BYTES)
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self.write(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to={quoteattr(self._domain)}>"
        )
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(10):
            await self._ready.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        self._writer.close()

    def write(self, stanzas: str) -> None:
        """Write as it stands."""
        self._writer.write(stanzas.encode())

    async def _read(self) -> None:
        while data := await self._reader.read(READ_BYTES):
            self._parser.Parse(data)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            proof = hashlib.sha1((attributes["id"] + self._secret).encode(), usedforsecurity=False).hexdigest()
            self.write(f"<handshake>{proof}</handshake>")
        elif self._depth == 2:
            if name == "message":
                self._message = attributes["from"], attributes["to"]
            elif name != "handshake":
                raise ConnectionError(f"the server sent <{name}>")
            else:
                self._ready.set()
        elif name == "body":
            self._text = []

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "body" and self._text is not None:
            self._body, self._text = "".join(self._text), None
        elif self._depth == 1 and self._message:
            (sender, receiver), self._message = self._message, None
            self.received(sender, receiver, self._body)


_PARAMETERS = (
    "<acl xmlns='urn:cloud-agency:acl:1' performative='{}' protocol='fipa-iterated-contract-net' "
    "ontology='cloud-agency-1' language='{}' conversation-id='call-0123456789abcdef' reply-with='cfp.1' "
    "reply-by='2026-11-22T12:00:00.000000+00:00'/>"
)
_CALL, _PROPOSAL = _PARAMETERS.format("cfp", "json"), _PARAMETERS.format("propose", "jose")


def message(sender: str, receiver: str, parameters: str, body: str) -> str:
    """A message of the size that the agency's have; ``parameters``: FIPA's, as an element."""
    return (
        f"<message from={quoteattr(sender)} to={quoteattr(receiver)}><thread>call-0123456789abcdef</thread>"
        f"<body>{escape(body)}</body>{parameters}</message>"
    )


def vendor_keys(count: int, domain: str) -> dict[str, Ed25519PrivateKey]:
    """A key for each vendor, by JID: the same in both processes."""
    return {
        f"vendor-v{number}@{domain}": Ed25519PrivateKey.from_private_bytes((number + 1).to_bytes(32, "big"))
        for number in range(count)
    }


class SigningVendors:
    """The vendors' side of the floor: to each call one answer of a given text, signed with the vendor's own key."""

    def __init__(self, component: BareComponent, keys: dict[str, Ed25519PrivateKey], answer: str) -> None:
        self._component, self._keys, self._answer = component, keys, answer
        component.received = self._answered

    def _answered(self, sender: str, receiver: str, body: str) -> None:
        signature = self._keys[receiver].sign(self._answer.encode()).hex()
        self._component.write(message(receiver, sender, _PROPOSAL, self._answer + signature))


class VerifyingBroker:
    """The broker's side of the floor: calls every vendor and verifies each answer as it comes."""

    def __init__(self, component: BareComponent, jid: str, keys: dict[str, Ed25519PrivateKey], call: str) -> None:
        self._component = component
        self._known = {vendor: key.public_key() for vendor, key in keys.items()}
        self._calls = "".join(message(jid, vendor, _CALL, call) for vendor in keys)
        component.received = self._verified

    async def round(self) -> None:
        """One call to all, until all have answered and every signature was good."""
        self._left, self._done = len(self._known), asyncio.Event()
        self._component.write(self._calls)
        async with asyncio.timeout(120):
            await self._done.wait()

    def _verified(self, sender: str, receiver: str, body: str) -> None:
        answer, signature = body[:-SIGNATURE_DIGITS], body[-SIGNATURE_DIGITS:]
        self._known[sender].verify(bytes.fromhex(signature), answer.encode())
        self._left -= 1
        if not self._left:
            self._done.set()
