"""The client link: each agent has an account and a connection of its own at an XMPP server (RFC 6120), on slixmpp.

For an agent that runs alone, on whichever machine. Nothing is said that is not encrypted: STARTTLS is required, the
server's certificate is verified against the authorities given and must be for the domain of the agent's address, and
the password is proven by SCRAM (RFC 5802), never sent. A stream that breaks is resumed where the server allows
(XEP-0198), with nothing lost; else a new one is begun, and the agent is told.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import structlog
from pydantic import SecretStr
from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.plugins.xep_0198.stanza import Ack, RequestAck
from slixmpp.util.sasl import mechanisms
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from spade.message import Message

from agency.messaging.links import Resident, unreachable
from agency.messaging.links.stanzas import (
    FROM_CLIENT,
    Element,
    bounced,
    is_there,
    message_from,
    short_name,
    written,
)
from agency.messaging.names import ACL
from agency.problems import AgencyError, refuse

START_WITHIN = 30.0
"""Seconds in which an agent's session must have begun."""
PING_EVERY = 30.0
"""Seconds between two questions whether the server is there (XEP-0199)."""
PONG_WITHIN = 15.0
ANSWER_WITHIN = 15.0
"""Seconds in which a query must be answered."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two attempts to connect again."""
_RESOURCE = "agency"  # always the same: a session that the server still holds for dead makes way for the new one
_MECHANISMS = {f"SCRAM-SHA-{bits}{plus}" for bits in ("512", "256", "1") for plus in ("-PLUS", "")}

log = structlog.get_logger("agency")

Passwords = Callable[[str], Awaitable[SecretStr | None]]
"""The password of the account with that JID; None if there is none."""


@asynccontextmanager
async def client_link(
    domain: str, server: tuple[str, int], ca: Path | None, password: Passwords
) -> AsyncIterator[ClientLink]:
    """A link for agents of ``domain`` to the server at that host and port, until the block ends. ``ca``: PEM file of
    the authorities to believe; the system's, if None. :class:`~agency.problems.AgencyError` if it cannot be read.
    """
    # one for all agents: each of its own would take 200 ms, and a megabyte
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        remedy = "set AGENCY_CA to a PEM file with the authorities of the XMPP server's certificate"
        raise refuse("bad-value", f"{ca}: {getattr(error, 'strerror', None) or error}", remedy) from None
    link = ClientLink(domain, server, context, password)
    try:
        yield link
    finally:
        await link.close()


class ClientLink:
    """A :class:`~agency.messaging.links.Link` with a session an agent."""

    def __init__(self, domain: str, server: tuple[str, int], context: ssl.SSLContext, password: Passwords) -> None:
        self._domain = str(JID(domain))
        self._server = server
        self._context = context
        self._password = password
        self._sessions: dict[str, _Session] = {}

    def address(self, name: str) -> str:
        """See :class:`~agency.messaging.links.Link`."""
        return str(JID(f"{name}@{self._domain}"))

    async def connect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        jid = agent.jid.bare
        password = await self._password(jid)
        if password is None:
            remedy = f"`agency server account {agent.jid.node}`, or keep it with `agency server secret {jid}`"
            raise refuse("no-secret", f"there is no password for {jid}", remedy)
        session = _Session(agent, self._server, self._context, password)
        await session.open()
        self._sessions[jid] = session

    async def disconnect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        session = self._sessions.pop(agent.jid.bare, None)
        if session is not None:
            await session.close()

    async def announce(self, agent: Resident, to: str) -> None:
        """See :class:`~agency.messaging.links.Link`. The server remembers whom to tell when the session ends."""
        self._session(agent.jid).announce(to)

    async def send(self, message: Message) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        await self._session(message.sender).send(message)

    async def query(self, jid: str, to: str, kind: str, content: str) -> Element:
        """Ask ``to`` something in the name of the agent at that address (an IQ, RFC 6120, 8.2.3), and wait for the
        answer: a result, or an error. ``kind``: get or set; ``content``: one element.

        :class:`~agency.problems.AgencyError` if no answer comes.
        """
        return await self._session(JID(jid)).query(to, kind, content)

    def _session(self, jid: JID) -> _Session:
        session = self._sessions.get(jid.bare)
        if session is None:
            raise unreachable(self._domain, f"{jid} is not connected")
        return session

    async def close(self) -> None:
        """End all sessions that are left."""
        for session in tuple(self._sessions.values()):
            await session.close()
        self._sessions.clear()


