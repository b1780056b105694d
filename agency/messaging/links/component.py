"""The component link: all agents of a site on one connection to its XMPP server (XEP-0114, Jabber Component Protocol).

The stream is our own, on asyncio and expat: slixmpp's component took 3.3 times as long for a Contract Net round of 1000
vendors. What agents send in one turn of the event loop is written at once; what comes is parsed as it is read.

The protocol is not encrypted, so the server must be on this machine. It believes a component whatever agent it names as
sender; that others do not send in our agents' names, nor in those of other sites, is for the server to see to, and
ejabberd and Prosody do.

A connection that is lost is made again, at growing intervals. What was under way then may be lost, so agents are told
when it is there again. Until then nothing can be sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import structlog
from pydantic import SecretStr
from slixmpp import JID
from spade.message import Message

from agency.messaging.acl import jid
from agency.messaging.links import Resident, unreachable
from agency.messaging.links.stanzas import (
    ABROAD,
    AT_HOME,
    PING,
    STREAMS,
    BadStream,
    Element,
    Reader,
    answer_to,
    attribute,
    bounced,
    is_there,
    message_from,
    presence,
    refusal_of,
    written,
)
from agency.problems import AgencyError, refuse

CONNECT_WITHIN = 30.0
"""Seconds in which the server must have let us in."""
PING_EVERY = 30.0
"""Seconds of silence after which the server is asked whether it is there (XEP-0199)."""
PONG_WITHIN = 15.0
"""Seconds in which it must then say something."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds between two attempts to connect again."""
ANSWER_WITHIN = 15.0
"""Seconds in which a query must be answered."""
_STEADY = 10.0
"""Seconds that a connection must have lasted for the next one to be tried for at once."""
_WRITE_AT_ONCE = 1 << 17
"""Characters that wait at most for the event loop's next turn."""

log = structlog.get_logger("agency")


@asynccontextmanager
async def component_link(domain: str, host: str, port: int, secret: SecretStr) -> AsyncIterator[ComponentLink]:
    """A link to the server at ``host:port`` for the agents of ``domain``, until the block ends.

    :class:`~agency.problems.AgencyError` if the server cannot be reached or does not let us in.
    """
    _check_loopback(host)
    link = ComponentLink(domain, host, port, secret)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


def _check_loopback(host: str) -> None:
    with suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise refuse(
        "bad-value",
        f"a component's connection is not encrypted, and {host} is not this machine",
        "set AGENCY_SERVER to an address such as 127.0.0.1:5347, or AGENCY_LINK to client",
    )


