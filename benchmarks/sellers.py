"""What a Contract Net of the benchmarks is about: the example's call, and vendors with a catalogue each."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import load
from descriptors.sla import Agreement, CounterOffer, Offer, Refusal
from descriptors.trust import Acceptance
from vendor_modules.proposals import propose
from vendor_modules.resources import Catalogue, Size

REPLY_WITHIN = timedelta(seconds=20)


def example() -> Application:
    """The application that is called for."""
    return load(Path(__file__).parent.parent / "examples" / "guestbook" / "application.xml", expect=Application)


def call_for(application: Application, within: timedelta = REPLY_WITHIN) -> CallForProposals:
    """A new call, to be answered that soon."""
    now = utc_now()
    return CallForProposals(
        id=new_id("call"), application=application.name, purpose="deployment", issued=now,
        reply_by=now + within, resources=application.resources,
    )  # fmt: skip


class Seller:
    """A bidder with a catalogue, that nobody accepts anything of."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._catalogue = catalogue(Decimal(number + 1) / 1000)

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """What the catalogue gives."""
        return propose(self._name, call, self._catalogue)

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Never."""
        raise AssertionError(f"nobody haggles here: {counter.id}")

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Never."""
        raise AssertionError(f"nobody accepts {acceptance.offer} here")


def catalogue(per_hour: Decimal, offers_last: int = 900) -> Catalogue:
    """One that fits the example: a machine at that price in EUR an hour. ``offers_last``: seconds."""
    size, price = Size(name="small", cores=1, memory_mib=1024, price_per_hour=per_hour), Decimal("0.1")
    return Catalogue(
        region="desk", jurisdiction="EU", currency="EUR", sizes=(size,), block_gib_month=price, object_gib_month=price,
        offer_validity_seconds=offers_last,
    )  # fmt: skip
