"""Relocation: the plan to approve and the receipt that is left."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element, wrapped

from descriptors.application import Label
from descriptors.base import Bytes, Digest, Document, Element, Identifier, Moment, Name, Revision, Seconds, Text, Token
from descriptors.deployment import Kind
from descriptors.resources import Reason
from descriptors.sla import PriceTerms


class Item(Element, tag="item"):
    """One thing the application has, and what becomes of it."""

    action: Literal["move", "stay", "adapt"] = attr()
    kind: Literal[Kind, "configuration"] = attr()
    name: Name = attr()
    """The component or resource class."""
    bytes: Bytes = attr(default=0)
    """Bytes to move (plan) or moved (receipt)."""
    digest: Digest | None = attr(default=None)
    """BLAKE3 of the content moved (receipt)."""
    root: Digest | None = attr(default=None)
    """The root of the content moved, as its manifest has it (receipt)."""
    what: Text
    """What happens to it, in words."""


class Task(Element, tag="task"):
    """A step of the Viaduct: one Migrator at work, after the tasks that it needs."""

    name: Label = attr()
    migrator: Name = attr()
    vendor: Name | None = attr(default=None)
    subject: Name | None = attr(default=None)
    """The component or resource class that it works on."""
    needs: tuple[Label, ...] = element(tag="need", default=())


class RelocationPlan(Document, tag="relocation-plan"):
    """What a relocation will do, to be approved before it is done."""

    id: Identifier = attr()
    application: Name = attr()
    deployment: Identifier = attr()
    revision: Revision = attr()
    """Of the deployment that the plan was made for: a plan for another one is refused."""
    source: Name = attr()
    target: Name = attr()
    offer: Identifier = attr()
    created: Moment = attr()
    expires: Moment = attr()
    bytes: Bytes = attr()
    seconds: Seconds = attr()
    downtime_seconds: Seconds = attr()
    price_before: PriceTerms = element(tag="price_before")
    price_after: PriceTerms = element(tag="price_after")
    components: tuple[Name, ...] = element(tag="component", min_length=1)
    """The components that move."""
    items: tuple[Item, ...] = wrapped("items", element(tag="item", default=()))
    tasks: tuple[Task, ...] = wrapped("tasks", element(tag="task", default=()))


class Stage(Element, tag="stage"):
    """How long one task took."""

    task: Label = attr()
    seconds: Seconds = attr()


class RelocationReceipt(Document, tag="relocation-receipt"):
    """What a relocation did: the proof the deployer keeps."""

    id: Identifier = attr()
    plan: Identifier = attr()
    plan_digest: Digest = attr()
    application: Name = attr()
    agreement: Identifier | None = attr(default=None)
    """The agreement that the application runs under now; none when the relocation was rolled back before one."""
    source: Name = attr()
    target: Name = attr()
    outcome: Literal["relocated", "rolled-back", "cancelled"] = attr()
    started: Moment = attr()
    finished: Moment = attr()
    bytes_moved: Bytes = attr()
    seconds: Seconds = attr()
    downtime_seconds: Seconds = attr()
    content_before: Digest | None = attr(default=None)
    content_after: Digest | None = attr(default=None)
    items: tuple[Item, ...] = wrapped("items", element(tag="item", default=()))
    stages: tuple[Stage, ...] = wrapped("stages", element(tag="stage", default=()))
    problems: tuple[Reason, ...] = wrapped("problems", element(tag="problem", default=()))
    """What went wrong and what is still to be cleaned up, if anything."""
    manifests: tuple[Token, ...] = element(tag="manifest", default=())
    """For all content moved, the signed :class:`~descriptors.transfer.TransferManifest` of its way from the source to
    this site, and of that from here to the target, by ``PLAN/TASK``."""
