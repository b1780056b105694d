"""Two sites with an agent each, who know each other, and what one says to the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.signing import Signed, Signer, Verifier
from descriptors.base import Document
from descriptors.documents import load
from descriptors.sla import Offer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
HERE, THERE = "a.example", "b.example"
BROKER, VENDOR, OTHER = f"broker@{HERE}", f"vendor-alpha@{THERE}", f"vendor-beta@{THERE}"
CALL = "call-0123456789abcdef"
CALLS_DIGEST = "blake3:" + "0" * 64

OFFER = load(
    """
    document: offer
    id: offer-1
    call: call-0123456789abcdef
    application: guestbook
    vendor: alpha
    issued: 2026-11-22T12:00:00Z
    expires: 2026-11-22T12:05:00Z
    region: eu-1
    jurisdiction: EU
    price: {currency: EUR, per_hour: 0.10, per_month: 73}
    resources: [{name: m, type: COMPUTE, cores: 2}]
    allocations: [{resource: m, size: small, price_per_hour: 0.10}]
    """,
    expect=Offer,
)


@dataclass
class Parties:
    """A broker here, a vendor there, and what the broker believes."""

    here: SiteKey = field(default_factory=lambda: SiteKey.generate(HERE))
    there: SiteKey = field(default_factory=lambda: SiteKey.generate(THERE))
    moment: datetime = NOW
    """What the clocks of all signers show."""

    def __post_init__(self) -> None:
        self.trusted = TrustedKeys([(HERE, self.here.public), (THERE, self.there.public)])
        self.verifier = Verifier(self.trusted, Replays())
        self.vendor = self.signer(VENDOR, self.there)

    def signer(self, jid: str, site: SiteKey) -> Signer:
        """A signer whose clock is ours."""
        return Signer(jid, site, lambda: self.moment)

    def offer(self, document: Document = OFFER, **changes: Any) -> str:
        """The vendor's offer to the broker, signed."""
        return self.vendor.sign(document, **{"audience": BROKER, "expires": SOON, "answers": [CALLS_DIGEST], **changes})

    def take(self, token: str, **changes: Any) -> Signed[Offer]:
        """The broker gets the offer, from the vendor, in the call's conversation."""
        given = {"audience": BROKER, "sender": VENDOR, "conversation": CALL, "now": self.moment, **changes}
        return self.verifier.verify(token, given.pop("expect", Offer), **given)
