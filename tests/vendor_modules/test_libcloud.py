"""libcloud's base: errors, time-outs, threads and keys; with libcloud's own dummy driver, and a real HTTP server."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import Any, ClassVar
from xml.etree.ElementTree import ParseError

import libcloud.common
import libcloud.compute.types
import libcloud.loadbalancer.types
import libcloud.storage.types
import pytest
import requests
import requests.exceptions
import urllib3.exceptions
from libcloud import security
from libcloud.common.base import ConnectionUserAndKey, JsonResponse
from libcloud.common.exceptions import BaseHTTPError, RateLimitReachedError
from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError, ProviderError
from libcloud.compute.base import Node, NodeDriver, NodeImage, NodeSize
from libcloud.compute.drivers.dummy import DummyNodeDriver
from libcloud.compute.types import KeyPairDoesNotExistError, NodeState, Provider
from pydantic import SecretStr

from tests.labs.testbed import services
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
    by_status,
)
from vendor_modules.labels import KEY, NAME
from vendor_modules.libcloud import LibcloudModule, LibcloudPower, LibcloudSettings
from vendor_modules.libcloud.errors import translate
from vendor_modules.module import Proof
from vendor_modules.resources import MachineSpec, Status
from vendor_modules.services.credentials import PasswordCredentials

SECRET = "the-secret-of-the-account"
ACCOUNT = PasswordCredentials(username="owner", password=SecretStr(SECRET))


# --- errors ---


def _classes() -> list[type[Exception]]:
    """Every exception class of libcloud's common modules, of its types, of requests and of urllib3."""
    modules: list[Any] = [libcloud.compute.types, libcloud.storage.types, libcloud.loadbalancer.types]
    common = [found.name for found in pkgutil.iter_modules(libcloud.common.__path__)]
    modules += [importlib.import_module(f"libcloud.common.{name}") for name in common]
    modules += [requests.exceptions, urllib3.exceptions]
    seen = {
        known
        for module in modules
        for known in vars(module).values()
        if inspect.isclass(known)
        and issubclass(known, Exception)
        and not issubclass(known, Warning)
        and known.__module__.startswith(("libcloud", "requests", "urllib3"))
    }
    return sorted(seen, key=lambda known: (known.__module__, known.__qualname__))


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_error_is_mapped(kind: type[Exception]) -> None:
    """Whatever exception libcloud's common modules, requests or urllib3 define becomes a VendorError with words."""
    error = kind.__new__(kind)
    Exception.__init__(error, "words")
    defaults: dict[str, Any] = {"http_code": 400, "code": 400, "value": "words", "headers": None, "driver": None}
    for name, value in defaults.items():
        if not hasattr(error, name):
            setattr(error, name, value)
    mapped = translate(error)
    assert isinstance(mapped, VendorError)
    assert mapped.detail.strip()


