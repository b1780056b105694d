"""What would change who wins, in words: of the winner, how far it stays; of the others, what it would take."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal

from descriptors.comparison import Criterion, Ranked

_CENT, _THOUSANDTH = Decimal("0.01"), Decimal("0.001")


def changes(row: Ranked) -> list[str]:
    """Sentences without a full stop; none where the row is not compared, or nothing changes anything."""
    if row.proposal is None or not row.criteria:
        return []
    return [*_by_price(row, row.proposal.price.currency), *_by_weights(row)]


def _by_price(row: Ranked, currency: str) -> Iterator[str]:
    if row.wins_below is None:
        return
    limit = row.wins_below.quantize(_CENT, ROUND_DOWN)
    if row.chosen:
        yield f"stays first up to a monthly cost of {limit:f} {currency}"
    elif limit > 0:
        yield f"would be first at a monthly cost below {limit:f} {currency}"


def _by_weights(row: Ranked) -> Iterator[str]:
    for criterion in row.criteria:
        above, below = _shown(criterion)
        if above is None or below is None or below - above == 1:
            continue
        between = f"less than {below:f}"
        if above > 0:
            between = f"more than {above:f}" if below == 1 else f"between {above:f} and {below:f}"
        what = criterion.attribute
        when = f"stays first while {what} weighs" if row.chosen else f"would be first if {what} weighed"
        yield f"{when} {between} (now {criterion.weight:.3f})"


def _shown(criterion: Criterion) -> tuple[Decimal | None, Decimal | None]:
    """The bounds in three places if that leaves something between them; rounded inwards, so that they stay true."""
    if criterion.above is None or criterion.below is None:
        return None, None
    above = criterion.above.quantize(_THOUSANDTH, ROUND_CEILING)
    below = criterion.below.quantize(_THOUSANDTH, ROUND_DOWN)
    exact = (criterion.above, criterion.below)
    above, below = (above, below) if above < below else exact
    return above.normalize() + 0, below.normalize() + 0
