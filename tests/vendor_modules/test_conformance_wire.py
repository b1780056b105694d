"""The suite's faults on the wire: a small module that speaks HTTP stands them all, and broken ones are caught."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar, cast

import httpx
import pytest
from pydantic import SecretStr

from tests.vendor_modules.toy import ToyCloud
from vendor_modules import conformance
from vendor_modules.capabilities import KeyPairs
from vendor_modules.conformance.registry import Check
from vendor_modules.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    ResourceFailed,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    VendorError,
)
from vendor_modules.module import HttpSettings, ModuleSettings, Proof
from vendor_modules.resources import Catalogue, KeyPair, Machine, MachineSpec, Resource, Size, Status
from vendor_modules.services import Services
from vendor_modules.services.credentials import PasswordCredentials

R = TypeVar("R", bound=Resource)
PASSWORD = "through the wire"


class Server:
    """A cloud of machines and key pairs that knows no idempotency: what is ordered twice is made twice."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, dict[str, Any]]] = {"machines": {}, "keys": {}}
        self._numbers = count()

    async def __call__(self, method: str, path: str, body: bytes, token: str) -> tuple[int, bytes]:
        """See :data:`tests.vendor_modules.toy.Handler`."""
        status, answer = self._answer(method, path, json.loads(body) if body else {}, token)
        return status, json.dumps(answer).encode()

    def _answer(self, method: str, path: str, order: dict[str, Any], token: str) -> tuple[int, Any]:
        if path == "session":
            return (201, {"token": "good"}) if order.get("password") == PASSWORD else (401, {})
        kind, _, id_ = path.partition("/")
        if token != "good":
            return 401, {}
        held = self.held.get(kind, {})
        if method == "POST":
            pair = order.pop("key_pair", None)
            sold = (order.get("image", "base"), order.get("size", "one")) == ("base", "one")
            if not (sold and "nonsense" not in order.get("public_key", "") and (not pair or pair in self.held["keys"])):
                return 400, {}
            number = f"{kind}-{next(self._numbers):05}"
            held[number] = {"id": number, **order}
            return 201, held[number]
        if not id_:
            return 200, {"items": list(held.values())}
        if id_ not in held:
            return 404, {}
        if method == "PUT":
            held[id_] |= order
        return (200, {"gone": held.pop(id_)}) if method == "DELETE" else (200, held[id_])


class WiredSettings(HttpSettings):
    """Where the server is."""

    url: str
    """Its base URL."""


