"""Whatever goes wrong between the module and the cloud becomes one of our errors, and tells no secret."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.labs.testbed import PASSWORD, OneAccount, module_for, services
from tests.vendor_modules.testbed.helpers import image
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.services.credentials import AccessKeyCredentials, ExternalCredentials
from vendor_modules.testbed.module import TestbedModule

Handler = Callable[[httpx.Request], httpx.Response]


def answering(handler: Handler, *, login: bool = True) -> TestbedModule:
    """A module whose cloud is the function; logging in always works unless the function is to see that, too."""

    def answer(request: httpx.Request) -> httpx.Response:
        if login and request.url.path == "/v1/tokens":
            return httpx.Response(201, json={"token": "t0ken", "expires_at": "2030-01-01T00:00:00Z"})
        return handler(request)

    module = module_for("http://cloud.invalid")
    module.attempts = 1  # type: ignore[misc]
    module._http._transport = httpx.MockTransport(answer)
    return module


def _exceptions() -> list[type[Exception]]:
    found = [value for _, value in inspect.getmembers(httpx, inspect.isclass) if issubclass(value, Exception)]
    return sorted(found, key=lambda kind: kind.__name__)


def _made(kind: type[Exception]) -> Exception:
    if issubclass(kind, httpx.HTTPStatusError):
        request = httpx.Request("GET", "http://x")
        return kind("words", request=request, response=httpx.Response(500, request=request))
    parameters = inspect.signature(kind.__init__).parameters
    return kind("words") if "message" in parameters else kind()


@pytest.mark.parametrize("kind", _exceptions(), ids=lambda kind: kind.__name__)
async def test_every_httpx_exception_is_mapped(kind: type[Exception]) -> None:
    """Nothing that httpx raises leaves the module as it is, and only what can pass is called retryable."""

    def broken(_: httpx.Request) -> httpx.Response:
        raise _made(kind)

    async with answering(broken) as module:
        with pytest.raises(VendorError) as caught:
            await module.list_machines()
    assert caught.value.operation == "list machines"
    permanent = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.DecodingError, httpx.TooManyRedirects)
    assert caught.value.retryable is not issubclass(kind, permanent)
    assert isinstance(caught.value, TimedOut) is issubclass(kind, httpx.TimeoutException)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthorized", Unauthorized),
        (403, "forbidden", Forbidden),
        (403, "quota-exceeded", QuotaExceeded),
        (404, "not-found", NotFound),
        (405, "method-not-allowed", Unsupported),
        (409, "conflict", Conflict),
        (411, "length-required", InvalidRequest),
        (413, "too-large", InvalidRequest),
        (416, "range-not-satisfiable", InvalidRequest),
        (422, "invalid", InvalidRequest),
        (422, "wrong-content", InvalidRequest),
        (500, "internal", Unavailable),
        (501, "no-such-service", Unsupported),
        (502, "from-a-proxy", Unavailable),
        (507, "insufficient-storage", QuotaExceeded),
    ],
)
async def test_every_answer_is_mapped(status: int, code: str, expected: type[VendorError]) -> None:
    """Every error that the API knows becomes the error of our tree that says the same, with the API's words."""
    error = httpx.Response(status, json={"error": {"code": code, "message": "the words"}})
    async with answering(lambda _: error) as module:
        with pytest.raises(expected, match="the words") as caught:
            await module.describe_machine("m")
    assert type(caught.value) is expected


@pytest.mark.parametrize("status", [429, 503])
async def test_throttling_says_when_to_come_back(status: int) -> None:
    """Retry-After is passed on."""
    async with answering(lambda _: httpx.Response(status, headers={"retry-after": "7"})) as module:
        with pytest.raises(Throttled) as caught:
            await module.describe_machine("m")
    assert caught.value.retry_after == 7


