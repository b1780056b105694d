"""The call for proposals: what the Broker asks every Vendor Agent."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.application import Requirements
from descriptors.base import Document, Identifier, Moment, Name, Reference
from descriptors.resources import ResourceClass


class CallForProposals(Document, tag="call-for-proposals"):
    """One call: the resource classes wanted together from one vendor, the terms, and the deadline."""

    id: Identifier = attr()
    application: Name = attr()
    purpose: Literal["deployment", "relocation", "renegotiation"] = attr()
    """In a relocation a block volume with a ``fallback`` may be adapted to it where there is no block storage."""
    issued: Moment = attr()
    reply_by: Moment = attr()
    """Answers after this moment are counted, never used."""
    vendors: tuple[Name, ...] = element(tag="vendor", default=())
    """Whom to ask; empty: every vendor there is."""
    requirements: Requirements = element(tag="requirements", default=Requirements())
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    supersedes: Reference | None = element(tag="supersedes", default=None)
    """In a renegotiation: the running agreement that is to be replaced."""
