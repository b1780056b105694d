"""From the answers to a call to one comparison: qualified offers best first, one chosen, the rest with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from broker.matching import exclusions
from broker.scoring import DEFAULT_WEIGHTS, Weights, scores
from descriptors.cfp import CallForProposals
from descriptors.resources import Reason
from descriptors.sla import Comparison, Offer, Ranked, Refusal

Answer = Offer | Refusal | Reason
"""What came of asking a vendor: an offer, a refusal, or the reason why neither came (silence, a failure)."""


def compare(
    call: CallForProposals, answers: Mapping[str, Answer], now: datetime, weights: Weights = DEFAULT_WEIGHTS
) -> Comparison:
    """Weigh the answers, by vendor. Ties go to the cheaper offer, then to the vendor's name: the same answers always
    give the same comparison."""
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
    scored = zip(scores(qualified, weights), qualified, strict=True)
    best_first = sorted(scored, key=lambda pair: (-pair[0], pair[1].price.per_hour, pair[1].vendor))
    rows = [
        Ranked(vendor=offer.vendor, score=round(score, 4), chosen=place == 0, offer=offer)
        for place, (score, offer) in enumerate(best_first)
    ]
    return Comparison(call=call.id, application=call.application, rows=(*rows, *excluded))


def _impersonation(vendor: str, offer: Offer) -> tuple[Reason, ...]:
    """An offer must come from the vendor that it binds."""
    if offer.vendor == vendor:
        return ()
    message = f"{vendor} sent an offer in the name of {offer.vendor}"
    return (Reason(code="other-vendor", required=vendor, offered=offer.vendor, message=message),)
