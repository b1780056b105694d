"""What modules share that speak HTTP themselves: errors, waits, limits, and answers that make no sense."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from tests.labs.stub import Answer, Request, StubServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import http
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
    seconds,
)
from vendor_modules.protocols.deltacloud import DeltacloudModule
from vendor_modules.resources import Network, Status
from vendor_modules.services.credentials import PasswordCredentials

LOGIN = PasswordCredentials(username="user", password="a secret of the test's")


class Canned(StubServer):
    """A server that answers everything with one answer."""

    canned = Answer(200, b"<api/>")

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        return self.canned


@pytest.fixture
def server():
    with Canned() as canned:
        yield canned


@pytest.fixture
async def module(server):
    async with made(DeltacloudModule, LOGIN, url=server.url) as made_module:
        yield made_module


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (402, QuotaExceeded),
        (403, Forbidden),
        (404, NotFound),
        (405, Unsupported),
        (409, Conflict),
        (410, NotFound),
        (413, QuotaExceeded),
        (422, InvalidRequest),
        (429, Throttled),
        (500, Unavailable),
        (501, Unsupported),
        (503, Unavailable),
        (302, ProtocolError),
    ],
)
async def test_statuses_mean_errors(server, module, status, error):
    """Every HTTP status that is no success is raised as what it means, with words of its own if it has none."""
    server.canned = Answer(status, b"")
    with pytest.raises(VendorError) as raised:
        await module._ask("GET", "/")
    assert type(raised.value) is error
    assert raised.value.detail


async def test_providers_words_are_told_but_not_all_of_them(server, module):
    """The provider's words are in the error, on one line and not endless."""
    words = "the  machine\nis busy " + "x" * 10_000
    server.canned = Answer(409, f"<error><message>{words}</message></error>".encode())
    with pytest.raises(Conflict, match="the machine is busy xxx") as raised:
        await module._ask("GET", "/")
    assert len(raised.value.detail) <= http.LONGEST_WORDS


async def test_busy_with_a_date_is_throttled(server, module):
    """503 with Retry-After, here a date, is Throttled, and says how long to wait."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.canned = Answer(503, b"", (("Retry-After", moment),))
    with pytest.raises(Throttled) as raised:
        await module._ask("GET", "/")
    assert 80 < raised.value.retry_after <= 90


@pytest.mark.parametrize(("text", "wait"), [("7", 7), ("", 1), ("soon", 1), ("-3", 1), ("9" * 40, 999_999_999)])
def test_retry_after_is_read(text, wait):
    """A number of seconds is taken as it is, bounded; what is neither number nor date is one second."""
    assert seconds(text) == wait


async def test_endless_answer_is_not_read_to_its_end(server, module, monkeypatch):
    """An answer larger than any that makes sense is refused before it is all in memory."""
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1000)
    server.canned = Answer(200, bytes(2000))
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        await module._ask("GET", "/")


async def test_content_is_streamed(server, module):
    """A body is handed on in chunks, and not limited."""
    content = bytes(range(256)) * 8192
    server.canned = Answer(200, content)
    chunks = [chunk async for chunk in module._stream("GET", "/")]
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) <= http.CHUNK


async def test_redirects_are_not_followed(server, module):
    """A redirect is an error: credentials go to the URL of the settings, and nowhere else."""
    with Canned() as other:
        server.canned = Answer(307, b"", (("Location", other.url),))
        with pytest.raises(ProtocolError):
            await module._ask("GET", "/")
        assert not other.seen


async def test_environments_proxy_is_not_used(server, monkeypatch):
    """Proxy variables of the environment are ignored; the proxy of the settings is used."""
    with Canned() as other:
        monkeypatch.setenv("HTTP_PROXY", other.url)
        async with made(DeltacloudModule, LOGIN, url=server.url) as direct:
            await direct._ask("GET", "/")
        assert not other.seen
        async with made(DeltacloudModule, LOGIN, url=server.url, proxy=other.url) as proxied:
            await proxied._ask("GET", "/here")
        assert other.seen[0].target == f"{server.url}/here"


async def test_unreachable_provider_is_unavailable():
    """Where nothing listens, the error is Unavailable and retryable."""
    with Canned() as gone:
        url = gone.url
    async with made(DeltacloudModule, LOGIN, url=url) as module:
        module.attempts = 1
        with pytest.raises(Unavailable):
            await module.list_machines()


@pytest.mark.parametrize("content", [b"", b"<a>", b"not XML", b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><b/>'])
def test_what_is_not_the_xml_expected_is_a_protocol_error(content):
    """XML that does not parse, or has another root, is a ProtocolError."""
    with pytest.raises(ProtocolError):
        http.xml_of(content, "a")


def test_entities_are_not_resolved():
    """An entity that names a file is not replaced by its content."""
    document = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'
    assert "".join(http.xml_of(document, "a").itertext()).strip() in ("", "&x;")


def test_misread_answers_do_not_tell_values():
    """What goes wrong while an answer is read says what is missing or wrong, never the values: they may be secrets."""
    with pytest.raises(ProtocolError, match="it has no 'id'"), http.understood("machine"):
        {"password": "a secret"}["id"]
    with pytest.raises(ProtocolError) as raised, http.understood("network"):
        Network(id="n", name="n", status=Status.ACTIVE, cidr={"password": "a secret"})
    assert "cidr" in raised.value.detail
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_ids_do_not_lead_elsewhere(identifier):
    """An id that would be another path is NotFound; others are quoted whole."""
    with pytest.raises(NotFound):
        http.segment(identifier)
    assert http.segment("a/../b?c#d") == "a%2F..%2Fb%3Fc%23d"


async def test_creations_with_one_key_follow_one_another(module):
    """A creation that its caller gave up goes on, and the next with its key begins only when it has ended."""
    events, begun = [], asyncio.Event()

    async def create(word: str) -> Network:
        events.append(f"{word} begins")
        begun.set()
        await asyncio.sleep(0.05)
        events.append(f"{word} ends")
        return Network(id=word, name=word, status=Status.ACTIVE, cidr="10.0.0.0/8")

    first = asyncio.ensure_future(module._once("key", lambda: create("first")))
    await begun.wait()
    first.cancel()
    second = await module._once("key", lambda: create("second"))
    assert second.id == "second"
    assert events == ["first begins", "first ends", "second begins", "second ends"]


async def test_errors_of_httpx_are_mapped(module):
    """Every error that httpx can raise for a request becomes a VendorError."""
    request = httpx.Request("GET", "http://example.org")
    for kind in (httpx.ReadTimeout, httpx.ConnectError, httpx.DecodingError, httpx.TooManyRedirects, httpx.ProxyError):
        assert isinstance(module._translate(kind("words", request=request)), VendorError)
    for error in (httpx.InvalidURL("words"), httpx.CookieConflict("words"), httpx.StreamClosed()):
        assert isinstance(module._translate(error), VendorError)
