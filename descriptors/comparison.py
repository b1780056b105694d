"""What the broker answers to a call: every vendor that was asked, weighed, with what would change the result; and what
is known of how vendors behaved."""

from __future__ import annotations

from pydantic import Field
from pydantic_xml import attr, element

from descriptors.application import Attribute
from descriptors.base import Count, Document, Element, Identifier, Moment, Money, Name, Printable, Revision, Share
from descriptors.resources import Reason
from descriptors.sla import Offer, PriceTerms


class Incident(Element, tag="incident"):
    """One time when a vendor did not do what it had agreed to."""

    about: Identifier = attr()
    """The offer that it did not stand by, or the operation that it let fail: each counts once."""
    code: Name = attr()
    """A stable word: ``not-stood-by``, ``failed-to-deliver``, ``violated``."""
    application: Name = attr()
    at: Moment = attr()
    penalty: Money | None = attr(default=None)
    """What the vendor paid back for it, in the currency of the agreement."""
    message: Printable = Field(min_length=1, max_length=1024)


class Record(Document, tag="record"):
    """How a vendor has behaved towards this agency."""

    vendor: Name = attr()
    revision: Revision = attr(default=1)
    agreements: Count = attr(default=0)
    """Agreements that were made with it."""
    broken: Count = attr(default=0)
    """Times when it did not do what it had agreed to, or had offered and was held to."""
    incidents: tuple[Incident, ...] = element(tag="incident", default=())
    """The latest of them, the last one last."""


class Criterion(Element, tag="criterion"):
    """How one offer does by one attribute, and what that attribute's weight has to do with who wins."""

    attribute: Attribute = attr()
    utility: Share = attr()
    """From 0 (worst) to 1 (the best of those compared)."""
    weight: Share = attr()
    """The attribute's part in the score; all parts together are 1."""
    above: Share | None = attr(default=None)
    """The offer wins wherever the attribute's part lies between ``above`` and ``below``, the others keeping their
    proportions. Neither: whatever its part is, another offer wins."""
    below: Share | None = attr(default=None)
    value: Printable = Field(min_length=1, max_length=255)
    """What is offered, in words."""


class Composition(Document, tag="composition"):
    """An application shared out among vendors: an offer for each part, to be accepted all together or not at all."""

    id: Identifier = attr()
    call: Identifier = attr()
    application: Name = attr()
    expires: Moment = attr()
    """When the first of its offers does."""
    traffic_month: Money = attr()
    """What the egress between the vendors, and to the world, costs in a month."""
    proven: bool = attr(default=True)
    """Whether every other way to share it out was ruled out; else there were too many to look at."""
    price: PriceTerms = element(tag="price")
    """What the offers cost together, without the traffic; for egress the dearest."""
    offers: tuple[Offer, ...] = element(tag="offer", min_length=1)

    @property
    def name(self) -> str:
        """The vendors, in the order of the parts."""
        return " + ".join(dict.fromkeys(offer.vendor for offer in self.offers))


class Ranked(Element, tag="ranked"):
    """A row in a comparison: a vendor's offer, or several vendors' put together, with its score; or the reasons why
    the vendor is left out."""

    vendor: Name | None = attr(default=None)
    """None: of several vendors."""
    score: float | None = attr(default=None, ge=0, le=1, allow_inf_nan=False)
    """Weighted utility from 0 (worst) to 1 (best); None when excluded."""
    chosen: bool = attr(default=False)
    efficient: bool = attr(default=False)
    """No other qualified offer is at least as good by every attribute and better by one (Pareto)."""
    monthly_cost: Money | None = attr(default=None)
    """What a month costs with all that is in the price; see :func:`broker.scoring.monthly_cost`."""
    wins_below: Money | None = attr(default=None)
    """The offer wins if a month costs less than this and all else stays as it is. None: its price does not decide."""
    offer: Offer | None = element(tag="offer", default=None)
    composition: Composition | None = element(tag="composition", default=None)
    criteria: tuple[Criterion, ...] = element(tag="criterion", default=())
    excluded_because: tuple[Reason, ...] = element(tag="reason", default=())

    @property
    def name(self) -> str:
        """The vendor, or the vendors."""
        return self.composition.name if self.composition else self.vendor or ""

    @property
    def proposal(self) -> Offer | Composition | None:
        """What can be accepted."""
        return self.offer or self.composition


class Comparison(Document, tag="comparison"):
    """The broker's answer to a call: every vendor that was asked, best first, the excluded last."""

    call: Identifier = attr()
    application: Name = attr()
    rows: tuple[Ranked, ...] = element(tag="ranked", default=())

    @property
    def chosen(self) -> Offer | None:
        """The recommended vendor's offer; None when every vendor is excluded, or several vendors are recommended."""
        return next((row.offer for row in self.rows if row.chosen), None)
