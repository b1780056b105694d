"""The proxy of the conformance suite passes on what it is not told to spoil, and spoils exactly what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from vendor_modules.conformance.faults import (
    Proxy,
    Request,
    asks,
    junk,
    logs_in,
    lost_reply,
    refusing,
    remembered,
    removes,
    reset,
    slow,
    swallowed,
    truncated,
    twice,
    writes,
)

LARGE = bytes(range(256)) * 4096 * 10


class Handler(BaseHTTPRequestHandler):
    """Tells what it was asked; ``/large`` is :data:`LARGE`, ``/chunked`` is in chunks, ``/bare`` has no length."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]

    def do_GET(self) -> None:
        body = self._body()
        self.seen.append((self.command, self.path, body))
        getattr(self, f"_{self.path.strip('/')}", self._plain)(body)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - as the library names them

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _plain(self, body: bytes) -> None:
        self._send(f"{self.command} {self.path} {len(body)} #{len(self.seen)}".encode())

    def _large(self, _: bytes) -> None:
        self._send(LARGE)

    def _chunked(self, _: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"one ", b"two ", b"three"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _bare(self, _: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"until the end")
        self.close_connection = True

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server's URL, and the requests that it has seen."""
    seen: list[tuple[str, str, bytes]] = []
    web = ThreadingHTTPServer(("127.0.0.1", 0), type("Seeing", (Handler,), {"seen": seen}))
    thread = Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}", seen
    web.shutdown()
    web.server_close()
    thread.join()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy."""
    async with Proxy() as open_:
        yield open_


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    """A client that goes through the proxy."""
    async with httpx.AsyncClient(proxy=proxy.url, trust_env=False, timeout=10) as through:
        yield through


Server = tuple[str, list[tuple[str, str, bytes]]]


async def test_passes_on(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """Requests and answers pass as they are: methods, queries, bodies, one after the other on one connection."""
    url, seen = server
    assert (await client.get(f"{url}/a?b=c%20d")).text == "GET /a?b=c%20d 0 #1"
    assert (await client.post(f"{url}/a", content=b"body")).text == "POST /a 4 #2"
    assert (await client.delete(f"{url}/a")).text == "DELETE /a 0 #3"
    head = await client.head(f"{url}/large")
    assert (head.headers["content-length"], head.content) == (str(len(LARGE)), b"")
    assert [request.method for request in proxy.requests] == ["GET", "POST", "DELETE", "HEAD"]
    assert (proxy.requests[1].body, seen[1][2]) == (b"body", b"body")
    assert proxy.requests[0].path == "/a?b=c%20d"


@pytest.mark.parametrize(("path", "content"), [("chunked", b"one two three"), ("bare", b"until the end")])
async def test_passes_on_however_long(server: Server, client: httpx.AsyncClient, path: str, content: bytes) -> None:
    """Answers in chunks, and answers that last until the connection ends, come out whole, one after the other."""
    for _ in range(2):
        assert (await client.get(f"{server[0]}/{path}")).content == content


async def test_streams_large_bodies(server: Server, client: httpx.AsyncClient) -> None:
    """Large bodies pass in both directions, with a length and in chunks, byte for byte."""
    url, seen = server

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            yield LARGE[start : start + 100_000]

    await client.put(f"{url}/a", content=LARGE)
    await client.put(f"{url}/a", content=pieces())
    assert [body == LARGE for _, _, body in seen] == [True, True]
    assert (await client.get(f"{url}/large")).content == LARGE


async def test_serves_many_at_once(server: Server, client: httpx.AsyncClient) -> None:
    """Requests at the same time are not mixed up."""
    answers = await asyncio.gather(*(client.get(f"{server[0]}/{number}") for number in range(20)))
    assert [answer.text.split()[1] for answer in answers] == [f"/{number}" for number in range(20)]


async def test_tunnels(server: Server, proxy: Proxy) -> None:
    """What is asked for by CONNECT passes both ways untouched, and is counted."""
    target = server[0].removeprefix("http://")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"GET /inside HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"GET /inside 0 #1" in await reader.read()
    writer.close()
    assert (proxy.tunnels, proxy.requests) == (1, [])


async def test_server_that_is_not_there(client: httpx.AsyncClient) -> None:
    """For a server that does not answer, the proxy answers 502."""
    async with Proxy() as closed:
        url = closed.url
    assert (await client.get(url)).status_code == 502


async def test_lost_reply(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """The request is done, the answer does not come; once, and only where it is told to."""
    url, seen = server
    fault = proxy.arm(lost_reply, writes)
    await client.get(f"{url}/a")
    with pytest.raises(httpx.TransportError):
        await client.post(f"{url}/a", content=b"order")
    assert [method for method, *_ in seen] == ["GET", "POST"]
    assert (await client.post(f"{url}/a")).status_code == 200
    assert fault.hits == 1


async def test_lost_reply_of_a_large_request(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """A large request, too, arrives whole before its answer is lost."""
    proxy.arm(lost_reply, writes)
    with pytest.raises(httpx.TransportError):
        await client.put(f"{server[0]}/a", content=LARGE)
    assert [body == LARGE for _, _, body in server[1]] == [True]


async def test_reset(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """The connection breaks, and nothing arrives."""
    proxy.arm(reset, writes, times=2)
    for content in (b"small", LARGE):
        with pytest.raises(httpx.TransportError):
            await client.put(f"{server[0]}/a", content=content)
    assert server[1] == []


async def test_twice(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """The request arrives twice, whole, and the second answer comes back."""
    url, seen = server
    proxy.arm(twice, writes, times=2)
    assert (await client.post(f"{url}/a", content=b"order")).text == "POST /a 5 #2"
    assert (await client.put(f"{url}/a", content=LARGE)).text == f"PUT /a {len(LARGE)} #4"
    assert [body for _, _, body in seen] == [b"order", b"order", LARGE, LARGE]


async def test_truncated(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """A part of the answer comes, and the client sees that it is not all."""
    for path in ("large", "chunked"):
        proxy.arm(truncated, asks)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{server[0]}/{path}")


async def test_answers_in_place_of_the_server(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """Refusals, junk and lies come from the proxy: the server sees nothing; a body is not waited for."""
    url, seen = server
    for act, status in ((refusing(503), 503), (junk, 200), (swallowed, 204), (refusing(401), 401)):
        proxy.arm(act, lambda _: True, times=2)
        assert (await client.get(f"{url}/a")).status_code == status
        assert (await client.delete(f"{url}/a")).status_code == status
    proxy.arm(refusing(429, retry_after=7), writes)
    answer = await client.post(f"{url}/a")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert seen == []


async def test_slow(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """The request arrives, and its answer does not come in time."""
    proxy.arm(slow(30), asks)
    with pytest.raises(httpx.ReadTimeout):
        await client.get(f"{server[0]}/a", timeout=0.2)
    assert len(server[1]) == 1


async def test_remembered(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """Questions get the answer that they had before; those never asked pass."""
    url, seen = server
    proxy.remembering = True
    before = (await client.get(f"{url}/a")).text
    proxy.remembering = False
    fault = proxy.arm(remembered, asks, times=None)
    assert (await client.get(f"{url}/a")).text == before
    assert (await client.get(f"{url}/b")).text == "GET /b 0 #2"
    fault.times = 0
    assert (await client.get(f"{url}/a")).text == "GET /a 0 #3"
    assert len(seen) == 3


async def test_spare_and_disarm(server: Server, client: httpx.AsyncClient, proxy: Proxy) -> None:
    """A fault spares the first so many requests, goes on for ever if it is told to, and ends when disarmed."""
    proxy.arm(refusing(500), asks, times=None, spare=2)
    got = [(await client.get(f"{server[0]}/a")).status_code for _ in range(5)]
    proxy.disarm()
    assert got == [200, 200, 500, 500, 500]
    assert (await client.get(f"{server[0]}/a")).status_code == 200


async def test_closes_with_connections_open(server: Server) -> None:
    """The proxy can be closed while a client is still connected and an answer is being waited for."""
    async with Proxy() as proxy:
        proxy.arm(slow(30), asks)
        client = httpx.AsyncClient(proxy=proxy.url, trust_env=False)
        waiting = asyncio.ensure_future(client.get(f"{server[0]}/a"))
        while not server[1]:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
    with pytest.raises(httpx.TransportError):
        await waiting
    await client.aclose()


def _request(method: str, path: str, body: bytes = b"", **headers: str) -> Request:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(method, "host", path, pairs, body)


FORM = {"Content_Type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (_request("GET", "/servers"), "asks"),
        (_request("HEAD", "/bucket/name"), "asks"),
        (_request("POST", "/servers"), "writes"),
        (_request("PUT", "/images/1/file"), "writes"),
        (_request("POST", "/v3/auth/tokens"), "logs in"),
        (_request("POST", "/identity/v3/auth/tokens?nocatalog"), "logs in"),
        (_request("POST", "/v1/tokens"), "logs in"),
        (_request("POST", "/access-keys"), "writes"),
        (_request("POST", "/authors"), "writes"),
        (_request("DELETE", "/servers/1"), "removes"),
        (_request("GET", "/?Action=DescribeInstances&Version=1"), "asks"),
        (_request("GET", "/?Action=RunInstances&Version=1"), "writes"),
        (_request("POST", "/", b"Action=DescribeVolumes&Version=1", **FORM), "asks"),
        (_request("POST", "/", b"Action=CreateVolume&Version=1", **FORM), "writes"),
        (_request("POST", "/", b"Action=TerminateInstances&Version=1", **FORM), "removes"),
        (_request("GET", "/client/api?command=listVirtualMachines"), "asks"),
        (_request("GET", "/client/api?command=deployVirtualMachine"), "writes"),
        (_request("GET", "/client/api?command=queryAsyncJobResult"), "asks"),
        (_request("POST", "/RPC2", b"<methodCall><methodName>one.vm.info</methodName>"), "asks"),
        (_request("POST", "/RPC2", b"<methodCall><methodName>one.vm.allocate</methodName>"), "writes"),
        (_request("POST", "/", b"{}", X_Amz_Target="Service_1.ListThings"), "asks"),
    ],
    ids=lambda value: f"{value.method} {value.path}" if isinstance(value, Request) else value,
)
def test_requests_are_told_apart(request_: Request, kind: str) -> None:
    """Requests that ask, change, remove and log in are known as such, by method, path or action."""
    told: dict[str, Any] = {
        "asks": (True, False, False, False),
        "writes": (False, True, False, False),
        "removes": (False, True, True, False),
        "logs in": (False, False, False, True),
    }
    assert (asks(request_), writes(request_), removes(request_), logs_in(request_)) == told[kind]
