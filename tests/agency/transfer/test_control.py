"""The control channel, as whoever is on the network meets it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agency.transfer import control, identity
from agency.transfer.proxy import Limits, Proxy
from tests.labs.transfer import make_site


async def test_who_asks_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections on which no request comes, or half of one, are closed; and who says all but the end of a message
    is told that it took too long."""
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.3)
    site = make_site(tmp_path, "a.example")
    proxy = Proxy(site.state, site.root, site.witness, Limits())
    context = identity.anonymous(site.state / "transfer" / "ca.pem")
    async with control.serving(proxy, site.state, ("127.0.0.1", 0), 0) as (address, _), asyncio.timeout(30):
        host, port = address.split(":")
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(said)
            answer = await reader.read()
            assert (b"transfer.a.example" in answer) == said.endswith(b"\r\n\r\n")
            writer.close()
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(b"POST /transfer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert b"timed-out" in await reader.readuntil(b"timed-out")
        writer.close()
