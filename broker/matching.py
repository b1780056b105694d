"""Hard constraints: an offer that breaks one is left out, with the reason as data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from descriptors.cfp import CallForProposals
from descriptors.resources import Reason
from descriptors.sla import Offer


def exclusions(offer: Offer, call: CallForProposals, now: datetime) -> tuple[Reason, ...]:
    """Every reason why the offer must not be taken for the call at the moment ``now``; empty if it qualifies."""
    return (*_identity(offer, call, now), *_place(offer, call), *_terms(offer, call))


def _identity(offer: Offer, call: CallForProposals, now: datetime) -> Iterator[Reason]:
    if offer.call != call.id:
        yield Reason(
            code="other-call", required=call.id, offered=offer.call, message=f"answers call {offer.call}, not {call.id}"
        )
    if offer.expires <= now:
        yield Reason(code="expired", offered=offer.expires.isoformat(), message="the offer has expired")
    if offer.components != call.components:
        wanted, found = (" and ".join(names) or "everything" for names in (call.components, offer.components))
        yield Reason(code="other-components", required=wanted, offered=found, message=f"is for {found}, not {wanted}")
    allocated = {allocation.resource for allocation in offer.allocations}
    for resource in call.resources:
        if resource.name not in allocated:
            yield Reason(
                code="resource-not-covered", resource=resource.name, message=f"says nothing of {resource.name!r}"
            )


def _place(offer: Offer, call: CallForProposals) -> Iterator[Reason]:
    wanted = call.requirements
    for code, choices, found in (
        ("region", wanted.regions, offer.region),
        ("jurisdiction", wanted.jurisdictions, offer.jurisdiction),
    ):
        if choices and found not in choices:
            required = " or ".join(choices)
            yield Reason(
                code=f"other-{code}",
                required=required,
                offered=found,
                message=f"{code} {found}, where {required} is required",
            )


def _terms(offer: Offer, call: CallForProposals) -> Iterator[Reason]:
    wanted = call.requirements
    least = wanted.availability
    guaranteed = None if least is None else offer.availability()
    if least is not None and (guaranteed is None or guaranteed < least):
        offered = "no availability" if guaranteed is None else f"{guaranteed:f} %"
        yield Reason(
            code="availability-too-low",
            required=f"{least:f} %",
            offered=offered,
            message=f"guarantees {offered}, where {least:f} % is required",
        )
    if offer.price.currency != wanted.currency:
        yield Reason(
            code="other-currency",
            required=wanted.currency,
            offered=offer.price.currency,
            message=f"is priced in {offer.price.currency}, where {wanted.currency} is asked for",
        )
    elif (
        wanted.price_cap is not None and (month := offer.price.per_month + to_the_world(offer, call)) > wanted.price_cap
    ):
        yield Reason(
            code="over-price-cap",
            required=f"{wanted.price_cap:f} {wanted.currency}",
            offered=f"{month:f} {offer.price.currency}",
            message=f"costs {month:f} {offer.price.currency} a month, over the cap of {wanted.price_cap:f}",
        )


def to_the_world(offer: Offer, call: CallForProposals) -> Decimal:
    """What a month's expected egress costs that leaves the vendor wherever the application's components are."""
    gib = sum((flow.gib_month for flow in call.flows if flow.receiver is None), Decimal(0))
    return (gib * offer.price.egress_per_gib).quantize(Decimal("0.000001")) if gib else Decimal(0)