class ComponentLink:
    """A :class:`~agency.messaging.links.Link` over one component stream."""

    def __init__(self, domain: str, host: str, port: int, secret: SecretStr) -> None:
        self._domain = str(JID(domain))
        self._server = host, port
        self._secret = secret
        self._agents: dict[str, Resident] = {}
        self._announced: dict[str, set[str]] = {}
        self._queries: dict[str, tuple[str, asyncio.Future[Element]]] = {}
        self._numbers = count()
        self._stream: _Stream | None = None
        self._keeping: asyncio.Task[None] | None = None

    def address(self, name: str) -> str:
        """See :class:`~agency.messaging.links.Link`."""
        return str(JID(f"{name}@{self._domain}"))

    async def connect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        if agent.jid.domain != self._domain:
            remedy = f"give it an address at {self._domain}"
            raise refuse("wrong-domain", f"{agent.jid} cannot live on the link of {self._domain}", remedy)
        self._agents[agent.jid.bare] = agent

    async def disconnect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        self._agents.pop(agent.jid.bare, None)
        for to in self._announced.pop(agent.jid.bare, ()):
            with suppress(AgencyError):  # who is not told now finds out: what is sent to the agent comes back
                self._open_stream().write(presence(agent.jid, to, there=False))

    async def announce(self, agent: Resident, to: str) -> None:
        """See :class:`~agency.messaging.links.Link`. No server tells for a component that one of its agents is gone, so
        we do."""
        self._open_stream().write(presence(agent.jid, to, there=True))
        self._announced.setdefault(agent.jid.bare, set()).add(to)

    async def send(self, message: Message) -> None:
        """See :class:`~agency.messaging.links.Link`. Waits while the server does not take what is written."""
        stream = self._open_stream()
        stream.write(written(message, AT_HOME if message.to.domain == self._domain else ABROAD))
        if stream.full:
            await stream.room()

    async def query(self, to: str, kind: str, content: str) -> Element:
        """Ask ``to`` something as the component itself (an IQ, RFC 6120, 8.2.3), and wait for the answer: a result, or
        an error. ``kind``: get or set; ``content``: one element.

        :class:`~agency.problems.AgencyError` if no answer comes.
        """
        answer: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        number = f"query-{next(self._numbers)}"
        stream, us = self._open_stream(), attribute(self._domain)
        self._queries[number] = to, answer
        try:
            stream.write(f"<iq type='{kind}' from='{us}' to='{attribute(to)}' id='{number}'>{content}</iq>")
            async with asyncio.timeout(ANSWER_WITHIN):
                return await answer
        except TimeoutError:
            raise unreachable(to, f"no answer within {ANSWER_WITHIN:.0f} s") from None
        finally:
            del self._queries[number]

    def _open_stream(self) -> _Stream:
        stream = self._stream
        if stream is None or stream.broken:
            raise unreachable(self._domain, "the connection to the server is lost, and not yet there again")
        return stream

    # --- the connection ---

    async def open(self) -> None:
        """Connect, and from then on stay connected; :class:`~agency.problems.AgencyError` if that fails at first."""
        self._stream = await self._connected()
        self._keeping = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """End the connection."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._stream is not None:
            await self._stream.end()
            self._stream = None

    async def _connected(self) -> _Stream:
        host, port = self._server
        where = f"{host}:{port}"
        loop = asyncio.get_running_loop()
        stream = _Stream(self._domain, self._secret, self._take)
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await loop.create_connection(lambda: stream, host, port)
                await stream.ready
        except TimeoutError:
            stream.abort("no answer")
            raise unreachable(where, f"no answer within {CONNECT_WITHIN:.0f} s") from None
        except OSError as error:
            raise unreachable(where, os.strerror(error.errno) if error.errno else str(error)) from None
        except BaseException:
            stream.abort("given up")
            raise
        return stream

    async def _keep_connected(self) -> None:
        attempts, loop = 0, asyncio.get_running_loop()
        while (stream := self._stream) is not None:
            began = loop.time()
            watching = asyncio.create_task(stream.watch())
            try:
                reason = await asyncio.shield(stream.closed)
            finally:
                watching.cancel()
            self._stream = None
            log.warning("link lost", domain=self._domain, reason=reason)
            attempts = 0 if loop.time() - began > _STEADY else attempts + 1
            while self._stream is None:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempts)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - only so that not all come at once
                attempts = min(attempts + 1, 20)
                try:
                    self._stream = await self._connected()
                except AgencyError as error:
                    log.warning("link not yet there again", domain=self._domain, problem=error.problem.message)
            log.info("link there again", domain=self._domain)
            for agent in tuple(self._agents.values()):
                agent.reconnected()

    # --- what comes ---

    def _take(self, stream: _Stream, stanza: Element) -> None:
        """Hand a stanza to the agent that it is for, or answer it; one that makes no sense must not end the stream."""
        try:
            to = stanza.attributes.get("to", "").partition("/")[0]
            agent = self._agents.get(to)
            if stanza.name == "iq" and stanza.attributes.get("type") in ("result", "error"):
                self._answered(stanza)
            elif stanza.name == "presence" and (there := is_there(stanza)) is not None:
                if agent is not None:
                    agent.saw(jid(stanza.attributes.get("from", "")), there=there)
            elif stanza.name != "message":
                itself = to == self._domain
                answer = answer_to(stanza, there=itself or agent is not None, component=itself)
                if answer is not None:
                    stream.write(answer)
            elif stanza.attributes.get("type") == "error":
                if agent is not None:
                    agent.dispatch(bounced(stanza, agent.jid))
            elif agent is not None:
                agent.dispatch(message_from(stanza, agent.jid))
            else:
                stream.write(refusal_of(stanza, "item-not-found"))
        except Exception as error:
            log.error("stanza not used", sender=stanza.attributes.get("from", ""), exc_info=error)

    def _answered(self, stanza: Element) -> None:
        """Give an answer to who waits for it, if it comes from whom was asked."""
        asked, answer = self._queries.get(stanza.attributes.get("id", ""), ("", None))
        if answer is not None and not answer.done() and stanza.attributes.get("from") == asked:
            answer.set_result(stanza)


class _Stream(asyncio.Protocol):
    """One connection: from the handshake (XEP-0114, 3) to its end."""

    def __init__(self, domain: str, secret: SecretStr, take: Callable[[_Stream, Element], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._domain = domain
        self._secret = secret
        self._take = take
        self._reader = Reader(self._opened, self._stanza)
        self._transport: asyncio.Transport | None = None
        self._waiting: list[str] = []
        self._waiting_length = 0
        self._room = asyncio.Event()
        self._room.set()
        self._heard = self._loop.time()
        self._reason = "the server has closed the connection"
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done when the server has let us in; fails with the reason if not."""
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""

    # --- writing ---

    def write(self, xml: str) -> None:
        """Write at the event loop's next turn, with everything else; sooner if that is much."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(xml)
        self._waiting_length += len(xml)
        if self._waiting_length > _WRITE_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._waiting and self._transport is not None:
            self._transport.write("".join(self._waiting).encode())
        self._waiting.clear()
        self._waiting_length = 0

    @property
    def broken(self) -> bool:
        """Whether what is written now goes nowhere. Writing shows that before the event loop tells: who writes on and
        on would keep it from telling, for ever."""
        return self._transport is None or self._transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether the server does not take as much as was written."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until there is room for more; :class:`~agency.problems.AgencyError` if the connection ends meanwhile."""
        await self._room.wait()
        if self.closed.done():
            raise unreachable(self._domain, self.closed.result())

    def pause_writing(self) -> None:
        """Called by asyncio when much waits to be sent."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Called by asyncio when most of that is sent."""
        self._room.set()

    # --- its life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the stream."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP connection
        self._transport = transport
        self.write(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
            f"xmlns:stream='{STREAMS}' to='{attribute(self._domain)}'>"
        )

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._heard = self._loop.time()
        if self.closed.done():
            return
        try:
            self._reader.feed(data)
        except BadStream as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """See that everybody learns of it."""
        self._lost(str(exc) if exc is not None else self._reason)

    def _lost(self, reason: str) -> None:
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(reason)
        if not self.ready.done():
            self.ready.set_exception(unreachable(self._domain, reason))
            self.ready.exception()  # seen, even if nobody waits for it any more
        self._room.set()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(reason)

    async def end(self) -> None:
        """End the stream in order."""
        self.write("</stream:stream>")
        self._flush()
        if self._transport is not None:
            self._transport.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.closed), 2)
        self.abort("ended")

    async def watch(self) -> None:
        """End the connection when the server is silent although it is asked: by a ping to ourselves."""
        while True:
            await asyncio.sleep(PING_EVERY)
            if self._loop.time() - self._heard < PING_EVERY:
                continue
            asked, us = self._loop.time(), attribute(self._domain)
            self.write(f"<iq type='get' from='{us}' to='{us}' id='alive'><ping xmlns='{PING}'/></iq>")
            await asyncio.sleep(PONG_WITHIN)
            if self._heard < asked:
                self.abort(f"the server says nothing, not even to a ping, within {PONG_WITHIN:.0f} s")

    # --- what comes ---

    def _opened(self, header: dict[str, str]) -> None:
        given = header.get("id", "") + self._secret.get_secret_value()
        self.write(f"<handshake>{hashlib.sha1(given.encode(), usedforsecurity=False).hexdigest()}</handshake>")

    def _stanza(self, stanza: Element) -> None:
        if stanza.name == "handshake":
            if not self.ready.done():
                self.ready.set_result(None)
        elif stanza.name == "stream-error":
            self._refused(stanza)
        elif self.ready.done():
            self._take(self, stanza)

    def _refused(self, error: Element) -> None:
        conditions = [child.name.rpartition(" ")[2] for child in error.children]
        self._reason = f"the server says {', '.join(conditions)}"
        if not self.ready.done():
            self.ready.set_exception(_why_not_let_in(self._domain, conditions))
            self.ready.exception()


def _why_not_let_in(domain: str, conditions: list[str]) -> AgencyError:
    if "not-authorized" in conditions:
        return refuse(
            "wrong-secret",
            f"the XMPP server does not take our secret for the component {domain}, or knows no such component",
            "set up the server with `agency server init` and the same --state, or set AGENCY_LINK_SECRET to its secret",
        )
    if "host-unknown" in conditions:
        return refuse(
            "unknown-component",
            f"the XMPP server knows no component {domain}",
            "set AGENCY_DOMAIN to the component's domain, as `agency server init` has shown it",
        )
    return unreachable(domain, f"the server says {', '.join(conditions)}")
