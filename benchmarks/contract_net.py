"""A Contract Net round in process: N Vendor agents with catalogues of their own, beside the same decisions alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Participant, call_for_proposals
from agency.messaging.links.in_process import InProcessLink
from benchmarks.measuring import Figure, in_turn
from broker.comparison import compare
from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import load
from descriptors.sla import Agreement, Offer, Refusal
from vendor_modules.proposals import propose
from vendor_modules.resources import Catalogue, Size


def _catalogue(number: int) -> Catalogue:
    size = Size(name="small", cores=1, memory_mib=1024, price_per_hour=Decimal(number + 1) / 1000)
    price = Decimal("0.1")
    return Catalogue(
        region="desk", jurisdiction="EU", currency="EUR", sizes=(size,), block_gib_month=price, object_gib_month=price
    )


def _call(application: Application) -> CallForProposals:
    now = utc_now()
    return CallForProposals(
        id=new_id("call"), application=application.name, purpose="deployment", issued=now,
        reply_by=now + timedelta(seconds=60), resources=application.resources,
    )  # fmt: skip


def _proposer(name: str, number: int) -> Callable[[CallForProposals], Awaitable[Offer | Refusal]]:
    catalogue = _catalogue(number)

    async def answer(call: CallForProposals) -> Offer | Refusal:
        return propose(name, call, catalogue)

    return answer


async def _never(offer: Offer) -> Agreement:
    raise AssertionError(f"nobody accepts {offer.id} here")


async def _round(count: int, application: Application) -> Figure:
    link = InProcessLink()
    broker = RoleAgent(link.address(addresses.BROKER), link)
    vendors = {link.address(addresses.vendor(f"v{number}")): f"v{number}" for number in range(count)}
    agents = [broker, *(RoleAgent(jid, link) for jid in vendors)]
    proposers = {name: _proposer(name, number) for number, name in enumerate(vendors.values())}
    for agent, name in zip(agents[1:], vendors.values(), strict=True):
        Participant.install(agent, proposers[name], _never)
    for agent in agents:
        await agent.start()

    async def ours() -> None:
        call = _call(application)
        answers = await call_for_proposals(broker, call, vendors)
        compare(call, answers, utc_now())

    async def bare() -> None:
        call = _call(application)
        compare(call, {name: await answer(call) for name, answer in proposers.items()}, utc_now())

    try:
        return await in_turn(f"Contract Net, {count} vendors", ours, "the decisions alone", bare, 7)
    finally:
        for agent in agents:
            await agent.stop()


async def run() -> list[Figure]:
    """Rounds with 10 and 100 vendors."""
    path = Path(__file__).parent.parent / "examples" / "guestbook" / "application.xml"
    application = load(path, expect=Application)
    return [await _round(count, application) for count in (10, 100)]
