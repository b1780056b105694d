"""A Contract Net round in process: N Vendor agents with catalogues of their own, beside the same decisions alone."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.in_process import InProcessLink
from agency.settings import DOMAIN
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.measuring import Figure, in_turn
from broker.comparison import compare
from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import load
from descriptors.sla import Agreement, CounterOffer, Offer, Refusal
from descriptors.trust import Acceptance
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


class _Seller:
    """A bidder with a catalogue, that nobody accepts anything of."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._catalogue = _catalogue(number)

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """What the catalogue gives."""
        return propose(self._name, call, self._catalogue)

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Never."""
        raise AssertionError(f"nobody haggles here: {counter.id}")

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Never."""
        raise AssertionError(f"nobody accepts {acceptance.offer} here")


async def _round(count: int, application: Application) -> Figure:
    link, key = InProcessLink(), SiteKey.generate(DOMAIN)
    site = Site(key, TrustedKeys([(DOMAIN, key.public)]), Replays(), store=None)
    broker = RoleAgent(link.address(addresses.BROKER), link)
    net, conversations = Initiator(broker, site, Conversations()), Conversations()
    vendors = {link.address(addresses.vendor(f"v{number}")): f"v{number}" for number in range(count)}
    agents = [broker, *(RoleAgent(jid, link) for jid in vendors)]
    sellers = {name: _Seller(name, number) for number, name in enumerate(vendors.values())}
    for agent, name in zip(agents[1:], vendors.values(), strict=True):
        Participant(agent, sellers[name], site, conversations)
    for agent in agents:
        await agent.start()

    async def ours() -> None:
        call = _call(application)
        heard = await net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
        compare(call, {vendors[jid]: each.answer for jid, each in heard.items()}, utc_now())

    async def bare() -> None:
        call = _call(application)
        compare(call, {name: await seller.propose(call) for name, seller in sellers.items()}, utc_now())

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
