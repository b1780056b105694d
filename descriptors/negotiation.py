"""Negotiation: what the deployer lets the broker do, and the timeline of what was said."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.base import Currency, Document, Element, Identifier, Moment, Money, Name
from descriptors.resources import Reason
from descriptors.sla import Change


class Mandate(Document, tag="mandate"):
    """Negotiate about an application, within these limits."""

    application: Name = attr()
    purpose: Literal["deployment", "relocation", "renegotiation"] = attr(default="deployment")
    strategy: Name = attr(default="boulware")
    """How the broker concedes: see :data:`broker.negotiation.STRATEGIES`."""
    budget: Money | None = attr(default=None)
    """Most that a month may cost, in the currency of the call; None: what the call says."""
    rounds: int = attr(default=4, ge=1, le=100)
    """Most counter-offers to each vendor."""
    seconds: int | None = attr(default=None, ge=1, le=86400)
    """How long it may take in all; None: as long as the agency usually gives to vendors."""
    commit_days: int | None = attr(default=None, gt=0, le=3660)
    """The minimum term that the deployer would agree to."""
    vendor: Name | None = attr(default=None)
    """Only with this vendor; of a renegotiation: whose agreement it is."""
    component: Name | None = attr(default=None)
    """Of a relocation: only this component."""
    call: Identifier | None = attr(default=None)
    """The call that is negotiated about, once it is made."""


class Turn(Element, tag="turn"):
    """Something that was said, or that was not."""

    at: Moment = attr()
    round: int = attr(ge=1, le=1000)
    vendor: Name = attr()
    act: Literal["offer", "counter-offer", "refusal", "silence", "too-late"] = attr()
    """``too-late``: an answer that came after its round, and was not used."""
    document: Identifier | None = attr(default=None)
    """The offer's or the counter-offer's id."""
    price_per_hour: Money | None = attr(default=None)
    """What is offered, or wanted."""
    minimum_days: int | None = attr(default=None, gt=0, le=3660)
    changes: tuple[Change, ...] = element(tag="change", default=())
    """What a counter-offer wants."""
    reason: Reason | None = element(tag="reason", default=None)


class Outcome(Element, tag="outcome"):
    """How it ended with one vendor."""

    vendor: Name = attr()
    result: Literal["offer", "none"] = attr()
    """``offer``: its last offer may be accepted."""
    offer: Identifier | None = attr(default=None)
    first_per_hour: Money | None = attr(default=None)
    """The price that it offered first."""
    last_per_hour: Money | None = attr(default=None)
    rounds: int = attr(ge=0, le=1000)
    """Counter-offers that it answered with another offer."""
    why: Reason = element(tag="why")
    """Why it ended."""


class Negotiation(Document, tag="negotiation"):
    """A negotiation that is over: its timeline, and what came of each vendor."""

    call: Identifier = attr()
    application: Name = attr()
    purpose: Literal["deployment", "relocation", "renegotiation"] = attr()
    strategy: Name = attr()
    currency: Currency = attr()
    budget: Money | None = attr(default=None)
    began: Moment = attr()
    ended: Moment = attr()
    deadline: Moment = attr()
    rounds: int = attr(ge=1, le=1000)
    """How many there were, the call included."""
    turns: tuple[Turn, ...] = wrapped("turns", element(tag="turn", default=()))
    """In the order of their moments."""
    outcomes: tuple[Outcome, ...] = wrapped("outcomes", element(tag="outcome", default=()))