class _Session:
    """One agent's session: from its log-in to its end, over as many connections as it takes."""

    def __init__(self, agent: Resident, server: tuple[str, int], context: ssl.SSLContext, password: SecretStr) -> None:
        self._agent = agent
        self._server = server
        self._client = _Client(JID(f"{agent.jid.bare}/{_RESOURCE}"), password, context, self._take, self._see)
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Log in, and from then on stay connected; :class:`~agency.problems.AgencyError` if that fails at first."""
        try:
            await self._client.begin(self._server)
        except BaseException:
            await self._client.leave()
            raise
        self._keeping = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Log out."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._client.leave()

    async def send(self, message: Message) -> None:
        """Send over the session; waits while the server does not take what is written."""
        self._check_up()
        stanza = written(message, FROM_CLIENT).replace("<message ", "<message xmlns='jabber:client' ", 1)
        self._client.Message(xml=ET.fromstring(stanza)).send()  # noqa: S314 - what we have just written ourselves
        await self._client.room.wait()

    def announce(self, to: str) -> None:
        """Send presence to somebody."""
        self._check_up()
        self._client.send_presence(pto=to)

    async def query(self, to: str, kind: str, content: str) -> Element:
        """Send an IQ and wait for its answer."""
        self._check_up()
        query: Any = self._client.make_iq(ito=to)
        query["type"] = kind
        query.append(ET.fromstring(content))  # noqa: S314 - what we have just written ourselves
        try:
            answer = await query.send(timeout=ANSWER_WITHIN)
        except IqError as error:
            answer = error.iq
        except IqTimeout:
            raise unreachable(to, f"no answer within {ANSWER_WITHIN:.0f} s") from None
        return _element(answer.xml)

    def _check_up(self) -> None:
        if not self._client.up:
            raise unreachable(self._agent.jid.bare, "the connection is lost, and not yet there again")

    async def _keep_connected(self) -> None:
        while True:
            watching = asyncio.create_task(self._client.watch())
            try:
                reason = await self._client.lost.get()
            finally:
                watching.cancel()
            log.warning("link lost", agent=self._agent.jid.bare, reason=reason)
            attempts = 0
            while not self._client.up:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempts)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - only so that not all come at once
                attempts = min(attempts + 1, 20)
                try:
                    resumed = await self._client.begin(self._server)
                except AgencyError as error:
                    self._client.abort()
                    log.warning("link not yet there again", agent=self._agent.jid.bare, problem=error.problem.message)
                else:
                    log.info("link there again", agent=self._agent.jid.bare, resumed=resumed)
                    if not resumed:
                        self._agent.reconnected()

    def _take(self, stanza: Any) -> None:
        """Hand over a message; one that makes no sense must not end the session."""
        try:
            element = _element(stanza.xml)
            read = bounced if element.attributes.get("type") == "error" else message_from
            self._agent.dispatch(read(element, self._agent.jid))
        except Exception as error:
            log.error("stanza not used", sender=str(stanza["from"]), exc_info=error)

    def _see(self, stanza: Any) -> None:
        """Tell the agent who is there, or is not."""
        there = is_there(_element(stanza.xml))
        if there is not None and stanza["from"].bare != self._agent.jid.bare:
            self._agent.saw(stanza["from"], there=there)


def _element(xml: ET.Element) -> Element:
    element = Element(short_name(xml.tag.removeprefix("{").replace("}", " ", 1)), dict(xml.attrib))
    element.text = xml.text or ""
    element.children = [_element(child) for child in xml]
    return element


class _Client(ClientXMPP):
    """slixmpp's client, as we need it: strict at the start, and with no will of its own afterwards."""

    def __init__(
        self,
        jid: JID,
        password: SecretStr,
        context: ssl.SSLContext,
        take: Callable[[Any], None],
        see: Callable[[Any], None],
    ) -> None:
        super().__init__(
            jid,
            password.get_secret_value(),
            plugin_config={"feature_mechanisms": {"use_mechs": _MECHANISMS}},
            ssl_context=context,
        )
        self.enable_direct_tls = self.enable_plaintext = False
        self.auto_authorize = self.auto_subscribe = False
        self.up = False
        self.room = asyncio.Event()
        self.room.set()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self._outcome: asyncio.Future[bool] | None = None
        for plugin in ("xep_0030", "xep_0198", "xep_0199"):
            self.register_plugin(plugin)
        self["xep_0030"].add_identity(category="client", itype="bot", name="")
        self["xep_0030"].add_feature(ACL)
        self.register_handler(Callback("messages", MatchXPath("{jabber:client}message"), take))
        self.register_handler(Callback("presence", MatchXPath("{jabber:client}presence"), see))
        self.add_event_handler("session_start", lambda _: self._proven() and self.send_presence())
        self.add_event_handler("presence_available", self._announced)
        self.add_event_handler("session_resumed", self._resumed)
        self.add_event_handler("disconnected", self._disconnected)
        self.add_event_handler("connection_failed", lambda error: self._fail(unreachable(self._where, str(error))))
        self.add_event_handler("failed_all_auth", self._not_let_in)
        self.add_event_handler("ssl_invalid_chain", lambda error: self._fail(_bad_certificate(self._where, error)))
        self._where = ""

    # --- its life ---

    async def begin(self, server: tuple[str, int]) -> bool:
        """Connect and log in; True if that resumed what was before. :class:`~agency.problems.AgencyError` if not."""
        self._where = f"{server[0]}:{server[1]}"
        self._outcome = asyncio.get_running_loop().create_future()
        self.connect(*server)
        try:
            async with asyncio.timeout(START_WITHIN):
                return await self._outcome
        except TimeoutError:
            raise unreachable(self._where, f"no session within {START_WITHIN:.0f} s") from None
        finally:
            self._outcome = None

    async def leave(self) -> None:
        """Log out, and leave nothing behind."""
        self.cancel_connection_attempt()
        if self.up:
            self.up = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self.disconnect(1.0), 3)
        self.abort()
        if self._run_out_filters is not None:
            self._run_out_filters.cancel()
            await asyncio.gather(self._run_out_filters, return_exceptions=True)

    async def watch(self) -> None:
        """End the connection when the server does not answer."""
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                await self["xep_0199"].send_ping(self.boundjid.domain, timeout=PONG_WITHIN)
            except IqTimeout:
                self.disconnect_reason = f"the server does not answer a ping within {PONG_WITHIN:.0f} s"
                self.abort()
            except IqError:
                pass  # an answer, too

    def _proven(self) -> bool:
        """Whether the session has begun as strictly as it must: a false server could have left out half of it."""
        if "mechanisms" in self.features and isinstance(self.socket, ssl.SSLObject):
            return True
        self._fail(_no_scram(self._where))
        self.abort()
        return False

    def _not_let_in(self, _: object) -> None:
        tried = self["feature_mechanisms"].attempted_mechs
        self._fail(_wrong_secret(self.requested_jid.bare) if tried else _no_scram(self._where))

    def _resumed(self, _: object) -> None:
        if self._proven():
            self._begun(resumed=True)

    def _announced(self, presence: Any) -> None:
        """Only when the server tells us ourselves that we are there, others reach us (RFC 6121, 4.2.2)."""
        if presence["from"] == self.boundjid and not self.up:
            self._begun(resumed=False)

    def _begun(self, *, resumed: bool) -> None:
        self.up = True
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(resumed)

    def _disconnected(self, reason: object) -> None:
        why = str(reason) if reason else "the server has closed the connection"
        # what was wrong, say with the certificate, comes a moment after the connection has ended for it
        asyncio.get_running_loop().call_later(0.2, self._fail, unreachable(self._where, why), self._outcome)
        self.room.set()
        if self.up:
            self.up = False
            self.lost.put_nowait(why)

    def _fail(self, error: AgencyError, attempt: asyncio.Future[bool] | None = None) -> None:
        """Let the attempt to begin, the present one if not said, end with the error."""
        attempt = attempt or self._outcome
        if attempt is not None and not attempt.done():
            self.cancel_connection_attempt()  # when to try again is for the session to say
            attempt.set_exception(error)

    # --- asyncio's flow control ---

    def pause_writing(self) -> None:
        """Called by asyncio when much waits to be sent."""
        self.room.clear()

    def resume_writing(self) -> None:
        """Called by asyncio when most of that is sent."""
        self.room.set()


