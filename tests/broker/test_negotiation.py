"""Haggling: never beyond a limit, always to an end, never with an offer that expired or was altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.negotiation import (
    STRATEGIES,
    Accept,
    Counter,
    GiveUp,
    History,
    Limits,
    Move,
    Scale,
    Situation,
    closing,
    content,
    flaws_of,
    insist,
    next_move,
    usual_limits,
)
from broker.pricing import Discount, Policy, answer, listed_id, opening
from broker.terms import changes, revised, value
from descriptors.base import Reference
from descriptors.digests import digest
from descriptors.sla import Constraint, CounterOffer, Offer
from tests.broker.samples import NOW, call, offer
from tests.broker.test_terms import template

MINUTE = timedelta(minutes=1)
HALF = Scale(best=Decimal("0.005"), worst=Decimal("0.01"))
LEVELS = st.floats(0, 1)


def limits(**fields: Any) -> Limits:
    """Limits on the price: from 0.005 to 0.01 an hour, for ten minutes and four rounds."""
    return Limits(**({"scales": {"price-per-hour": HALF}, "begins": NOW, "deadline": NOW + 10 * MINUTE} | fields))


def move(history: History, within: Limits, **fields: Any) -> Move:
    """The next move, at the beginning unless ``now`` is given."""
    now = fields.pop("now", NOW)
    return next_move(history, within, now, reply_by=now + MINUTE, **fields)


def asked(history: History, within: Limits, **fields: Any) -> CounterOffer:
    """The counter-offer that comes next."""
    found = move(history, within, **fields)
    assert isinstance(found, Counter)
    return found.counter


def reply(history: History, counter: CounterOffer, **prices: str) -> History:
    """The vendor answers the counter-offer with its latest offer, at other prices."""
    wanted = {"price-per-hour": Decimal(prices.get("per_hour", str(history.offers[-1].price.per_hour)))}
    answers = Reference(id=counter.id, digest=digest(counter))
    made = revised(history.offers[-1], wanted, id=f"offer-{len(history.offers)}", answers=answers)  # type: ignore[arg-type]
    return replace(history, offers=(*history.offers, made), counters=(*history.counters, counter))


START = History(call(), (offer(per_hour="0.01"),))


# --- strategies ---


@given(st.sampled_from(sorted(STRATEGIES)), LEVELS, st.lists(LEVELS), st.lists(LEVELS), st.none() | st.floats(0.01, 50))
def test_levels_stay_within_bounds(
    name: str, elapsed: float, mine: list[float], theirs: list[float], beta: float | None
) -> None:
    """Whatever happened, a strategy insists on something between 0 and 1, and on no more than before."""
    level = insist(STRATEGIES[name], Situation(elapsed, tuple(mine), tuple(theirs), beta))
    assert 0 <= level <= min(mine, default=1.0)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), 2.0, -3.0])
def test_a_strategy_that_goes_astray_is_held(odd: float) -> None:
    """A strategy of somebody else's may answer nonsense: the level stays within what was said before."""
    assert 0 <= insist(lambda _: odd, Situation(0.5, (0.8,), ())) <= 0.8


@given(LEVELS, LEVELS)
def test_time_makes_them_concede(one: float, other: float) -> None:
    """Boulware and conceder concede with time, the conceder never less than boulware, both all in the end."""
    sooner, later = sorted((one, other))
    for name in ("boulware", "conceder"):
        assert STRATEGIES[name](Situation(sooner, (), ())) >= STRATEGIES[name](Situation(later, (), ()))
        assert STRATEGIES[name](Situation(0.0, (), ())) == 1
        assert STRATEGIES[name](Situation(1.0, (), ())) == 0
    now = Situation(one, (), ())
    assert STRATEGIES["boulware"](now) >= STRATEGIES["conceder"](now)
    assert STRATEGIES["fixed"](now) == 1


