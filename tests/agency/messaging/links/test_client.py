"""The client link against a server that cannot be believed; what a real one does is in test_links.py."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from pydantic import SecretStr
from slixmpp.util.sasl.mechanisms import SCRAM

from agency.messaging.agent import RoleAgent
from agency.messaging.links import client
from agency.messaging.links.client import client_link
from agency.messaging.links.stanzas import STREAMS
from agency.problems import AgencyError
from tests.agency.messaging.links.test_component import serving

HEADER = f"<stream:stream xmlns='jabber:client' xmlns:stream='{STREAMS}' id='7' version='1.0' from='a.test'>"
PLAIN = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
SCRAM_OFFERED = PLAIN.replace("PLAIN", "SCRAM-SHA-256")
BIND = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
TLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"


@pytest.mark.parametrize(
    ("features", "code"),
    [
        pytest.param(PLAIN, "not-secure", id="plain-unencrypted"),
        pytest.param(SCRAM_OFFERED, "not-secure", id="scram-unencrypted"),
        pytest.param(BIND, "not-secure", id="neither"),
        pytest.param(TLS, "server-unreachable", id="promises-tls"),
        pytest.param("", "server-unreachable", id="nothing"),
    ],
)
async def test_nothing_is_told_to_who_leaves_out_encryption(
    features: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server, or who stands before it, that leaves out encryption or log-in gets neither password nor message; the
    start ends in a clear error, within a bounded time."""
    monkeypatch.setattr(client, "START_WITHIN", 1)
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(f"{HEADER}<stream:features>{features}</stream:features>".encode())
        while data := await reader.read(65536):
            heard += data
            if b"<bind" in data:
                bound = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>anna@a.test/x</jid></bind>"
                number = data.split(b'id="')[1].split(b'"')[0].decode()
                writer.write(f"<iq type='result' id='{number}'>{bound}</iq>".encode())

    async def password(_: str) -> SecretStr:
        return SecretStr("s3cret")

    async with (
        asyncio.timeout(20),
        serving(serve) as port,
        client_link("a.test", ("127.0.0.1", port), None, password) as link,
    ):
        with pytest.raises(AgencyError) as error:
            await RoleAgent("anna@a.test", link).start()
    assert error.value.problem.code == code
    assert b"<auth" not in heard
    assert b"<presence" not in heard
    assert b"s3cret" not in heard


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_authorities_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A file of authorities that is not there, or holds none, is refused before anything is tried, and named."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AgencyError, match=r"ca\.pem") as error:
        async with client_link("a.test", ("127.0.0.1", 1), file, None):
            pass
    assert error.value.problem.code == "bad-value"


def test_scram_salts_as_rfc_5802_does() -> None:
    """What we put in place of slixmpp's Hi gives RFC 6070's second test vector."""
    scram = SCRAM.__new__(SCRAM)
    scram.hash = hashlib.sha1
    assert scram.Hi(b"password", b"salt", 2).hex() == "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"
