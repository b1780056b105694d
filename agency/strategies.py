"""The strategies of negotiation that there are, and the policies that name them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from agency.problems import refuse
from broker.negotiation import STRATEGIES, Strategy
from broker.pricing import Policy

PLUG_INS = "cloud_agency.strategies"
"""The group of entry points under which others bring theirs: functions of a :class:`~broker.negotiation.Situation`."""


def strategies() -> dict[str, Strategy]:
    """All strategies by name: ours, and those that are plugged in."""
    return {point.name: point.load() for point in entry_points(group=PLUG_INS)} | dict(STRATEGIES)


def check_strategy(name: str) -> None:
    """Refuse a strategy that there is not."""
    known = sorted(strategies())
    if name not in known:
        raise refuse("unknown-strategy", f"there is no strategy {name[:80]!r}", f"take one of {', '.join(known)}")


def policy(stated: Mapping[str, Any]) -> Policy:
    """A vendor's policy, as its file states it; pydantic's ``ValidationError`` for one that makes no sense."""
    found = Policy.model_validate(stated)
    check_strategy(found.strategy)
    return found
