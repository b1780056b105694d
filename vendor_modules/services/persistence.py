"""The persistence service: proposals and resources with their status, remembered across restarts.

The agency implements it on its database; :class:`MemoryPersistence` serves tests and the conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from descriptors.deployment import Kind
from descriptors.sla import Offer

RecordStatus = Literal["intended", "created", "destroyed"]


@dataclass(frozen=True)
class ResourceRecord:
    """What is remembered of one resource. ``id`` is None between the intent to create it and the provider's answer."""

    vendor: str
    kind: Kind
    key: str
    status: RecordStatus
    id: str | None = None


class Persistence(Protocol):
    """Where a module remembers. Records are found by (vendor, kind, key); writing one again replaces it."""

    async def save_proposal(self, offer: Offer) -> None:
        """Remember an offer that was made."""

    async def proposal(self, offer_id: str) -> Offer | None:
        """The offer with that id; None if none was remembered."""

    async def save_resource(self, record: ResourceRecord) -> None:
        """Remember a resource, durably, before this returns."""

    async def resource(self, vendor: str, kind: Kind, key: str) -> ResourceRecord | None:
        """The record of the resource made with that key; None if there is none."""

    async def resources(self, vendor: str, *, status: RecordStatus | None = None) -> list[ResourceRecord]:
        """The vendor's records, in the order they were first saved."""

    async def mark_destroyed(self, vendor: str, kind: Kind, resource_id: str) -> None:
        """Set the status of the resource with that id; nothing happens if it is not known."""


class MemoryPersistence:
    """Persistence that lasts as long as the process."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self._records: dict[tuple[str, Kind, str], ResourceRecord] = {}

    async def save_proposal(self, offer: Offer) -> None:
        """See :class:`Persistence`."""
        self._offers[offer.id] = offer

    async def proposal(self, offer_id: str) -> Offer | None:
        """See :class:`Persistence`."""
        return self._offers.get(offer_id)

    async def save_resource(self, record: ResourceRecord) -> None:
        """See :class:`Persistence`."""
        self._records[record.vendor, record.kind, record.key] = record

    async def resource(self, vendor: str, kind: Kind, key: str) -> ResourceRecord | None:
        """See :class:`Persistence`."""
        return self._records.get((vendor, kind, key))

    async def resources(self, vendor: str, *, status: RecordStatus | None = None) -> list[ResourceRecord]:
        """See :class:`Persistence`."""
        return [r for r in self._records.values() if r.vendor == vendor and status in (None, r.status)]

    async def mark_destroyed(self, vendor: str, kind: Kind, resource_id: str) -> None:
        """See :class:`Persistence`."""
        for name, record in self._records.items():
            if (record.vendor, record.kind, record.id) == (vendor, kind, resource_id):
                self._records[name] = replace(record, status="destroyed")