async def test_throttled_calls_wait_as_long_as_asked_and_repeat() -> None:
    """A call that was throttled is made again, not before the time that the provider named."""
    answers = iter([httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(200, json={"items": []})])
    async with answering(lambda _: next(answers)) as module:
        module.attempts = 2  # type: ignore[misc]
        assert await module.list_machines() == []


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"id": "m"}),
        httpx.Response(302, headers={"location": "http://elsewhere.invalid/"}),
    ],
    ids=["no JSON", "no object", "incomplete", "redirect"],
)
async def test_senseless_answers_are_protocol_errors(answer: httpx.Response) -> None:
    """What is no answer of this API is called that, and redirects are not followed."""
    async with answering(lambda _: answer) as module:
        with pytest.raises(ProtocolError):
            await module.describe_machine("m")


async def test_a_list_without_items_is_a_protocol_error() -> None:
    """A page that is none does not end as an empty inventory."""
    async with answering(lambda _: httpx.Response(200, json={})) as module:
        with pytest.raises(ProtocolError, match="items"):
            await module.list_volumes()


async def test_pages_are_followed() -> None:
    """A list is read to its end."""
    group = {"id": "g", "name": "g", "status": "active"}

    def page(request: httpx.Request) -> httpx.Response:
        marker = int(request.url.params["marker"])
        return httpx.Response(200, json={"items": [group], "next": marker + 1 if marker < 4 else None})

    async with answering(page) as module:
        assert len(await module.list_security_groups()) == 5


async def test_a_forgotten_token_is_renewed_once() -> None:
    """One 401 leads to a new login; a second one is the answer."""
    seen: list[str] = []

    def forgetful(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(401, json={"error": {"code": "unauthorized", "message": "who?"}})

    async with answering(forgetful) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()
    assert len(seen) == 2


async def test_no_secret_is_told() -> None:
    """Neither errors nor logs nor representations hold the password or a token, whatever fails."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("cannot connect", request=request)

    with capture_logs() as logs:
        async with answering(broken, login=False) as module:
            with pytest.raises(Unavailable) as caught:
                await module.list_machines()
            told = repr(module) + repr(module.settings) + repr(caught.value) + str(caught.value) + str(logs)
    assert logs
    assert PASSWORD not in told
    assert "t0ken" not in told


async def test_external_credentials_are_read_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An external password comes from its environment variable; without it, the error names the variable."""
    sent: list[bytes] = []

    def cloud(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(201, json={"token": "t", "expires_at": "2030-01-01T00:00:00Z", "items": []})

    external = ExternalCredentials(username="owner", variable="TESTBED_PASSWORD_HERE")
    async with answering(cloud, login=False) as module:
        module.services = services(external)
        with pytest.raises(Unauthorized, match="TESTBED_PASSWORD_HERE"):
            await module.list_machines()
        monkeypatch.setenv("TESTBED_PASSWORD_HERE", "")  # set and empty is a mistake, not a password
        with pytest.raises(Unauthorized, match="TESTBED_PASSWORD_HERE"):
            await module.list_machines()
        monkeypatch.setenv("TESTBED_PASSWORD_HERE", "from outside")
        assert await module.list_machines() == []
    assert b"from outside" in sent[0]


@pytest.mark.parametrize("credentials", [None, AccessKeyCredentials(access_key="a", secret_key=SecretStr("s"))])
async def test_credentials_of_no_use_are_unauthorized(credentials: Any) -> None:
    """Without credentials of its kinds, the module does not even try."""
    async with answering(lambda _: httpx.Response(500)) as module:
        assert isinstance(module.services.credentials, OneAccount)
        module.services.credentials.credentials = credentials
        with pytest.raises(Unauthorized, match="user name and password are needed"):
            await module.list_machines()


@pytest.mark.parametrize("sent", [b"other content!", b"shorter", b"longer than was declared"])
async def test_content_other_than_declared_is_not_sent_whole(sent: bytes) -> None:
    """The module finds out before the last bytes leave that the content is not what its specification says."""
    spec, _ = image(b"right content!")

    async def content() -> AsyncIterator[bytes]:
        yield sent

    def cloud(request: httpx.Request) -> httpx.Response:
        record = {"id": "i", "name": "i", "format": "raw", "status": "pending"}
        return httpx.Response(200, json=record)

    async with answering(cloud) as module:
        with pytest.raises(InvalidRequest, match="declared"):
            await module.upload_image(spec, content, key="k")