class Wired(KeyPairs):
    """The module for it: what the server does not do for idempotency, it does itself."""

    title = "Wired"
    proof = Proof.EMULATOR
    proven_by = "A server in this file."
    Settings = WiredSettings
    credential_kinds = ("password",)
    visible_within = 0.5
    settle_timeout = 5.0

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        super().__init__(vendor, settings, services)
        self.http = self._client(cast(WiredSettings, settings))
        self.token = ""
        self.locks: dict[str, asyncio.Lock] = {}

    def _client(self, settings: WiredSettings) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=settings.url, proxy=settings.proxy, trust_env=False, verify=False)  # noqa: S501

    async def _close(self) -> None:
        await self.http.aclose()

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut("no answer in time")
        return Unavailable(repr(error)) if isinstance(error, httpx.HTTPError) else super()._translate(error)

    async def _log_in(self) -> None:
        credentials = await self._credentials()
        if not isinstance(credentials, PasswordCredentials):
            raise Unauthorized("a user name and password are needed")
        login = {"user": credentials.username, "password": credentials.password.get_secret_value()}
        self.token = str(self._understood(await self.http.post("/session", json=login))["token"])

    async def _ask(self, method: str, path: str, order: dict[str, Any] | None = None) -> dict[str, Any]:
        if not self.token:
            await self._log_in()
        answer = await self._sent(method, path, order)
        if answer.status_code == 401:
            await self._log_in()
            answer = await self._sent(method, path, order)
        return self._understood(answer)

    async def _sent(self, method: str, path: str, order: dict[str, Any] | None) -> httpx.Response:
        return await self.http.request(method, path, json=order, headers={"authorization": self.token})

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        status, wait = answer.status_code, answer.headers.get("retry-after")
        if status == 429 or (status == 503 and wait):
            raise Throttled("later", retry_after=float(wait or 1))
        if status >= 500:
            raise Unavailable(f"status {status}")
        if status >= 400:
            raise {401: Unauthorized, 403: Forbidden, 404: NotFound}.get(status, InvalidRequest)(f"status {status}")
        try:
            return cast(dict[str, Any], answer.json()) if answer.content else {}
        except ValueError:
            raise ProtocolError("that is no JSON") from None

    async def _all(self, path: str, kind: type[R]) -> list[R]:
        try:
            return [kind.model_validate(item) for item in (await self._ask("GET", path))["items"]]
        except (KeyError, TypeError):
            raise ProtocolError("there is no list in the answer") from None

    async def _one(self, path: str, kind: type[R]) -> R:
        return kind.model_validate(await self._ask("GET", path))

    async def _made(self, path: str, kind: type[R], key: str, order: dict[str, Any]) -> R:
        async with self.locks.setdefault(path + key, asyncio.Lock()):
            found = await self._with_key(path, kind, key)
            if not found:
                made = await self._ask("POST", path, {"key": key, "status": "active", **order})
                found = await self._with_key(path, kind, key) or [kind.model_validate(made)]
            await self._remove(path, found[1:])
            return found[0]

    async def _with_key(self, path: str, kind: type[R], key: str) -> list[R]:
        return sorted((one for one in await self._all(path, kind) if one.key == key), key=lambda one: one.id)

    async def _remove(self, path: str, surplus: list[R]) -> None:
        for one in surplus:
            await self._ask("DELETE", f"{path}/{one.id}")

    async def _catalogue(self) -> Catalogue:
        size = Size(name="one", cores=1, memory_mib=64, price_per_hour=Decimal("0.01"))
        return Catalogue(region="wire", jurisdiction="EU", currency="EUR", sizes=(size,))

    async def _create_machine(self, spec: MachineSpec, key: str) -> Machine:
        return await self._made(
            "/machines", Machine, key, spec.model_dump(include={"name", "size", "image", "key_pair"})
        )

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._one(f"/machines/{machine_id}", Machine)

    async def _list_machines(self) -> list[Machine]:
        return await self._all("/machines", Machine)

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._ask("DELETE", f"/machines/{machine_id}")

    async def _create_key_pair(self, name: str, public_key: str, key: str) -> KeyPair:
        return await self._made(
            "/keys", KeyPair, key, {"name": name, "public_key": public_key, "fingerprint": "it has one"}
        )

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        return await self._one(f"/keys/{key_pair_id}", KeyPair)

    async def _list_key_pairs(self) -> list[KeyPair]:
        return await self._all("/keys", KeyPair)

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._ask("DELETE", f"/keys/{key_pair_id}")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where a new server is."""
    cloud = ToyCloud()
    port = await cloud.listen("wired", Server())
    yield f"http://127.0.0.1:{port}"
    await cloud.close()


def _subject(url: str, module: type[Wired] = Wired, **values: Any) -> conformance.Subject:
    login = PasswordCredentials(username="wired", password=SecretStr(PASSWORD))
    return conformance.Subject(module, WiredSettings(url=url), login, **{"patience": 0.5, **values})


CHECKS: dict[str, Check] = {check.name: check for check in conformance.checks_for(Wired) if check.wire}


@pytest.mark.parametrize("name", CHECKS)
async def test_sound_module_passes(url: str, name: str) -> None:
    """A module that does all that is asked passes every check of faults on the wire, and none is skipped."""
    result = await conformance.run_check(CHECKS[name], _subject(url))
    assert (result.outcome, result.reason) == ("passed", "")


async def test_recording_has_no_wire(url: str) -> None:
    """Where no requests leave, because the provider is a recording, these checks are skipped, and say so."""
    result = await conformance.run_check(CHECKS["outage-is-unavailable"], _subject(url, wire=False))
    assert (result.outcome, result.reason) == ("skipped", "the provider is a recording: no requests leave")


# --- broken modules ---

BROKEN: list[tuple[str, str, type[Wired]]] = []


def caught_by(name: str, words: str) -> Any:
    """Note a broken module, the check that must fail on it, and words of the reason."""

    def note(module: type[Wired]) -> type[Wired]:
        BROKEN.append((name, words, module))
        return module

    return note


@caught_by("machine-is-made-once-when-the-answer-is-lost", "besides machines-")
@caught_by("key-pair-is-made-once-when-the-answer-is-lost", "besides keys-")
class NeverLooksForTheKey(Wired):
    """Creates whenever it is asked to."""

    async def _made(self, path: str, kind: type[R], key: str, order: dict[str, Any]) -> R:
        return kind.model_validate(await self._ask("POST", path, {"key": key, "status": "active", **order}))


@caught_by("machine-is-made-once-when-the-request-is-repeated", "besides machines-")
@caught_by("key-pair-is-made-once-when-the-request-is-repeated", "besides keys-")
class LeavesTheSurplus(Wired):
    """Looks for the key before it creates, and never after."""

    async def _remove(self, path: str, surplus: list[R]) -> None:
        """Nothing."""


@caught_by("machine-is-found-when-its-creation-failed", "was left, and the key does not find it")
@caught_by("key-pair-is-found-when-its-creation-failed", "was left, and the key does not find it")
class LabelsLater(Wired):
    """Makes it first, and notes its key there in a second request."""

    async def _made(self, path: str, kind: type[R], key: str, order: dict[str, Any]) -> R:
        if found := await self._with_key(path, kind, key):
            return found[0]
        made = await self._ask("POST", path, {"status": "active", **order})
        return kind.model_validate(await self._ask("PUT", f"{path}/{made['id']}", {"key": key}))


@caught_by("key-pair-is-made-once-although-lists-lag", "instead of 2 there are 3 more")
class LooksTooSoon(Wired):
    """Knows that lists lag, and repeats at once."""

    async def _made(self, path: str, kind: type[R], key: str, order: dict[str, Any]) -> R:
        try:
            return await super()._made(path, kind, key, order)
        except httpx.HTTPError:
            return await super()._made(path, kind, key, order)


@caught_by("machine-is-waited-for-although-it-is-not-found-yet", "it is there, and creating it ended with NotFound")
class GivesUpAtTheFirstLook(Wired):
    """Takes what it has just made for gone when it is not found at once."""

    async def wait_for_machine(self, machine_id: str, status: Status) -> Machine:
        return await self.describe_machine(machine_id)


@caught_by("key-pair-is-not-called-destroyed-when-it-is-there", "said that all is well")
class TrustsTheAnswer(Wired):
    """Takes a success for a deletion."""

    async def destroy_key_pair(self, key_pair_id: str) -> None:
        await self._destroy_key_pair(key_pair_id)


@caught_by("machine-is-not-called-destroyed-when-it-is-there", "said that all is well")
class TakesAnyErrorForGone(Wired):
    """Calls it gone whatever goes wrong."""

    async def destroy_machine(self, machine_id: str) -> None:
        with suppress(VendorError):
            await super().destroy_machine(machine_id)


@caught_by("key-pair-is-made-although-the-provider-stumbles", "which says that no retry helps")
class DespairsAtOnce(Wired):
    """Takes an outage for a failure for good."""

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code >= 500:
            raise ResourceFailed("it failed")
        return super()._understood(answer)


class _StaysOut(Wired):
    """Does not log in again."""

    async def _ask(self, method: str, path: str, order: dict[str, Any] | None = None) -> dict[str, Any]:
        if not self.token:
            await self._log_in()
        return self._understood(await self._sent(method, path, order))


@caught_by("key-pair-is-made-although-the-session-has-ended", "did not do so again")
@caught_by("expired-session-is-renewed", "did not do so again")
@caught_by("many-calls-renew-an-expired-session", "Unauthorized")
class StaysOut(_StaysOut):
    """Does not log in again."""


@caught_by("revoked-credentials-are-unauthorized", "requests were made")
class NeverGivesUp(Wired):
    """Logs in again and again."""

    async def _ask(self, method: str, path: str, order: dict[str, Any] | None = None) -> dict[str, Any]:
        for _ in range(100):
            try:
                return await super()._ask(method, path, order)
            except Unauthorized:
                self.token = ""
        raise Unauthorized("after a hundred attempts")


@caught_by("revoked-credentials-are-unauthorized", "was accepted")
class ShowsAnEmptyAccount(Wired):
    """Lists nothing when it may not list."""

    async def _list_machines(self) -> list[Machine]:
        try:
            return await super()._list_machines()
        except Unauthorized:
            return []


@caught_by("proxy-of-the-settings-is-used", "do not go through the proxy")
class GoesStraight(Wired):
    """Ignores the proxy of its settings."""

    def _client(self, settings: WiredSettings) -> httpx.AsyncClient:
        return super()._client(settings.model_copy(update={"proxy": None}))


@caught_by("proxies-of-the-environment-are-not-used", "with a proxy in the environment")
class ObeysTheEnvironment(Wired):
    """Goes through whatever proxy the environment names."""

    def _client(self, settings: WiredSettings) -> httpx.AsyncClient:
        return super()._client(settings.model_copy(update={"proxy": settings.proxy or os.environ.get("http_proxy")}))


@caught_by("question-is-repeated-when-the-connection-breaks", "Unavailable")
@caught_by("question-is-repeated-when-the-answer-is-lost", "Unavailable")
@caught_by("question-is-repeated-when-the-provider-stumbles", "Unavailable")
class AsksOnce(Wired):
    """Never asks again."""

    attempts = 1


@caught_by("question-is-repeated-when-the-answer-breaks-off", "the machine is not in the list")
class TakesTheHalf(Wired):
    """Takes what has come for all."""

    async def _list_machines(self) -> list[Machine]:
        try:
            return await super()._list_machines()
        except httpx.RemoteProtocolError:
            return []


@caught_by("throttled-question-is-repeated", "InvalidRequest")
@caught_by("long-pause-is-left-to-the-caller", "raised InvalidRequest")
class DoesNotWait(Wired):
    """Takes a request for a pause for a refusal."""

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code == 429:
            raise InvalidRequest("refused")
        return super()._understood(answer)


@caught_by("question-is-repeated-when-the-provider-is-busy", "Forbidden")
@caught_by("outage-is-unavailable", "raised Forbidden")
class TakesBusyForForbidden(Wired):
    """Does not know what 503 means."""

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code == 503:
            raise Forbidden("not for you")
        return super()._understood(answer)


@caught_by("broken-line-is-unavailable", "raised ProtocolError")
@caught_by("unreachable-provider-is-unavailable", "raised ProtocolError")
class BlamesTheProvider(Wired):
    """Takes every fault of the line for nonsense of the provider's."""

    def _translate(self, error: Exception) -> VendorError | None:
        return ProtocolError(repr(error)) if isinstance(error, httpx.HTTPError) else super()._translate(error)


