"""The vendors of :mod:`benchmarks.contract_net_soak`: each a process of its own, a site with a store and a domain.

This process only begets them and ends them, as it is told in lines: ``{"start": NUMBER}``, which says the process's
id, and ``{"kill": NUMBER}``, which is SIGKILL. A fork of one that has loaded everything is there at once; to start
Python for each would take more of the machine than the rest of the soak.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agency import logs
from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.conversations import Conversations
from agency.messaging.links.component import component_link
from agency.problems import AgencyError, refuse
from agency.settings import Settings
from agency.state import opened
from agency.store.persistence import StorePersistence
from agency.store.store import Store
from agency.trust.site import Site
from benchmarks.processes import say
from benchmarks.sellers import catalogue
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.sla import Agreement, CounterOffer, Offer, Refusal, ends
from descriptors.trust import Acceptance
from vendor_modules.proposals import propose

STEADY = 2
"""The first vendors are never killed, and never dawdle: their memory is watched, and they must answer whenever the
server is there."""
THINKS = 0.05
"""Seconds at most that a vendor thinks about a call; now and then it dawdles."""
DAWDLES, DAWDLES_FOR = 1 / 400, 10.0
"""How often, and for how many seconds: its answer comes too late."""
TRY_AGAIN = 0.2
"""Seconds until a vendor that the server did not let in tries again, as a service that is restarted would."""


def domain_of(number: int) -> str:
    """The vendor's site."""
    return f"v{number}.a.test"


def jid_of(number: int) -> str:
    """The vendor's agent."""
    return f"{addresses.vendor(f'v{number}')}@{domain_of(number)}"


def state_of(folder: Path, number: int) -> Path:
    """Where the vendor remembers."""
    return folder / f"v{number}"


class Seller:
    """Asks another price each time, and stands by what it offered, also after it was killed."""

    def __init__(self, number: int, store: Store, offers_last: int) -> None:
        """``offers_last``: seconds."""
        self._name = f"v{number}"
        self._dawdles = DAWDLES if number >= STEADY else 0.0
        self._memory, self._offers_last = StorePersistence(store), offers_last

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """An offer, after some thought."""
        dawdles = random.random() < self._dawdles  # noqa: S311
        await asyncio.sleep(DAWDLES_FOR if dawdles else random.uniform(0, THINKS))  # noqa: S311
        price = Decimal(random.randint(1, 1000)) / 1000  # noqa: S311
        offer = propose(self._name, call, catalogue(price, self._offers_last))
        if isinstance(offer, Offer):
            await self._memory.save_proposal(offer)
        return offer

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Never."""
        raise AssertionError(f"nobody haggles here: {counter.id}")

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """What was offered, until it expires."""
        offer = await self._memory.proposal(acceptance.offer)
        if offer is None or digest(offer) != acceptance.offer_digest:
            raise refuse("not-offered", f"{self._name} never made this offer", "ask for new offers")
        now = utc_now()
        if offer.expires <= now:
            raise refuse("expired", f"offer {offer.id} expired", "ask for new offers")
        return Agreement(
            id=f"agreement-{offer.id}", application=offer.application, offer=offer.id, offer_digest=digest(offer),
            provider=offer.vendor, consumer="deployer", state="observed", agreed=now, expires=ends(now, offer.price),
            price=offer.price, resources=offer.resources, allocations=offer.allocations, guarantees=offer.guarantees,
        )  # fmt: skip


async def _sell(number: int, told: dict[str, Any]) -> None:
    state, domain = state_of(Path(told["folder"]), number), domain_of(number)
    logs.configure(state, level="WARNING")
    async with opened(Settings(state=state)) as (store, credentials):
        table, site = Conversations(store), await Site.open(store, credentials, domain)
        await table.load()
        while True:
            try:
                async with component_link(domain, *told["ports"][domain], SecretStr(told["secret"])) as link:
                    agent = RoleAgent(jid_of(number), link)
                    Participant(agent, Seller(number, store, told["offers_last"]), site, table)
                    await agent.start()
                    await asyncio.Event().wait()  # until killed
            except AgencyError:
                await asyncio.sleep(TRY_AGAIN)


# --- the process that begets them ---


def _begotten(number: int, told: dict[str, Any]) -> int:
    """Start the vendor in a process of its own; gives its id."""
    if child := os.fork():
        return child
    code = 1
    try:
        with Path(os.devnull).open("r+b", buffering=0) as nothing:
            for mine in (0, 1):  # what this process is told is not for the vendor to read
                os.dup2(nothing.fileno(), mine)
        random.seed()
        asyncio.run(_sell(number, told))
        code = 0
    finally:
        os._exit(code)


@contextmanager
def _all_ended_at_last(vendors: dict[int, int]) -> Iterator[None]:
    try:
        yield
    finally:
        for child in vendors.values():
            _kill(child)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main() -> None:
    """Do as told, until nothing more is said."""
    told = json.loads(sys.stdin.readline())
    gc.collect()
    gc.freeze()
    say()
    vendors: dict[int, int] = {}
    with _all_ended_at_last(vendors):
        for line in sys.stdin:
            order = json.loads(line)
            if "start" in order:
                vendors[order["start"]] = _begotten(order["start"], told)
                say(pid=vendors[order["start"]])
            else:
                _kill(vendors.pop(order["kill"]))
                say()


if __name__ == "__main__":
    main()
