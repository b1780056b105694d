"""Faults on the way to a provider: a forward HTTP proxy on the loopback interface that loses answers, refuses, stalls,
repeats and lies when it is told to, and otherwise passes everything on as it is.

::

    async with Proxy() as proxy:
        settings = settings.model_copy(update={"proxy": proxy.url})
        fault = proxy.arm(lost_reply, writes)  # the next request that changes something is done, its answer is not told
        ...
        fault.hits  # how often it was met

Requests come in absolute form, as HTTP libraries send them through a proxy; connections are kept alive, bodies are
passed on as they come, whatever their size. What is asked for by CONNECT goes through untouched: faults cannot be put
into an encrypted stream, and :attr:`Proxy.tunnels` counts them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

SMALL = 64 * 1024
"""Bodies of up to so many bytes are read before a fault is chosen, so that it can be chosen by them."""
PIECE = 64 * 1024
_LOGS_IN = re.compile(r"/(auth|oauth2?|tokens?|sessions?|login)(?=[/?]|$)", re.IGNORECASE)
_ASKS = re.compile(r"(describe|list|get|query|head|check|search|show|info|count|monitor|account)", re.IGNORECASE)
_REMOVES = re.compile(r"(delete|terminate|destroy|release|remove|deregister|free|expunge)", re.IGNORECASE)
_RPC = re.compile(rb"<methodName>[\w.]*?(\w+)</methodName>")
_HOP_BY_HOP = ("connection", "proxy-connection", "keep-alive", "proxy-authorization", "expect")

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """A request on its way. ``path`` is with its query; ``body`` is empty where it was too large to wait for."""

    method: str
    host: str
    path: str
    headers: Headers
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first header of that name (in lower case); empty without one."""
        return next((value for known, value in self.headers if known.lower() == name), "")

    def action(self) -> str:
        """What query-like interfaces have in place of methods: ``Action=RunInstances``, ``command=listZones``,
        ``<methodName>one.vm.info</methodName>``. Empty for others."""
        if match := _RPC.search(self.body):
            return match[1].decode()
        query = urlsplit(self.path).query
        if self.header("content-type").startswith("application/x-www-form-urlencoded"):
            query += "&" + self.body.decode("ascii", "replace")
        fields = parse_qs(query)
        found = [fields[name][0] for name in ("Action", "command") if name in fields]
        return found[0] if found else self.header("x-amz-target").rpartition(".")[2]


def logs_in(request: Request) -> bool:
    """Whether the request asks for a token or a session."""
    return bool(_LOGS_IN.search(urlsplit(request.path).path))


def writes(request: Request) -> bool:
    """Whether the request creates, changes or removes something; logging in does not."""
    if logs_in(request):
        return False
    if action := request.action():
        return not _ASKS.match(action)
    return request.method in ("POST", "PUT", "PATCH", "DELETE")


def removes(request: Request) -> bool:
    """Whether the request removes something, as far as its method or action tells."""
    return request.method == "DELETE" or bool(_REMOVES.match(request.action()))


def asks(request: Request) -> bool:
    """Whether the request only asks."""
    return not writes(request) and not logs_in(request)


@dataclass(frozen=True)
class Answer:
    """An answer, whole."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        told = {name.lower() for name, _ in self.headers}
        unsaid = self.status != 204 and not told & {"transfer-encoding", "content-length"}
        length = (("Content-Length", str(len(self.body))),) if unsaid else ()
        head = "".join(f"{name}: {value}\r\n" for name, value in (*self.headers, *length))
        return f"HTTP/1.1 {self.status} X\r\n{head}\r\n".encode("latin-1") + self.body


class _Gone(Exception):
    """One side has gone away in the middle of a message."""


class Exchange:
    """One request and its answer, in the hands of a fault."""

    def __init__(
        self, proxy: Proxy, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: bool
    ) -> None:
        self.proxy = proxy
        self.request = request
        self._reader = reader
        self._writer = writer
        self._waiting = waiting
        """Whether the request's body is still to be read."""
        self.over = False
        """Whether the connection to the client cannot be used any more."""

    async def pass_on(self) -> None:
        """Deliver the request, and the answer as it comes."""
        async with self._upstream() as (status, headers, reader):
            bodiless = _bodiless(self.request.method, status)
            self._writer.write(_head(f"HTTP/1.1 {status} X", _kept(headers)))
            if not bodiless and _framing(headers) == "close":
                self.over = True
            if not bodiless:
                async for piece in _raw_body(reader, headers):
                    self._writer.write(piece)
                    await self._writer.drain()
        await self._writer.drain()

    async def deliver(self) -> Answer:
        """Deliver the request, and keep the answer from the client. The body must be one that can be held."""
        async with self._upstream() as (status, headers, reader):
            body = b""
            if not _bodiless(self.request.method, status):
                body = b"".join([piece async for piece in _raw_body(reader, headers)])
            return Answer(status, body, _kept(headers))

    async def answer(self, answer: Answer) -> None:
        """Answer the client; a body that it is still sending is not waited for, and the connection ends then."""
        self.over = self.over or self._waiting
        self._writer.write(answer.encoded())
        await self._writer.drain()

    async def hold(self) -> None:
        """Read the request's body to its end, to have it: it can be delivered more than once then."""
        if self._waiting:
            body = b"".join([piece async for piece in _raw_body(self._reader, self.request.headers)])
            self.request = Request(
                self.request.method, self.request.host, self.request.path, self.request.headers, body
            )
            self._waiting = False

    def cut(self, sent: bytes = b"") -> None:
        """Break the connection to the client, after so much of an answer."""
        self.over = True
        if sent:
            self._writer.write(sent)
            self._writer.close()
        else:
            self._writer.transport.abort()

    def _upstream(self) -> _Upstream:
        waiting, self._waiting = self._waiting, False
        return _Upstream(self, self._reader if waiting else None)


