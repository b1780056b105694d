"""Scores: between 0 and 1, exact, and never against reason."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.scoring import DEFAULT_WEIGHTS, ONE, PROPERTIES, Standing, Weights, candidate, shares, standings, weights_of
from descriptors.application import Attribute, Requirements, Weight
from descriptors.base import utc_now
from descriptors.comparison import Incident, Record
from descriptors.sla import MEASURES, GuaranteeTerm, Offer, Property
from tests.broker.samples import offer, weights
from tests.broker.samples import rival_offers as several

PLAIN = Requirements()


def scored(
    found: list[Offer],
    weights: Weights = DEFAULT_WEIGHTS,
    wanted: Requirements = PLAIN,
    records: dict[str, Record] | None = None,
) -> dict[str, Standing]:
    """The standing of each offer, by vendor, best first."""
    candidates = [candidate(each, wanted, (records or {}).get(each.vendor)) for each in found]
    return {s.candidate.name: s for s in standings(candidates, shares(candidates, weights))}


def score(standing: Standing, found: list[Offer], weights: Weights, wanted: Requirements = PLAIN) -> float:
    """From 0 to 1."""
    total = sum(shares([candidate(each, wanted) for each in found], weights).values())
    return standing.score / (ONE * total) if total else 0.0


@given(several, weights)
def test_scores_lie_within_0_and_1(found: list[Offer], given_weights: Weights) -> None:
    """Every offer has a score, and none is below 0 or above 1 whatever the weights."""
    result = scored(found, given_weights)
    assert len(result) == len(found)
    assert all(0 <= score(standing, found, given_weights) <= 1 for standing in result.values())


@given(several, weights, st.data())
def test_cheaper_with_all_else_equal_never_ranks_lower(
    found: list[Offer], given_weights: Weights, data: st.DataObject
) -> None:
    """Whoever lowers a price, an hour's, a month's, the setup's or the egress's, keeps its place or gains one."""
    one = data.draw(st.sampled_from(found))
    term = data.draw(st.sampled_from(["per_hour", "per_month", "setup", "egress_per_gib"]))
    lower = (getattr(one.price, term) * data.draw(st.decimals(0, 1, places=2))).quantize(Decimal("0.000001"))
    cheaper = one.model_copy(update={"price": one.price.model_copy(update={term: lower})})
    before = list(scored(found, given_weights))
    after = list(scored([cheaper if each is one else each for each in found], given_weights))
    assert after.index(one.vendor) <= before.index(one.vendor)


@given(several, weights)
def test_who_is_dominated_never_wins(found: list[Offer], given_weights: Weights) -> None:
    """Whatever the weights, the first is one that no other offer beats or equals in everything; somebody always is."""
    assert not next(iter(scored(found, given_weights).values())).dominated


@given(several, weights)
def test_dominated_means_what_it_says(found: list[Offer], given_weights: Weights) -> None:
    """Who is dominated has somebody who is as good in every amount and better in one; nobody else has."""
    result = scored(found, given_weights)
    for mine in result.values():
        assert mine.dominated == any(_beats(other, mine) for other in result.values())


def _beats(one: Standing, other: Standing) -> bool:
    """The definition, spelled out."""
    pairs = []
    for name in one.utilities:
        mine, theirs = one.candidate.qualities[name].amount, other.candidate.qualities[name].amount
        if name == "carbon" and (mine is None) != (theirs is None):
            return False
        down = name in ("price", "egress", "carbon") or (
            name in PROPERTIES and (MEASURES[name].most is not None or not MEASURES[name].more_is_better)
        )
        worst = float("inf") if down else float("-inf")
        mine, theirs = (worst if mine is None else mine), (worst if theirs is None else theirs)
        pairs.append((theirs, mine) if down else (mine, theirs))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(several, weights)
def test_who_is_best_in_everything_scores_1(found: list[Offer], given_weights: Weights) -> None:
    """An offer that nobody beats in any attribute has the highest score there is."""
    terms = tuple(
        GuaranteeTerm(name=name, property=name, penalty=Decimal(1), **{_side(name): _ideal(name)})
        for name in PROPERTIES
    )
    ideal = offer("ideal", per_hour=0, egress=0, guarantees=terms, region="moon", carbon_g_per_kwh=0)
    wanted = Requirements(preferences=("moon",))
    result = scored([*found, ideal], given_weights, wanted)
    assert result["ideal"].score == max(standing.score for standing in result.values())
    if any(given_weights.values()):
        assert score(result["ideal"], [*found, ideal], given_weights, wanted) in (0, 1)


def _side(name: Property) -> str:
    return "at_least" if MEASURES[name].more_is_better else "at_most"


def _ideal(name: Property) -> Decimal:
    measure = MEASURES[name]
    return (measure.most or Decimal(10**9)) if measure.more_is_better else Decimal(0)


@given(several, weights, st.randoms(use_true_random=False))
def test_the_order_changes_nothing(found: list[Offer], given_weights: Weights, random: Random) -> None:
    """The same offers have the same scores and places, in whatever order they came."""
    shuffled = list(found)
    random.shuffle(shuffled)
    before, after = scored(found, given_weights), scored(shuffled, given_weights)
    assert [(name, s.score) for name, s in before.items()] == [(name, s.score) for name, s in after.items()]


def test_only_the_proportions_of_the_weights_matter() -> None:
    """Weights ten times as large say the same."""
    found = [offer("a", per_hour="0.02"), offer("b", per_hour="0.01", egress="0.9"), offer("c", availability=None)]
    tenfold = {name: weight * 10 for name, weight in DEFAULT_WEIGHTS.items()}
    for name, standing in scored(found).items():
        assert score(standing, found, DEFAULT_WEIGHTS) == score(scored(found, tenfold)[name], found, tenfold)


def only(attribute: Attribute) -> Weights:
    """Nothing else counts."""
    return {**dict.fromkeys(DEFAULT_WEIGHTS, Decimal(0)), attribute: Decimal(1)}


def utility(attribute: Attribute, *found: Offer, **how: Any) -> list[float]:
    """The utility of the offers by one attribute, in the order given."""
    result = scored(list(found), only(attribute), **how)
    return [result[each.vendor].utilities[attribute] / ONE for each in found]


def test_a_price_twice_as_high_is_worth_half() -> None:
    """The utility of a price is the cheapest price over it."""
    assert utility("price", offer("a", per_hour="0.01"), offer("b", per_hour="0.02")) == [1, 0.5]


def test_a_setup_fee_is_spread_over_a_year() -> None:
    """What is paid once counts by a twelfth of it beside a month's price."""
    dear = offer("b", setup="12")
    assert dear.price.per_month == Decimal("7.30")
    assert utility("price", offer("a"), dear) == [1, pytest.approx(7.3 / 8.3)]


