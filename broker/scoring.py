"""How good an offer is: a weighted utility from 0 to 1 over the offers it competes with (multi-attribute utility)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from descriptors.sla import Offer


@dataclass(frozen=True)
class Weights:
    """How much each attribute counts; only their proportions matter."""

    price: float = 0.6
    availability: float = 0.3
    egress: float = 0.1
    """What it costs to leave again."""


DEFAULT_WEIGHTS = Weights()


def scores(offers: Sequence[Offer], weights: Weights = DEFAULT_WEIGHTS) -> list[float]:
    """The score of each offer, in the order given. In every attribute the best of them has utility 1.

    Price and egress: cheapest over own. Availability: the smallest allowed down time over own; 0 without a guarantee.
    """
    prices = _low_is_good([offer.price.per_hour for offer in offers])
    egress = _low_is_good([offer.price.egress_per_gib for offer in offers])
    down = [None if (a := offer.availability()) is None else 100 - a for offer in offers]
    availability = _low_is_good(down)
    total = weights.price + weights.availability + weights.egress
    return [
        (weights.price * p + weights.availability * a + weights.egress * e) / total
        for p, a, e in zip(prices, availability, egress, strict=True)
    ]


def _low_is_good(values: Sequence[Decimal | None]) -> list[float]:
    known = [value for value in values if value is not None]
    best = min(known, default=Decimal(0))
    return [0.0 if value is None else 1.0 if value == best else float(best / value) for value in values]