STATUSES = {
    301: ProtocolError,
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    408: TimedOut,
    409: Conflict,
    410: NotFound,
    413: QuotaExceeded,
    418: InvalidRequest,
    429: Throttled,
    500: Unavailable,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
    507: QuotaExceeded,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_errors_are_told_by_their_status(status: int, kind: type[VendorError]) -> None:
    """An HTTP status means the same, whichever of libcloud's trees it comes in."""
    assert type(translate(BaseHTTPError(status, "words"))) is kind
    assert type(translate(ProviderError("words", http_code=status))) is kind


ERRORS: list[tuple[Exception, type[VendorError]]] = [
    (InvalidCredsError(), Unauthorized),
    (MalformedResponseError("no JSON", body="<html>"), ProtocolError),
    (LibcloudError("not so"), InvalidRequest),
    (Exception("a bare one"), InvalidRequest),
    (KeyPairDoesNotExistError("k", None), NotFound),
    (libcloud.storage.types.ContainerIsNotEmptyError("c", None, "c"), Conflict),
    (NotImplementedError("start_node"), Unsupported),
    (requests.ConnectTimeout(), TimedOut),
    (requests.ReadTimeout(), TimedOut),
    (requests.ConnectionError(urllib3.exceptions.ReadTimeoutError(None, None, "read")), TimedOut),
    (requests.exceptions.SSLError("certificate"), Unavailable),
    (requests.exceptions.ProxyError("refused"), Unavailable),
    (requests.exceptions.InvalidURL("http://"), InvalidRequest),
    (requests.TooManyRedirects(), ProtocolError),
    (requests.exceptions.ChunkedEncodingError(), Unavailable),
    (requests.exceptions.ContentDecodingError(), ProtocolError),
    (ssl.SSLCertVerificationError("self-signed"), Unavailable),
    (socket.gaierror(-2, "Name or service not known"), Unavailable),
    (ConnectionRefusedError(), Unavailable),
    (TimeoutError(), TimedOut),
    (ParseError("no XML"), ProtocolError),
    (JSONDecodeError("no JSON", "", 0), ProtocolError),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=[kind.__name__ + str(n) for n, (_, kind) in enumerate(ERRORS)])
def test_errors_mean_what_they_mean(error: Exception, kind: type[VendorError]) -> None:
    """Errors that matter are mapped to the right one."""
    assert type(translate(error)) is kind


def test_faults_of_our_own_are_not_hidden() -> None:
    """An error that libcloud has no part in is none of a provider's."""
    assert translate(KeyError("ours")) is None


def test_answers_that_libcloud_stumbles_over_make_no_sense() -> None:
    """An AttributeError and the like from within libcloud is the provider's answer lacking something."""
    with pytest.raises(AttributeError) as raised:
        NodeState.fromstring(None)
    assert isinstance(translate(raised.value), ProtocolError)


def test_throttling_says_when_to_come_back() -> None:
    """A rate limit's seconds are kept; nonsense there is a second."""
    limited = translate(RateLimitReachedError(headers={"retry-after": "7"}))
    assert isinstance(limited, Throttled)
    assert limited.retry_after == 7
    for nonsense in ("soon", "-1", "nan", "inf"):
        again = by_status(503, "busy", {"retry-after": nonsense})
        assert isinstance(again, Throttled)
        assert again.retry_after == 1


def test_words_are_short_and_hold_no_url() -> None:
    """A page of HTML is cut, and a URL, which may hold a key, is left out."""
    page = translate(BaseHTTPError(502, "<html>" + "<p>bad gateway</p>" * 1000))
    assert page
    assert len(page.detail) < 600
    lost = translate(requests.ConnectionError(f"Max retries exceeded with url: /?key={SECRET} (Caused by x)"))
    assert lost
    assert SECRET not in lost.detail


# --- keys, with libcloud's dummy driver ---


class Dummy(LibcloudPower):
    """libcloud's dummy cloud: machines have nothing but names that the driver chooses, so the node is told its name."""

    title = "Dummy"
    proof = Proof.RECORDED
    provider = Provider.DUMMY
    cloud: ClassVar[DummyNodeDriver]

    def _connect(self, credentials: Any) -> Any:
        return self.cloud

    def _create_node(self, driver: Any, spec: MachineSpec, key: str) -> Any:
        arguments = self._node_arguments(driver, spec, key)
        node = driver.create_node(**arguments)
        node.name = arguments["name"]
        return node


@pytest.fixture
async def dummy() -> AsyncIterator[Dummy]:
    Dummy.cloud = DummyNodeDriver("")
    async with Dummy("dummy", LibcloudSettings(region="r", jurisdiction="EU"), services(ACCOUNT)) as module:
        yield module


SPEC = MachineSpec(name="Größe 1!", image="1", size="1")


async def test_key_is_in_the_name(dummy: Dummy) -> None:
    """Where there are no tags, a machine is found again by the digest in its name, and made once."""
    made = [await dummy.create_machine(SPEC, key=key) for key in ("one", "one", "two")]
    assert [machine.key for machine in made] == ["one", "one", "two"]
    assert made[0].id == made[1].id != made[2].id
    listed = {machine.id: machine.key for machine in await dummy.list_machines()}
    assert listed == {"1": "", "2": "", made[0].id: "one", made[2].id: "two"}


async def test_what_was_made_twice_is_made_once(dummy: Dummy) -> None:
    """When a request was delivered twice, the next call with its key finds two machines and removes one."""
    made = await dummy.create_machine(SPEC, key="one")
    again = dummy.cloud.create_node("again", None, None)
    again.name = next(node.name for node in dummy.cloud.nl if str(node.id) == made.id)
    assert (await dummy.create_machine(SPEC, key="one")).id == made.id
    assert [machine.id for machine in await dummy.list_machines() if machine.key == "one"] == [made.id]


async def test_terminated_machines_are_gone(dummy: Dummy) -> None:
    """A node that is listed as terminated is no machine: not listed, not found, and destroying it is no error."""
    dummy.cloud.nl[0].state = NodeState.TERMINATED
    assert [machine.id for machine in await dummy.list_machines()] == ["2"]
    with pytest.raises(NotFound):
        await dummy.describe_machine("1")
    dummy.cloud.nl.pop(0)
    await dummy.destroy_machine("1")


async def test_what_a_driver_cannot_do_is_unsupported(dummy: Dummy) -> None:
    """A base call that the driver leaves out raises Unsupported, and not NotImplementedError."""
    with pytest.raises(Unsupported):
        await dummy.stop_machine("1")


async def test_sizes_without_a_price_are_unknown(dummy: Dummy) -> None:
    """A price of 0.0 is unknown, never free."""
    dummy.cloud.list_sizes = lambda: [NodeSize(1, "s", 512, 1, None, price, dummy.cloud) for price in (0.0,)]
    assert [size.price_per_hour for size in (await dummy.catalogue()).sizes] == [None]


# --- time, threads and logins, with a real server ---


class SlowConnection(ConnectionUserAndKey):
    """A connection that logs in by its password."""

    responseCls = JsonResponse  # noqa: N815 - libcloud's name

    def add_default_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """The password is sent as it is."""
        return {**headers, "x-password": self.key}


class SlowDriver(NodeDriver):
    """A driver for the server below."""

    connectionCls = SlowConnection  # noqa: N815 - libcloud's name
    name = "slow"

    def list_nodes(self) -> list[Node]:
        """All machines."""
        return [self._node(found) for found in self.connection.request("/machines").object]

    def list_images(self, location: Any = None) -> list[NodeImage]:
        """The one that is asked for."""
        return [NodeImage("1", "one", self)]

    def list_sizes(self, location: Any = None) -> list[NodeSize]:
        """The one that is asked for."""
        return [NodeSize("1", "one", 512, 1, None, 0.0, self)]

    def create_node(self, name: str, **more: Any) -> Node:
        """Make one."""
        metadata = more["ex_metadata"]
        return self._node(self.connection.request(f"/create/{metadata[KEY]}", method="POST").object)

    def _node(self, found: dict[str, Any]) -> Node:
        tags = {KEY: found["key"], NAME: found["key"]}
        return Node(found["id"], found["key"], NodeState.RUNNING, [], [], self, extra={"metadata": tags})


class Slow(LibcloudModule):
    """A module for the server below."""

    title = "Slow"
    proof = Proof.RECORDED
    provider = "slow"
    call_timeout = 0.5
    port: ClassVar[int]

    def _connect(self, credentials: Any) -> Any:
        password = credentials.password.get_secret_value()
        return SlowDriver("owner", password, secure=False, host="127.0.0.1", port=self.port)

    def _tags_for(self, kind: Any, key: str, name: str) -> dict[str, Any]:
        return {"ex_metadata": {KEY: key, NAME: name}}


class Server:
    """An HTTP server that answers as slowly, and as badly, as it is told."""

    def __init__(self) -> None:
        self.machines: list[str] = []
        self.answers: list[str] = []
        """What comes next: ``hang``, ``late`` (done, and answered too late), or the text of an answer."""
        self.released = asyncio.Event()
        self.made = asyncio.Event()
        self.asked = 0
        self.password = SECRET

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client goes."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(await self._answer(head.decode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str) -> bytes:
        self.asked += 1
        if f"x-password: {self.password}" not in head:
            return _http("401 Unauthorized", f'{{"error": "wrong password, and not {SECRET}"}}')
        path = head.split()[1]
        answer = self.answers.pop(0) if self.answers else ""
        if answer == "hang":
            await self.released.wait()
        elif answer.startswith("HTTP"):
            return _http(answer.removeprefix("HTTP "), "{}")
        elif answer.startswith("{"):
            return _http("200 OK", answer)
        if path.startswith("/create/"):
            self.machines.append(path.removeprefix("/create/"))
            self.made.set()
            if answer == "late":
                await self.released.wait()
            return _http("200 OK", _machine(self.machines[-1], len(self.machines)))
        listed = [_machine(key, number) for number, key in enumerate(self.machines, 1)]
        return _http("200 OK", f"[{', '.join(listed)}]")


def _machine(key: str, number: int) -> str:
    return f'{{"id": "{number}", "key": "{key}"}}'


def _http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[Server, Slow]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    Slow.port = listening.sockets[0].getsockname()[1]
    try:
        async with Slow("slow", LibcloudSettings(region="r", jurisdiction="EU"), services(ACCOUNT)) as module:
            yield server, module
            server.released.set()
    finally:
        listening.close()


def _threads() -> int:
    return sum(thread.name.startswith("vendor-call") for thread in threading.enumerate())


async def test_hung_provider_times_out_and_leaves_the_loop_free() -> None:
    """A provider that never answers makes TimedOut of every call, with few threads, which are free again in the
    end. The provider here lives on the same event loop: that it is asked shows that the loop is free."""
    async with _serving() as (server, module):
        server.answers = ["hang"] * 1000
        answers = await asyncio.gather(*(module.list_machines() for _ in range(20)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {TimedOut}
        assert server.asked >= 8
        assert _threads() <= 8
        server.answers.clear()
        server.released.set()
        assert await module.list_machines() == []


async def test_creation_that_timed_out_is_made_once() -> None:
    """A creation whose answer comes too late is found by its key, by the same call or a later one: one machine."""
    async with _serving() as (server, module):
        await module.list_machines()
        server.answers = ["", "late"]
        made = asyncio.ensure_future(module.create_machine(SPEC, key="one"))
        await server.made.wait()
        await asyncio.sleep(module.call_timeout)
        server.released.set()
        assert (await made).key == "one"
        assert (await module.create_machine(SPEC, key="one")).id == (await made).id
        assert server.machines == ["one"]


async def test_creation_that_was_cancelled_is_made_once() -> None:
    """A creation that its caller gives up goes on in its thread; the next with its key waits for it, and finds it."""
    async with _serving() as (server, module):
        server.answers = ["", "late"]
        given_up = asyncio.ensure_future(module.create_machine(SPEC, key="one"))
        await server.made.wait()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        again = asyncio.ensure_future(module.create_machine(SPEC, key="one"))
        await asyncio.sleep(0.05)
        server.released.set()
        assert (await again).status is Status.ACTIVE
        assert server.machines == ["one"]


BAD: list[tuple[str, type[VendorError]]] = [
    ('{"no": "list"}', ProtocolError),
    ("{broken", ProtocolError),
    ("HTTP 403 Forbidden", Forbidden),
    ("HTTP 429 Too Many Requests", Throttled),
    ("HTTP 503 Service Unavailable", Unavailable),
]


@pytest.mark.parametrize(("answer", "kind"), BAD)
async def test_bad_answers_are_vendor_errors(answer: str, kind: type[VendorError]) -> None:
    """What a server answers badly comes out as the right error, with vendor and operation."""
    async with _serving() as (server, module):
        server.answers = [answer] * module.attempts
        with pytest.raises(kind) as raised:
            await module.list_machines()
        assert (raised.value.vendor, raised.value.operation) == ("slow", "list machines")


async def test_nobody_there_is_unavailable() -> None:
    """A provider that cannot be reached is Unavailable."""
    async with _serving() as (_, module):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            Slow.port = unused.getsockname()[1]
            with pytest.raises(Unavailable):
                await module.list_machines()


async def test_secrets_are_not_told() -> None:
    """A secret that the provider repeats in its words is masked, and what the error came from is not kept."""
    async with _serving() as (server, module):
        server.password = "another"
        with pytest.raises(Unauthorized) as raised:
            await module.list_machines()
        assert SECRET not in str(raised.value)
        assert "**********" in raised.value.detail
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


async def test_login_that_has_ended_is_made_anew() -> None:
    """When a login that worked does not any more, the credentials are asked for again, and the call is made with
    them."""
    async with _serving() as (server, module):
        assert await module.list_machines() == []
        server.password = "changed"
        store: Any = module.services.credentials
        store.credentials = PasswordCredentials(username="owner", password=SecretStr("changed"))
        assert await module.list_machines() == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_environment_proxies_are_not_used(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are not looked at."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with _serving() as (_, module):
        assert await module.list_machines() == []


async def test_certificates_are_verified() -> None:
    """Certificates are verified: libcloud's switch is on, and there are authorities to verify with."""
    assert security.VERIFY_SSL_CERT is True
    assert security.CA_CERTS_PATH
