"""The bench that a check works at: a module with services that watch it, and a broom for what the check leaves."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from blake3 import blake3

from descriptors.deployment import Kind
from vendor_modules.abilities import Ability
from vendor_modules.capabilities import (
    RELEASE_ORDER,
    Endpoints,
    FirstBoot,
    ImageUpload,
    Power,
    abilities,
    destroy,
    inventory,
    release,
)
from vendor_modules.conformance.subject import Subject
from vendor_modules.conformance.watching import FixedCredentials, RecordingLog, WatchingPersistence
from vendor_modules.errors import NotFound, Unsupported, VendorError
from vendor_modules.module import Content, ModuleSettings, VendorModule
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    ImageSpec,
    Machine,
    MachineSpec,
    Resource,
    Size,
    Status,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import Persistence
from vendor_modules.services.serialization import JsonSerialization
from vendor_modules.userdata import PORT

if TYPE_CHECKING:
    from vendor_modules.conformance.lender import Equipped, Lender, Specimen

C = TypeVar("C", bound=VendorModule)
E = TypeVar("E", bound=VendorError)

SERVICE_SECONDS = 20.0
"""How long a machine that is ACTIVE may take until its service answers, before the subject's patience."""
CLOSING_SECONDS = 5.0
"""How long a service that was cut off may go on to answer, before the subject's patience."""
NOTHING_RUNS = "the emulator's machines run nothing"


class CheckFailed(AssertionError):
    """The module does not do what the contract says; the message tells what it did."""


def expect(condition: object, otherwise: str) -> None:
    """Fail the check with these words unless the condition holds."""
    if not condition:
        raise CheckFailed(otherwise)


async def refused(call: Awaitable[object], *expected: type[VendorError], what: str) -> VendorError:
    """The error of a call that must be refused with one of these; ``what`` says what was asked. A provider that has no
    such service at all may say so: the check is skipped then."""
    try:
        await call
    except expected as error:
        return error
    except Unsupported:
        raise
    except VendorError as error:
        wanted = " or ".join(kind.__name__ for kind in expected)
        raise CheckFailed(f"{what}: raised {type(error).__name__} ({error}), expected {wanted}") from error
    raise CheckFailed(f"{what}: was accepted, expected {' or '.join(kind.__name__ for kind in expected)}")


