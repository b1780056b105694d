"""What the API and the ``--json`` of the command line show: plain data from documents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from agency.agreements import unsettled
from agency.api.changes import changes
from agency.janitor import find_leaks
from agency.problems import problem_of
from agency.relocation.workshop import Workshop
from agency.running import Unusable
from agency.store.store import Event
from descriptors.application import Application
from descriptors.comparison import Comparison, Composition, Criterion, Ranked
from descriptors.deployment import Deployment
from descriptors.directory import Registration, SearchResult
from descriptors.negotiation import Negotiation
from descriptors.sla import Agreement, AgreementTemplate, Offer
from vendor_modules.capabilities import CAPABILITIES
from vendor_modules.documentation import about
from vendor_modules.errors import VendorError
from vendor_modules.module import VendorModule

Json = dict[str, Any]

HISTORY = 20
"""Events that an application's status shows."""


def offer_row(row: Ranked) -> Json:
    """One row of a comparison: a vendor's, or that of several vendors together. Prices are numbers, None where there
    is no offer; ``offer`` is what to accept."""
    proposal, composition = row.proposal, row.composition
    price = proposal.price if proposal else None
    offers = composition.offers if composition else (row.offer,) if row.offer else ()
    return {
        "vendor": row.name,
        "offer": proposal.id if proposal else None,
        "parts": [_part(offer) for offer in composition.offers] if composition else [],
        "region": _joined(offer.region for offer in offers),
        "jurisdiction": _joined(offer.jurisdiction for offer in offers),
        "price_per_hour": float(price.per_hour) if price else None,
        "price_per_month": float(price.per_month) if price else None,
        "traffic_per_month": float(composition.traffic_month) if composition else None,
        "currency": price.currency if price else None,
        "guarantees": list(dict.fromkeys(g.words() for offer in offers for g in offer.guarantees)),
        "expires": proposal.expires.isoformat() if proposal else None,
        "monthly_cost": _number(row.monthly_cost),
        "score": row.score,
        "chosen": row.chosen,
        "efficient": row.efficient,
        "wins_below": _number(row.wins_below),
        "changes": changes(row),
        "criteria": [_criterion(criterion) for criterion in row.criteria],
        "excluded_because": [reason.model_dump(mode="json", exclude_none=True) for reason in row.excluded_because],
    }


def _part(offer: Offer) -> Json:
    return {
        "vendor": offer.vendor,
        "offer": offer.id,
        "components": list(offer.components),
        "price_per_hour": float(offer.price.per_hour),
        "price_per_month": float(offer.price.per_month),
    }


def _joined(words: Iterable[str]) -> str | None:
    return " + ".join(dict.fromkeys(words)) or None


async def accepted(workshop: Workshop, composition: Composition) -> Json:
    """A composition that was accepted, with the agreement that each of its offers became."""
    agreements = await workshop.store.all(Agreement, application=composition.application)
    offers = {offer.id for offer in composition.offers}
    made = [agreement.model_dump(mode="json") for agreement in agreements if agreement.offer in offers]
    return {
        "id": composition.id,
        "application": composition.application,
        "provider": composition.name,
        "agreements": made,
    }


def _criterion(criterion: Criterion) -> Json:
    return {
        "attribute": criterion.attribute,
        "value": criterion.value,
        "utility": float(criterion.utility),
        "weight": float(criterion.weight),
        "wins_above": _number(criterion.above),
        "wins_below": _number(criterion.below),
    }


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def comparison(document: Comparison) -> Json:
    """A comparison: its rows, best first."""
    return {
        "application": document.application,
        "call": document.call,
        "offers": [offer_row(row) for row in document.rows],
    }


def negotiation(document: Negotiation, comparison_: Comparison | None) -> Json:
    """A negotiation: who said what when (``seconds`` since it began), how it ended with each vendor, and the offers
    that came of it."""
    row = document.model_dump(mode="json", exclude={"version", "turns", "outcomes"})
    row["seconds"] = (document.ended - document.began).total_seconds()
    row["late"] = sum(1 for turn in document.turns if turn.act == "too-late")
    row["timeline"] = [
        turn.model_dump(mode="json", exclude={"changes"})
        | {
            "seconds": (turn.at - document.began).total_seconds(),
            "changes": {change.term: float(change.value) for change in turn.changes},
            "price_per_hour": None if turn.price_per_hour is None else float(turn.price_per_hour),
        }
        for turn in document.turns
    ]
    row["outcomes"] = [
        outcome.model_dump(mode="json")
        | {name: None if (p := getattr(outcome, name)) is None else float(p) for name in _OUTCOME_PRICES}
        for outcome in document.outcomes
    ]
    row["offers"] = comparison(comparison_)["offers"] if comparison_ else []
    return row


_OUTCOME_PRICES = ("first_per_hour", "last_per_hour")


