"""Service level agreements: templates, offers, counter-offers, refusals and agreements.

After WS-Agreement (GFD.192: context, service terms, guarantee terms, creation constraints, states) and WS-Agreement
Negotiation (GFD.193: counter-offers, renegotiation). An offer binds the vendor; a counter-offer binds nobody: it says
what its sender would rather be offered. Only an agreement ends a negotiation, and it names the offer by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, Self

from pydantic import model_validator
from pydantic_xml import attr, element, wrapped

from descriptors.application import Label
from descriptors.base import (
    Currency,
    Digest,
    Document,
    Element,
    Identifier,
    Misfit,
    Moment,
    Money,
    Name,
    Percent,
    Quantity,
    Reference,
    raise_misfits,
)
from descriptors.resources import Reason, ResourceClass, ResourceType

HOURS_PER_MONTH = 730
"""Hours in the month that prices are quoted for (365 * 24 / 12)."""

Property = Literal["availability", "response-time", "throughput", "request-rate", "recovery-time", "recovery-point"]
"""What a service level objective can be about; how each is measured is in :data:`MEASURES`."""
PriceTerm = Literal["price-per-hour", "setup", "egress-per-gib", "storage-per-gib-month"]
NegotiableTerm = Literal[
    PriceTerm,
    "minimum-days",
    "validity-seconds",
    "move-egress-per-gib",
    "move-window-hours",
    "move-downtime-seconds",
    Property,
]
"""The terms that a counter-offer may change. ``validity-seconds``: how long the next offer stands; ``move-…``: the
terms of a relocation, see :class:`MoveTerms`."""
Term = Literal[NegotiableTerm, "cores", "memory-mib", "size-mib", "nodes"]
"""The terms that a template may constrain: the negotiable ones, and the quantities that a call asks for."""


@dataclass(frozen=True)
class Measure:
    """How a term is measured, and which way the consumer wants it."""

    unit: str
    """As people write it behind the number; ``money`` stands for the currency of the offer."""
    more_is_better: bool = False
    most: Decimal | None = None
    """The highest value that there can be."""


MEASURES: Mapping[NegotiableTerm, Measure] = {
    "price-per-hour": Measure("money/hour"),
    "setup": Measure("money"),
    "egress-per-gib": Measure("money/GiB"),
    "storage-per-gib-month": Measure("money/GiB and month"),
    "minimum-days": Measure("days"),
    "validity-seconds": Measure("s", more_is_better=True),
    "move-egress-per-gib": Measure("money/GiB"),
    "move-window-hours": Measure("h"),
    "move-downtime-seconds": Measure("s"),
    "availability": Measure("%", more_is_better=True, most=Decimal(100)),
    "response-time": Measure("ms"),
    "throughput": Measure("MiB/s", more_is_better=True),
    "request-rate": Measure("requests/s", more_is_better=True),
    "recovery-time": Measure("s"),
    "recovery-point": Measure("s"),
}
"""Every negotiable term. ``recovery-time``: how long a failure lasts; ``recovery-point``: how much of the latest work
it may cost (both ISO 22301)."""


class PriceTerms(Element, tag="price"):
    """What everything offered costs together."""

    currency: Currency = attr()
    per_hour: Money = attr()
    per_month: Money = attr()
    setup: Money = attr(default=Decimal(0))
    """Once, at the start."""
    egress_per_gib: Money = attr(default=Decimal(0))
    """For every GiB that leaves the vendor's network."""
    storage_per_gib_month: Money | None = attr(default=None)
    """For every GiB stored beyond what was asked for; None: it cannot grow."""
    minimum_days: int | None = attr(default=None, gt=0, le=3660)
    """The least time that is paid for; None: by the hour."""
    maximum_days: int | None = attr(default=None, gt=0, le=3660)
    """The agreement ends by itself after so many days; None: when a party ends it."""