def test_tit_for_tat_answers_in_kind() -> None:
    """Where the other gave up half of the distance, it gives up half; where the other gave nothing, nothing."""
    tit_for_tat = STRATEGIES["tit-for-tat"]
    assert tit_for_tat(Situation(0.5, (1.0,), (0.2, 0.6))) == pytest.approx(0.5)
    assert tit_for_tat(Situation(0.9, (0.7,), (0.2, 0.2))) == 0.7
    assert tit_for_tat(Situation(0.9, (0.7,), (0.6, 0.2))) == 0.7
    assert tit_for_tat(Situation(0.9, (), (0.6,))) == 1


# --- the buyer's moves ---


def test_a_whole_negotiation() -> None:
    """A vendor that comes down is asked for more until its offer is as good as what would be asked for next."""
    history, within, prices = START, limits(strategy="conceder"), []
    for price in ("0.009", "0.007", "0.0055"):
        found = move(history, within)
        if isinstance(found, Accept):
            break
        assert isinstance(found, Counter)
        prices.append(changes(found.counter)["price-per-hour"])
        history = reply(history, found.counter, per_hour=price)
    assert prices[0] == Decimal("0.005")
    assert prices == sorted(prices)
    found = move(history, within)
    assert isinstance(found, Accept)
    assert found.offer == history.offers[-1]
    assert found.why.code == "good-enough"


def test_it_ends_after_its_rounds() -> None:
    """After the last round what is within the limits is taken, and what is not is left."""
    history, within = START, limits(rounds=1)
    history = reply(history, asked(history, within), per_hour="0.0099")
    found = move(history, within)
    assert isinstance(found, Accept)
    assert found.why.code == "within-limits"
    dear = History(call(), (offer(per_hour="0.02"),))
    dear = reply(dear, asked(dear, within))
    found = move(dear, within)
    assert isinstance(found, GiveUp)
    assert found.why.code == "beyond-reservation"


def test_it_ends_at_the_deadline() -> None:
    """At the deadline nothing more is asked for."""
    late = NOW + 10 * MINUTE
    assert isinstance(move(START, limits(), now=late), Accept)
    assert isinstance(move(START, limits(rounds=0)), Accept)


def test_it_ends_when_both_repeat_themselves() -> None:
    """Where neither side moves there is nothing to wait for."""
    within = limits(strategy="fixed", rounds=9)
    history = reply(START, asked(START, within))
    assert isinstance(move(history, within), Accept)


def test_a_vendor_may_stand_by_its_offer() -> None:
    """A vendor that knows nothing of counter-offers says its offer again: that is no alteration."""
    counter = asked(START, limits())
    again = History(call(), START.offers * 2, (counter,))
    assert flaws_of(again, NOW) == ()


def test_the_budget_caps_what_is_asked_for() -> None:
    """Where a month may cost less than the worst price comes to, that is the limit."""
    within = limits(budget=Decimal("3.0"), strategy="conceder")
    later = NOW + 9 * MINUTE
    assert changes(asked(START, within, now=later))["price-per-hour"] * 730 <= 3
    found = closing(START, within, NOW)
    assert isinstance(found, GiveUp)
    assert found.why.code == "over-budget"


def test_the_reservation_holds_in_all() -> None:
    """An offer within every limit is still left where all in all it is not worth enough."""
    found = closing(START, limits(reservation=0.5), NOW)
    assert isinstance(found, GiveUp)
    assert found.why.code == "below-reservation"


def test_a_template_says_what_can_be_asked_for() -> None:
    """Only open terms are asked for, and only values that the template has; with none, the offer is decided on."""
    price = "price-per-hour"
    assert isinstance(move(START, limits(), template=template()), Accept)
    ranged = template(Constraint(term=price, at_least=Decimal("0.007")))
    assert changes(asked(START, limits(), template=ranged)) == {price: Decimal("0.007")}
    chosen = template(Constraint(term=price, choices=(Decimal("0.02"), Decimal("0.008"))))
    assert changes(asked(START, limits(), template=chosen)) == {price: Decimal("0.008")}
    beyond = template(Constraint(term=price, at_least=Decimal("0.02")))
    assert isinstance(move(START, limits(), template=beyond), Accept)


