"""Calls and offers that the broker weighs: fixed ones to vary by hand, and Hypothesis strategies for whole rounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from broker.comparison import Answer
from descriptors.application import Requirements
from descriptors.cfp import CallForProposals
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import Allocation, GuaranteeTerm, Offer, PriceTerms, Refusal

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MACHINE = ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1)
DISK = ResourceClass(name="disk", type=ResourceType.STORAGE, kind="block", size_mib=10)


def call(**requirements: Any) -> CallForProposals:
    """A call for a machine and a disk, under these requirements."""
    return CallForProposals(
        id="call-1",
        application="notes",
        purpose="deployment",
        issued=NOW,
        reply_by=NOW + timedelta(seconds=10),
        requirements=Requirements(**requirements),
        resources=(MACHINE, DISK),
    )


def offer(vendor: str = "alpha", **changes: Any) -> Offer:
    """An offer that qualifies for :func:`call`; ``changes`` are to the offer, or to ``per_hour``, ``egress``,
    ``setup``, ``currency`` and ``availability``."""
    per_hour = Decimal(changes.pop("per_hour", "0.01"))
    egress, currency = Decimal(changes.pop("egress", "0.05")), changes.pop("currency", "EUR")
    setup = Decimal(changes.pop("setup", 0))
    availability = changes.pop("availability", "99.9")
    guarantees: tuple[GuaranteeTerm, ...] = ()
    if availability is not None:
        least = Decimal(availability)
        guarantees = (GuaranteeTerm(name="uptime", property="availability", at_least=least, penalty=Decimal(10)),)
    fields: dict[str, Any] = {
        "id": f"offer-{vendor}",
        "call": "call-1",
        "application": "notes",
        "vendor": vendor,
        "issued": NOW,
        "expires": NOW + timedelta(minutes=15),
        "region": "eu-west",
        "jurisdiction": "EU",
        "price": PriceTerms(
            currency=currency, per_hour=per_hour, per_month=per_hour * 730, setup=setup, egress_per_gib=egress
        ),
        "resources": (MACHINE, DISK),
        "allocations": (
            Allocation(resource="machine", size="small", price_per_hour=per_hour),
            Allocation(resource="disk", size="block-storage", price_per_hour=Decimal(0)),
        ),
        "guarantees": guarantees,
    }
    return Offer(**(fields | changes))


requirements = st.fixed_dictionaries(
    {},
    optional={
        "regions": st.lists(st.sampled_from(["eu-west", "us-east"]), max_size=2).map(tuple),
        "jurisdictions": st.lists(st.sampled_from(["EU", "US"]), max_size=2).map(tuple),
        "availability": st.sampled_from([Decimal("99.5"), Decimal(100)]),
        "price_cap": st.sampled_from([Decimal(0), Decimal("7.3"), Decimal(50)]),
    },
)
calls = requirements.map(lambda wanted: call(**wanted))


@st.composite
def offers(draw: st.DrawFn, vendor: str) -> Offer:
    """An offer of that vendor; most of its fields may be what a call does not allow."""
    changes: dict[str, Any] = {
        "per_hour": draw(st.decimals(0, 1, places=4)),
        "egress": draw(st.decimals(0, 1, places=2)),
        "availability": draw(st.none() | st.decimals(90, 100, places=3)),
        "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
        "region": draw(st.sampled_from(["eu-west", "us-east"])),
        "jurisdiction": draw(st.sampled_from(["EU", "US"])),
        "call": draw(st.sampled_from(["call-1", "call-1", "call-1", "call-2"])),
        "expires": NOW + timedelta(seconds=draw(st.sampled_from([-1, 0, 1, 900, 900]))),
        "vendor": draw(st.sampled_from([vendor, vendor, vendor, "somebody-else"])),
    }
    if draw(st.integers(0, 5)) == 0:
        changes["allocations"] = (Allocation(resource="machine", size="small", price_per_hour=Decimal(0)),)
    return offer(**changes)


def _answer(vendor: str) -> st.SearchStrategy[Answer]:
    reason = Reason(code="no-answer", message="said nothing")
    refusal = Refusal(call="call-1", vendor=vendor, reasons=(reason,))
    return st.one_of(offers(vendor), offers(vendor), st.just(refusal), st.just(reason))


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Answer]:
    """What came of asking some vendors, by name."""
    vendors = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), unique=True, max_size=6))
    return {vendor: draw(_answer(vendor)) for vendor in vendors}


weights = st.fixed_dictionaries(
    dict.fromkeys(("price", "guarantees", "record", "locality", "carbon", "egress"), st.decimals(0, 3, places=1))
)
"""Weights for everything that counts of itself."""


@st.composite
def _rivals(draw: st.DrawFn) -> list[Offer]:
    found = []
    for vendor in draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True, min_size=1)):
        changes = {
            "per_hour": draw(st.sampled_from(["0", "0.01", "0.012", "0.02", "0.5"])),
            "setup": draw(st.sampled_from(["0", "0", "12", "7.77"])),
            "egress": draw(st.sampled_from(["0", "0.01", "0.08", "0.09"])),
            "availability": draw(st.sampled_from([None, "99", "99.9", "99.95", "100"])),
            "region": draw(st.sampled_from(["eu-west", "us-east"])),
            "carbon_g_per_kwh": draw(st.sampled_from([None, None, "0", "20", "350.5"])),
        }
        found.append(offer(vendor, **changes))
    return found


rival_offers = _rivals()
"""A few offers of different vendors that all qualify, and are often equal in something."""
