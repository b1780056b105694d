"""The negotiable terms of an offer: reading them, changing them, and holding them against a vendor's template.

Terms and their units are those of :data:`descriptors.sla.MEASURES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from descriptors.digests import digest
from descriptors.resources import Reason
from descriptors.sla import (
    HOURS_PER_MONTH,
    MEASURES,
    AgreementTemplate,
    Allocation,
    Constraint,
    CounterOffer,
    GuaranteeTerm,
    MoveTerms,
    NegotiableTerm,
    Offer,
    PriceTerms,
)

MICRO = Decimal("0.000001")
_PRICES = {
    "price-per-hour": "per_hour",
    "setup": "setup",
    "egress-per-gib": "egress_per_gib",
    "storage-per-gib-month": "storage_per_gib_month",
    "minimum-days": "minimum_days",
}
MOVES = {
    "move-egress-per-gib": "egress_per_gib",
    "move-window-hours": "window_hours",
    "move-downtime-seconds": "downtime_seconds",
}


def value(offer: Offer, term: NegotiableTerm) -> Decimal | None:
    """What the offer says of the term; None where it says nothing. No minimum term is 0 days."""
    if term == "minimum-days":
        return Decimal(offer.price.minimum_days or 0)
    if term == "validity-seconds":
        return Decimal(str((offer.expires - offer.issued).total_seconds()))
    part, names = (offer.move, MOVES) if term in MOVES else (offer.price, _PRICES)
    if term in names:
        said: Decimal | None = getattr(part, names[term], None)
        return said
    best = max if MEASURES[term].more_is_better else min
    return best((g.bound() for g in offer.guarantees if _negotiable(g, term)), default=None)


def changes(counter: CounterOffer) -> dict[NegotiableTerm, Decimal]:
    """What a counter-offer wants, by term."""
    return {change.term: change.value for change in counter.changes}


def revised(offer: Offer, wanted: Mapping[NegotiableTerm, Decimal], **fields: Any) -> Offer:
    """The offer with other terms; ``fields`` are put over its own (``id``, ``issued``, ``answers`` …). Without
    ``validity-seconds`` it is valid as long as it was; without ``expires`` that is counted from ``issued``.

    Allocations keep their proportions, so that they add up to the new price. Raises ``ValueError`` for a term that
    the offer says nothing of, and pydantic's (a ``ValueError``, too) for a value that no offer can have.
    """
    prices, moves = dict(offer.price), dict(offer.move) if offer.move else {}
    guarantees = list(offer.guarantees)
    for term, amount in wanted.items():
        if term == "minimum-days":
            prices["minimum_days"] = int(amount) or None
        elif term in _PRICES:
            prices[_PRICES[term]] = amount
        elif term in MOVES:
            moves[MOVES[term]] = amount
        elif term != "validity-seconds" and amount != value(offer, term):
            if value(offer, term) is None:
                raise ValueError(f"the offer guarantees no {term}")
            guarantees = [_held_to(g, amount) if _negotiable(g, term) else g for g in guarantees]
    prices["per_month"] = _month(offer.price, prices["per_hour"])
    issued = fields.get("issued", offer.issued)
    valid = wanted.get("validity-seconds", value(offer, "validity-seconds")) or Decimal(0)
    data = dict(offer) | {"expires": issued + timedelta(seconds=float(valid))} | fields
    return Offer.model_validate(
        data
        | {
            "price": prices,
            "move": MoveTerms(**moves) if moves else None,
            "guarantees": guarantees,
            "allocations": _scaled(offer.allocations, offer.price.per_hour, prices["per_hour"]),
        }
    )


def _month(price: PriceTerms, per_hour: Decimal) -> Decimal:
    """What a month costs at another price per hour: it keeps its proportion."""
    if per_hour == price.per_hour:
        return price.per_month
    hours = price.per_month / price.per_hour if price.per_hour else Decimal(HOURS_PER_MONTH)
    return _rounded(per_hour * hours)


def _negotiable(guarantee: GuaranteeTerm, term: NegotiableTerm) -> bool:
    """Whether the guarantee is about that property, for all that is offered, without a condition."""
    return guarantee.property == term and not guarantee.scope and guarantee.condition is None


def _held_to(guarantee: GuaranteeTerm, amount: Decimal) -> GuaranteeTerm:
    side = "at_least" if MEASURES[guarantee.property].more_is_better else "at_most"
    return GuaranteeTerm.model_validate(dict(guarantee) | {side: amount})


def _scaled(allocations: tuple[Allocation, ...], before: Decimal, after: Decimal) -> tuple[Allocation, ...]:
    """The allocations with prices in proportion; what rounding leaves over goes to the dearest of them."""
    if before == after:
        return allocations
    whole = sum((a.price_per_hour for a in allocations), Decimal(0))
    shares = [
        _rounded(after * a.price_per_hour / whole) if whole else _rounded(after / len(allocations)) for a in allocations
    ]
    dearest = shares.index(max(shares))
    shares[dearest] += after - sum(shares)
    return tuple(
        a.model_copy(update={"price_per_hour": max(share, Decimal(0))})
        for a, share in zip(allocations, shares, strict=True)
    )


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(MICRO, ROUND_HALF_UP).normalize() + Decimal(0)


# --- against the template ---


def objections(counter: CounterOffer, offer: Offer, template: AgreementTemplate, now: datetime) -> tuple[Reason, ...]:
    """Why the vendor of the template need not consider the counter-offer to its offer; empty: it may."""
    return (*_identity(counter, offer, now), *_openness(counter, offer, template))


def _identity(counter: CounterOffer, offer: Offer, now: datetime) -> Iterator[Reason]:
    """It must answer this offer, unaltered, in time."""
    if (counter.offer.id, counter.offer.digest) != (offer.id, digest(offer)):
        yield Reason(code="other-offer", required=offer.id, offered=counter.offer.id, message="answers another offer")
    named, own = ((d.call, d.application, d.vendor) for d in (counter, offer))
    if named != own:
        yield Reason(
            code="other-call", required=" ".join(own), offered=" ".join(named), message="is about another call"
        )
    if counter.expires <= now:
        yield Reason(code="expired", offered=counter.expires.isoformat(), message="the counter-offer has expired")


def _openness(counter: CounterOffer, offer: Offer, template: AgreementTemplate) -> Iterator[Reason]:
    """It may change only terms that the template has constraints for, and only within them."""
    for term, wanted in changes(counter).items():
        constraints = [c for c in template.constraints if c.term == term]
        if not constraints:
            yield Reason(code="not-negotiable", required=term, message=f"{template.vendor} does not negotiate {term}")
        elif term not in MOVES and value(offer, term) is None:
            yield Reason(code="not-offered", required=term, message=f"the offer says nothing of {term}")
        else:
            yield from _outside(term, wanted, constraints)


def _outside(term: str, said: Decimal, constraints: list[Constraint]) -> Iterator[Reason]:
    for constraint in constraints:
        if not constraint.allows(said):
            allowed = constraint.words()
            message = f"{term} of {said:f}, where the template allows {allowed}"
            yield Reason(code="outside-template", required=allowed[:255], offered=f"{said:f}", message=message[:1024])
