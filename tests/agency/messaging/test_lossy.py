"""The Contract Net over a link that loses, repeats and reorders, among agents that die and come back."""

from __future__ import annotations

import asyncio
import operator
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agency.messaging import contract_net, conversations
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.problems import AgencyError
from agency.store.store import Store
from agency.trust.keys import TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.sla import Agreement, Offer
from tests.agency.conftest import in_memory
from tests.agency.messaging.test_contract_net import call, offer_for
from tests.chaos.killing import KEY, Seller
from tests.labs.lossy import LossyLink

BROKER = "broker@test"
VENDORS = ("va@test", "vb@test")
OFFERS_STAND = timedelta(seconds=1.5)
MOST_ROUNDS = 3


class BriefSeller(Seller):
    """Its offers expire soon, so that some are accepted too late."""

    async def propose(self, asked: CallForProposals) -> Offer:
        """With an id of its own each time."""
        offer = offer_for(asked, "alpha").model_copy(
            update={"id": new_id("offer"), "expires": utc_now() + OFFERS_STAND}
        )
        await self._memory.save_proposal(offer)
        return offer


class Side:
    """An agent with its store, that can die and come back."""

    def __init__(self, jid: str, link: LossyLink, store: Store) -> None:
        self.jid = jid
        self.store = store
        self._link = link

    async def begin(self) -> None:
        """Come up, from what the store says."""
        self.table = Conversations(self.store)
        await self.table.load()
        self.agent = RoleAgent(self.jid, self._link)
        site = Site(KEY, TrustedKeys([("test", KEY.public)]), Replays(), self.store)
        if self.jid == BROKER:
            self.net = Initiator(self.agent, site, self.table)
        else:
            Participant(self.agent, BriefSeller(self.store), site, self.table)
        await self.agent.start()
        if self.jid == BROKER:
            self.net.take_up()

    async def again(self) -> None:
        """Die, with all that only memory knows, and come up."""
        await self.agent.stop()
        await self.written()  # a process that is dead writes nothing any more
        await self.begin()

    async def written(self) -> None:
        """Wait until what was decided is in the store."""
        if (writing := self.table._writer) is not None:
            await writing


class Market:
    """One broker, two vendors, and what happens among them."""

    def __init__(self, sides: dict[str, Side], link: LossyLink) -> None:
        self.sides = sides
        self.link = link
        self.rounds: list[asyncio.Task[None]] = []
        self.acceptances: list[asyncio.Task[Agreement]] = []
        self.offers: list[tuple[Offer, str]] = []

    # --- what may happen ---

    async def call(self, _: int) -> None:
        """The broker calls."""
        net = self.sides[BROKER].net

        async def one_round() -> None:
            asked = call(seconds=0.4)
            async with net.calling(asked, VENDORS):
                heard = await net.ask(asked.id, dict.fromkeys(VENDORS, asked), asked.reply_by)
                await net.stand(asked.id, heard)
            self.offers += [(each.answer, jid) for jid, each in heard.items() if isinstance(each.answer, Offer)]

        if len(self.rounds) < MOST_ROUNDS:
            self.rounds.append(asyncio.create_task(one_round()))

    async def accept(self, which: int) -> None:
        """Some offer is accepted, maybe after another one, maybe too late."""
        if self.offers:
            offer, jid = self.offers[which % len(self.offers)]
            self.acceptances.append(asyncio.create_task(self.sides[BROKER].net.accept(offer, jid)))

    async def deliver(self, which: int) -> None:
        """Something that is under way arrives."""
        if self.link.under_way:
            self.link.deliver(which)

    async def flush(self, _: int) -> None:
        """All that is under way arrives."""
        for _ in range(len(self.link.under_way)):
            self.link.deliver(0)

    async def repeat(self, which: int) -> None:
        """Something arrives, and will again."""
        if self.link.under_way:
            self.link.repeat(which)

    async def lose(self, which: int) -> None:
        """Something never arrives."""
        if self.link.under_way:
            self.link.lose(which)

    async def die(self, which: int) -> None:
        """An agent's process dies, and another one takes its place."""
        await list(self.sides.values())[which % len(self.sides)].again()

    async def wait(self, which: int) -> None:
        """Time passes."""
        await asyncio.sleep((0.02, 0.1, 0.4)[which % 3])

    # --- what must hold ---

    async def settle(self) -> None:
        """All rounds end, healed or not; once the link is healed everything does, and both sides say the same."""
        broker = self.sides[BROKER]
        async with asyncio.timeout(60):
            await asyncio.gather(*self.rounds, return_exceptions=True)
            self.link.heal()
            outcomes = await asyncio.gather(*self.acceptances, return_exceptions=True)
            while broker.table.open(BROKER):  # noqa: ASYNC110 - any of many events ends it
                await asyncio.sleep(0.02)
            for side in self.sides.values():
                await side.written()
        assert all(isinstance(each, Agreement | AgencyError | asyncio.CancelledError) for each in outcomes), outcomes
        ours = await agreed(broker.store)
        theirs = [made for jid in VENDORS for made in await agreed(self.sides[jid].store)]
        assert sorted(ours) == sorted(theirs)
        calls = [offer.call for offer, _ in self.offers if offer.id in ours]
        assert len(calls) == len(set(calls)), "a call led to two agreements"
        told = {outcome.offer for outcome in outcomes if isinstance(outcome, Agreement)}
        assert told <= set(ours), "what the deployer was told of is no agreement"
        for offer, jid in self.offers:
            seen = (await broker.table.find(BROKER, offer.call)).get(jid)
            there = (await self.sides[jid].table.find(jid, offer.call)).get(BROKER)
            assert [each is not None and each.state == "agreed" for each in (seen, there)] in ([True] * 2, [False] * 2)

    async def close(self) -> None:
        """Everybody goes."""
        tasks = (*self.rounds, *self.acceptances)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in self.sides.values():
            await side.agent.stop()
            await side.store.close()


