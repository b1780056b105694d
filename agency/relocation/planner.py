"""Planning a relocation: what moves, what stays, what is adapted, how long it takes and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from agency.problems import refuse
from agency.relocation.conduit import Topology, place
from agency.relocation.graph import relocation_tasks
from agency.relocation.migrators import migrators
from agency.relocation.migrators.configuration import disk_path
from agency.relocation.workshop import Workshop, covers
from descriptors.application import Application
from descriptors.base import MIB, new_id
from descriptors.deployment import Deployment
from descriptors.relocation import Item, RelocationPlan, Task
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import HOURS_PER_MONTH, Agreement, Offer, PriceTerms
from vendor_modules.proposals import MACHINE_DISK
from vendor_modules.resources import Volume

ASSUMED_RATE = 100 * MIB
"""Bytes per second through one of the two legs of a transfer, for the estimate."""
ASSUMED_TASK_SECONDS = 0.15
"""What a task takes beside its transfer, for the estimate."""
MACHINE_DISK_BYTES = MIB
"""What a machine's own disk holds beside the files that were uploaded, for the estimate."""


def choose_components(
    application: Application, deployment: Deployment, wanted: str | None, target: str | None = None
) -> tuple[str, ...]:
    """The components to move: the one wanted, or all. Refuses what would leave a component without what it uses.

    Of all, those that are at the target already stay there, unless one of them names one that moves: then all move.
    """
    names = tuple(c.name for c in application.start_order())
    if wanted is None:
        away = tuple(name for name in names if deployment.vendor_of(name) != target)
        urls = {f"component.{name}.url" for name in away}
        staying = [application.component(name) for name in names if name not in away]
        named = any(urls.intersection(rule.placeholders()) for component in staying for rule in component.rewrites)
        return names if named or not away else away
    if wanted not in names:
        raise refuse(
            "no-such-component",
            f"{application.name} has no component {wanted!r}; it has: {', '.join(names)}",
            "name one of them, or none to move all",
        )
    for component in application.components:
        uses = [p for rule in component.rewrites for p in rule.placeholders()]
        if component.name != wanted and f"component.{wanted}.url" in uses:
            raise refuse(
                "component-in-use",
                f"the configuration of {component.name!r} names {wanted!r}, and {component.name!r} would stay",
                "move the whole application: leave out --component",
            )
    return (wanted,)


def resources_of(application: Application, components: Sequence[str]) -> tuple[ResourceClass, ...]:
    """The resource classes that move with the components: machines and volumes. Object stores stay."""
    return tuple(resource for resource in application.needed(components) if resource.kind != "object")


def make_plan(
    workshop: Workshop,
    application: Application,
    deployment: Deployment,
    topology: Topology,
    agreements: Sequence[Agreement],
    offer: Offer,
    components: tuple[str, ...],
    now: datetime,
) -> RelocationPlan:
    """The plan to move the components to the vendor of the offer; refused when a vendor lacks what a task needs."""
    if topology.missing:
        names = ", ".join(f"{r.kind} {r.name} at {r.vendor}" for r in topology.missing)
        raise refuse(
            "resources-missing",
            f"{application.name} is not whole: {names} should be there and is not",
            "destroy what is left and deploy anew",
        )
    tasks = relocation_tasks(application, deployment, components, offer.vendor, offer.allocations)
    _check_abilities(workshop, tasks)
    items = [*_items(application, deployment, topology, offer, components)]
    size = sum(item.bytes for item in items)
    down = [
        task for task in tasks if not task.name.startswith(("key-pair", "security", "address", "access", "release"))
    ]
    transfer = 2 * size / ASSUMED_RATE
    before, after = _prices(application, agreements, offer, components)
    return RelocationPlan(
        id=new_id("plan"),
        application=application.name,
        deployment=deployment.id,
        revision=deployment.revision,
        source=deployment.vendor_of(components[0]),
        target=offer.vendor,
        offer=offer.id,
        created=now,
        expires=offer.expires,
        bytes=size,
        seconds=round(transfer + ASSUMED_TASK_SECONDS * len(tasks), 1),
        downtime_seconds=round(transfer + ASSUMED_TASK_SECONDS * len(down), 1),
        price_before=before,
        price_after=after,
        components=components,
        items=tuple(items),
        tasks=tasks,
    )


