"""What a directory knows and is asked: which agent serves what (FIPA's Directory Facilitator, SC00023K)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints
from pydantic_xml import attr, element

from descriptors.application import Label
from descriptors.base import Currency, Document, Moment, Money, Name

Service = Literal["compute", "block", "object"]
"""What a vendor may serve: machines, block volumes, object stores."""
AgentAddress = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,100}@[a-z0-9.-]{1,150}$")]
"""An agent's address (a bare JID)."""

Site = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,150}$")]
"""A site's name: the domain of its agents."""


class Registration(Document, tag="registration"):
    """What a Vendor Agent says of itself to its directory. Good until its lease ends; made anew before.

    What is empty or None it does not know yet: such a vendor is asked, and answers for itself.
    """

    vendor: Name = attr()
    agent: AgentAddress = attr()
    until: Moment = attr()
    """The end of the lease; in the past: the agent leaves."""
    gone: Moment | None = attr(default=None)
    """Since when the directory knows that the agent is not there; None: it is there."""
    currency: Currency | None = attr(default=None)
    price_from: Money | None = attr(default=None)
    """What its cheapest machine costs an hour, at list price; the dearest: ``price_to``."""
    price_to: Money | None = attr(default=None)
    services: tuple[Service, ...] = element(tag="service", default=())
    regions: tuple[Label, ...] = element(tag="region", default=())
    jurisdictions: tuple[Label, ...] = element(tag="jurisdiction", default=())
    capabilities: tuple[Name, ...] = element(tag="capability", default=())
    """Of its Vendor Module."""


class Search(Document, tag="search"):
    """A question to a directory: who could serve this? What is empty is not asked for."""

    currency: Currency | None = attr(default=None)
    site: Site | None = attr(default=None)
    """Have the directory ask that site's directory, which it must trust; None: asked for itself."""
    gone: bool = attr(default=False)
    """Whether those who are gone, and whose lease has not ended, are of interest, too."""
    services: tuple[Service, ...] = element(tag="service", default=())
    """All of these."""
    regions: tuple[Label, ...] = element(tag="region", default=())
    """Any of these; the same for jurisdictions."""
    jurisdictions: tuple[Label, ...] = element(tag="jurisdiction", default=())


class SearchResult(Document, tag="search-result"):
    """A directory's answer: those of its own site that could."""

    registrations: tuple[Registration, ...] = element(tag="registration", default=())