class MoveTerms(Element, tag="move"):
    """What a vendor promises for one relocation, to it or away from it."""

    egress_per_gib: Money | None = attr(default=None)
    """For every GiB that leaves its network in the move; None: what the price terms say."""
    window_hours: Quantity | None = attr(default=None)
    """The transfer is done within so many hours."""
    downtime_seconds: Quantity | None = attr(default=None)
    """The service is away for no longer."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.egress_per_gib, self.window_hours, self.downtime_seconds) == (None, None, None):
            raise ValueError("move needs one of egress_per_gib, window_hours, downtime_seconds")
        return self


class _Bounded(Element):
    """Something that is measured, and a bound: exactly one, at least or at most."""

    property: Property = attr()
    at_least: Quantity | None = attr(default=None)
    at_most: Quantity | None = attr(default=None)

    def bound(self) -> Decimal:
        """The value that it is held to."""
        value = self.at_most if self.at_least is None else self.at_least
        assert value is not None  # noqa: S101 - the validator saw to it
        return value

    def words(self) -> str:
        """For people: ``99.9 % availability``, ``at most 200 ms response-time``."""
        bound = "at most " if self.at_least is None else ""
        return f"{bound}{self.bound():f} {MEASURES[self.property].unit} {self.property}"

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.property} needs one bound: at_least or at_most")
        most = MEASURES[self.property].most
        if most is not None and self.bound() > most:
            raise ValueError(f"{self.property} is at most {most} {MEASURES[self.property].unit}, not {self.bound():f}")
        return self


class Condition(_Bounded, tag="condition"):
    """A qualifying condition: the guarantee holds while the property, measured over its window, is within the bound."""


class GuaranteeTerm(_Bounded, tag="guarantee"):
    """One service level objective: a measurable property, what it is held to, and what a breach costs the vendor."""

    name: Name = attr()
    window_days: int = attr(default=30, gt=0, le=366)
    """The assessment window: what is measured is taken over so many days."""
    penalty: Percent = attr()
    """Part of the window's price paid back when the objective is missed, in percent."""
    reward: Percent | None = attr(default=None)
    """Part of the window's price paid on top when the objective is met, in percent."""
    importance: int | None = attr(default=None, ge=1, le=100)
    """How much it matters to the consumer beside the other guarantees; only proportions count."""
    scope: tuple[Name, ...] = element(tag="scope", default=())
    """The resource classes that it is about; empty: all that is offered."""
    condition: Condition | None = element(tag="condition", default=None)

    @model_validator(mode="after")
    def _bounded_on_the_right_side(self) -> Self:
        side = "at_least" if MEASURES[self.property].more_is_better else "at_most"
        if getattr(self, side) is None:
            raise ValueError(f"a guarantee of {self.property} says {side}")
        return self


class Allocation(Element, tag="allocation"):
    """What a vendor would give for one resource class."""

    resource: Name = attr()
    size: Identifier = attr()
    """The vendor's name for it, such as a flavour; ``machine-disk`` for a volume that would be adapted."""
    price_per_hour: Money = attr()


Party = Literal["provider", "consumer"]
CONSUMER = "deployer"
"""The party that offers are made to, and agreements with."""


