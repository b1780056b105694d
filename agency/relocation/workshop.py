"""What Migrators work with: the tools of this agency, and the order they work on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from agency.agents import addresses
from agency.blobs import Blobs
from agency.events import Events
from agency.problems import refuse
from agency.store.store import Store
from agency.transfer.progress import Progress
from agency.trust.site import Site
from broker.pricing import Policy
from descriptors.application import Application, Component
from descriptors.base import Digest, Token
from descriptors.deployment import DeployedResource, Deployment, Endpoint
from descriptors.relocation import RelocationPlan, Task
from descriptors.sla import Agreement
from vendor_modules.capabilities import CAPABILITIES
from vendor_modules.module import VendorModule

C = TypeVar("C", bound=VendorModule)


@dataclass(frozen=True)
class Workshop:
    """The tools: vendor modules by vendor, the store, uploaded files, room for what is in transit, events,
    and the site that signs."""

    modules: Mapping[str, VendorModule]
    store: Store
    blobs: Blobs
    spool: Path
    events: Events
    site: Site
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """How vendors negotiate, by vendor; who is not in it does not."""
    agents: Mapping[str, str] = field(default_factory=dict)
    """The addresses of the agents that speak for vendors at other sites, by vendor; for all others ours do."""
    busy: dict[str, str] = field(default_factory=dict)
    """The operation under way, by application."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an agreement was terminated here."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def lock(self, application: str) -> asyncio.Lock:
        """Held while something is begun with the application, so that of two requests at once one sees the other."""
        return self._locks.setdefault(application, asyncio.Lock())

    def module(self, vendor: str) -> VendorModule:
        """The vendor's module; a clear refusal when there is none, as when it could not be loaded."""
        try:
            return self.modules[vendor]
        except KeyError:
            raise refuse("unknown-vendor", f"there is no vendor {vendor!r} now", "see `agency vendors`") from None

    def speaker(self, vendor: str) -> str:
        """The address of the one agent whose word about a vendor counts, for what is done with our account there."""
        return self.agents.get(vendor) or f"{addresses.vendor(vendor)}@{self.site.key.name}"

    def check_account(self, vendor: str, application: str) -> None:
        """Refuse what would be done at another site's vendor that we have no account with."""
        if vendor not in self.modules:
            raise refuse(
                "no-account",
                f"{vendor}, of another site, is to have {application}, and there is no account with {vendor} here",
                f"add it with `agency vendor add {vendor} --agent JID`, or end an agreement with "
                f"`agency destroy {application}`",
            )

    def refuse_if_busy(self, application: str) -> None:
        """Raise the problem to show while an operation is under way for the application."""
        if operation := self.busy.get(application):
            raise refuse("busy", f"{application} is busy: {operation} is under way", "wait until it has ended")


class Output(BaseModel):
    """What a task leaves for the tasks after it. It is kept in plain in the workflow database: no secrets here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: DeployedResource | None = None
    temporary: bool = False
    """Whether ``created`` only serves the operation, and goes when it ends."""
    endpoints: tuple[Endpoint, ...] = ()
    bytes: int = 0
    """Bytes of content brought from the source."""
    digest: Digest | None = None
    manifest: Token | None = None
    """Of content that was moved: the signed statement that it has arrived."""
    started: float = 0.0
    """Unix time."""
    seconds: float = 0.0


class Order(BaseModel):
    """An operation to carry out, with all that it depends on fixed at its start: it can be taken up after a crash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["deploy", "relocate"]
    id: str
    application: Application
    deployment: Deployment
    """As it was at the start."""
    agreement: Agreement
    """What new resources are created under."""
    further: tuple[Agreement, ...] = ()
    """The other vendors' agreements, where several have parts of the application."""
    plan: RelocationPlan | None = None
    tasks: tuple[Task, ...]

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """All agreements that new resources are created under."""
        return self.agreement, *self.further

    def agreement_at(
        self, vendor: str | None, *, component: str | None = None, resource: str | None = None
    ) -> Agreement:
        """The vendor's agreement for the component, for those that use the resource, or for anything."""
        users = {c.name for c in self.application.components if resource in [name for _, name, _, _ in c.uses()]}
        users |= {component} if component else set()
        for agreement in self.agreements:
            if agreement.provider == vendor and (not users or covers(agreement, users)):
                return agreement
        return self.agreement


def covers(agreement: Agreement, components: Collection[str]) -> bool:
    """Whether the agreement is for one of the components."""
    return not agreement.components or not set(components).isdisjoint(agreement.components)


class Cancelled(Exception):
    """Somebody asked for the operation to be cancelled."""


def mark_cancelled(workshop: Workshop, operation: str) -> None:
    """Ask for an operation to be cancelled: a mark on disk, so that a crash does not forget it."""
    mark = _cancel_mark(workshop, operation)
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch()


def _cancel_mark(workshop: Workshop, operation: str) -> Path:
    return workshop.spool / operation / "cancel"


@dataclass
class Run:
    """One order being carried out: what a Migrator sees."""

    workshop: Workshop
    order: Order
    outputs: dict[str, Output] = field(default_factory=dict)

    def key(self, task: Task) -> str:
        """The idempotency key of what the task creates: the same on every attempt."""
        return f"{self.order.id}/{task.name}"

    def component(self, task: Task) -> Component:
        """The component that the task works on."""
        return self.order.application.component(task.subject or "")

    def module(self, vendor: str | None, capability: type[C]) -> C:
        """The vendor's module, seen as having that capability; a clear refusal if it has not."""
        module = self.workshop.module(vendor or "")
        if not isinstance(module, capability):
            name = next(name for name, known in CAPABILITIES.items() if known is capability)
            raise refuse("vendor-unsupported", f"{vendor} has no {name}", "choose another vendor: see `agency vendors`")
        return module

    def created(self, task: str) -> DeployedResource:
        """What an earlier task created."""
        created = self.outputs[task].created
        if created is None:
            raise KeyError(f"task {task} created nothing")
        return created

    def spooled(self, name: str) -> Path:
        """A file of this operation's own for content in transit."""
        directory = self.workshop.spool / self.order.id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / name

    def check(self) -> None:
        """Raise :class:`Cancelled` when the operation has been cancelled. Called before every task and every chunk."""
        if _cancel_mark(self.workshop, self.order.id).exists():
            raise Cancelled

    def tell(self, task: Task, now: Progress) -> None:
        """Tell the watchers how far the task is."""
        event = {"kind": "progress", "task": task.name}
        event |= {name: getattr(now, name) for name in ("done", "total", "rate", "left")}
        self.workshop.events.tick(self.order.application.name, event)