def test_a_longer_term_is_told_to_who_negotiates_it() -> None:
    """A buyer that would commit itself says so where the vendor's template has the term, and commits to no more."""
    within = limits(commit_days=90)
    open_ = template(Constraint(term="price-per-hour"), Constraint(term="minimum-days", at_most=Decimal(365)))
    counter = asked(START, within, template=open_)
    assert changes(counter)["minimum-days"] == 90
    assert "minimum-days" not in changes(asked(START, within, template=template(Constraint(term="price-per-hour"))))
    answers = Reference(id=counter.id, digest=digest(counter))
    long = revised(START.offers[0], {"minimum-days": Decimal(91)}, id="offer-long", answers=answers)
    found = closing(History(call(), (*START.offers, long), (counter,)), within, NOW)
    assert isinstance(found, GiveUp)
    assert found.why.code == "beyond-reservation"


def test_usual_limits() -> None:
    """Without further wishes a buyer hopes for a fifth less, and takes nothing worse than offered, or than required."""
    made = offer(per_hour="0.01", egress="0.05", availability="99.9")
    wanted = call(availability=Decimal(99), price_cap=Decimal(7))
    within = usual_limits(made, wanted, NOW, NOW + MINUTE)
    assert within.scales["price-per-hour"] == Scale(best=Decimal("0.008"), worst=Decimal("0.01"))
    assert within.scales["egress-per-gib"] == Scale(best=Decimal("0.04"), worst=Decimal("0.05"))
    assert within.scales["availability"] == Scale(best=Decimal("99.9"), worst=Decimal(99))
    assert within.budget == 7
    assert "setup" not in within.scales
    assert content(made, replace(within, scales={})) == 1


# --- what must never be accepted ---

