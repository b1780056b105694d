"""How a buyer haggles with one vendor: pure functions of what was said, the limits, and the clock.

A *strategy* says how much one wants at a given moment, from 1 (everything hoped for) to 0 (the least that is
acceptable). After Faratin, Sierra and Jennings, "Negotiation decision functions for autonomous agents" (1998):
time-dependent tactics with an exponent beta (boulware concedes late, conceder early) and the relative tit-for-tat. The
vendor's side, :mod:`broker.pricing`, uses the same strategies.

Whatever a strategy answers: nothing is asked for or accepted beyond the limits, an offer that expired or that was
altered is never accepted, and after so many rounds, or at the deadline, it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from types import MappingProxyType
from typing import get_args

from broker.terms import MICRO, MOVES, changes, revised, value
from descriptors.base import Reference
from descriptors.cfp import CallForProposals
from descriptors.digests import digest
from descriptors.resources import Reason
from descriptors.sla import (
    HOURS_PER_MONTH,
    MEASURES,
    AgreementTemplate,
    Change,
    Constraint,
    CounterOffer,
    NegotiableTerm,
    Offer,
)

# --- strategies ---


@dataclass(frozen=True)
class Situation:
    """What a strategy decides on. Levels of content lie between 0 (the least acceptable) and 1 (all one hopes for)."""

    elapsed: float
    """Part of the time, or of the rounds if that is more, that is gone: 0 to 1."""
    mine: tuple[float, ...]
    """How content one would have been with what one asked for, each time, oldest first."""
    theirs: tuple[float, ...]
    """How content one would have been with what the other offered, each time, oldest first."""
    beta: float | None = None
    """The exponent of the time-dependent strategies; None: the strategy's own."""


Strategy = Callable[[Situation], float]
"""How content to insist on being now."""


def _by_time(beta: float) -> Strategy:
    """Concedes with time alone: ``1 - elapsed ** (1 / beta)``."""

    def level(now: Situation) -> float:
        return 1 - math.pow(now.elapsed, 1 / (now.beta or beta))

    return level


def _tit_for_tat(now: Situation) -> float:
    """Comes as much nearer as the other did: by the part of the distance to one's hopes that the other gave up."""
    latest = now.mine[-1] if now.mine else 1.0
    if len(now.theirs) < 2 or now.theirs[-2] >= 1:
        return latest
    left = (1 - now.theirs[-1]) / (1 - now.theirs[-2])
    return latest * min(max(left, 0.0), 1.0)


def _fixed(_: Situation) -> float:
    """Never concedes."""
    return 1.0


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {"boulware": _by_time(0.2), "conceder": _by_time(5.0), "tit-for-tat": _tit_for_tat, "fixed": _fixed}
)
"""The strategies there are, by name. Others can be handed in beside them."""


def insist(strategy: Strategy, situation: Situation) -> float:
    """What the strategy answers, held between 0 and 1 and never above what was asked for before. What is no number
    counts as insisting."""
    before = min(situation.mine, default=1.0)
    level = float(strategy(situation))
    return before if math.isnan(level) else min(max(level, 0.0), before)


# --- the buyer's limits ---


@dataclass(frozen=True)
class Scale:
    """What a buyer wants of one term: hopes for ``best``, takes nothing beyond ``worst`` (the reservation value)."""

    best: Decimal
    worst: Decimal
    weight: float = 1.0
    """How much it counts beside other terms."""

    def content(self, said: Decimal) -> float:
        """1 at the best or better, 0 at the worst."""
        if self.best == self.worst:
            return 1.0
        return float(min(max((said - self.worst) / (self.best - self.worst), Decimal(0)), Decimal(1)))

    def at(self, level: float) -> Decimal:
        """The value that one is so content with."""
        return self.worst + (self.best - self.worst) * Decimal(repr(level))


@dataclass(frozen=True)
class Limits:
    """How far a buyer goes with one vendor, and how it goes about it."""

    scales: Mapping[NegotiableTerm, Scale]
    """The terms to negotiate. Every other term must stay as good as it was offered first."""
    begins: datetime
    deadline: datetime
    rounds: int = 4
    """Most counter-offers to make."""
    budget: Decimal | None = None
    """Most that a month may cost."""
    commit_days: int | None = None
    """The minimum term that it would agree to; told to vendors that negotiate it, and never exceeded."""
    reservation: float = 0.0
    """How content one must be in all, from 0 to 1, to accept."""
    strategy: str = "boulware"
    beta: float | None = None


