"""The Vendor Module: the only code that knows one provider's API.

A vendor author subclasses the capabilities that the provider has (:mod:`vendor_modules.capabilities`; each is a
:class:`VendorModule`) and fills in the abstract methods, whose names begin with an underscore. The public methods do
what all vendors share: they remember what is being created before it is, repeat calls that are worth repeating, limit
their time, log, and put vendor and operation into every error. Nothing but a
:class:`~vendor_modules.errors.VendorError` leaves a public method, cancellation and faults of our own apart.

*Idempotency.* Every creating call takes a key. Called twice with the same key, it returns the same resource: the caller
may have crashed, or the answer may have been lost. A provider's ``_create_…`` must look for the key before it creates.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, ClassVar, Self, TypeVar

import stamina
from pydantic import BaseModel, ConfigDict, StringConstraints

from descriptors.cfp import CallForProposals
from descriptors.deployment import Kind
from descriptors.sla import Offer, Refusal
from vendor_modules.abilities import Ability
from vendor_modules.errors import (
    NotFound,
    ResourceFailed,
    Throttled,
    TimedOut,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.proposals import propose
from vendor_modules.resources import Catalogue, Key, Machine, MachineSpec, Resource, Status
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import ResourceRecord

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

LONGEST_WAIT = 10.0
"""Seconds that a call waits at most because a provider says that it is asked too often."""

Content = Callable[[], AsyncIterator[bytes]]
"""Bytes to send: called for a fresh stream from the beginning, again when a call is repeated."""


class Proof(StrEnum):
    """How far a module has been proven: against a live service, an emulator, recordings, or the protocol's text."""

    LIVE = "live"
    EMULATOR = "emulator"
    RECORDED = "recorded"
    PROTOCOL_ONLY = "protocol only"


class ModuleSettings(BaseModel):
    """What a module must be told besides its credentials. Forms, prompts and docs are made from its fields, and from
    what is written below each."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PriceSource(StrEnum):
    """Where a module's prices come from."""

    LIVE = "the provider is asked"
    CATALOGUE = "the price catalogue"
    SETTINGS = "the vendor's settings"


class HttpSettings(ModuleSettings):
    """The settings of a module that speaks HTTP."""

    proxy: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+/?$")] | None = None
    """The HTTP proxy to go through, as ``http://host:port``. The environment's proxy variables are not looked at."""