class Offer(Document, tag="offer"):
    """A vendor's answer to a call for proposals or to a counter-offer, binding until it expires.

    The parties: the vendor is the provider, the deployer it is made to the consumer. Who began the conversation is the
    initiator, the other the responder (GFD.192, context).
    """

    id: Identifier = attr()
    call: Identifier = attr()
    application: Name = attr()
    vendor: Name = attr()
    issued: Moment = attr()
    expires: Moment = attr()
    region: Label = attr()
    jurisdiction: Label = attr()
    carbon_g_per_kwh: Quantity | None = attr(default=None)
    """Grams of CO2 for a kilowatt-hour of the region's power; None: not known."""
    consumer: Identifier | None = attr(default=None)
    """Whom it is made to; None: whoever sent the call."""
    initiator: Party | None = attr(default=None)
    """Who began; None: the consumer."""
    price: PriceTerms = element(tag="price")
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    """The service terms: the resource classes of the call."""
    allocations: tuple[Allocation, ...] = wrapped("allocations", element(tag="allocation", min_length=1))
    guarantees: tuple[GuaranteeTerm, ...] = wrapped("guarantees", element(tag="guarantee", default=()))
    move: MoveTerms | None = element(tag="move", default=None)
    """Of an offer for a relocation."""
    template: Reference | None = element(tag="template", default=None)
    """The template that it was made after."""
    answers: Reference | None = element(tag="answers", default=None)
    """The counter-offer that it answers; None: the call itself."""
    supersedes: Reference | None = element(tag="supersedes", default=None)
    """The agreement that would be replaced (renegotiation)."""
    components: tuple[Name, ...] = element(tag="component", default=())
    """The components that it is for; none: the whole application."""

    def guaranteed(self, property: Property) -> Decimal | None:  # noqa: A002 - the document's own word
        """What is guaranteed of the property for everything offered: of the best guarantee of each resource class
        the worst, None where one has none. What holds on a condition only is not counted."""
        found = [g for g in self.guarantees if g.property == property and g.condition is None]
        best, worst = (max, min) if MEASURES[property].more_is_better else (min, max)
        each = [[g.bound() for g in found if not g.scope or resource.name in g.scope] for resource in self.resources]
        return worst(best(bounds) for bounds in each) if all(each) else None

    def availability(self) -> Decimal | None:
        """The availability guaranteed, in percent; None if none is."""
        return self.guaranteed("availability")


class Change(Element, tag="change"):
    """A term, and the value that it should have instead, in the unit of :data:`MEASURES`."""

    term: NegotiableTerm = attr()
    value: Quantity = attr()


class CounterOffer(Document, tag="counter-offer"):
    """What one party would rather have than the offer named (GFD.193): the vendor may answer with another offer.

    It changes terms, never what is asked for, and only where the vendor's template has a constraint for the term.
    """

    id: Identifier = attr()
    call: Identifier = attr()
    application: Name = attr()
    vendor: Name = attr()
    consumer: Identifier | None = attr(default=None)
    issued: Moment = attr()
    expires: Moment = attr()
    """Answers after this moment are not used."""
    offer: Reference = element(tag="offer")
    """The offer that it answers, and no other."""
    changes: tuple[Change, ...] = element(tag="change", min_length=1)

    @model_validator(mode="after")
    def _each_term_once(self) -> Self:
        terms = [change.term for change in self.changes]
        misfits: list[Misfit] = [
            (("changes", i), f"{term} is changed twice") for i, term in enumerate(terms) if term in terms[:i]
        ]
        raise_misfits("counter-offer", misfits)
        return self


class Service(Element, tag="service"):
    """A kind of resource that a vendor sells."""

    type: ResourceType = attr()
    kind: Literal["block", "object"] | None = attr(default=None)
    """Of STORAGE."""