@caught_by("junk-is-a-protocol-error", "JSONDecodeError, which is no VendorError")
@caught_by("junk-instead-of-a-session-is-a-protocol-error", "JSONDecodeError, which is no VendorError")
class ExpectsSense(Wired):
    """Lets its JSON library's errors through."""

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        return cast(dict[str, Any], answer.json()) if answer.is_success else super()._understood(answer)


@caught_by("answer-without-a-list-is-not-an-empty-list", "was accepted")
class TakesNothingForNone(Wired):
    """An answer without a list is an empty list."""

    async def _all(self, path: str, kind: type[R]) -> list[R]:
        return [kind.model_validate(item) for item in (await self._ask("GET", path)).get("items", [])]


@caught_by("slow-answer-is-timed-out", "raised ProtocolError")
class TakesSlowForBroken(Wired):
    """Calls a late answer nonsense."""

    def _translate(self, error: Exception) -> VendorError | None:
        return ProtocolError("too late") if isinstance(error, TimeoutError) else super()._translate(error)


@caught_by("faults-do-not-show-secrets", "a secret is in a")
class ShowsWhatItSent(Wired):
    """Puts into the error what it logged in with."""

    def _understood(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code == 500:
            raise Unavailable(f"the server failed at {answer.request.content.decode()}")
        return super()._understood(answer)


@pytest.mark.parametrize(("name", "words", "module"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
async def test_broken_module_is_caught(url: str, name: str, words: str, module: type[Wired]) -> None:
    """The check that is for it fails on the broken module, and says what is wrong; it shows no secret."""
    result = await conformance.run_check(CHECKS[name], _subject(url, module))
    assert result.outcome == "failed"
    assert words in result.reason
    assert PASSWORD not in result.reason
