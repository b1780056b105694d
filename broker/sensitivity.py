"""What would change who wins: computed, never sampled, and rounded so that what is claimed is true.

Scores are linear in the weights, so where an offer wins is an interval for each weight. They fall with an offer's own
price, so there is one price below which it wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from broker.scoring import ONE, Standing
from descriptors.application import Attribute

Interval = tuple[Fraction, Fraction]


def winning_weights(
    one: Standing, others: Sequence[Standing], parts: Mapping[Attribute, int], attribute: Attribute
) -> Interval | None:
    """Between which parts of the whole (0 to 1) the attribute's weight must lie for the candidate to win, the other
    weights keeping their proportions; None: it wins nowhere, or there is no other weight. ``others`` may leave out
    who is dominated."""
    rest = sum(part for name, part in parts.items() if name != attribute)
    if one.dominated or not rest:
        return None
    low, high = Fraction(0), Fraction(1)
    for other in others:
        if other is one:
            continue
        # how far it is ahead of the other where nothing else counts, and where the attribute counts for nothing
        alone = one.utilities[attribute] - other.utilities[attribute]
        without = Fraction(one.score - other.score - parts[attribute] * alone, rest)
        if without == alone == 0:
            if one.turn > other.turn:
                return None
        elif without <= 0 and alone <= 0:
            return None
        elif without < 0 or alone < 0:
            equal = without / (without - alone)
            low, high = (low, min(high, equal)) if without > 0 else (max(low, equal), high)
    return (low, high) if low < high else None


def winning_price(one: Standing, others: Sequence[Standing], parts: Mapping[Attribute, int]) -> Fraction | None:
    """What a month of the candidate must cost less than, in millionths, for it to win, all else being as it is; None:
    its price does not decide. ``others`` may leave out whom others of them dominate."""
    part = parts["price"]
    rivals = [other for other in others if other is not one]
    if not part or not rivals:
        return None
    cheapest = min(rival.candidate.month for rival in rivals)
    limits = []
    for rival in rivals:
        lead = (one.score - part * one.utilities["price"]) - (rival.score - part * rival.utilities["price"])
        limit = _limit(rival.candidate.month, cheapest, part, lead)
        if limit is not None:
            limits.append(limit)
    lowest = min(limits, default=None)
    return lowest if lowest is None or lowest > 0 else None


def _limit(rival: int, cheapest: int, part: int, lead: int) -> Fraction | None:
    """The price below which the candidate is ahead of one rival; None: at any. ``lead`` is how far it is ahead without
    the price, ``cheapest`` the cheapest rival's month.

    Dearer than the cheapest, the candidate's utility falls with its price; cheaper, those of all others do.
    """
    theirs = ONE if rival == cheapest else cheapest * ONE // rival
    if part * (ONE - theirs) + lead > 0:
        needed = (part * theirs - lead) // part + 1  # the least utility with which it is ahead
        return None if needed <= 0 else Fraction(cheapest * ONE, needed)
    allowed = -(-(part * ONE + lead) // part) - 1  # the highest utility of the rival's that is still behind
    return Fraction(rival * (allowed + 1), ONE) if allowed >= 0 else Fraction(0)
