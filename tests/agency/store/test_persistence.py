"""The store's persistence service does what the one in memory does."""

from __future__ import annotations

import pytest

from agency.store.persistence import StorePersistence
from agency.store.store import Store
from tests.agency.store.samples import offer
from vendor_modules.services.persistence import MemoryPersistence, Persistence, ResourceRecord


@pytest.fixture(params=["memory", "store"])
def persistence(request: pytest.FixtureRequest, store: Store) -> Persistence:
    """Both implementations."""
    return MemoryPersistence() if request.param == "memory" else StorePersistence(store)


async def test_proposals_are_remembered(persistence: Persistence) -> None:
    """An offer is found by its id, and one never made is not."""
    await persistence.save_proposal(offer())
    assert await persistence.proposal("offer-1") == offer()
    assert await persistence.proposal("offer-2") is None


async def test_records_are_found_by_vendor_kind_and_key(persistence: Persistence) -> None:
    """A record is found by all three, and by nothing less."""
    record = ResourceRecord("alpha", "volume", "k", "intended")
    await persistence.save_resource(record)
    assert await persistence.resource("alpha", "volume", "k") == record
    assert await persistence.resource("beta", "volume", "k") is None
    assert await persistence.resource("alpha", "machine", "k") is None
    assert await persistence.resource("alpha", "volume", "other") is None


async def test_saving_again_replaces_in_place(persistence: Persistence) -> None:
    """The latest record counts, at the place of the first; lists are by vendor, and by status if asked."""
    await persistence.save_resource(ResourceRecord("alpha", "volume", "one", "intended"))
    await persistence.save_resource(ResourceRecord("alpha", "machine", "two", "intended"))
    await persistence.save_resource(ResourceRecord("beta", "machine", "three", "intended"))
    created = ResourceRecord("alpha", "volume", "one", "created", "vol-1")
    await persistence.save_resource(created)
    assert [r.key for r in await persistence.resources("alpha")] == ["one", "two"]
    assert await persistence.resources("alpha", status="created") == [created]


async def test_destroyed_is_marked(persistence: Persistence) -> None:
    """Only the record with that vendor, kind and id is marked; an unknown id is no error."""
    await persistence.save_resource(ResourceRecord("alpha", "volume", "one", "created", "id-1"))
    await persistence.save_resource(ResourceRecord("alpha", "machine", "two", "created", "id-1"))
    await persistence.mark_destroyed("alpha", "volume", "id-1")
    await persistence.mark_destroyed("alpha", "volume", "nowhere")
    assert [(r.key, r.status) for r in await persistence.resources("alpha")] == [
        ("one", "destroyed"),
        ("two", "created"),
    ]
