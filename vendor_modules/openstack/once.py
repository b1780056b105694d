"""Creating a resource once, although calls are repeated, answers are lost, and the network may deliver a request
twice."""

from __future__ import annotations

import time
from collections.abc import Callable

from vendor_modules.openstack.client import Json
from vendor_modules.openstack.errors import Refused

POLL, POLLS = 0.5, 60
"""Seconds between two looks at what was removed, and how many there are."""


def once(find: Callable[[], list[Json]], make: Callable[[], Json], remove: Callable[[Json], object]) -> Json:
    """The one resource that ``find`` finds by its key; made, if there is none.

    What was made is looked at again: of several, the oldest is kept, whoever looks, and the others are removed. A
    refusal does not count if the resource is there all the same: it then answers the second of two equal requests.
    """
    there = find()
    if not there:
        try:
            made = make()
            there = find() or [made]
        except Refused:
            there = find()
            if not there:
                raise
    kept, *others = sorted(
        there, key=lambda item: (item.get("created") or item.get("created_at") or "", item.get("id", ""))
    )
    for other in others:
        try:
            remove(other)
        except Refused as refused:
            if refused.status != 404:
                raise
    _await_end_of({other["id"] for other in others}, find)
    return kept


def _await_end_of(removed: set[str], find: Callable[[], list[Json]]) -> None:
    """Wait, in a thread of the pool, until what was removed is not listed any more."""
    for _ in range(POLLS):
        if not removed or not removed & {item["id"] for item in find()}:
            return
        time.sleep(POLL)
