"""Scores: between 0 and 1, and never against reason."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.scoring import Weights, scores
from tests.broker.samples import offer, offers

several = st.lists(offers("v"), min_size=1, max_size=6)
some_weights = st.builds(Weights, price=st.floats(0.01, 10), availability=st.floats(0, 10), egress=st.floats(0, 10))


@given(several, some_weights)
def test_scores_lie_within_0_and_1(found: list, weights: Weights) -> None:
    """Every offer has a score, and none is below 0 or above 1 whatever the weights."""
    given_scores = scores(found, weights)
    assert len(given_scores) == len(found)
    assert all(0 <= score <= 1 + 1e-9 for score in given_scores)


@given(several, some_weights, st.data())
def test_a_dominating_offer_never_scores_lower(found: list, weights: Weights, data: st.DataObject) -> None:
    """An offer that is cheaper to run and to leave and guarantees more is never behind the one that it dominates."""
    worse = found[0]
    cheaper = worse.price.per_hour * data.draw(st.decimals(0, 1, places=2))
    egress = worse.price.egress_per_gib * data.draw(st.decimals(0, 1, places=2))
    known = worse.availability()
    available = data.draw(st.decimals(known if known is not None else 90, 100, places=3))
    better = offer(per_hour=cheaper, egress=egress, availability=available)
    before, *_, after = scores([*found, better], weights)
    assert after >= before - 1e-12


@given(several)
def test_who_is_best_in_everything_scores_1(found: list) -> None:
    """An offer that nobody beats in any attribute has the highest score there is."""
    ideal = offer(per_hour=0, egress=0, availability=100)
    assert scores([*found, ideal])[-1] == pytest.approx(1)


@given(several, st.randoms(use_true_random=False))
def test_an_offer_s_score_does_not_depend_on_its_place(found: list, random: object) -> None:
    """Scores are given in the order of the offers, and the order changes none of them."""
    places = list(range(len(found)))
    random.shuffle(places)
    straight, shuffled = scores(found), scores([found[place] for place in places])
    assert [straight[place] for place in places] == shuffled


def test_only_the_proportions_of_the_weights_matter() -> None:
    """Weights ten times as large say the same."""
    found = [offer(per_hour="0.02"), offer(per_hour="0.01", egress="0.9"), offer(availability=None)]
    assert scores(found, Weights(6, 3, 1)) == pytest.approx(scores(found, Weights(0.6, 0.3, 0.1)))


def test_a_price_twice_as_high_is_worth_half() -> None:
    """The utility of a price is the cheapest price over it, weighted."""
    cheap, dear = scores([offer(per_hour="0.01"), offer(per_hour="0.02")])
    assert cheap - dear == pytest.approx(0.6 * 0.5)


def test_ten_times_the_down_time_is_worth_a_tenth() -> None:
    """Availability counts by the down time that it allows: 99.99 % is ten times as good as 99.9 %."""
    good, poor = scores([offer(availability="99.99"), offer(availability="99.9")])
    assert good - poor == pytest.approx(0.3 * 0.9)


def test_no_guarantee_is_worth_nothing() -> None:
    """Without a guarantee the availability's utility is 0, also where nobody guarantees anything."""
    assert scores([offer(availability=None)]) == pytest.approx([0.7])
    assert scores([offer(availability=None), offer(availability="90")])[0] == pytest.approx(0.7)


def test_nothing_to_score_gives_no_scores() -> None:
    """No offers, no scores, no error."""
    assert scores([]) == []


def test_a_free_offer_does_not_break_the_others() -> None:
    """Where one price is 0, the others are worth nothing by price, and nothing is divided by zero."""
    free, paid = scores([offer(per_hour=Decimal(0)), offer(per_hour=Decimal("0.01"))])
    assert (free, paid) == (pytest.approx(1), pytest.approx(0.4))
