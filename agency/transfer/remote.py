"""The other side of the control channel: asking a proxy, that of a state directory or one at an address."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from agency.problems import AgencyError, refuse, refused
from agency.transfer.identity import FOLDER
from agency.transfer.tokens import text_of

SOCKET = "proxy.sock"
STREAMS = 2
"""Streams of a transfer, unless told otherwise."""
_PATIENCE = httpx.Timeout(60, connect=10)
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
    with at(address, context) as proxy:
        port = proxy.ask("GET", "/").get("data")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise refuse("bad-peer", f"what answers at {address} is no transfer proxy", "name the address of one")
    return host, port


class Control:
    """A proxy's control channel."""

    def __init__(self, client: httpx.Client, where: str) -> None:
        self._client, self._where = client, where

    def ask(self, method: str, path: str, body: Json | None = None, *, patient: bool = False) -> Json:
        """The answer; what is refused is raised. ``patient``: however long it takes."""
        timeout = httpx.Timeout(None, connect=10) if patient else _PATIENCE
        try:
            with self._client.stream(method, path, json=body, timeout=timeout) as response:
                return self._answer(response)
        except httpx.TransportError as error:
            raise self._silent(error) from None

    def follow(self, path: str, on_status: Callable[[Json], None]) -> Json:
        """Where a transfer stands, again and again until it has ended; gives the last."""
        status: Json = {}
        try:
            timeout = httpx.Timeout(60, connect=10)
            with self._client.stream("GET", path, params={"follow": "1"}, timeout=timeout) as response:
                if not response.is_success:
                    return self._answer(response)
                for line in response.iter_lines():
                    status = json.loads(line)
                    on_status(status)
        except httpx.TransportError as error:
            raise self._silent(error) from None
        return status

    def _answer(self, response: httpx.Response) -> Json:
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_ANSWER:
                raise self._strange()
        try:
            answer = json.loads(body)
            if response.is_success and isinstance(answer, dict):
                return answer
            problem = refused(answer["problem"])
        except (ValueError, KeyError, TypeError):
            raise self._strange() from None
        raise problem

    def _strange(self) -> AgencyError:
        return refuse("bad-peer", f"what answers at {self._where} is no transfer proxy", "name the address of one")

    def _silent(self, error: httpx.TransportError) -> AgencyError:
        message = f"no transfer proxy answers at {self._where}: {error}"
        return refuse(
            "unreachable", message, "see that it runs, and that its certificate is of an authority given here"
        )


@contextmanager
def at(address: str, context: ssl.SSLContext, token: bytes | None = None) -> Iterator[Control]:
    """The control channel at an address, for the token."""
    host, port = split(address)
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    headers = {} if token is None else {"authorization": f"Bearer {text_of(token)}"}
    with httpx.Client(base_url=url, verify=context, headers=headers, trust_env=False) as client:
        yield Control(client, address)


@contextmanager
def own(state: Path) -> Iterator[Control]:
    """The control channel of the proxy that runs in this state directory."""
    folder = state / FOLDER
    if not (folder / SOCKET).exists():
        remedy = f"start it with `agency transfer serve --root DIR --state {state}`"
        raise refuse("unreachable", f"no transfer proxy runs in {state}", remedy)
    with short(folder) as place:
        transport = httpx.HTTPTransport(uds=str(place / SOCKET))
        with httpx.Client(base_url="http://proxy", transport=transport, trust_env=False) as client:
            yield Control(client, str(folder / SOCKET))


@contextmanager
def short(folder: Path) -> Iterator[Path]:
    """Another path of the folder while inside: those of sockets have 107 characters at most."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
