"""A forward proxy for tests that does to single requests what networks, proxies and providers do to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

Fault = Callable[[bytes, Callable[[], Awaitable[bytes]]], Awaitable[bytes]]
"""From the request's head and a function that forwards it to the bytes that are answered before the connection ends."""


class Proxy:
    """Every request is dealt with by ``fault`` if its method and path begin as said; after ``times`` it is spent."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[str] = []
        self._fault: tuple[str, Fault] | None = None
        self._times = 0

    def inject(self, requests: str, fault: Fault, *, times: int = 1) -> None:
        """Deal so with the next requests that begin like this, such as ``DELETE /v1/volumes``."""
        self._fault, self._times = (requests, fault), times

    @property
    def spent(self) -> bool:
        """Whether the fault has happened as often as was said."""
        return self._times == 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, fields = head.partition(b"\r\n")
            method, url, _ = line.decode().split()
            parts = urlsplit(url)
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            self.seen.append(f"{method} {path}")

            async def forward() -> bytes:
                kept = [f for f in fields.split(b"\r\n") if f and not f.lower().startswith((b"connection", b"proxy-"))]
                sent = b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *kept, b"connection: close", b"", b""])
                length = next((int(f[15:]) for f in kept if f.lower().startswith(b"content-length:")), 0)
                inner_reader, inner_writer = await asyncio.open_connection(parts.hostname, parts.port)
                inner_writer.write(sent + await reader.readexactly(length))
                answer = await inner_reader.read()
                inner_writer.close()
                return answer

            writer.write(await self._deal(head, forward))
            await writer.drain()
        writer.close()

    async def _deal(self, head: bytes, forward: Callable[[], Awaitable[bytes]]) -> bytes:
        if self._fault and self._times and self.seen[-1].startswith(self._fault[0]):
            self._times -= 1
            return await self._fault[1](head, forward)
        return await forward()


@asynccontextmanager
async def running_proxy() -> AsyncIterator[Proxy]:
    """A proxy that answers until the block ends."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0, limit=2**20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()


# --- faults ---


async def lost(_: bytes, forward: Callable[[], Awaitable[bytes]]) -> bytes:
    """The request is done, its answer never arrives."""
    await forward()
    return b""


async def cut(_: bytes, forward: Callable[[], Awaitable[bytes]]) -> bytes:
    """The answer breaks off in the middle of its body."""
    head, _, body = (await forward()).partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + body[: len(body) // 2]


def says(status: int, *fields: str, body: str = "", forwarded: bool = False) -> Fault:
    """Another answer is given than the cloud's, which may or may not have had the request."""

    async def fault(_: bytes, forward: Callable[[], Awaitable[bytes]]) -> bytes:
        if forwarded:
            await forward()
        length = [] if status == 204 else [f"content-length: {len(body)}"]
        return "\r\n".join([f"HTTP/1.1 {status} X", "connection: close", *length, *fields, "", body]).encode()

    return fault