class _Upstream:
    """A connection to the server for one request: sends it, and gives status, headers and the reader of the body."""

    def __init__(self, exchange: Exchange, body: asyncio.StreamReader | None) -> None:
        self._exchange = exchange
        self._body = body
        self._sending: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> tuple[int, Headers, asyncio.StreamReader]:
        request = self._exchange.request
        host, _, port = request.host.rpartition(":") if ":" in request.host else (request.host, "", "80")
        reader, self._writer = await asyncio.open_connection(host.strip("[]"), int(port))
        headers = (*_kept(request.headers), ("Connection", "close"))
        self._writer.write(_head(f"{request.method} {request.path} HTTP/1.1", headers))
        self._writer.write(request.body)
        self._sending = asyncio.ensure_future(self._send())
        while True:
            line, headers = await _read_head(reader)
            status = int(line.split(" ")[1])
            if status >= 200:
                return status, headers, reader

    async def _send(self) -> None:
        assert self._writer  # noqa: S101 - it is open
        with suppress(ConnectionError):  # the server may answer without reading all of it
            if self._body is not None:
                async for piece in _raw_body(self._body, self._exchange.request.headers):
                    self._writer.write(piece)
                    await self._writer.drain()
            await self._writer.drain()

    async def __aexit__(self, *_: object) -> None:
        if self._sending:
            if not self._sending.done():
                self._exchange.over = True  # what the client still sends would be taken for its next request
                self._sending.cancel()
            with suppress(asyncio.CancelledError, _Gone):
                await self._sending
        if self._writer:
            self._writer.close()


Act = Callable[[Exchange], Awaitable[None]]
"""What a fault does with an exchange."""


