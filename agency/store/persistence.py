"""What Vendor Modules remember, in the store."""

from __future__ import annotations

from typing import cast

from sqlalchemy import select, update

from agency.store.models import ResourceRow
from agency.store.store import Store
from descriptors.deployment import Kind
from descriptors.sla import Offer
from vendor_modules.services.persistence import RecordStatus, ResourceRecord


class StorePersistence:
    """The persistence service: :class:`~vendor_modules.services.persistence.Persistence` on the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def save_proposal(self, offer: Offer) -> None:
        """Remember an offer that was made."""
        await self._store.put(offer, id=offer.id)

    async def proposal(self, offer_id: str) -> Offer | None:
        """The offer with that id; None if none was remembered."""
        return await self._store.find(Offer, offer_id)

    async def save_resource(self, record: ResourceRecord) -> None:
        """Remember a resource, durably, before this returns."""
        name = {"vendor": record.vendor, "kind": record.kind, "key": record.key}
        await self._store.upsert(ResourceRow, name | {"status": record.status, "resource": record.id}, by=tuple(name))

    async def resource(self, vendor: str, kind: Kind, key: str) -> ResourceRecord | None:
        """The record of the resource made with that key; None if there is none."""
        query = select(ResourceRow).where(
            ResourceRow.vendor == vendor, ResourceRow.kind == kind, ResourceRow.key == key
        )
        async with self._store.transaction() as session:
            row = await session.scalar(query)
        return None if row is None else _record(row)

    async def resources(self, vendor: str, *, status: RecordStatus | None = None) -> list[ResourceRecord]:
        """The vendor's records, in the order they were first saved."""
        query = select(ResourceRow).where(ResourceRow.vendor == vendor).order_by(ResourceRow.id)
        if status is not None:
            query = query.where(ResourceRow.status == status)
        async with self._store.transaction() as session:
            return [_record(row) for row in (await session.scalars(query)).all()]

    async def mark_destroyed(self, vendor: str, kind: Kind, resource_id: str) -> None:
        """Set the status of the resource with that id; nothing happens if it is not known."""
        this = (ResourceRow.vendor == vendor, ResourceRow.kind == kind, ResourceRow.resource == resource_id)
        async with self._store.transaction() as session:
            await session.execute(update(ResourceRow).where(*this).values(status="destroyed"))


def _record(row: ResourceRow) -> ResourceRecord:
    return ResourceRecord(row.vendor, cast(Kind, row.kind), row.key, cast(RecordStatus, row.status), row.resource)
