"""Service level agreements: offers, refusals and agreements (after WS-Agreement, GFD.192: parties, service terms,
guarantee terms, expiry)."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.application import Label
from descriptors.base import Currency, Digest, Document, Element, Identifier, Moment, Money, Name, Percent
from descriptors.resources import Reason, ResourceClass

HOURS_PER_MONTH = 730
"""Hours in the month that prices are quoted for (365 * 24 / 12)."""


class PriceTerms(Element, tag="price"):
    """What everything offered costs together."""

    currency: Currency = attr()
    per_hour: Money = attr()
    per_month: Money = attr()
    setup: Money = attr(default=Decimal(0))
    """Once, at the start."""
    egress_per_gib: Money = attr(default=Decimal(0))
    """For every GiB that leaves the vendor's network."""


class GuaranteeTerm(Element, tag="guarantee"):
    """One service level objective: a measurable property, what it is held to, and what a breach costs the vendor."""

    name: Name = attr()
    property: Literal["availability"] = attr()
    at_least: Percent = attr()
    """In percent of the assessment window."""
    window_days: int = attr(default=30, gt=0, le=366)
    penalty: Percent = attr()
    """Part of the window's price paid back when the objective is missed, in percent."""


class Allocation(Element, tag="allocation"):
    """What a vendor would give for one resource class."""

    resource: Name = attr()
    size: Identifier = attr()
    """The vendor's name for it, such as a flavour; ``machine-disk`` for a volume that would be adapted."""
    price_per_hour: Money = attr()


class Offer(Document, tag="offer"):
    """A vendor's answer to a call for proposals, binding until it expires."""

    id: Identifier = attr()
    call: Identifier = attr()
    application: Name = attr()
    vendor: Name = attr()
    issued: Moment = attr()
    expires: Moment = attr()
    region: Label = attr()
    jurisdiction: Label = attr()
    price: PriceTerms = element(tag="price")
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    """The service terms: the resource classes of the call."""
    allocations: tuple[Allocation, ...] = wrapped("allocations", element(tag="allocation", min_length=1))
    guarantees: tuple[GuaranteeTerm, ...] = wrapped("guarantees", element(tag="guarantee", default=()))

    def availability(self) -> Percent | None:
        """The availability guaranteed, in percent; None if none is."""
        return max((g.at_least for g in self.guarantees if g.property == "availability"), default=None)


class Refusal(Document, tag="refusal"):
    """A vendor's answer that it will not serve a call, and why."""

    call: Identifier = attr()
    vendor: Name = attr()
    reasons: tuple[Reason, ...] = element(tag="reason", min_length=1)


class Ranked(Element, tag="ranked"):
    """One vendor's row in a comparison: an offer with its score, or the reasons why the vendor is left out."""

    vendor: Name = attr()
    score: float | None = attr(default=None, ge=0, le=1, allow_inf_nan=False)
    """Weighted utility from 0 (worst) to 1 (best); None when excluded."""
    chosen: bool = attr(default=False)
    offer: Offer | None = element(tag="offer", default=None)
    excluded_because: tuple[Reason, ...] = element(tag="reason", default=())


class Comparison(Document, tag="comparison"):
    """The broker's answer to a call: every vendor that was asked, best first, the excluded last."""

    call: Identifier = attr()
    application: Name = attr()
    rows: tuple[Ranked, ...] = element(tag="ranked", default=())

    @property
    def chosen(self) -> Offer | None:
        """The recommended offer; None when every vendor is excluded."""
        return next((row.offer for row in self.rows if row.chosen), None)


class Agreement(Document, tag="agreement"):
    """An accepted offer: who owes what to whom, for which price."""

    id: Identifier = attr()
    application: Name = attr()
    offer: Identifier = attr()
    offer_digest: Digest = attr()
    """BLAKE3 of the accepted offer's canonical bytes: the agreement is about that offer and no other."""
    provider: Name = attr()
    consumer: Name = attr()
    state: Literal["observed", "terminated"] = attr()
    agreed: Moment = attr()
    price: PriceTerms = element(tag="price")
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    """The resource classes, now tied to the provider and to this agreement."""
    allocations: tuple[Allocation, ...] = wrapped("allocations", element(tag="allocation", min_length=1))
    guarantees: tuple[GuaranteeTerm, ...] = wrapped("guarantees", element(tag="guarantee", default=()))
