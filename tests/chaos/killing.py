"""Plays one acceptance again and again, and kills the process at every step of it: before and after each transaction of
either side's store, and each message. Prints what a new process makes of what is left, one JSON object a line.

    python -m tests.chaos.killing DIRECTORY
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.in_process import InProcessLink
from agency.store.persistence import StorePersistence
from agency.store.store import NotStored, Store
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.sla import Agreement, CounterOffer, Offer
from descriptors.trust import Acceptance
from tests.agency.messaging.test_contract_net import agreement_on, call, offer_for

BROKER, VENDOR = "broker@test", "va@test"
KEY = SiteKey.generate("test")


class Seller:
    """A vendor that remembers its offers in its store."""

    def __init__(self, store: Store) -> None:
        self._memory = StorePersistence(store)

    async def propose(self, asked: CallForProposals) -> Offer:
        """Always."""
        offer = offer_for(asked, "alpha")
        await self._memory.save_proposal(offer)
        return offer

    async def revise(self, counter: CounterOffer) -> Offer:
        """Never, here."""
        raise NotStored(counter.id)

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """What was offered."""
        offer = await self._memory.proposal(acceptance.offer)
        if offer is None:
            raise NotStored(acceptance.offer)
        return agreement_on(offer)


class Steps:
    """Counts the steps, and dies at one of them."""

    def __init__(self, deadly: int | None) -> None:
        self._deadly = deadly
        self.counting = False
        self._taken = 0

    def step(self) -> None:
        """Maybe the last."""
        if self.counting:
            if self._taken == self._deadly:
                os._exit(KILLED)
            self._taken += 1

    def watch(self, link: InProcessLink, *stores: Store) -> None:
        """Count around every transaction and every message."""
        send = link.send
        for store in stores:
            store.transaction = self._counted(store.transaction)  # type: ignore[method-assign]

        async def counted_send(message: Any) -> None:
            self.step()
            await send(message)
            self.step()

        link.send = counted_send  # type: ignore[method-assign]

    def _counted(self, transaction: Any) -> Any:
        @asynccontextmanager
        async def counted() -> AsyncIterator[Any]:
            self.step()
            async with transaction() as session:
                yield session
            self.step()

        return counted


KILLED = 77


@asynccontextmanager
async def sides(folder: Path, steps: Steps) -> AsyncIterator[tuple[Initiator, Conversations, Store, Store]]:
    """A broker and a vendor, each with a store of its own."""
    async with (
        Store.open(f"sqlite:///{folder}/broker.db") as here,
        Store.open(f"sqlite:///{folder}/vendor.db") as there,
    ):
        link, trusted = InProcessLink(), TrustedKeys([("test", KEY.public)])
        steps.watch(link, here, there)
        agents = [RoleAgent(VENDOR, link), RoleAgent(BROKER, link)]
        tables = {here: Conversations(here), there: Conversations(there)}
        for table in tables.values():
            await table.load()
        Participant(agents[0], Seller(there), Site(KEY, trusted, Replays(), there), tables[there])
        broker = Initiator(agents[1], Site(KEY, trusted, Replays(), here), tables[here])
        for agent in agents:
            await agent.start()
        yield broker, tables[here], here, there
        for agent in agents:
            await agent.stop()


async def play(folder: Path, deadly: int) -> None:
    """Call, and accept; dies at that step of the acceptance, if there are so many."""
    steps = Steps(deadly)
    async with sides(folder, steps) as (broker, _, here, _):
        asked = call(seconds=20)
        async with broker.calling(asked, [VENDOR]):
            heard = await broker.ask(asked.id, {VENDOR: asked}, asked.reply_by)
            await broker.stand(asked.id, heard)
        offer = heard[VENDOR].answer
        assert isinstance(offer, Offer)
        await here.put(offer, id=offer.id)
        steps.counting = True
        await broker.accept(offer, VENDOR)


async def take_up(folder: Path) -> dict[str, Any]:
    """What the next process makes of it: by itself, and when the offer is accepted once more."""
    async with sides(folder, Steps(None)) as (broker, table, here, there):
        was_open = [each.state for each in table.open(BROKER)]
        broker.take_up()
        async with asyncio.timeout(20):
            while broker._settling or table.open(BROKER):  # noqa: ASYNC110 - decided, and written down
                await asyncio.sleep(0.01)
        by_itself = [await agreements(store) for store in (here, there)]
        (offer,) = await here.all(Offer)
        agreement = await broker.accept(offer, VENDOR)
        after = [await agreements(store) for store in (here, there)]
        return {
            "open": was_open, "by_itself": by_itself, "after": after,
            "agreed": [[digest(agreement), agreement.state]],
        }  # fmt: skip


async def agreements(store: Store) -> list[tuple[str, str]]:
    """All agreements that a side knows of."""
    return [(digest(each), each.state) for each in await store.all(Agreement)]


def in_child(work: Callable[[], Any]) -> int:
    """Do it in a process of its own; gives how that ended."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def prepare(folder: Path) -> None:
    """Make two empty stores."""
    for name in ("broker", "vendor"):
        await (await Store.open(f"sqlite:///{folder}/{name}.db")).close()


def main(folder: Path) -> None:
    """Until nothing is left to be killed at."""
    (folder / "blank").mkdir()
    in_child(lambda: asyncio.run(prepare(folder / "blank")))
    for deadly in range(1000):
        shutil.copytree(folder / "blank", folder / str(deadly))
        ended = in_child(lambda: asyncio.run(play(folder / str(deadly), deadly)))  # noqa: B023
        if ended not in (0, KILLED):
            raise SystemExit(f"step {deadly}: ended with {ended}")
        if in_child(lambda: print(json.dumps(asyncio.run(take_up(folder / str(deadly)))))):  # noqa: B023, T201
            raise SystemExit(f"step {deadly}: could not be taken up")
        if ended == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
