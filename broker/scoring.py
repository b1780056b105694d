"""How good offers are beside each other: a weighted sum of utilities (multi-attribute utility), and who is dominated.

Everything is counted in whole numbers, so that scores, ties and what would change them are exact: amounts in
millionths, utilities in millionths of millionths, rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import get_args

from descriptors.application import Attribute, Requirements, Weight
from descriptors.comparison import Record
from descriptors.sla import MEASURES, Offer, Property

Weights = Mapping[Attribute, Decimal]

DEFAULT_WEIGHTS: Weights = MappingProxyType(
    {
        "price": Decimal("0.6"),
        "guarantees": Decimal("0.3"),
        "record": Decimal("0.2"),
        "locality": Decimal("0.2"),
        "carbon": Decimal("0.1"),
        "egress": Decimal("0.1"),
    }
)
"""How much each attribute counts where nobody says otherwise."""
SETUP_MONTHS = 12
"""Months that a setup fee is spread over."""
ONE = 10**12
"""The highest utility."""
PROPERTIES: tuple[Property, ...] = get_args(Property)
_MILLIONTHS = Decimal("0.000001")


@dataclass(frozen=True)
class Quality:
    """What a candidate offers by one attribute: an amount to compare, if there is one, and words to show."""

    amount: int | None
    words: str


_NO_GUARANTEE = Quality(None, "no guarantee")


@dataclass(frozen=True)
class Candidate:
    """Something to choose: a name to tell it by, what a month costs (in millionths), and how it does otherwise."""

    name: str
    month: int
    qualities: Mapping[Attribute, Quality]


@dataclass
class Standing:
    """How a candidate does among those it competes with."""

    candidate: Candidate
    utilities: dict[Attribute, int]
    score: int
    """In units of :data:`ONE` times the sum of the weights."""
    dominated: bool = field(default=False)

    @property
    def turn(self) -> tuple[bool, int, str]:
        """Decides between equal scores: never for the dominated, then for the cheaper, then by the name."""
        return self.dominated, self.candidate.month, self.candidate.name


def weights_of(requirements: Requirements, given: Iterable[Weight] = ()) -> Weights:
    """The usual weights, in place of which those of the descriptor count, in place of which those given."""
    changed = [*requirements.weights, *given]
    return {**DEFAULT_WEIGHTS, **{weight.attribute: weight.value for weight in changed}}


def candidate(
    offer: Offer, requirements: Requirements, record: Record | None = None, traffic: Decimal = Decimal(0)
) -> Candidate:
    """What there is to weigh in an offer of a vendor with that record; ``traffic``: what a month's egress costs."""
    month = monthly_cost(offer, traffic)
    qualities: dict[Attribute, Quality] = {
        "price": Quality(_millionths(month), f"{month:.2f} {offer.price.currency} a month"),
        "record": _NEWCOMER if record is None else _reliability(record),
        "egress": _amount(offer.price.egress_per_gib, f"{offer.price.currency} a GiB"),
        "carbon": _carbon(offer.carbon_g_per_kwh),
    }
    qualities |= dict.fromkeys(PROPERTIES, _NO_GUARANTEE)
    qualities |= {name: _guarantee(offer, name) for name in {term.property for term in offer.guarantees}}
    if requirements.preferences:
        qualities["locality"] = _nearness(offer, requirements)
    return Candidate(offer.vendor, _millionths(month), qualities)


def combined(chosen: Sequence[tuple[str, Candidate]], more: int, currency: str = "") -> Candidate:
    """Parts at vendors, as one: their costs and ``more`` (in millionths) add up. What is missing to full availability
    adds up over the vendors, each of which may be down at another time; by everything else they are as good as the
    worst of them."""
    month = sum(one.month for _, one in chosen) + more
    qualities: dict[Attribute, Quality] = {
        "price": Quality(month, f"{Decimal(month).scaleb(-6):.2f} {currency} a month")
    }
    for attribute in chosen[0][1].qualities:
        if attribute == "price":
            continue
        each = [(vendor, one.qualities[attribute]) for vendor, one in chosen]
        lacking = next((quality for _, quality in each if quality.amount is None), None)
        if lacking is not None:
            qualities[attribute] = lacking
        elif attribute in PROPERTIES and MEASURES[attribute].most is not None:
            qualities[attribute] = _added(attribute, each)
        else:
            worst = max if low_is_good(attribute) else min
            qualities[attribute] = worst((quality for _, quality in each), key=lambda one: one.amount or 0)
    return Candidate(" + ".join(dict.fromkeys(vendor for vendor, _ in chosen)), month, qualities)


def _added(attribute: Property, each: Sequence[tuple[str, Quality]]) -> Quality:
    """What is missing from the most there can be: of each vendor once, and together no more than all."""
    measure = MEASURES[attribute]
    most = measure.most or Decimal(0)
    missing: dict[str, int] = {}
    for vendor, quality in each:
        missing[vendor] = max(missing.get(vendor, 0), quality.amount or 0)
    amount = min(sum(missing.values()), _millionths(most))
    return Quality(amount, f"{(most - Decimal(amount).scaleb(-6)).normalize():f} {measure.unit}")


def monthly_cost(offer: Offer, traffic: Decimal = Decimal(0)) -> Decimal:
    """What a month costs: the price of the month, a twelfth of what is paid once, and the traffic."""
    price = offer.price
    return (price.per_month + price.setup / SETUP_MONTHS + traffic).quantize(_MILLIONTHS, ROUND_HALF_UP)


