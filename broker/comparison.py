"""From the answers to a call to one comparison: qualified offers best first, one chosen, the rest with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from broker.matching import exclusions, to_the_world
from broker.placement import Bid, best_composition, part_calls
from broker.scoring import (
    ONE,
    Candidate,
    Standing,
    Weights,
    candidate,
    combined,
    efficient,
    shares,
    standings,
    weights_of,
)
from broker.sensitivity import Interval, winning_price, winning_weights
from descriptors.application import Attribute
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison, Composition, Criterion, Ranked, Record
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
    parts: Sequence[Mapping[str, Answer]] = (),
    records: Mapping[str, Record] | None = None,
    weights: Weights | None = None,
) -> Comparison:
    """Weigh the answers, by vendor, and beside them the best that can be put together of the answers to the calls for
    the ``parts``. ``records`` say how vendors behaved so far, ``weights`` count in place of the call's own.

    Ties go to who is not dominated, then to the cheaper offer, then to the vendor's name: the same answers always give
    the same comparison.
    """
    known, weights = records or {}, weights or weights_of(call.requirements)
    qualified, excluded = _sifted(call, answers, now)
    entries = [_entry(call, offer, known) for offer in qualified]
    bids = [
        [
            Bid(offer, candidate(offer, call.requirements, known.get(offer.vendor)))
            for offer in _sifted(each, heard, now)[0]
        ]
        for each, heard in zip(part_calls(call), parts, strict=bool(parts))
    ]
    wholes = [entry.candidate for entry in entries]
    everybody = [*wholes, *(bid.candidate for each in bids for bid in each)]
    if composed := best_composition(call, bids, shares(everybody, weights), wholes):
        entries.append(_Entry(composed[1], composition=composed[0]))
    rows = (*_rows(entries, weights), *excluded)
    return Comparison(call=call.id, application=call.application, rows=rows)


def weighed_anew(
    comparison: Comparison, call: CallForProposals, records: Mapping[str, Record], weights: Weights
) -> Comparison:
    """The same offers, weighed otherwise; who was left out still is, for the same reasons."""
    entries = []
    for row in comparison.rows:
        if row.offer and not row.excluded_because:
            entries.append(_entry(call, row.offer, records))
        elif row.composition:
            entries.append(_composed(call, row.composition, records))
    excluded = [row for row in comparison.rows if row.excluded_because]
    return comparison.model_copy(update={"rows": (*_rows(entries, weights), *excluded)})


@dataclass(frozen=True)
class _Entry:
    """What is weighed, and what it comes from."""

    candidate: Candidate
    offer: Offer | None = None
    composition: Composition | None = None


def _entry(call: CallForProposals, offer: Offer, records: Mapping[str, Record]) -> _Entry:
    record = records.get(offer.vendor)
    return _Entry(candidate(offer, call.requirements, record, to_the_world(offer, call)), offer=offer)


def _composed(call: CallForProposals, composition: Composition, records: Mapping[str, Record]) -> _Entry:
    chosen = [(o.vendor, candidate(o, call.requirements, records.get(o.vendor))) for o in composition.offers]
    traffic = int(composition.traffic_month.scaleb(6))
    return _Entry(combined(chosen, traffic, composition.price.currency), composition=composition)


def _sifted(call: CallForProposals, answers: Mapping[str, Answer], now: datetime) -> tuple[list[Offer], list[Ranked]]:
    """The offers that qualify, by their vendors' names, and a row for each vendor that is left out."""
    qualified: list[Offer] = []
    excluded: list[Ranked] = []
    for vendor, answer in sorted(answers.items()):
        if isinstance(answer, Offer):
            reasons = exclusions(answer, call, now) + _impersonation(vendor, answer)
            if not reasons:
                qualified.append(answer)
                continue
            excluded.append(Ranked(vendor=vendor, offer=answer, excluded_because=reasons))
        else:
            reasons = answer.reasons if isinstance(answer, Refusal) else (answer,)
            excluded.append(Ranked(vendor=vendor, excluded_because=reasons))
    return qualified, excluded


def _rows(entries: Sequence[_Entry], weights: Weights) -> list[Ranked]:
    parts = shares([entry.candidate for entry in entries], weights)
    found = standings([entry.candidate for entry in entries], parts)
    front = [standing for standing in found if not standing.dominated]
    total = sum(parts.values())
    entry_of = {entry.candidate.name: entry for entry in entries}
    rows = []
    for place, standing in enumerate(found):
        entry = entry_of[standing.candidate.name]
        row = Ranked(
            vendor=entry.offer.vendor if entry.offer else None,
            score=round(standing.score / (ONE * total), 4) if total else 0.0,
            chosen=place == 0,
            efficient=not standing.dominated,
            monthly_cost=_money(standing.candidate),
            offer=entry.offer,
            composition=entry.composition,
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
