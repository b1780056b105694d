"""How vendors have behaved so far, kept in the store, a document each.

What counts, until agreements are measured: every agreement that was made; against the vendor, that it did not stand by
an offer that was accepted in time, and that an operation under an agreement failed at it by its own fault, in whatever
it was asked to do there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agency.store.store import AlreadyExists, Conflicted, Store
from descriptors.base import utc_now
from descriptors.comparison import Incident, Record
from descriptors.messages import Problem

KEPT = 100
"""Incidents that are told of; all are counted."""
_OURS = frozenset(
    f"vendor-{what}" for what in ("unauthorized", "forbidden", "invalid-request", "quota-exceeded", "unsupported")
)
"""Vendors' errors that are no fault of theirs: asked with the wrong key, for what they never offered, or for more than
our account with them has room for."""


async def records(store: Store) -> dict[str, Record]:
    """What is known of vendors, by name; of a newcomer, nothing."""
    return {record.vendor: record for record in await store.all(Record)}


async def agreed(store: Store, vendor: str) -> None:
    """An agreement was made with the vendor."""
    await _change(store, vendor, lambda old: {"agreements": old.agreements + 1})


async def broke(store: Store, vendor: str, *, about: str, code: str, application: str, message: str) -> None:
    """The vendor did not do what it had agreed to. Told twice ``about`` the same, it counts once."""
    incident = Incident(about=about, code=code, application=application, at=utc_now(), message=message[:1024])

    def counted(old: Record) -> dict[str, Any]:
        if any(known.about == about for known in old.incidents):
            return {}
        return {"broken": old.broken + 1, "incidents": (*old.incidents, incident)[-KEPT:]}

    await _change(store, vendor, counted)


def at_fault(problem: Problem) -> bool:
    """Whether a problem is of the vendor's making: an error that came from its provider, and not our own doing."""
    return problem.code.startswith("vendor-") and problem.code not in _OURS


async def _change(store: Store, vendor: str, changes: Callable[[Record], dict[str, Any]]) -> None:
    """Keep the changes to the vendor's record; tried again when somebody else has written meanwhile."""
    while True:
        old = await store.find(Record, vendor)
        new = (old or Record(vendor=vendor)).model_copy(update=changes(old or Record(vendor=vendor)))
        try:
            if old is None:
                await store.insert(new, id=vendor)
            else:
                new = new.model_copy(update={"revision": old.revision + 1})
                await store.replace(new, id=vendor, expected_revision=old.revision)
        except (AlreadyExists, Conflicted):
            continue
        return