def _salted(scram: Any, text: bytes, salt: bytes, iterations: int) -> bytes:
    """SCRAM's Hi (RFC 5802, 2.2), which is PBKDF2: slixmpp's own, in Python, takes 60 ms or more an agent."""
    return hashlib.pbkdf2_hmac(scram.hash().name, text, salt, iterations)


mechanisms.SCRAM.Hi = _salted  # type: ignore[method-assign, assignment]
for _acknowledgement in (Ack, RequestAck):  # while slixmpp waits for an answer it looks for a sender in them, and warns
    _acknowledgement.interfaces = {*_acknowledgement.interfaces, "from", "id"}


# --- what may be wrong ---


def _wrong_secret(jid: str) -> AgencyError:
    return refuse(
        "wrong-secret",
        f"the XMPP server does not take our password for {jid}, or has no such account",
        f"keep the right one with `agency server secret {jid}`, or make the account with `agency server account`",
    )


def _no_scram(where: str) -> AgencyError:
    return refuse(
        "not-secure",
        f"the XMPP server at {where} does not offer what we insist on: TLS, and then SCRAM",
        "set it up with `agency server init`, or allow STARTTLS and SCRAM-SHA-256 in its configuration",
    )


def _bad_certificate(where: str, error: object) -> AgencyError:
    why = getattr(error, "verify_message", "") or str(error)
    return refuse(
        "bad-certificate",
        f"the XMPP server at {where} is not believed: {why}",
        "set AGENCY_CA to the authority of its certificate, which must be for the domain of the agents (AGENCY_DOMAIN)",
    )