@dataclass
class Fault:
    """Something that goes wrong: ``act`` happens to requests that ``matches`` takes, after ``spare`` of them have gone
    through, so many ``times`` (None: always)."""

    act: Act
    matches: Callable[[Request], bool]
    times: int | None = 1
    spare: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether it happens to this request; counted if so."""
        if (self.times is not None and self.hits >= self.times) or not self.matches(request):
            return False
        if self.spare:
            self.spare -= 1
            return False
        self.hits += 1
        return True


# --- what can go wrong ---


async def lost_reply(exchange: Exchange) -> None:
    """The request is delivered and done; the connection breaks before the answer."""
    await exchange.deliver()
    exchange.cut()


async def reset(exchange: Exchange) -> None:
    """The connection breaks before the request is delivered."""
    exchange.cut()


async def twice(exchange: Exchange) -> None:
    """The request is delivered twice, as by something in between that repeats what it had no answer to; the client gets
    the second answer."""
    await exchange.hold()
    await exchange.deliver()
    await exchange.answer(await exchange.deliver())


async def truncated(exchange: Exchange) -> None:
    """The answer breaks off in its middle."""
    whole = (await exchange.deliver()).encoded()
    begin = whole.index(b"\r\n\r\n") + 4
    exchange.cut(whole[: begin + (len(whole) - begin) // 2])


async def junk(exchange: Exchange) -> None:
    """The answer is a success, and no answer to anything."""
    page = b"<!doctype html><p>Welcome to the wireless network of our hotel! {["
    await exchange.answer(Answer(200, page, (("Content-Type", "text/html"),)))


def refusing(status: int, *, retry_after: int | None = None) -> Act:
    """The request is not delivered, and answered with this status."""

    async def act(exchange: Exchange) -> None:
        headers = (("Retry-After", str(retry_after)),) if retry_after is not None else ()
        await exchange.answer(Answer(status, b"", headers))

    return act


def slow(seconds: float) -> Act:
    """The request is delivered, and its answer takes so long."""

    async def act(exchange: Exchange) -> None:
        answer = await exchange.deliver()
        await asyncio.sleep(seconds)
        await exchange.answer(answer)

    return act


async def swallowed(exchange: Exchange) -> None:
    """The request is not delivered, and answered as if it were done."""
    await exchange.answer(Answer(204))


async def remembered(exchange: Exchange) -> None:
    """The answer is the one that the same request had before (:attr:`Proxy.remembering`); one never asked passes."""
    known = exchange.proxy.memory.get(_name(exchange.request))
    await (exchange.answer(known) if known else exchange.pass_on())


# --- the proxy ---


@dataclass
class Proxy:
    """The proxy, open while its ``async with`` block lasts."""

    requests: list[Request] = field(default_factory=list)
    """All requests that came, in their order."""
    tunnels: int = 0
    """How many encrypted connections were asked for."""
    remembering: bool = False
    """Whether to note answers to GET and the like, for :func:`remembered`."""
    memory: dict[tuple[str, str, str, bytes], Answer] = field(default_factory=dict)
    _faults: list[Fault] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """What to set as a module's proxy."""
        assert self._server  # noqa: S101 - it is open
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def arm(self, act: Act, matches: Callable[[Request], bool], *, times: int | None = 1, spare: int = 0) -> Fault:
        """Let something go wrong from now on; see :class:`Fault`. Earlier faults are looked at first."""
        fault = Fault(act, matches, times, spare)
        self._faults.append(fault)
        return fault

    def disarm(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2 * PIECE)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server  # noqa: S101 - it is open
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101 - streams run this in one
        self._connections.add(task)
        try:
            while await self._exchanged(reader, writer):
                pass
        except (_Gone, ConnectionError, ValueError):
            pass  # the client has gone, or speaks something else
        except asyncio.CancelledError:
            pass  # the proxy closes
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchanged(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; returns whether another may follow."""
        line, headers = await _read_head(reader)
        method, target, _ = line.split(" ")
        if method == "CONNECT":
            self.tunnels += 1
            await _tunnel(target, reader, writer)
            return False
        request, waiting = await _received(method, target, headers, reader, writer)
        self.requests.append(request)
        exchange = Exchange(self, request, reader, writer, waiting)
        fault = next((fault for fault in self._faults if fault.takes(request)), None)
        try:
            await self._act(exchange, fault)
        except OSError:  # the server is not there
            await exchange.answer(Answer(502))
        return not exchange.over and request.header("connection").lower() != "close"

    async def _act(self, exchange: Exchange, fault: Fault | None) -> None:
        if fault:
            await fault.act(exchange)
        elif self.remembering and not exchange._waiting and asks(exchange.request):
            answer = await exchange.deliver()
            self.memory[_name(exchange.request)] = answer
            await exchange.answer(answer)
        else:
            await exchange.pass_on()


def _name(request: Request) -> tuple[str, str, str, bytes]:
    return request.method, request.host, request.path, request.body


async def _received(
    method: str, target: str, headers: Headers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[Request, bool]:
    """The request, with its body if that is small; and whether the body is still to be read."""
    url = urlsplit(target)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = Request(method, url.netloc.rpartition("@")[2], path, headers)
    if request.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    framing = _framing(headers)
    if framing == "close":
        return request, False  # a request without a length has no body
    if isinstance(framing, int) and framing <= SMALL:
        body = b"".join([piece async for piece in _raw_body(reader, headers)])
        return Request(method, request.host, path, headers, body), False
    return request, True


async def _tunnel(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = target.rpartition(":")
    try:
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        writer.write(Answer(502).encoded())
        await writer.drain()
        return
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    finally:
        far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


# --- HTTP/1.1 as it is on the wire ---


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, Headers]:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise _Gone from error
    line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (field.partition(":") for field in lines)
    return line, tuple((name, value.strip()) for name, _, value in pairs)


def _kept(headers: Headers) -> Headers:
    """The headers that are not about one connection."""
    return tuple(header for header in headers if header[0].lower() not in _HOP_BY_HOP)


def _head(line: str, headers: Headers) -> bytes:
    text = line + "\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{text}\r\n".encode("latin-1")


def _framing(headers: Headers) -> int | str:
    """The body's length; or ``chunked``; or ``close``: it lasts until the connection ends."""
    fields = {name.lower(): value for name, value in headers}
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return "chunked"
    return int(fields["content-length"]) if "content-length" in fields else "close"


def _bodiless(method: str, status: int) -> bool:
    return method == "HEAD" or status in (204, 304)


async def _raw_body(reader: asyncio.StreamReader, headers: Headers) -> AsyncIterator[bytes]:
    """The body in pieces, as it is on the wire; :class:`_Gone` if it breaks off."""
    framing = _framing(headers)
    try:
        if framing == "close":
            while piece := await reader.read(PIECE):
                yield piece
        elif isinstance(framing, int):
            async for piece in _exactly(reader, framing):
                yield piece
        else:
            size = -1
            while size != 0:
                line = await reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                yield line
                async for piece in _exactly(reader, size):
                    yield piece
                if size:
                    yield await reader.readexactly(2)
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                yield line
            yield line
    except asyncio.IncompleteReadError as error:
        raise _Gone from error


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(PIECE, size))
        if not piece:
            raise _Gone
        size -= len(piece)
        yield piece
