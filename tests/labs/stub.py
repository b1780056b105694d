"""What the stub servers of published protocols share: a real HTTP/1.1 server on the loopback interface, in threads.

A stub keeps its state in memory and answers one request at a time. It is written from the protocol's text alone, and
refuses what the text refuses.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

SETTLING = 0.03
"""Seconds that a change takes which the provider begins at once and ends later."""


@dataclass(frozen=True)
class Request:
    """A request. ``parts`` are the parts of its path, decoded; ``query`` has each parameter's last value."""

    method: str
    target: str
    headers: Message
    body: bytes

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return urlsplit(self.target).path

    @property
    def parts(self) -> list[str]:
        """The parts of the path, decoded; an empty one at the end for a path that ends with a slash is left out."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    @property
    def query(self) -> dict[str, str]:
        """The parameters in the URL."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The parameters in the body."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def media_type(self) -> str:
        """What the body is, without parameters."""
        return self.headers.get_content_type() if "content-type" in self.headers else ""


@dataclass(frozen=True)
class Answer:
    """An answer; several headers of a name are several pairs."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class StubServer:
    """Runs within a ``with`` block; :attr:`url` is where. Subclasses implement :meth:`answer`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.seen: list[Request] = []
        """All requests, in the order in which they came."""

    def answer(self, request: Request) -> Answer:
        """The answer to a request; called for one at a time."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._http_server.server_port}"

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._http_server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http_server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http_server.shutdown()
        self._thread.join()
        self._http_server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    stub: StubServer

    def do(self) -> None:
        """Answer any method."""
        length = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(length)
        request = Request(self.command, self.path, self.headers, body)
        with self.stub.lock:
            self.stub.seen.append(request)
            answer = self.stub.answer(request)
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD" and answer.status != 204:
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do  # noqa: N815 - the library's names

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Changing:
    """A state that becomes another one a little later."""

    now: str
    then: str = ""
    at: float = field(default=0.0)

    def begin(self, now: str, then: str) -> None:
        """Be in one state, and soon in another."""
        self.now, self.then, self.at = now, then, time.monotonic() + SETTLING

    def read(self) -> str:
        """The state at this moment."""
        if self.then and time.monotonic() >= self.at:
            self.now, self.then = self.then, ""
        return self.now


def as_json(status: int, value: Any, *headers: tuple[str, str]) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(value).encode(), (("Content-Type", "application/json"), *headers))
