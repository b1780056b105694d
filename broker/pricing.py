"""How a vendor answers counter-offers: its pricing policy, as pure functions of what was said, and the clock.

The price that its module proposes is its list price. From it go a discount for who commits itself for long, one for
who buys much, and what the strategy concedes (see :mod:`broker.negotiation`). Below the floor it never goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.negotiation import STRATEGIES, Scale, Situation, Strategy, better, insist
from broker.terms import MICRO, changes, objections, revised, value
from descriptors.base import Percent, Quantity, Reference
from descriptors.digests import digest
from descriptors.resources import Reason
from descriptors.sla import MEASURES, AgreementTemplate, Constraint, CounterOffer, NegotiableTerm, Offer

_MONEY = ("setup", "egress-per-gib", "storage-per-gib-month", "move-egress-per-gib")
LONGEST_TERM = 3650
"""Days."""


class Discount(BaseModel):
    """So much off, in percent of the list price, from so much on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_: Quantity = Field(alias="from")
    """Days of commitment, or the list price of a month in the vendor's currency."""
    percent: Percent


class Policy(BaseModel):
    """A vendor's way to negotiate: the section ``negotiation`` of its file. Nothing said: nothing is negotiable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = "boulware"
    beta: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """The exponent of the time-dependent strategies; None: the strategy's own."""
    rounds: int = Field(default=4, ge=1, le=100)
    """Counter-offers after which it has conceded what it would."""
    floor: Percent | None = None
    """The lowest price, in percent of the list price, whatever the discounts add up to; None: what they add up to."""
    term_discounts: tuple[Discount, ...] = ()
    """For a minimum term of so many days."""
    volume_discounts: tuple[Discount, ...] = ()
    """For a list price of so much a month."""
    maximum_days: int | None = Field(default=None, ge=1, le=3660)
    """Its agreements end by themselves after so many days; None: when a party ends them."""
    limits: Mapping[NegotiableTerm, Quantity] = {}
    """How far it goes with other terms than the price per hour and the minimum term."""

    @model_validator(mode="after")
    def _says_each_in_its_place(self) -> Self:
        for term, where in (("price-per-hour", "floor"), ("minimum-days", "term_discounts")):
            if term in self.limits:
                raise ValueError(f"limits cannot have {term}: say it with {where}")
        return self

    @property
    def negotiable(self) -> bool:
        """Whether there is anything to talk about."""
        return self != type(self)(strategy=self.strategy, beta=self.beta, rounds=self.rounds)

    def constraints(self) -> tuple[Constraint, ...]:
        """What the vendor's template says is open, with what it can deliver; what it would sell for is not told."""
        found = [] if self.floor is None else [Constraint(term="price-per-hour")]
        if self.term_discounts:
            found.append(Constraint(term="minimum-days", at_most=Decimal(self.maximum_days or LONGEST_TERM)))
        for term, limit in self.limits.items():
            deliverable = limit if MEASURES[term].more_is_better else None
            quickest = limit if deliverable is None and term not in _MONEY else None
            found.append(Constraint(term=term, at_least=quickest, at_most=deliverable))
        return tuple(found)


def opening(listed: Offer, policy: Policy) -> Offer:
    """The first offer: the module's, at the discount for volume, with the policy's end. Its id tells it from the
    module's."""
    price = _asked(listed, Decimal(listed.price.minimum_days or 0), policy)
    offer = revised(listed, {"price-per-hour": price}, id=f"{listed.id}.0")
    if policy.maximum_days is None:
        return offer
    return offer.model_copy(update={"price": offer.price.model_copy(update={"maximum_days": policy.maximum_days})})


def listed_id(offer_id: str) -> str:
    """The id of the module's own offer that an :func:`opening` or an :func:`answer` was made from."""
    return offer_id.rpartition(".")[0]