def usual_limits(
    offer: Offer, call: CallForProposals, begins: datetime, deadline: datetime, *, ambition: Decimal = Decimal("0.2")
) -> Limits:
    """Limits for a vendor that has made its first offer: to pay up to ``ambition`` less per hour, for setup and for
    traffic, and in no case more than was offered or than the call's cap; guarantees no lower than required."""
    scales: dict[NegotiableTerm, Scale] = {}
    for term in ("price-per-hour", "setup", "egress-per-gib", *(MOVES if call.purpose == "relocation" else ())):
        said = value(offer, term)
        if said:
            scales[term] = Scale(best=_cut(said * (1 - ambition)), worst=said)
    required = call.requirements.availability
    said = value(offer, "availability")
    if required is not None and said is not None:
        scales["availability"] = Scale(best=max(said, required), worst=required)
    return Limits(scales, begins, deadline, budget=call.requirements.price_cap)


def content(offer: Offer, limits: Limits) -> float:
    """How content the buyer is with the offer: the weighted mean over its terms, 0 to 1."""
    whole = sum(scale.weight for scale in limits.scales.values())
    if not whole:
        return 1.0
    said = {term: value(offer, term) for term in limits.scales}
    parts = [scale.weight * scale.content(v) for term, scale in limits.scales.items() if (v := said[term]) is not None]
    return sum(parts) / whole


# --- the buyer's moves ---


@dataclass(frozen=True)
class History:
    """What was said between the buyer and one vendor about one call, oldest first. A vendor that stands by its offer
    may say it again."""

    call: CallForProposals
    offers: tuple[Offer, ...]
    counters: tuple[CounterOffer, ...] = ()


@dataclass(frozen=True)
class Accept:
    """Take this offer, and no other."""

    offer: Offer
    why: Reason


@dataclass(frozen=True)
class Counter:
    """Say this to the vendor."""

    counter: CounterOffer
    why: Reason


@dataclass(frozen=True)
class GiveUp:
    """Expect nothing more of this vendor."""

    why: Reason


Move = Accept | Counter | GiveUp


def next_move(
    history: History,
    limits: Limits,
    now: datetime,
    *,
    reply_by: datetime,
    template: AgreementTemplate | None = None,
    strategies: Mapping[str, Strategy] = STRATEGIES,
) -> Move:
    """What to do about the vendor's latest offer. ``reply_by``: until when a counter-offer can be answered;
    ``template``: what the vendor negotiates, all if it is not known. ``KeyError`` if there is no such strategy."""
    strategy = strategies[limits.strategy]
    if flaws := flaws_of(history, now):
        return GiveUp(flaws[0])
    offer = history.offers[-1]
    made = len(history.counters)
    if made >= limits.rounds or now >= limits.deadline or reply_by <= now:
        return closing(history, limits, now)
    level = insist(strategy, _situation(history, limits, now))
    if not _beyond(offer, limits) and content(offer, limits) >= max(level, limits.reservation):
        return Accept(offer, _why("good-enough", "as good as what would be asked for now"))
    wanted = _wanted(offer, limits, level, template)
    if not wanted or (history.counters and _stuck(history, wanted)):
        return closing(history, limits, now)
    counter = CounterOffer(
        id=f"counter-{digest(offer).removeprefix('blake3:')[:16]}-{made + 1}",
        call=offer.call,
        application=offer.application,
        vendor=offer.vendor,
        consumer=offer.consumer,
        issued=now,
        expires=min(reply_by, limits.deadline),
        offer=Reference(id=offer.id, digest=digest(offer)),
        changes=tuple(Change(term=term, value=amount) for term, amount in wanted.items()),
    )
    return Counter(counter, _why("ask-for-more", f"round {made + 1} of {limits.rounds}, insisting on {level:.2f}"))


def closing(history: History, limits: Limits, now: datetime) -> Accept | GiveUp:
    """The last word on a vendor: its latest offer if it is within the limits, nothing otherwise."""
    if flaws := flaws_of(history, now):
        return GiveUp(flaws[0])
    offer = history.offers[-1]
    if beyond := _beyond(offer, limits):
        return GiveUp(beyond[0])
    reached = content(offer, limits)
    if reached < limits.reservation:
        message = f"worth {reached:.2f}, where at least {limits.reservation:.2f} is wanted"
        return GiveUp(
            Reason(
                code="below-reservation",
                required=f"{limits.reservation:.4f}",
                offered=f"{reached:.4f}",
                message=message,
            )
        )
    return Accept(offer, _why("within-limits", "the best that was to be had, and within the limits"))


