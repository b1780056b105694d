"""What would change the result: what is claimed is tried, by weighing anew."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from broker.comparison import compare
from broker.scoring import Weights, monthly_cost
from descriptors.application import Attribute
from descriptors.comparison import Comparison, Criterion
from descriptors.sla import Offer
from tests.broker.samples import NOW, call, offer, rival_offers, weights

STEP = Decimal("0.000001")
FEW = st.integers(1, 9).map(lambda tenth: Fraction(tenth, 10))


def weighed(found: list[Offer], given_weights: Weights) -> Comparison:
    """The comparison of these offers."""
    return compare(call(), {each.vendor: each for each in found}, NOW, weights=given_weights)


def exact(found: list[Offer], given_weights: Weights, attribute: Attribute, part: Decimal) -> str:
    """Who wins with the attribute at that part of the whole, the other weights in exactly their proportions.

    Weights are whole numbers in the end, so everything is multiplied until it is one.
    """
    parts = {c.attribute: c.weight for c in weighed(found, given_weights).rows[0].criteria}
    unnamed = [name for name in parts if name not in given_weights]
    own = {
        name: given_weights["guarantees"] / len(unnamed) if name in unnamed else given_weights[name] for name in parts
    }
    rest = sum((weight for name, weight in own.items() if name != attribute), Decimal(0))
    new = {name: weight * (1 - part) * 10**6 for name, weight in own.items()}
    new[attribute] = part * rest * 10**6
    whole = {name: (weight * 60 * 10**6).to_integral_value() for name, weight in new.items()}
    return weighed(found, {**dict.fromkeys(given_weights, Decimal(0)), **whole}).rows[0].vendor


@given(rival_offers, weights, FEW, st.data())
def test_an_offer_wins_where_it_is_said_to_win_and_nowhere_else(
    found: list[Offer], given_weights: Weights, place: Fraction, data: st.DataObject
) -> None:
    """Inside the interval of a weight the row comes first when all is weighed anew, outside it another does."""
    comparison = weighed(found, given_weights)
    row = data.draw(st.sampled_from(comparison.rows))
    criterion = data.draw(st.sampled_from(row.criteria))
    assume(sum(c.weight for c in row.criteria if c.attribute != criterion.attribute) > 0)  # else nothing can shift
    for part, wins in _tries(criterion, place):
        assert (exact(found, given_weights, criterion.attribute, part) == row.vendor) == wins


def _tries(criterion: Criterion, place: Fraction) -> list[tuple[Decimal, bool]]:
    """Parts of the whole to try, and whether the row should win there."""
    share = Decimal(place.numerator) / place.denominator
    above, below = criterion.above, criterion.below
    if above is None or below is None:
        return [(share.quantize(STEP), False)]
    tries = [((above + (below - above) * share).quantize(STEP), True)] if below - above > 10 * STEP else []
    if above > STEP:
        tries.append(((above * share).quantize(STEP) - STEP, False))
    if below < 1 - STEP:
        tries.append(((below + (1 - below) * share).quantize(STEP) + STEP, False))
    return [(part, wins) for part, wins in tries if 0 < part < 1]


@given(rival_offers, weights, FEW, st.data())
def test_an_offer_wins_below_the_price_that_is_said(
    found: list[Offer], given_weights: Weights, place: Fraction, data: st.DataObject
) -> None:
    """Any cheaper than that and the row comes first; a little dearer and it does not."""
    comparison = weighed(found, given_weights)
    decided = [row for row in comparison.rows if row.wins_below is not None]
    if not decided:
        return
    row = data.draw(st.sampled_from(decided))
    limit = row.wins_below or Decimal(0)

    def wins(month: Decimal) -> bool:
        assert row.offer
        price = row.offer.price.model_copy(update={"per_month": month, "setup": Decimal(0)})
        changed = row.offer.model_copy(update={"price": price})
        return weighed([changed if o.vendor == row.vendor else o for o in found], given_weights).rows[0].vendor == (
            row.vendor
        )

    share = Decimal(place.numerator) / place.denominator
    assert wins((limit * share).quantize(STEP))
    assert limit < STEP or wins(limit - STEP)
    assert not wins(limit + 2 * STEP)
    assert not wins((limit + 2 * STEP + limit * share).quantize(STEP))


@given(rival_offers, weights)
def test_the_chosen_stays_first_at_its_own_price(found: list[Offer], given_weights: Weights) -> None:
    """The limit of the first row's price is not below its price, that of the others not above theirs."""
    for row in weighed(found, given_weights).rows:
        assert row.offer
        month = monthly_cost(row.offer)
        assert row.monthly_cost == month
        if row.wins_below is not None:
            assert (row.wins_below >= month) if row.chosen else (row.wins_below <= month)


def test_the_issue_s_own_example() -> None:
    """Two offers, one cheap and one reliable: the weight of the price at which they change places is known exactly."""
    cheap, solid = (
        offer("cheap", availability="99", egress=0),
        offer("solid", per_hour="0.02", availability="99.9", egress=0),
    )
    rows = weighed(
        [cheap, solid], {"price": Decimal(3), "guarantees": Decimal(1), "record": Decimal(0), "egress": Decimal(0)}
    ).rows
    assert [row.vendor for row in rows] == ["cheap", "solid"]
    # of the price 1 and 0.5, of the down time 0.1 and 1: equal where p + 0.1 (1 - p) = 0.5 p + 1 - p
    (price,) = (c for c in rows[1].criteria if c.attribute == "price")
    assert (price.above, price.below) == (0, Decimal("0.642857"))
    assert price.weight == Decimal("0.75")
    # 3 * 7.3 / month + 1 = 3 + 0.1
    assert rows[1].wins_below == Decimal("10.428571")


def test_who_is_dominated_wins_with_no_weights() -> None:
    """For an offer that another beats in everything no weights are named, but a price may be."""
    row = weighed(
        [offer("a"), offer("b", per_hour="0.02", egress="0.06")],
        {**dict.fromkeys(("price", "guarantees", "record", "egress"), Decimal(1))},
    ).rows[1]
    assert not row.efficient
    assert all((c.above, c.below) == (None, None) for c in row.criteria)
    assert row.wins_below is not None


def test_one_offer_alone_wins_at_any_price() -> None:
    """With nobody to compete with, nothing changes the result."""
    (row,) = compare(call(), {"a": offer("a")}, NOW).rows
    assert row.wins_below is None
    assert {(c.above, c.below) for c in row.criteria} == {(0, 1)}