def test_ten_times_the_down_time_is_worth_a_tenth() -> None:
    """Availability counts by the down time that it allows: 99.99 % is ten times as good as 99.9 %."""
    assert utility("availability", offer("a", availability="99.99"), offer("b")) == [1, pytest.approx(0.1)]


def test_no_guarantee_is_worth_nothing() -> None:
    """Without a guarantee the utility is 0; where nobody guarantees anything, guarantees count for nothing."""
    assert utility("availability", offer("a", availability="90"), offer("b", availability=None)) == [1, 0]
    bare = scored([offer("a", availability=None), offer("b", availability=None)])
    assert "availability" not in bare["a"].utilities


def test_any_property_counts_in_its_own_direction() -> None:
    """Fast answers and high throughput are good; a guarantee for a part, or on a condition, is none for the whole."""

    def with_terms(vendor: str, *terms: tuple[Property, str]) -> Offer:
        return offer(
            vendor,
            guarantees=tuple(
                GuaranteeTerm(name=name, property=name, penalty=Decimal(1), **{_side(name): Decimal(bound)})
                for name, bound in terms
            ),
        )

    found = [with_terms("a", ("response-time", "200"), ("throughput", "10")), with_terms("b", ("response-time", "100"))]
    assert utility("response-time", *found) == [0.5, 1]
    assert utility("throughput", *found) == [1, 0]
    partly = found[0].guarantees[1].model_copy(update={"scope": ("disk",)})
    found[0] = found[0].model_copy(update={"guarantees": (found[0].guarantees[0], partly)})
    assert candidate(found[0], PLAIN).qualities["throughput"].amount is None