ALTERATIONS: dict[str, tuple[Callable[[Offer], dict[str, Any]], str]] = {
    "expired": (lambda o: {"expires": NOW}, "expired"),
    "other call": (lambda o: {"call": "call-2"}, "other-call"),
    "other application": (lambda o: {"application": "other"}, "other-call"),
    "less resources": (lambda o: {"resources": o.resources[:1]}, "other-call"),
    "same id, other content": (lambda o: {"id": "offer-alpha"}, "altered"),
    "answers nothing": (lambda o: {"answers": None}, "altered"),
    "answers something else": (lambda o: {"answers": Reference(id="c", digest="blake3:" + "0" * 64)}, "altered"),
    "other region": (lambda o: {"region": "us-east"}, "altered"),
    "other jurisdiction": (lambda o: {"jurisdiction": "US"}, "altered"),
    "other vendor": (lambda o: {"vendor": "beta"}, "altered"),
    "other currency": (lambda o: {"price": o.price.model_copy(update={"currency": "JPY"})}, "altered"),
    "a dearer month": (lambda o: {"price": o.price.model_copy(update={"per_month": Decimal(99)})}, "altered"),
    "a setup fee": (lambda o: {"price": o.price.model_copy(update={"setup": Decimal(9)})}, "altered"),
    "a minimum term": (lambda o: {"price": o.price.model_copy(update={"minimum_days": 900})}, "altered"),
    "a smaller penalty": (
        lambda o: {"guarantees": tuple(g.model_copy(update={"penalty": Decimal(0)}) for g in o.guarantees)},
        "altered",
    ),
    "no guarantees": (lambda o: {"guarantees": ()}, "altered"),
    "other sizes": (
        lambda o: {"allocations": tuple(a.model_copy(update={"size": "tiny"}) for a in o.allocations)},
        "altered",
    ),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_alterations_are_found(name: str) -> None:
    """An offer that expired, or that differs in what was not negotiated, is never taken, however cheap."""
    change, code = ALTERATIONS[name]
    history = reply(START, asked(START, limits()), per_hour="0.005")
    assert flaws_of(history, NOW) == ()
    bad = history.offers[-1].model_copy(update=change(history.offers[-1]))
    history = replace(history, offers=(*history.offers[:-1], bad))
    found = move(history, limits())
    assert isinstance(found, GiveUp)
    assert found.why.code == code


class Haggling(RuleBasedStateMachine):
    """A buyer against a vendor that is honest at times, and does anything else at others."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Draw the buyer's limits and the vendor's policy and first offer."""
        low, high = sorted(data.draw(st.tuples(*[st.decimals("0.0001", "0.02", places=6)] * 2)))
        scales = {"price-per-hour": Scale(best=low, worst=high)}
        if data.draw(st.booleans()):
            scales["availability"] = Scale(best=Decimal("99.99"), worst=Decimal("99.5"))
        self.within = limits(
            scales=scales,
            strategy=data.draw(st.sampled_from(sorted(STRATEGIES))),
            rounds=data.draw(st.integers(0, 6)),
            budget=data.draw(st.none() | st.decimals(1, 15, places=2)),
            reservation=data.draw(st.sampled_from([0.0, 0.5])),
            commit_days=data.draw(st.sampled_from([None, 30])),
        )
        self.policy = data.draw(policies)
        self.template = template(*self.policy.constraints())
        self.listed = offer(per_hour=data.draw(st.decimals("0.0001", "0.03", places=6)), expires=NOW + 5 * MINUTE)
        self.now, self.ended = NOW, None
        self.history = History(call(), (opening(self.listed, self.policy),))
        self.steps = 0
        self.buyer()

    def buyer(self) -> None:
        """It is the buyer's turn."""
        found = next_move(
            self.history, self.within, self.now, reply_by=self.now + MINUTE,
            template=self.template if self.policy.negotiable else None,
        )  # fmt: skip
        if isinstance(found, Counter):
            self.check_counter(found.counter)
            self.counter = found.counter
        else:
            self.ended = found
            if isinstance(found, Accept):
                self.check_accepted(found.offer)

    def check_counter(self, counter: CounterOffer) -> None:
        """Nothing is asked for that would not be taken."""
        assert len(self.history.counters) < self.within.rounds
        assert counter.offer.digest == digest(self.history.offers[-1])
        assert counter.expires <= self.within.deadline
        for term, amount in changes(counter).items():
            if term == "price-per-hour":
                assert amount <= self.within.scales[term].worst
                assert self.within.budget is None or amount * 730 <= self.within.budget
            elif term == "availability":
                assert amount >= self.within.scales[term].worst
            else:
                assert (term, amount) == ("minimum-days", self.within.commit_days)

    def check_accepted(self, taken: Offer) -> None:
        """It stands, is what was offered first but for the terms negotiated, and is within every limit."""
        first = self.history.offers[0]
        assert taken == self.history.offers[-1]
        assert taken.expires > self.now
        assert taken.price.per_hour <= self.within.scales["price-per-hour"].worst
        assert self.within.budget is None or taken.price.per_month <= self.within.budget
        assert content(taken, self.within) >= self.within.reservation
        for same in ("call", "application", "vendor", "region", "jurisdiction", "resources"):
            assert getattr(taken, same) == getattr(first, same)
        assert taken.price.setup <= first.price.setup
        assert (taken.price.minimum_days or 0) <= (self.within.commit_days or 0)
        assert [g.penalty for g in taken.guarantees] == [g.penalty for g in first.guarantees]
        least = self.within.scales.get("availability")
        assert least is None or (taken.availability() or 0) >= least.worst

    def said(self, made: Offer) -> None:
        """The vendor has answered the counter-offer."""
        self.history = History(call(), (*self.history.offers, made), (*self.history.counters, self.counter))
        self.steps += 1
        self.buyer()

    @precondition(lambda self: self.ended is None)
    @rule()
    def honest(self) -> None:
        """The vendor answers by its policy; where it will not, it stands by its offer."""
        made = answer(
            self.counter, self.listed, self.history.offers, self.history.counters, self.policy, self.template, self.now
        )
        self.said(made if isinstance(made, Offer) else self.history.offers[-1])

    @precondition(lambda self: self.ended is None)
    @rule(name=st.sampled_from(sorted(ALTERATIONS)), price=st.decimals(0, "0.03", places=6))
    def dishonest(self, name: str, price: Decimal) -> None:
        """The vendor answers with an offer that it altered."""
        answers = Reference(id=self.counter.id, digest=digest(self.counter))
        fields = {"id": f"offer-{self.steps + 1}", "answers": answers, "issued": self.now}
        made = revised(self.history.offers[-1], {"price-per-hour": price}, **fields)
        made = made.model_copy(update=ALTERATIONS[name][0](made))
        self.said(made)

    @precondition(lambda self: self.ended is None)
    @rule(price=st.decimals(0, "0.03", places=6), availability=st.decimals(0, 100, places=3))
    def capricious(self, price: Decimal, availability: Decimal) -> None:
        """The vendor answers with any price, and any availability."""
        answers = Reference(id=self.counter.id, digest=digest(self.counter))
        fields = {"id": f"offer-{self.steps + 1}", "answers": answers, "issued": self.now}
        wanted = {"price-per-hour": price, "availability": availability}
        self.said(revised(self.history.offers[-1], wanted, **fields))  # type: ignore[arg-type]

    @precondition(lambda self: self.ended is None)
    @rule(which=st.integers(0, 6))
    def replaying(self, which: int) -> None:
        """The vendor says an earlier offer again."""
        self.said(self.history.offers[min(which, len(self.history.offers) - 1)])

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    @invariant()
    def it_ends(self) -> None:
        """No more counter-offers than rounds, whoever the vendor is."""
        if hasattr(self, "steps"):
            assert self.steps <= self.within.rounds


discounts = st.lists(
    st.builds(lambda start, percent: Discount.model_validate({"from": start, "percent": percent}),
              st.sampled_from([1, 30, 365]), st.integers(0, 60)), max_size=2,
).map(tuple)  # fmt: skip
policies = st.builds(
    Policy,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    beta=st.none() | st.floats(0.05, 20),
    rounds=st.integers(1, 6),
    floor=st.none() | st.integers(0, 100),
    term_discounts=discounts,
    volume_discounts=discounts,
    limits=st.sampled_from([{}, {"availability": Decimal("99.95")}, {"egress-per-gib": Decimal("0.01")}]),
)
TestHaggling = Haggling.TestCase


# --- the vendor's answers ---


@given(policies, st.data())
def test_a_vendor_never_goes_below_its_floor(policy: Policy, data: st.DataObject) -> None:
    """Whatever is asked for and however often: no price below the floor, no term beyond its limit, and each offer
    keeps to the template and answers the counter-offer."""
    listed, open_ = offer(per_hour="0.0123"), template(*policy.constraints())
    offers: list[Offer] = [opening(listed, policy)]
    counters: list[CounterOffer] = []
    off = sum(max((d.percent for d in each), default=0) for each in (policy.term_discounts, policy.volume_discounts))
    lowest = listed.price.per_hour * (100 - off if policy.floor is None else policy.floor) / 100
    possible = [c.term for c in open_.constraints]
    for n in range(data.draw(st.integers(1, 5)) if possible else 0):
        terms = data.draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
        values = {"availability": "99.9123", "minimum-days": data.draw(st.sampled_from(["0", "29.5", "30", "3650"]))}
        wants = {t: Decimal(values.get(t, data.draw(st.sampled_from(["0", "0.001", "0.012", "5"])))) for t in terms}
        said = CounterOffer.model_validate(
            {
                "id": f"counter-{n}", "call": listed.call, "application": listed.application, "vendor": "alpha",
                "issued": NOW, "expires": NOW + MINUTE,
                "offer": Reference(id=offers[-1].id, digest=digest(offers[-1])),
                "changes": [{"term": t, "value": v} for t, v in wants.items()],
            }
        )  # fmt: skip
        made = answer(said, listed, offers, counters, policy, open_, NOW)
        assert isinstance(made, Offer)
        assert made.answers == Reference(id=said.id, digest=digest(said))
        assert made.price.per_hour >= lowest
        assert (made.availability() or 0) <= Decimal("99.95")
        assert (value(made, "egress-per-gib") or 0) >= Decimal("0.01")
        assert listed_id(made.id) == listed.id
        offers.append(made)
        counters.append(said)


def test_a_vendor_answers_by_its_policy() -> None:
    """A longer term earns its discount at once; by haggling the price comes down to the floor, and no further."""
    policy = Policy.model_validate(
        {"strategy": "conceder", "rounds": 2, "floor": 80, "term_discounts": [{"from": 30, "percent": 10}]}
    )
    listed, open_ = offer(per_hour="0.01"), template(*policy.constraints())
    offers, counters, prices = [opening(listed, policy)], [], []
    assert offers[0].price == listed.price
    for _ in range(2):
        said = CounterOffer.model_validate(
            {
                "id": f"counter-{len(counters)}", "call": listed.call, "application": listed.application,
                "vendor": "alpha", "issued": NOW, "expires": NOW + MINUTE,
                "offer": Reference(id=offers[-1].id, digest=digest(offers[-1])),
                "changes": [{"term": "price-per-hour", "value": "0.001"}, {"term": "minimum-days", "value": 30}],
            }
        )  # fmt: skip
        made = answer(said, listed, offers, counters, policy, open_, NOW)
        assert isinstance(made, Offer)
        assert made.price.minimum_days == 30
        prices.append(made.price.per_hour)
        offers.append(made)
        counters.append(said)
    assert Decimal("0.008") < prices[0] < Decimal("0.009")
    assert prices[1] == Decimal("0.008")


def test_a_discount_for_a_term_goes_with_it() -> None:
    """Who takes its commitment back pays the price without it again."""
    policy = Policy.model_validate({"floor": 50, "term_discounts": [{"from": 30, "percent": 10}]})
    listed, open_ = offer(per_hour="0.01"), template(*policy.constraints())
    offers, counters = [opening(listed, policy)], []
    for days, price in ((30, "0.009"), (0, "0.01")):
        said = CounterOffer.model_validate(
            {
                "id": f"counter-{days}", "call": listed.call, "application": listed.application, "vendor": "alpha",
                "issued": NOW, "expires": NOW + MINUTE,
                "offer": Reference(id=offers[-1].id, digest=digest(offers[-1])),
                "changes": [{"term": "minimum-days", "value": days}],
            }
        )  # fmt: skip
        made = answer(said, listed, offers, counters, policy, open_, NOW)
        assert isinstance(made, Offer)
        assert made.price.per_hour == Decimal(price)
        offers.append(made)
        counters.append(said)


def test_the_modules_own_minimum_term_stays() -> None:
    """What the module sells for a minimum term only is never sold for a shorter one."""
    policy = Policy.model_validate({"floor": 50, "term_discounts": [{"from": 30, "percent": 10}]})
    listed, open_ = revised(offer(), {"minimum-days": Decimal(60)}), template(*policy.constraints())
    first = opening(listed, policy)
    wish = asked(History(call(), (first,)), limits()).model_dump() | {"changes": [{"term": "minimum-days", "value": 0}]}
    made = answer(CounterOffer.model_validate(wish), listed, [first], [], policy, open_, NOW)
    assert isinstance(made, Offer)
    assert made.price.minimum_days == 60


def test_volume_is_worth_something_from_the_start() -> None:
    """Who buys much is offered the discount before it asks."""
    policy = Policy.model_validate({"volume_discounts": [{"from": 7, "percent": 20}]})
    assert opening(offer(per_hour="0.01"), policy).price.per_hour == Decimal("0.008")
    assert opening(offer(per_hour="0.009"), policy).price.per_hour == Decimal("0.009")


def test_a_vendor_refuses_what_expired_or_was_altered() -> None:
    """A vendor revises no offer that expired, and none that it did not make."""
    policy = Policy.model_validate({"floor": 50})
    listed, open_ = offer(), template(*policy.constraints())
    first = opening(listed, policy)
    counter = asked(History(call(), (first,)), limits())
    found = answer(counter, listed, [first], [], policy, open_, first.expires)
    assert not isinstance(found, Offer)
    assert [reason.code for reason in found] == ["expired"]
    other = revised(first, {"price-per-hour": Decimal("0.02")})
    found = answer(counter, listed, [other], [], policy, open_, NOW)
    assert not isinstance(found, Offer)
    assert [reason.code for reason in found] == ["other-offer"]


def test_a_policy_says_each_thing_in_its_place() -> None:
    """The price and the minimum term have settings of their own; nothing said means nothing is negotiable."""
    with pytest.raises(ValueError, match="limits cannot have price-per-hour: say it with floor"):
        Policy.model_validate({"limits": {"price-per-hour": 1}})
    assert not Policy(strategy="fixed").negotiable
    assert Policy().constraints() == ()