def flaws_of(history: History, now: datetime) -> tuple[Reason, ...]:
    """Why the latest offer must not be taken, whatever it costs: it expired, is about something else than the call, or
    differs from the vendor's first offer in what was never negotiated, or for the worse in what was not asked for."""
    return tuple(_flaws(history, now))


def _flaws(history: History, now: datetime) -> Iterator[Reason]:
    if not history.offers:
        yield _why("no-offer", "made no offer")
        return
    call, first, offer = history.call, history.offers[0], history.offers[-1]
    if offer.expires <= now:
        yield Reason(code="expired", offered=offer.expires.isoformat(), message="the offer has expired")
    about = (offer.call, offer.application, offer.resources, offer.supersedes)
    if about != (call.id, call.application, call.resources, call.supersedes):
        yield _why("other-call", "the offer is about something else than the call")
    if any(offer.id == earlier.id and offer != earlier for earlier in history.offers):
        yield _why("altered", f"offer {offer.id} says something else than before")
    if offer != first and not _follows(history):
        yield _why("altered", "the offer answers something else than the latest counter-offer")
    yield from _hidden_changes(first, offer, history.counters)


def _follows(history: History) -> bool:
    """Whether the latest offer answers the latest counter-offer, or is the one before it, said again."""
    offer, earlier = history.offers[-1], history.offers[:-1]
    if earlier and offer == earlier[-1]:
        return True
    latest = history.counters[-1:] if len(history.counters) >= len(earlier) else ()
    return any(offer.answers == Reference(id=counter.id, digest=digest(counter)) for counter in latest)


def _hidden_changes(first: Offer, offer: Offer, counters: Sequence[CounterOffer]) -> Iterator[Reason]:
    """What differs from the first offer beside negotiable terms, and terms nobody asked to change that got worse."""
    asked = {term for counter in counters for term in changes(counter)} | {"validity-seconds"}
    moved: dict[NegotiableTerm, Decimal] = {}
    for term in get_args(NegotiableTerm):
        before, said = value(first, term), value(offer, term)
        if said is not None and said != before:
            moved[term] = said
        gone = before is not None and said is None
        if gone or (term not in asked and said is not None and before is not None and better(term, before, said)):
            yield Reason(
                code="altered", required=f"{before}", offered=f"{said}", message=f"{term} got worse, unasked for"
            )
    fields = ("id", "issued", "expires", "answers")
    try:
        same = revised(first, moved, **{name: getattr(offer, name) for name in fields})
    except ValueError:
        yield _why("altered", "the offer has terms that the first had not")
        return
    if _besides_prices(same) != _besides_prices(offer):
        yield _why("altered", "the offer differs from the first in what was never negotiated")


def _besides_prices(offer: Offer) -> Offer:
    """The offer without what each allocation costs: how a vendor shares out its price is its own affair."""
    bare = tuple(a.model_copy(update={"price_per_hour": Decimal(0)}) for a in offer.allocations)
    return offer.model_copy(update={"allocations": bare})


def better(term: NegotiableTerm, one: Decimal, other: Decimal) -> bool:
    """Whether the first value is better for the consumer than the second."""
    return one > other if MEASURES[term].more_is_better else one < other


def _beyond(offer: Offer, limits: Limits) -> tuple[Reason, ...]:
    """Where the offer goes beyond the limits."""
    found = []
    worst = {term: scale.worst for term, scale in limits.scales.items()}
    if limits.commit_days is not None:
        worst["minimum-days"] = Decimal(limits.commit_days)
    for term, limit in worst.items():
        said = value(offer, term)
        if said is None or better(term, limit, said):
            offered = "nothing" if said is None else f"{said:f}"
            found.append(
                Reason(
                    code="beyond-reservation",
                    required=f"{limit:f}",
                    offered=offered,
                    message=f"{term}: {offered}, where {limit:f} is the limit",
                )
            )
    month = max(offer.price.per_month, offer.price.per_hour * HOURS_PER_MONTH)
    if limits.budget is not None and month > limits.budget:
        found.append(
            Reason(
                code="over-budget",
                required=f"{limits.budget:f} {offer.price.currency}",
                offered=f"{month:f} {offer.price.currency}",
                message=f"a month costs {month:f}, over the budget of {limits.budget:f}",
            )
        )
    return tuple(found)