def _amount(value: Decimal, unit: str) -> Quality:
    return Quality(_millionths(value), f"{value:f} {unit}")


def _carbon(grams: Decimal | None) -> Quality:
    """What is not known is not known, and never nothing."""
    return Quality(None, "unknown") if grams is None else _amount(grams, "g CO2 a kWh")


def _millionths(value: Decimal) -> int:
    return int(value.scaleb(6))


def _reliability(record: Record) -> Quality:
    """How likely the vendor keeps its word next time, by Laplace's rule of succession: of a newcomer, a half."""
    kept = max(record.agreements - record.broken, 0)
    words = (
        f"{record.broken} of {kept + record.broken} agreements broken" if kept + record.broken else "no agreements yet"
    )
    paid = sum((incident.penalty or Decimal(0) for incident in record.incidents), Decimal(0))
    if paid:
        words += f", {paid:f} paid back"
    return Quality((kept + 1) * ONE // (kept + record.broken + 2), words)


_NEWCOMER = Quality(ONE // 2, "no agreements yet")


def _guarantee(offer: Offer, name: Property) -> Quality:
    """What is guaranteed; where there is a most (100 %), by what is missing from it."""
    value, measure = offer.guaranteed(name), MEASURES[name]
    if value is None:
        return Quality(None, "not for everything, or on a condition")
    return Quality(_millionths(value if measure.most is None else measure.most - value), f"{value:f} {measure.unit}")


def _nearness(offer: Offer, requirements: Requirements) -> Quality:
    wanted = requirements.preferences
    places = [place for place, label in enumerate(wanted) if label in (offer.region, offer.jurisdiction)]
    return Quality(len(wanted) - min(places, default=len(wanted)), f"{offer.region} ({offer.jurisdiction})")


def low_is_good(attribute: Attribute) -> bool:
    """Whether the smaller amount is the better one."""
    if attribute in PROPERTIES:
        measure = MEASURES[attribute]
        return not measure.more_is_better or measure.most is not None
    return attribute in ("price", "egress", "carbon")


def shares(candidates: Sequence[Candidate], weights: Weights) -> dict[Attribute, int]:
    """The weight of every attribute that some candidate has an amount of; only the proportions matter.

    What is guaranteed and has no weight of its own shares that of ``guarantees``, in equal parts.
    """
    known: dict[Attribute, None] = {
        name: None for one in candidates for name, quality in one.qualities.items() if quality.amount is not None
    }
    unnamed = [name for name in known if name in PROPERTIES and name not in weights]
    parts = len(unnamed) or 1
    order: tuple[Attribute, ...] = get_args(Attribute)
    return {
        name: _millionths(weights["guarantees"]) if name in unnamed else _millionths(weights[name]) * parts
        for name in sorted(known, key=order.index)
    }


def standings(candidates: Sequence[Candidate], parts: Mapping[Attribute, int]) -> list[Standing]:
    """The candidates, best first. By every attribute the best has utility 1; of another, where little is good, the
    utility is the best amount over its own, else its own over the best. What is not offered, or not known, earns
    nothing."""
    utilities: list[dict[Attribute, int]] = [{} for _ in candidates]
    for attribute in parts:
        amounts = [one.qualities[attribute].amount for one in candidates]
        for row, utility in zip(utilities, _utilities(amounts, low_is_good=low_is_good(attribute)), strict=True):
            row[attribute] = utility
    found = [
        Standing(one, row, sum(part * row[attribute] for attribute, part in parts.items()))
        for one, row in zip(candidates, utilities, strict=True)
    ]
    for standing in found:
        standing.dominated = True
    for standing in efficient(sorted(found, key=lambda s: -s.score)):
        standing.dominated = False
    return sorted(found, key=lambda s: (-s.score, s.turn))


def _utilities(amounts: Sequence[int | None], *, low_is_good: bool) -> list[int]:
    known = [amount for amount in amounts if amount is not None]
    best = (min if low_is_good else max)(known, default=0)
    return [
        0 if a is None else ONE if a == best else best * ONE // a if low_is_good else a * ONE // best for a in amounts
    ]


def efficient(found: Iterable[Standing]) -> list[Standing]:
    """Those that no other dominates (the Pareto front). Quickest where the best come first."""
    alike: dict[tuple[int | None, ...], list[Standing]] = {}  # none dominates another: a thousand may offer the same
    for each in found:
        qualities = each.candidate.qualities
        alike.setdefault(tuple([qualities[attribute].amount for attribute in each.utilities]), []).append(each)
    front: list[list[Standing]] = []
    for new in alike.values():
        if not any(_dominates(old[0], new[0]) for old in front):
            front = [old for old in front if not _dominates(new[0], old[0])]
            front.append(new)
    return [standing for group in front for standing in group]


def _dominates(one: Standing, other: Standing) -> bool:
    """Whether it is as good by every attribute, and better by one. What is not known is neither."""
    better = False
    for attribute in one.utilities:
        mine, theirs = one.candidate.qualities[attribute].amount, other.candidate.qualities[attribute].amount
        if mine == theirs:
            continue
        if (mine is None or theirs is None) and attribute == "carbon":
            return False
        if mine is None or (theirs is not None and (mine > theirs) == low_is_good(attribute)):
            return False
        better = True
    return better
