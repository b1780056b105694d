"""The control channel of a transfer proxy: JSON, over HTTPS for whoever has a token, over a Unix socket for its owner.

With ``Authorization: Bearer TOKEN``::

    GET    /                        {"proxy": its name, "data": its data port}; needs no token
    POST   /transfer                {"to": {"address": "HOST:PORT", "token": …}, "streams": 2}: transfer between the two
    GET    /transfer[?follow=1]     where it stands; followed, an object a line until it has ended
    DELETE /transfer                cancel it
    POST   /transfer/verification   read the file again: {"same": …, "size": …, "root": …}

On the socket it is ``/transfers/ID`` instead of ``/transfer``; ``GET /transfers`` lists them, ``POST /tokens`` issues
tokens. Whatever goes wrong is answered with 409 and ``{"problem": …}``.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from agency.http_server import Server
from agency.problems import AgencyError, problem_of, refuse
from agency.transfer import identity, remote
from agency.transfer.ledger import State, Transfer
from agency.transfer.proxy import Proxy
from agency.transfer.remote import SOCKET
from agency.transfer.tokens import text_of, token_in
from agency.transfer.wire import MAX_STREAMS

FORESEEN = (AgencyError, ValidationError, TimeoutError)
"""Errors that are answered with their problem and are no fault of the proxy's."""
REQUEST_SECONDS = 10.0
"""For asking, from the connection's beginning, or since the last answer, on."""
FOLLOW_SECONDS = 0.5
_MAX_BODY = 64 * 1024
_MAX_CONNECTIONS = 128


M = TypeVar("M", bound="_Message")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Destination(_Message):
    """Another proxy, and a token of its."""

    address: str
    token: SecretStr


class Start(_Message):
    """A transfer between two proxies."""

    to: Destination
    streams: int = Field(default=remote.STREAMS, ge=1, le=MAX_STREAMS)


class Grant(_Message):
    """What a token is to mean."""

    direction: Literal["read", "write"]
    file: str
    peer: str = Field(min_length=1, max_length=255)
    format: str = "raw"
    most: int | None = Field(default=None, ge=0)
    base: str | None = None
    seconds: int = Field(default=3600, ge=1, le=30 * 86400)


def view(proxy: Proxy, transfer: Transfer, *, ours: bool) -> dict[str, Any]:
    """A transfer as JSON; what the token means only for whoever is ours."""
    now = proxy.progress(transfer.id)
    shown: dict[str, Any] = {
        "id": transfer.id,
        "state": transfer.state,
        "done": now.done if now else (transfer.size or 0) if transfer.state is State.COMPLETE else None,
        "total": now.total if now else transfer.size,
        "wire": now.wire if now else transfer.wire,
        "rate": now.rate if now else None,
        "left": now.left if now else None,
        "root": transfer.root,
        "expires": transfer.expires.isoformat(),
        "started": transfer.started and transfer.started.isoformat(),
        "finished": transfer.finished and transfer.finished.isoformat(),
        "problem": transfer.problem,
        "manifest": transfer.statement,
    }
    if ours:
        own = ("direction", "file", "format", "peer", "most", "base")
        shown |= {name: getattr(transfer, name) for name in own}
    elif transfer.problem:
        shown["problem"] = transfer.problem.replace(transfer.file, "the file")
    return shown


