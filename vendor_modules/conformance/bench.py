"""The bench that a check works at: a module with services that watch it, and a broom for what the check leaves."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import httpx
from blake3 import blake3

from descriptors.deployment import Kind
from vendor_modules.capabilities import RELEASE_ORDER, ImageUpload, destroy, inventory, release
from vendor_modules.conformance.subject import Subject
from vendor_modules.errors import Unsupported, VendorError
from vendor_modules.module import Content, VendorModule
from vendor_modules.resources import Catalogue, DiskFormat, Image, ImageSpec, Machine, MachineSpec, Resource, Size
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization

C = TypeVar("C", bound=VendorModule)
E = TypeVar("E", bound=VendorError)

SERVICE_SECONDS = 20.0
"""How long a machine that is ACTIVE may take until its service answers."""


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


class RecordingLog:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("debug", event, values))

    def info(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("error", event, values))


class FixedCredentials:
    """A credentials service with one answer."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """See :class:`~vendor_modules.services.credentials.CredentialStore`."""
        return self._credentials

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """See :class:`~vendor_modules.services.credentials.CredentialStore`."""
        self._credentials = credentials


class Bench:
    """What a check works with. ``module`` is the one examined; ``log`` and ``persistence`` are the services it has."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.log = RecordingLog()
        self.persistence = MemoryPersistence()
        self.prefix = f"conformance-{secrets.token_hex(4)}"
        self.secrets = subject.secrets()
        """What must not be seen in logs, errors and the like; a check adds the secrets that it is given."""
        self.module = subject.make(self._services(subject.credentials))

    def _services(self, credentials: Credentials | None) -> Services:
        return Services(FixedCredentials(credentials), self.persistence, self.log, JsonSerialization())

    @asynccontextmanager
    async def another(self, credentials: Credentials | None) -> AsyncIterator[VendorModule]:
        """A second module for the same vendor, as after a restart or with other credentials."""
        async with self.subject.make(self._services(credentials)) as module:
            yield module

    def the(self, capability: type[C]) -> C:
        """The module as one that has the capability."""
        if not isinstance(self.module, capability):
            raise Unsupported(f"has no {capability.__name__}")
        return self.module

    def key(self, word: str = "one") -> str:
        """An idempotency key of this check's own."""
        return f"{self.prefix}-{word}"

    # --- ordinary things ---

    async def machine(self, word: str = "machine", **changes: Any) -> Machine:
        """Create an ordinary machine, changed in these fields of its :class:`MachineSpec`."""
        spec = await self.machine_spec(word)
        return await self.module.create_machine(spec.model_copy(update=changes), key=self.key(word))

    async def machine_spec(self, name: str = "machine") -> MachineSpec:
        """What an ordinary machine is created from."""
        size = self.subject.size
        if size is None:
            size = cheapest(await self.module.catalogue()).name
        return MachineSpec(name=name, image=self.subject.image, size=size, user_data=self.subject.user_data)

    async def image(self, content: bytes, *, name: str = "image") -> Image:
        """Upload a RAW image."""
        spec = ImageSpec(name=name, format=DiskFormat.RAW, size=len(content), digest=digest(content))
        return await self.the(ImageUpload).upload_image(spec, stream(content), key=self.key("image"))

    async def get(self, at: Any, path: str, *, patience: float = SERVICE_SECONDS) -> bytes:
        """A file of a machine that runs :mod:`~vendor_modules.conformance.program`, at its own or a public address."""
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                async with http_client(timeout=5) as client:
                    answer = await client.get(f"http://{at.host}:{at.port}/{path}")
                expect(answer.status_code == 200, f"GET /{path} answers {answer.status_code}, expected 200")
                return answer.content
            except httpx.TransportError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise CheckFailed(f"nothing answers at {at.host}:{at.port}: {error!r}") from error
            await asyncio.sleep(0.05)

    async def put(self, at: Any, path: str, content: bytes) -> None:
        """Write at the beginning of a file of such a machine."""
        async with http_client(timeout=5) as client:
            answer = await client.put(f"http://{at.host}:{at.port}/{path}", content=content)
        expect(answer.status_code == 204, f"PUT /{path} answers {answer.status_code}, expected 204")

    async def is_closed(self, at: Any) -> bool:
        """Whether no service answers there."""
        try:
            async with http_client(timeout=5) as client:
                await client.get(f"http://{at.host}:{at.port}/")
        except httpx.TransportError:
            return True
        return False

    # --- cleaning up ---

    async def clear(self) -> list[str]:
        """Remove all that the check created; returns what could not be removed, in words."""
        problems = []
        records = await self.persistence.resources(self.subject.vendor)
        for kind in RELEASE_ORDER:
            for record in records:
                if record.kind == kind and record.status != "destroyed":
                    problems += await self._remove(kind, record.id, record.key)
        kinds = {record.kind for record in records}
        try:
            left = [(kind, r) for kind, r in await inventory(self.module, kinds) if r.key.startswith(self.prefix)]
        except Exception as error:  # noqa: BLE001 - a broken module must not stop the cleaning up
            return [*problems, f"what is left cannot be listed: {error!r}"]
        for kind, resource in left:
            await self._remove(kind, resource.id, resource.key)
        return problems + [f"{kind} {resource.id} was left behind" for kind, resource in left]

    async def _remove(self, kind: Kind, resource_id: str | None, key: str) -> list[str]:
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
