"""From a call for proposals and a provider's catalogue to an offer, or to a refusal that says why.

A vendor answers for its resources only. Whether the terms suit the deployer (region, jurisdiction, price cap,
availability) is the broker's to weigh, so that a vendor that nearly fits can be shown with what is missing.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import CONSUMER, HOURS_PER_MONTH, Allocation, Offer, PriceTerms, Refusal
from vendor_modules.resources import Catalogue

MICRO = Decimal("0.000001")
MACHINE_DISK = "machine-disk"
"""The ``size`` of an allocation for a volume that would be adapted: it goes into the machine's own disk."""


def propose(vendor: str, call: CallForProposals, catalogue: Catalogue) -> Offer | Refusal:
    """The vendor's answer: an offer for everything in the call, or a refusal with every reason there is."""
    answers = [_allocate(resource, call, catalogue) for resource in call.resources]
    reasons = tuple(answer for answer in answers if isinstance(answer, Reason))
    if reasons:
        return Refusal(call=call.id, vendor=vendor, reasons=reasons)
    allocations = tuple(answer for answer in answers if isinstance(answer, Allocation))
    per_hour = sum((a.price_per_hour for a in allocations), Decimal(0))
    issued = utc_now()
    return Offer(
        id=new_id("offer"),
        call=call.id,
        application=call.application,
        vendor=vendor,
        issued=issued,
        expires=issued + timedelta(seconds=catalogue.offer_validity_seconds),
        region=catalogue.region,
        jurisdiction=catalogue.jurisdiction,
        carbon_g_per_kwh=catalogue.carbon_g_per_kwh,
        consumer=CONSUMER,
        price=PriceTerms(
            currency=catalogue.currency,
            per_hour=_rounded(per_hour),
            per_month=_rounded(per_hour * HOURS_PER_MONTH),
            egress_per_gib=catalogue.egress_per_gib,
        ),
        resources=call.resources,
        allocations=allocations,
        guarantees=catalogue.guarantees,
        components=call.components,
    )


def _allocate(resource: ResourceClass, call: CallForProposals, catalogue: Catalogue) -> Allocation | Reason:
    if resource.type is ResourceType.COMPUTE:
        return _machine(resource, catalogue)
    if resource.type is ResourceType.STORAGE:
        return _storage(resource, call, catalogue)
    return Reason(
        code="unsupported-resource-type",
        resource=resource.name,
        required=resource.type,
        message=f"offers no {resource.type} resources",
    )


def _machine(resource: ResourceClass, catalogue: Catalogue) -> Allocation | Reason:
    cores, memory = resource.cores or 1, resource.memory_mib or 0
    fitting = [size for size in catalogue.sizes if size.cores >= cores and size.memory_mib >= memory]
    if not fitting:
        largest = max(catalogue.sizes, key=lambda size: (size.cores, size.memory_mib), default=None)
        offered = _words(largest.cores, largest.memory_mib) if largest else "none"
        return Reason(
            code="no-machine-size",
            resource=resource.name,
            required=_words(cores, memory),
            offered=offered,
            message=f"no machine size has {_words(cores, memory)}; the largest has {offered}",
        )
    priced = [(size.price_per_hour, size) for size in fitting if size.price_per_hour is not None]
    if not priced:
        return Reason(
            code="price-unknown",
            resource=resource.name,
            required="a price",
            offered=", ".join(size.name for size in fitting[:5]),
            message=f"sells machines with {_words(cores, memory)}, and does not tell what they cost",
        )
    price, size = min(priced, key=lambda one: (one[0], one[1].cores, one[1].memory_mib, one[1].name))
    return Allocation(resource=resource.name, size=size.name, price_per_hour=_rounded(price))


def _storage(resource: ResourceClass, call: CallForProposals, catalogue: Catalogue) -> Allocation | Reason:
    price = catalogue.block_gib_month if resource.kind == "block" else catalogue.object_gib_month
    if price is not None:
        gib = Decimal(resource.size_mib or 0) / 1024
        return Allocation(
            resource=resource.name,
            size=f"{resource.kind}-storage",
            price_per_hour=_rounded(price * gib / HOURS_PER_MONTH),
        )
    if resource.kind == "block" and resource.fallback and call.purpose != "deployment":
        return Allocation(resource=resource.name, size=MACHINE_DISK, price_per_hour=Decimal(0))
    lacking = {"block": "volumes", "object": "object-storage"}[resource.kind or "block"] in catalogue.lacks
    lack = f"has no {resource.kind} storage service" if lacking else f"tells no price of {resource.kind} storage"
    return Reason(
        code=f"no-{resource.kind}-storage",
        resource=resource.name,
        required=f"{resource.kind} storage",
        offered="none",
        message=f"{lack}, which {resource.name!r} needs",
    )


def _words(cores: int, memory_mib: int) -> str:
    return f"{cores} core{'s' * (cores != 1)} and {memory_mib} MiB"


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(MICRO, ROUND_HALF_UP).normalize() + Decimal(0)