def _situation(history: History, limits: Limits, now: datetime) -> Situation:
    time = (now - limits.begins) / (limits.deadline - limits.begins) if limits.deadline > limits.begins else 1.0
    first = history.offers[0]
    return Situation(
        elapsed=min(max(time, len(history.counters) / limits.rounds, 0.0), 1.0),
        mine=tuple(_asked_level(first, counter, limits) for counter in history.counters),
        theirs=tuple(content(offer, limits) for offer in history.offers),
        beta=limits.beta,
    )


def _asked_level(first: Offer, counter: CounterOffer, limits: Limits) -> float:
    """How content the buyer would have been: on the terms that it asked for, which it all concedes on alike."""
    asked = changes(counter)
    levels = [scale.content(asked[term]) for term, scale in limits.scales.items() if term in asked]
    return max(levels, default=content(first, limits))


def _wanted(
    offer: Offer, limits: Limits, level: float, template: AgreementTemplate | None
) -> dict[NegotiableTerm, Decimal]:
    """What to ask for: each term on its way from the best to the worst, where that is better than what is offered."""
    wanted: dict[NegotiableTerm, Decimal] = {}
    for term, scale in limits.scales.items():
        said = value(offer, term)
        scale_ = _within_budget(scale, limits) if term == "price-per-hour" else scale
        asked = _fitted(term, _whole(term, scale_.at(level)), scale_, template)
        if asked is not None and said is not None and better(term, asked, said):
            wanted[term] = asked
    days = Decimal(limits.commit_days or 0)
    open_ = template is not None and any(c.term == "minimum-days" and c.allows(days) for c in template.constraints)
    if wanted and open_ and days > (value(offer, "minimum-days") or 0):
        wanted["minimum-days"] = days
    return wanted


def _within_budget(scale: Scale, limits: Limits) -> Scale:
    if limits.budget is None:
        return scale
    cap = _cut(limits.budget / HOURS_PER_MONTH)
    return replace(scale, best=min(scale.best, cap), worst=min(scale.worst, cap))


def _whole(term: NegotiableTerm, amount: Decimal) -> Decimal:
    """The amount as documents have it, rounded in the buyer's favour: so it stays between the best and the worst, which
    are such amounts."""
    step = Decimal(1) if term in ("minimum-days", "validity-seconds") else MICRO
    rounding = ROUND_CEILING if MEASURES[term].more_is_better else ROUND_FLOOR
    return amount.quantize(step, rounding).normalize() + Decimal(0)


def _cut(amount: Decimal) -> Decimal:
    return amount.quantize(MICRO, ROUND_FLOOR).normalize() + Decimal(0)


def _fitted(term: NegotiableTerm, amount: Decimal, scale: Scale, template: AgreementTemplate | None) -> Decimal | None:
    """The nearest value that the vendor's template allows, not beyond the reservation value; None if there is none, or
    the vendor does not negotiate the term."""
    if template is None:
        return amount
    constraints = [constraint for constraint in template.constraints if constraint.term == term]
    if not constraints:
        return None
    options = {amount, *(bound for constraint in constraints for bound in _bounds(constraint))}
    fitting = [
        option
        for option in options
        if all(constraint.allows(option) for constraint in constraints) and not better(term, scale.worst, option)
    ]
    return min(fitting, key=lambda option: (abs(option - amount), option), default=None)


def _bounds(constraint: Constraint) -> tuple[Decimal, ...]:
    return (*constraint.choices, *(b for b in (constraint.at_least, constraint.at_most) if b is not None))


def _stuck(history: History, wanted: Mapping[NegotiableTerm, Decimal]) -> bool:
    """Whether both would only repeat themselves."""
    stands = len(history.offers) > 1 and all(
        value(history.offers[-1], term) == value(history.offers[-2], term) for term in get_args(NegotiableTerm)
    )
    return stands and changes(history.counters[-1]) == wanted


def _why(code: str, message: str) -> Reason:
    return Reason(code=code, message=message)