class _Control:
    """The handlers, for whoever is ours or has a token."""

    def __init__(self, proxy: Proxy, *, ours: bool, data_port: int) -> None:
        self._proxy, self._ours, self._data_port = proxy, ours, data_port

    def app(self) -> Starlette:
        """All of them."""
        one = "/transfers/{id}" if self._ours else "/transfer"
        routes = [
            Route("/", self.about),
            Route(one, self.status),
            Route(one, self.cancel, methods=["DELETE"]),
            Route(f"{one}/verification", self.verification, methods=["POST"]),
        ]
        if self._ours:
            routes += [Route("/transfers", self.list), Route("/tokens", self.issue, methods=["POST"])]
        else:
            routes += [Route(one, self.start, methods=["POST"])]
        return Starlette(routes=routes, exception_handlers=dict.fromkeys((*FORESEEN, Exception), _problem))

    async def about(self, _: Request) -> Response:
        """Who this is."""
        return JSONResponse({"proxy": self._proxy.name, "data": self._data_port})

    async def list(self, _: Request) -> Response:
        """All transfers."""
        found = await asyncio.to_thread(self._proxy.transfers)
        return JSONResponse({"transfers": [self._view(each) for each in found]})

    async def issue(self, request: Request) -> Response:
        """A token."""
        grant = await _body(request, Grant)
        transfer, token = await asyncio.to_thread(
            self._proxy.issue,
            grant.direction,
            grant.file,
            peer=grant.peer,
            format=grant.format,
            most=grant.most,
            lifetime=timedelta(seconds=grant.seconds),
            base=grant.base,
        )
        return JSONResponse({"token": text_of(token), "transfer": self._view(transfer)})

    async def start(self, request: Request) -> Response:
        """Begin to send to, or receive from, another proxy."""
        wanted = await _body(request, Start)
        theirs = token_in(wanted.to.token.get_secret_value())
        token = _bearer(request)
        await asyncio.to_thread(self._proxy.meant, token)  # nobody without a token makes us call anybody
        address = await asyncio.to_thread(remote.data_address, wanted.to.address, self._proxy.calling)
        transfer = await asyncio.to_thread(self._proxy.start, token, address, theirs, wanted.streams)
        return JSONResponse(self._view(transfer), status_code=202)

    async def status(self, request: Request) -> Response:
        """Where it stands."""
        transfer = await self._meant(request)
        if "follow" not in request.query_params:
            return JSONResponse(self._view(transfer))

        async def lines() -> AsyncIterator[str]:
            while True:
                now = await asyncio.to_thread(self._proxy.get, transfer.id)
                yield json.dumps(self._view(now)) + "\n"
                if now.state not in (State.WAITING, State.RUNNING):
                    return
                await asyncio.sleep(FOLLOW_SECONDS)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def cancel(self, request: Request) -> Response:
        """End it."""
        transfer = await self._meant(request)
        return JSONResponse(self._view(await asyncio.to_thread(self._proxy.cancel, transfer.id)))

    async def verification(self, request: Request) -> Response:
        """Read everything again."""
        transfer = await self._meant(request)
        return JSONResponse(await asyncio.to_thread(self._proxy.verification, transfer.id))

    def _view(self, transfer: Transfer) -> dict[str, Any]:
        return view(self._proxy, transfer, ours=self._ours)

    async def _meant(self, request: Request) -> Transfer:
        if self._ours:
            return await asyncio.to_thread(self._proxy.get, request.path_params["id"])
        return await asyncio.to_thread(self._proxy.meant, _bearer(request))


class _Impatient(H11Protocol):
    """HTTP with whoever asks something: who does not for :data:`REQUEST_SECONDS` is hung up on, so that connections
    that say nothing, or say it slowly, do not keep others out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
            return
        self.loop.call_later(REQUEST_SECONDS, self._look)


async def _problem(_: Request, error: Exception) -> Response:
    return JSONResponse({"problem": problem_of(error).model_dump(mode="json")}, status_code=409)


def _bearer(request: Request) -> bytes:
    return token_in(request.headers.get("authorization", "").removeprefix("Bearer "))


async def _body(request: Request, kind: type[M]) -> M:
    body = b""
    async with asyncio.timeout(REQUEST_SECONDS):
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                raise refuse("too-large", f"a message has more than {_MAX_BODY} bytes", "send a smaller one")
    return kind.model_validate_json(body)


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Be the proxy of that state directory: there is one."""
    with (state / identity.FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "use it, stop it, or name another directory with --state"
            raise refuse("already-running", f"a transfer proxy runs in {state} already", remedy) from None
        yield


@asynccontextmanager
async def serving(proxy: Proxy, state: Path, listen: tuple[str, int], data_port: int) -> AsyncIterator[tuple[str, int]]:
    """Serve control and data while inside; gives where control is, as HOST:PORT, and the data port."""
    async with AsyncExitStack() as stack:
        data = stack.enter_context(_bound(listen[0], data_port, backlog=64))
        port = data.getsockname()[1]
        outside = stack.enter_context(_bound(*listen))
        inside = stack.enter_context(_socket(state))
        public = _Control(proxy, ours=False, data_port=port).app()
        await stack.enter_async_context(_served(public, outside, identity.control(state)))
        await stack.enter_async_context(_served(_Control(proxy, ours=True, data_port=port).app(), inside, None))
        proxy.listen(data)
        host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
        try:
            yield f"{host}:{outside.getsockname()[1]}", port
        finally:
            data.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(proxy.stop)


@asynccontextmanager
async def _served(app: Starlette, listener: socket.socket, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http=_Impatient,
        log_config=None,
        access_log=False,  # nor would it have the tokens, which are in no address
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    config.load()
    config.ssl = context
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextmanager
def _bound(host: str, port: int, backlog: int = 128) -> Iterator[socket.socket]:
    """A listening socket: who is told where can connect at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            message = f"the proxy cannot have port {port} of {host}: {error.strerror}"
            raise refuse("port-not-free", message, "name another with --listen or --data; 0 takes a free one") from None
        listener.listen(backlog)
        yield listener


@contextmanager
def _socket(state: Path) -> Iterator[socket.socket]:
    """The listening Unix socket, for the owner of the state directory."""
    folder = state / identity.FOLDER
    with remote.short(folder) as place:
        (folder / SOCKET).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(place / SOCKET))
            (folder / SOCKET).chmod(0o600)
            listener.listen()
            try:
                yield listener
            finally:
                (folder / SOCKET).unlink(missing_ok=True)
