"""What binds: the acceptance of an offer, and the delegation that lets an agent accept. Both are sent signed."""

from __future__ import annotations

from pydantic_xml import attr

from descriptors.base import Currency, Digest, Document, Identifier, Moment, Money, Name


class Delegation(Document, tag="delegation"):
    """A deployer lets an agent accept offers for an application, up to a price, until a moment."""

    id: Identifier = attr()
    application: Name = attr()
    delegate: Identifier = attr()
    """The address (JID) of the agent that may accept."""
    per_month: Money = attr()
    """Most that what is accepted may cost in a month (730 hours), all of it together."""
    currency: Currency = attr()
    issued: Moment = attr()
    until: Moment = attr()


class Acceptance(Document, tag="acceptance"):
    """An offer is accepted, just as it was made: it binds both sides."""

    id: Identifier = attr()
    application: Name = attr()
    call: Identifier = attr()
    offer: Identifier = attr()
    offer_digest: Digest = attr()
    """BLAKE3 of the offer's canonical bytes: it is that offer, and no other, that is accepted."""
    accepted: Moment = attr()