async def agreed(store: Store) -> list[str]:
    """The offers of the agreements that a side holds for binding."""
    return [each.offer for each in await store.all(Agreement) if each.state == "observed"]


async def play(steps: list[tuple[str, int]], blank: Path, folder: Path) -> None:
    """Let it all happen, and look at the end."""
    link = LossyLink()
    sides = {}
    for jid in (BROKER, *VENDORS):
        shutil.copy(blank, folder / f"{jid}.db")
        sides[jid] = Side(jid, link, await Store.open(f"sqlite:///{folder}/{jid}.db"))
        await sides[jid].begin()
    market = Market(sides, link)
    try:
        for what, which in steps:
            await getattr(market, what)(which)
            await asyncio.sleep(0.005)
        await market.settle()
    finally:
        await market.close()


OFFERED = [("wait", 0), ("flush", 0), ("wait", 0), ("flush", 0), ("wait", 0)]
"""Steps that lead to offers that can be accepted."""
STEPS = ["call", "accept", "accept", "flush", "deliver", "deliver", "deliver", "repeat", "lose", "die", "wait", "wait"]


_STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 9))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.builds(operator.add, st.sampled_from([[], OFFERED, OFFERED]), st.lists(_STEP, min_size=3, max_size=40)))
@example(
    steps=[("call", 0), *[("deliver", 0)] * 4, ("wait", 1), ("accept", 0), ("deliver", 0), ("lose", 0), ("die", 0)]
)
@example(
    steps=[("call", 0), *[("deliver", 0)] * 4, ("wait", 1), ("accept", 0), ("accept", 1), ("repeat", 0), ("die", 1)]
)
@example(steps=[*OFFERED, ("accept", 0), ("wait", 0), ("flush", 0), ("wait", 0), ("flush", 0)])
@example(steps=[*OFFERED, ("accept", 0), ("wait", 0), ("flush", 0), ("wait", 0), *[("lose", 0)] * 9, ("die", 0)])
@example(steps=[*OFFERED, ("accept", 0), ("wait", 0), ("accept", 1), ("flush", 0), ("wait", 0), ("die", 1)])
@example(steps=[*OFFERED, ("accept", 0), ("wait", 0), ("flush", 0), *[("wait", 2)] * 5, ("flush", 0)])
@example(steps=[*OFFERED, ("accept", 0), ("flush", 0), *[("wait", 2)] * 2, ("accept", 1), ("wait", 0), ("flush", 0)])
@example(steps=[*OFFERED, ("accept", 0), *[("wait", 2)] * 2, ("accept", 1), ("wait", 0), ("die", 0), ("accept", 1)])
def test_whatever_the_link_does_there_is_at_most_one_agreement_and_both_know(
    blank: Path, impatient: None, quiet: None, steps: list[tuple[str, int]]
) -> None:
    """Rounds always end; no call leads to two agreements; and once the link is healed, broker and vendors agree on
    whether there is one, whoever died in between."""
    with in_memory() as folder:
        asyncio.run(play([("call", 0), *steps], blank, folder))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unanswered is said again soon, and nobody waits for long."""
    monkeypatch.setattr(conversations, "REPEAT_AFTER", 0.03)
    monkeypatch.setattr(conversations, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(contract_net, "SETTLE_WITHIN", 0.5)
