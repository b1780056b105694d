"""The call for proposals: what the Broker asks every Vendor Agent."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.application import Requirements
from descriptors.base import Document, Element, Identifier, Moment, Name, Quantity, Reference
from descriptors.resources import ResourceClass


class Part(Element, tag="part"):
    """Components that one vendor could have without the others."""

    components: tuple[Name, ...] = element(tag="component", min_length=1)
    resources: tuple[Name, ...] = element(tag="uses", min_length=1)
    """The names of the resource classes that they need; of a machine's, as often as there are machines."""


class Flow(Element, tag="flow"):
    """What is expected to flow from one component to another, or to the world, in a month."""

    sender: Name = attr()
    receiver: Name | None = attr(default=None)
    """None: the world."""
    gib_month: Quantity = attr()


class CallForProposals(Document, tag="call-for-proposals"):
    """One call: the resource classes wanted together from one vendor, the terms, and the deadline."""

    id: Identifier = attr()
    application: Name = attr()
    purpose: Literal["deployment", "relocation", "renegotiation"] = attr()
    """In a relocation a block volume with a ``fallback`` may be adapted to it where there is no block storage; in a
    renegotiation it may have been."""
    issued: Moment = attr()
    reply_by: Moment = attr()
    """Answers after this moment are counted, never used."""
    vendors: tuple[Name, ...] = element(tag="vendor", default=())
    """Whom to ask; empty: every vendor there is."""
    requirements: Requirements = element(tag="requirements", default=Requirements())
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    supersedes: Reference | None = element(tag="supersedes", default=None)
    """In a renegotiation: the running agreement that is to be replaced."""
    components: tuple[Name, ...] = element(tag="component", default=())
    """What the resources are for; none: the whole application."""
    parts: tuple[Part, ...] = element(tag="part", default=())
    """What could go to different vendors: each is called for by itself, too. None: nothing."""
    flows: tuple[Flow, ...] = element(tag="flow", default=())