def answer(
    counter: CounterOffer,
    listed: Offer,
    offers: Sequence[Offer],
    counters: Sequence[CounterOffer],
    policy: Policy,
    template: AgreementTemplate,
    now: datetime,
    strategies: Mapping[str, Strategy] = STRATEGIES,
) -> Offer | tuple[Reason, ...]:
    """The offer to answer a counter-offer with, or why it is not considered.

    ``listed``: the module's own offer for this call; ``offers``: those made after it, the opening first; ``counters``:
    those answered before. ``template``: with the policy's constraints. Every term that is asked for is met as far as
    the policy goes at the moment; what was asked for is given where it is less. What was offered already is not taken
    back, but for the price where the minimum term becomes shorter.
    """
    latest = offers[-1]
    if latest.expires <= now:
        return (Reason(code="expired", offered=latest.expires.isoformat(), message="the offer has expired"),)
    if flaws := objections(counter, latest, template, now):
        return flaws
    haggling = _Haggling(listed, offers, [changes(c) for c in (*counters, counter)], policy, strategies)
    return revised(
        latest,
        haggling.given(),
        id=f"{listed.id}.{len(counters) + 1}",
        issued=now,
        answers=Reference(id=counter.id, digest=digest(counter)),
        template=Reference(id=template.id, digest=digest(template)),
    )


@dataclass(frozen=True)
class _Haggling:
    """What :func:`answer` decides on: the offers made, and what was asked for, the latest last."""

    listed: Offer
    offers: Sequence[Offer]
    asked: Sequence[Mapping[NegotiableTerm, Decimal]]
    policy: Policy
    strategies: Mapping[str, Strategy]

    def given(self) -> dict[NegotiableTerm, Decimal]:
        """The terms of the next offer that differ from the latest."""
        latest, wanted = self.offers[-1], self.asked[-1]
        days_before = Decimal(latest.price.minimum_days or 0)
        days = wanted.get("minimum-days", days_before).to_integral_value(ROUND_CEILING)
        days = max(days, Decimal(self.listed.price.minimum_days or 0))
        price = self._price(days, wanted.get("price-per-hour"))
        if days >= days_before:
            price = min(price, latest.price.per_hour)
        given: dict[NegotiableTerm, Decimal] = {"minimum-days": days, "price-per-hour": price}
        for term in wanted.keys() - given.keys():
            conceded = self._conceded(term, value(self.listed, term), self.policy.limits[term])
            before = value(latest, term)
            given[term] = conceded if before is None or better(term, conceded, before) else before
        return given

    def _price(self, days: Decimal, wanted: Decimal | None) -> Decimal:
        """From the list price less the discounts down to the floor."""
        start = _asked(self.listed, days, self.policy)
        if wanted is None or self.policy.floor is None:
            return start
        return self._conceded("price-per-hour", start, _percent(self.listed, self.policy.floor))

    def _conceded(self, term: NegotiableTerm, start: Decimal | None, limit: Decimal) -> Decimal:
        """What is wanted of the term, if the vendor has come so far between ``start`` and ``limit``; else so far."""
        wanted = self.asked[-1][term]
        if start is None:
            reached = limit
        elif not better(term, limit, start):
            reached = start
        else:
            scale = Scale(best=start, worst=limit)
            situation = Situation(
                elapsed=min(len(self.asked) / self.policy.rounds, 1.0),
                mine=tuple(scale.content(v) for o in self.offers if (v := value(o, term)) is not None),
                theirs=tuple(scale.content(asked[term]) for asked in self.asked if term in asked),
                beta=self.policy.beta,
            )
            level = insist(self.strategies[self.policy.strategy], situation)
            rounding = ROUND_FLOOR if MEASURES[term].more_is_better else ROUND_CEILING
            reached = _rounded(scale.at(level), rounding)
        return reached if better(term, wanted, reached) else wanted


def _asked(listed: Offer, days: Decimal, policy: Policy) -> Decimal:
    """The price per hour without haggling, for a minimum term: the list price less the discounts for both."""
    off = _highest(policy.term_discounts, days) + _highest(policy.volume_discounts, listed.price.per_month)
    return _percent(listed, max(100 - off, policy.floor or Decimal(0)))


def _percent(listed: Offer, percent: Decimal) -> Decimal:
    return _rounded(listed.price.per_hour * percent / 100, ROUND_CEILING)


def _highest(discounts: Sequence[Discount], amount: Decimal) -> Decimal:
    return max((d.percent for d in discounts if amount >= d.from_), default=Decimal(0))


def _rounded(amount: Decimal, rounding: str) -> Decimal:
    return amount.quantize(MICRO, rounding).normalize() + Decimal(0)