def _check_abilities(workshop: Workshop, tasks: Sequence[Task]) -> None:
    for task in tasks:
        needs = migrators()[task.migrator].needs
        if task.vendor is not None and not isinstance(workshop.modules[task.vendor], needs):
            raise refuse(
                "vendor-unsupported",
                f"{task.vendor} cannot do {task.name}: its module has no {needs.__name__}",
                "choose another vendor: see `agency vendors`",
            )


def _items(
    application: Application, deployment: Deployment, topology: Topology, offer: Offer, components: Sequence[str]
) -> list[Item]:
    sizes = {allocation.resource: allocation.size for allocation in offer.allocations}
    items: list[Item] = []
    for name in components:
        component = application.component(name)
        in_disk = [use.resource for use in component.volumes if not deployment.all("volume", resource=use.resource)]
        disk = MACHINE_DISK_BYTES + sum(file.size or 0 for file in component.files)
        disk += sum((application.resource(resource).size_mib or 0) * MIB for resource in in_disk)
        what = f"the machine's own disk, to a {sizes[component.resource]} machine at {offer.vendor}"
        items.append(Item(action="move", kind="machine", name=name, bytes=disk, what=what))
        for use in component.volumes:
            deployed = deployment.all("volume", resource=use.resource)
            volume = topology.found[place(deployed[0])] if deployed else None
            size = volume.size_mib * MIB if isinstance(volume, Volume) else 0
            adapted = (sizes[use.resource] == MACHINE_DISK) == bool(deployed)
            what = _volume_words(use.resource, offer.vendor, sizes[use.resource] == MACHINE_DISK, bool(deployed))
            action: Literal["adapt", "move"] = "adapt" if adapted else "move"
            items.append(Item(action=action, kind="volume", name=use.resource, bytes=size, what=what))
        for bucket in component.buckets:
            vendor = deployment.the("bucket", resource=bucket.resource).vendor
            what = f"stays at {vendor}; {name} is re-pointed to it with a key of its own"
            items.append(Item(action="stay", kind="bucket", name=bucket.resource, what=what))
        if component.rewrites:
            files = ", ".join(dict.fromkeys(rule.file for rule in component.rewrites))
            what = f"{files} rewritten by {len(component.rewrites)} rules"
            items.append(Item(action="adapt", kind="configuration", name=name, what=what))
    return items


def _volume_words(resource: str, target: str, into_disk: bool, from_volume: bool) -> str:
    if into_disk and from_volume:
        return f"goes into the machine's own disk as {disk_path(resource)}: {target} has no block storage"
    if into_disk:
        return "stays in the machine's own disk"
    return f"to a volume at {target}" if from_volume else f"out of the machine's disk, to a volume at {target}"


def _prices(
    application: Application, agreements: Sequence[Agreement], offer: Offer, moving: Sequence[str]
) -> tuple[PriceTerms, PriceTerms]:
    """The price of the whole application now, and after the move: the offer, and what stays where it is."""
    if any(agreement.price.currency != offer.price.currency for agreement in agreements):
        raise refuse(
            "other-currency",
            f"{offer.vendor} is priced in {offer.price.currency}, unlike what {application.name} has now",
            "choose a vendor with the same currency: prices cannot be compared otherwise",
        )
    machines = {c.name: _price_now(agreements, c.resource, c.name) for c in application.components}
    users = {use.resource: c.name for c in application.components for use in c.volumes}
    storage = {
        r.name: _price_now(agreements, r.name) for r in application.resources if r.type is not ResourceType.COMPUTE
    }
    before = sum([*machines.values(), *storage.values()], Decimal(0))
    leaving = [machines[name] for name in moving]
    leaving += [price for name, price in storage.items() if users.get(name) in moving]
    staying = before - sum(leaving, Decimal(0))
    return _terms(before, agreements[-1].price), _terms(offer.price.per_hour + staying, offer.price)


def _price_now(agreements: Sequence[Agreement], resource: str, component: str | None = None) -> Decimal:
    """What is paid for the resource in an hour, for that component's machine if it is one: by the latest agreement."""
    prices = [
        allocation.price_per_hour
        for agreement in agreements
        if component is None or covers(agreement, [component])
        for allocation in agreement.allocations
        if allocation.resource == resource
    ]
    return prices[-1] if prices else Decimal(0)


def _terms(per_hour: Decimal, like: PriceTerms) -> PriceTerms:
    return like.model_copy(update={"per_hour": per_hour, "per_month": per_hour * HOURS_PER_MONTH})