async def vendors(workshop: Workshop, unusable: Iterable[Unusable] = ()) -> Json:
    """Every vendor: its module, what it can do (from the classes), where it is and whether it answers; those that are
    left out last."""
    rows = await asyncio.gather(*(_vendor(name, module) for name, module in workshop.modules.items()))
    for row in rows:  # who speaks for it
        row["agent"] = workshop.speaker(row["name"])
    return {"vendors": [*rows, *map(_left_out, unusable)]}


def _left_out(vendor: Unusable) -> Json:
    row: Json = {"name": vendor.name, "module": vendor.module, "agent": None, "proof": "unknown"}
    row |= {"capabilities": dict.fromkeys(CAPABILITIES, False), "operations": {}}
    return row | {"reachable": False, "problem": vendor.problem}


async def _vendor(name: str, module: VendorModule) -> Json:
    row = about(name, type(module)) | {"module": type(module).title}
    try:
        catalogue = await module.catalogue()
    except VendorError as error:
        return row | {"reachable": False, "problem": problem_of(error).message}
    row["capabilities"] |= dict.fromkeys(catalogue.lacks, False)
    return row | {
        "reachable": True,
        "region": catalogue.region,
        "jurisdiction": catalogue.jurisdiction,
        "currency": catalogue.currency,
        "sizes": [size.model_dump(mode="json") for size in catalogue.sizes],
    }


def directory(document: SearchResult) -> Json:
    """Who is registered, what they sell at which list prices, and whether they are there."""
    return {"registered": [_registered(each) for each in document.registrations]}


def _registered(each: Registration) -> Json:
    row = each.model_dump(mode="json", exclude={"version", "until", "gone"})
    row |= {"site": each.agent.partition("@")[2], "lease_until": each.until.isoformat(), "alive": each.gone is None}
    row |= {name: _number(getattr(each, name)) for name in ("price_from", "price_to")}
    return row | {"gone_since": each.gone.isoformat() if each.gone else None}


def template(document: AgreementTemplate) -> Json:
    """What a vendor sells, guarantees and negotiates, in words."""
    return {
        "id": document.id,
        "vendor": document.vendor,
        "regions": list(document.regions),
        "currency": document.currency,
        "services": [f"{service.kind or ''} {service.type}".strip() for service in document.services],
        "guarantees": [term.words() for term in document.guarantees],
        "negotiable": {constraint.term: constraint.words() for constraint in document.constraints},
    }


async def application_status(workshop: Workshop, name: str) -> Json:
    """Where an application stands: its deployment, resources, endpoints, agreements, and what is under way."""
    await workshop.store.get(Application, name)
    deployments = await workshop.store.all(Deployment, application=name, newest_first=True)
    agreements = await workshop.store.all(Agreement, application=name)
    observed = [agreement for agreement in agreements if agreement.state == "observed"]
    expired = [a for a in agreements if a.state == "expired" and deployments and a.id in deployments[0].agreements]
    now = deployments[0] if deployments else None
    return {
        "application": name,
        "status": now.status if now else "agreed" if observed else "submitted",
        "busy": workshop.busy.get(name),
        "deployment": now.id if now else None,
        "vendors": sorted({resource.vendor for resource in now.resources}) if now else [],
        "endpoints": {endpoint.component: endpoint.url for endpoint in now.endpoints} if now else {},
        "resources": [r.model_dump(mode="json", exclude_none=True) for r in now.resources] if now else [],
        "history": [{"at": e.at.isoformat(), "kind": e.kind, "text": e.text} for e in await _history(workshop, name)],
        "agreements": [
            {
                "id": a.id,
                "provider": a.provider,
                "state": a.state,
                "expires": a.expires.isoformat() if a.expires else None,
                "price_per_hour": float(a.price.per_hour),
                "currency": a.price.currency,
            }
            for a in [*observed, *expired]
        ],
        "unsettled": await unsettled(workshop, name),
    }


async def _history(workshop: Workshop, name: str) -> list[Event]:
    """What happened to the application, the latest last; single tasks are left out."""
    newest = await workshop.store.events(name, limit=HISTORY, newest_first=True, without="task-")
    return newest[::-1]


async def status(workshop: Workshop) -> Json:
    """All applications, pending clean-ups, and resources that serve nothing."""
    applications = await workshop.store.all(Application)
    leaks = await find_leaks(workshop)
    pending = {(cleanup.vendor, cleanup.key) for cleanup in await workshop.store.cleanups()}
    return {
        "applications": [await application_status(workshop, application.name) for application in applications],
        "cleanups": [
            {"vendor": c.vendor, "kind": c.kind, "key": c.key, "reason": c.reason, "attempts": c.attempts}
            for c in await workshop.store.cleanups()
        ],
        "leaked": [
            {"vendor": leak.vendor, "kind": leak.kind, "id": leak.id}
            for leak in leaks
            if (leak.vendor, leak.key) not in pending
        ],
    }
