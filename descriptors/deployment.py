"""The deployment descriptor: what was really created where, and under which agreement."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.application import Label
from descriptors.base import Document, Element, Identifier, Moment, Name, Revision, Text

Kind = Literal[
    "machine",
    "volume",
    "snapshot",
    "image",
    "bucket",
    "access-key",
    "key-pair",
    "security-group",
    "address",
    "network",
    "load-balancer",
]
"""What a vendor can be asked to hold: the kinds of resource that are created, listed and destroyed."""


class DeployedResource(Element, tag="deployed"):
    """One resource at a vendor."""

    kind: Kind = attr()
    id: Identifier = attr()
    """The vendor's identifier."""
    name: Label = attr()
    """The task that made it, such as ``launch-web`` or ``volume-data``. After a move in part several may have one
    name: what is unique is vendor, kind and id."""
    vendor: Name = attr()
    agreement: Identifier = attr()
    key: Identifier = attr()
    """The idempotency key it was created with."""
    component: Name | None = attr(default=None)
    resource: Name | None = attr(default=None)
    """The resource class it serves, if it serves one."""


class Endpoint(Element, tag="endpoint"):
    """Where a component answers: the agency's name for it is kept up to date when it moves."""

    component: Name = attr()
    url: Text = attr()


class Deployment(Document, tag="deployment"):
    """The deployment of one application; rewritten, with the next revision, when the application moves."""

    id: Identifier = attr()
    application: Name = attr()
    revision: Revision = attr()
    changed: Moment = attr()
    status: Literal["deploying", "running", "stopped", "failed", "destroyed"] = attr()
    agreements: tuple[Identifier, ...] = element(tag="agreement", min_length=1)
    resources: tuple[DeployedResource, ...] = wrapped("resources", element(tag="deployed", default=()))
    endpoints: tuple[Endpoint, ...] = wrapped("endpoints", element(tag="endpoint", default=()))

    def vendor_of(self, component: str) -> str:
        """The vendor that runs the component's machine; ``KeyError`` if it has none."""
        return self.the("machine", component=component).vendor

    def all(self, kind: Kind | None = None, **fields: str) -> tuple[DeployedResource, ...]:
        """The resources of that kind whose fields have these values, in the order they were created."""
        wanted = fields.items()
        return tuple(
            r for r in self.resources if kind in (None, r.kind) and all(getattr(r, f) == value for f, value in wanted)
        )

    def the(self, kind: Kind, **fields: str) -> DeployedResource:
        """The first of :meth:`all`; ``KeyError`` if there is none."""
        found = self.all(kind, **fields)
        if not found:
            raise KeyError(f"{kind} {fields}")
        return found[0]