class Bench:
    """What a check works with. ``module`` is the one examined; ``log`` and ``persistence`` are the services it has."""

    def __init__(
        self,
        subject: Subject,
        lender: Lender,
        *,
        prefix: str | None = None,
        persistence: WatchingPersistence | None = None,
        log: RecordingLog | None = None,
    ) -> None:
        self.subject = subject
        self.lender = lender
        self.log = log or RecordingLog()
        self.persistence = persistence or WatchingPersistence()
        self.prefix = prefix or f"conformance-{secrets.token_hex(4)}"
        self.secrets = subject.secrets()
        """What must not be seen in logs, errors and the like; a check adds the secrets that it is given."""
        self.borrowed: set[tuple[Kind, str]] = set()
        """What of the lender's the check has had in its hands."""
        self.module = subject.make(self._services(subject.credentials))
        self._lending = asyncio.Lock()

    def _services(self, credentials: Credentials | None, persistence: Persistence | None = None) -> Services:
        kept = persistence or self.persistence
        return Services(FixedCredentials(credentials), kept, self.log, JsonSerialization())

    @asynccontextmanager
    async def another(
        self,
        credentials: Credentials | None,
        *,
        persistence: Persistence | None = None,
        settings: ModuleSettings | None = None,
        **changes: Any,
    ) -> AsyncIterator[VendorModule]:
        """A second module for the same vendor, as after a restart or with other credentials or settings; ``changes``
        are made to its class variables."""
        kind = self.subject.module
        # nobody else is waiting, whom its retries could collide with
        kind = type(kind.__name__, (kind,), {"retry_jitter": 0.0} | changes)
        made = kind(self.subject.vendor, settings or self.subject.settings, self._services(credentials, persistence))
        async with made as module:
            yield module

    def the(self, capability: type[C]) -> C:
        """The module as one that has the capability."""
        if not isinstance(self.module, capability):
            raise Unsupported(f"has no {capability.__name__}")
        return self.module

    def has(self, *capabilities: type[VendorModule]) -> bool:
        """Whether the module has all these capabilities."""
        return all(isinstance(self.module, capability) for capability in capabilities)

    def answers(self) -> bool:
        """Whether the services of machines can be asked over HTTP."""
        return self.has(Endpoints) and self.subject.machines_run

    def need_running_machines(self) -> None:
        """Leave out the check where machines run nothing."""
        if not self.subject.machines_run:
            raise Unsupported(NOTHING_RUNS)

    def need_credentials(self) -> None:
        """Leave out the check where no credentials are needed, or none are looked at."""
        if not type(self.module).credential_kinds:
            raise Unsupported("needs no credentials")
        if not self.subject.credentials_checked:
            raise Unsupported("lets everybody in, as an emulator")

    def need_raw_uploads(self) -> None:
        """Leave out the check where RAW images cannot be uploaded."""
        if self.upload_format() is not DiskFormat.RAW:
            raise Unsupported("takes no RAW images")

    def ability(self, operation: str) -> Ability:
        """What the module declares of an operation."""
        return abilities(type(self.module))[operation]

    def key(self, word: str = "one") -> str:
        """An idempotency key of this check's own."""
        return f"{self.prefix}-{word}"

    def unknown(self, kind: Kind) -> str:
        """An id of that kind that never existed."""
        return self.subject.unknown(kind)

    def seconds(self, seconds: float) -> float:
        """A time limit, as patient as the subject asks for."""
        return seconds * self.subject.patience

    # --- borrowed things ---

    async def specimen(self, kind: Kind, slot: str = "first") -> Specimen:
        """A resource that is there for the whole run: to be looked at, and left as it is."""
        async with self._lending:
            self.borrowed.add((kind, slot))
            found = await self.lender.specimen(kind, slot)
        if secret := getattr(found.made, "secret_key", None):
            self.secrets.append(secret.get_secret_value())
        return found

    async def equipped(self) -> Equipped:
        """A machine that was created with all that the module can give it, for the whole run."""
        async with self._lending:
            self.borrowed.add(("machine", "equipped"))
            return await self.lender.equipped()

    @asynccontextmanager
    async def machine_lent(self, slot: str = "first", *, stopped: bool = False) -> AsyncIterator[Machine]:
        """A machine to work with, ACTIVE or STOPPED, and nothing attached to it; leave it with nothing attached. When
        the check fails it is thrown away, and the next check is lent another."""
        machine = await self.machine_brought(slot, Status.STOPPED if stopped else Status.ACTIVE)
        try:
            yield machine
        except Unsupported:
            raise
        except BaseException:
            await self.lender.discard([("machine", slot)])
            raise

    async def machine_brought(self, slot: str, status: Status) -> Machine:
        """The lent machine, brought to the status if it is not in it, and nothing attached to it."""
        for _ in range(2):
            machine_id = (await self.specimen("machine", slot)).made.id
            try:
                machine = await self.module.describe_machine(machine_id)
                if machine.status is not status and isinstance(self.module, Power):
                    change = self.module.stop_machine if status is Status.STOPPED else self.module.start_machine
                    machine = await change(machine_id)
            except NotFound:
                pass
            else:
                if machine.status is status and not machine.volumes:
                    return machine
            await self.lender.discard([("machine", slot)])
        raise CheckFailed(f"a machine cannot be brought to be {status}, with nothing attached")

    # --- ordinary things ---

    async def machine(self, word: str = "machine", **changes: Any) -> Machine:
        """Create an ordinary machine, changed in these fields of its :class:`MachineSpec`."""
        spec = await self.machine_spec(word)
        return await self.module.create_machine(spec.model_copy(update=changes), key=self.key(word))

    async def machine_spec(self, name: str = "machine") -> MachineSpec:
        """What an ordinary machine is created from; with user data only where machines do what it says."""
        size = self.subject.size
        if size is None:
            size = cheapest(await self.module.catalogue()).name
        user_data = self.subject.user_data if self.has(FirstBoot) else None
        return MachineSpec(name=name, image=self.subject.image, size=size, user_data=user_data)

    def upload_format(self) -> DiskFormat:
        """A disk format that images may be uploaded in: RAW if any is, or none is declared."""
        declared = self.ability("upload_image").formats
        return DiskFormat.RAW if DiskFormat.RAW in declared or not declared else declared[0]

    def sample(self, size: int) -> bytes:
        """An image of about that size, in :meth:`upload_format`."""
        return self.subject.sample(self.upload_format(), size)

    async def image(self, content: bytes, *, name: str = "image", word: str = "image") -> Image:
        """Upload an image that is in :meth:`upload_format`."""
        spec = ImageSpec(name=name, format=self.upload_format(), size=len(content), digest=digest(content))
        return await self.the(ImageUpload).upload_image(spec, stream(content), key=self.key(word))

    # --- services of machines ---

    async def get(
        self, at: Any, path: str, *, start: int = 0, length: int | None = None, patience: float = SERVICE_SECONDS
    ) -> bytes:
        """A file of a machine that runs :mod:`~vendor_modules.conformance.program`, at its own or a public address; or
        ``length`` bytes of it from ``start`` on."""
        deadline = asyncio.get_running_loop().time() + self.seconds(patience)
        headers = {} if length is None else {"range": f"bytes={start}-{start + length - 1}"}
        while True:
            try:
                async with http_client(timeout=self.seconds(5)) as client:
                    answer = await client.get(_url(at, path), headers=headers)
                expect(answer.is_success, f"GET /{path} answers {answer.status_code}, expected 200")
                end = None if length is None else start + length
                return answer.content if answer.status_code == 206 else answer.content[start:end]
            except httpx.TransportError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise CheckFailed(f"nothing answers at {at.host}:{at.port}: {error!r}") from error
            await asyncio.sleep(0.05)

    async def put(self, at: Any, path: str, content: bytes) -> None:
        """Write at the beginning of a file of such a machine."""
        async with http_client(timeout=self.seconds(5)) as client:
            answer = await client.put(_url(at, path), content=content)
        expect(answer.status_code == 204, f"PUT /{path} answers {answer.status_code}, expected 204")

    async def is_closed(self, at: Any) -> bool:
        """Whether no service answers there, or none does any more in a moment."""
        deadline = asyncio.get_running_loop().time() + self.seconds(CLOSING_SECONDS)
        while True:
            try:
                async with http_client(timeout=self.seconds(2)) as client:
                    await client.get(_url(at, ""))
            except httpx.TransportError:
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.2)

    # --- cleaning up ---

    async def clear(self) -> list[str]:
        """Remove all that the check created; returns what could not be removed, in words."""
        problems = []
        records = await self.persistence.resources(self.subject.vendor)
        for kind in RELEASE_ORDER:
            for record in records:
                if record.kind == kind and record.status != "destroyed":
                    problems += await self.remove(kind, record.id, record.key)
        kinds = {record.kind for record in records}
        try:
            left = [(kind, r) for kind, r in await inventory(self.module, kinds) if r.key.startswith(self.prefix)]
        except Exception as error:  # noqa: BLE001 - a broken module must not stop the cleaning up
            return [*problems, f"what is left cannot be listed: {error!r}"]
        for kind, resource in left:
            await self.remove(kind, resource.id, resource.key)
        return problems + [f"{kind} {resource.id} was left behind" for kind, resource in left]

    async def remove(self, kind: Kind, resource_id: str | None, key: str = "") -> list[str]:
        """Remove a resource, or whatever has the key if the id is not known; returns what went wrong, in words."""
        try:
            if resource_id is None:
                await release(self.module, kind, key)
            else:
                await destroy(self.module, kind, resource_id)
        except Unsupported:
            return []  # then there can be none
        except Exception as error:  # noqa: BLE001 - a broken module must not stop the cleaning up
            return [f"{kind} {resource_id or key} cannot be removed: {error!r}"]
        return []


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def http_client(**settings: Any) -> httpx.AsyncClient:
    """A client that goes straight to the server; all share what takes longest to make, the certificates."""
    return httpx.AsyncClient(trust_env=False, verify=_tls(), **settings)


def _url(at: Any, path: str) -> str:
    host = f"[{at.host}]" if ":" in at.host else at.host
    return f"http://{host}:{at.port or PORT}/{path.lstrip('/')}"


def cheapest(catalogue: Catalogue) -> Size:
    """The size that costs least; one of unknown price only if all are, and then the smallest."""
    return min(
        catalogue.sizes,
        key=lambda size: (size.price_per_hour is None, size.price_per_hour or 0, size.cores, size.memory_mib),
    )


def find(resources: list[Any], resource: Resource) -> Any:
    """The entry of a list with the resource's id; None if it is not there."""
    return next((other for other in resources if other.id == resource.id), None)


def digest(content: bytes) -> str:
    """BLAKE3 of the content, as ``blake3:…``."""
    return f"blake3:{blake3(content).hexdigest()}"


def stream(content: bytes, chunk: int = 256 * 1024) -> Content:
    """The content to send, in chunks, as often as it is asked for."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), chunk):
            yield content[start : start + chunk]

    return chunks
