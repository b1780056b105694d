"""From the answers to a call to one comparison: qualified offers best first, one chosen, the rest with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from broker.matching import exclusions
from broker.scoring import ONE, Candidate, Standing, Weights, candidate, efficient, shares, standings, weights_of
from broker.sensitivity import Interval, winning_price, winning_weights
from descriptors.application import Attribute
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison, Criterion, Ranked, Record
from descriptors.resources import Reason
from descriptors.sla import Offer, Refusal

Answer = Offer | Refusal | Reason
"""What came of asking a vendor: an offer, a refusal, or the reason why neither came (silence, a failure)."""

EXPLAINED = 20
"""So many rows, the best ones, say what would change the result: whoever is behind them is far from winning, and of a
thousand vendors the answer would take longer than asking them."""
_STEP = Fraction(1, 10**6)
_MOST = 10**18
"""A price that nobody asks for, in millionths."""


def compare(
    call: CallForProposals,
    answers: Mapping[str, Answer],
    now: datetime,
    *,
    records: Mapping[str, Record] | None = None,
    weights: Weights | None = None,
) -> Comparison:
    """Weigh the answers, by vendor; ``records`` say how vendors behaved so far, ``weights`` count in place of the
    call's own. Ties go to who is not dominated, then to the cheaper offer, then to the vendor's name: the same answers
    always give the same comparison."""
    qualified: dict[str, Offer] = {}
    excluded: list[Ranked] = []
    for vendor, answer in sorted(answers.items()):
        if isinstance(answer, Offer):
            reasons = exclusions(answer, call, now) + _impersonation(vendor, answer)
            if not reasons:
                qualified[vendor] = answer
                continue
            excluded.append(Ranked(vendor=vendor, offer=answer, excluded_because=reasons))
        else:
            reasons = answer.reasons if isinstance(answer, Refusal) else (answer,)
            excluded.append(Ranked(vendor=vendor, excluded_because=reasons))
    rows = _rows(call, qualified, records or {}, weights or weights_of(call.requirements))
    return Comparison(call=call.id, application=call.application, rows=(*rows, *excluded))


def weighed_anew(
    comparison: Comparison, call: CallForProposals, records: Mapping[str, Record], weights: Weights
) -> Comparison:
    """The same offers, weighed otherwise; who was left out still is, for the same reasons."""
    qualified = {row.vendor: row.offer for row in comparison.rows if row.offer and not row.excluded_because}
    excluded = [row for row in comparison.rows if row.excluded_because]
    return comparison.model_copy(update={"rows": (*_rows(call, qualified, records, weights), *excluded)})


def _rows(
    call: CallForProposals, offers: Mapping[str, Offer], records: Mapping[str, Record], weights: Weights
) -> list[Ranked]:
    candidates = [candidate(offer, call.requirements, records.get(vendor)) for vendor, offer in offers.items()]
    parts = shares(candidates, weights)
    found = standings(candidates, parts)
    front = [standing for standing in found if not standing.dominated]
    total = sum(parts.values())
    rows = []
    for place, standing in enumerate(found):
        name = standing.candidate.name
        row = Ranked(
            vendor=name,
            score=round(standing.score / (ONE * total), 4) if total else 0.0,
            chosen=place == 0,
            efficient=not standing.dominated,
            monthly_cost=_money(standing.candidate),
            offer=offers[name],
        )
        if place < EXPLAINED:
            row = row.model_copy(update=_explained(standing, found, front, parts))
        rows.append(row)
    return rows


def _explained(
    one: Standing, found: Sequence[Standing], front: Sequence[Standing], parts: Mapping[Attribute, int]
) -> dict[str, object]:
    """What the row says of how it was weighed."""
    # the price of the winner may rise until somebody wins whom it dominates now; the others' can only fall
    rivals = efficient(s for s in found if s is not one) if one is found[0] else front
    price = winning_price(one, rivals, parts) if "price" in parts else None
    criteria = (_criterion(one, attribute, parts, winning_weights(one, front, parts, attribute)) for attribute in parts)
    return {
        "wins_below": None if price is None or not 1 <= price <= _MOST else Decimal(price.__floor__()).scaleb(-6),
        "criteria": tuple(criteria),
    }


def _criterion(one: Standing, attribute: Attribute, parts: Mapping[Attribute, int], wins: Interval | None) -> Criterion:
    above, below = (_share(-(-wins[0] // _STEP)), _share(wins[1] // _STEP)) if wins else (Decimal(1), Decimal(0))
    known = above < below  # rounded inwards, so that what is claimed is true
    return Criterion(
        attribute=attribute,
        utility=_share(one.utilities[attribute] // (ONE // 10**6)),
        weight=_share(round(Fraction(parts[attribute], sum(parts.values()) or 1) / _STEP)),
        above=above if known else None,
        below=below if known else None,
        value=one.candidate.qualities[attribute].words,
    )


def _money(one: Candidate) -> Decimal:
    return Decimal(one.month).scaleb(-6)


def _share(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(-6)


def _impersonation(vendor: str, offer: Offer) -> tuple[Reason, ...]:
    """An offer must come from the vendor that it binds."""
    if offer.vendor == vendor:
        return ()
    message = f"{vendor} sent an offer in the name of {offer.vendor}"
    return (Reason(code="other-vendor", required=vendor, offered=offer.vendor, message=message),)
