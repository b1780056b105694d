"""The other side of the control channel: asking a proxy, that of a state directory or one at an address."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agency.problems import AgencyError, refuse, refused
from agency.transfer.identity import FOLDER
from agency.transfer.tokens import text_of

SOCKET = "proxy.sock"
STREAMS = 2
"""Streams of a transfer, unless told otherwise."""
_CONNECTED_WITHIN = 10.0
_PATIENCE = 60.0
_MAX_ANSWER = 4 * 1024 * 1024

Json = dict[str, Any]


def split(address: str, *, free: bool = False) -> tuple[str, int]:
    """Host and port, which may be 0 where a ``free`` one may be taken; refused (``bad-value``) where they are not."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not re.fullmatch(r"[0-9]{1,5}", port) or not int(not free) <= int(port) < 65536:
        raise refuse("bad-value", f"{address[:200]!r} is no address", "give a host and a port, such as b.example:7443")
    return host.strip("[]"), int(port)


def data_address(address: str, context: ssl.SSLContext) -> tuple[str, int]:
    """The host and the data port of the proxy whose control channel is at that address."""
    host, _ = split(address)
    port = at(address, context).ask("GET", "/").get("data")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise refuse("bad-peer", f"what answers at {address} is no transfer proxy", "name the address of one")
    return host, port


class Control:
    """A proxy's control channel: HTTP as the standard library speaks it, as any other takes 0.1 s to import. There is a
    connection for each question."""

    def __init__(self, where: str, connect: Callable[[], HTTPConnection], headers: dict[str, str]) -> None:
        self._where, self._connect, self._headers = where, connect, headers

    def ask(self, method: str, path: str, body: Json | None = None, *, patient: bool = False) -> Json:
        """The answer; what is refused is raised. ``patient``: however long it takes."""
        with self._asked(method, quote(path), body, None if patient else _PATIENCE) as response:
            return self._answer(response)

    def follow(self, path: str, on_status: Callable[[Json], None]) -> Json:
        """Where a transfer stands, again and again until it has ended; gives the last."""
        status: Json = {}
        with self._asked("GET", f"{quote(path)}?follow=1", None, _PATIENCE) as response:
            if not _is_success(response):
                return self._answer(response)
            begun = b""  # of the next line
            while chunk := response.read1():
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    status = self._object(line)
                    on_status(status)
                if len(begun) > _MAX_ANSWER:
                    raise self._strange()
        return status

    @contextmanager
    def _asked(self, method: str, path: str, body: Json | None, seconds: float | None) -> Iterator[HTTPResponse]:
        content = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({} if content is None else {"content-type": "application/json"})
        try:
            with closing(self._connect()) as connection:
                connection.connect()
                connection.sock.settimeout(seconds)
                connection.request(method, path, content, headers)
                with connection.getresponse() as response:
                    yield response
        except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: a name that can be no host's
            raise self._silent(error) from None

    def _answer(self, response: HTTPResponse) -> Json:
        answer = self._object(response.read(_MAX_ANSWER + 1))
        if _is_success(response):
            return answer
        try:
            problem = refused(answer["problem"])
        except (ValueError, KeyError):
            raise self._strange() from None
        raise problem

    def _object(self, text: bytes) -> Json:
        try:
            said = json.loads(text) if len(text) <= _MAX_ANSWER else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self._strange()
        return said

    def _strange(self) -> AgencyError:
        return refuse("bad-peer", f"what answers at {self._where} is no transfer proxy", "name the address of one")

    def _silent(self, error: Exception) -> AgencyError:
        message = f"no transfer proxy answers at {self._where}: {error}"
        return refuse(
            "unreachable", message, "see that it runs, and that its certificate is of an authority given here"
        )


def _is_success(response: HTTPResponse) -> bool:
    return 200 <= response.status < 300


class _Local(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("proxy", timeout=_CONNECTED_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_CONNECTED_WITHIN)
        self.sock.connect(str(self._path))


def at(address: str, context: ssl.SSLContext, token: bytes | None = None) -> Control:
    """The control channel at an address, for the token."""
    host, port = split(address)
    headers = {} if token is None else {"authorization": f"Bearer {text_of(token)}"}
    return Control(address, lambda: HTTPSConnection(host, port, timeout=_CONNECTED_WITHIN, context=context), headers)


@contextmanager
def own(state: Path) -> Iterator[Control]:
    """The control channel of the proxy that runs in this state directory."""
    folder = state / FOLDER
    if not (folder / SOCKET).exists():
        remedy = f"start it with `agency transfer serve --root DIR --state {state}`"
        raise refuse("unreachable", f"no transfer proxy runs in {state}", remedy)
    with short(folder) as place:
        yield Control(str(folder / SOCKET), lambda: _Local(place / SOCKET), {})


@contextmanager
def short(folder: Path) -> Iterator[Path]:
    """Another path of the folder while inside: those of sockets have 107 characters at most."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
