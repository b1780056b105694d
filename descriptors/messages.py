"""What agents say to each other besides the documents proper: a request for an action, and a problem."""

from __future__ import annotations

from typing import Literal

from pydantic_xml import attr, element

from descriptors.base import Document, Identifier, Name, Text, Token

Action = Literal["accept", "deploy", "start", "stop", "destroy", "plan-relocation", "relocate", "cancel", "template"]


class Request(Document, tag="request"):
    """The content of a FIPA ``request``: do this with that."""

    action: Action = attr()
    subject: Identifier = attr()
    """What to act on: an application's name, an offer's, a plan's or a template's id."""
    vendor: Name | None = attr(default=None)
    """Only with this vendor, where the action allows a choice."""
    component: Name | None = attr(default=None)
    """Only this component, where the action allows a choice."""
    delegations: tuple[Token, ...] = element(tag="delegation", default=())
    """What lets the agent accept each offer, signed by the deployer: where the action ends in an agreement, or, with a
    composition, in several."""


class Problem(Document, tag="problem"):
    """The content of a FIPA ``refuse``, ``failure`` or ``not-understood``: what happened and what to do about it."""

    code: Name = attr()
    """A stable word to match on."""
    message: Text = element()
    remedy: Text = element()
    retryable: bool = attr(default=False)
    receipt: Identifier | None = attr(default=None)
    """The receipt that tells the whole story, if one was written."""
