"""The offers for an application as one page to send to somebody: it needs nothing from elsewhere, and runs nothing."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from agency.api.changes import changes
from agency.api.views import offer_row
from descriptors.application import Application
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison, Ranked
from descriptors.documents import digest
from descriptors.resources import ResourceClass

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may do with the page: show it."""
DETAILED = 20
"""Offers that have a part of the page of their own; beyond, the table must do."""

_TEMPLATES = Environment(
    loader=PackageLoader("agency.api"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def offers_html(application: Application, call: CallForProposals, comparison: Comparison, now: datetime) -> str:
    """The page: who asked for what, the offers ranked, each with its terms, who was left out and why, and what would
    change the result. Whatever comes from documents is escaped."""
    ranked = [row for row in comparison.rows if not row.excluded_because]
    template = _TEMPLATES.get_template("offers.html")
    return template.render(
        policy=CONTENT_POLICY,
        guarantees=lambda row: offer_row(row)["guarantees"],
        application=application,
        call=call,
        now=now,
        wanted=[_resource(resource) for resource in call.resources],
        requirements=_requirements(call),
        flows=call.flows,
        ranked=ranked,
        detailed=[_detail(row) for row in ranked[:DETAILED]],
        excluded=[row for row in comparison.rows if row.excluded_because],
    )


def _detail(row: Ranked) -> dict[str, Any]:
    offers = row.composition.offers if row.composition else (row.offer,)
    signed = [(offer, digest(offer)) for offer in offers if offer is not None]
    return {"row": row, "price": row.proposal and row.proposal.price, "offers": signed, "changes": changes(row)}


def _resource(resource: ResourceClass) -> tuple[str, str, str]:
    """Name, type, and what it must at least have."""
    amounts = (
        (resource.nodes, "node"), (resource.cores, "core"),
        (resource.memory_mib, "MiB memory"), (resource.size_mib, "MiB"),
    )  # fmt: skip
    counted = [(amount, unit) for amount, unit in amounts if amount is not None]
    words = ", ".join(f"{n} {unit}{'s' * (n != 1 and not unit.startswith('MiB'))}" for n, unit in counted)
    return resource.name, " ".join(filter(None, [resource.kind, resource.type.lower()])), words or "any size"


def _requirements(call: CallForProposals) -> list[tuple[str, str]]:
    """What must be met, and what is preferred, in words."""
    wanted = call.requirements
    cap = None if wanted.price_cap is None else f"at most {wanted.price_cap:f} {wanted.currency} a month"
    rows = (
        ("Region", " or ".join(wanted.regions)),
        ("Jurisdiction", " or ".join(wanted.jurisdictions)),
        ("Availability", _at_least(wanted.availability)),
        ("Price", cap or ""),
        ("Currency", wanted.currency),
        ("Preferred, not required", ", then ".join(wanted.preferences)),
    )
    return [row for row in rows if row[1]]


def _at_least(availability: Decimal | None) -> str:
    return "" if availability is None else f"at least {availability:f} % guaranteed"