class Constraint(Element, tag="constraint"):
    """A creation constraint: what an offer or a counter-offer may say of one term. Neither range nor choices: all."""

    term: Term = attr()
    type: ResourceType | None = attr(default=None)
    """Of quantities: the resource type it is about; None: all that have the quantity."""
    at_least: Quantity | None = attr(default=None)
    at_most: Quantity | None = attr(default=None)
    choices: tuple[Quantity, ...] = element(tag="choice", default=())
    """The only values there are; one: the term is fixed."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.choices and (self.at_least, self.at_most) != (None, None):
            raise ValueError(f"constraint on {self.term}: give a range or choices, not both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"constraint on {self.term}: at_least is over at_most, so nothing fits")
        return self

    def allows(self, value: Decimal | int) -> bool:
        """Whether the term may have the value."""
        if self.choices:
            return value in self.choices
        return (self.at_least is None or self.at_least <= value) and (self.at_most is None or value <= self.at_most)

    def words(self) -> str:
        """For people: ``0.5 to 1``, ``1 or 2``, ``anything``."""
        if self.choices:
            return " or ".join(f"{choice:f}" for choice in self.choices)
        low, high = self.at_least, self.at_most
        if low is not None and high is not None:
            return f"{low:f} to {high:f}"
        return f"at least {low:f}" if low is not None else f"at most {high:f}" if high is not None else "anything"


class AgreementTemplate(Document, tag="agreement-template"):
    """What a vendor publishes: the services it sells, what it guarantees, and what can be negotiated within which
    bounds (GFD.192: agreement template, creation constraints). A negotiable term without a constraint is not open."""

    id: Identifier = attr()
    vendor: Name = attr()
    issued: Moment = attr()
    expires: Moment = attr()
    currency: Currency = attr()
    jurisdiction: Label = attr()
    regions: tuple[Label, ...] = element(tag="region", min_length=1)
    services: tuple[Service, ...] = wrapped("services", element(tag="service", min_length=1))
    guarantees: tuple[GuaranteeTerm, ...] = wrapped("guarantees", element(tag="guarantee", default=()))
    """What every offer guarantees unless something else is agreed."""
    constraints: tuple[Constraint, ...] = wrapped("constraints", element(tag="constraint", default=()))


class Refusal(Document, tag="refusal"):
    """A vendor's answer that it will not serve a call, and why."""

    call: Identifier = attr()
    vendor: Name = attr()
    reasons: tuple[Reason, ...] = element(tag="reason", min_length=1)


AgreementState = Literal["pending", "observed", "rejected", "terminated", "expired"]
"""GFD.192's states. ``pending``: accepted, and not confirmed by the vendor yet; ``observed``: it binds; ``rejected``:
the vendor did not confirm it; ``terminated``: ended by a party; ``expired``: its time is over (GFD.192: complete)."""

TRANSITIONS: Mapping[AgreementState, frozenset[AgreementState]] = {
    "pending": frozenset({"observed", "rejected", "terminated", "expired"}),
    "observed": frozenset({"terminated", "expired"}),
    "rejected": frozenset(),
    "terminated": frozenset(),
    "expired": frozenset(),
}
"""Which states may follow each."""


def ends(agreed: datetime, price: PriceTerms) -> datetime | None:
    """When an agreement on these terms ends by itself; None: it does not."""
    return None if price.maximum_days is None else agreed + timedelta(days=price.maximum_days)


class Agreement(Document, tag="agreement"):
    """An accepted offer: who owes what to whom, for which price."""

    id: Identifier = attr()
    application: Name = attr()
    offer: Identifier = attr()
    offer_digest: Digest = attr()
    """BLAKE3 of the accepted offer's canonical bytes: the agreement is about that offer and no other."""
    provider: Name = attr()
    consumer: Name = attr()
    state: AgreementState = attr()
    agreed: Moment = attr()
    expires: Moment | None = attr(default=None)
    """When it ends by itself; None: when a party ends it."""
    price: PriceTerms = element(tag="price")
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    """The resource classes, now tied to the provider and to this agreement."""
    allocations: tuple[Allocation, ...] = wrapped("allocations", element(tag="allocation", min_length=1))
    guarantees: tuple[GuaranteeTerm, ...] = wrapped("guarantees", element(tag="guarantee", default=()))
    move: MoveTerms | None = element(tag="move", default=None)
    supersedes: Reference | None = element(tag="supersedes", default=None)
    """The agreement that it replaced (renegotiation)."""
    components: tuple[Name, ...] = element(tag="component", default=())
    """The components that it is for; none: the whole application."""

    def become(self, state: AgreementState) -> Agreement:
        """The agreement in another state; itself if it is in it already. ``ValueError`` where that cannot follow."""
        if state == self.state:
            return self
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"agreement {self.id} is {self.state}: it cannot become {state}")
        return self.model_copy(update={"state": state})