class VendorModule(ABC):
    """The core that every provider implements: who it is, what it sells, and machines."""

    title: ClassVar[str]
    """The provider's name as people write it."""
    proof: ClassVar[Proof]
    proven_by: ClassVar[str] = ""
    """What the proof was, in one sentence."""
    known_limits: ClassVar[tuple[str, ...]] = ()
    """What a user should know before relying on it, a sentence each."""
    abilities: ClassVar[Mapping[str, Ability]] = {}
    """Operations that are not plainly native, by name: see :mod:`vendor_modules.abilities`."""
    prices: ClassVar[PriceSource] = PriceSource.LIVE
    honours: ClassVar[tuple[str, ...]] = ()
    """For a capability: the fields of :class:`~vendor_modules.resources.MachineSpec` that it makes possible."""
    Settings: ClassVar[type[ModuleSettings]] = ModuleSettings
    credential_kinds: ClassVar[tuple[str, ...]]
    """The kinds of :data:`~vendor_modules.services.credentials.Credentials` that it can log in with."""

    attempts: ClassVar[int] = 4
    """How often a call is made at most, while its errors say that a retry can help."""
    retry_jitter: ClassVar[float] = 1.0
    """Seconds, by chance, that a retry waits longer at most: who was refused together does not come back together."""
    call_timeout: ClassVar[float] = 30.0
    """Seconds that one call may take; transfers of content are not limited."""
    settle_timeout: ClassVar[float] = 60.0
    """Seconds that a resource may take to reach a state."""
    visible_within: ClassVar[float] = 0.0
    """Seconds after which the provider shows what was created. A creation whose answer was lost is repeated no earlier:
    the module looks for the key first, and would not find it. What is made and not found yet is waited for as long."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """``vendor`` is the name that this provider has in the agency; one module may serve several vendors."""
        self.vendor = vendor
        self.settings = settings
        self.services = services

    async def __aenter__(self) -> Self:
        """Ready the module; it reaches the provider only when it is first asked for something."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close connections."""
        await self._close()

    # --- identity and offers ---

    async def catalogue(self) -> Catalogue:
        """What the provider sells and promises now."""
        return await self._call("read the catalogue", self._catalogue)

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """Answer a call for proposals from the catalogue; the offer is remembered."""
        answer = propose(self.vendor, call, await self.catalogue())
        if isinstance(answer, Offer):
            await self.services.persistence.save_proposal(answer)
        return answer

    # --- machines ---

    async def create_machine(self, spec: MachineSpec, *, key: Key) -> Machine:
        """Create a machine and start it; returns when it is ACTIVE."""
        self._refuse_what_is_not_honoured(spec)
        created = await self._create("machine", key, lambda: self._create_machine(spec, key))
        return await self.wait_for_machine(created.id, Status.ACTIVE)

    async def describe_machine(self, machine_id: str) -> Machine:
        """The machine as it is now."""
        return await self._call("describe machine", lambda: self._describe_machine(machine_id))

    async def list_machines(self) -> list[Machine]:
        """All machines of the account."""
        return await self._call("list machines", self._list_machines)

    async def destroy_machine(self, machine_id: str) -> None:
        """Remove the machine and its own disk; its volumes stay. Returns when it is gone; gone already is fine."""
        await self._destroy("machine", machine_id, self._destroy_machine, self._describe_machine)

    async def wait_for_machine(self, machine_id: str, status: Status) -> Machine:
        """Wait until the machine has that status; :class:`ResourceFailed` when it ends in ERROR instead."""
        return await self._settle("machine", lambda: self._describe_machine(machine_id), status)

    # --- what a provider implements ---

    @abstractmethod
    async def _catalogue(self) -> Catalogue: ...

    @abstractmethod
    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine: ...

    @abstractmethod
    async def _describe_machine(self, machine_id: str) -> Machine: ...

    @abstractmethod
    async def _list_machines(self) -> list[Machine]: ...

    @abstractmethod
    async def _destroy_machine(self, machine_id: str) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    def _translate(self, error: Exception) -> VendorError | None:
        """Map an error of the provider's library to the error tree; None for one that is a fault of ours.

        The module extends this for its library; time-outs and broken connections are mapped for all.
        """
        if isinstance(error, TimeoutError):
            return TimedOut(f"no answer within {self.call_timeout:g} s")
        if isinstance(error, OSError):
            return Unavailable(str(error))
        return None

    # --- shared machinery, for the capabilities ---

    def _refuse_what_is_not_honoured(self, spec: MachineSpec) -> None:
        honoured = {field for kind in type(self).__mro__ for field in vars(kind).get("honours", ())}
        for field in ("user_data", "volumes", "key_pair", "security_groups", "networks"):
            if getattr(spec, field) and field not in honoured:
                words = f"machines cannot be made with {field.replace('_', ' ')}"
                raise Unsupported(words, vendor=self.vendor, operation="create machine")

    async def _credentials(self, *, resource: str | None = None, agreement: str | None = None) -> Credentials | None:
        return await self.services.credentials.get(self.vendor, resource=resource, agreement=agreement)

    async def _call(
        self, operation: str, call: Callable[[], Awaitable[T]], *, limited: bool = True, pause: float = 0.0
    ) -> T:
        """Make a call to the provider: limited in time, repeated while that can help (``pause`` seconds later at
        least), its errors mapped."""
        async for attempt in stamina.retry_context(
            on=partial(_worth_repeating, pause=pause),
            attempts=self.attempts,
            timeout=None,
            wait_initial=0.1,
            wait_max=2.0,
            wait_jitter=self.retry_jitter,
        ):
            with attempt:
                try:
                    async with asyncio.timeout(self.call_timeout if limited else None):
                        return await call()
                except Exception as error:
                    explained = self._explained(operation, error)
                    if explained is error:
                        raise
                    raise explained from error
        raise AssertionError("stamina ends with a result or an error")

    async def _mapped_stream(self, operation: str, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in stream:
                yield chunk
        except Exception as error:
            explained = self._explained(operation, error)
            if explained is error:
                raise
            raise explained from error
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()  # now, not when it is collected: it holds a response

    def _explained(self, operation: str, error: Exception) -> Exception:
        mapped = error if isinstance(error, VendorError) else self._translate(error)
        if mapped is None:
            return error
        mapped.vendor, mapped.operation = self.vendor, operation
        if not isinstance(mapped, NotFound):  # which is how a resource is seen to be gone
            name = type(mapped).__name__
            self.services.log.warning("vendor call failed", vendor=self.vendor, operation=operation, error=name)
        return mapped

    async def _create(self, kind: Kind, key: Key, create: Callable[[], Awaitable[R]], *, limited: bool = True) -> R:
        """Create a resource: the intent is remembered before the call, the outcome after it."""
        persistence = self.services.persistence
        await persistence.save_resource(ResourceRecord(self.vendor, kind, key, "intended"))
        resource = await self._call(f"create {kind}", create, limited=limited, pause=self.visible_within)
        await persistence.save_resource(ResourceRecord(self.vendor, kind, key, "created", resource.id))
        self.services.log.info("created", vendor=self.vendor, kind=kind, id=resource.id, key=key)
        return resource

    async def _destroy(
        self,
        kind: Kind,
        resource_id: str,
        destroy: Callable[[str], Awaitable[None]],
        describe: Callable[[str], Awaitable[Any]],
    ) -> None:
        """Destroy a resource and see for ourselves that it is gone: providers have been known to say so too early."""
        try:
            await self._call(f"destroy {kind}", lambda: destroy(resource_id))
            await self._settle(kind, lambda: describe(resource_id), None)
        except NotFound:
            pass
        await self.services.persistence.mark_destroyed(self.vendor, kind, resource_id)
        self.services.log.info("destroyed", vendor=self.vendor, kind=kind, id=resource_id)

    async def _settle(self, kind: Kind, describe: Callable[[], Awaitable[R]], status: Status | None) -> R:
        """Poll until the resource has the status; with None, until describing it raises :class:`NotFound`. One that is
        waited for may be not found at first, as long as the provider may take to show what it made. What counts is when
        it was asked, not when it answered: it is asked once more after the time that it may take."""
        now = asyncio.get_running_loop().time
        wait, visible, deadline = 0.02, now() + self.visible_within, now() + self.settle_timeout
        while True:
            asked = now()
            try:
                resource = await self._call(f"describe {kind}", describe)
            except NotFound:
                if status is None or asked >= visible:
                    raise
            else:
                if resource.status is status:
                    return resource
                if resource.status is Status.ERROR and status is not None:
                    problem = getattr(resource, "problem", None) or "the provider gives no reason"
                    raise ResourceFailed(
                        f"{kind} {resource.id} failed: {problem}", vendor=self.vendor, operation=f"create {kind}"
                    )
                if asked > deadline:
                    raise TimedOut(
                        f"{kind} {resource.id} is still {resource.status} after {self.settle_timeout:g} s, "
                        f"expected {status or 'gone'}",
                        vendor=self.vendor,
                        operation=f"wait for {kind}",
                    )
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 2.0)


def _worth_repeating(error: Exception, pause: float) -> bool | float:
    """Whether a repeated call can help; a number is when, in seconds from now. A long wait is left to the caller."""
    if isinstance(error, Throttled):
        return max(error.retry_after, pause) if error.retry_after <= LONGEST_WAIT else False
    return isinstance(error, VendorError) and error.retryable and (pause or True)