def test_guarantees_share_one_weight_and_a_named_one_has_its_own() -> None:
    """However much is guaranteed, guarantees do not outweigh the price; a property with a weight has just that."""
    terms = tuple(
        GuaranteeTerm(name=name, property=name, penalty=Decimal(1), **{_side(name): _ideal(name)})
        for name in PROPERTIES[:3]
    )
    candidates = [candidate(offer(guarantees=terms), PLAIN)]
    parts = shares(candidates, DEFAULT_WEIGHTS)
    assert sum(parts[name] for name in PROPERTIES[:3]) * 2 == parts["price"]
    named = shares(candidates, {**DEFAULT_WEIGHTS, "availability": Decimal("0.6")})
    assert named["availability"] == named["price"]
    assert (named["response-time"] + named["throughput"]) * 2 == named["price"]


def test_what_a_vendor_did_before_counts() -> None:
    """Who broke agreements is behind a newcomer, who is behind one that kept many."""
    records = {
        "good": Record(vendor="good", agreements=10),
        "bad": Record(vendor="bad", agreements=10, broken=8),
    }
    good, new, bad = utility("record", *(offer(name) for name in ("good", "new", "bad")), records=records)
    assert good == 1 > new > bad > 0


def test_penalties_are_told() -> None:
    """What a vendor paid back is in the words of its record."""
    incident = Incident(
        about="offer-1", code="violated", application="x", at=utc_now(), penalty=Decimal("1.50"), message="was down"
    )
    quality = candidate(offer(), PLAIN, Record(vendor="alpha", agreements=2, broken=1, incidents=(incident,)))
    assert quality.qualities["record"].words == "1 of 2 agreements broken, 1.50 paid back"


def test_preferred_places_come_in_their_order() -> None:
    """The first preference is worth most, what is not preferred nothing; without preferences places do not count."""
    found = [offer("a", region="x"), offer("b", jurisdiction="CH"), offer("c")]
    wanted = Requirements(preferences=("CH", "x"))
    assert utility("locality", *found, wanted=wanted) == [0.5, 1, 0]
    assert "locality" not in scored(found)["a"].utilities


def test_unknown_carbon_is_unknown_and_never_zero() -> None:
    """Who does not tell its carbon earns nothing by it, and neither dominates nor is dominated by who does."""
    clean, dirty, silent = (
        offer("clean", carbon_g_per_kwh=0),
        offer("dirty", carbon_g_per_kwh=500),
        offer("silent", per_hour="0.02"),
    )
    assert utility("carbon", clean, dirty, silent) == [1, 0, 0]
    result = scored([dirty, silent])
    assert not result["silent"].dominated
    assert not result["dirty"].dominated
    assert "carbon" not in scored([silent])["silent"].utilities


def test_nothing_to_score_gives_no_scores() -> None:
    """No offers, no scores, no error; and weights that are all 0 leave the order to the price."""
    assert scored([]) == {}
    nothing = dict.fromkeys(DEFAULT_WEIGHTS, Decimal(0))
    assert list(scored([offer("a", per_hour="0.02"), offer("b")], nothing)) == ["b", "a"]


def test_a_free_offer_does_not_break_the_others() -> None:
    """Where one price is 0, the others are worth nothing by price, and nothing is divided by zero."""
    assert utility("price", offer("a", per_hour=0), offer("b")) == [1, 0]


def test_weights_are_the_usual_ones_then_the_descriptor_s_then_those_given() -> None:
    """Whoever speaks last about an attribute is heard; about the others, whoever spoke before."""
    wanted = Requirements(
        weights=(Weight(attribute="price", value=Decimal(2)), Weight(attribute="egress", value=Decimal(3)))
    )
    found = weights_of(wanted, [Weight(attribute="egress", value=Decimal(0))])
    assert (found["price"], found["egress"], found["record"]) == (2, 0, DEFAULT_WEIGHTS["record"])


def test_the_descriptor_knows_every_property() -> None:
    """Whatever can be guaranteed can be weighed."""
    assert get_args(Attribute)[6:] == PROPERTIES
